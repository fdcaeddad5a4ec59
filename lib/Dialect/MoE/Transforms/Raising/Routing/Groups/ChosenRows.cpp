//===- ChosenRows.cpp - Rows of all experts, of which some are chosen -----===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// All experts on all tokens, and then the results of the chosen ones alone:
// jnp.take_along_axis(y, ids[:, :, None], axis=1), or y[tokens[:, None], ids].
//
//===----------------------------------------------------------------------===//

#include "Routing/Groups/GroupRows.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

/// Returns the parts of a vector of indices along its dimension.
static SmallVector<Value> partsOf(Value indices, int64_t dim) {
  Operation *parts = definedBy(indices, "stablehlo.concatenate");
  if (!parts || integersOf(parts, "dimension") != SmallVector<int64_t>{dim})
    return {indices};
  return SmallVector<Value>(parts->getOperands());
}

Value RowGrouper::buildChosen(Operation *op, const Axes &axes) {
  if (layout != RowLayout::Choices || !isNamed(op, "stablehlo.gather") ||
      op->getNumOperands() != 2)
    return {};
  Value source = op->getOperand(0), indices = op->getOperand(1);
  RankedTensorType from = tensorOf(source), of = tensorOf(indices),
                   to = tensorOf(op->getResult(0));
  std::string text = textOf(op, "dimension_numbers");
  auto offsets = integersIn(text, "offset_dims"),
       collapsed = integersIn(text, "collapsed_slice_dims"),
       batching = integersIn(text, "operand_batching_dims"),
       batches = integersIn(text, "start_indices_batching_dims"),
       starts = integersIn(text, "start_index_map"),
       vector = integersIn(text, "index_vector_dim"),
       sizes = integersOf(op, "slice_sizes");
  if (!from || !of || !to || from.getRank() != 3 || !offsets || !collapsed ||
      !batching || !batches || !starts || !vector || !sizes ||
      vector->size() != 1 || sizes->size() != 3 || offsets->size() != 1 ||
      vector->front() != of.getRank() - 1 || of.getRank() != to.getRank() ||
      offsets->front() != to.getRank() - 1 ||
      collapsed->size() + batching->size() != 2)
    return {};
  // One of the dimensions of the source is that of the columns.
  Axes wanted(3, "n");
  std::optional<Selector> ids;
  SmallVector<Value> parts = partsOf(indices, vector->front());
  if (parts.size() != starts->size())
    return {};
  SmallVector<std::pair<int64_t, Selector>> tokens;
  for (auto [part, dim] : llvm::zip_equal(parts, *starts)) {
    std::optional<Selector> known = routing.selectors.get(part);
    if (!known || dim < 0 || dim > 2 || !llvm::is_contained(*collapsed, dim) ||
        tensorOf(part).getDimSize(vector->front()) != 1)
      return {};
    if (known->kind == Selector::Index) {
      tokens.push_back({dim, *known});
    } else if (known->kind == Selector::Ids && known->ids == selector.ids &&
               !ids) {
      ids = known;
      wanted[dim] = "e";
    } else {
      return {};
    }
  }
  if (!ids)
    return {};
  // The tokens are a batch, or counted.
  for (auto [dim, at] : llvm::zip(*batching, *batches)) {
    if (dim < 0 || dim > 2 || at < 0 || at >= of.getRank() ||
        ids->axes[at] != "t")
      return {};
    wanted[dim] = "t";
  }
  for (auto &[dim, index] : tokens) {
    for (auto [names, counted] : llvm::zip_equal(ids->axes, index.axes))
      if ((names == "t") != (counted == "i"))
        return {};
    wanted[dim] = "t";
  }
  Axes expected(ids->axes.begin(), ids->axes.end() - 1);
  expected.push_back("n");
  if (axes != expected || countAxis(wanted, 't') != 1 ||
      countAxis(wanted, 'e') != 1 || countAxis(wanted, 'n') != 1)
    return {};
  for (auto [dim, names] : llvm::enumerate(wanted))
    if ((names == "n" && ((*sizes)[dim] != from.getDimSize(dim))) ||
        (names != "n" && (*sizes)[dim] != 1) ||
        (names == "e" && from.getDimSize(dim) != extents.experts))
      return {};
  return inLayout(RowLayout::Dense, [&] { return rowsOf(source, wanted); });
}
