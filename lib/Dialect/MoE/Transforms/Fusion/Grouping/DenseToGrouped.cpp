//===- DenseToGrouped.cpp - Dense matmuls to grouped matmuls --------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "PlainMatmul.h"
#include "moe/Dialect/MoE/Transforms/Fusion/FusionRemarks.h"
#include "moe/Dialect/MoE/Transforms/Fusion/Passes.h"

#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/PatternMatch.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEDENSETOGROUPED
#include "moe/Dialect/MoE/Transforms/Fusion/Passes.h.inc"
} // namespace mlir::moe

namespace {
struct MoEDenseToGrouped : moe::impl::MoEDenseToGroupedBase<MoEDenseToGrouped> {
  using MoEDenseToGroupedBase::MoEDenseToGroupedBase;

  void runOnOperation() override {
    SmallVector<linalg::LinalgOp> matmuls;
    getOperation()->walk([&](linalg::LinalgOp op) {
      // moe-expert-to-grouped takes those of experts.
      if (linalg::isaContractionOpInterface(op) &&
          !op->getParentOfType<ExpertOp>())
        matmuls.push_back(op);
    });
    for (linalg::LinalgOp op : matmuls) {
      std::optional<PlainMatmul> matmul = matchPlainMatmul(op);
      if (!matmul) {
        remarkNotFused(op, "DenseNotGrouped",
                       "a matmul does not accumulate into zeros of f32");
        continue;
      }
      IRRewriter rewriter(op);
      auto type = cast<RankedTensorType>(matmul->rhs.getType());
      Value weights = tensor::ExpandShapeOp::create(
          rewriter, op.getLoc(),
          RankedTensorType::get({1, type.getDimSize(0), type.getDimSize(1)},
                                type.getElementType()),
          matmul->rhs, ArrayRef<ReassociationIndices>{{0, 1}, {2}});
      Value result =
          buildPlainMatmul(rewriter, op.getLoc(), matmul->lhs,
                           /*offsets=*/nullptr, weights, matmul->transposed);
      ++numGrouped;
      remarkFused(op, "DenseGrouped",
                  "matmul turned into a grouped matmul with one group");
      if (result.getType() != op->getResult(0).getType())
        result = tensor::CastOp::create(rewriter, op.getLoc(),
                                        op->getResult(0).getType(), result);
      rewriter.replaceOp(op, result);
    }
  }
};
} // namespace
