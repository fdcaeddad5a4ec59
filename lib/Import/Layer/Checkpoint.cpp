//===- Checkpoint.cpp - Checkpoints that the runtime reads ----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Checkpoint.h"

using namespace mlir::moe;
using namespace mlir::moe::importer;

CheckpointReader::~CheckpointReader() = default;

llvm::Expected<CheckpointReader::Tensor>
RuntimeCheckpoint::lookup(llvm::StringRef name) {
  auto view = checkpoint.lookup(name);
  if (!view)
    return llvm::createStringError(view.error());
  return Tensor{::moe::io::dtypeName(view->dtype), view->shape,
                view->format ? view->format : ""};
}
