//===- FoldExtent.cpp - The number of tokens of a gate -------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Patterns.h"

#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace mlir::moe;

namespace {

/// The rows of the weights or ids of a gate are those of its logits. Taken from
/// there they are no use of the weights.
struct FoldExtent : OpRewritePattern<tensor::DimOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(tensor::DimOp dim,
                                PatternRewriter &rewriter) const override {
    auto gate = dim.getSource().getDefiningOp<GateOp>();
    if (!gate || dim.getConstantIndex() != 0)
      return failure();
    rewriter.modifyOpInPlace(
        dim, [&] { dim.getSourceMutable().assign(gate.getLogits()); });
    return success();
  }
};

} // namespace

void mlir::moe::raising::populateFoldExtentPatterns(
    RewritePatternSet &patterns) {
  patterns.add<FoldExtent>(patterns.getContext());
}
