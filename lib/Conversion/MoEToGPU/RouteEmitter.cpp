//===- RouteEmitter.cpp - A stable counting sort of choices ---------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "RouteEmitter.h"

using namespace mlir;
using namespace mlir::moe;

/// Choices that are in shared memory at a time.
static constexpr int64_t batch = 2048;
static constexpr int64_t mostExperts = 4096;

LogicalResult RouteEmitter::verify(RouteOp op, std::string &why) {
  if (op.getCapacity())
    why = "a capacity";
  else if (op.getNumExperts() > mostExperts)
    why = "more than " + std::to_string(mostExperts) + " experts";
  return failure(!why.empty());
}

int64_t RouteEmitter::counterBytes(RouteOp op) {
  // One more: for choices of no expert.
  return (op.getNumExperts() + 1) * 4;
}

int64_t RouteEmitter::placeBytes(RouteOp op) {
  return 2 * counterBytes(op) + batch * 4;
}

//===----------------------------------------------------------------------===//
// Counting
//===----------------------------------------------------------------------===//

Value RouteEmitter::isCounted(Value id, llvm::function_ref<Value()> k) {
  Value valid = b.below(id, experts);
  if (op.getMaxChoices() != topK)
    valid = b.both(valid, b.below(k(), op.getMaxChoices()));
  return valid;
}

Value RouteEmitter::expertOf(Value ids, Value number) {
  Value id = b.loadAt(b.getI32Type(), ids, number);
  Value counts = isCounted(id, [&] { return b.rem(number, topK); });
  return b.select(counts, id, b.i32(experts));
}

void RouteEmitter::forEach(Value count, llvm::function_ref<void(Value)> body) {
  b.loop(b.thread(), count, b.i32(threads), body);
}

void RouteEmitter::clear(Value counters) {
  forEach(b.i32(experts + 1),
          [&](Value e) { b.store(b.i32(0), counter(counters, e)); });
  b.barrier();
}

void RouteEmitter::count(Value counters, Value ids, Value first, Value end) {
  b.loop(b.add(first, b.thread()), end, b.i32(threads), [&](Value number) {
    b.atomicAdd(counter(counters, expertOf(ids, number)), b.i32(1));
  });
  b.barrier();
}

void RouteEmitter::countOne(Value counters, Value k, Value id) {
  b.ifThen(isCounted(id, [&] { return k; }),
           [&] { b.atomicAdd(counter(counters, id), b.i32(1)); });
}

void RouteEmitter::storeCounts(Value counters, Value counts, Value block) {
  Value row = b.mul(block, experts);
  forEach(b.i32(experts), [&](Value e) {
    b.storeAt(b.load(b.getI32Type(), counter(counters, e)), counts,
              b.add(row, e));
  });
}

//===----------------------------------------------------------------------===//
// Placing
//===----------------------------------------------------------------------===//

/// Choices of each expert in all blocks, and in those before this one.
void RouteEmitter::addCounts(Value totals, Value places, const Arrays &arrays,
                             const Share &share) {
  clear(totals);
  b.ifElse(
      b.equal(share.blocks, 1),
      [&] {
        count(totals, arrays.ids, b.i32(0), share.total);
        forEach(b.i32(experts),
                [&](Value e) { b.store(b.i32(0), counter(places, e)); });
      },
      [&] {
        forEach(b.i32(experts), [&](Value e) {
          SmallVector<Value> sums =
              b.loop(b.i32(0), share.blocks, b.i32(1), {b.i32(0), b.i32(0)},
                     [&](Value other, ValueRange sums) {
                       Value found = b.loadAt(b.getI32Type(), arrays.counts,
                                              b.add(b.mul(other, experts), e));
                       Value earlier = b.select(b.less(other, share.block),
                                                found, b.i32(0));
                       return SmallVector<Value>{b.add(sums[0], found),
                                                 b.add(sums[1], earlier)};
                     });
          b.store(sums[0], counter(totals, e));
          b.store(sums[1], counter(places, e));
        });
      });
  b.barrier();
}

/// Where each expert's rows start: a running sum, 32 experts at a time. The
/// last counter of `totals` becomes the number of rows.
void RouteEmitter::findStarts(Value totals, Value places, Value offsets,
                              Value isFirst) {
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
                   b.ifThen(isFirst,
                            [&] { b.storeAt(offset, offsets, expert); });
                 });
                 return SmallVector<Value>{
                     b.add(carried[0], b.shuffle(sum, b.i32(31)))};
               })
            .front();
    b.ifThen(b.equal(lane, 0), [&] {
      b.store(end, counter(totals, b.i32(experts)));
      b.store(b.i32(0), counter(places, b.i32(experts)));
      b.ifThen(isFirst, [&] { b.storeAt(end, offsets, b.i32(experts)); });
    });
  });
  b.barrier();
}

/// The first warp places up to a batch, 32 choices at a time: equal experts
/// among them find their order by comparing lanes.
void RouteEmitter::placeSome(Value places, Value chosen, Value first, Value end,
                             const Arrays &arrays) {
  b.ifThen(b.less(b.thread(), GPUBuilder::warpSize), [&] {
    Value lane = b.thread();
    Value before = NVVM::LaneMaskLtOp::create(b, b.getI32Type());
    Value left = b.min(b.sub(end, first), batch);
    b.loop(b.i32(0), left, b.i32(32), [&](Value start) {
      Value expert =
          b.load(b.getI32Type(), counter(chosen, b.add(start, lane)));
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
      b.ifThen(b.less(number, end), [&] {
        Value has = b.less(expert, experts);
        b.storeAt(b.select(has, row, b.i32(-1)), arrays.positions, number);
        b.ifThen(has,
                 [&] { b.storeAt(b.div(number, topK), arrays.tokens, row); });
      });
    });
  });
}

void RouteEmitter::place(Value shared, const Arrays &arrays,
                         const Share &share) {
  Value totals = shared;
  Value places = b.sharedAt(totals, counterBytes(op));
  Value chosen = b.sharedAt(totals, 2 * counterBytes(op));
  addCounts(totals, places, arrays, share);
  findStarts(totals, places, arrays.offsets, b.equal(share.block, 0));

  Value first = b.mul(share.block, share.chunk);
  Value end = b.add(first, b.min(b.sub(share.total, first), share.chunk));
  b.loop(first, end, b.i32(batch), [&](Value start) {
    forEach(b.i32(batch), [&](Value i) {
      Value number = b.add(start, i), place = counter(chosen, i);
      b.ifElse(
          b.less(number, end),
          [&] { b.store(expertOf(arrays.ids, number), place); },
          [&] { b.store(b.i32(experts), place); });
    });
    b.barrier();
    placeSome(places, chosen, start, end, arrays);
    b.barrier();
  });

  // Rows of no choice.
  Value used = b.load(b.getI32Type(), counter(totals, b.i32(experts)));
  b.loop(b.add(b.add(used, b.mul(share.block, threads)), b.thread()),
         share.rows, b.mul(share.blocks, threads),
         [&](Value row) { b.storeAt(b.i32(-1), arrays.tokens, row); });
}
