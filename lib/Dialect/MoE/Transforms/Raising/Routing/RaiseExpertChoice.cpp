//===- RaiseExpertChoice.cpp - Experts that choose their tokens ----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A top-k of scores [E, T] whose one-hot masks [E, C, T] dispatch and combine:
// rows are those of experts, and what they choose are tokens. It was raised as
// the choice of tokens among experts. The product that adds up the choices of
// all rows tells, and the masks are read once more then.
//
//===----------------------------------------------------------------------===//

#include "Contraction.h"
#include "Gate/Match.h"
#include "Routing/Routing.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

/// Returns the gate whose choices a mask [R, K, N] weighs, of which the product
/// leaves N alone; null if it is none.
static GateOp matchGate(const Contraction &dot, unsigned mask,
                        const Selector &selector) {
  if (selector.kind != Selector::Product || !selector.hot || selector.slot ||
      selector.kept || selector.unless || selector.expert ||
      !selector.functions.empty() || !selector.weights ||
      selector.axes.size() != 3)
    return {};
  for (auto [loop, names] : llvm::zip_equal(dot.loops(mask), selector.axes))
    if ((names != "t" && names != "k" && names != "e") ||
        (names == "e") != llvm::is_contained(dot.outLoops, loop))
      return {};
  auto gate = selector.ids.getDefiningOp<GateOp>();
  return gate && hasPlainWeights(gate) && !gate.getBias() &&
                 gate.getWeights() == selector.weights &&
                 gate.getLogits().getType().hasStaticShape() &&
                 topKOf(selector.ids) > 1
             ? gate
             : GateOp();
}

/// Builds the gate of experts that choose among the tokens.
static GateOp buildGate(GateOp gate, Routing &routing) {
  RewriterBase &rewriter = routing.rewriter;
  Location loc = gate.getLoc();
  rewriter.setInsertionPoint(gate);
  Value logits = gate.getLogits();
  RankedTensorType type = tensorOf(logits);
  int64_t experts = type.getDimSize(0), tokens = type.getDimSize(1);
  Operation *transpose = definedBy(logits, "stablehlo.transpose");
  if (transpose &&
      integersOf(transpose, "permutation") == SmallVector<int64_t>{1, 0}) {
    logits = transpose->getOperand(0);
  } else {
    OperationState state(loc, "stablehlo.transpose");
    state.addOperands(logits);
    state.addTypes(
        RankedTensorType::get({tokens, experts}, type.getElementType()));
    state.addAttribute("permutation", rewriter.getDenseI64ArrayAttr({1, 0}));
    logits = rewriter.create(state)->getResult(0);
    routing.made.push_back(logits.getDefiningOp());
  }
  auto shape = [&](Value like) {
    return RankedTensorType::get({tokens, experts}, getElementTypeOrSelf(like));
  };
  MLIRContext *context = rewriter.getContext();
  auto made = GateOp::create(
      rewriter, loc, shape(gate.getWeights()), shape(gate.getIds()), logits,
      /*bias=*/nullptr, /*noise=*/nullptr, /*given_ids=*/nullptr,
      rewriter.getI64IntegerAttr(experts), ScoreAttr::get(context, Score::None),
      /*score_axis=*/nullptr,
      /*order=*/nullptr, SelectionAttr::get(context, Selection::ExpertChoice),
      /*margin=*/nullptr,
      /*groups=*/nullptr,
      CapacityAttr::get(context, gate.getTopK(), 0.0, Rounding::Ceil, 0, false),
      /*threshold=*/nullptr, /*normalize=*/nullptr, /*scale=*/nullptr,
      gate.getScoreTypeAttr());
  routing.made.push_back(made);
  return made;
}

bool mlir::moe::raising::raiseExpertChoice(Operation *op, Routing &routing) {
  std::optional<Contraction> dot =
      !routing.gates.empty() && isNamed(op, "stablehlo.dot_general")
          ? readContraction(op)
          : std::nullopt;
  if (!dot)
    return false;
  for (unsigned i : {0u, 1u}) {
    std::optional<Selector> mask = routing.selectors.get(dot->operand(i));
    GateOp gate = mask ? matchGate(*dot, i, *mask) : GateOp();
    // What a program is read as has no operations of its own.
    if (!gate || isRead(op))
      continue;
    GateOp made = buildGate(gate, routing);
    Selectors before = routing.selectors;
    for (const auto &[value, selector] : before.all()) {
      if (selector.ids != gate.getIds() || selector.kind != Selector::Product ||
          !selector.hot || selector.isPlaceful() || selector.unless ||
          selector.expert || countAxis(selector.axes, 'k') != 1 ||
          (selector.weights && selector.weights != gate.getWeights()))
        continue;
      Selector other = selector;
      for (std::string &names : other.axes)
        names = names == "t"   ? "e"
                : names == "k" ? "c"
                : names == "e" ? "t"
                               : names;
      other.slot = true;
      other.slots = gate.getTopK();
      other.ids = made.getIds();
      if (other.weights)
        other.weights = made.getWeights();
      routing.selectors.assign(value, other);
    }
    bool isRaised = raiseMixture(op, routing);
    routing.selectors = before;
    if (isRaised)
      return true;
  }
  return false;
}
