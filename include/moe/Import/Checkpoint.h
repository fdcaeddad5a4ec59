//===- Checkpoint.h - Tensors that a layer is imported from -----*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_IMPORT_CHECKPOINT_H
#define MOE_IMPORT_CHECKPOINT_H

#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

#include <cstdint>
#include <string>
#include <vector>

namespace mlir::moe {

/// Provides the types and shapes of the tensors of a checkpoint by name.
class CheckpointReader {
public:
  struct Tensor {
    std::string dtype; // "f32", "f16", "bf16" or how an error calls it
    std::vector<int64_t> shape;
    /// Of a tensor whose rows are blocks with their own scales, the format of
    /// the blocks, e.g. "q4_K"; `dtype` is then u8, and the last extent is in
    /// bytes.
    std::string format = {};
  };

  virtual ~CheckpointReader();
  virtual bool contains(llvm::StringRef name) = 0;
  /// Fails for a tensor that does not exist or cannot be read.
  virtual llvm::Expected<Tensor> lookup(llvm::StringRef name) = 0;
};

} // namespace mlir::moe

#endif // MOE_IMPORT_CHECKPOINT_H
