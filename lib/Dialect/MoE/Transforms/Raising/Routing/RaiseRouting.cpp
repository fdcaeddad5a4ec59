//===- RaiseRouting.cpp - Dispatches and combinations of others ----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Reading/Reading.h"
#include "Reading/TorchReader.h"
#include "Routing/Routing.h"

#include "moe/Dialect/MoE/Transforms/Raising/Passes.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "llvm/ADT/StringSet.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

namespace mlir::moe {
#define GEN_PASS_DEF_MOERAISEROUTING
#include "moe/Dialect/MoE/Transforms/Raising/Passes.h.inc"
} // namespace mlir::moe

/// True for operations of StableHLO and CHLO without an effect.
static bool isWithoutEffect(Operation *op) {
  static const llvm::StringSet<> others{"after_all",
                                        "all_gather",
                                        "all_reduce",
                                        "all_to_all",
                                        "case",
                                        "collective_broadcast",
                                        "collective_permute",
                                        "composite",
                                        "custom_call",
                                        "if",
                                        "infeed",
                                        "outfeed",
                                        "partition_id",
                                        "recv",
                                        "reduce_scatter",
                                        "replica_id",
                                        "return",
                                        "rng",
                                        "rng_bit_generator",
                                        "send",
                                        "value",
                                        "while"};
  StringRef name = stablehloName(op);
  auto target = op->getAttrOfType<StringAttr>("call_target_name");
  if (name == "custom_call" && target &&
      target.getValue() == "stablehlo.dynamic_reduce_window")
    return true;
  return (!name.empty() && !others.contains(name)) ||
         op->getName().getStringRef().starts_with("chlo.");
}

/// True for operations that a layer of experts has: a top-k or grouped product.
static bool isOfExperts(Operation *op) {
  if (isa<GateOp>(op))
    return true;
  StringRef name = op->getName().getStringRef();
  if (name == "chlo.top_k" || name == "chlo.ragged_dot")
    return true;
  if (name.starts_with("torch.")) {
    static const llvm::StringSet<> names{"aten.topk", "aten.max.dim",
                                         "aten._grouped_mm",
                                         "transformers.grouped_mm_fallback"};
    return names.contains(torchName(op));
  }
  if (name != "stablehlo.composite")
    return false;
  auto of = op->getAttrOfType<StringAttr>("name");
  return of &&
         (of.getValue() == "chlo.top_k" || of.getValue() == "chlo.ragged_dot");
}

/// True for a reduction that may be an argmax, which other programs have, too:
/// of values and indices, or the smallest index; and for a sort of scores.
static bool mayBeChoice(Operation *op) {
  if (auto generic = dyn_cast<linalg::GenericOp>(op)) {
    if (generic.getNumReductionLoops() != 1)
      return false;
    Operation *last =
        generic.getBody()->getTerminator()->getOperand(0).getDefiningOp();
    return generic->getNumResults() == 2 ||
           isa_and_present<arith::MinSIOp>(last);
  }
  if (op->getName().getStringRef() == "stablehlo.sort") {
    RankedTensorType type = op->getNumOperands() == 1
                                ? tensorOf(op->getOperand(0))
                                : RankedTensorType();
    return type && type.getRank() == 2 && isRowFloat(type.getElementType());
  }
  return op->getName().getStringRef() == "stablehlo.reduce" &&
         (op->getNumOperands() == 4 || updateOf(op) == Update::Min);
}

/// Replaces rows that are selected everywhere: a bound that is kept.
static bool removeTruth(Operation *op, Routing &routing) {
  if (!isNamed(op, "stablehlo.select") || op->getNumOperands() != 3)
    return false;
  std::optional<Selector> selector = routing.selectors.get(op->getOperand(0));
  if ((!routing.choices.get(op->getOperand(0), Role::Truth) &&
       (!selector || selector->kind != Selector::Truth)) ||
      op->getOperand(1).getType() != op->getResult(0).getType())
    return false;
  routing.rewriter.replaceAllUsesWith(op->getResult(0), op->getOperand(1));
  return true;
}

namespace {
struct MoERaiseRouting : moe::impl::MoERaiseRoutingBase<MoERaiseRouting> {
  using Base = moe::impl::MoERaiseRoutingBase<MoERaiseRouting>;
  using Base::Base;

  void getDependentDialects(DialectRegistry &registry) const override {
    Base::getDependentDialects(registry);
    registry.insert<ReadingDialect, math::MathDialect>();
  }

  void runOnOperation() override {
    // Blocks without experts stay as they are.
    SetVector<Block *> blocks;
    llvm::DenseSet<Block *> ofExperts;
    walkOutsideLinalg(getOperation(), [&](Operation *op) {
      bool isCertain = isOfExperts(op);
      if (isCertain || mayBeChoice(op))
        blocks.insert(op->getBlock());
      if (isCertain)
        ofExperts.insert(op->getBlock());
      return WalkResult::advance();
    });
    if (blocks.empty())
      return markAllAnalysesPreserved();
    if (Operation *op = findMalformed(getOperation()))
      return remarkNotRaised(op, "RoutingNotRaised", malformed);
    // Inner blocks first: blocks that are read are replaced by their copy.
    SmallVector<std::tuple<Region *, unsigned, bool>> places;
    for (Block *block : llvm::reverse(blocks))
      places.push_back({block->getParent(), block->computeBlockNumber(),
                        ofExperts.contains(block)});
    bool isChanged = false;
    for (auto [region, number, isCertain] : places) {
      Block &block = *std::next(region->begin(), number);
      isChanged |= !isStableHLO(block) ? readAndRaise(block)
                   : isCertain         ? count(raise(block))
                                       : tryToRaise(block);
    }
    if (!isChanged)
      markAllAnalysesPreserved();
  }

  /// What was raised in a block.
  struct Raised {
    unsigned gates = 0, dispatches = 0, combinations = 0, mixtures = 0;
    bool isChanged = false;
  };

  bool count(const Raised &raised) {
    numGates += raised.gates;
    numDispatches += raised.dispatches;
    numCombinations += raised.combinations;
    numMixtures += raised.mixtures;
    return raised.isChanged;
  }

  static bool isStableHLO(Block &block) {
    return llvm::any_of(block, [](Operation &op) {
      StringRef dialect = op.getName().getDialectNamespace();
      return dialect == "stablehlo" || dialect == "chlo";
    });
  }

  /// Raises a copy of a block, which stays as it is if nothing was of experts.
  bool tryToRaise(Block &block) {
    Region *region = block.getParent();
    Operation *copy = region->getParentOp()->clone();
    Region &made = copy->getRegion(region->getRegionNumber());
    Raised raised = raise(*std::next(made.begin(), block.computeBlockNumber()));
    bool isDone = raised.dispatches + raised.combinations + raised.mixtures > 0;
    if (isDone)
      region->takeBody(made);
    copy->erase();
    return isDone && count(raised);
  }

  /// Raises a block of torch-mlir or linalg, which is read as StableHLO.
  bool readAndRaise(Block &block) {
    Region *region = block.getParent();
    Operation *parent = region->getParentOp();
    Operation *copy = parent->clone();
    Region &made = copy->getRegion(region->getRegionNumber());
    Block &body = *std::next(made.begin(), block.computeBlockNumber());
    Reader reader(body);
    reader.read(body);
    Raised raised = raise(body);
    bool isSorted = raised.dispatches + raised.combinations > 0;
    std::string reason = raised.isChanged ? reader.finish(body, isSorted) : "";
    bool isDone = raised.isChanged && reason.empty();
    if (isDone)
      region->takeBody(made);
    copy->erase();
    if (!reason.empty())
      remarkNotRaised(parent, "RoutingNotRaised", reason);
    return isDone && count(raised);
  }

  Raised raise(Block &block) {
    IRRewriter rewriter(&getContext());
    Routing routing{rewriter, {}};
    Raised raised;
    SmallVector<Argmax> argmaxes;
    for (Operation &op : llvm::make_early_inc_range(block))
      if (std::optional<Argmax> made = raiseArgmax(&op, routing))
        argmaxes.push_back(std::move(*made));
    for (Operation &op : llvm::make_early_inc_range(block)) {
      rewriter.setInsertionPoint(&op);
      Operation *before = op.getPrevNode(), *after = op.getNextNode();
      GateOp gate = raiseTopK(&op, routing);
      bool isGate = bool(gate);
      if (gate)
        raiseGroups(gate, routing);
      raised.gates += isGate;
      if (isGate || raiseSoftmax(&op, rewriter) ||
          raiseColumns(&op, rewriter)) {
        Operation *made = before ? before->getNextNode() : &block.front();
        for (; made != after; made = made->getNextNode())
          routing.visit(made);
        raised.isChanged = true;
        continue;
      }
      if (removeTruth(&op, routing))
        continue;
      bool isRaised = true;
      if (raiseDispatch(&op, routing))
        ++raised.dispatches;
      else if (raiseSortedProduct(&op, routing))
        ++raised.dispatches;
      else if (raiseCombine(&op, routing))
        ++raised.combinations;
      else if (raiseMixture(&op, routing) || raiseUnrolled(&op, routing) ||
               raiseChoices(&op, routing) || raiseLoop(&op, routing) ||
               raiseExpertChoice(&op, routing))
        ++raised.mixtures;
      else
        isRaised = false;
      raised.isChanged |= isRaised;
      if (isRaised)
        continue;
      raised.isChanged |= raiseMaskedScores(&op, routing);
      routing.visit(&op);
    }
    unsigned returned = raiseOnlyChoices(routing);
    raised.combinations += returned;
    raised.isChanged |= returned > 0;
    for (Operation *op : llvm::reverse(routing.made))
      if (op->use_empty())
        rewriter.eraseOp(op);
    for (const Argmax &made : argmaxes)
      if (!undoUnused(made, rewriter))
        ++raised.gates;
    if (!raised.isChanged)
      return raised;
    eraseUnused(rewriter, block);
    // Of what is left.
    routing.choices = Choices();
    for (Operation &op : block)
      routing.choices.visit(&op);
    if (raiseCounts(routing, block))
      eraseUnused(rewriter, block);
    routing.choices = Choices();
    for (Operation &op : block)
      routing.choices.visit(&op);
    if (raiseOrder(routing))
      eraseUnused(rewriter, block);
    return raised;
  }

  /// Erases operations that nothing uses any more.
  static void eraseUnused(RewriterBase &rewriter, Block &block) {
    for (Operation &op :
         llvm::make_early_inc_range(llvm::reverse(block.getOperations())))
      if (op.use_empty() && isWithoutEffect(&op))
        rewriter.eraseOp(&op);
  }
};
} // namespace
