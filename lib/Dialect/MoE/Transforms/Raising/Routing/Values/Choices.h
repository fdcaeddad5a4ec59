//===- Choices.h - What values are of the choices of tokens -- -*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_ROUTING_CHOICES_H
#define MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_ROUTING_CHOICES_H

#include "Foreign.h"

#include "moe/Dialect/MoE/IR/MoE.h"

namespace mlir::moe::raising {

/// Returns K of ids [T, K].
inline int64_t topKOf(Value ids) { return tensorOf(ids).getDimSize(1); }

/// What a value is of the choices of tokens: of `ids` [T, K], if given. M is
/// T · K.
struct Role {
  enum Kind {
    // Vectors [M], or [M, 1], in the order of the choices.
    FlatIds,
    FlatWeights, // of `of` [T, K]
    FlatTokens,  // 0, 0, 1, 1, ..., with `topK` choices a token
    Inverse,     // the place of each choice in the sorted order
    // Vectors [M], or [M, 1], sorted by expert, equal ones in their order.
    SortedIds,
    SortedWeights, // of `of`
    Order,         // the choice
    Tokens,        // its token
    // Others.
    Iota,    // 0, 1, 2, ... along the first dimension
    Experts, // [.., E]: the index along the last dimension
    OneHot,  // [M, E]: 1 where the choice has the expert
    Counts,  // [E]: choices of each expert
    Ends,    // [E]: those of each expert and the ones before
    Truth,   // true everywhere
    Rows, // [M, H]: rows `of`, which are sorted, in the order of the choices,
          // each times its element of `weights` [T, K] if given
    Slots // [T, K, H]: the same
  } kind;
  Value ids = {}, of = {}, weights = {};
  int64_t topK = 0;
};

/// The roles of the values of a block.
class Choices {
public:
  /// Finds the roles of the results of `op`, those of its operands known.
  void visit(Operation *op);

  const Role *get(Value value) const {
    auto found = roles.find(value);
    return found == roles.end() ? nullptr : &found->second;
  }
  const Role *get(Value value, Role::Kind kind) const {
    const Role *role = get(value);
    return role && role->kind == kind ? role : nullptr;
  }
  /// The same of the token of each sorted row: with one choice a token, that is
  /// the choice.
  const Role *getTokens(Value value) const {
    const Role *role = get(value);
    bool isToken =
        role &&
        (role->kind == Role::Tokens ||
         (role->kind == Role::Order && role->ids && topKOf(role->ids) == 1));
    return isToken ? role : nullptr;
  }
  /// The values with a role, in their order.
  ArrayRef<std::pair<Value, Role>> all() const { return roles.getArrayRef(); }
  /// Returns ids [T, K] of all experts in [0, E): the value, or the one that it
  /// gives more dimensions; null if it is no such value.
  static Value idsOf(Value value);
  /// Returns E for ids that idsOf() returned.
  static int64_t expertsOf(Value ids);

private:
  void set(Value value, Role role) { roles.insert({value, role}); }
  bool isInRange(Value value) const;
  bool isBelow(Value value, Value bound) const;

  void visitView(Operation *op);
  void visitBroadcast(Operation *op);
  void visitIota(Operation *op);
  void visitSort(Operation *op);
  void visitDivide(Operation *op);
  void visitSelect(Operation *op);
  void visitCompare(Operation *op);
  void visitReduce(Operation *op);
  void visitGather(Operation *op);
  void visitScatter(Operation *op);
  void visitMultiply(Operation *op);
  void visitCumulativeSum(Operation *op);
  /// The role of sorted rows that return to the order of the choices.
  Role sortedRows(Value rows, Value ids) const;

  llvm::MapVector<Value, Role> roles;
};

/// Dimension numbers of a gather or scatter of whole rows, or elements of a
/// vector, by a vector of indices [M, 1].
bool gathersRows(Operation *gather);
bool scattersRows(Operation *scatter);
/// Returns the tensor of the first `rank` dimensions of `value`, which has it
/// along the others and may widen it; null if there is none.
Value repeatedAlongRows(Value value, int64_t rank);
/// True for weights [T, K] of ids of the same tokens.
bool areWeightsOf(Value weights, Value ids);
/// True if each of `rows` is one of an expert, by the offsets.
bool coversAll(Value offsets, Value rows);
/// What a region of a scatter or reduction does with its two arguments.
enum class Update { Other, Set, Add, And, Max, Min, Or };
Update updateOf(Operation *op);

} // namespace mlir::moe::raising

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_ROUTING_CHOICES_H
