//===- RaiseGate.cpp - Fold the operations around a top-k ----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Foreign.h"
#include "Match.h"
#include "Patterns.h"

#include "moe/Dialect/MoE/IR/MoE.h"
#include "moe/Dialect/MoE/Transforms/Raising/Passes.h"

#include "mlir/Analysis/SliceAnalysis.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/IR/Remarks.h"
#include "mlir/Interfaces/FunctionInterfaces.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOERAISEGATE
#include "moe/Dialect/MoE/Transforms/Raising/Passes.h.inc"
} // namespace mlir::moe

namespace {

/// Counts the gates that patterns changed.
struct CountSteps : RewriterBase::Listener {
  void notifyOperationModified(Operation *op) override {
    count += isa<GateOp>(op);
  }
  int64_t count = 0;
};

/// True if a top-k alone is among the operations that `op` depends on.
static bool needsTopK(Operation *op) {
  SetVector<Operation *> slice;
  BackwardSliceOptions options;
  options.inclusive = true;
  options.omitBlockArguments = true;
  return succeeded(getBackwardSlice(op, &slice, options)) &&
         llvm::any_of(slice, [](Operation *each) {
           auto gate = dyn_cast<GateOp>(each);
           return gate && raising::isTopK(gate);
         });
}

/// Returns the type that scores plus a bias of the experts are rounded to; null
/// if they are something else.
static Type matchRoundedSum(Value scores) {
  std::optional<raising::Elementwise> match = raising::matchElementwise(scores);
  Value rounded = match ? match->yielded() : Value();
  auto sum = rounded
                 ? raising::skipRounding(rounded).getDefiningOp<arith::AddFOp>()
                 : nullptr;
  if (!sum || sum.getResult() == rounded)
    return {};
  for (bool swapped : {false, true})
    if (match->inputOf(swapped ? sum.getRhs() : sum.getLhs(), {0, 1}) &&
        match->inputOf(swapped ? sum.getLhs() : sum.getRhs(), {1}))
      return rounded.getType();
  return {};
}

/// Emits a remark if the choices that a dispatch takes are not those of a whole
/// gate, with the operation that no pattern folded.
static void remarkIfLeft(DispatchOp dispatch) {
  StringRef part = "ids";
  std::string why;
  Value ids = raising::skipExtensions(dispatch.getIds());
  Operation *left = ids.getDefiningOp();
  if (auto gate = dyn_cast_if_present<GateOp>(left)) {
    // The logits of a gate may come from a matmul and its bias.
    left = raising::skipTensorWidening(gate.getLogits()).getDefiningOp();
    if (!raising::isTopK(gate) ||
        !isa_and_present<linalg::GenericOp, linalg::SoftmaxOp>(left))
      return;
    part = "scores";
    if (Type type = matchRoundedSum(gate.getLogits()))
      llvm::raw_string_ostream(why) << ": with their bias they are rounded to "
                                    << type << ", those of a gate are not";
  } else if (!left || !needsTopK(left)) {
    return; // the ids are given, or derived from those of a gate
  }
  auto function = dispatch->getParentOfType<FunctionOpInterface>();
  remark::missed(dispatch.getLoc(),
                 remark::RemarkOpts::name("RouterNotRaised")
                     .category("moe-raise")
                     .function(function ? function.getName() : ""))
      << ("not raised: no gate has the " + part + " of '" +
          left->getName().getStringRef() + "'" + why)
             .str();
}

struct MoERaiseGate : moe::impl::MoERaiseGateBase<MoERaiseGate> {
  using MoERaiseGateBase::MoERaiseGateBase;

  void runOnOperation() override {
    // Without a gate there is nothing to fold into one, and what a rewriter
    // folds on its way stays as it is.
    bool hasGate =
        raising::walkOutsideLinalg(getOperation(), [](Operation *op) {
          return isa<GateOp>(op) ? WalkResult::interrupt()
                                 : WalkResult::advance();
        });
    if (!hasGate)
      return markAllAnalysesPreserved(); // nothing to verify again, either
    RewritePatternSet patterns(&getContext());
    raising::populateFoldExtentPatterns(patterns);
    raising::populateFoldScorePatterns(patterns);
    raising::populateFoldSelectionPatterns(patterns);
    raising::populateFoldGroupsPatterns(patterns);
    raising::populateFoldSelectedScorePatterns(patterns);
    raising::populateFoldSingleChoicePatterns(patterns);
    raising::populateFoldNormalizePatterns(patterns);
    CountSteps steps;
    GreedyRewriteConfig config;
    config.setListener(&steps);
    if (failed(
            applyPatternsGreedily(getOperation(), std::move(patterns), config)))
      return signalPassFailure();
    numSteps += steps.count;
    getOperation()->walk(remarkIfLeft);
  }
};

} // namespace
