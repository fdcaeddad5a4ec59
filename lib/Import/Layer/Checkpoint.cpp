//===- Checkpoint.cpp - Checkpoints that the runtime reads ----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Checkpoint.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"

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

std::string importer::typeName(llvm::StringRef dtype,
                               llvm::ArrayRef<int64_t> shape) {
  auto extents = llvm::map_range(
      shape, [](int64_t extent) { return std::to_string(extent); });
  return (dtype + "[" + llvm::join(extents, ", ") + "]").str();
}
