//===- RaiseColumns.cpp - Columns of all rows ----------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// jnp.split of a matrix with any number of rows, such as the columns of gate
// and up, is a slice whose limits are tensors. That it takes all rows is lost
// once these are lowered.
//
//===----------------------------------------------------------------------===//

#include "Extents.h"
#include "Routing/Routing.h"

#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

/// Columns of any number of rows, which are a gather of all of them.
static bool raiseGather(Operation *op, RewriterBase &rewriter) {
  using Dims = SmallVector<int64_t>;
  if (!isNamed(op, "stablehlo.dynamic_gather") || op->getNumOperands() != 3)
    return false;
  Value source = op->getOperand(0);
  RankedTensorType type = tensorOf(source), result = tensorOf(op->getResult(0));
  std::string text = textOf(op, "dimension_numbers");
  std::optional<Extent> rows = rowsOf(source);
  auto collapsed = integersIn(text, "collapsed_slice_dims");
  bool isVector = collapsed == Dims{1};
  if (!type || !result || type.getRank() != 2 || type.isDynamicDim(1) ||
      !rows || (!isVector && collapsed != Dims{}) ||
      result.getRank() != 2 - isVector ||
      integersIn(text, "offset_dims") != (isVector ? Dims{0} : Dims{0, 1}) ||
      integersIn(text, "start_index_map") != Dims{1} ||
      integersIn(text, "operand_batching_dims") != Dims{} ||
      elementOf(op->getOperand(2), 0) != rows)
    return false;
  // The first of them, of which a gather takes the last ones that there are.
  int64_t count = isVector ? 1 : result.getDimSize(1),
          most = type.getDimSize(1);
  std::optional<Extent> first;
  if (count == most)
    first = Extent{};
  else if (tensorOf(op->getOperand(1)).getRank() <= 1)
    first = elementOf(op->getOperand(1), 0);
  if (!first || first->root || count < 1 || count > most)
    return false;
  int64_t start = std::clamp<int64_t>(first->constant, 0, most - count);
  Location loc = op->getLoc();
  if (count != most)
    source = tensor::ExtractSliceOp::create(
        rewriter, loc, source,
        ArrayRef<OpFoldResult>{rewriter.getIndexAttr(0),
                               rewriter.getIndexAttr(start)},
        ArrayRef<OpFoldResult>{tensor::getMixedSize(rewriter, loc, source, 0),
                               rewriter.getIndexAttr(count)},
        ArrayRef<OpFoldResult>(
            SmallVector<OpFoldResult>(2, rewriter.getIndexAttr(1))));
  if (!isVector) {
    if (source.getType() != result)
      source = tensor::CastOp::create(rewriter, loc, result, source);
    rewriter.replaceOp(op, source);
    return true;
  }
  // A reshape, of which it is known what it is.
  auto make = [&](StringRef name, ValueRange operands, Type type) {
    OperationState state(loc, ("stablehlo." + name).str());
    state.addOperands(operands);
    state.addTypes(type);
    if (name == "get_dimension_size")
      state.addAttribute("dimension", rewriter.getI64IntegerAttr(0));
    return rewriter.create(state)->getResult(0);
  };
  Type i32 = rewriter.getI32Type();
  Value size =
      make("get_dimension_size", source, RankedTensorType::get({}, i32));
  Value shape = make("reshape", size, RankedTensorType::get({1}, i32));
  rewriter.replaceOp(op, make("dynamic_reshape", {source, shape}, result));
  return true;
}

bool mlir::moe::raising::raiseColumns(Operation *op, RewriterBase &rewriter) {
  if (raiseGather(op, rewriter))
    return true;
  if (!isNamed(op, "stablehlo.real_dynamic_slice") || op->getNumOperands() != 4)
    return false;
  Value source = op->getOperand(0);
  auto type = dyn_cast<RankedTensorType>(source.getType()),
       result = dyn_cast<RankedTensorType>(op->getResult(0).getType());
  if (!type || !result || type.getRank() != 2 || result.getRank() != 2 ||
      result.isDynamicDim(1) || type.isDynamicDim(1))
    return false;
  // Start, limit and step of the rows; start and step of the columns.
  auto element = [&](unsigned operand, int64_t dim) {
    return elementOf(op->getOperand(operand), dim);
  };
  const Extent zero, one{{}, 0, 1};
  std::optional<Extent> limit = element(2, 0), first = element(1, 1),
                        rows = rowsOf(source);
  if (element(1, 0) != zero || element(3, 0) != one || element(3, 1) != one ||
      !rows || limit != rows || !first || first->root || first->constant < 0 ||
      first->constant + result.getDimSize(1) > type.getDimSize(1))
    return false;
  Location loc = op->getLoc();
  SmallVector<OpFoldResult> offsets{rewriter.getIndexAttr(0),
                                    rewriter.getIndexAttr(first->constant)},
      sizes{tensor::getMixedSize(rewriter, loc, source, 0),
            rewriter.getIndexAttr(result.getDimSize(1))},
      strides(2, rewriter.getIndexAttr(1));
  Value columns = tensor::ExtractSliceOp::create(rewriter, loc, source, offsets,
                                                 sizes, strides);
  if (columns.getType() != result)
    columns = tensor::CastOp::create(rewriter, loc, result, columns);
  rewriter.replaceOp(op, columns);
  return true;
}
