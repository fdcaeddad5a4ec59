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
static constexpr int64_t mostBuckets = 4096;

/// A token that may keep all its choices needs no next one.
static bool triesNext(RouteOp op) {
  return op.getOverflow() == Overflow::NextChoice &&
         op.getMaxChoices() < op.getTopK();
}

static int64_t roundsOf(RouteOp op) {
  bool inRounds = op.getCapacity() && op.getPriority() == Priority::Choice;
  return inRounds && !triesNext(op) ? op.getMaxChoices() : 1;
}

bool RouteEmitter::keepsBefore(RouteOp op) {
  return op.getCapacity() &&
         (op.getPriority() == Priority::Probability || triesNext(op));
}

LogicalResult RouteEmitter::verify(RouteOp op, std::string &why) {
  if (triesNext(op) && op.getPriority() == Priority::Position)
    why = "next choices in order of tokens";
  else if (op.getNumExperts() > mostBuckets)
    why = "more than " + std::to_string(mostBuckets) + " experts";
  else if (countBuckets(op) > mostBuckets)
    why = "more than " + std::to_string(mostBuckets) +
          " pairs of an expert and a choice";
  return failure(!why.empty());
}

RouteEmitter::RouteEmitter(RouteOp op, GPUBuilder &b, int64_t threads)
    : op(op), b(b), threads(threads), experts(op.getNumExperts()),
      topK(op.getTopK()), rounds(roundsOf(op)), buckets(countBuckets(op)) {}

int64_t RouteEmitter::countBuckets(RouteOp op) {
  return roundsOf(op) * op.getNumExperts();
}

int64_t RouteEmitter::counterBytes(RouteOp op) {
  // One more: for choices of no expert.
  return (countBuckets(op) + 1) * 4;
}

int64_t RouteEmitter::placeBytes(RouteOp op) {
  return 2 * counterBytes(op) + batch * 4;
}

//===----------------------------------------------------------------------===//
// Counting
//===----------------------------------------------------------------------===//

Value RouteEmitter::isCounted(Value id, llvm::function_ref<Value()> k) {
  Value valid = b.below(id, experts);
  // Which choices of a token to try was decided with the ids.
  if (op.getMaxChoices() != topK && !triesNext(op))
    valid = b.both(valid, b.below(k(), op.getMaxChoices()));
  return valid;
}

Value RouteEmitter::bucketOf(Value id, llvm::function_ref<Value()> k) {
  return rounds > 1 ? b.add(b.mul(k(), experts), id) : id;
}

Value RouteEmitter::bucketAt(Value ids, Value number) {
  Value id = b.loadAt(b.getI32Type(), ids, number);
  auto k = [&] { return b.rem(number, topK); };
  Value counts = isCounted(id, k);
  return b.select(counts, bucketOf(id, k), b.i32(buckets));
}

void RouteEmitter::forEach(Value count, llvm::function_ref<void(Value)> body) {
  b.loop(b.thread(), count, b.i32(threads), body);
}

void RouteEmitter::clear(Value counters) {
  forEach(b.i32(buckets + 1),
          [&](Value e) { b.store(b.i32(0), counter(counters, e)); });
  b.barrier();
}

void RouteEmitter::count(Value counters, Value ids, Value first, Value end) {
  b.loop(b.add(first, b.thread()), end, b.i32(threads), [&](Value number) {
    b.atomicAdd(counter(counters, bucketAt(ids, number)), b.i32(1));
  });
  b.barrier();
}

void RouteEmitter::countOne(Value counters, Value k, Value id) {
  auto own = [&] { return k; };
  b.ifThen(isCounted(id, own), [&] {
    b.atomicAdd(counter(counters, bucketOf(id, own)), b.i32(1));
  });
}

void RouteEmitter::storeCounts(Value counters, Value counts, Value block) {
  Value row = b.mul(block, buckets);
  forEach(b.i32(buckets), [&](Value i) {
    b.storeAt(load(counter(counters, i)), counts, b.add(row, i));
  });
}

//===----------------------------------------------------------------------===//
// Placing
//===----------------------------------------------------------------------===//

/// Choices of each bucket in all blocks, and in those before this one.
void RouteEmitter::addCounts(Value totals, Value places, const Arrays &arrays,
                             const Share &share) {
  clear(totals);
  b.ifElse(
      b.equal(share.blocks, 1),
      [&] {
        count(totals, arrays.ids, b.i32(0), share.total);
        forEach(b.i32(buckets),
                [&](Value i) { b.store(b.i32(0), counter(places, i)); });
      },
      [&] {
        forEach(b.i32(buckets), [&](Value i) {
          SmallVector<Value> sums =
              b.loop(b.i32(0), share.blocks, b.i32(1), {b.i32(0), b.i32(0)},
                     [&](Value other, ValueRange sums) {
                       Value found = b.loadAt(b.getI32Type(), arrays.counts,
                                              b.add(b.mul(other, buckets), i));
                       Value earlier = b.select(b.less(other, share.block),
                                                found, b.i32(0));
                       return SmallVector<Value>{b.add(sums[0], found),
                                                 b.add(sums[1], earlier)};
                     });
          b.store(sums[0], counter(totals, i));
          b.store(sums[1], counter(places, i));
        });
      });
  b.barrier();
}

/// How many rows an expert has. Lanes without an expert name the counter of no
/// bucket.
Value RouteEmitter::countRows(Value totals, Value expert, Value there,
                              Value capacity) {
  auto total = [&](Value bucket) {
    return load(counter(totals, b.select(there, bucket, b.i32(buckets))));
  };
  Value rows =
      rounds == 1
          ? total(expert)
          : b.loop(expert, b.add(expert, buckets), b.i32(experts), {b.i32(0)},
                   [&](Value bucket, ValueRange sum) {
                     return SmallVector<Value>{b.add(sum[0], total(bucket))};
                   })
                .front();
  if (capacity)
    rows = b.min(rows, capacity);
  return b.select(there, rows, b.i32(0));
}

/// Where an expert's choices in this block go: `places[expert]` becomes the row
/// of the first, `totals` the row after the expert's last, or, in rounds, how
/// many choices of each bucket are still kept.
void RouteEmitter::startExpert(Value totals, Value places, Value expert,
                               Value offset, Value rows, Value capacity) {
  Value place = counter(places, expert);
  if (rounds == 1) {
    b.store(b.add(load(place), offset), place);
    if (capacity)
      b.store(b.add(offset, rows), counter(totals, expert));
    return;
  }
  SmallVector<Value> ends = b.loop(
      expert, b.add(expert, buckets), b.i32(experts), {offset, capacity},
      [&](Value bucket, ValueRange carried) {
        Value total = counter(totals, bucket);
        Value kept = b.min(load(total), carried[1]);
        Value earlier = load(counter(places, bucket));
        b.store(b.sub(kept, earlier), total);
        return SmallVector<Value>{b.add(carried[0], b.min(earlier, kept)),
                                  b.sub(carried[1], kept)};
      });
  b.store(ends[0], place);
}

/// Where each expert's rows start: a running sum, 32 experts at a time. The
/// last counter of `totals` becomes the number of rows.
void RouteEmitter::findStarts(Value totals, Value places, Value offsets,
                              Value isFirst, Value capacity) {
  b.ifThen(b.less(b.thread(), GPUBuilder::warpSize), [&] {
    Value lane = b.thread();
    Value end =
        b.loop(b.i32(0), b.i32(experts), b.i32(32), {b.i32(0)},
               [&](Value start, ValueRange carried) {
                 Value expert = b.add(start, lane);
                 Value there = b.less(expert, experts);
                 Value rows = countRows(totals, expert, there, capacity);
                 Value sum = b.scanWarp(rows);
                 Value offset = b.add(carried[0], b.sub(sum, rows));
                 b.ifThen(there, [&] {
                   startExpert(totals, places, expert, offset, rows, capacity);
                   b.ifThen(isFirst,
                            [&] { b.storeAt(offset, offsets, expert); });
                 });
                 return SmallVector<Value>{
                     b.add(carried[0], b.shuffle(sum, b.i32(31)))};
               })
            .front();
    b.ifThen(b.equal(lane, 0), [&] {
      b.store(end, counter(totals, b.i32(buckets)));
      b.store(b.i32(0), counter(places, b.i32(buckets)));
      b.ifThen(isFirst, [&] { b.storeAt(end, offsets, b.i32(experts)); });
    });
  });
  b.barrier();
}

namespace {
/// Lanes of the warp with the same key, and how many of them are before this
/// one.
struct Equals {
  Value lanes, rank;
};
} // namespace

static Equals findEquals(GPUBuilder &b, Value key) {
  Value before = NVVM::LaneMaskLtOp::create(b, b.getI32Type());
  Value lanes = NVVM::MatchSyncOp::create(b, b.getI32Type(), b.i32(-1), key,
                                          NVVM::MatchSyncKind::any);
  Value rank = LLVM::CtPopOp::create(b, b.bitAnd(lanes, before));
  return {lanes, rank};
}

Value mlir::moe::takeInOrder(GPUBuilder &b, Value counter, Value key) {
  Equals equals = findEquals(b, key);
  Value number = b.add(b.load(b.getI32Type(), counter), equals.rank);
  NVVM::SyncWarpOp::create(b, b.i32(-1));
  b.ifThen(b.equal(equals.rank, 0), [&] {
    Value found = LLVM::CtPopOp::create(b, equals.lanes);
    b.store(b.add(number, found), counter);
  });
  return number;
}

/// Whether the choice of a lane is one of those that its bucket still keeps.
Value RouteEmitter::keepInRound(Value totals, Value bucket) {
  Value left = counter(totals, bucket), before = load(left);
  Equals equals = findEquals(b, bucket);
  NVVM::SyncWarpOp::create(b, b.i32(-1));
  b.ifThen(b.equal(equals.rank, 0), [&] {
    Value found = LLVM::CtPopOp::create(b, equals.lanes);
    b.store(b.sub(before, found), left);
  });
  return b.both(b.less(bucket, buckets), b.less(equals.rank, before));
}

/// The first warp places up to a batch, 32 choices at a time: equal experts
/// among them find their order by comparing lanes.
void RouteEmitter::placeSome(const Counters &counters, Value first, Value end,
                             const Arrays &arrays) {
  b.ifThen(b.less(b.thread(), GPUBuilder::warpSize), [&] {
    Value lane = b.thread();
    Value left = b.min(b.sub(end, first), batch);
    b.loop(b.i32(0), left, b.i32(32), [&](Value start) {
      Value bucket = load(counter(counters.chosen, b.add(start, lane)));
      Value expert = bucket, keeps;
      if (rounds > 1) {
        keeps = keepInRound(counters.totals, bucket);
        expert = b.select(keeps, b.rem(bucket, experts), b.i32(buckets));
      }
      Value row = takeInOrder(b, counter(counters.places, expert), expert);
      NVVM::SyncWarpOp::create(b, b.i32(-1));
      Value number = b.add(b.add(first, start), lane);
      b.ifThen(b.less(number, end), [&] {
        if (rounds == 1)
          keeps = b.less(expert, experts);
        // Those of an expert are kept from the first on.
        if (rounds == 1 && op.getCapacity())
          keeps = b.both(keeps,
                         b.less(row, load(counter(counters.totals, bucket))));
        b.storeAt(b.select(keeps, row, b.i32(-1)), arrays.positions, number);
        b.ifThen(keeps,
                 [&] { b.storeAt(b.div(number, topK), arrays.tokens, row); });
      });
    });
  });
}

void RouteEmitter::place(Value shared, const Arrays &arrays,
                         const Share &share) {
  Counters counters{/*totals=*/shared,
                    /*places=*/b.sharedAt(shared, counterBytes(op)),
                    /*chosen=*/b.sharedAt(shared, 2 * counterBytes(op))};
  addCounts(counters.totals, counters.places, arrays, share);
  findStarts(counters.totals, counters.places, arrays.offsets,
             b.equal(share.block, 0), share.capacity);
  // Placing goes on to count there.
  Value used = load(counter(counters.totals, b.i32(buckets)));

  Value first = b.mul(share.block, share.chunk);
  Value end = b.add(first, b.min(b.sub(share.total, first), share.chunk));
  b.loop(first, end, b.i32(batch), [&](Value start) {
    forEach(b.i32(batch), [&](Value i) {
      Value number = b.add(start, i), place = counter(counters.chosen, i);
      b.ifElse(
          b.less(number, end),
          [&] { b.store(bucketAt(arrays.ids, number), place); },
          [&] { b.store(b.i32(buckets), place); });
    });
    b.barrier();
    placeSome(counters, start, end, arrays);
    b.barrier();
  });

  // Rows of no choice.
  b.loop(b.add(b.add(used, b.mul(share.block, threads)), b.thread()),
         share.rows, b.mul(share.blocks, threads),
         [&](Value row) { b.storeAt(b.i32(-1), arrays.tokens, row); });
}
