//===- FuseScales.cpp - Fuse dequantization into matmuls ------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Dequantization.h"
#include "moe/Dialect/MoE/Transforms/Fusion/FusionRemarks.h"
#include "moe/Dialect/MoE/Transforms/Fusion/Passes.h"

#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/Iterators.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEFUSESCALES
#include "moe/Dialect/MoE/Transforms/Fusion/Passes.h.inc"
} // namespace mlir::moe

/// Returns the dequantization that defines `value`, if any.
static std::optional<Dequantization> dequantizationOf(OpBuilder &b, Value value,
                                                      bool keepFormats) {
  if (auto generic = value.getDefiningOp<linalg::GenericOp>())
    return matchDequantization(generic);
  auto dequantize = value.getDefiningOp<DequantizeOp>();
  return dequantize && !keepFormats ? matchDequantization(b, dequantize)
                                    : std::nullopt;
}

/// Returns the dequantization of weights, which may be those of one expert,
/// expanded to three dimensions.
static std::optional<Dequantization> weightsOf(OpBuilder &b, Value weights,
                                               bool keepFormats) {
  auto expanded = weights.getDefiningOp<tensor::ExpandShapeOp>();
  if (!expanded)
    return dequantizationOf(b, weights, keepFormats);
  auto type = expanded.getResultType();
  std::optional<Dequantization> matrix =
      dequantizationOf(b, expanded.getSrc(), keepFormats);
  if (!matrix || matrix->blocks.size() != 2 || type.getRank() != 3 ||
      type.getDimSize(0) != 1)
    return std::nullopt;
  auto expand = [&](Value value) -> Value {
    auto from = cast<RankedTensorType>(value.getType());
    SmallVector<int64_t> shape{1};
    llvm::append_range(shape, from.getShape());
    return tensor::ExpandShapeOp::create(
        b, expanded.getLoc(), from.clone(shape), value,
        ArrayRef<ReassociationIndices>{{0, 1}, {2}});
  };
  matrix->quantized = expand(matrix->quantized);
  matrix->scales = expand(matrix->scales);
  matrix->blocks.insert(matrix->blocks.begin(), 1);
  return matrix;
}

/// True if scaling partial sums is worth more than decoding the weights once:
/// tensor cores multiply 16 steps of K-major operands, and scale them after
/// whole stages of 128 steps and groups of 8 columns.
static bool canScalePartialSums(GroupedMatmulOp op, ArrayRef<int64_t> blocks) {
  Type rows = cast<RankedTensorType>(op.getLhs().getType()).getElementType();
  auto divides = [](int64_t unit, int64_t block, int64_t extent) {
    return block % unit == 0 || block >= extent;
  };
  return !rows.isF32() && op.getTransposed() && op.getK() % 16 == 0 &&
         divides(8, blocks[1], op.getN()) && divides(128, blocks[2], op.getK());
}

namespace {
struct MoEFuseScales : moe::impl::MoEFuseScalesBase<MoEFuseScales> {
  using MoEFuseScalesBase::MoEFuseScalesBase;

  void runOnOperation() override {
    SmallVector<GroupedMatmulOp> matmuls;
    getOperation()->walk([&](GroupedMatmulOp op) {
      if (op.getResult() && !op.getPanels())
        matmuls.push_back(op);
    });
    for (GroupedMatmulOp op : matmuls) {
      fuseWeights(op);
      fuseRows(op);
    }
    // A dead dequantization would still count as a use of the quantized rows.
    getOperation()->walk<WalkOrder::PostOrder, ReverseIterator>(
        [](Operation *op) {
          if (isa<linalg::GenericOp, tensor::ExpandShapeOp, DequantizeOp>(op) &&
              isOpTriviallyDead(op))
            op->erase();
        });
  }

  /// Fuses the scales of all weights of a matmul, or of none.
  void fuseWeights(GroupedMatmulOp op) {
    if (!op.getWeightScales().empty())
      return;
    OpBuilder b(op);
    SmallVector<Value> quantized, scales;
    SmallVector<int64_t> blocks;
    for (Value weights : op.getWeights()) {
      std::optional<Dequantization> found = weightsOf(b, weights, keepFormats);
      if (!found) {
        if (!quantized.empty())
          remarkNotFused(op, "ScalesNotFused",
                         "only some of the weights are dequantized");
        return;
      }
      if (found->hasFormat && !canScalePartialSums(op, found->blocks)) {
        remarkNotFused(op, "ScalesNotFused",
                       "no matmul scales partial sums of such blocks");
        return;
      }
      if (!quantized.empty() && blocks != found->blocks) {
        remarkNotFused(op, "ScalesNotFused",
                       "the weights have blocks of different extents");
        return;
      }
      quantized.push_back(found->quantized);
      scales.push_back(found->scales);
      blocks = found->blocks;
    }
    if (blocks[0] != 1) {
      remarkNotFused(op, "ScalesNotFused", "experts share scales");
      return;
    }
    if (op.getTransposed())
      std::swap(blocks[1], blocks[2]);
    if (op.getLhsScales() && op.getBlockK() != blocks[1]) {
      remarkNotFused(
          op, "ScalesNotFused",
          "rows and weights have blocks of different extents along k");
      return;
    }
    op.getWeightsMutable().assign(quantized);
    op.getWeightScalesMutable().assign(scales);
    op.setBlocks(ArrayRef(blocks).drop_front());
    ++numFused;
    remarkFused(op, "ScalesFused", "scales of the weights fused into a matmul");
  }

  void fuseRows(GroupedMatmulOp op) {
    OpBuilder b(op);
    std::optional<Dequantization> found =
        dequantizationOf(b, op.getLhs(), keepFormats);
    if (!found)
      return;
    auto notFused = [&](StringRef reason) {
      remarkNotFused(op, "ScalesNotFused", reason);
    };
    auto weights = cast<RankedTensorType>(op.getWeights().front().getType());
    if (!isa<Float8E4M3FNType>(weights.getElementType()))
      return notFused("the rows are quantized, the weights are not");
    if (found->blocks[0] != 1)
      return notFused("rows share scales");
    if (op.isScaled() && op.getBlockK() != found->blocks[1])
      return notFused(
          "rows and weights have blocks of different extents along k");
    if (!op.isScaled())
      op.setBlocks(ArrayRef<int64_t>{found->blocks[1], op.getN()});
    op.getLhsMutable().assign(found->quantized);
    op.getLhsScalesMutable().assign(found->scales);
    ++numFused;
    remarkFused(op, "ScalesFused", "scales of the rows fused into a matmul");
  }
};
} // namespace
