//===- RaiseRouting.cpp - Dispatches and combinations of others ----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Routing.h"

#include "moe/Dialect/MoE/Transforms/Raising/Passes.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
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
                                        "while"};
  StringRef name = op->getName().getStringRef();
  return (name.consume_front("stablehlo.") && !others.contains(name)) ||
         name.starts_with("chlo.");
}

/// True for operations that a layer of experts has: a top-k or grouped product.
static bool isOfExperts(Operation *op) {
  if (isa<GateOp>(op))
    return true;
  StringRef name = op->getName().getStringRef();
  if (name == "chlo.top_k" || name == "chlo.ragged_dot")
    return true;
  if (name != "stablehlo.composite")
    return false;
  auto of = op->getAttrOfType<StringAttr>("name");
  return of &&
         (of.getValue() == "chlo.top_k" || of.getValue() == "chlo.ragged_dot");
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
  using MoERaiseRoutingBase::MoERaiseRoutingBase;

  void runOnOperation() override {
    // Blocks without experts stay as they are.
    SetVector<Block *> blocks;
    walkOutsideLinalg(getOperation(), [&](Operation *op) {
      if (isOfExperts(op))
        blocks.insert(op->getBlock());
      return WalkResult::advance();
    });
    if (blocks.empty())
      return markAllAnalysesPreserved();
    if (Operation *op = findMalformed(getOperation()))
      return remarkNotRaised(op, "RoutingNotRaised", malformed);
    for (Block *block : blocks)
      raise(*block);
  }

  void raise(Block &block) {
    IRRewriter rewriter(&getContext());
    Routing routing{rewriter, {}};
    bool changed = false;
    for (Operation &op : llvm::make_early_inc_range(block)) {
      rewriter.setInsertionPoint(&op);
      if (GateOp gate = raiseTopK(&op, rewriter)) {
        routing.visit(gate);
        ++numGates;
        changed = true;
        continue;
      }
      if (raiseSoftmax(&op, rewriter) || raiseColumns(&op, rewriter)) {
        changed = true;
        continue;
      }
      if (removeTruth(&op, routing))
        continue;
      bool isRaised = true;
      if (raiseDispatch(&op, routing))
        ++numDispatches;
      else if (raiseCombine(&op, routing))
        ++numCombinations;
      else if (raiseMixture(&op, routing))
        ++numMixtures;
      else
        isRaised = false;
      changed |= isRaised;
      if (!isRaised)
        routing.visit(&op);
    }
    if (!changed)
      return;
    eraseUnused(rewriter, block);
    // Of what is left.
    routing.choices = Choices();
    for (Operation &op : block)
      routing.choices.visit(&op);
    if (raiseCounts(routing, block))
      eraseUnused(rewriter, block);
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
