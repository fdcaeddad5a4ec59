//===- GroupedProduct.h - Grouped products of others -------- -*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_GROUPED_GROUPEDPRODUCT_H
#define MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_GROUPED_GROUPEDPRODUCT_H

#include "Foreign.h"
#include "GatheredWeights.h"

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
  // Factors of f32 of each row [m] and of each column of the weights [g, n],
  // where rows and weights have 8 bits.
  Value rowScales = {}, weightScales = {};
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

/// The product of each batch: [g, m, k] and [g, k, n].
struct BatchedProduct {
  Value lhs, rhs;
  Type result; // of a tensor [g, m, n]
};

/// A product of each matrix with the columns of its group, in their places.
struct ColumnGroups {
  Value lhs;   // [g, m, k]
  Value rhs;   // [k, n]
  Value ends;  // [g]
  Type result; // of a tensor [m, n]
};

/// Makes products of this dialect. Offsets of one argument are made once.
class GroupedProductBuilder {
public:
  explicit GroupedProductBuilder(RewriterBase &rewriter) : rewriter(rewriter) {}

  /// Builds the product before `op` and returns it as the type of its result;
  /// null with the reason if it is none.
  Value build(Operation *op, GroupedProduct product, std::string &reason);
  Value build(Operation *op, GroupedGradient gradient, std::string &reason);
  Value build(Operation *op, BatchedProduct product, std::string &reason);
  Value build(Operation *op, ColumnGroups product, std::string &reason);
  /// Replaces `op`, with one result, by the product; or says why not.
  template <typename Product> Outcome replace(Operation *op, Product product) {
    std::string reason;
    Value made = build(op, product, reason);
    if (!made)
      return Outcome::left(reason);
    rewriter.replaceOp(op, made);
    foldConversions(rewriter, made);
    return Outcome::raised();
  }
  RewriterBase &getRewriter() { return rewriter; }
  /// Returns the route of ids that weights were gathered by, made once by
  /// `make` for ids of one gather and `rowDims`.
  RouteOp routeOf(const GatheredWeights &gathered, int64_t rowDims,
                  llvm::function_ref<RouteOp(OpBuilder &)> make);

private:
  Value offsetsOf(Value groups, GroupArgument argument);
  /// Builds the product of tensors; null with the reason if it is none.
  Value buildMatmul(Operation *op, GroupedProduct product, std::string &reason);

  RewriterBase &rewriter;
  llvm::MapVector<std::pair<Value, GroupArgument>, Value> offsets;
  llvm::MapVector<std::tuple<Value, int64_t, int64_t>, RouteOp> routes;
};

/// Builds the epilogue: the sum, times the operands if there are any, rounded.
void buildEpilogue(OpBuilder &b, GroupedMatmulOp matmul, Type element);

//===----------------------------------------------------------------------===//
// Patterns
//===----------------------------------------------------------------------===//

/// chlo.ragged_dot and its composite in StableHLO.
Outcome raiseRaggedDot(Operation *op, GroupedProductBuilder &builder);
/// The same with batching dimensions, one product for each.
Outcome raiseBatchedRaggedDot(Operation *op, GroupedProductBuilder &builder);
/// A product of all rows with the weights of each group, with a mask.
Outcome raiseMaskedDot(Operation *op, GroupedProductBuilder &builder);
/// The same, group by group: a sum of products with slices of the weights.
Outcome raiseExpandedDot(Operation *op, GroupedProductBuilder &builder);
/// A batched product of rows with weights that were gathered by their ids.
Outcome raiseGatheredDot(Operation *op, GroupedProductBuilder &builder);
/// torch-mlir's torch.operator of grouped products.
Outcome raiseTorchGroupedMatmul(Operation *op, GroupedProductBuilder &builder);
/// The same of 8-bit rows and weights with scales.
Outcome raiseTorchScaledGroupedMatmul(Operation *op,
                                      GroupedProductBuilder &builder);

} // namespace mlir::moe::raising

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_GROUPED_GROUPEDPRODUCT_H
