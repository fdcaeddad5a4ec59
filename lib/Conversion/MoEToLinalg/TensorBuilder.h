//===- TensorBuilder.h - Short names for linalg on tensors ------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What the reference lowering is written in: element-wise maps, reductions
// along a row or a column, and the few shared formulas of gate and combine.
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
  /// Convert between f32, f16 and bf16.
  Value toFloat(Value value, Type type);
  /// `value`, f32, rounded to `type` and back.
  Value roundTo(Value value, Type type);
  Value isNaN(Value value);
  /// 0 <= integer < bound.
  Value inRange(Value integer, int64_t bound);
  Value logicalNot(Value flag);
  /// An i1 as the element of a mask, and back. Masks are of bytes: vectors of
  /// i1 are not laid out in memory as elements are.
  Value toMask(Value flag);
  Value isSet(Value element);
  /// `value` held to [0, limit].
  Value hold(Value value, Value limit);

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
  /// offsets[index] as the number of one of `rows` rows or their end, whatever
  /// it says.
  Value rowAt(Value offsets, Value index, Value rows);

  /// A linalg.generic over `loops` dimensions, the last `reductions` of which
  /// are reductions. `body` is given inputs and outputs, element by element.
  SmallVector<Value> generic(unsigned loops, unsigned reductions,
                             ArrayRef<Value> inputs, ArrayRef<AffineMap> maps,
                             ArrayRef<Value> outputs, BodyN body);
  /// Element-wise over tensors of one shape.
  Value map(ArrayRef<Value> inputs, Type element, Body body);
  /// A mask: `body` yields i1.
  Value mask(ArrayRef<Value> inputs, Body body);
  /// Element-wise over a matrix and one vector, an element of which goes with
  /// each row (Axis::Columns, what reducing the columns leaves) or each column.
  Value mapWithVector(Value matrix, Value vector, Axis removed, Type element,
                      Body body);
  /// Reduce a matrix along `axis`, in ascending order, starting from `init`.
  Value reduce(Value matrix, Axis axis, Value init, Body body);

  /// scf.for from 0 to `bound` over tensors.
  SmallVector<Value>
  loop(Value bound, ValueRange inits,
       llvm::function_ref<SmallVector<Value>(Value induction, ValueRange iters)>
           body);

  //===--------------------------------------------------------------------===//
  // Formulas
  //===--------------------------------------------------------------------===//

  /// Softmax along `axis` of an f32 matrix over the elements that `valid`
  /// (a mask, may be null for all) marks; 0 elsewhere. Total: elements equal to
  /// an infinite maximum share the mass.
  Value softmax(Value matrix, Value valid, Axis axis);

  /// `normalize` applied to the weights (f32 `[T, K]`) of each token over the
  /// choices that `valid` marks; intermediate results rounded to `type`.
  Value normalize(Value weights, Value valid, NormalizeAttr normalize,
                  Type type);
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOLINALG_TENSORBUILDER_H
