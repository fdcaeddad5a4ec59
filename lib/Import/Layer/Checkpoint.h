//===- Checkpoint.h - Checkpoints that the runtime reads --------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_IMPORT_LAYER_CHECKPOINT_H
#define MOE_LIB_IMPORT_LAYER_CHECKPOINT_H

#include "moe/Import/Checkpoint.h"

#include "moe_rt/io.h"

#include "llvm/ADT/ArrayRef.h"

namespace mlir::moe::importer {

/// Reads checkpoints with the library of the runtime.
class RuntimeCheckpoint : public CheckpointReader {
public:
  explicit RuntimeCheckpoint(::moe::io::Checkpoint checkpoint)
      : checkpoint(std::move(checkpoint)) {}

  bool contains(llvm::StringRef name) override {
    return checkpoint.contains(name);
  }
  llvm::Expected<Tensor> lookup(llvm::StringRef name) override;

  const ::moe::io::Checkpoint &get() const { return checkpoint; }

private:
  ::moe::io::Checkpoint checkpoint;
};

/// Formats the type of a tensor for an error, such as "bf16[24, 32]".
std::string typeName(llvm::StringRef dtype, llvm::ArrayRef<int64_t> shape);

} // namespace mlir::moe::importer

#endif // MOE_LIB_IMPORT_LAYER_CHECKPOINT_H
