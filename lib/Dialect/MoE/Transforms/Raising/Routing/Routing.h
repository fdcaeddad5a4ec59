//===- Routing.h - Dispatches and combinations of others ------ -*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_ROUTING_ROUTING_H
#define MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_ROUTING_ROUTING_H

#include "Routing/Values/Choices.h"
#include "Routing/Values/Selectors.h"

namespace mlir::moe::raising {

/// What a loop over the experts stores for the first one, of which slices are
/// those of the first expert, and other values its own.
struct Iteration {
  Value value;
  llvm::DenseSet<Value> varying, slices;
};

/// An argmax as a gate, and the values that those of the gate replaced.
struct Argmax {
  GateOp gate;
  SmallVector<std::pair<Value, Value>> replaced;
};

/// What is raised in a block, with the roles of its values.
struct Routing {
  RewriterBase &rewriter;
  Choices choices;
  Selectors selectors = {};
  /// The ids of the gates that are before.
  SmallVector<Value> gates = {};
  /// The first dispatch or route of ids.
  llvm::MapVector<Value, SmallVector<Operation *>> groupings = {};
  /// The results of loops that store a value for each expert.
  llvm::MapVector<Value, Iteration> iterations = {};
  /// The gates of rows [T, E] that choose among scores [B, .., E].
  llvm::MapVector<Value, GateOp> gatesOfScores = {};
  /// Masks of all experts but those of a selector.
  llvm::MapVector<Value, Selector> others = {};
  /// Operations that are erased if nothing has used them.
  SmallVector<Operation *> made = {};

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
GateOp raiseTopK(Operation *op, Routing &routing);
GateOp buildTopK(RewriterBase &rewriter, Location loc, Value scores, int64_t k);
/// A gate of scores that are masked but for the best groups of experts becomes
/// one with groups.
bool raiseGroups(GateOp gate, Routing &routing);
/// Returns scores [B, .., E] as those of rows [T, E], computed of rows as far
/// as possible; null if another extent than the first is dynamic.
Value flattenTokens(Value scores, Routing &routing);
/// Returns what a gate of those rows computes, [T, ..], as `type`, [B, .., ..].
Value restoreTokens(Value rows, Value scores, RankedTensorType type,
                    RewriterBase &rewriter);
Value buildReshape(RewriterBase &rewriter, Value value, RankedTensorType type);
/// True if, of two values with an index each (`arguments`: a value, its index,
/// and the other ones), `results` are the larger value and its index, of equal
/// values the lower index; with `isOrdered` for a first index below the other.
/// What it does follows from how they compare, so that two numbers show it.
bool keepsFirstLargest(ValueRange arguments, ValueRange results,
                       bool isOrdered);
/// True for a tensor whose elements may be any index along its dimension `dim`:
/// bf16 has no 257, and i8 no 128.
bool countsExactly(Value value, int64_t dim);
/// An argmax of all scores of a token becomes the same of one choice.
std::optional<Argmax> raiseArgmax(Operation *op, Routing &routing);
/// Puts the argmax back if nothing but it used the gate; false otherwise.
bool undoUnused(const Argmax &made, RewriterBase &rewriter);
/// The operations of a softmax become one.
bool raiseSoftmax(Operation *op, RewriterBase &rewriter);
/// A slice of all rows becomes one of tensors.
bool raiseColumns(Operation *op, RewriterBase &rewriter);
/// Returns the rows of the tokens [T, n] of which `value` has one for each
/// choice; null if it does not.
Value rowsOfTokens(Value value, Value ids, Routing &routing);
/// Products of sorted rows with weights gathered by their sorted ids become
/// grouped products.
bool raiseSortedProduct(Operation *op, Routing &routing);
/// Rows gathered in the order of the experts become those of a dispatch.
bool raiseDispatch(Operation *op, Routing &routing);
/// Rows that return to their tokens and are added up become a combination.
bool raiseCombine(Operation *op, Routing &routing);
/// Rows that return to their tokens, each of which has one choice, become a
/// combination, too. Returns how many did.
unsigned raiseOnlyChoices(Routing &routing);
/// Rows of each token and expert, expert and slot, or token and choice, that
/// are weighted and added up, become those of a dispatch and a combination.
bool raiseMixture(Operation *op, Routing &routing);
/// The same of experts that choose their tokens.
bool raiseExpertChoice(Operation *op, Routing &routing);
/// The sum of all experts, each written out, becomes the same.
bool raiseUnrolled(Operation *op, Routing &routing);
/// So does the sum of all choices.
bool raiseChoices(Operation *op, Routing &routing);
/// So does a loop over the experts.
bool raiseLoop(Operation *op, Routing &routing);
/// A comparison of scores with one of the largest ones of each token is a mask
/// of its experts.
void visitThreshold(Operation *op, Routing &routing);
/// True for ids [T, E] that are the experts themselves, or none.
bool areExperts(Value ids);
/// Weights that are scores of all experts times a mask are those of the
/// choices; true if their sum became one of these.
bool raiseMaskedScores(Operation *op, Routing &routing);
/// What else was computed from the ids (counts, places, tokens) comes from the
/// dispatch.
bool raiseCounts(Routing &routing, Block &block);
/// What still uses the sorted ids or their order has those of a route.
bool raiseOrder(Routing &routing);

/// Returns integers of 32 bits as those of a type of 32 or 64 bits.
Value buildWide(OpBuilder &b, Location loc, Value value, Type type);

} // namespace mlir::moe::raising

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_ROUTING_ROUTING_H
