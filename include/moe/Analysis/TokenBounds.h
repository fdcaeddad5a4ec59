//===- TokenBounds.h - Upper bounds as functions of T -----------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_ANALYSIS_TOKENBOUNDS_H
#define MOE_ANALYSIS_TOKENBOUNDS_H

#include "mlir/IR/Builders.h"
#include "mlir/IR/Value.h"
#include "llvm/ADT/DenseMap.h"

namespace mlir::moe {

/// Builds upper bounds of index values of one function as arithmetic on the
/// number of tokens alone.
///
/// Every dynamic extent of the function's arguments is T. From there a bound
/// goes through extents of buffers, sums, maxima, and products with one factor
/// that is known not to be negative, and takes from a minimum the operands that
/// have a bound, which is how a size that depends on data gets one. Anything
/// else must be computed from T exactly, and is then copied.
class TokenBounds {
public:
  /// Bounds are built with `builder`, where `tokens` (index) is T.
  TokenBounds(OpBuilder &builder, Value tokens)
      : builder(builder), tokens(tokens) {}

  /// An upper bound of `value` (index), or null if it has none.
  Value boundOf(Value value) { return compute(value).value; }
  /// An upper bound, 0 or more, of extent `dim` of a buffer.
  Value boundOfExtent(Value memref, int64_t dim) {
    return extent(memref, dim).value;
  }

private:
  /// `exact`: equal to what is bounded rather than at least as large.
  /// `nonNegative`: what is bounded is known to be 0 or more.
  struct Bound {
    Value value;
    bool exact = false;
    bool nonNegative = false;
  };

  Bound constant(Location loc, int64_t value);
  Bound compute(Value value);
  Bound computeUncached(Value value);
  Bound copy(Operation *op, bool monotone);
  Bound minimum(Operation *op);
  Bound product(Operation *op);
  bool isNonNegative(Value bound) const;
  Bound extent(Value memref, int64_t dim);
  Bound extentOfSource(Value memref, int64_t dim);

  OpBuilder &builder;
  Value tokens;
  llvm::DenseMap<Value, Bound> known;
};

} // namespace mlir::moe

#endif // MOE_ANALYSIS_TOKENBOUNDS_H
