//===- RaiseGrouped.cpp - Grouped products of other dialects -------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "GroupedProduct.h"

#include "moe/Dialect/MoE/Transforms/Raising/Passes.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOERAISEGROUPED
#include "moe/Dialect/MoE/Transforms/Raising/Passes.h.inc"
} // namespace mlir::moe

using Raise = raising::Outcome (*)(Operation *,
                                   raising::GroupedProductBuilder &);

/// The patterns that an operation may match, by its dialect: most operations
/// are none of these.
static ArrayRef<Raise> patternsOf(Operation *op) {
  static const Raise ragged[]{raising::raiseRaggedDot,
                              raising::raiseBatchedRaggedDot},
      dots[]{raising::raiseMaskedDot, raising::raiseGatheredDot},
      torch[]{raising::raiseTorchGroupedMatmul,
              raising::raiseTorchScaledGroupedMatmul},
      contractions[]{raising::raiseGatheredDot},
      sums[]{raising::raiseExpandedDot};
  if (isa<linalg::LinalgOp>(op))
    return contractions;
  StringRef name = op->getName().getStringRef();
  if (name == "stablehlo.dot_general")
    return dots;
  if (name == "stablehlo.add")
    return sums;
  if (name == "chlo.ragged_dot" || name == "stablehlo.composite")
    return ragged;
  return name == "torch.operator" ? ArrayRef<Raise>(torch) : ArrayRef<Raise>();
}

namespace {
struct MoERaiseGrouped : moe::impl::MoERaiseGroupedBase<MoERaiseGrouped> {
  using MoERaiseGroupedBase::MoERaiseGroupedBase;

  void runOnOperation() override {
    SmallVector<Operation *> ops;
    raising::walkOutsideLinalg(getOperation(), [&](Operation *op) {
      if (!patternsOf(op).empty())
        ops.push_back(op);
      return WalkResult::advance();
    });
    if (ops.empty())
      return markAllAnalysesPreserved();
    if (Operation *op = raising::findMalformed(getOperation()))
      return raising::remarkNotRaised(op, "GroupedNotRaised",
                                      raising::malformed);
    bool isChanged = false;
    IRRewriter rewriter(&getContext());
    raising::GroupedProductBuilder builder(rewriter);
    for (Operation *op : ops)
      for (auto pattern : patternsOf(op)) {
        rewriter.setInsertionPoint(op);
        raising::Outcome outcome = pattern(op, builder);
        if (outcome.kind == raising::Outcome::Left)
          raising::remarkNotRaised(op, "GroupedNotRaised", outcome.reason);
        numRaised += outcome.kind == raising::Outcome::Raised;
        isChanged |= outcome.kind == raising::Outcome::Raised;
        if (outcome.kind != raising::Outcome::Unknown)
          break;
      }
    // Nothing to verify again, which takes longer than to find nothing.
    if (!isChanged)
      markAllAnalysesPreserved();
  }
};
} // namespace
