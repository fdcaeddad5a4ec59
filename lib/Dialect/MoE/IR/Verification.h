//===- Verification.h - Helpers of verifiers --------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_IR_VERIFICATION_H
#define MOE_LIB_DIALECT_MOE_IR_VERIFICATION_H

#include "moe/Dialect/MoE/IR/MoE.h"

namespace mlir::moe {

/// True if two extents can be equal: dynamic ones are checked at run time.
inline bool compatible(int64_t a, int64_t b) {
  return ShapedType::isDynamic(a) || ShapedType::isDynamic(b) || a == b;
}

/// Prints a shape as types do, e.g. `?x64`.
inline void printShape(InFlightDiagnostic &diag, ArrayRef<int64_t> shape) {
  llvm::interleave(
      shape,
      [&](int64_t extent) {
        if (ShapedType::isDynamic(extent))
          diag << "?";
        else
          diag << extent;
      },
      [&] { diag << "x"; });
}

/// Verifies that `value` has the shape `expected`, extent by extent.
inline LogicalResult verifyShape(Operation *op, const Twine &name, Value value,
                                 ArrayRef<int64_t> expected) {
  auto type = cast<ShapedType>(value.getType());
  bool same = type.getRank() == int64_t(expected.size());
  for (auto [a, b] : llvm::zip(type.getShape(), expected))
    same = same && compatible(a, b);
  if (same)
    return success();
  InFlightDiagnostic diag = op->emitOpError()
                            << "expected " << name << " of shape ";
  printShape(diag, expected);
  diag << ", got ";
  printShape(diag, type.getShape());
  return diag;
}

/// Verifies that `table`, ids or positions `[T, K]`, has a static number of
/// choices.
inline LogicalResult verifyChoices(Operation *op, StringRef name, Value table) {
  auto type = cast<ShapedType>(table.getType());
  if (type.isDynamicDim(1) || type.getDimSize(1) < 1)
    return op->emitOpError() << "expected " << name
                             << " with a static, positive number of choices, "
                                "got "
                             << type;
  return success();
}

inline LogicalResult verifyRange(Operation *op, StringRef name, int64_t value,
                                 int64_t low, int64_t high) {
  if (value >= low && value <= high)
    return success();
  return op->emitOpError() << "expected " << name << " between " << low
                           << " and " << high << ", got " << value;
}

/// Verifies that `value` is finite after its conversion to f32.
inline LogicalResult verifyFiniteF32(Operation *op, StringRef name,
                                     APFloat value) {
  bool inexact;
  value.convert(APFloat::IEEEsingle(), APFloat::rmNearestTiesToEven, &inexact);
  if (value.isFinite())
    return success();
  return op->emitOpError() << "expected a " << name << " that is finite in f32";
}

/// Verifies the attributes of scores and weights that moe.gate and its gradient
/// share.
template <typename OpT> LogicalResult verifyScore(OpT op) {
  bool softmax = op.getScore() == Score::Softmax;
  bool eachChoice = op.getOrder() == Order::ScoreEachChoice;
  if (op.getScoreAxis() == ScoreAxis::Tokens &&
      (!softmax || op.getOrder() != Order::ScoreThenSelect))
    return op.emitOpError("score_axis(tokens) needs score(softmax) and "
                          "order(score_then_select)");
  if (eachChoice && !softmax)
    return op.emitOpError("order(score_each_choice) needs score(softmax)");
  if (std::optional<APFloat> margin = op.getMargin()) {
    if (!eachChoice)
      return op.emitOpError("margin needs order(score_each_choice)");
    if (margin->isNaN() || margin->isNegative())
      return op.emitOpError("expected a margin of at least 0");
  }
  return op.getScale() ? verifyFiniteF32(op, "scale", *op.getScale())
                       : success();
}

/// Verifies that `logits` `[T, E]` have a static number of experts. Ids are
/// i32, and those of moe.dispatch in the same range.
inline LogicalResult verifyExperts(Operation *op, RankedTensorType logits) {
  int64_t experts = logits.getDimSize(1);
  if (ShapedType::isDynamic(experts))
    return op->emitOpError(
               "expected logits with a static number of experts, got ")
           << logits;
  return verifyRange(op, "a number of experts", experts, 1, INT32_MAX - 1);
}

/// Check the types of the values that end a region.
inline LogicalResult verifyYield(YieldOp yield, TypeRange expected) {
  TypeRange actual = yield.getValues().getTypes();
  if (actual == expected)
    return success();
  auto print = [](InFlightDiagnostic &diag, TypeRange types) {
    if (types.empty())
      diag << "nothing";
    diag << types;
  };
  InFlightDiagnostic diag = yield.emitOpError("expected to yield ");
  print(diag, expected);
  diag << ", got ";
  print(diag, actual);
  return diag;
}

/// Reifies the shapes of the results, which are those of the destinations.
inline LogicalResult reifyInits(DestinationStyleOpInterface op, OpBuilder &b,
                                ReifiedRankedShapedTypeDims &shapes) {
  if (op->getNumResults() == 0)
    return failure();
  for (Value init : op.getDpsInits())
    shapes.push_back(tensor::getMixedSizes(b, op.getLoc(), init));
  return success();
}

/// Verifies that operands are all tensors or all buffers, and that the results
/// have the types of the destinations.
inline LogicalResult verifyDestinations(DestinationStyleOpInterface op) {
  ValueRange inits = op.getDpsInits();
  bool tensors = isa<TensorType>(inits.front().getType());
  for (Value operand : op->getOperands())
    if (isa<TensorType>(operand.getType()) != tensors)
      return op->emitOpError(
                 "expected operands that are all tensors or all memrefs, got ")
             << inits.front().getType() << " and " << operand.getType();
  if (op->getNumResults() != (tensors ? inits.size() : 0))
    return op->emitOpError()
           << (tensors
                   ? "expected a result for a destination that is a tensor"
                   : "expected no result for a destination that is a memref");
  for (auto [result, init] : llvm::zip(op->getResults(), inits))
    if (result.getType() != init.getType())
      return op->emitOpError(
                 "expected a result of the type of the destination, ")
             << init.getType() << ", got " << result.getType();
  return success();
}

/// Verifies the offsets and `first` of an operation on the rows of `experts`
/// experts.
template <typename OpT> LogicalResult verifyGroups(OpT op, int64_t experts) {
  if (op.getOffsets()) {
    auto offsets = cast<ShapedType>(op.getOffsets().getType());
    if (offsets.isDynamicDim(0))
      return op.emitOpError("expected static offsets, got ") << offsets;
    return verifyRange(op, "first", op.getFirstExpert(), 0,
                       offsets.getDimSize(0) - 1 - experts);
  }
  if (experts != 1 || op.getFirst())
    return op.emitOpError("expected one expert and no first where there are no "
                          "offsets, got ")
           << experts << " experts";
  return success();
}

/// Verifies that operand `type`, called field `number`, has the numbers of
/// `field` for matrices `[leading…, n, k]`. In MoEQuantizationOps.cpp.
LogicalResult verifyField(Operation *op, int64_t number, FormatAttr format,
                          FieldAttr field, ShapedType type,
                          ArrayRef<int64_t> leading, int64_t n, int64_t k);

} // namespace mlir::moe

#endif // MOE_LIB_DIALECT_MOE_IR_VERIFICATION_H
