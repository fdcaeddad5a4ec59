//===- FoldGroups.cpp - A mask on all but the best groups of experts -----===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Match.h"
#include "Patterns.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/IR/Matchers.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

namespace {

/// A tensor [T, E] that is true (or, inverted, false) for the experts of some
/// groups, from ids [T, keep] of groups.
struct GroupMask {
  GateOp groups; // whose ids they are
  int64_t count;
  bool inverted = false;
};

} // namespace

/// Returns the gate whose ids a tensor [T, G] marks with 1 among zeros.
static GateOp matchMarks(Value tensor) {
  auto op = tensor.getDefiningOp<linalg::GenericOp>();
  if (!op || op.getNumDpsInputs() != 1 || op.getNumDpsInits() != 1)
    return {};
  auto fill = op.getDpsInits()[0].getDefiningOp<linalg::FillOp>();
  if (!fill || constantOf(fill.getInputs()[0]) != 0.0)
    return {};
  auto ids = skipExtensions(op.getDpsInputs()[0]).getDefiningOp<GateOp>();
  if (!ids || skipExtensions(op.getDpsInputs()[0]) != ids.getIds())
    return {};
  MLIRContext *context = op.getContext();
  auto map = [&](ArrayRef<unsigned> dims) {
    return AffineMap::getMultiDimMapWithTargets(3, dims, context);
  };
  SmallVector<AffineMap> maps = op.getIndexingMapsArray();
  if (op.getNumLoops() != 3 || maps[0] != map({0, 2}) || maps[1] != map({0, 1}))
    return {};
  // select(id == index of the group, 1, old)
  Block *body = op.getBody();
  auto select =
      body->getTerminator()->getOperand(0).getDefiningOp<arith::SelectOp>();
  auto equal =
      select ? select.getCondition().getDefiningOp<arith::CmpIOp>() : nullptr;
  if (!equal || equal.getPredicate() != arith::CmpIPredicate::eq ||
      select.getFalseValue() != body->getArgument(1) ||
      constantOf(select.getTrueValue()) != 1.0)
    return {};
  for (bool swapped : {false, true}) {
    auto index = (swapped ? equal.getRhs() : equal.getLhs())
                     .getDefiningOp<linalg::IndexOp>();
    auto id = (swapped ? equal.getLhs() : equal.getRhs())
                  .getDefiningOp<arith::IndexCastOp>();
    if (index && id && index.getDim() == 1 &&
        id.getIn() == body->getArgument(0))
      return ids;
  }
  return {};
}

/// True for the reassociation of [T, G, S] and [T, G · S].
static bool mergesLastTwo(ArrayRef<ReassociationIndices> groups) {
  return groups.size() == 2 && groups[0] == ReassociationIndices{0} &&
         groups[1] == ReassociationIndices{1, 2};
}

static std::optional<GroupMask> matchMask(Value tensor) {
  GroupMask mask;
  // Conversions to truth values and negations, in any order.
  while (std::optional<Elementwise> match = matchElementwise(tensor)) {
    Value result = match->yielded();
    Value input;
    if (auto compare = result.getDefiningOp<arith::CmpFOp>()) {
      if (compare.getPredicate() == arith::CmpFPredicate::UNE &&
          constantOf(compare.getRhs()) == 0.0)
        input = match->inputOf(compare.getLhs(), {0, 1});
    } else if (auto negation = result.getDefiningOp<arith::XOrIOp>()) {
      APInt one;
      if (matchPattern(negation.getRhs(), m_ConstantInt(&one)) && one.isOne()) {
        input = match->inputOf(negation.getLhs(), {0, 1});
        mask.inverted ^= bool(input);
      }
    }
    if (!input)
      break;
    tensor = input;
  }
  auto collapse = tensor.getDefiningOp<tensor::CollapseShapeOp>();
  if (!collapse || !mergesLastTwo(collapse.getReassociationIndices()))
    return std::nullopt;
  std::optional<Elementwise> repeat = matchElementwise(collapse.getSrc());
  Value marks = repeat ? repeat->inputOf(repeat->yielded(), {0, 1}) : Value();
  if (!marks || collapse.getSrcType().getRank() != 3)
    return std::nullopt;
  mask.groups = matchMarks(marks);
  mask.count = collapse.getSrcType().getDimSize(1);
  if (!mask.groups)
    return std::nullopt;
  return mask;
}

/// True for the reassociation of [T · G, S] and [T, G, S].
static bool mergesFirstTwo(ArrayRef<ReassociationIndices> groups) {
  return groups.size() == 2 && groups[0] == ReassociationIndices{0, 1} &&
         groups[1] == ReassociationIndices{2};
}

/// Returns the scores [T, G · S] whose groups of S have the scores `groups`
/// [T, G], and sets how.
static Value matchGroupScores(Value groups, int64_t count, GroupScore &kind) {
  // True for a result [T, G, ...].
  auto hasGroups = [&](tensor::ExpandShapeOp expand) {
    return expand && expand.getResultType().getDimSize(1) == count;
  };
  // The largest of each group.
  if (Value grouped = matchReduction(groups, Reduction::Max)) {
    auto expand = grouped.getDefiningOp<tensor::ExpandShapeOp>();
    kind = GroupScore::Max;
    return hasGroups(expand) && mergesLastTwo(expand.getReassociationIndices())
               ? expand.getSrc()
               : Value();
  }
  // The sum of the two largest: a top-2 of each group as a row.
  Value best = matchReduction(groups, Reduction::Sum);
  auto expand = best ? best.getDefiningOp<tensor::ExpandShapeOp>() : nullptr;
  auto top = expand ? expand.getSrc().getDefiningOp<GateOp>() : nullptr;
  if (!top || !hasGroups(expand) ||
      !mergesFirstTwo(expand.getReassociationIndices()) ||
      !hasPlainWeights(top) || top.getTopK() != 2 || top.getBias() ||
      top.getGroups() || expand.getSrc() != top.getWeights() ||
      top.getScoreElementType() != top.getLogits().getType().getElementType())
    return {};
  auto rows = top.getLogits().getDefiningOp<tensor::CollapseShapeOp>();
  auto grouped =
      rows ? rows.getSrc().getDefiningOp<tensor::ExpandShapeOp>() : nullptr;
  if (!hasGroups(grouped) || !mergesFirstTwo(rows.getReassociationIndices()) ||
      !mergesLastTwo(grouped.getReassociationIndices()))
    return {};
  kind = GroupScore::Top2Sum;
  return grouped.getSrc();
}

namespace {

/// gate(select(mask of groups, scores, −inf or 0)) → groups.
struct FoldGroups : OpRewritePattern<GateOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(GateOp gate,
                                PatternRewriter &rewriter) const override {
    std::optional<Elementwise> match = matchElementwise(gate.getLogits());
    auto select =
        match ? match->yielded().getDefiningOp<arith::SelectOp>() : nullptr;
    if (!hasPlainWeights(gate) || gate.getGroups() || !select)
      return failure();
    Value condition = match->inputOf(select.getCondition(), {0, 1});
    std::optional<GroupMask> mask =
        condition ? matchMask(condition) : std::nullopt;
    if (!mask)
      return failure();
    Value kept =
        mask->inverted ? select.getFalseValue() : select.getTrueValue();
    std::optional<double> fill = constantOf(
        mask->inverted ? select.getTrueValue() : select.getFalseValue());
    Value scores = match->inputOf(kept, {0, 1});
    bool isNegInf = fill == -std::numeric_limits<double>::infinity();
    if (!scores || !(isNegInf || fill == 0.0))
      return failure();
    GateOp groups = mask->groups;
    int64_t count = groups.getNumExperts(), keep = groups.getTopK();
    GroupScore kind;
    if (mask->count != count || gate.getNumExperts() % count != 0 ||
        int64_t(gate.getTopK()) > keep * (gate.getNumExperts() / count) ||
        !hasPlainWeights(groups) || groups.getBias() || groups.getGroups() ||
        matchGroupScores(groups.getLogits(), count, kind) != scores)
      return failure();
    // Weights that are not gathered are masked scores. If none is below 0, a
    // masked one that is selected weighs nothing: never selecting it is the
    // same.
    auto filled = isNegInf ? GroupFill::NegInf : GroupFill::Zero;
    if (!isNegInf && !gate.getWeights().use_empty()) {
      Score ignored;
      if (!matchScore(scores, ignored))
        return failure();
      filled = GroupFill::NegInf;
    }
    auto attribute =
        GroupsAttr::get(gate.getContext(), count, keep, kind, filled);
    rewriter.modifyOpInPlace(gate, [&] {
      gate.getLogitsMutable().assign(scores);
      gate.setGroupsAttr(attribute);
    });
    return success();
  }
};

} // namespace

void mlir::moe::raising::populateFoldGroupsPatterns(
    RewritePatternSet &patterns) {
  // Before scores are folded, of which weights are gathered.
  patterns.add<FoldGroups>(patterns.getContext(), /*benefit=*/2);
}
