//===- RouteEmitter.cpp - Route choices by a counting sort ----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "RouteEmitter.h"

#include "Limits.h"

using namespace mlir;
using namespace mlir::moe;

/// Choices whose buckets are in shared memory at a time.
static constexpr int64_t batch = 2048;
static constexpr int64_t maxBuckets = 4096;

/// True if a token may fall back to further choices: if it may keep all of
/// them, next-choice overflow makes no difference.
static bool triesNext(RouteOp op) {
  return op.getOverflow() == Overflow::NextChoice &&
         op.getMaxChoices() < op.getTopK();
}

static int64_t roundsOf(RouteOp op) {
  bool inRounds = op.getCapacity() && op.getPriority() == Priority::Choice;
  return inRounds && !triesNext(op) ? op.getMaxChoices() : 1;
}

bool RouteEmitter::dropsInAdvance(RouteOp op) {
  return op.getCapacity() &&
         (op.getPriority() == Priority::Probability || triesNext(op));
}

LogicalResult RouteEmitter::verify(RouteOp op, std::string &why) {
  if (triesNext(op) && op.getPriority() == Priority::Position)
    return unsupported(why, "overflow(next_choice) with priority(position)");
  if (op.getNumExperts() > maxBuckets)
    return unsupported(why, "more than " + Twine(maxBuckets) + " experts");
  if (countBuckets(op) > maxBuckets)
    return unsupported(why, "more than " + Twine(maxBuckets) +
                                " pairs of an expert and a choice");
  return success();
}

RouteEmitter::RouteEmitter(RouteOp op, GPUBuilder &b, int64_t threads)
    : op(op), b(b), threads(threads), experts(op.getNumExperts()),
      topK(op.getTopK()), rounds(roundsOf(op)), buckets(countBuckets(op)) {}

int64_t RouteEmitter::countBuckets(RouteOp op) {
  return roundsOf(op) * op.getNumExperts();
}

int64_t RouteEmitter::histogramBytes(RouteOp op) {
  // One more, for choices of no expert.
  return (countBuckets(op) + 1) * 4;
}

int64_t RouteEmitter::scatterBytes(RouteOp op) {
  return 2 * histogramBytes(op) + batch * 4 + GPUBuilder::scanBytes;
}

//===----------------------------------------------------------------------===//
// Histogram
//===----------------------------------------------------------------------===//

Value RouteEmitter::isCounted(Value id, llvm::function_ref<Value()> k) {
  Value valid = b.below(id, experts);
  // With next-choice overflow the kernel ahead has limited the choices of a
  // token.
  if (op.getMaxChoices() != topK && !triesNext(op))
    valid = b.both(valid, b.below(k(), op.getMaxChoices()));
  return valid;
}

Value RouteEmitter::bucketOf(Value id, llvm::function_ref<Value()> k) {
  return rounds > 1 ? b.add(b.mul(k(), experts), id) : id;
}

Value RouteEmitter::bucketAt(Value ids, Value choice) {
  Value id = b.loadAt(b.getI32Type(), ids, choice);
  auto k = [&] { return b.rem(choice, topK); };
  Value counts = isCounted(id, k);
  return b.select(counts, bucketOf(id, k), b.i32(buckets));
}

void RouteEmitter::forEach(Value count, llvm::function_ref<void(Value)> body) {
  b.loop(b.thread(), count, b.i32(threads), body);
}

void RouteEmitter::clear(Value histogram) {
  forEach(b.i32(buckets + 1),
          [&](Value e) { b.store(b.i32(0), counterAt(histogram, e)); });
  b.barrier();
}

void RouteEmitter::count(Value histogram, Value ids, Value first, Value end) {
  b.loop(b.add(first, b.thread()), end, b.i32(threads), [&](Value choice) {
    b.atomicAdd(counterAt(histogram, bucketAt(ids, choice)), b.i32(1));
  });
  b.barrier();
}

void RouteEmitter::countChoice(Value histogram, Value k, Value id) {
  auto choice = [&] { return k; };
  b.ifThen(isCounted(id, choice), [&] {
    b.atomicAdd(counterAt(histogram, bucketOf(id, choice)), b.i32(1));
  });
}

void RouteEmitter::storeCounts(Value histogram, Value counts, Value block) {
  Value row = b.mul(block, buckets);
  forEach(b.i32(buckets), [&](Value i) {
    b.storeAt(load(counterAt(histogram, i)), counts, b.add(row, i));
  });
}

//===----------------------------------------------------------------------===//
// Scan and scatter
//===----------------------------------------------------------------------===//

/// Adds up the histograms of all blocks in `totals`, and of those before this
/// block in `cursors`. A single block counts for itself.
void RouteEmitter::reduceCounts(Value totals, Value cursors,
                                const Arrays &arrays,
                                const Partition &partition) {
  forEach(b.i32(buckets),
          [&](Value i) { b.store(b.i32(0), counterAt(cursors, i)); });
  clear(totals);
  b.ifElse(
      b.equal(partition.blocks, 1),
      [&] { count(totals, arrays.ids, b.i32(0), partition.total); },
      [&] { addCounts(totals, cursors, arrays, partition); });
  b.barrier();
}

/// Adds the histograms in memory. Threads divide those of a bucket among
/// themselves, and each loads several at once.
void RouteEmitter::addCounts(Value totals, Value cursors, const Arrays &arrays,
                             const Partition &partition) {
  constexpr int64_t atOnce = 8;
  int64_t parts = std::max<int64_t>(threads / buckets, 1);
  forEach(b.i32(buckets * parts), [&](Value i) {
    Value bucket = b.rem(i, buckets);
    SmallVector<Value> sums = b.loop(
        b.div(i, buckets), partition.blocks, b.i32(parts * atOnce),
        {b.i32(0), b.i32(0)}, [&](Value start, ValueRange carried) {
          SmallVector<Value> next(carried);
          for (int64_t j = 0; j < atOnce; ++j) {
            Value other = b.add(start, j * parts);
            Value clamped = b.min(other, b.sub(partition.blocks, 1));
            Value found = b.loadAt(b.getI32Type(), arrays.counts,
                                   b.add(b.mul(clamped, buckets), bucket));
            Value isBlock = b.less(other, partition.blocks);
            Value isEarlier = b.less(other, partition.block);
            next[0] = b.add(next[0], b.select(isBlock, found, b.i32(0)));
            next[1] = b.add(next[1], b.select(isEarlier, found, b.i32(0)));
          }
          return next;
        });
    b.atomicAdd(counterAt(totals, bucket), sums[0]);
    b.atomicAdd(counterAt(cursors, bucket), sums[1]);
  });
}

/// Returns the number of rows of an expert. Lanes without an expert load the
/// counter of choices of no expert.
Value RouteEmitter::countRows(Value totals, Value expert, Value valid,
                              Value capacity) {
  auto total = [&](Value bucket) {
    return load(counterAt(totals, b.select(valid, bucket, b.i32(buckets))));
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
  return b.select(valid, rows, b.i32(0));
}

/// Sets `cursors[expert]` to the row of the expert's first choice in this
/// block. Sets `totals` to the end of the expert's rows or, in rounds, to the
/// number of choices of each bucket that this and later blocks keep.
void RouteEmitter::startExpert(Value totals, Value cursors, Value expert,
                               Value offset, Value rows, Value capacity) {
  Value cursor = counterAt(cursors, expert);
  if (rounds == 1) {
    b.store(b.add(load(cursor), offset), cursor);
    if (capacity)
      b.store(b.add(offset, rows), counterAt(totals, expert));
    return;
  }
  SmallVector<Value> ends = b.loop(
      expert, b.add(expert, buckets), b.i32(experts), {offset, capacity},
      [&](Value bucket, ValueRange carried) {
        Value total = counterAt(totals, bucket);
        Value kept = b.min(load(total), carried[1]);
        Value earlier = load(counterAt(cursors, bucket));
        b.store(b.sub(kept, earlier), total);
        return SmallVector<Value>{b.add(carried[0], b.min(earlier, kept)),
                                  b.sub(carried[1], kept)};
      });
  b.store(ends[0], cursor);
}

/// Scans the rows of the experts to the offset of each. The last counter of
/// `totals` becomes the number of all rows.
void RouteEmitter::scanExperts(const Scratch &scratch, Value offsets,
                               Value isFirst, Value capacity) {
  Value totals = scratch.totals, cursors = scratch.cursors;
  // A thread has a few adjacent experts.
  int64_t count = llvm::divideCeil(experts, threads);
  Value first = b.mul(b.thread(), count);
  SmallVector<Value> rows;
  Value sum = b.i32(0);
  for (int64_t i = 0; i < count; ++i) {
    Value expert = b.add(first, i);
    rows.push_back(
        countRows(totals, expert, b.less(expert, experts), capacity));
    sum = b.add(sum, rows.back());
  }
  int64_t warps = llvm::divideCeil(experts, count * GPUBuilder::warpSize);
  Value offset = b.sub(b.scanBlock(sum, scratch.scan, warps), sum);
  for (int64_t i = 0; i < count; ++i) {
    Value expert = b.add(first, i), end = b.add(offset, rows[i]);
    b.ifThen(b.less(expert, experts), [&] {
      startExpert(totals, cursors, expert, offset, rows[i], capacity);
      b.ifThen(isFirst, [&] { b.storeAt(offset, offsets, expert); });
    });
    b.ifThen(b.equal(expert, experts - 1), [&] {
      b.store(end, counterAt(totals, b.i32(buckets)));
      b.store(b.i32(0), counterAt(cursors, b.i32(buckets)));
      b.ifThen(isFirst, [&] { b.storeAt(end, offsets, b.i32(experts)); });
    });
    offset = end;
  }
  b.barrier();
}

namespace {
/// The lanes of the warp with the same key, as a mask, and how many of them
/// come before this lane.
struct Peers {
  Value lanes, rank;
};
} // namespace

static Peers findPeers(GPUBuilder &b, Value key) {
  Value before = NVVM::LaneMaskLtOp::create(b, b.getI32Type());
  Value lanes = NVVM::MatchSyncOp::create(b, b.getI32Type(), b.i32(-1), key,
                                          NVVM::MatchSyncKind::any);
  Value rank = LLVM::CtPopOp::create(b, b.bitAnd(lanes, before));
  return {lanes, rank};
}

Value mlir::moe::takeSlotsInOrder(GPUBuilder &b, Value counter, Value key) {
  Peers peers = findPeers(b, key);
  Value slot = b.add(b.load(b.getI32Type(), counter), peers.rank);
  NVVM::SyncWarpOp::create(b, b.i32(-1));
  b.ifThen(b.equal(peers.rank, 0), [&] {
    Value found = LLVM::CtPopOp::create(b, peers.lanes);
    b.store(b.add(slot, found), counter);
  });
  return slot;
}

/// True if the bucket of a lane's choice still keeps it.
Value RouteEmitter::keepInRound(Value totals, Value bucket) {
  Value left = counterAt(totals, bucket), before = load(left);
  Peers peers = findPeers(b, bucket);
  NVVM::SyncWarpOp::create(b, b.i32(-1));
  b.ifThen(b.equal(peers.rank, 0), [&] {
    Value found = LLVM::CtPopOp::create(b, peers.lanes);
    b.store(b.sub(before, found), left);
  });
  return b.both(b.less(bucket, buckets), b.less(peers.rank, before));
}

/// The first warp scatters up to a batch of choices, 32 at a time; lanes with
/// the same expert are ordered by a warp match.
void RouteEmitter::scatterBatch(const Scratch &scratch, Value first, Value end,
                                const Arrays &arrays) {
  b.ifThen(b.less(b.thread(), GPUBuilder::warpSize), [&] {
    Value lane = b.thread();
    Value left = b.min(b.sub(end, first), batch);
    b.loop(b.i32(0), left, b.i32(32), [&](Value start) {
      Value bucket = load(counterAt(scratch.buckets, b.add(start, lane)));
      Value expert = bucket, keeps;
      if (rounds > 1) {
        keeps = keepInRound(scratch.totals, bucket);
        expert = b.select(keeps, b.rem(bucket, experts), b.i32(buckets));
      }
      Value row =
          takeSlotsInOrder(b, counterAt(scratch.cursors, expert), expert);
      NVVM::SyncWarpOp::create(b, b.i32(-1));
      Value choice = b.add(b.add(first, start), lane);
      b.ifThen(b.less(choice, end), [&] {
        if (rounds == 1)
          keeps = b.less(expert, experts);
        // An expert keeps its first choices.
        if (rounds == 1 && op.getCapacity())
          keeps = b.both(keeps,
                         b.less(row, load(counterAt(scratch.totals, bucket))));
        b.storeAt(b.select(keeps, row, b.i32(-1)), arrays.positions, choice);
        b.ifThen(keeps,
                 [&] { b.storeAt(b.div(choice, topK), arrays.tokens, row); });
      });
    });
  });
}

void RouteEmitter::scatter(Value shared, const Arrays &arrays,
                           const Partition &partition) {
  Scratch scratch{
      /*totals=*/shared,
      /*cursors=*/b.sharedAt(shared, histogramBytes(op)),
      /*buckets=*/b.sharedAt(shared, 2 * histogramBytes(op)),
      /*scan=*/b.sharedAt(shared, 2 * histogramBytes(op) + batch * 4)};
  reduceCounts(scratch.totals, scratch.cursors, arrays, partition);
  scanExperts(scratch, arrays.offsets, b.equal(partition.block, 0),
              partition.capacity);
  // Read the number of rows before scattering reuses the counter.
  Value used = load(counterAt(scratch.totals, b.i32(buckets)));

  Value first = b.mul(partition.block, partition.chunk);
  Value end =
      b.add(first, b.min(b.sub(partition.total, first), partition.chunk));
  b.loop(first, end, b.i32(batch), [&](Value start) {
    forEach(b.i32(batch), [&](Value i) {
      Value choice = b.add(start, i);
      Value bucket = counterAt(scratch.buckets, i);
      b.ifElse(
          b.less(choice, end),
          [&] { b.store(bucketAt(arrays.ids, choice), bucket); },
          [&] { b.store(b.i32(buckets), bucket); });
    });
    b.barrier();
    scatterBatch(scratch, start, end, arrays);
    b.barrier();
  });

  // Fill the rows without a choice.
  b.loop(b.add(b.add(used, b.mul(partition.block, threads)), b.thread()),
         partition.rows, b.mul(partition.blocks, threads),
         [&](Value row) { b.storeAt(b.i32(-1), arrays.tokens, row); });
}
