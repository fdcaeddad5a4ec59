//===- RaiseSortedProduct.cpp - Products of sorted rows ------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Rows that are sorted by expert, each times a matrix that is gathered by its
// sorted id: the product of the rows of each expert with its weights.
//
//===----------------------------------------------------------------------===//

#include "Contraction.h"
#include "Extents.h"
#include "Grouped/GatheredWeights.h"
#include "Grouped/GroupedProduct.h"
#include "Routing/Routing.h"

#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

bool mlir::moe::raising::raiseSortedProduct(Operation *op, Routing &routing) {
  if (!isNamed(op, "stablehlo.dot_general"))
    return false;
  std::optional<Contraction> dot = readContraction(op);
  RankedTensorType result = tensorOf(op->getResult(0));
  if (!dot || !result || result.getRank() != 2 ||
      !isRowFloat(result.getElementType()))
    return false;
  for (unsigned i : {0u, 1u}) {
    ArrayRef<unsigned> ofRows = dot->loops(i), ofWeights = dot->loops(1 - i);
    if (ofRows.size() != 2 || ofWeights.size() != 3)
      continue;
    std::optional<GatheredWeights> gathered =
        matchGatheredWeights(dot->operand(1 - i));
    const Role *ids = gathered && gathered->ids
                          ? routing.choices.get(gathered->ids, Role::SortedIds)
                          : nullptr;
    // Each row of the result is one of the rows, times its own matrix.
    unsigned row = dot->outLoops[0], column = dot->outLoops[1];
    if (!ids || gathered->idDims != 1 || ofRows[0] != row ||
        ofWeights[0] != row || ofRows[1] == column)
      continue;
    bool transposed = ofWeights[1] == column && ofWeights[2] == ofRows[1];
    if (!transposed && !(ofWeights[2] == column && ofWeights[1] == ofRows[1]))
      continue;
    Value rows = dot->operand(i), weights = gathered->weights;
    RankedTensorType type = tensorOf(weights), lhs = tensorOf(rows);
    if (!type || type.getRank() != 3 || !type.hasStaticShape() || !lhs ||
        type.getDimSize(0) != Choices::expertsOf(ids->ids) ||
        !isRowFloat(type.getElementType()) ||
        type.getElementType() != lhs.getElementType() ||
        !haveSameRows(rows, gathered->ids))
      continue;
    Operation *grouping = routing.groupingBefore(op, ids->ids);
    Value offsets = Routing::offsetsOf(grouping);
    if (!coversAll(offsets, rows))
      continue;
    RewriterBase &rewriter = routing.rewriter;
    rewriter.setInsertionPoint(op);
    Location loc = op->getLoc();
    Value init = tensor::EmptyOp::create(
        rewriter, loc,
        ArrayRef<OpFoldResult>{
            tensor::getMixedSize(rewriter, loc, rows, 0),
            rewriter.getIndexAttr(type.getDimSize(transposed ? 1 : 2))},
        result.getElementType());
    auto matmul = GroupedMatmulOp::create(
        rewriter, loc, init.getType(), rows, /*gather=*/nullptr, offsets,
        weights, /*lhs_scales=*/nullptr, /*weight_scales=*/ValueRange(),
        /*extras=*/ValueRange(), init, transposed, /*panels=*/nullptr,
        /*maps=*/nullptr, /*first=*/nullptr, /*blocks=*/nullptr);
    buildEpilogue(rewriter, matmul, result.getElementType());
    rewriter.setInsertionPointAfter(matmul);
    rewriter.replaceAllUsesWith(op->getResult(0),
                                routing.recast(matmul.getResult(), result));
    return true;
  }
  return false;
}
