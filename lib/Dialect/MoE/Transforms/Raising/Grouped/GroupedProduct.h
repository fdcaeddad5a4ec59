//===- GroupedProduct.h - Grouped products of others -------- -*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_GROUPED_GROUPEDPRODUCT_H
#define MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_GROUPED_GROUPEDPRODUCT_H

#include "Foreign.h"

#include "moe/Dialect/MoE/IR/MoE.h"

namespace mlir::moe::raising {

/// How the rows of groups are given.
enum class GroupArgument {
  Sizes, // rows of each group
  Ends   // row after the last one of each group
};

/// A product of the rows of each group with the weights of the group.
struct GroupedProduct {
  Value rows;   // [m, k]
  Value groups; // [g], of integers
  GroupArgument argument;
  Value weights; // [g, k, n], transposed [g, n, k]
  bool transposed = false;
  bool zeroRest; // rows of no group are 0, else undefined
  Type result;   // of a tensor [m, n]
};

/// A product of the columns of each group, as steps of the contraction:
/// result[g] = Σ_r lhs[r, :]ᵀ · rhs[r, :] over the rows r of the group; 0 for a
/// group without rows.
struct GroupedGradient {
  Value lhs; // [m, k], transposed [k, m]
  bool transposed = false;
  Value rhs; // [m, n]
  Value groups;
  GroupArgument argument;
  Type result; // of a tensor [g, k, n]
};

/// Makes products of this dialect. Offsets of one argument are made once.
class GroupedProductBuilder {
public:
  explicit GroupedProductBuilder(RewriterBase &rewriter) : rewriter(rewriter) {}

  /// Replaces `op`, with one result, by the product; or says why not.
  Outcome replace(Operation *op, GroupedProduct product);
  Outcome replace(Operation *op, GroupedGradient gradient);

private:
  Value offsetsOf(Value groups, GroupArgument argument);

  RewriterBase &rewriter;
  llvm::MapVector<std::pair<Value, GroupArgument>, Value> offsets;
};

//===----------------------------------------------------------------------===//
// Patterns
//===----------------------------------------------------------------------===//

/// chlo.ragged_dot and its composite in StableHLO.
Outcome raiseRaggedDot(Operation *op, GroupedProductBuilder &builder);
/// A product of all rows with the weights of each group, with a mask.
Outcome raiseMaskedDot(Operation *op, GroupedProductBuilder &builder);
/// torch-mlir's torch.operator of grouped products.
Outcome raiseTorchGroupedMatmul(Operation *op, GroupedProductBuilder &builder);

} // namespace mlir::moe::raising

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_GROUPED_GROUPEDPRODUCT_H
