//===- FuseEpilogue.cpp - Fuse elementwise ops into epilogues -------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "EpilogueFusion.h"
#include "moe/Dialect/MoE/Transforms/Fusion/FusionRemarks.h"
#include "moe/Dialect/MoE/Transforms/Fusion/Passes.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEFUSEEPILOGUE
#include "moe/Dialect/MoE/Transforms/Fusion/Passes.h.inc"
} // namespace mlir::moe

static bool readsMatmul(linalg::GenericOp op) {
  return llvm::any_of(op.getDpsInputs(), [](Value input) {
    return input.getDefiningOp<GroupedMatmulOp>();
  });
}

namespace {
struct MoEFuseEpilogue : moe::impl::MoEFuseEpilogueBase<MoEFuseEpilogue> {
  using MoEFuseEpilogueBase::MoEFuseEpilogueBase;

  void runOnOperation() override {
    IRRewriter rewriter(&getContext());
    for (Region &region : getOperation()->getRegions())
      generalizeElementwise(rewriter, region);
    // In order, so that a chain of operations is fused into one epilogue.
    SmallVector<linalg::GenericOp> consumers;
    getOperation()->walk(
        [&](linalg::GenericOp op) { consumers.push_back(op); });
    for (linalg::GenericOp op : consumers)
      if (readsMatmul(op))
        rewrite(rewriter, op);
  }

  void rewrite(IRRewriter &rewriter, linalg::GenericOp op) {
    auto notFused = [&](StringRef reason) {
      remarkNotFused(op, "EpilogueNotFused", reason);
    };
    if (!op.hasPureTensorSemantics() || !isElementwiseOnMatrix(op))
      return notFused("not elementwise on the result of a matmul");
    SmallVector<EpilogueInput> inputs = epilogueInputs(op);
    SmallVector<GroupedMatmulOp> matmuls = fusibleMatmuls(op, inputs);
    if (matmuls.empty())
      return notFused("the matmul has other uses");
    Value init = op.getDpsInitOperand(0)->get();
    rewriter.setInsertionPoint(op);
    GroupedMatmulOp fused =
        fuseIntoEpilogue(rewriter, op, inputs, matmuls, init);
    remarkFused(
        op, "EpilogueFused",
        matmuls.size() == 1
            ? "elementwise operation fused into the epilogue of a matmul"
            : "matmuls of the same rows fused with the operation that joins "
              "them");
    numFused += 1;
    numMerged += matmuls.size() - 1;
    rewriter.replaceOp(op, fused.getResult());
    // The remaining users are tensor.dim; the destination has the same extents.
    for (GroupedMatmulOp matmul : matmuls)
      rewriter.replaceOp(matmul, matmul.getInit());
  }
};
} // namespace
