//===- Routing.h - Dispatches and combinations of others ------ -*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_ROUTING_ROUTING_H
#define MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_ROUTING_ROUTING_H

#include "Choices.h"
#include "Selectors.h"

namespace mlir::moe::raising {

/// What is raised in a block, with the roles of its values.
struct Routing {
  RewriterBase &rewriter;
  Choices choices;
  Selectors selectors = {};
  /// The ids of the gates that are before.
  SmallVector<Value> gates = {};
  /// The first dispatch or route of ids.
  llvm::MapVector<Value, SmallVector<Operation *>> groupings = {};

  /// Returns the dispatch or route of ids that is before `op`; makes a route if
  /// there is none.
  Operation *groupingBefore(Operation *op, Value ids);
  static Value offsetsOf(Operation *grouping);
  static Value positionsOf(Operation *grouping);
  /// The token of each row; of a dispatch, those of a route beside it.
  Value tokensOf(Operation *grouping, Value ids);
  /// Finds what the results of `op` are, those of its operands known.
  void visit(Operation *op) {
    choices.visit(op);
    selectors.visit(op);
    if (auto gate = dyn_cast<GateOp>(op))
      gates.push_back(gate.getIds());
  }
  /// Returns `value` as `type`, whose extents may be more or less static.
  Value recast(Value value, Type type);
};

//===----------------------------------------------------------------------===//
// Patterns
//===----------------------------------------------------------------------===//

/// A top-k becomes a gate that only selects, which is returned.
GateOp raiseTopK(Operation *op, RewriterBase &rewriter);
/// The operations of a softmax become one.
bool raiseSoftmax(Operation *op, RewriterBase &rewriter);
/// A slice of all rows becomes one of tensors.
bool raiseColumns(Operation *op, RewriterBase &rewriter);
/// Rows gathered in the order of the experts become those of a dispatch.
bool raiseDispatch(Operation *op, Routing &routing);
/// Rows that return to their tokens and are added up become a combination.
bool raiseCombine(Operation *op, Routing &routing);
/// Rows of each token and expert, expert and slot, or token and choice, that
/// are weighted and added up, become those of a dispatch and a combination.
bool raiseMixture(Operation *op, Routing &routing);
/// The sum of all experts, each written out, becomes the same.
bool raiseUnrolled(Operation *op, Routing &routing);
/// What else was computed from the ids (counts, places, tokens) comes from the
/// dispatch.
bool raiseCounts(Routing &routing, Block &block);
/// What still uses the sorted ids or their order has those of a route.
bool raiseOrder(Routing &routing);

/// Returns integers of 32 bits as those of a type of 32 or 64 bits.
Value buildWide(OpBuilder &b, Location loc, Value value, Type type);

} // namespace mlir::moe::raising

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_ROUTING_ROUTING_H
