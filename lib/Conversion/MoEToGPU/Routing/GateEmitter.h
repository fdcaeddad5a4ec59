//===- GateEmitter.h - Gate one token with a warp ---------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A warp gates one token, in registers (WarpRows.h). Reductions have a fixed
// order, so the result does not depend on T.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_ROUTING_GATEEMITTER_H
#define MOE_LIB_CONVERSION_MOETOGPU_ROUTING_GATEEMITTER_H

#include "Builder/KernelArguments.h"
#include "WarpRows.h"
#include "moe/Dialect/MoE/IR/MoEABI.h"

namespace mlir::moe {

class GateEmitter : public WarpRows {
public:
  /// The builder must be at a point that all lanes reach (convergent).
  GateEmitter(GateOp op, GPUBuilder &b);

  /// Succeeds if there is device code for a gate; otherwise `why` has the
  /// reason.
  static LogicalResult verify(GateOp op, std::string &why);

  /// Pointers to the operands besides the logits, and to the results.
  struct Pointers {
    Value bias, noise, givenIds; // null without the operand
    Value weights, ids;
  };
  static void declareInputs(GateOp op, KernelArguments &arguments,
                            Pointers &pointers);
  void setPointers(const Pointers &pointers) { this->pointers = pointers; }

  /// Gates token `token` (i64, uniform), whose logits start at element `first`
  /// of `logits`. Stores weights and ids, and returns the ids.
  Row emit(Value token, Value logits, Value first);
  /// Expert choice: stores the f32 scores of token `token` to `scores`. A
  /// softmax over tokens is left to the selection.
  void emitScores(Value token, Value logits, Value scores);
  /// Stores weights of 0 and ids of -1 for a token.
  void emitNone(Value token);

  /// Returns how many of `tokens` (i32 or i64) are live; `address` as in
  /// `liveTokensAttrName`.
  static Value liveTokens(GPUBuilder &b, Value tokens, Value address);

private:
  struct Argmax {
    Value value, id; // id is `noColumn` if all columns are taken
  };

  Value noColumn();
  Value nanToNegInf(Value x);
  Value roundToScore(Value x);
  Row score(const Row &row, const Row &valid);
  /// Loads the logits from element `first` on and adds the noise.
  Row loadLogits(Value token, Value logits, Value first);
  Argmax argmax(const Row &scores, const Row &taken);
  /// Sets the flag of column `id`.
  void mark(Row &taken, Value id);
  /// Sets column `k` to the uniform `value`.
  void setColumn(Row &row, int64_t k, Value value);
  /// Returns the ids of the `count` largest scores in descending order; marks
  /// them in `chosen`.
  Row selectTopK(const Row &scores, int64_t columns, int64_t count,
                 Row &chosen);
  Row limitToGroups(const Row &scores);
  void selectScoringEachChoice(const Row &logits, Row &weights, Row &ids);
  void normalize(Row &weights, const Row &valid);
  void selectAndWeigh(const Row &logits, Row &weights, Row &ids);

  GateOp op;
  int64_t experts, topK;
  Type scoreType;
  Value firstChoice;
  Pointers pointers;
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_ROUTING_GATEEMITTER_H
