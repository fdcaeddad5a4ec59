//===- RowMap.h - Elementwise operations on grouped rows --------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_TRANSFORMS_TRAINING_ROWMAP_H
#define MOE_LIB_DIALECT_MOE_TRANSFORMS_TRAINING_ROWMAP_H

#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/IR/ImplicitLocOpBuilder.h"

#include <optional>

namespace mlir::moe {

/// The experts of rows, and from which expert on there are weights.
struct RowGroups {
  Value offsets; // null: all rows belong to one expert
  std::optional<int64_t> first;
  int64_t experts;
};

/// Computes several matrices `[rows, columns]` elementwise in one pass: as the
/// epilogue of a matmul, if there is one, else as a linalg.generic.
class RowMap {
public:
  using Body = llvm::function_ref<LogicalResult(
      ImplicitLocOpBuilder &b, Value product, ValueRange elements,
      SmallVectorImpl<Value> &results)>;

  RowMap(ImplicitLocOpBuilder &b, RowGroups groups, OpFoldResult rows,
         int64_t columns)
      : b(b), groups(groups), rows(rows), columns(columns) {}

  /// Reads the product of rows, gathered if `gather` is not null, with weights.
  void multiply(Value lhs, Value gather, Value weights, bool transposed) {
    product = {lhs, gather, weights, transposed};
  }
  /// Adds an operand; `map` is from (e, r, n) as those of moe.grouped_matmul.
  /// Returns its number among the operands.
  unsigned addOperand(Value operand, AffineMap map) {
    operands.push_back(operand);
    maps.push_back(map);
    return operands.size() - 1;
  }
  unsigned addRows(Value matrix) { return addOperand(matrix, mapOf({1, 2})); }
  unsigned addRowVector(Value vector) { return addOperand(vector, mapOf({1})); }
  /// Adds a result of this element type; rows of no expert are zero with
  /// `zeroRest`, otherwise undefined.
  void addResult(Type element, bool zeroRest = false) {
    results.push_back({element, zeroRest});
  }

  /// Builds the operation. `body` gets the product in f32, or null, and the
  /// elements of the operands, and returns an element in f32 for each result;
  /// failure if it emitted an error.
  FailureOr<SmallVector<Value>> build(Body body);

private:
  AffineMap mapOf(ArrayRef<unsigned> dims) {
    return AffineMap::getMultiDimMapWithTargets(3, dims, b.getContext());
  }
  Value init(Type element, bool zero);
  void clearRest(ImplicitLocOpBuilder &inner, SmallVectorImpl<Value> &yielded);
  FailureOr<SmallVector<Value>> buildMatmul(Body body);
  FailureOr<SmallVector<Value>> buildGeneric(Body body);

  struct Product {
    Value lhs, gather, weights;
    bool transposed;
  };
  struct Result {
    Type element;
    bool zeroRest;
  };
  ImplicitLocOpBuilder &b;
  RowGroups groups;
  OpFoldResult rows;
  int64_t columns;
  std::optional<Product> product;
  SmallVector<Value> operands;
  SmallVector<AffineMap> maps;
  SmallVector<Result> results;
};

} // namespace mlir::moe

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_TRAINING_ROWMAP_H
