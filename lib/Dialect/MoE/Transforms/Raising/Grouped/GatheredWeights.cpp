//===- GatheredWeights.cpp - Weights of each row -------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "GatheredWeights.h"

#include "mlir/Analysis/SliceAnalysis.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

using Dims = SmallVector<int64_t>;

static Dims range(int64_t from, int64_t to) {
  return llvm::to_vector(llvm::seq<int64_t>(from, std::max(from, to)));
}

//===----------------------------------------------------------------------===//
// StableHLO
//===----------------------------------------------------------------------===//

/// Returns the first column of indices [.., n], as a tensor [.., 1].
static Value firstColumn(Value indices) {
  auto type = cast<RankedTensorType>(indices.getType());
  if (type.getShape().back() == 1)
    return indices;
  Operation *op = definedBy(indices, "stablehlo.concatenate");
  if (!op || integersOf(op, "dimension") != Dims{type.getRank() - 1})
    return {};
  auto first = dyn_cast<RankedTensorType>(op->getOperand(0).getType());
  return first && first.getRank() == type.getRank() &&
                 first.getShape().back() == 1
             ? op->getOperand(0)
             : Value();
}

static std::optional<GatheredWeights> matchStableHLO(Value value) {
  // jax.vmap of an index leaves a dimension of extent 1.
  RankedTensorType without;
  Operation *reshape = value.getDefiningOp();
  if (isNamed(reshape, "stablehlo.reshape") ||
      isNamed(reshape, "stablehlo.dynamic_reshape")) {
    without = dyn_cast<RankedTensorType>(value.getType());
    value = reshape->getOperand(0);
  }
  Operation *op = definedBy(value, "stablehlo.gather");
  if (!op || op->getNumOperands() != 2)
    return std::nullopt;
  Value weights = op->getOperand(0), indices = op->getOperand(1);
  auto type = dyn_cast<RankedTensorType>(weights.getType()),
       of = dyn_cast<RankedTensorType>(indices.getType()),
       result = dyn_cast<RankedTensorType>(value.getType());
  if (!type || !of || !result || !type.hasStaticShape() || type.getRank() < 2 ||
      of.getRank() < 2 || !of.getElementType().isSignlessInteger() ||
      of.getElementTypeBitWidth() < 32)
    return std::nullopt;
  int64_t idDims = of.getRank() - 1, rank = type.getRank();
  Dims sizes = llvm::to_vector(type.getShape());
  sizes[0] = 1;
  std::string text = textOf(op, "dimension_numbers");
  bool collapses = integersIn(text, "collapsed_slice_dims") == Dims{0};
  // Whole matrices: other start indices than the first have no effect, since
  // they are clamped to 0.
  auto starts = integersIn(text, "start_index_map");
  if (integersOf(op, "slice_sizes") != sizes || !starts || starts->empty() ||
      starts->front() != 0 || int64_t(starts->size()) != of.getShape().back() ||
      integersIn(text, "index_vector_dim") != Dims{idDims} ||
      integersIn(text, "operand_batching_dims") != Dims{} ||
      integersIn(text, "offset_dims") !=
          range(idDims, idDims + rank - collapses) ||
      (!collapses && integersIn(text, "collapsed_slice_dims") != Dims{}) ||
      result.getRank() != idDims + rank - collapses)
    return std::nullopt;
  if (bool(without) == collapses)
    return std::nullopt;
  if (without) {
    Dims shape(result.getShape());
    shape.erase(shape.begin() + idDims);
    if (without.getShape() != ArrayRef(shape))
      return std::nullopt;
  }
  Value ids = firstColumn(indices);
  if (!ids)
    return std::nullopt;
  return GatheredWeights{weights, op, idDims, ids, {}};
}

//===----------------------------------------------------------------------===//
// linalg
//===----------------------------------------------------------------------===//

/// Finds the operations in the body of `op` that compute `index` from the first
/// `dims` loops; nothing if it depends on others or on the result.
static std::optional<SetVector<Operation *>>
findIndexSlice(linalg::GenericOp op, Value index, int64_t dims) {
  SetVector<Operation *> slice;
  SmallVector<AffineMap> maps = op.getIndexingMapsArray();
  auto isInside = [&](Operation *each) {
    return op.getBody() == each->getBlock();
  };
  auto isKnown = [&](Value value) {
    if (auto argument = dyn_cast<BlockArgument>(value)) {
      if (argument.getOwner() != op.getBody())
        return true;
      if (argument.getArgNumber() >= op.getNumDpsInputs())
        return false;
      AffineMap map = maps[argument.getArgNumber()];
      for (unsigned dim = dims; dim < map.getNumDims(); ++dim)
        if (map.isFunctionOfDim(dim))
          return false;
      return true;
    }
    return true;
  };
  BackwardSliceOptions options;
  options.inclusive = true;
  options.omitBlockArguments = true;
  options.filter = isInside;
  if (failed(getBackwardSlice(index, &slice, options)))
    return std::nullopt;
  if (!isKnown(index))
    return std::nullopt;
  for (Operation *each : slice) {
    auto loop = dyn_cast<linalg::IndexOp>(each);
    if (each->getNumRegions() != 0 || !isPure(each) ||
        (loop && int64_t(loop.getDim()) >= dims) ||
        !llvm::all_of(each->getOperands(), isKnown))
      return std::nullopt;
  }
  return slice;
}

static std::optional<GatheredWeights> matchLinalg(Value value) {
  auto op = value.getDefiningOp<linalg::GenericOp>();
  if (!op || op.getNumDpsInits() != 1 || !op.hasPureTensorSemantics() ||
      op.getNumParallelLoops() != op.getNumLoops() ||
      !op.getIndexingMapsArray().back().isIdentity())
    return std::nullopt;
  auto extract = op.getBody()
                     ->getTerminator()
                     ->getOperand(0)
                     .getDefiningOp<tensor::ExtractOp>();
  if (!extract || extract->getBlock() != op.getBody())
    return std::nullopt;
  auto type = extract.getTensor().getType();
  int64_t idDims = int64_t(op.getNumLoops()) - (type.getRank() - 1);
  if (!type.hasStaticShape() || type.getRank() < 2 || idDims < 1)
    return std::nullopt;
  auto result = cast<RankedTensorType>(value.getType());
  for (int64_t dim = 1; dim < type.getRank(); ++dim) {
    auto index = extract.getIndices()[dim].getDefiningOp<linalg::IndexOp>();
    if (!index || int64_t(index.getDim()) != idDims + dim - 1 ||
        result.getDimSize(idDims + dim - 1) != type.getDimSize(dim))
      return std::nullopt;
  }
  Value index = extract.getIndices()[0];
  if (!findIndexSlice(op, index, idDims))
    return std::nullopt;
  return GatheredWeights{extract.getTensor(), op, idDims, {}, index};
}

std::optional<GatheredWeights>
mlir::moe::raising::matchGatheredWeights(Value value) {
  std::optional<GatheredWeights> found = matchStableHLO(value);
  return found ? found : matchLinalg(value);
}

//===----------------------------------------------------------------------===//
// Ids
//===----------------------------------------------------------------------===//

/// Returns ids [...] of a tensor [..., 1], clamped to [0, g).
static Value buildClampedIds(OpBuilder &b, const GatheredWeights &gathered) {
  Location loc = gathered.op->getLoc();
  int64_t dims = gathered.idDims;
  int64_t groups =
      cast<RankedTensorType>(gathered.weights.getType()).getDimSize(0);
  SmallVector<OpFoldResult> sizes = tensor::getMixedSizes(b, loc, gathered.ids);
  sizes.pop_back();
  Value init = tensor::EmptyOp::create(b, loc, sizes, b.getI32Type());
  AffineMap out = b.getMultiDimIdentityMap(dims);
  SmallVector<AffineExpr> exprs = llvm::to_vector(out.getResults());
  exprs.push_back(b.getAffineConstantExpr(0));
  AffineMap in = AffineMap::get(dims, 0, exprs, b.getContext());
  return linalg::GenericOp::create(
             b, loc, init.getType(), gathered.ids, init,
             SmallVector<AffineMap>{in, out},
             SmallVector<utils::IteratorType>(dims,
                                              utils::IteratorType::parallel),
             [&](OpBuilder &b, Location loc, ValueRange arguments) {
               Value id = arguments[0];
               auto bound = [&](int64_t value) {
                 return arith::ConstantOp::create(
                     b, loc, b.getIntegerAttr(id.getType(), value));
               };
               id = arith::MaxSIOp::create(b, loc, id, bound(0));
               id = arith::MinSIOp::create(b, loc, id, bound(groups - 1));
               if (!id.getType().isInteger(32))
                 id = arith::TruncIOp::create(b, loc, b.getI32Type(), id);
               linalg::YieldOp::create(b, loc, id);
             })
      .getResult(0);
}

Value mlir::moe::raising::buildIds(OpBuilder &b,
                                   const GatheredWeights &gathered) {
  if (gathered.ids)
    return buildClampedIds(b, gathered);
  auto op = cast<linalg::GenericOp>(gathered.op);
  Location loc = op.getLoc();
  int64_t dims = gathered.idDims;
  SetVector<Operation *> slice = *findIndexSlice(op, gathered.index, dims);
  // The inputs that the index is computed from.
  SmallVector<Value> inputs;
  SmallVector<AffineMap> maps;
  SmallVector<BlockArgument> arguments;
  for (OpOperand *input : op.getDpsInputOperands()) {
    BlockArgument argument = op.getMatchingBlockArgument(input);
    bool isUsed =
        argument == gathered.index || llvm::any_of(slice, [&](Operation *each) {
          return llvm::is_contained(each->getOperands(), argument);
        });
    if (!isUsed)
      continue;
    inputs.push_back(input->get());
    arguments.push_back(argument);
    maps.push_back(AffineMap::get(dims, 0,
                                  op.getMatchingIndexingMap(input).getResults(),
                                  b.getContext()));
  }
  SmallVector<OpFoldResult> sizes;
  for (int64_t dim = 0; dim < dims; ++dim)
    sizes.push_back(tensor::getMixedSize(b, loc, op.getDpsInits()[0], dim));
  Value init = tensor::EmptyOp::create(b, loc, sizes, b.getI32Type());
  maps.push_back(b.getMultiDimIdentityMap(dims));
  return linalg::GenericOp::create(
             b, loc, init.getType(), inputs, init, maps,
             SmallVector<utils::IteratorType>(dims,
                                              utils::IteratorType::parallel),
             [&](OpBuilder &b, Location loc, ValueRange values) {
               IRMapping mapping;
               mapping.map(arguments, values.take_front(arguments.size()));
               for (Operation *each : slice)
                 b.clone(*each, mapping);
               Value id = mapping.lookupOrDefault(gathered.index);
               id = arith::IndexCastOp::create(b, loc, b.getI32Type(), id);
               linalg::YieldOp::create(b, loc, id);
             })
      .getResult(0);
}
