//===- DenseToGrouped.cpp - Products with one weight for all rows ---------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ExpertMatmuls.h"
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
    SmallVector<linalg::LinalgOp> products;
    getOperation()->walk([&](linalg::LinalgOp op) {
      // Those of an expert are its own affair.
      if (linalg::isaContractionOpInterface(op) &&
          !op->getParentOfType<ExpertOp>())
        products.push_back(op);
    });
    for (linalg::LinalgOp op : products) {
      std::optional<PlainProduct> product = matchPlainProduct(op);
      if (!product) {
        remarkNotFused(op, "DenseNotGrouped",
                       "a matmul does not accumulate into zeros of f32");
        continue;
      }
      IRRewriter rewriter(op);
      auto type = cast<RankedTensorType>(product->rhs.getType());
      Value weights = tensor::ExpandShapeOp::create(
          rewriter, op.getLoc(),
          RankedTensorType::get({1, type.getDimSize(0), type.getDimSize(1)},
                                type.getElementType()),
          product->rhs, ArrayRef<ReassociationIndices>{{0, 1}, {2}});
      Value result =
          buildPlainProduct(rewriter, op.getLoc(), product->lhs,
                            /*offsets=*/nullptr, weights, product->transposed);
      ++numGrouped;
      remarkFused(op, "DenseGrouped", "a matmul became a grouped one");
      if (result.getType() != op->getResult(0).getType())
        result = tensor::CastOp::create(rewriter, op.getLoc(),
                                        op->getResult(0).getType(), result);
      rewriter.replaceOp(op, result);
    }
  }
};
} // namespace
