//===- GateEmitter.h - The gate of one token --------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A warp has one token. A row of the gate, scores or choices, lies across its
// lanes: column c is in lane c mod 32, and slot c div 32 of that lane. All of
// it stays in registers. Reductions take the same order whatever T is.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_ROUTING_GATEEMITTER_H
#define MOE_LIB_CONVERSION_MOETOGPU_ROUTING_GATEEMITTER_H

#include "Builder/GPUBuilder.h"
#include "moe/Dialect/MoE/IR/MoE.h"

namespace mlir::moe {

/// Attribute of a function: its tokens do not depend on one another, so that a
/// call may leave out the last ones.
inline constexpr llvm::StringLiteral independentTokensAttr =
    "moe.independent_tokens";
/// Attribute of a kernel: behind the scalars it takes the address (i64) of how
/// many tokens are live, or 0 where all of them are.
inline constexpr llvm::StringLiteral liveTokensAttr = "moe.live_tokens";

class GateEmitter {
public:
  /// One value for each slot of a lane.
  using Row = SmallVector<Value>;
  static constexpr int64_t mostExperts = 1024;

  /// The builder stands where all warps come by.
  GateEmitter(GateOp op, GPUBuilder &b);

  /// Whether there is code for a gate.
  static LogicalResult verify(GateOp op, std::string &why);

  /// What a kernel reads besides the logits, in the order of its pointers.
  static SmallVector<Value> inputs(GateOp op);
  /// Name the pointers: those of `inputs`, then weights and ids.
  void setPointers(ValueRange pointers);
  /// The same for what alone matters to scores.
  void setNoise(Value pointer) { noise = pointer; }

  /// Choose for token `token` (i64), the same in all lanes. Its logits are
  /// those from number `first` on behind `logits`. Returns the ids, which are
  /// stored, as the weights are.
  Row emit(Value token, Value logits, Value first);
  /// The scores that choices by experts are made from, in f32, of token
  /// `token`, behind `scores`; without a softmax over tokens.
  void emitScores(Value token, Value logits, Value scores);
  /// Choose nothing for a token.
  void emitNone(Value token);

  /// How many of `tokens` (i32 or i64) are live, given the address of that.
  static Value liveTokens(GPUBuilder &b, Value tokens, Value address);

  /// Run `body` with each column that there is, of `columns`, and its value.
  void forEach(const Row &row, int64_t columns,
               llvm::function_ref<void(Value column, Value value)> body);

private:
  struct Best {
    Value value, id; // id is that of no column where all are taken
  };
  using Body = llvm::function_ref<Value(Value)>;

  Value negInf();
  Value noColumn();
  Value isNaN(Value x);
  Value compare(arith::CmpFPredicate predicate, Value x, Value y);
  Value nanToNegInf(Value x);
  Value roundToScore(Value x);

  Value columnOf(unsigned slot);
  /// Which columns there are, of `columns`.
  Row present(int64_t columns);
  Row loadRow(Value pointer, Type element, Value first, int64_t columns,
              Value otherwise);
  void storeRow(const Row &row, Value pointer, Value first, int64_t columns);
  Row map(const Row &row, Body body);
  /// row[ids[k]] in lane and slot k; 0 where there is no such column.
  Row gather(const Row &row, const Row &ids, int64_t columns);

  Row softmax(const Row &row, const Row &valid);
  Row score(const Row &row, const Row &valid);
  /// Logits with noise, from number `first` on.
  Row loadLogits(Value token, Value logits, Value first);
  Best best(const Row &scores, const Row &taken);
  /// Mark column `id`.
  void take(Row &taken, Value id);
  /// Put `value`, the same in all lanes, into column `k`.
  void setColumn(Row &row, int64_t k, Value value);
  /// The best columns, best first; `chosen` are marked.
  Row selectTopK(const Row &scores, int64_t columns, int64_t count,
                 Row &chosen);
  Row limitToGroups(const Row &scores);
  void selectScoringEachChoice(const Row &logits, Row &weights, Row &ids);
  void normalize(Row &weights, const Row &valid);
  void selectAndWeigh(const Row &logits, Row &weights, Row &ids);

  GateOp op;
  GPUBuilder &b;
  int64_t experts, topK;
  Type scoreType;
  Value lane, firstChoice;
  Value bias, noise, givenIds, weightsOut, idsOut;
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_ROUTING_GATEEMITTER_H
