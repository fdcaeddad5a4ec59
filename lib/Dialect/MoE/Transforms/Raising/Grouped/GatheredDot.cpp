//===- GatheredDot.cpp - Products with weights of each row ---------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A batched product of rows with the matrices that were gathered for them by
// ids: rows [.., k] and weights[ids[..]] [.., k, n], in StableHLO or linalg.
// The rows are grouped by their id, and return to their places. A row that all
// choices of its token have, [t, k] with weights [t, j, k, n], is not repeated.
//
//===----------------------------------------------------------------------===//

#include "Contraction.h"
#include "GatheredWeights.h"
#include "GroupedProduct.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

namespace {
/// rows [P.., k] · weights[ids [P.., Q..]], the result [P.., Q.., n].
struct RowsOfIds {
  Value rows;
  GatheredWeights gathered;
  int64_t rowDims; // the dimensions P
  bool transposed; // weights are [g, n, k]
};
} // namespace

/// Returns the loops without those of extent 1 after the first `dims`.
static SmallVector<unsigned> withoutUnits(ArrayRef<unsigned> loops,
                                          RankedTensorType type, int64_t dims) {
  SmallVector<unsigned> others;
  for (auto [index, loop] : llvm::enumerate(loops))
    if (int64_t(index) < dims || type.getDimSize(index) != 1)
      others.push_back(loop);
  return others;
}

static std::optional<RowsOfIds> match(Operation *op) {
  // Most products have no operand that was gathered.
  if (llvm::none_of(op->getOperands(), [](Value operand) {
        return matchGatheredWeights(operand).has_value();
      }))
    return std::nullopt;
  std::optional<Contraction> product = readContraction(op);
  if (!product)
    return std::nullopt;
  auto result = dyn_cast<RankedTensorType>(op->getResult(0).getType());
  for (unsigned i : {1u, 0u}) {
    auto gathered = matchGatheredWeights(product->operand(i));
    Value rows = product->operand(1 - i);
    RankedTensorType rowsType = tensorOf(rows);
    if (!gathered || !rowsType || tensorOf(gathered->weights).getRank() != 3)
      continue;
    ArrayRef<unsigned> loops = product->loops(i);
    ArrayRef<unsigned> ids = loops.take_front(gathered->idDims);
    unsigned first = loops[gathered->idDims],
             second = loops[gathered->idDims + 1];
    // The dimensions that rows and ids share come first in both.
    int64_t shared = 0;
    ArrayRef<unsigned> of = product->loops(1 - i);
    while (shared < int64_t(std::min(ids.size(), of.size())) &&
           ids[shared] == of[shared])
      ++shared;
    if (shared == 0)
      continue;
    SmallVector<unsigned> rowLoops = withoutUnits(of, rowsType, shared);
    SmallVector<unsigned> outLoops =
        withoutUnits(product->outLoops, result, gathered->idDims);
    // One dimension of the weights is contracted with that of the rows, the
    // other one is that of the result.
    if (int64_t(rowLoops.size()) != shared + 1)
      continue;
    unsigned k = rowLoops.back();
    if ((k != first && k != second) || llvm::is_contained(product->outLoops, k))
      continue;
    SmallVector<unsigned> expected(ids);
    expected.push_back(k == first ? second : first);
    if (outLoops != expected)
      continue;
    return RowsOfIds{rows, *gathered, shared, k == second};
  }
  return std::nullopt;
}

/// Returns a tensor whose first `dims` dimensions are one, and the others
/// another one.
static Value collapse(OpBuilder &b, Location loc, Value value, int64_t dims) {
  int64_t rank = tensorOf(value).getRank();
  if (rank == 2 && dims == 1)
    return value;
  SmallVector<ReassociationIndices> groups(2);
  for (int64_t dim = 0; dim < rank; ++dim)
    groups[dim < dims ? 0 : 1].push_back(dim);
  return tensor::CollapseShapeOp::create(b, loc, value, groups);
}

/// Returns ids [P, Q] of all ids, of which the first `dims` dimensions are P.
static Value buildPairs(OpBuilder &b, Location loc, Value ids, int64_t dims) {
  RankedTensorType type = tensorOf(ids);
  if (type.getRank() > dims)
    return collapse(b, loc, ids, dims);
  SmallVector<ReassociationIndices> all(1);
  for (int64_t dim = 0; dim < dims; ++dim)
    all[0].push_back(dim);
  if (dims > 1)
    ids = tensor::CollapseShapeOp::create(b, loc, ids, all);
  type = tensorOf(ids);
  return tensor::ExpandShapeOp::create(
      b, loc, RankedTensorType::get({type.getDimSize(0), 1}, b.getI32Type()),
      ids, ArrayRef<ReassociationIndices>{{0, 1}});
}

Outcome mlir::moe::raising::raiseGatheredDot(Operation *op,
                                             GroupedProductBuilder &builder) {
  std::optional<RowsOfIds> found = match(op);
  if (!found)
    return {};
  RankedTensorType rows = tensorOf(found->rows),
                   weights = tensorOf(found->gathered.weights),
                   result = tensorOf(op->getResult(0));
  Type element = rows.getElementType();
  if (!isRowFloat(element) || element != weights.getElementType() ||
      !isRowFloat(result.getElementType()))
    return Outcome::left("expected rows and gathered weights of one float type "
                         "of 16 or 32 bits");
  int64_t idDims = found->gathered.idDims;
  int64_t k = weights.getDimSize(found->transposed ? 2 : 1),
          n = weights.getDimSize(found->transposed ? 1 : 2);
  // What is merged is split again: one extent may be dynamic.
  ArrayRef<int64_t> extents = result.getShape().take_front(idDims);
  if (llvm::count(extents, ShapedType::kDynamic) > 1 ||
      ShapedType::isDynamicShape(extents.drop_front(found->rowDims)))
    return Outcome::left("more than one extent of the rows is dynamic");
  // Where nothing verifies the operation.
  RankedTensorType of = tensorOf(found->gathered.op->getResult(0));
  auto product = [](ArrayRef<int64_t> extents) {
    return ShapedType::isDynamicShape(extents)
               ? ShapedType::kDynamic
               : ShapedType::getNumElements(extents);
  };
  if (n == 0 || k == 0 || llvm::is_contained(extents, 0) ||
      product(rows.getShape().drop_front(found->rowDims)) != k ||
      product(result.getShape().drop_front(idDims)) != n)
    return Outcome::left("the extents do not fit, or are 0");
  for (int64_t dim = 0; dim < idDims; ++dim)
    if (of.getDimSize(dim) != extents[dim] ||
        (dim < found->rowDims && rows.getDimSize(dim) != extents[dim]))
      return Outcome::left("the extents do not fit");

  RewriterBase &rewriter = builder.getRewriter();
  Location loc = op->getLoc();
  RouteOp route =
      builder.routeOf(found->gathered, found->rowDims, [&](OpBuilder &b) {
        Value ids =
            buildPairs(b, loc, buildIds(b, found->gathered), found->rowDims);
        return RouteOp::create(
            b, loc, ids, /*weights=*/nullptr,
            b.getI64IntegerAttr(weights.getDimSize(0)), /*capacity=*/nullptr,
            /*priority=*/nullptr, /*overflow=*/nullptr, /*choices=*/nullptr);
      });
  rewriter.setInsertionPoint(op);
  Value lhs = collapse(rewriter, loc, found->rows, found->rowDims);
  OpFoldResult count =
      tensor::getMixedSize(rewriter, loc, route.getTokens(), 0);
  Value init = tensor::EmptyOp::create(
      rewriter, loc, ArrayRef<OpFoldResult>{count, rewriter.getIndexAttr(n)},
      result.getElementType());
  auto matmul = GroupedMatmulOp::create(
      rewriter, loc, init.getType(), lhs, route.getTokens(), route.getOffsets(),
      found->gathered.weights, /*lhs_scales=*/nullptr,
      /*weight_scales=*/ValueRange(), /*extras=*/ValueRange(), init,
      found->transposed, /*panels=*/nullptr, /*maps=*/nullptr,
      /*first=*/nullptr, /*blocks=*/nullptr);
  buildEpilogue(rewriter, matmul, result.getElementType());
  // The row of each id, alone.
  Value places = buildPairs(
      rewriter, loc,
      tensor::CollapseShapeOp::create(rewriter, loc, route.getPositions(),
                                      ArrayRef<ReassociationIndices>{{0, 1}}),
      1);
  Value sum = CombineOp::create(rewriter, loc, matmul.getResult(), places,
                                /*weights=*/nullptr, /*dropped=*/nullptr,
                                /*normalize=*/nullptr);
  // As the result: the dimensions of the ids, and that of the columns.
  SmallVector<ReassociationIndices> groups(2);
  for (int64_t dim = 0; dim < result.getRank(); ++dim)
    groups[dim < idDims ? 0 : 1].push_back(dim);
  RankedTensorType merged =
      tensor::CollapseShapeOp::inferCollapsedType(result, groups);
  sum = asForeign(rewriter, sum, merged);
  if (result.getRank() != 2)
    sum = tensor::ExpandShapeOp::create(rewriter, loc, result, sum, groups);
  rewriter.replaceOp(op, sum);
  // A copy of the weights for each row, which only the product used.
  if (found->gathered.ids && found->gathered.op->use_empty())
    rewriter.eraseOp(found->gathered.op);
  return Outcome::raised();
}
