//===- PlainMatmul.h - Plain matmuls as grouped matmuls ---------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_TRANSFORMS_FUSION_GROUPING_PLAINMATMUL_H
#define MOE_LIB_DIALECT_MOE_TRANSFORMS_FUSION_GROUPING_PLAINMATMUL_H

#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"

#include <optional>

namespace mlir::moe {

/// `lhs · rhs`, or `lhs · rhsᵀ`, accumulated in f32 from zero.
struct PlainMatmul {
  Value lhs, rhs;
  bool transposed;
};

/// Matches `op` as a plain matmul.
std::optional<PlainMatmul> matchPlainMatmul(linalg::LinalgOp op);

/// Builds the grouped matmul of `lhs` and `weights` whose epilogue yields the
/// accumulator; `offsets` and `first` may be null. Returns its result, in f32.
Value buildPlainMatmul(OpBuilder &b, Location loc, Value lhs, Value offsets,
                       Value weights, bool transposed,
                       IntegerAttr first = nullptr);

} // namespace mlir::moe

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_FUSION_GROUPING_PLAINMATMUL_H
