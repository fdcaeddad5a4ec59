//===- RouteToGPU.cpp - moe.route -----------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The first kernel computes the histograms of the blocks, the second one
// scatters. If there is one chunk only, the second kernel counts for itself and
// the grid of the first is empty.
//
//===----------------------------------------------------------------------===//

#include "CapacityDrop.h"
#include "Lowering.h"
#include "RouteEmitter.h"

using namespace mlir;
using namespace mlir::moe;

/// Choices of a block: few enough for one warp to scatter them quickly, enough
/// that a block does not read more counts than choices.
static constexpr int64_t chunk = 2048;
static constexpr int64_t threads = 256;

/// Builds the kernel that writes the histogram of each chunk to counts[block,
/// bucket].
static LLVM::LLVMFuncOp buildCount(RouteOp op, DeviceLowering &lowering) {
  GPUBuilder b(op.getLoc(), op.getContext());
  KernelShape shape;
  shape.threads = threads;
  shape.sharedBytes = RouteEmitter::histogramBytes(op);
  auto kernel = createKernel(b, lowering.kernels, "route_count", shape, 2,
                             b.getI32Type());
  Value total = kernel.getArgument(2);
  RouteEmitter route(op, b, threads);
  Value histogram = b.sharedMemory(), block = b.block();
  route.clear(histogram);
  Value first = b.mul(block, chunk);
  Value end = b.add(first, b.min(b.sub(total, first), chunk));
  route.count(histogram, kernel.getArgument(0), first, end);
  route.storeCounts(histogram, kernel.getArgument(1), block);
  return kernel;
}

LLVM::LLVMFuncOp mlir::moe::buildScatterKernel(RouteOp op,
                                               DeviceLowering &lowering) {
  GPUBuilder b(op.getLoc(), op.getContext());
  KernelShape shape;
  shape.threads = threads;
  shape.sharedBytes = RouteEmitter::scatterBytes(op);
  SmallVector<Type> scalars(op.getCapacity() ? 4 : 3, b.getI32Type());
  auto kernel =
      createKernel(b, lowering.kernels, "route_place", shape, 5, scalars);
  auto argument = [&](unsigned i) { return kernel.getArgument(i); };
  RouteEmitter::Arrays arrays{argument(0), argument(1), argument(2),
                              argument(3), argument(4)};
  Value block = b.block(), blocks = b.numBlocks();
  RouteEmitter(op, b, threads)
      .scatter(b.sharedMemory(), arrays,
               {block, blocks, /*chunk=*/argument(7), /*total=*/argument(5),
                /*rows=*/argument(6),
                /*capacity=*/op.getCapacity() ? argument(8) : Value()});
  return kernel;
}

Value mlir::moe::capacityOf(ImplicitLocOpBuilder &b, RouteOp op) {
  if (!op.getCapacity())
    return Value();
  Value rows = buildCapacity(b, b.getLoc(), *op.getCapacity(),
                             extentOf(b, op.getIds(), 0), op.getNumExperts());
  return arith::IndexCastOp::create(b, b.getI32Type(), rows);
}

Lowered mlir::moe::lowerToGPU(RouteOp op, DeviceLowering &lowering,
                              std::string &why) {
  if (failed(RouteEmitter::verify(op, why)))
    return failure();
  LLVM::LLVMFuncOp count = buildCount(op, lowering);
  LLVM::LLVMFuncOp scatter = buildScatterKernel(op, lowering);

  ImplicitLocOpBuilder b(op.getLoc(), lowering.rewriter);
  auto index = [&](int64_t value) -> Value {
    return arith::ConstantIndexOp::create(b, value);
  };
  ReifiedRankedShapedTypeDims shapes;
  (void)op.reifyResultShapes(b, shapes); // never fails for this operation
  Type i32 = b.getI32Type();
  Value choices = arith::MulIOp::create(b, extentOf(b, op.getIds(), 0),
                                        index(op.getTopK()));
  Value blocks = ceilDivOf(b, choices, chunk);
  // With one chunk the counts are not read.
  Value counting = arith::SelectOp::create(
      b, arith::CmpIOp::create(b, arith::CmpIPredicate::eq, blocks, index(1)),
      index(0), blocks);
  Value counts = tensor::EmptyOp::create(
      b,
      ArrayRef<OpFoldResult>{blocks,
                             b.getIndexAttr(RouteEmitter::countBuckets(op))},
      i32);
  Value total = arith::IndexCastOp::create(b, i32, choices);
  Value ids = op.getIds(), capacity = capacityOf(b, op);
  if (RouteEmitter::dropsInAdvance(op))
    ids = launchCapacityDrop(op, lowering, total, capacity);
  counts = launch(lowering, op.getLoc(), count, counting, ids, counts, total)
               .front();
  SmallVector<Value> inits;
  for (const auto &shape : shapes)
    inits.push_back(tensor::EmptyOp::create(b, shape, i32));
  Value rows = arith::IndexCastOp::create(
      b, i32, getValueOrCreateConstantIndexOp(b, b.getLoc(), shapes[0][0]));
  // With T = 0 the offsets must be written all the same.
  Value placing = arith::MaxUIOp::create(b, blocks, index(1));
  SmallVector<Value> scalars{total, rows,
                             arith::ConstantIntOp::create(b, chunk, 32)};
  if (capacity)
    scalars.push_back(capacity);
  return launch(lowering, op.getLoc(), scatter, placing, {ids, counts}, inits,
                scalars);
}
