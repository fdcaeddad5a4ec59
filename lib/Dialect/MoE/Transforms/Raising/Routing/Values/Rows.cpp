//===- Rows.cpp - Gathers and scatters of whole rows ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Routing/Values/Choices.h"

using namespace mlir;
using namespace mlir::moe::raising;

using Dims = SmallVector<int64_t>;

Update mlir::moe::raising::updateOf(Operation *op) {
  if (op->getNumRegions() != 1 || !op->getRegion(0).hasOneBlock())
    return Update::Other;
  Block &body = op->getRegion(0).front();
  Operation *end = body.empty() ? nullptr : &body.back();
  bool isReturn = isNamed(end, "stablehlo.return") ||
                  isNamed(end, "func.return"); // of a function that is called
  if (body.getNumArguments() != 2 || !isReturn || end->getNumOperands() != 1)
    return Update::Other;
  Value result = end->getOperand(0);
  if (result == body.getArgument(1))
    return Update::Set;
  Operation *update = result.getDefiningOp();
  if (!update || update->getNumOperands() != 2 ||
      update->getOperand(0) == update->getOperand(1) ||
      !llvm::all_of(update->getOperands(), [&](Value operand) {
        return llvm::is_contained(body.getArguments(), operand);
      }))
    return Update::Other;
  if (isNamed(update, "stablehlo.add"))
    return Update::Add;
  if (isNamed(update, "stablehlo.maximum"))
    return Update::Max;
  if (isNamed(update, "stablehlo.minimum"))
    return Update::Min;
  if (isNamed(update, "stablehlo.or"))
    return Update::Or;
  return isNamed(update, "stablehlo.and") ? Update::And : Update::Other;
}

bool mlir::moe::raising::gathersRows(Operation *gather) {
  if (!isNamed(gather, "stablehlo.gather") || gather->getNumOperands() != 2)
    return false;
  RankedTensorType source = dyn_cast<RankedTensorType>(
                       gather->getOperand(0).getType()),
                   indices = dyn_cast<RankedTensorType>(
                       gather->getOperand(1).getType());
  if (!source || !indices || indices.getRank() != 2 ||
      indices.getDimSize(1) != 1 || source.getRank() > 2 ||
      source.getRank() < 1)
    return false;
  std::string text = textOf(gather, "dimension_numbers");
  Dims sizes{1}, offset;
  if (source.getRank() == 2) {
    sizes.push_back(source.getDimSize(1));
    offset.push_back(1);
  }
  return integersOf(gather, "slice_sizes") == sizes &&
         integersIn(text, "offset_dims") == offset &&
         integersIn(text, "collapsed_slice_dims") == Dims{0} &&
         integersIn(text, "start_index_map") == Dims{0} &&
         integersIn(text, "operand_batching_dims") == Dims{} &&
         integersIn(text, "index_vector_dim") == Dims{1};
}

bool mlir::moe::raising::scattersRows(Operation *scatter) {
  if (!isNamed(scatter, "stablehlo.scatter") || scatter->getNumOperands() != 3)
    return false;
  RankedTensorType into = dyn_cast<RankedTensorType>(
                       scatter->getOperand(0).getType()),
                   indices = dyn_cast<RankedTensorType>(
                       scatter->getOperand(1).getType()),
                   updates = dyn_cast<RankedTensorType>(
                       scatter->getOperand(2).getType());
  if (!into || !indices || !updates || indices.getRank() != 2 ||
      indices.getDimSize(1) != 1 || into.getRank() > 2 || into.getRank() < 1 ||
      updates.getRank() != into.getRank())
    return false;
  std::string text = textOf(scatter, "scatter_dimension_numbers");
  Dims window;
  if (into.getRank() == 2) {
    window.push_back(1);
    if (into.getDimSize(1) != updates.getDimSize(1))
      return false;
  }
  return integersIn(text, "update_window_dims") == window &&
         integersIn(text, "inserted_window_dims") == Dims{0} &&
         integersIn(text, "scatter_dims_to_operand_dims") == Dims{0} &&
         integersIn(text, "input_batching_dims") == Dims{} &&
         integersIn(text, "index_vector_dim") == Dims{1};
}
