//===- BatchedRaggedDot.cpp - chlo.ragged_dot in batches -----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What jax.vmap makes of jax.lax.ragged_dot. Each batch has sizes of its own,
// and rows of no group after them, so that the rows of all batches are no
// groups in a row: each batch becomes a product of its own. Where a batching
// dimension is the ragged one, the groups have no effect, as in JAX: it is an
// ordinary batched matmul.
//
//===----------------------------------------------------------------------===//

#include "GroupedProduct.h"
#include "RaggedDims.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

using Dims = RaggedDims::Dims;

/// Products that are unrolled at most.
static constexpr int64_t maxBatches = 64;

/// Returns the tensor of `value` at `indices` of the dimensions `dims`, without
/// these dimensions.
static Value takeBatch(OpBuilder &b, Location loc, Value value,
                       ArrayRef<int64_t> dims, ArrayRef<int64_t> indices) {
  auto type = cast<RankedTensorType>(value.getType());
  SmallVector<OpFoldResult> offsets(type.getRank(), b.getIndexAttr(0)),
      sizes = tensor::getMixedSizes(b, loc, value),
      strides(type.getRank(), b.getIndexAttr(1));
  for (auto [dim, index] : llvm::zip_equal(dims, indices)) {
    offsets[dim] = b.getIndexAttr(index);
    sizes[dim] = b.getIndexAttr(1);
  }
  SmallVector<int64_t> shape;
  for (int64_t dim = 0; dim < type.getRank(); ++dim)
    if (!llvm::is_contained(dims, dim))
      shape.push_back(type.getDimSize(dim));
  return tensor::ExtractSliceOp::create(b, loc, type.clone(shape), value,
                                        offsets, sizes, strides);
}

/// Puts `value` at `indices` of the dimensions `dims` of `into`.
static Value putBatch(OpBuilder &b, Location loc, Value value, Value into,
                      ArrayRef<int64_t> dims, ArrayRef<int64_t> indices) {
  int64_t rank = cast<RankedTensorType>(into.getType()).getRank();
  SmallVector<OpFoldResult> offsets(rank, b.getIndexAttr(0)),
      sizes = tensor::getMixedSizes(b, loc, into),
      strides(rank, b.getIndexAttr(1));
  for (auto [dim, index] : llvm::zip_equal(dims, indices)) {
    offsets[dim] = b.getIndexAttr(index);
    sizes[dim] = b.getIndexAttr(1);
  }
  return tensor::InsertSliceOp::create(b, loc, value, into, offsets, sizes,
                                       strides);
}

/// Returns where dimension `dim` is without the dimensions `removed`.
static int64_t without(int64_t dim, ArrayRef<int64_t> removed) {
  return dim -
         llvm::count_if(removed, [&](int64_t other) { return other < dim; });
}

/// The dimensions of a tensor of rank `rank` that are not among `others`.
static Dims remaining(int64_t rank, const Dims &others) {
  Dims dims;
  for (int64_t dim = 0; dim < rank; ++dim)
    if (!llvm::is_contained(others, dim))
      dims.push_back(dim);
  return dims;
}

/// True for different dimensions of a tensor of rank `rank`.
static bool areDims(const Dims &dims, int64_t rank) {
  llvm::SmallDenseSet<int64_t> seen;
  return llvm::all_of(dims, [&](int64_t dim) {
    return dim >= 0 && dim < rank && seen.insert(dim).second;
  });
}

/// An ordinary product: batching dimensions, rows, columns. Null if these are
/// not those of the result.
static Value buildBatchedMatmul(OpBuilder &b, Location loc, Value lhs,
                                Value rhs, const RaggedDims &dims,
                                RankedTensorType result) {
  auto left = cast<RankedTensorType>(lhs.getType()),
       right = cast<RankedTensorType>(rhs.getType());
  Dims lhsBound = dims.lhsBatching, rhsBound = dims.rhsBatching;
  llvm::append_range(lhsBound, dims.lhsContracting);
  llvm::append_range(rhsBound, dims.rhsContracting);
  SmallVector<unsigned> lhsLoops(left.getRank()), rhsLoops(right.getRank());
  unsigned loops = 0;
  for (auto [a, c] : llvm::zip_equal(dims.lhsBatching, dims.rhsBatching))
    lhsLoops[a] = rhsLoops[c] = loops++;
  SmallVector<std::pair<Value, int64_t>> places;
  for (int64_t dim : dims.lhsBatching)
    places.push_back({lhs, dim});
  for (int64_t dim : remaining(left.getRank(), lhsBound)) {
    lhsLoops[dim] = loops++;
    places.push_back({lhs, dim});
  }
  for (int64_t dim : remaining(right.getRank(), rhsBound)) {
    rhsLoops[dim] = loops++;
    places.push_back({rhs, dim});
  }
  if (int64_t(places.size()) != result.getRank())
    return {};
  for (auto [place, extent] : llvm::zip_equal(places, result.getShape()))
    if (int64_t known = cast<RankedTensorType>(place.first.getType())
                            .getDimSize(place.second);
        !ShapedType::isDynamic(known) && !ShapedType::isDynamic(extent) &&
        known != extent)
      return {};
  SmallVector<OpFoldResult> extents;
  for (auto [of, dim] : places)
    extents.push_back(tensor::getMixedSize(b, loc, of, dim));
  unsigned outer = loops;
  for (auto [a, c] : llvm::zip_equal(dims.lhsContracting, dims.rhsContracting))
    lhsLoops[a] = rhsLoops[c] = loops++;
  auto map = [&](ArrayRef<unsigned> targets) {
    return AffineMap::getMultiDimMapWithTargets(loops, targets, b.getContext());
  };
  SmallVector<utils::IteratorType> iterators(outer,
                                             utils::IteratorType::parallel);
  iterators.resize(loops, utils::IteratorType::reduction);
  Value zero = arith::ConstantOp::create(b, loc, b.getF32FloatAttr(0));
  Value init = tensor::EmptyOp::create(b, loc, extents, b.getF32Type());
  init = linalg::FillOp::create(b, loc, zero, init).getResult(0);
  Value sum =
      linalg::GenericOp::create(
          b, loc, init.getType(), ValueRange{lhs, rhs}, init,
          SmallVector<AffineMap>{
              map(lhsLoops), map(rhsLoops),
              map(llvm::to_vector(llvm::seq<unsigned>(0, outer)))},
          iterators,
          [](OpBuilder &b, Location loc, ValueRange arguments) {
            SmallVector<Value> wide;
            for (Value argument : arguments.take_front(2))
              wide.push_back(argument.getType().isF32()
                                 ? argument
                                 : arith::ExtFOp::create(b, loc, b.getF32Type(),
                                                         argument));
            Value product = arith::MulFOp::create(b, loc, wide[0], wide[1]);
            Value total = arith::AddFOp::create(b, loc, arguments[2], product);
            linalg::YieldOp::create(b, loc, total);
          })
          .getResult(0);
  if (!result.getElementType().isF32())
    sum = arith::TruncFOp::create(
        b, loc,
        cast<RankedTensorType>(sum.getType()).clone(result.getElementType()),
        sum);
  return asForeign(b, sum, result);
}

Outcome
mlir::moe::raising::raiseBatchedRaggedDot(Operation *op,
                                          GroupedProductBuilder &builder) {
  if (!isRaggedDot(op) || op->getNumOperands() != 3 || op->getNumResults() != 1)
    return {};
  std::optional<RaggedDims> dims = readRaggedDims(op);
  if (!dims || !dims->isBatched())
    return {};
  Value lhs = op->getOperand(0), rhs = op->getOperand(1),
        sizes = op->getOperand(2);
  auto left = dyn_cast<RankedTensorType>(lhs.getType()),
       right = dyn_cast<RankedTensorType>(rhs.getType()),
       groups = dyn_cast<RankedTensorType>(sizes.getType()),
       result = dyn_cast<RankedTensorType>(op->getResult(0).getType());
  int64_t batching = dims->lhsBatching.size();
  Dims lhsBound = dims->lhsBatching, rhsBound = dims->rhsBatching;
  llvm::append_range(lhsBound, dims->lhsContracting);
  llvm::append_range(rhsBound, dims->rhsContracting);
  llvm::append_range(rhsBound, dims->rhsGroup);
  if (!left || !right || !groups || !result ||
      int64_t(dims->rhsBatching.size()) != batching ||
      dims->lhsContracting.size() != dims->rhsContracting.size() ||
      dims->lhsRagged.size() != 1 || !areDims(lhsBound, left.getRank()) ||
      !areDims(rhsBound, right.getRank()))
    return Outcome::left("its dimension numbers are not understood");
  // Where nothing verifies it.
  auto extentsFit = [](RankedTensorType a, const Dims &dims, RankedTensorType b,
                       const Dims &others) {
    return llvm::all_of_zip(dims, others, [&](int64_t dim, int64_t other) {
      return a.getDimSize(dim) == b.getDimSize(other);
    });
  };
  if (!extentsFit(left, dims->lhsBatching, right, dims->rhsBatching) ||
      !extentsFit(left, dims->lhsContracting, right, dims->rhsContracting) ||
      (groups.getRank() > 1 &&
       !extentsFit(left, dims->lhsBatching, groups,
                   llvm::to_vector(llvm::seq<int64_t>(
                       0, std::min(batching, groups.getRank()))))))
    return Outcome::left("the extents do not fit");
  int64_t ragged = dims->lhsRagged.front();
  RewriterBase &rewriter = builder.getRewriter();
  Location loc = op->getLoc();
  if (llvm::is_contained(dims->lhsBatching, ragged)) {
    if (!isRowFloat(left.getElementType()) ||
        left.getElementType() != right.getElementType() ||
        !isRowFloat(result.getElementType()) || !dims->rhsGroup.empty())
      return Outcome::left("expected operands of one float type of 16 or 32 "
                           "bits, and no group dimension");
    Value made = buildBatchedMatmul(rewriter, loc, lhs, rhs, *dims, result);
    if (!made)
      return Outcome::left("the extents do not fit");
    rewriter.replaceOp(op, made);
    return Outcome::raised();
  }

  // Without the batching dimensions it is one of the other forms.
  bool isGradient = dims->rhsGroup.empty();
  auto place = [&](const Dims &of, const Dims &removed) {
    return of.size() == 1 ? without(of.front(), removed) : -1;
  };
  int64_t lhsContracting = place(dims->lhsContracting, dims->lhsBatching),
          rhsContracting = place(dims->rhsContracting, dims->rhsBatching),
          rhsGroup = place(dims->rhsGroup, dims->rhsBatching),
          lhsRagged = without(ragged, dims->lhsBatching);
  if (left.getRank() != batching + 2 ||
      (isGradient ? lhsRagged != lhsContracting || rhsContracting != 0
                  : lhsRagged != 0 || lhsContracting != 1 || rhsGroup != 0 ||
                        rhsContracting < 1))
    return Outcome::left("without batching dimensions it is not [rows, k] and "
                         "[g, k, n] or [g, n, k], or their gradient");
  int64_t count = 1;
  Dims extents;
  for (int64_t dim : dims->lhsBatching) {
    extents.push_back(left.getDimSize(dim));
    if (extents.back() < 0 || (count *= extents.back()) > maxBatches)
      return Outcome::left("more than " + Twine(maxBatches) +
                           " batches, or a dynamic number of them");
  }
  if (groups.getRank() != 1 && groups.getRank() != batching + 1)
    return Outcome::left("its groups are neither [g] nor those of each batch");
  // The rows may be any number.
  int64_t rowsDim = remaining(left.getRank(), lhsBound).empty()
                        ? -1
                        : remaining(left.getRank(), lhsBound).front();
  SmallVector<OpFoldResult> shapeOf;
  for (auto [dim, extent] : llvm::enumerate(result.getShape())) {
    if (extent == 0 || (ShapedType::isDynamic(extent) &&
                        (isGradient || int64_t(dim) != batching)))
      return Outcome::left("an extent other than the rows is dynamic, or 0");
    shapeOf.push_back(ShapedType::isDynamic(extent)
                          ? tensor::getMixedSize(rewriter, loc, lhs, rowsDim)
                          : OpFoldResult(rewriter.getIndexAttr(extent)));
  }
  // The result has the batching dimensions first, after the group of gradients.
  Dims batchDims =
      llvm::to_vector(llvm::seq<int64_t>(isGradient, batching + isGradient));
  Dims shape;
  for (int64_t dim = 0; dim < result.getRank(); ++dim)
    if (!llvm::is_contained(batchDims, dim))
      shape.push_back(result.getDimSize(dim));
  Value sum =
      tensor::EmptyOp::create(rewriter, loc, shapeOf, result.getElementType());
  SmallVector<Operation *> created{sum.getDefiningOp()};
  for (int64_t batch = 0; batch < count; ++batch) {
    Dims indices(batching);
    int64_t rest = batch;
    for (int64_t dim = batching - 1; dim >= 0; --dim) {
      indices[dim] = rest % extents[dim];
      rest /= extents[dim];
    }
    rewriter.setInsertionPoint(op);
    Value rows = takeBatch(rewriter, loc, lhs, dims->lhsBatching, indices),
          other = takeBatch(rewriter, loc, rhs, dims->rhsBatching, indices),
          part = sizes;
    created.append({rows.getDefiningOp(), other.getDefiningOp()});
    if (groups.getRank() > 1) {
      part =
          takeBatch(rewriter, loc, sizes,
                    llvm::to_vector(llvm::seq<int64_t>(0, batching)), indices);
      created.push_back(part.getDefiningOp());
    }
    RankedTensorType type = result.clone(shape);
    std::string reason;
    Value made =
        isGradient
            ? builder.build(op,
                            GroupedGradient{rows, lhsContracting == 1, other,
                                            part, GroupArgument::Sizes, type},
                            reason)
            : builder.build(op,
                            GroupedProduct{rows, part, GroupArgument::Sizes,
                                           other, rhsContracting == 2,
                                           /*zeroRest=*/true, type},
                            reason);
    if (!made) {
      // The first refuses, or none does.
      for (Operation *each : llvm::reverse(created))
        rewriter.eraseOp(each);
      return Outcome::left(reason);
    }
    rewriter.setInsertionPoint(op);
    sum = putBatch(rewriter, loc, made, sum, batchDims, indices);
  }
  rewriter.replaceOp(op, sum);
  return Outcome::raised();
}
