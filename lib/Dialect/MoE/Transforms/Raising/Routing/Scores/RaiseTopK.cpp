//===- RaiseTopK.cpp - Top-k of other dialects ---------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// jax.lax.top_k: chlo.top_k or, in an exported program, a composite. Of equal
// values the one with the lowest index is first, as in a gate.
//
//===----------------------------------------------------------------------===//

#include "Routing/Routing.h"

#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

/// Returns k of a top-k over the last dimension; none for anything else.
static std::optional<int64_t> matchTopK(Operation *op) {
  Attribute k;
  if (isNamed(op, "chlo.top_k")) {
    k = op->getAttr("k");
  } else if (isNamed(op, "stablehlo.composite")) {
    auto name = op->getAttrOfType<StringAttr>("name");
    auto attributes = op->getAttrOfType<DictionaryAttr>("composite_attributes");
    if (!name || name.getValue() != "chlo.top_k" || !attributes)
      return std::nullopt;
    if (auto largest = attributes.getAs<BoolAttr>("largest");
        largest && !largest.getValue())
      return std::nullopt;
    k = attributes.get("k");
  }
  auto integers = integersOf(k);
  return integers && integers->size() == 1 ? std::optional(integers->front())
                                           : std::nullopt;
}

GateOp mlir::moe::raising::buildTopK(RewriterBase &rewriter, Location loc,
                                     Value scores, int64_t k) {
  auto type = cast<RankedTensorType>(scores.getType());
  Type element = type.getElementType();
  auto shape = [&](Type element) {
    return RankedTensorType::get({type.getDimSize(0), k}, element);
  };
  return GateOp::create(
      rewriter, loc, shape(element), shape(rewriter.getI32Type()), scores,
      /*bias=*/nullptr, /*noise=*/nullptr, /*given_ids=*/nullptr,
      rewriter.getI64IntegerAttr(k),
      ScoreAttr::get(rewriter.getContext(), Score::None),
      /*score_axis=*/nullptr, /*order=*/nullptr, /*selection=*/nullptr,
      /*margin=*/nullptr, /*groups=*/nullptr, /*capacity=*/nullptr,
      /*threshold=*/nullptr, /*normalize=*/nullptr, /*scale=*/nullptr,
      /*score_type=*/element.isF32() ? nullptr : TypeAttr::get(element));
}

GateOp mlir::moe::raising::raiseTopK(Operation *op, Routing &routing) {
  RewriterBase &rewriter = routing.rewriter;
  std::optional<int64_t> k = matchTopK(op);
  if (!k || op->getNumOperands() != 1 || op->getNumResults() != 2)
    return {};
  Value scores = op->getOperand(0);
  auto type = dyn_cast<RankedTensorType>(scores.getType());
  auto values = dyn_cast<RankedTensorType>(op->getResult(0).getType()),
       indices = dyn_cast<RankedTensorType>(op->getResult(1).getType());
  if (!type || !values || !indices || type.getRank() < 2)
    return {};
  int64_t last = type.getRank() - 1;
  if (type.isDynamicDim(last) || *k < 1 || *k > type.getDimSize(last) ||
      values.getElementType() != type.getElementType() ||
      !indices.getElementType().isSignlessInteger(32) ||
      indices.getShape() != values.getShape() ||
      values.getRank() != type.getRank() || values.getDimSize(last) != *k ||
      !isRowFloat(type.getElementType()))
    return {};
  // Tokens of a batch are rows, and so are groups of experts.
  if (last > 1) {
    if (!isNamed(op, "chlo.top_k") && !isNamed(op, "stablehlo.composite"))
      return {};
    scores = flattenTokens(scores, routing);
    if (!scores)
      return {};
  }
  GateOp gate = buildTopK(rewriter, op->getLoc(), scores, *k);
  if (last > 1)
    routing.gatesOfScores.insert({op->getOperand(0), gate});
  SmallVector<Value> results;
  for (auto [result, old] : llvm::zip(gate->getResults(), op->getResults())) {
    if (last > 1)
      results.push_back(restoreTokens(result, op->getOperand(0),
                                      cast<RankedTensorType>(old.getType()),
                                      rewriter));
    else if (result.getType() == old.getType())
      results.push_back(result);
    else
      results.push_back(tensor::CastOp::create(rewriter, op->getLoc(),
                                               old.getType(), result));
  }
  rewriter.replaceOp(op, results);
  return gate;
}
