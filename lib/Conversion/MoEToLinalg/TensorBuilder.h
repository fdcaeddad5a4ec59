//===- TensorBuilder.h - Builder of linalg on tensors -----------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Builds the reference lowering from element-wise maps, reductions along a row
// or a column, and the formulas that gate and combine share.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOLINALG_TENSORBUILDER_H
#define MOE_LIB_CONVERSION_MOETOLINALG_TENSORBUILDER_H

#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/IR/ImplicitLocOpBuilder.h"

namespace mlir::moe {

/// The loop dimension of a matrix that a reduction removes.
enum class Axis { Rows, Columns };

class TensorBuilder : public ImplicitLocOpBuilder {
public:
  using ImplicitLocOpBuilder::ImplicitLocOpBuilder;
  using Body = llvm::function_ref<Value(ValueRange)>;
  using BodyN = llvm::function_ref<SmallVector<Value>(ValueRange)>;

  //===--------------------------------------------------------------------===//
  // Scalars
  //===--------------------------------------------------------------------===//
  Value index(int64_t value);
  Value i32(int64_t value);
  Value f32(double value);
  Value toI32(Value index);
  Value toIndex(Value integer);
  /// Converts between f32, f16 and bf16.
  Value toFloat(Value value, Type type);
  /// Rounds `value`, f32, to `type` and converts it back.
  Value roundTo(Value value, Type type);
  /// Divides in f32; a quotient by 0 is 0.
  Value divideOrZero(Value dividend, Value divisor);
  Value isNaN(Value value);
  /// True if 0 <= integer < bound.
  Value inRange(Value integer, int64_t bound);
  Value logicalNot(Value flag);
  /// Converts between i1 and the element of a mask. Masks have bytes, as a
  /// vector of i1 does not have the memory layout of i1 elements.
  Value toMask(Value flag);
  Value isSet(Value element);
  /// Clamps `value` to [0, limit].
  Value clamp(Value value, Value limit);

  //===--------------------------------------------------------------------===//
  // Tensors
  //===--------------------------------------------------------------------===//
  OpFoldResult size(Value tensor, int64_t dim);
  Value dim(Value tensor, int64_t dim);
  SmallVector<OpFoldResult> sizes(Value tensor);
  Value empty(ArrayRef<OpFoldResult> sizes, Type element);
  Value fill(ArrayRef<OpFoldResult> sizes, Value scalar);
  Value extract(Value tensor, ValueRange indices);
  Value insert(Value scalar, Value tensor, ValueRange indices);
  /// Returns offsets[index], clamped to [0, rows].
  Value rowAt(Value offsets, Value index, Value rows);
  /// Returns the first row of expert `first` + `e` and the number of its rows;
  /// all rows without offsets.
  std::pair<Value, Value> rowsOf(Value offsets, Value e, int64_t first,
                                 Value rows);

  /// Builds a linalg.generic over `loops` dimensions, the last `reductions` of
  /// which are reductions. `body` gets an element of each input and output.
  SmallVector<Value> generic(unsigned loops, unsigned reductions,
                             ArrayRef<Value> inputs, ArrayRef<AffineMap> maps,
                             ArrayRef<Value> outputs, BodyN body);
  /// Applies `body` to the elements of tensors of one shape.
  Value map(ArrayRef<Value> inputs, Type element, Body body);
  /// Builds a mask: `body` yields i1.
  Value mask(ArrayRef<Value> inputs, Body body);
  /// Applies `body` to the elements of a matrix and of a vector with an element
  /// for each row (Axis::Columns, as left by a reduction of the columns) or
  /// column.
  Value mapWithVector(Value matrix, Value vector, Axis removed, Type element,
                      Body body);
  /// Reduces a matrix along `axis`, in ascending order, starting from `init`.
  Value reduce(Value matrix, Axis axis, Value init, Body body);

  /// Adds up the elements of an f32 matrix along `axis`.
  Value sum(Value matrix, Axis axis);

  /// Builds an scf.for from 0 to `bound` over tensors.
  SmallVector<Value>
  loop(Value bound, ValueRange inits,
       llvm::function_ref<SmallVector<Value>(Value induction, ValueRange iters)>
           body);

  //===--------------------------------------------------------------------===//
  // Formulas
  //===--------------------------------------------------------------------===//

  /// Builds the softmax along `axis` of an f32 matrix over the elements that
  /// `valid` (a mask, or null for all) marks; 0 elsewhere. Never NaN: elements
  /// equal to an infinite maximum share the weight.
  Value softmax(Value matrix, Value valid, Axis axis);

  /// Builds `Σ w` or `Σ |w|ᵖ` `[T]` over the weights (f32 `[T, K]`) of the
  /// choices that `valid` marks.
  Value sumOfPowers(Value weights, Value valid, NormalizeAttr normalize);
  /// Returns the denominator, a scalar, of such a sum; then with its epsilon.
  Value rootOfPowers(Value sum, NormalizeAttr normalize);
  Value guard(Value denominator, NormalizeAttr normalize);
  /// Applies `normalize` to the weights (f32 `[T, K]`) of each token over the
  /// choices that `valid` marks; rounds intermediate results to `type`.
  Value normalize(Value weights, Value valid, NormalizeAttr normalize,
                  Type type);
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOLINALG_TENSORBUILDER_H
