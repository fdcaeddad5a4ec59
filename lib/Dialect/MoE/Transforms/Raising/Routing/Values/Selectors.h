//===- Selectors.h - Masks and weights of choices ----------- -*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What GShard, Mesh-TensorFlow and "all experts on all tokens" compute of the
// ids: one-hot masks, the place of each choice among those of its expert by a
// running sum, and products of these with weights.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_ROUTING_SELECTORS_H
#define MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_ROUTING_SELECTORS_H

#include "Routing/Values/Axes.h"

#include "moe/Dialect/MoE/IR/MoE.h"

namespace mlir::moe::raising {

/// What a value is of the choices `ids` [T, K]. The place of a choice is the
/// number of choices before it with its expert.
struct Selector {
  enum Kind {
    Ids,    // ids[t, k]
    Column, // ids[t, choice]
    Index,  // the index along the axis i
    Scores, // the weights where the choice has expert e, else −inf
    Truth,  // true everywhere
    // place + on where the choice has expert e, else off; without the axis e
    // place + on. Without k it is that of the choice with e, if there is one.
    Place,
    // The product of: [ids[t, k] = e] if `hot`, [place = c] if `slot`, the
    // weights, and [place < kept] if it is not 0. It is summed over k if it has
    // no such axis.
    Product
  } kind;
  Axes axes;
  Value ids = {};
  int64_t choice = 0; // of a column
  // Of a place: choices are counted in their order, or, with `byChoice`, all
  // first ones before all second ones; of the tokens of a group if `inGroups`.
  bool byChoice = false, inGroups = false;
  int64_t groups = 0; // that the axes of the tokens are split into
  int64_t on = 0;
  std::optional<int64_t> off = {};
  // Dropped choices have another place: it has to be multiplied by kept.
  int64_t zeroFrom = 0;
  // Of a product.
  bool hot = false, slot = false;
  std::optional<int64_t> expert = {}; // it is hot for, without an axis e
  Value weights = {};                 // [T, K]
  SmallVector<Operation *, 2> functions = {}; // that they are passed through
  int64_t slots = 0, kept = 0;
  int64_t otherSlots = 0; // before these, where anything may be
  Value unless = {};      // 0 where these weights are 0

  bool isPlaceful() const { return slot || kept != 0 || kind == Place; }
  bool countsAs(const Selector &other) const {
    return byChoice == other.byChoice && inGroups == other.inGroups;
  }
};

/// Returns the dimension along which each element is the sum of those up to
/// it; none for other windows, and for other operations.
std::optional<int64_t> summedDimension(Operation *op);

/// Returns the matrix of which `op` takes one column, and which.
std::optional<std::pair<Value, int64_t>> matchColumn(Operation *op);
/// True if a selector has an axis for the choices, or a token has one choice.
bool hasChoiceAxis(const Selector &selector);
/// True for values that are at least 0.
bool isNotNegative(Value value);

/// The selectors among the values of a block.
class Selectors {
public:
  /// Finds the selector of the result of `op`, those of its operands known.
  void visit(Operation *op);
  /// A value is `selector`, which a rule of another kind has found.
  void assign(Value value, const Selector &selector) {
    selectors[value] = selector;
  }
  /// Returns what a value is, if it is a selector, or ids of a gate.
  std::optional<Selector> get(Value value) const;
  /// Returns the weights [T, K] of the ids that a value with these axes is,
  /// perhaps repeated; null if it is none.
  static Value weightsOf(Value value, const Axes &axes, Value ids);
  /// Returns the weights [T, K] of the ids and the choice whose column a value
  /// with these axes is, perhaps repeated.
  static std::optional<std::pair<Value, int64_t>>
  columnOf(Value value, const Axes &axes, Value ids);
  /// Returns what the last dimension of a value has: a vector of indices, as of
  /// a gather, or what is computed of each of them; empty if it has none.
  ArrayRef<Selector> getVector(Value value) const {
    auto found = vectors.find(value);
    return found == vectors.end() ? ArrayRef<Selector>()
                                  : ArrayRef<Selector>(found->second);
  }
  static AxisExtents extentsOf(const Selector &selector);
  bool empty() const { return selectors.empty(); }
  /// The values that are selectors, in their order.
  ArrayRef<std::pair<Value, Selector>> all() const {
    return selectors.getArrayRef();
  }

private:
  void set(Operation *op, Selector selector);
  std::optional<Selector> product(const Selector &a, const Selector &b) const;
  /// The product of a place and a mask: the place of the choices with an
  /// expert, of those that are kept.
  std::optional<Selector> placeWhere(const Selector &place,
                                     const Selector &mask) const;
  std::optional<Selector> sum(Selector selector, char axis) const;

  void visitView(Operation *op);
  void visitIota(Operation *op);
  void visitCompare(Operation *op);
  /// What an operand is, if the other one changes nothing.
  bool visitNeutral(Operation *op, double neutral);
  void visitMultiply(Operation *op);
  void visitAdd(Operation *op);
  void visitSelect(Operation *op);
  void visitBound(Operation *op);
  void visitReduce(Operation *op);
  void visitCumulativeSum(Operation *op);
  void visitDot(Operation *op);
  void visitScatter(Operation *op);
  void visitSlice(Operation *op);
  bool visitColumn(Operation *op);
  void visitConcatenate(Operation *op);
  /// The same of vectors of indices.
  bool visitVector(Operation *op, StringRef name);
  bool compareVector(Operation *op);
  void visitScore(Operation *op);

  llvm::MapVector<Value, Selector> selectors;
  llvm::DenseMap<Value, SmallVector<Selector, 2>> vectors;
};

/// The names of what a gather and a scatter have alike: the dimensions of a
/// window, those with one element, those that indices are of, and the batching
/// ones of both operands.
struct ColumnFields {
  StringRef window, single, places, batching, indicesBatching;
};
/// Returns the columns of the elements of each row that are gathered or
/// scattered, [T, K, 1]: by indices of the row and the column, or as one for
/// each row. Rows may have two dimensions. Null for others.
Value columnsOf(Value indices, StringRef text, const ColumnFields &fields,
                const Selectors &selectors);

} // namespace mlir::moe::raising

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_ROUTING_SELECTORS_H
