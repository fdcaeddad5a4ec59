//===- FoldSingleChoice.cpp - Weights of one choice, as a vector ----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Match.h"
#include "Patterns.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

namespace {

/// f(collapse_shape(weights)) → collapse_shape(f(weights)): the weights [T, 1]
/// of a gate may lose their last dimension before anything is done with them.
struct FoldSingleChoice : OpRewritePattern<linalg::GenericOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(linalg::GenericOp op,
                                PatternRewriter &rewriter) const override {
    if (op.getNumLoops() != 1 || op.getNumDpsInputs() != 1 ||
        op->getNumResults() != 1 || !matchElementwise(op.getResult(0)) ||
        !op.getIndexingMapsArray().front().isIdentity())
      return failure();
    auto collapse =
        op.getDpsInputs()[0].getDefiningOp<tensor::CollapseShapeOp>();
    auto gate = collapse ? collapse.getSrc().getDefiningOp<GateOp>() : nullptr;
    if (!gate || collapse.getSrc() != gate.getWeights() || gate.getTopK() != 1)
      return failure();
    Location loc = op.getLoc();
    Type element = getElementTypeOrSelf(op.getResult(0));
    // The rows are those of the logits, so that the weights have one use less.
    Value empty = tensor::EmptyOp::create(
        rewriter, loc,
        ArrayRef<OpFoldResult>{
            tensor::getMixedSize(rewriter, loc, gate.getLogits(), 0),
            rewriter.getIndexAttr(1)},
        element);
    SmallVector<AffineMap> maps(2, rewriter.getMultiDimIdentityMap(2));
    SmallVector<utils::IteratorType> loops(2, utils::IteratorType::parallel);
    auto matrix = linalg::GenericOp::create(
        rewriter, loc, empty.getType(), gate.getWeights(), empty, maps, loops);
    rewriter.inlineRegionBefore(op.getRegion(), matrix.getRegion(),
                                matrix.getRegion().begin());
    rewriter.replaceOpWithNewOp<tensor::CollapseShapeOp>(
        op, op.getResult(0).getType(), matrix.getResult(0),
        ArrayRef<ReassociationIndices>{{0, 1}});
    return success();
  }
};

} // namespace

void mlir::moe::raising::populateFoldSingleChoicePatterns(
    RewritePatternSet &patterns) {
  patterns.add<FoldSingleChoice>(patterns.getContext());
}
