//===- FuseColumns.cpp - Columns of a product are products of columns -----===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/IR/MoE.h"
#include "moe/Dialect/MoE/Transforms/Fusion/FusionRemarks.h"
#include "moe/Dialect/MoE/Transforms/Fusion/Passes.h"

#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"
#include "mlir/IR/PatternMatch.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEFUSECOLUMNS
#include "moe/Dialect/MoE/Transforms/Fusion/Passes.h.inc"
} // namespace mlir::moe

namespace {
struct Columns {
  int64_t offset, size, stride;
};
} // namespace

/// The columns that a slice takes of all rows, with static numbers.
static std::optional<Columns> columnsOf(tensor::ExtractSliceOp slice) {
  std::optional<int64_t> offset =
      getConstantIntValue(slice.getMixedOffsets()[1]);
  std::optional<int64_t> stride =
      getConstantIntValue(slice.getMixedStrides()[1]);
  int64_t size = slice.getType().getRank() == 2 ? slice.getType().getDimSize(1)
                                                : ShapedType::kDynamic;
  bool allRows =
      isConstantIntValue(slice.getMixedOffsets()[0], 0) &&
      isConstantIntValue(slice.getMixedStrides()[0], 1) &&
      slice.getSourceType().getDimSize(0) == slice.getType().getDimSize(0);
  // A dynamic number of rows is the number that there is: fewer would be
  // another matrix, which nobody takes of a product here but by its extent.
  if (allRows && slice.getType().isDynamicDim(0)) {
    auto rows = dyn_cast<Value>(slice.getMixedSizes()[0]);
    auto dim = rows ? rows.getDefiningOp<tensor::DimOp>() : nullptr;
    auto product = slice.getSource().getDefiningOp<GroupedMatmulOp>();
    allRows = dim && product && dim.getConstantIndex() == 0 &&
              (dim.getSource() == slice.getSource() ||
               dim.getSource() == product.getInit() ||
               (!product.getGather() && dim.getSource() == product.getLhs()));
    if (auto empty = product
                         ? product.getInit().getDefiningOp<tensor::EmptyOp>()
                         : nullptr;
        !allRows && empty && rows)
      allRows = empty.getMixedSizes()[0] == OpFoldResult(rows);
  }
  if (!offset || !stride || !allRows || ShapedType::isDynamic(size))
    return std::nullopt;
  return Columns{*offset, size, *stride};
}

/// `value` without the columns that are not asked for, where `dim` is the
/// dimension of columns.
static Value sliceColumns(OpBuilder &b, Location loc, Value value, unsigned dim,
                          Columns columns) {
  SmallVector<OpFoldResult> sizes = tensor::getMixedSizes(b, loc, value);
  SmallVector<OpFoldResult> offsets(sizes.size(), b.getIndexAttr(0));
  SmallVector<OpFoldResult> strides(sizes.size(), b.getIndexAttr(1));
  offsets[dim] = b.getIndexAttr(columns.offset);
  sizes[dim] = b.getIndexAttr(columns.size);
  strides[dim] = b.getIndexAttr(columns.stride);
  return tensor::ExtractSliceOp::create(b, loc, value, offsets, sizes, strides);
}

/// True if the blocks that scales are for begin with the first of the columns.
static bool keepsBlocks(GroupedMatmulOp product, Columns columns) {
  return product.getWeightScales().empty() ||
         (columns.stride == 1 && columns.offset % product.getBlockN() == 0);
}

/// The blocks that the columns are in.
static Columns blocksOf(GroupedMatmulOp product, Columns columns) {
  int64_t block = product.getBlockN();
  return {columns.offset / block,
          int64_t(llvm::divideCeil(columns.size, block)), 1};
}

static void rewriteSlice(IRRewriter &rewriter, GroupedMatmulOp product,
                         tensor::ExtractSliceOp slice, Columns columns) {
  Location loc = slice.getLoc();
  rewriter.setInsertionPoint(product);
  unsigned weightDim = product.getTransposed() ? 1 : 2;
  SmallVector<Value> weights, weightScales, extras;
  for (Value weight : product.getWeights())
    weights.push_back(sliceColumns(rewriter, loc, weight, weightDim, columns));
  for (Value scales : product.getWeightScales())
    weightScales.push_back(sliceColumns(rewriter, loc, scales, weightDim,
                                        blocksOf(product, columns)));
  for (auto [index, extra] : llvm::enumerate(product.getExtras())) {
    AffineMap map = product.getOperandMap(index);
    std::optional<unsigned> dim =
        map.getResultPosition(rewriter.getAffineDimExpr(2));
    extras.push_back(dim ? sliceColumns(rewriter, loc, extra, *dim, columns)
                         : extra);
  }
  Value init = sliceColumns(rewriter, loc, product.getInit(), 1, columns);
  auto narrow = GroupedMatmulOp::create(
      rewriter, product.getLoc(), init.getType(), product.getLhs(),
      product.getGather(), product.getOffsets(), weights,
      product.getLhsScales(), weightScales, extras, init,
      product.getTransposed(), /*panels=*/nullptr, product.getMapsAttr(),
      product.getFirstAttr(), product.getBlocksAttr());
  IRMapping mapping;
  product.getEpilogue().cloneInto(&narrow.getEpilogue(), mapping);
  rewriter.replaceOp(slice, narrow.getResult());
}

namespace {
struct MoEFuseColumns : moe::impl::MoEFuseColumnsBase<MoEFuseColumns> {
  using MoEFuseColumnsBase::MoEFuseColumnsBase;

  void runOnOperation() override {
    SmallVector<GroupedMatmulOp> products;
    getOperation()->walk([&](GroupedMatmulOp op) { products.push_back(op); });
    IRRewriter rewriter(&getContext());
    for (GroupedMatmulOp product : products)
      if (product.getResult() && !product.getPanels())
        rewrite(rewriter, product);
  }

  void rewrite(IRRewriter &rewriter, GroupedMatmulOp product) {
    SmallVector<std::pair<tensor::ExtractSliceOp, Columns>> slices;
    int64_t taken = 0;
    bool others = false, splits = false;
    for (Operation *user : product->getUsers()) {
      if (isa<tensor::DimOp>(user))
        continue;
      auto slice = dyn_cast<tensor::ExtractSliceOp>(user);
      std::optional<Columns> columns = slice ? columnsOf(slice) : std::nullopt;
      others |= !columns;
      if (!columns)
        continue;
      splits |= !keepsBlocks(product, *columns);
      slices.push_back({slice, *columns});
      taken += columns->size;
    }
    if (slices.empty())
      return;
    // Columns that are taken twice would be computed twice.
    if (others || splits || taken > product.getN()) {
      remarkNotFused(product, "ColumnsNotFused",
                     others ? "the matmul has other uses than slices of columns"
                     : splits
                         ? "columns begin within a block that has one scale"
                         : "columns are used more than once");
      return;
    }
    for (auto [slice, columns] : slices)
      rewriteSlice(rewriter, product, slice, columns);
    remarkFused(product, "ColumnsFused",
                "slices of a matmul became matmuls of slices");
    numFused += slices.size();
    // What is left asks for extents, which are those of the destination.
    rewriter.replaceOp(product, product.getInit());
  }
};
} // namespace
