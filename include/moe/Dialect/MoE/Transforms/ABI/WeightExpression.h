//===- WeightExpression.h - Views of weights --------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOE_TRANSFORMS_ABI_WEIGHTEXPRESSION_H
#define MOE_DIALECT_MOE_TRANSFORMS_ABI_WEIGHTEXPRESSION_H

#include "moe/Dialect/MoE/Transforms/ABI/WeightPreparation.h"

namespace mlir::moe {

/// A value that a function computes of its weights alone, expert by expert:
/// reshapes, transposes, slices and elementwise operations of them.
class WeightExpression {
public:
  /// Matches `value`, `[E, ...]`, or one without a dimension of experts.
  static std::optional<WeightExpression>
  match(WeightPreparation &preparation, Value value, bool hasExperts = true);

  ArrayRef<WeightPreparation::Source> getSources() const { return sources; }
  /// Builds it of the sources that a preparation has, for any number of
  /// experts.
  Value build(ImplicitLocOpBuilder &b, ValueRange values) const;

private:
  bool visit(WeightPreparation &preparation, Value value, bool hasExperts);
  Value buildValue(ImplicitLocOpBuilder &b, Value value) const;

  Value root;
  SmallVector<WeightPreparation::Source> sources;
  /// The values that have no dimension of experts.
  llvm::SmallDenseMap<Value, bool> hasExpertsOf;
  mutable llvm::SmallDenseMap<Value, Value> built;
};

} // namespace mlir::moe

#endif // MOE_DIALECT_MOE_TRANSFORMS_ABI_WEIGHTEXPRESSION_H
