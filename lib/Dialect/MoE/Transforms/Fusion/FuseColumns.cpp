//===- FuseColumns.cpp - Slice the weights instead of the result ----------===//
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

/// Returns the columns that a slice takes of all rows, if they are static.
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
  // A dynamic number of rows must be the extent of the matmul: a smaller one
  // would slice rows.
  if (allRows && slice.getType().isDynamicDim(0)) {
    auto rows = dyn_cast<Value>(slice.getMixedSizes()[0]);
    auto dim = rows ? rows.getDefiningOp<tensor::DimOp>() : nullptr;
    auto matmul = slice.getSource().getDefiningOp<GroupedMatmulOp>();
    allRows = dim && matmul && dim.getConstantIndex() == 0 &&
              (dim.getSource() == slice.getSource() ||
               dim.getSource() == matmul.getInit() ||
               (!matmul.getGather() && dim.getSource() == matmul.getLhs()));
    if (auto empty = matmul ? matmul.getInit().getDefiningOp<tensor::EmptyOp>()
                            : nullptr;
        !allRows && empty && rows)
      allRows = empty.getMixedSizes()[0] == OpFoldResult(rows);
  }
  if (!offset || !stride || !allRows || ShapedType::isDynamic(size))
    return std::nullopt;
  return Columns{*offset, size, *stride};
}

/// Extracts the columns from `value`, whose dimension `dim` they are.
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

/// True if the first of the columns begins a block of scales.
static bool keepsBlocks(GroupedMatmulOp matmul, Columns columns) {
  return matmul.getWeightScales().empty() ||
         (columns.stride == 1 && columns.offset % matmul.getBlockN() == 0);
}

/// Returns the blocks of scales that the columns are in.
static Columns blocksOf(GroupedMatmulOp matmul, Columns columns) {
  int64_t block = matmul.getBlockN();
  return {columns.offset / block,
          int64_t(llvm::divideCeil(columns.size, block)), 1};
}

static void rewriteSlice(IRRewriter &rewriter, GroupedMatmulOp matmul,
                         tensor::ExtractSliceOp slice, Columns columns) {
  Location loc = slice.getLoc();
  rewriter.setInsertionPoint(matmul);
  unsigned weightDim = matmul.getTransposed() ? 1 : 2;
  SmallVector<Value> weights, weightScales, extras;
  for (Value weight : matmul.getWeights())
    weights.push_back(sliceColumns(rewriter, loc, weight, weightDim, columns));
  for (Value scales : matmul.getWeightScales())
    weightScales.push_back(sliceColumns(rewriter, loc, scales, weightDim,
                                        blocksOf(matmul, columns)));
  for (auto [index, extra] : llvm::enumerate(matmul.getExtras())) {
    AffineMap map = matmul.getOperandMap(index);
    std::optional<unsigned> dim =
        map.getResultPosition(rewriter.getAffineDimExpr(2));
    extras.push_back(dim ? sliceColumns(rewriter, loc, extra, *dim, columns)
                         : extra);
  }
  Value init = sliceColumns(rewriter, loc, matmul.getInit(), 1, columns);
  auto narrow = GroupedMatmulOp::create(
      rewriter, matmul.getLoc(), init.getType(), matmul.getLhs(),
      matmul.getGather(), matmul.getOffsets(), weights, matmul.getLhsScales(),
      weightScales, extras, init, matmul.getTransposed(), /*panels=*/nullptr,
      matmul.getMapsAttr(), matmul.getFirstAttr(), matmul.getBlocksAttr());
  IRMapping mapping;
  matmul.getEpilogue().cloneInto(&narrow.getEpilogue(), mapping);
  rewriter.replaceOp(slice, narrow.getResult());
}

namespace {
struct MoEFuseColumns : moe::impl::MoEFuseColumnsBase<MoEFuseColumns> {
  using MoEFuseColumnsBase::MoEFuseColumnsBase;

  void runOnOperation() override {
    SmallVector<GroupedMatmulOp> matmuls;
    getOperation()->walk([&](GroupedMatmulOp op) { matmuls.push_back(op); });
    IRRewriter rewriter(&getContext());
    for (GroupedMatmulOp matmul : matmuls)
      if (matmul.getResult() && matmul.hasOneInit() && !matmul.getPanels())
        rewrite(rewriter, matmul);
  }

  void rewrite(IRRewriter &rewriter, GroupedMatmulOp matmul) {
    SmallVector<std::pair<tensor::ExtractSliceOp, Columns>> slices;
    int64_t taken = 0;
    bool others = false, splits = false;
    for (Operation *user : matmul->getUsers()) {
      if (isa<tensor::DimOp>(user))
        continue;
      auto slice = dyn_cast<tensor::ExtractSliceOp>(user);
      std::optional<Columns> columns = slice ? columnsOf(slice) : std::nullopt;
      others |= !columns;
      if (!columns)
        continue;
      splits |= !keepsBlocks(matmul, *columns);
      slices.push_back({slice, *columns});
      taken += columns->size;
    }
    if (slices.empty())
      return;
    // Overlapping slices would compute columns twice.
    if (others || splits || taken > matmul.getN()) {
      remarkNotFused(
          matmul, "ColumnsNotFused",
          others   ? "the matmul has other uses than slices of columns"
          : splits ? "a slice of columns begins inside a block of one scale"
                   : "columns are used more than once");
      return;
    }
    for (auto [slice, columns] : slices)
      rewriteSlice(rewriter, matmul, slice, columns);
    remarkFused(matmul, "ColumnsFused",
                "slices of a matmul turned into matmuls of sliced weights");
    numFused += slices.size();
    // The remaining users are tensor.dim; the destination has the same extents.
    rewriter.replaceOp(matmul, matmul.getInit());
  }
};
} // namespace
