//===- MoEToLinalg.cpp - Reference lowering -------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Conversion/MoEToLinalg/MoEToLinalg.h"
#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_CONVERTMOETOLINALG
#include "moe/Conversion/Passes.h.inc"
} // namespace mlir::moe

void mlir::moe::populateMoEToLinalgPatterns(RewritePatternSet &patterns) {
  populateGateToLinalgPatterns(patterns);
  populateDispatchToLinalgPatterns(patterns);
  populateExpertToLinalgPatterns(patterns);
  populateCombineToLinalgPatterns(patterns);
}

namespace {
struct ConvertMoEToLinalg
    : moe::impl::ConvertMoEToLinalgBase<ConvertMoEToLinalg> {
  void runOnOperation() override {
    RewritePatternSet patterns(&getContext());
    populateMoEToLinalgPatterns(patterns);
    if (failed(applyPatternsGreedily(getOperation(), std::move(patterns))))
      return signalPassFailure();
    getOperation()->walk([&](Operation *op) {
      if (!isa<MoEDialect>(op->getDialect()))
        return WalkResult::advance();
      op->emitOpError("was not lowered to linalg");
      signalPassFailure();
      return WalkResult::interrupt();
    });
  }
};
} // namespace
