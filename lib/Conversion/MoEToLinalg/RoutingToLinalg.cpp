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

/// Replaces `op` by values of types that may be more or less static.
static void replaceAs(Operation *op, SmallVector<Value> values,
                      PatternRewriter &rewriter) {
  for (auto [value, type] : llvm::zip(values, op->getResultTypes()))
    if (value.getType() != type)
      value = tensor::CastOp::create(rewriter, op->getLoc(), type, value);
  rewriter.replaceOp(op, values);
}

namespace {
/// Rounds matrices by a kernel, where it takes the format.
struct QuantizeByKernel : OpRewritePattern<QuantizeOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(QuantizeOp op,
                                PatternRewriter &rewriter) const override {
    if (const char *reason =
            RoundMatricesOp::reasonNotToRound(op.getFormat(), op.getK()))
      return rewriter.notifyMatchFailure(op, reason);
    ReifiedRankedShapedTypeDims shapes;
    (void)op.reifyResultShapes(rewriter, shapes);
    SmallVector<Value> inits;
    for (auto [field, shape] : llvm::zip(op.getFields(), shapes))
      inits.push_back(tensor::EmptyOp::create(
          rewriter, op.getLoc(), shape,
          cast<RankedTensorType>(field.getType()).getElementType()));
    auto rounded = RoundMatricesOp::create(
        rewriter, op.getLoc(), ValueRange(inits).getTypes(), op.getSource(),
        op.getTransposed(), op.getFormat(), inits);
    replaceAs(op, llvm::to_vector_of<Value>(rounded.getResults()), rewriter);
    return success();
  }
};

/// Lowers what the kernel does not take.
struct RoundWithoutKernel : OpRewritePattern<RoundMatricesOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(RoundMatricesOp op,
                                PatternRewriter &rewriter) const override {
    if (op.getResults().empty() ||
        !RoundMatricesOp::reasonNotToRound(op.getFormat(), op.getK()))
      return rewriter.notifyMatchFailure(op, "is for the kernel");
    replaceAs(op, lowerToLinalg(op, rewriter), rewriter);
    return success();
  }
};

struct ConvertMoERoutingToLinalg
    : moe::impl::ConvertMoERoutingToLinalgBase<ConvertMoERoutingToLinalg> {
  using ConvertMoERoutingToLinalgBase::ConvertMoERoutingToLinalgBase;

  void runOnOperation() override {
    RewritePatternSet patterns(&getContext());
    populateMoEToLinalgPatterns(patterns);
    populateQuantizedToLinalgPatterns(patterns);
    patterns.add<QuantizeByKernel, RoundWithoutKernel>(&getContext(),
                                                       /*benefit=*/2);
    auto hasKernel = [](Operation *op) {
      return isa<GroupedMatmulOp, GroupedContractOp, GatherSumOp, PackOp,
                 QuantizeRowsOp, RoundMatricesOp>(op) ||
             op->getParentOfType<GroupedMatmulOp>();
    };
    if (failed(applyLinalgLowering(getOperation(), std::move(patterns),
                                   hasKernel)))
      signalPassFailure();
  }
};
} // namespace
