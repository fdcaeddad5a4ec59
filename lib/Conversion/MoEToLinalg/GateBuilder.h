//===- GateBuilder.h - Builder of gates ------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Builds the steps that moe.gate and its gradient share. Matrices are f32
// `[T, E]` or `[T, K]` throughout.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOLINALG_GATEBUILDER_H
#define MOE_LIB_CONVERSION_MOETOLINALG_GATEBUILDER_H

#include "TensorBuilder.h"

namespace mlir::moe {

class GateBuilder : public TensorBuilder {
public:
  using TensorBuilder::TensorBuilder;

  Value negInf();
  /// Returns the scalar logit in f32: `elements` are one of the logits and, if
  /// there is noise, one of the noise, which is added.
  Value logit(ValueRange elements);
  /// Returns logits plus `noise`, which may be null, with NaN replaced by −inf.
  Value logits(Value logits, Value noise);

  /// Applies the score function and rounds to `type`; a softmax runs over
  /// `valid` elements only (a mask, or null for all).
  Value score(Value values, Value valid, Axis axis, Score score, Type type);

  /// Returns the gradient `p (g − Σ g p)` of a softmax with result `p`, and
  /// that of a score that is not a softmax by `values`.
  Value softmaxGradient(Value scores, Value gradient, Axis axis);
  Value scoreGradient(Value values, Value gradient, Score score);
  /// Adds values[n, k] to element `ids[n, k]` of row `n` of a matrix of zeros,
  /// in ascending order; ids out of range add nothing.
  Value scatter(Value ids, Value values, int64_t columns);

  /// Returns the value and the index of the best element that is not taken in
  /// each row (or column): the lowest index among equals, -1 if all are taken.
  std::pair<Value, Value> best(Value scores, Value taken, Axis axis);
  /// Marks element `chosen` of each row (or column) in `taken`.
  Value take(Value taken, Value chosen, Axis axis);
  /// Marks the experts that are not taken and within `margin` of `best` `[T]`,
  /// as order(score_each_choice) scores them.
  Value withinMargin(Value logits, Value best, Value taken,
                     std::optional<APFloat> margin);

  Value validIds(Value ids, int64_t experts);
  /// Returns matrix[n, ids[n, k]] for `ids` `[N, K]` or `[N]`; 0 for an id out
  /// of range.
  Value gather(Value matrix, Value ids);
  /// Inserts `column` as column `k` of `matrix`.
  Value setColumn(Value column, Value matrix, Value k);
  /// Returns `matrix` where `valid` is set, and 0 elsewhere.
  Value whereValid(Value matrix, Value valid);
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOLINALG_GATEBUILDER_H
