//===- TensorsToLinalg.cpp - Tensor operations without lowering to loops --===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Transforms/Passes.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Linalg/Transforms/Transforms.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Tensor/Transforms/Transforms.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"

using namespace mlir;

namespace mlir::moe {
#define GEN_PASS_DEF_MOETENSORSTOLINALG
#include "moe/Transforms/Passes.h.inc"
} // namespace mlir::moe

/// Creates a `linalg.generic` that computes each element of `init` from the
/// elements of `inputs` at the same index.
static Value
elementwise(OpBuilder &builder, Location loc, ValueRange inputs, Value init,
            llvm::function_ref<Value(OpBuilder &, Location, ValueRange)> body) {
  auto type = cast<RankedTensorType>(init.getType());
  SmallVector<AffineMap> maps(inputs.size() + 1,
                              builder.getMultiDimIdentityMap(type.getRank()));
  SmallVector<utils::IteratorType> iterators(type.getRank(),
                                             utils::IteratorType::parallel);
  return linalg::GenericOp::create(
             builder, loc, TypeRange(type), inputs, init, maps, iterators,
             [&](OpBuilder &b, Location at, ValueRange arguments) {
               linalg::YieldOp::create(b, at, body(b, at, arguments));
             })
      .getResult(0);
}

static Value emptyLike(OpBuilder &b, Location loc, Value tensor, Type type) {
  return tensor::EmptyOp::create(b, loc, tensor::getMixedSizes(b, loc, tensor),
                                 cast<RankedTensorType>(type).getElementType());
}

/// Returns `value`, cast if only one of the types has static extents.
static Value castTo(OpBuilder &b, Location loc, Value value, Type type) {
  return value.getType() == type
             ? value
             : tensor::CastOp::create(b, loc, type, value).getResult();
}

namespace {
/// Decomposes linalg.softmax and other aggregates with upstream's interface.
struct DecomposeAggregated
    : OpInterfaceRewritePattern<linalg::AggregatedOpInterface> {
  using OpInterfaceRewritePattern::OpInterfaceRewritePattern;
  LogicalResult matchAndRewrite(linalg::AggregatedOpInterface op,
                                PatternRewriter &rewriter) const override {
    if (!isa<linalg::LinalgDialect>(op->getDialect()) ||
        llvm::any_of(op->getOperandTypes(), llvm::IsaPred<MemRefType>))
      return failure();
    FailureOr<SmallVector<Value>> values = op.decomposeOperation(rewriter);
    if (failed(values))
      return failure();
    for (auto [value, type] : llvm::zip(*values, op->getResultTypes()))
      value = castTo(rewriter, op.getLoc(), value, type);
    rewriter.replaceOp(op, *values);
    return success();
  }
};

struct LowerPack : OpRewritePattern<linalg::PackOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(linalg::PackOp op,
                                PatternRewriter &rewriter) const override {
    return linalg::lowerPack(rewriter, op);
  }
};

struct LowerUnPack : OpRewritePattern<linalg::UnPackOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(linalg::UnPackOp op,
                                PatternRewriter &rewriter) const override {
    return linalg::lowerUnPack(rewriter, op);
  }
};

struct SplatToFill : OpRewritePattern<tensor::SplatOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(tensor::SplatOp op,
                                PatternRewriter &rewriter) const override {
    Value init = tensor::EmptyOp::create(
        rewriter, op.getLoc(), op.getType().getShape(),
        op.getType().getElementType(), op.getDynamicSizes());
    rewriter.replaceOpWithNewOp<linalg::FillOp>(op, op.getInput(), init);
    return success();
  }
};

struct BitcastToGeneric : OpRewritePattern<tensor::BitcastOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(tensor::BitcastOp op,
                                PatternRewriter &rewriter) const override {
    auto type = dyn_cast<RankedTensorType>(op.getType());
    if (!type || !isa<RankedTensorType>(op.getSource().getType()))
      return failure();
    Value init = emptyLike(rewriter, op.getLoc(), op.getSource(), type);
    Value result = elementwise(
        rewriter, op.getLoc(), op.getSource(), init,
        [&](OpBuilder &b, Location loc, ValueRange v) -> Value {
          return arith::BitcastOp::create(b, loc, type.getElementType(), v[0]);
        });
    rewriter.replaceOp(op, castTo(rewriter, op.getLoc(), result, type));
    return success();
  }
};

/// The elementwise lowering of upstream requires a condition for each element.
struct SelectToGeneric : OpRewritePattern<arith::SelectOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(arith::SelectOp op,
                                PatternRewriter &rewriter) const override {
    if (!isa<RankedTensorType>(op.getType()) ||
        !op.getCondition().getType().isInteger(1))
      return failure();
    Value init =
        emptyLike(rewriter, op.getLoc(), op.getTrueValue(), op.getType());
    Value result = elementwise(
        rewriter, op.getLoc(), {op.getTrueValue(), op.getFalseValue()}, init,
        [&](OpBuilder &b, Location loc, ValueRange v) -> Value {
          return arith::SelectOp::create(b, loc, op.getCondition(), v[0], v[1]);
        });
    rewriter.replaceOp(op, castTo(rewriter, op.getLoc(), result, op.getType()));
    return success();
  }
};

static Value toIndex(ImplicitLocOpBuilder &b, Value index) {
  return index.getType().isIndex()
             ? index
             : arith::IndexCastOp::create(b, b.getIndexType(), index)
                   .getResult();
}

/// Clamps `index` to dimension `dim` of `tensor`, so that data cannot cause an
/// out-of-bounds read.
static Value clamped(ImplicitLocOpBuilder &b, Value index, Value tensor,
                     int64_t dim) {
  index = toIndex(b, index);
  Value one = arith::ConstantIndexOp::create(b, 1);
  Value zero = arith::ConstantIndexOp::create(b, 0);
  Value last =
      arith::SubIOp::create(b, tensor::DimOp::create(b, tensor, dim), one);
  return arith::MaxSIOp::create(b, arith::MinSIOp::create(b, index, last),
                                zero);
}

struct GatherToGeneric : OpRewritePattern<tensor::GatherOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(tensor::GatherOp op,
                                PatternRewriter &rewriter) const override {
    Value source = op.getSource(), indices = op.getIndices();
    RankedTensorType type = op.getResultType();
    int64_t sourceRank = op.getSourceType().getRank();
    int64_t batch = op.getIndicesType().getRank() - 1;
    bool keepsDims = type.getRank() == batch + sourceRank;
    Location loc = op.getLoc();
    // Maps dimensions of the source to those of the result; -1 for a gathered
    // dimension.
    SmallVector<int64_t> from(sourceRank, -1);
    SmallVector<OpFoldResult> sizes =
        tensor::getMixedSizes(rewriter, loc, indices);
    sizes.pop_back();
    for (int64_t dim = 0; dim < sourceRank; ++dim) {
      bool gathered = llvm::is_contained(op.getGatherDims(), dim);
      if (!gathered)
        from[dim] = sizes.size();
      if (!gathered || keepsDims)
        sizes.push_back(gathered
                            ? OpFoldResult(rewriter.getIndexAttr(1))
                            : tensor::getMixedSize(rewriter, loc, source, dim));
    }
    Value init =
        tensor::EmptyOp::create(rewriter, loc, sizes, type.getElementType());
    Value result = elementwise(
        rewriter, loc, ValueRange(), init,
        [&](OpBuilder &builder, Location at, ValueRange) -> Value {
          ImplicitLocOpBuilder b(at, builder);
          auto here = [&](int64_t dim) -> Value {
            return linalg::IndexOp::create(b, dim);
          };
          SmallVector<Value> coordinate, sourceIndex(sourceRank);
          for (int64_t dim = 0; dim < batch; ++dim)
            coordinate.push_back(here(dim));
          coordinate.emplace_back();
          for (auto [i, dim] : llvm::enumerate(op.getGatherDims())) {
            coordinate.back() = arith::ConstantIndexOp::create(b, i);
            Value index = tensor::ExtractOp::create(b, indices, coordinate);
            sourceIndex[dim] = clamped(b, index, source, dim);
          }
          for (int64_t dim = 0; dim < sourceRank; ++dim)
            if (from[dim] >= 0)
              sourceIndex[dim] = here(from[dim]);
          return tensor::ExtractOp::create(b, source, sourceIndex);
        });
    rewriter.replaceOp(op, castTo(rewriter, loc, result, type));
    return success();
  }
};

/// Inserts one slice after another and skips coordinates out of range.
struct ScatterToLoops : OpRewritePattern<tensor::ScatterOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(tensor::ScatterOp op,
                                PatternRewriter &rewriter) const override {
    Value source = op.getSource(), indices = op.getIndices();
    RankedTensorType type = op.getDestType();
    int64_t batch = op.getIndicesType().getRank() - 1;
    bool keepsDims = op.getSourceType().getRank() == batch + type.getRank();
    ImplicitLocOpBuilder b(op.getLoc(), rewriter);
    Value zero = arith::ConstantIndexOp::create(b, 0);
    Value one = arith::ConstantIndexOp::create(b, 1);
    SmallVector<Value> counts;
    for (int64_t dim = 0; dim < batch; ++dim)
      counts.push_back(tensor::DimOp::create(b, indices, dim));
    auto body = [&](OpBuilder &builder, Location at, ValueRange ivs,
                    ValueRange carried) -> scf::ValueVector {
      ImplicitLocOpBuilder b(at, builder);
      SmallVector<Value> coordinate(ivs);
      coordinate.emplace_back();
      SmallVector<OpFoldResult> offsets(type.getRank(), b.getIndexAttr(0));
      SmallVector<OpFoldResult> sizes =
          tensor::getMixedSizes(b, at, op.getDest());
      Value isInside = arith::ConstantIntOp::create(b, 1, 1);
      for (auto [i, dim] : llvm::enumerate(op.getScatterDims())) {
        coordinate.back() = arith::ConstantIndexOp::create(b, i);
        Value index =
            toIndex(b, tensor::ExtractOp::create(b, indices, coordinate));
        // The unsigned comparison rejects negative indices, too.
        Value isBelow =
            arith::CmpIOp::create(b, arith::CmpIPredicate::ult, index,
                                  tensor::DimOp::create(b, op.getDest(), dim));
        isInside = arith::AndIOp::create(b, isInside, isBelow);
        offsets[dim] = index;
        sizes[dim] = b.getIndexAttr(1);
      }
      SmallVector<OpFoldResult> from(ivs.begin(), ivs.end());
      SmallVector<OpFoldResult> extents(batch, b.getIndexAttr(1));
      SmallVector<int64_t> shape;
      for (int64_t dim = 0; dim < type.getRank(); ++dim) {
        bool scattered = llvm::is_contained(op.getScatterDims(), dim);
        if (!scattered)
          shape.push_back(type.getDimSize(dim));
        if (!scattered || keepsDims) {
          from.push_back(b.getIndexAttr(0));
          extents.push_back(sizes[dim]);
        }
      }
      SmallVector<OpFoldResult> ones(from.size(), b.getIndexAttr(1));
      auto choice = scf::IfOp::create(b, type, isInside, /*withElse=*/true);
      b.setInsertionPointToStart(choice.thenBlock());
      auto slice = tensor::ExtractSliceOp::create(
          b, RankedTensorType::get(shape, type.getElementType()), source, from,
          extents, ones);
      ones.assign(offsets.size(), b.getIndexAttr(1));
      scf::YieldOp::create(b, tensor::InsertSliceOp::create(
                                  b, slice, carried[0], offsets, sizes, ones)
                                  .getResult());
      b.setInsertionPointToStart(choice.elseBlock());
      scf::YieldOp::create(b, carried[0]);
      return {choice.getResult(0)};
    };
    scf::LoopNest nest = scf::buildLoopNest(
        rewriter, op.getLoc(), SmallVector<Value>(batch, zero), counts,
        SmallVector<Value>(batch, one), op.getDest(), body);
    rewriter.replaceOp(op, nest.results);
    return success();
  }
};

struct MoETensorsToLinalg
    : moe::impl::MoETensorsToLinalgBase<MoETensorsToLinalg> {
  void runOnOperation() override {
    RewritePatternSet patterns(&getContext());
    patterns.add<DecomposeAggregated, LowerPack, LowerUnPack, SplatToFill,
                 BitcastToGeneric, SelectToGeneric, GatherToGeneric,
                 ScatterToLoops>(&getContext());
    linalg::populateDecomposeWinogradOpsPatterns(patterns);
    linalg::populateDecomposePadPatterns(patterns);
    tensor::populateDecomposeTensorConcatPatterns(patterns);
    if (failed(applyPatternsGreedily(getOperation(), std::move(patterns))))
      return signalPassFailure();
  }
};
} // namespace
