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

#include "Builder/KernelArguments.h"
#include "CapacityDrop.h"
#include "Lowering.h"
#include "RouteEmitter.h"
#include "moe/Analysis/KernelModel.h"

using namespace mlir;
using namespace mlir::moe;

/// Choices of a block: few enough for one warp to scatter them quickly, enough
/// that a block does not read more counts than choices.
static constexpr int64_t chunk = 2048;
static constexpr int64_t threads = 256;

/// Builds and launches the kernel that writes the histogram of each chunk to
/// counts[block, bucket]; replaces `counts` by the result.
static void launchCount(RouteOp op, Value ids, Value &counts, Value total,
                        Value blocks, DeviceLowering &lowering) {
  GPUBuilder b(op.getLoc(), op.getContext());
  Value idsPointer, countsPointer, choices;
  KernelArguments arguments;
  arguments.input(ids, idsPointer);
  arguments.output(counts, countsPointer);
  arguments.scalar(total, choices);

  KernelShape shape;
  shape.threads = threads;
  shape.sharedBytes = RouteEmitter::histogramBytes(op);
  LLVM::LLVMFuncOp kernel =
      arguments.createKernel(b, lowering.kernels, "route_count", shape);
  MemoryWork work;
  work.bytesPerToken = double(op.getTopK()) * 4;
  work.minTokens = chunk / op.getTopK() + 1;
  kernel->setAttr(workAttrName, work.toAttr(op.getContext()));
  RouteEmitter route(op, b, threads);
  Value histogram = b.sharedMemory(), block = b.block();
  route.clear(histogram);
  Value first = b.mul(block, chunk);
  Value end = b.add(first, b.min(b.sub(choices, first), chunk));
  route.count(histogram, idsPointer, first, end);
  route.storeCounts(histogram, countsPointer, block);
  arguments.launch(lowering.rewriter, kernel, blocks);
}

void mlir::moe::launchScatter(RouteOp op, ScatterOperands &operands,
                              Value blocks, DeviceLowering &lowering) {
  GPUBuilder b(op.getLoc(), op.getContext());
  RouteEmitter::Arrays arrays;
  RouteEmitter::Partition partition;
  KernelArguments arguments;
  arguments.input(operands.ids, arrays.ids);
  arguments.input(operands.counts, arrays.counts);
  arguments.output(operands.tokens, arrays.tokens);
  arguments.output(operands.offsets, arrays.offsets);
  arguments.output(operands.positions, arrays.positions);
  arguments.scalar(operands.total, partition.total);
  arguments.scalar(operands.rows, partition.rows);
  arguments.scalar(operands.chunk, partition.chunk);
  arguments.scalar(operands.capacity, partition.capacity);

  KernelShape shape;
  shape.threads = threads;
  shape.sharedBytes = RouteEmitter::scatterBytes(op);
  LLVM::LLVMFuncOp kernel =
      arguments.createKernel(b, lowering.kernels, "route_place", shape);
  ScatterWork work;
  work.choices = op.getTopK();
  work.buckets = RouteEmitter::countBuckets(op);
  work.chunk = operands.isOfRouter ? 0 : chunk;
  kernel->setAttr(workAttrName, work.toAttr(op.getContext()));
  partition.block = b.block();
  partition.blocks = b.numBlocks();
  RouteEmitter(op, b, threads).scatter(b.sharedMemory(), arrays, partition);
  arguments.launch(lowering.rewriter, kernel, blocks);
}

Value mlir::moe::capacityOf(HostBuilder &b, RouteOp op) {
  if (!op.getCapacity())
    return Value();
  return b.toI32(buildCapacity(b, b.getLoc(), *op.getCapacity(),
                               b.extent(op.getIds(), 0), op.getNumExperts()));
}

Lowered mlir::moe::lowerToGPU(RouteOp op, DeviceLowering &lowering,
                              std::string &why) {
  if (failed(RouteEmitter::verify(op, why)))
    return failure();
  HostBuilder b(op.getLoc(), lowering.rewriter);
  ReifiedRankedShapedTypeDims shapes;
  (void)op.reifyResultShapes(b, shapes); // never fails for this operation
  Type i32 = b.getI32Type();
  Value choices = b.mul(b.extent(op.getIds(), 0), b.index(op.getTopK()));
  Value blocks = b.ceilDiv(choices, chunk);
  // With one chunk the counts are not read.
  Value countBlocks = b.select(b.equal(blocks, b.index(1)), b.index(0), blocks);
  ScatterOperands operands;
  operands.counts =
      b.empty({blocks, b.getIndexAttr(RouteEmitter::countBuckets(op))}, i32);
  operands.total = b.toI32(choices);
  operands.ids = op.getIds();
  operands.capacity = capacityOf(b, op);
  if (RouteEmitter::dropsInAdvance(op))
    operands.ids =
        launchCapacityDrop(op, lowering, operands.total, operands.capacity);
  launchCount(op, operands.ids, operands.counts, operands.total, countBlocks,
              lowering);
  operands.tokens = b.empty(shapes[0], i32);
  operands.offsets = b.empty(shapes[1], i32);
  operands.positions = b.empty(shapes[2], i32);
  operands.rows =
      b.toI32(getValueOrCreateConstantIndexOp(b, b.getLoc(), shapes[0][0]));
  // With T = 0 the offsets must be written all the same.
  Value scatterBlocks = b.max(blocks, b.index(1));
  operands.chunk = b.i32(chunk);
  launchScatter(op, operands, scatterBlocks, lowering);
  return SmallVector<Value>{operands.tokens, operands.offsets,
                            operands.positions};
}
