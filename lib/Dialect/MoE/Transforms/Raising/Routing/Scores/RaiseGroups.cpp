//===- RaiseGroups.cpp - Choices among the experts of the best groups ----===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A top-k of scores that are −inf or 0 but for the experts of the best groups
// (DeepSeek-V2 and V3). The groups are chosen by a top-k of their largest
// score, or of the sum of their two largest ones, and a mask of the chosen
// groups is repeated for their experts.
//
//===----------------------------------------------------------------------===//

#include "Extents.h"
#include "Gate/Match.h"
#include "Routing/Routing.h"

#include <limits>

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

using Dims = SmallVector<int64_t>;

/// Returns the value whose elements a value has in their order.
static Value skipReshapes(Value value) {
  Operation *op = value.getDefiningOp();
  while (op && isReshape(op)) {
    value = op->getOperand(0);
    op = value.getDefiningOp();
  }
  return value;
}

namespace {
/// Scores [T, E], of which those are kept that a mask [T, G] of groups has.
struct MaskedGroups {
  Value scores;
  Selector mask;
  GroupFill fill;
};
} // namespace

/// Returns the mask of groups that a mask of their experts repeats, [T, E] or
/// [T, G, S]; `isInverted` if it is true for the others.
static std::optional<Selector> matchMask(Value value, int64_t experts,
                                         bool &isInverted, Routing &routing) {
  bool isSplit = false; // in groups and their experts
  for (unsigned budget = 0; budget < 20; ++budget) {
    RankedTensorType type = tensorOf(value);
    if (!type)
      return std::nullopt;
    std::optional<Selector> mask = routing.selectors.get(value);
    if (isSplit && type.getRank() == 2 && mask)
      return mask;
    Operation *op = value.getDefiningOp();
    if (!op || op->getNumOperands() == 0)
      return std::nullopt;
    if (isNamed(op, "stablehlo.convert")) {
      value = op->getOperand(0);
    } else if (isNamed(op, "stablehlo.not") &&
               type.getElementType().isInteger(1)) {
      isInverted = !isInverted;
      value = op->getOperand(0);
    } else if (isNamed(op, "stablehlo.compare") &&
               splatOf(op->getOperand(1)) == 0.0) {
      // Of ones and zeros.
      std::string direction = directionOf(op);
      if (direction != "NE" && direction != "GT" && direction != "EQ")
        return std::nullopt;
      isInverted ^= direction == "EQ";
      value = op->getOperand(0);
    } else if (isReshape(op)) {
      RankedTensorType from = tensorOf(op->getOperand(0));
      // [T, G, S] as [T, E], or [T, G] as [T, G, 1].
      bool isMerged = !isSplit && type.getRank() == 2 && from.getRank() == 3 &&
                      type.getDimSize(1) == experts &&
                      from.getDimSize(1) * from.getDimSize(2) == experts &&
                      !from.isDynamicDim(1) && !from.isDynamicDim(2);
      bool isPadded = type.getRank() == 3 && type.getDimSize(2) == 1 &&
                      from.getRank() == 2 &&
                      from.getDimSize(1) == type.getDimSize(1);
      if (!isMerged && !isPadded)
        return std::nullopt;
      isSplit = true;
      value = op->getOperand(0);
    } else if (isBroadcast(op) && type.getRank() == 3) {
      std::optional<Axes> of = sourceAxes(op, {"t", "e", "*"});
      if (!of || (*of != Axes{"t", "e"} && *of != Axes{"t", "e", ""}))
        return std::nullopt;
      isSplit = true;
      value = op->getOperand(0);
    } else {
      return std::nullopt;
    }
  }
  return std::nullopt;
}

/// Returns the scores that a gate chooses among, and the mask of groups.
static std::optional<MaskedGroups> matchMasked(GateOp gate, Routing &routing) {
  Value logits = gate.getLogits();
  int64_t experts = gate.getNumExperts();
  // Perhaps computed as [T, G, S].
  Operation *op = logits.getDefiningOp();
  if (op && isReshape(op))
    op = op->getOperand(0).getDefiningOp();
  if (!isNamed(op, "stablehlo.select") && !isNamed(op, "stablehlo.multiply"))
    return std::nullopt;
  bool isSelect = isNamed(op, "stablehlo.select");
  for (unsigned i : {0u, 1u}) {
    // The mask is the condition, or a factor.
    if (isSelect && i == 1)
      break;
    bool isInverted = false;
    std::optional<Selector> mask =
        matchMask(op->getOperand(i), experts, isInverted, routing);
    if (!mask || (isInverted && !isSelect))
      continue;
    Value scores = op->getOperand(isSelect ? (isInverted ? 2 : 1) : 1 - i);
    std::optional<double> fill =
        isSelect ? splatOf(op->getOperand(isInverted ? 1 : 2)) : 0.0;
    if (fill == 0.0)
      return MaskedGroups{scores, *mask, GroupFill::Zero};
    if (fill == -std::numeric_limits<double>::infinity())
      return MaskedGroups{scores, *mask, GroupFill::NegInf};
  }
  return std::nullopt;
}

/// Returns how groups of S experts are scored by `groups` [T, G], of the same
/// elements as `scores`; none if they are not.
static std::optional<GroupScore> matchScores(Value groups, Value scores,
                                             int64_t count, int64_t size) {
  Operation *op = groups.getDefiningOp();
  RankedTensorType type =
      isNamed(op, "stablehlo.reduce") && op->getNumOperands() == 2
          ? tensorOf(op->getOperand(0))
          : RankedTensorType();
  if (!type || type.getRank() != 3 || type.getDimSize(1) != count ||
      integersOf(op, "dimensions") != Dims{2})
    return std::nullopt;
  Value of = skipReshapes(op->getOperand(0));
  std::optional<double> start = splatOf(op->getOperand(1));
  if (updateOf(op) == Update::Max &&
      start == -std::numeric_limits<double>::infinity())
    return of == scores && type.getDimSize(2) == size
               ? std::optional(GroupScore::Max)
               : std::nullopt;
  // The sum of the two largest: a top-2 of each group as a row.
  auto top = of.getDefiningOp<GateOp>();
  return updateOf(op) == Update::Add && start == 0.0 && top &&
                 of == top.getWeights() && hasPlainWeights(top) &&
                 top.getTopK() == 2 && !top.getBias() && !top.getGroups() &&
                 type.getDimSize(2) == 2 && top.getNumExperts() == size &&
                 top.getScoreElementType() ==
                     getElementTypeOrSelf(top.getLogits()) &&
                 skipReshapes(top.getLogits()) == scores
             ? std::optional(GroupScore::Top2Sum)
             : std::nullopt;
}

bool mlir::moe::raising::raiseGroups(GateOp gate, Routing &routing) {
  if (!hasPlainWeights(gate) || gate.getGroups())
    return false;
  std::optional<MaskedGroups> masked = matchMasked(gate, routing);
  if (!masked)
    return false;
  const Selector &mask = masked->mask;
  Value scores = skipReshapes(masked->scores);
  auto groups = mask.ids.getDefiningOp<GateOp>();
  if (mask.kind != Selector::Product || !mask.hot || mask.isPlaceful() ||
      mask.weights || mask.unless || mask.expert || !mask.functions.empty() ||
      mask.axes != Axes{"t", "e"} || !groups || !hasPlainWeights(groups) ||
      groups.getBias() || groups.getGroups() ||
      scores.getType() != gate.getLogits().getType())
    return false;
  int64_t count = groups.getNumExperts(), keep = groups.getTopK(),
          experts = gate.getNumExperts();
  if (experts % count != 0 ||
      int64_t(gate.getTopK()) > keep * (experts / count))
    return false;
  std::optional<GroupScore> score =
      matchScores(groups.getLogits(), scores, count, experts / count);
  if (!score)
    return false;
  // Weights that are not gathered are masked scores. If none is below 0, a
  // masked one that is selected weighs nothing: never selecting it is the same.
  GroupFill fill = masked->fill;
  if (fill == GroupFill::Zero && !gate.getWeights().use_empty()) {
    if (!isNotNegative(scores))
      return false;
    fill = GroupFill::NegInf;
  }
  routing.rewriter.modifyOpInPlace(gate, [&] {
    gate.getLogitsMutable().assign(scores);
    gate.setGroupsAttr(
        GroupsAttr::get(gate.getContext(), count, keep, *score, fill));
  });
  return true;
}
