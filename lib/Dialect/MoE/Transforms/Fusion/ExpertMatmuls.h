//===- ExpertMatmuls.h - Ordinary products as grouped ones ------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_TRANSFORMS_FUSION_EXPERTMATMULS_H
#define MOE_LIB_DIALECT_MOE_TRANSFORMS_FUSION_EXPERTMATMULS_H

#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"

#include <optional>

namespace mlir::moe {

/// `lhs · rhs`, or `lhs · rhsᵀ`, summed in f32 from zero.
struct PlainProduct {
  Value lhs, rhs;
  bool transposed;
};

std::optional<PlainProduct> matchPlainProduct(linalg::LinalgOp op);

/// The grouped product of `lhs` and `weights` with no more than the sum as its
/// epilogue; `offsets` and `first` may be null. Returns its result, in f32.
Value buildPlainProduct(OpBuilder &b, Location loc, Value lhs, Value offsets,
                        Value weights, bool transposed,
                        IntegerAttr first = nullptr);

} // namespace mlir::moe

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_FUSION_EXPERTMATMULS_H
