//===- ColumnRows.cpp - Columns of grouped rows ---------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A slice of columns, such as those of gate and up, of all rows: its limits are
// numbers, or the extents that it takes whole.
//
//===----------------------------------------------------------------------===//

#include "Extents.h"
#include "Routing/Groups/GroupRows.h"

#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

std::optional<RowGrouper::Slice>
RowGrouper::matchSlice(Operation *op, const Axes &axes) const {
  RankedTensorType from =
      op->getNumOperands() ? tensorOf(op->getOperand(0)) : RankedTensorType();
  if (!from || from.getRank() != int64_t(axes.size()))
    return std::nullopt;
  Slice slice;
  if (isNamed(op, "stablehlo.slice")) {
    auto starts = integersOf(op, "start_indices"),
         limits = integersOf(op, "limit_indices"),
         strides = integersOf(op, "strides");
    if (!starts || !limits || !strides || starts->size() != axes.size() ||
        limits->size() != axes.size() || strides->size() != axes.size())
      return std::nullopt;
    return Slice{*starts, *limits, *strides};
  }
  bool isDynamic =
      isNamed(op, "stablehlo.real_dynamic_slice") && op->getNumOperands() == 4;
  auto columns = dyn_cast<tensor::ExtractSliceOp>(op);
  if (!isDynamic && (!columns || columns.getType().getRank() != from.getRank()))
    return std::nullopt;
  for (int64_t dim = 0; dim < from.getRank(); ++dim) {
    std::optional<int64_t> start, limit, stride;
    if (isDynamic) {
      auto number = [](std::optional<Extent> extent) {
        return extent && !extent->root ? std::optional(extent->constant)
                                       : std::nullopt;
      };
      std::optional<Extent> end = elementOf(op->getOperand(2), dim);
      start = number(elementOf(op->getOperand(1), dim));
      stride = number(elementOf(op->getOperand(3), dim));
      // All tokens, along the axis that they have.
      limit = end && end->root && axes[dim] == "t" &&
                      end == raising::rowsOf(selector.ids)
                  ? std::optional(from.getDimSize(dim))
                  : number(end);
    } else {
      start = getConstantIntValue(columns.getMixedOffsets()[dim]);
      stride = getConstantIntValue(columns.getMixedStrides()[dim]);
      OpFoldResult size = columns.getMixedSizes()[dim];
      auto of = dyn_cast<Value>(size);
      auto extent = of ? of.getDefiningOp<tensor::DimOp>() : nullptr;
      if (extent && extent.getSource() == columns.getSource() &&
          extent.getConstantIndex() == dim)
        limit = from.getDimSize(dim);
      else if (auto count = getConstantIntValue(size); count && start && stride)
        limit = *start + *count * *stride;
    }
    if (!start || !limit || !stride || *stride < 1)
      return std::nullopt;
    slice.starts.push_back(*start);
    slice.limits.push_back(*limit);
    slice.strides.push_back(*stride);
  }
  return slice;
}

Value RowGrouper::buildColumns(Operation *op, const Axes &axes) {
  std::optional<Slice> slice = matchSlice(op, axes);
  if (!slice)
    return {};
  RankedTensorType from = tensorOf(op->getOperand(0));
  const auto &[starts, limits, strides] = *slice;
  int64_t start = 0, count = 0, stride = 1;
  for (auto [dim, names] : llvm::enumerate(axes)) {
    if (names == "n") {
      start = starts[dim];
      stride = strides[dim];
      count = llvm::divideCeil(limits[dim] - start, stride);
    } else if (starts[dim] != 0 || strides[dim] != 1 ||
               limits[dim] != from.getDimSize(dim)) {
      return {};
    }
  }
  if (count <= 0)
    return {};
  Value rows = rowsOf(op->getOperand(0), axes);
  if (!rows)
    return {};
  Location loc = op->getLoc();
  return tensor::ExtractSliceOp::create(
      rewriter, loc, rows,
      ArrayRef<OpFoldResult>{rewriter.getIndexAttr(0),
                             rewriter.getIndexAttr(start)},
      ArrayRef<OpFoldResult>{tensor::getMixedSize(rewriter, loc, rows, 0),
                             rewriter.getIndexAttr(count)},
      ArrayRef<OpFoldResult>{rewriter.getIndexAttr(1),
                             rewriter.getIndexAttr(stride)});
}
