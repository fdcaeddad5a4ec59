//===- Dequantization.h - Match dequantized tensors -------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_TRANSFORMS_FUSION_DEQUANTIZATION_H
#define MOE_LIB_DIALECT_MOE_TRANSFORMS_FUSION_DEQUANTIZATION_H

#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"

namespace mlir::moe {

/// A dequantization: each element of `quantized` times the scale of its block.
/// `blocks` are the extents of a block.
struct Dequantization {
  Value quantized, scales;
  SmallVector<int64_t> blocks;
  /// True if a `moe.dequantize` has it, which can also be decoded once.
  bool hasFormat = false;
};

/// Matches `op` as a dequantization of f8E4M3FN with f32 scales, which may
/// round its result to 16 bits.
std::optional<Dequantization> matchDequantization(linalg::GenericOp op);

/// Matches `op` as a dequantization of f8E4M3FN by one scale for each block;
/// extends scales in 16 bits before it.
std::optional<Dequantization> matchDequantization(OpBuilder &b,
                                                  DequantizeOp op);

} // namespace mlir::moe

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_FUSION_DEQUANTIZATION_H
