//===- RaggedDot.cpp - chlo.ragged_dot -----------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What jax.lax.ragged_dot lowers to: an operation of CHLO or, in an exported
// program, a composite of StableHLO. The group sizes are rows of each group;
// rows after the last group are 0, sizes beyond the rows are clamped.
//
//===----------------------------------------------------------------------===//

#include "GroupedProduct.h"
#include "RaggedDims.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

using Dims = RaggedDims::Dims;

bool mlir::moe::raising::isRaggedDot(Operation *op) {
  if (!isNamed(op, "stablehlo.composite"))
    return isNamed(op, "chlo.ragged_dot");
  auto name = op->getAttrOfType<StringAttr>("name");
  return name && name.getValue() == "chlo.ragged_dot";
}

std::optional<RaggedDims> mlir::moe::raising::readRaggedDims(Operation *op) {
  const char *names[] = {
      "lhs_batching_dimensions",    "rhs_batching_dimensions",
      "lhs_contracting_dimensions", "rhs_contracting_dimensions",
      "lhs_ragged_dimensions",      "rhs_group_dimensions"};
  SmallVector<Dims> dims;
  const char *attribute = "ragged_dot_dimension_numbers";
  if (isNamed(op, "chlo.ragged_dot")) {
    std::string text = textOf(op, attribute);
    if (text.empty())
      return std::nullopt;
    for (const char *name : names) {
      std::optional<Dims> found = integersIn(text, name);
      if (!found)
        return std::nullopt;
      dims.push_back(*found);
    }
  } else {
    auto attributes = op->getAttrOfType<DictionaryAttr>("composite_attributes");
    auto lists = attributes ? attributes.getAs<ArrayAttr>(attribute) : nullptr;
    if (!lists || lists.size() != std::size(names))
      return std::nullopt;
    for (Attribute list : lists) {
      std::optional<Dims> found = integersOf(list);
      if (!found)
        return std::nullopt;
      dims.push_back(*found);
    }
  }
  return RaggedDims{dims[0], dims[1], dims[2], dims[3], dims[4], dims[5]};
}

Outcome mlir::moe::raising::raiseRaggedDot(Operation *op,
                                           GroupedProductBuilder &builder) {
  if (!isRaggedDot(op))
    return {};
  if (op->getNumOperands() != 3 || op->getNumResults() != 1)
    return Outcome::left("expected three operands and a result");
  std::optional<RaggedDims> dims = readRaggedDims(op);
  if (!dims)
    return Outcome::left("its dimension numbers are not understood");
  if (dims->isBatched())
    return {}; // another pattern's
  Type result = op->getResult(0).getType();
  auto are = [](const Dims &dims, int64_t expected) {
    return dims == Dims{expected};
  };
  Value lhs = op->getOperand(0), rhs = op->getOperand(1),
        sizes = op->getOperand(2);
  if (dims->rhsGroup.empty()) {
    // Ragged along the contraction: the gradient of the weights.
    bool isPlain = are(dims->lhsContracting, 0) && are(dims->lhsRagged, 0),
         isTransposed = are(dims->lhsContracting, 1) && are(dims->lhsRagged, 1);
    if ((!isPlain && !isTransposed) || !are(dims->rhsContracting, 0))
      return Outcome::left("the ragged dimension is not the rows of both "
                           "operands");
    return builder.replace(op, GroupedGradient{lhs, isTransposed, rhs, sizes,
                                               GroupArgument::Sizes, result});
  }
  if (!are(dims->lhsContracting, 1) || !are(dims->lhsRagged, 0))
    return Outcome::left("the left operand is not [rows, k]");
  bool isPlain = are(dims->rhsContracting, 1),
       isTransposed = are(dims->rhsContracting, 2);
  if (!are(dims->rhsGroup, 0) || (!isPlain && !isTransposed))
    return Outcome::left("the right operand is neither [g, k, n] nor "
                         "[g, n, k]");
  return builder.replace(op, GroupedProduct{lhs, sizes, GroupArgument::Sizes,
                                            rhs, isTransposed,
                                            /*zeroRest=*/true, result});
}
