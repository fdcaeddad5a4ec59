//===- Comparison.h - What is written out for each expert --- -*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Programs that unroll a loop over the experts, or over the choices of a token,
// have the same operations for each of them. They differ in the slices of the
// weights, in weights that are an argument for each expert, or in the column of
// the ids that weights are gathered by.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_ROUTING_COMPARISON_H
#define MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_ROUTING_COMPARISON_H

#include "Routing/Values/Selectors.h"

#include "llvm/ADT/MapVector.h"

namespace mlir::moe::raising {

/// Compares what each expert, or choice, computes with the first one.
class Comparison {
public:
  enum Kind { Experts, Choices };

  Comparison(Kind kind, const Selectors &selectors)
      : kind(kind), selectors(selectors) {}

  /// True if each of the values is computed as the first one is.
  bool compare(ArrayRef<Value> values);

  /// Values of the first one that are others for the others.
  llvm::DenseSet<Value> varying;
  /// Those of them that are its own: slices, arguments, columns of ids.
  llvm::DenseSet<Value> firsts;
  /// Those that are no parts of one tensor, and those of all in their order.
  llvm::MapVector<Value, SmallVector<Value>> parts;

private:
  bool compare(Value first, Value other);
  bool isPair(Value first, Value other);
  bool isPart(Value first, Value other);
  bool shareFirsts() const;

  Kind kind;
  const Selectors &selectors;
  int64_t count = 0, index = 0;
  llvm::DenseSet<Value> shared;
  llvm::DenseMap<Value, Value> seen;
  unsigned depth = 0;
};

/// Takes the terms of sums, the last one first, that `take` knows. Returns what
/// they are added to: one of them, if it is not known.
Value takeTerms(Value sum, llvm::function_ref<bool(Value)> take);

} // namespace mlir::moe::raising

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_ROUTING_COMPARISON_H
