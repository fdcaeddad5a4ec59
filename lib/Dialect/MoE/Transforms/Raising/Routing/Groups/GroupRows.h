//===- GroupRows.h - Rows of the choices, grouped by expert -- -*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Programs without sorted choices compute columns for each token and expert
// (all experts on all tokens), each expert and slot of its capacity, or each
// token and choice (with weights gathered for it). From the axes of the last
// value those of what it is computed from follow, back to the tokens' rows; and
// so the same columns are computed of the grouped rows alone.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_ROUTING_GROUPROWS_H
#define MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_ROUTING_GROUPROWS_H

#include "Routing/Routing.h"
#include "Routing/Unrolled/Comparison.h"

namespace mlir::moe::raising {

/// What the rows of a layer are: an expert for each token, slot or choice.
/// What is written out for each expert or choice is matched as that of the
/// first one, which stands for all: First, and Column of the first choice.
enum class RowLayout { Dense, Slots, Choices, First, Column };

class RowGrouper {
public:
  /// `selector` is that of the sum of the rows: its ids, weights and slots. New
  /// operations are created before `sink`.
  RowGrouper(Routing &routing, Operation *sink, RowLayout layout,
             const Selector &selector);

  /// Returns the grouped rows [R, n] of a value with these axes; null if it is
  /// no function of the rows and the weights of their experts. What was created
  /// is erased then. With `weights` [E, n, m], or transposed [E, m, n], those
  /// of the product with them.
  Value group(Value value, const Axes &axes, Value weights = {},
              bool transposed = false, Type element = {});
  /// Values that are others for other experts than the first one.
  llvm::DenseSet<Value> varying;
  /// Those of them that are the first slice of a tensor of all experts, and
  /// the others' the later ones; or what comparisons have found.
  llvm::DenseSet<Value> firsts;
  void take(const Comparison &comparison);
  /// Rows are scaled by their weights before the first product, not after the
  /// last one.
  bool isScaled = false;

  /// The rows of the choices, of the grouped rows that group() returned.
  Value getPositions() { return dispatches.front().second.getPositions(); }
  /// The rows of each expert, of those.
  Value getOffsets();
  /// The weights [T, K] of the selector; null if it has none.
  Value getWeights();

private:
  Value rowsOf(Value value, const Axes &axes);
  /// Returns what is built in another layout, where values have other rows: one
  /// of the first expert, or choice, stands for those of all.
  Value inLayout(RowLayout other, llvm::function_ref<Value()> build);
  Value build(Value value, const Axes &axes);
  Value buildFromOperands(Value value, const Axes &axes);
  Value buildDot(Operation *op, const Axes &axes);
  Value buildProduct(Value rows, Value weights, bool transposed, Type element);
  Value buildElementwise(Operation *op, const Axes &axes);
  Value buildBias(Operation *op, const Axes &axes);
  Value buildScaled(Operation *op, const Axes &axes);
  /// What a slice takes along each dimension. A limit that is dynamic is the
  /// extent.
  struct Slice {
    SmallVector<int64_t> starts, limits, strides;
  };
  std::optional<Slice> matchSlice(Operation *op, const Axes &axes) const;
  Value buildColumns(Operation *op, const Axes &axes);
  Value buildChosen(Operation *op, const Axes &axes);
  Value buildRepeated(Value value, const Axes &axes);
  Value buildIteration(const Iteration &iteration, const Axes &axes);
  Value buildConcatenated(Operation *op, const Axes &axes);
  Value dispatch(Value rows, bool scaled = false);
  /// Returns rows [G, S, n] as [T, n], and others as they are.
  Value withoutGroups(Value rows);
  /// Returns the ids of experts for each group of tokens: id · G + group.
  Value idsOfGroups();
  /// True for the first slice of a tensor [E, ..] that stands for all of them,
  /// or for the first of E tensors.
  bool isFirstOfAll(Value value) const;
  /// Returns that tensor; of several ones, that with all of them.
  Value allOf(Value first);
  /// Returns the value of the experts [E, n] that `value` repeats or gathers.
  Value perExpert(Value value, Axes axes);
  /// Returns the weights [E, k, n], and whether they are [E, n, k]: from a
  /// tensor with the axes e, x (contracted) and n, or gathered for each choice.
  std::optional<std::pair<Value, bool>> matchWeights(Value value,
                                                     const Axes &axes);
  std::optional<Axes> operandAxes(Operation *op, const Axes &axes);
  bool isTokens(const Axes &axes) const;
  /// Returns the ids of the layer that weights are gathered by.
  std::optional<Selector> idsOf(Value value) const;
  OpFoldResult rowCount();

  Routing &routing;
  RewriterBase &rewriter;
  Operation *sink;
  RowLayout layout;
  Selector selector;
  AxisExtents extents;
  SmallVector<std::pair<Value, DispatchOp>> dispatches;
  Value groupIds, offsets; // of groups of tokens
  llvm::MapVector<Value, SmallVector<Value>> parts;
  llvm::DenseMap<Value, Value> stacks; // of parts
  Value weights;
  llvm::DenseMap<Value, std::pair<Axes, Value>> grouped;
  /// Those that are products with weights, or computed from them.
  llvm::DenseSet<Value> weighted;
  /// Values that are no rows, with the number of dispatches then.
  llvm::DenseMap<Value, size_t> failed;
  bool usesWeights = false;
  unsigned depth = 0;
};

/// What one expert adds to a sum of all of them: rows [t, n], times a mask of
/// the tokens that chose it.
struct ExpertTerm {
  Value rows;
  Selector mask;
};
std::optional<ExpertTerm> matchExpertTerm(Value value, Routing &routing);

/// Returns the rows of the tokens that a scatter sets in the slots of their
/// choices, [E, C, n], as the selector has them; null if it does not.
Value matchSlotScatter(Operation *op, const Selector &selector,
                       Routing &routing);
/// Rows [E, C, n] that are gathered for each choice, by its expert and place.
struct SlotGather {
  Value rows;
  int64_t slots;
  bool byChoice;
  int64_t groups; // of tokens, 0 if they are in none: [G, E, C, n]
};
/// Matches a value with the axes t, k and n whose choices beyond the slots are
/// 0, or, with `kept`, those from that place on (of groups with `inGroups`).
std::optional<SlotGather> matchSlotGather(Value value, Axes axes, Value ids,
                                          int64_t kept, bool inGroups,
                                          Routing &routing);

/// True for selectors with the same weights of the same choices.
bool haveSameWeights(const Selector &a, const Selector &b);

/// Replaces `op` [T, n] by the sum of grouped rows at their positions, weighted
/// and perhaps added to what is there. False if the types do not fit.
bool replaceByCombination(Operation *op, Routing &routing, Value rows,
                          Value positions, Value weights, Value into);

} // namespace mlir::moe::raising

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_ROUTING_GROUPROWS_H
