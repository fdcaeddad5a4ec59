//===- RoutingToLinalg.cpp - Operations without CPU kernels ---------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Lowering.h"
#include "moe/Conversion/MoEToLinalg/MoEToLinalg.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/SCF/IR/SCF.h"

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
    auto hasKernel = [](Operation *op) {
      return isa<GroupedMatmulOp, GatherSumOp, PackOp, QuantizeRowsOp>(op) ||
             op->getParentOfType<GroupedMatmulOp>();
    };
    if (failed(applyLinalgLowering(getOperation(), std::move(patterns),
                                   hasKernel)))
      signalPassFailure();
  }
};
} // namespace
