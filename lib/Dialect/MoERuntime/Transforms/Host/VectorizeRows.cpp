//===- VectorizeRows.cpp - Vectorize along contiguous rows ----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Scores, choices and weights are rows of a static size, one for each of a
// dynamic number of tokens: loops over tokens around vectors of a row. LLVM's
// loop vectorizer cannot do it, because a running maximum is in a buffer that
// may alias the input.
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoERuntime/Transforms/Passes.h"

#include "mlir/Dialect/Affine/IR/AffineOps.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Linalg/Transforms/Transforms.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/Dialect/Vector/Transforms/LoweringPatterns.h"
#include "mlir/Dialect/Vector/Transforms/VectorRewritePatterns.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEVECTORIZEROWS
#include "moe/Dialect/MoERuntime/Transforms/Passes.h.inc"
} // namespace mlir::moe

/// Rows with fewer elements are not vectorized.
static constexpr int64_t minElements = 4;

/// True if the operand is contiguous along the innermost loop, or invariant.
static bool isRow(linalg::LinalgOp op, OpOperand &operand) {
  auto type = dyn_cast<MemRefType>(operand.get().getType());
  AffineMap map = op.getMatchingIndexingMap(&operand);
  if (!type || !map.isProjectedPermutation())
    return false;
  if (type.getElementTypeBitWidth() % 8 != 0)
    return false;
  unsigned innermost = op.getNumLoops() - 1;
  if (!map.isFunctionOfDim(innermost))
    return true;
  return map.getResult(map.getNumResults() - 1) ==
             getAffineDimExpr(innermost, map.getContext()) &&
         type.isLastDimUnitStride();
}

/// True if an operation of the body can be applied to vectors.
static bool isElementwise(Operation &op) {
  // LLVM has only scalar forms of these.
  if (isa<math::FPowIOp, math::IPowIOp, math::SincosOp, arith::MulSIExtendedOp,
          arith::MulUIExtendedOp>(op))
    return false;
  return isa<linalg::IndexOp, linalg::YieldOp, arith::ConstantOp>(op) ||
         OpTrait::hasElementwiseMappableTraits(&op);
}

/// Returns the vector size: the extent of the innermost loop or its largest
/// divisor up to `maxElements`; 0 if the operation is not vectorized.
static int64_t vectorSizeOf(linalg::LinalgOp op, int64_t maxElements) {
  if (!op.hasPureBufferSemantics() || op.getNumLoops() == 0)
    return 0;
  SmallVector<utils::IteratorType> iterators = op.getIteratorTypesArray();
  if (!llvm::all_of(ArrayRef(iterators).drop_back(),
                    linalg::isParallelIterator))
    return 0;
  int64_t extent = op.getStaticLoopRanges().back();
  if (ShapedType::isDynamic(extent) ||
      !llvm::all_of(op->getOpOperands(),
                    [&](OpOperand &operand) {
                      return op.isScalar(&operand) || isRow(op, operand);
                    }) ||
      !llvm::all_of(*op.getBlock(), isElementwise))
    return 0;
  for (int64_t size = std::min(maxElements, extent); size >= minElements;
       --size)
    if (extent % size == 0)
      return size;
  return 0;
}

namespace {
struct MoEVectorizeRows : moe::impl::MoEVectorizeRowsBase<MoEVectorizeRows> {
  using MoEVectorizeRowsBase::MoEVectorizeRowsBase;

  void runOnOperation() override {
    if (elements < minElements) {
      getOperation()->emitError("expected at least ")
          << minElements << " elements in a vector, got " << int64_t(elements);
      return signalPassFailure();
    }
    SmallVector<linalg::LinalgOp> work;
    getOperation()->walk([&](linalg::LinalgOp op) { work.push_back(op); });
    IRRewriter rewriter(&getContext());
    for (linalg::LinalgOp op : work)
      if (int64_t size = vectorSizeOf(op, elements))
        numVectorized += succeeded(vectorize(rewriter, op, size));
    lowerVectors();
  }

  LogicalResult vectorize(IRRewriter &rewriter, linalg::LinalgOp op,
                          int64_t size);
  void lowerVectors();
};
} // namespace

/// Tiles `op` to one vector of the innermost loop and vectorizes it.
LogicalResult MoEVectorizeRows::vectorize(IRRewriter &rewriter,
                                          linalg::LinalgOp op, int64_t size) {
  SmallVector<int64_t> sizes(op.getNumLoops(), 1);
  sizes.back() = size == op.getStaticLoopRanges().back() ? 0 : size;
  rewriter.setInsertionPoint(op);
  FailureOr<linalg::TiledLinalgOp> tiled = linalg::tileLinalgOp(
      rewriter, op, linalg::LinalgTilingOptions().setTileSizes(sizes));
  if (failed(tiled))
    return failure();
  rewriter.eraseOp(op);
  rewriter.setInsertionPoint(tiled->op);
  if (failed(linalg::vectorize(rewriter, tiled->op)))
    return failure();
  rewriter.eraseOp(tiled->op);
  return success();
}

/// Lowers transfers and reductions to loads and stores of 1-D vectors.
void MoEVectorizeRows::lowerVectors() {
  RewritePatternSet patterns(&getContext());
  vector::populateVectorTransferPermutationMapLoweringPatterns(patterns);
  vector::populateVectorTransferDropUnitDimsPatterns(patterns);
  vector::populateDropUnitDimWithShapeCastPatterns(patterns);
  vector::populateCastAwayVectorLeadingOneDimPatterns(patterns);
  vector::populateVectorMultiReductionLoweringPatterns(
      patterns, vector::VectorMultiReductionLowering::InnerReduction);
  vector::populateVectorTransferLoweringPatterns(patterns,
                                                 /*maxTransferRank=*/1);
  vector::ShapeCastOp::getCanonicalizationPatterns(patterns, &getContext());
  vector::BroadcastOp::getCanonicalizationPatterns(patterns, &getContext());
  vector::ExtractOp::getCanonicalizationPatterns(patterns, &getContext());
  memref::SubViewOp::getCanonicalizationPatterns(patterns, &getContext());
  (void)applyPatternsGreedily(getOperation(), std::move(patterns));
}
