//===- RoutingToLinalg.cpp - All but what has kernels ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Conversion/MoEToLinalg/MoEToLinalg.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_CONVERTMOEROUTINGTOLINALG
#include "moe/Conversion/Passes.h.inc"
} // namespace mlir::moe

namespace {
struct ConvertMoERoutingToLinalg
    : moe::impl::ConvertMoERoutingToLinalgBase<ConvertMoERoutingToLinalg> {
  using ConvertMoERoutingToLinalgBase::ConvertMoERoutingToLinalgBase;

  void runOnOperation() override {
    RewritePatternSet patterns(&getContext());
    populateMoEToLinalgPatterns(patterns);
    populateQuantizedToLinalgPatterns(patterns);
    if (failed(applyPatternsGreedily(getOperation(), std::move(patterns))))
      return signalPassFailure();
    getOperation()->walk<WalkOrder::PreOrder>([&](Operation *op) {
      if (!isa_and_nonnull<MoEDialect>(op->getDialect()) ||
          isa<GroupedMatmulOp, GatherSumOp, PackOp, LaunchOp,
              MultiprocessorsOp>(op) ||
          op->getParentOfType<GroupedMatmulOp>())
        return WalkResult::advance();
      op->emitOpError("was not lowered to linalg");
      signalPassFailure();
      return WalkResult::interrupt();
    });
  }
};
} // namespace
