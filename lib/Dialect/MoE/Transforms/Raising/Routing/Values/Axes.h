//===- Axes.h - What dimensions are of ---------------------- -*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Programs without sorted choices have tensors with a dimension for the tokens,
// their choices, the experts or the slots of a capacity, in any order and
// merged. What each dimension is decides what an operation computes.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_ROUTING_AXES_H
#define MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_ROUTING_AXES_H

#include "Foreign.h"

namespace mlir::moe::raising {

/// The axes of a dimension, one letter each, the outer one first: t(okens),
/// k (the choices of a token), e(xperts), c (slots), n (columns), i (the index
/// itself). Tokens may be in groups of the same size: g(roups), and s, those of
/// one. A dimension of extent 1 has none; along '*' the value is repeated.
using Axes = SmallVector<std::string>;

/// Extents of the axes of a layer; those of '*' and 'n' are of the dimension.
struct AxisExtents {
  int64_t tokens, choices, experts, slots;
  int64_t groups = 0; // of the tokens, 0 if they are in none

  int64_t of(char axis) const;
};

/// Returns the axes of a tensor of shape `to` with the elements, in their
/// order, of one of shape `from`; none if a dimension would split an axis. Only
/// tokens may become groups of them, which `extents` has then.
std::optional<Axes> reshapeAxes(const Axes &axes, ArrayRef<int64_t> from,
                                ArrayRef<int64_t> to, AxisExtents &extents);

/// Returns the axes of the result of a broadcast, or, with `source`, those of
/// its operand, whose result has `axes`.
std::optional<Axes> broadcastAxes(Operation *op, const Axes &axes);
std::optional<Axes> sourceAxes(Operation *op, const Axes &axes);

/// True for stablehlo.broadcast_in_dim and its dynamic form, and for a reshape.
bool isBroadcast(Operation *op);
bool isReshape(Operation *op);

/// Merges the axes of two operands of one shape; none if they differ.
std::optional<Axes> mergeAxes(const Axes &a, const Axes &b);

/// Returns how many dimensions have `axis`.
unsigned countAxis(const Axes &axes, char axis);
/// True if one dimension has the tokens, or one their groups and one those of a
/// group.
bool hasTokens(const Axes &axes);

} // namespace mlir::moe::raising

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_ROUTING_AXES_H
