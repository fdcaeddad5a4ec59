//===- RouteToGPU.cpp - moe.route -----------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Grouping the choices t·K + k by expert is a stable counting sort. A block has
// a chunk of them. The first kernel counts those of each expert in each chunk; in
// the second, each block adds up what came before its chunk and places it. Where
// one chunk is all there is, the second counts for itself and the first has no
// blocks. Nothing is written in an order that depends on time.
//
//===----------------------------------------------------------------------===//

#include "Lowering.h"

using namespace mlir;
using namespace mlir::moe;

/// Choices of a block: few enough for one warp to place them quickly, many enough
/// for a block not to read more counts than choices.
static constexpr int64_t chunk = 2048;
static constexpr int64_t threads = 256;
static constexpr int64_t mostExperts = 4096;

namespace {
class RouteKernels {
public:
  RouteKernels(RouteOp op, DeviceLowering &lowering)
      : op(op), lowering(lowering), b(op.getLoc(), op.getContext()),
        experts(op.getNumExperts()), topK(op.getTopK()) {}

  LLVM::LLVMFuncOp buildCount();
  LLVM::LLVMFuncOp buildPlace();

private:
  /// The expert of choice `number`, which is one of `total`; `experts` if it has
  /// none or is none.
  Value expertOf(Value ids, Value number, Value total);
  /// Run `body` for numbers below `count`, shared among the threads.
  void forEach(Value count, llvm::function_ref<void(Value)> body);
  Value counter(Value base, Value expert) {
    return b.at(base, b.getI32Type(), expert);
  }
  void clear(Value counters);
  /// Count the choices from `first` on.
  void count(Value counters, Value ids, Value first, Value total);
  void placeChunk(Value places, Value chosen, Value first, Value total,
                  Value tokens, Value positions);

  RouteOp op;
  DeviceLowering &lowering;
  GPUBuilder b;
  int64_t experts, topK;
};
} // namespace

Value RouteKernels::expertOf(Value ids, Value number, Value total) {
  auto there = scf::IfOp::create(b, b.getI32Type(), b.less(number, total),
                                 /*withElseRegion=*/true);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(there.thenBlock());
  Value id = b.loadAt(b.getI32Type(), ids, number);
  Value valid = b.below(id, experts);
  if (op.getMaxChoices() != topK)
    valid = b.both(valid, b.below(b.rem(number, topK), op.getMaxChoices()));
  scf::YieldOp::create(b, b.select(valid, id, b.i32(experts)));
  b.setInsertionPointToStart(there.elseBlock());
  scf::YieldOp::create(b, b.i32(experts));
  return there.getResult(0);
}

void RouteKernels::forEach(Value count, llvm::function_ref<void(Value)> body) {
  b.loop(b.thread(), count, b.i32(threads), body);
}

void RouteKernels::clear(Value counters) {
  // One more: for choices of no expert.
  forEach(b.i32(experts + 1),
          [&](Value e) { b.store(b.i32(0), counter(counters, e)); });
  b.barrier();
}

void RouteKernels::count(Value counters, Value ids, Value first, Value total) {
  forEach(b.i32(chunk), [&](Value i) {
    Value expert = expertOf(ids, b.add(first, i), total);
    b.atomicAdd(counter(counters, expert), b.i32(1));
  });
  b.barrier();
}

/// counts[block, e], the choices of each expert in each chunk.
LLVM::LLVMFuncOp RouteKernels::buildCount() {
  KernelShape shape;
  shape.threads = threads;
  shape.sharedBytes = (experts + 1) * 4;
  auto kernel = createKernel(b, lowering.kernels, "route_count", shape, 2,
                             b.getI32Type());
  Value ids = kernel.getArgument(0), counts = kernel.getArgument(1);
  Value total = kernel.getArgument(2);
  Value counters = b.sharedMemory();
  clear(counters);
  count(counters, ids, b.mul(b.block(), chunk), total);
  Value row = b.mul(b.block(), experts);
  forEach(b.i32(experts), [&](Value e) {
    b.storeAt(b.load(b.getI32Type(), counter(counters, e)), counts,
              b.add(row, e));
  });
  return kernel;
}

/// The first warp places the chunk, 32 choices at a time: equal experts among them
/// find their order by comparing lanes.
void RouteKernels::placeChunk(Value places, Value chosen, Value first,
                              Value total, Value tokens, Value positions) {
  b.ifThen(b.less(b.thread(), GPUBuilder::warpSize), [&] {
    Value lane = b.thread();
    Value before = NVVM::LaneMaskLtOp::create(b, b.getI32Type());
    Value left = b.min(b.sub(total, first), chunk);
    b.loop(b.i32(0), left, b.i32(32), [&](Value start) {
      Value expert = b.load(b.getI32Type(),
                            counter(chosen, b.add(start, lane)));
      Value same = NVVM::MatchSyncOp::create(b, b.getI32Type(), b.i32(-1),
                                             expert, NVVM::MatchSyncKind::any);
      Value rank = LLVM::CtPopOp::create(b, b.bitAnd(same, before));
      Value row = b.add(b.load(b.getI32Type(), counter(places, expert)), rank);
      NVVM::SyncWarpOp::create(b, b.i32(-1));
      b.ifThen(b.equal(rank, 0), [&] {
        Value found = LLVM::CtPopOp::create(b, same);
        b.store(b.add(row, found), counter(places, expert));
      });
      NVVM::SyncWarpOp::create(b, b.i32(-1));
      Value number = b.add(b.add(first, start), lane);
      b.ifThen(b.less(number, total), [&] {
        Value has = b.less(expert, experts);
        b.storeAt(b.select(has, row, b.i32(-1)), positions, number);
        b.ifThen(has,
                 [&] { b.storeAt(b.div(number, topK), tokens, row); });
      });
    });
  });
}

LLVM::LLVMFuncOp RouteKernels::buildPlace() {
  int64_t slots = experts + 1;
  KernelShape shape;
  shape.threads = threads;
  shape.sharedBytes = (2 * slots + chunk) * 4;
  auto kernel = createKernel(b, lowering.kernels, "route_place", shape, 5,
                             {b.getI32Type(), b.getI32Type()});
  Value ids = kernel.getArgument(0), counts = kernel.getArgument(1);
  Value tokens = kernel.getArgument(2), offsets = kernel.getArgument(3);
  Value positions = kernel.getArgument(4);
  Value total = kernel.getArgument(5), rows = kernel.getArgument(6);
  Value block = b.block(), blocks = b.numBlocks();
  Value first = b.mul(block, chunk);

  // Choices of each expert in all chunks, and in those before this one.
  Value totals = b.sharedMemory();
  Value places = b.sharedAt(totals, slots * 4);
  Value chosen = b.sharedAt(totals, 2 * slots * 4);
  clear(totals);
  b.ifElse(
      b.equal(blocks, 1),
      [&] {
        count(totals, ids, first, total);
        forEach(b.i32(experts),
                [&](Value e) { b.store(b.i32(0), counter(places, e)); });
      },
      [&] {
        forEach(b.i32(experts), [&](Value e) {
          SmallVector<Value> sums = b.loop(
              b.i32(0), blocks, b.i32(1), {b.i32(0), b.i32(0)},
              [&](Value other, ValueRange sums) {
                Value found = b.loadAt(b.getI32Type(), counts,
                                       b.add(b.mul(other, experts), e));
                Value earlier =
                    b.select(b.less(other, block), found, b.i32(0));
                return SmallVector<Value>{b.add(sums[0], found),
                                          b.add(sums[1], earlier)};
              });
          b.store(sums[0], counter(totals, e));
          b.store(sums[1], counter(places, e));
        });
      });
  forEach(b.i32(chunk), [&](Value i) {
    b.store(expertOf(ids, b.add(first, i), total), counter(chosen, i));
  });
  b.barrier();

  // Where each expert's rows start: a running sum, 32 experts at a time.
  b.ifThen(b.less(b.thread(), GPUBuilder::warpSize), [&] {
    Value lane = b.thread();
    Value end =
        b.loop(b.i32(0), b.i32(experts), b.i32(32), {b.i32(0)},
               [&](Value start, ValueRange carried) {
                 Value expert = b.add(start, lane);
                 Value there = b.less(expert, experts);
                 Value slot = b.select(there, expert, b.i32(experts - 1));
                 Value own = b.select(
                     there, b.load(b.getI32Type(), counter(totals, slot)),
                     b.i32(0));
                 Value sum = b.scanWarp(own);
                 Value offset = b.add(carried[0], b.sub(sum, own));
                 b.ifThen(there, [&] {
                   Value place = counter(places, expert);
                   b.store(b.add(b.load(b.getI32Type(), place), offset), place);
                   b.ifThen(b.equal(block, 0),
                            [&] { b.storeAt(offset, offsets, expert); });
                 });
                 return SmallVector<Value>{
                     b.add(carried[0], b.shuffle(sum, b.i32(31)))};
               })
            .front();
    b.ifThen(b.equal(lane, 0), [&] {
      b.store(end, counter(totals, b.i32(experts)));
      b.store(b.i32(0), counter(places, b.i32(experts)));
      b.ifThen(b.equal(block, 0),
               [&] { b.storeAt(end, offsets, b.i32(experts)); });
    });
  });
  b.barrier();
  placeChunk(places, chosen, first, total, tokens, positions);

  // Rows of no choice.
  Value end = b.load(b.getI32Type(), counter(totals, b.i32(experts)));
  b.loop(b.add(b.add(end, b.mul(block, threads)), b.thread()), rows,
         b.mul(blocks, threads),
         [&](Value row) { b.storeAt(b.i32(-1), tokens, row); });
  return kernel;
}

Lowered mlir::moe::lowerToGPU(RouteOp op, DeviceLowering &lowering,
                              std::string &why) {
  if (op.getCapacity())
    why = "a capacity";
  else if (op.getNumExperts() > mostExperts)
    why = "more than " + std::to_string(mostExperts) + " experts";
  if (!why.empty())
    return failure();
  RouteKernels kernels(op, lowering);
  LLVM::LLVMFuncOp count = kernels.buildCount(), place = kernels.buildPlace();

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
  // With one chunk nobody reads the counts.
  Value counting = arith::SelectOp::create(
      b,
      arith::CmpIOp::create(b, arith::CmpIPredicate::eq, blocks, index(1)),
      index(0), blocks);
  Value counts = tensor::EmptyOp::create(
      b, ArrayRef<OpFoldResult>{blocks, b.getIndexAttr(op.getNumExperts())},
      i32);
  Value total = arith::IndexCastOp::create(b, i32, choices);
  counts = launch(lowering, op.getLoc(), count, counting, op.getIds(), counts,
                  total)
               .front();
  SmallVector<Value> inits;
  for (const auto &shape : shapes)
    inits.push_back(tensor::EmptyOp::create(b, shape, i32));
  Value rows = arith::IndexCastOp::create(
      b, i32, getValueOrCreateConstantIndexOp(b, b.getLoc(), shapes[0][0]));
  // With T = 0 there still are offsets to write.
  Value placing = arith::MaxUIOp::create(b, blocks, index(1));
  return launch(lowering, op.getLoc(), place, placing, {op.getIds(), counts},
                inits, {total, rows});
}
