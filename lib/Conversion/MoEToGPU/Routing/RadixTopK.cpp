//===- RadixTopK.cpp - Block-wide radix top-k -----------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "RadixTopK.h"

using namespace mlir;
using namespace mlir::moe;

static constexpr int64_t digitBits = 8;
static constexpr int64_t bins = 1 << digitBits;
// Shared memory, in words: the histogram, the digit found, how many values with
// that digit are left to take, and the number of ties in each warp.
static constexpr int64_t digitWord = bins;
static constexpr int64_t remainingWord = bins + 1;
static constexpr int64_t warpTiesWord = bins + 2;

RadixTopK::RadixTopK(GPUBuilder &b, int64_t threads, Value shared)
    : b(b), threads(threads), shared(shared) {}

Value RadixTopK::keyOf(Value value) {
  // Turns -0 into 0, which is equal.
  value = arith::AddFOp::create(b, value, b.f32(0.0));
  Value bits = arith::BitcastOp::create(b, b.getI32Type(), value);
  Value flips = arith::ShRSIOp::create(b, bits, b.i32(31));
  return b.bitXor(bits, b.bitOr(flips, b.i32(INT32_MIN)));
}

/// The first warp scans the histogram from the highest bin down for the digit
/// of the last of `remaining` values, and how many values with that digit are
/// taken. If none are to be taken, the digit is the highest one, so that no key
/// exceeds the threshold.
void RadixTopK::findDigit(Value remaining) {
  constexpr int64_t laneBins = bins / GPUBuilder::warpSize;
  Value lane = b.thread();
  Value highest = b.sub(b.i32(bins - 1), b.mul(lane, laneBins));
  SmallVector<Value> counts;
  Value sum = b.i32(0);
  for (int64_t i = 0; i < laneBins; ++i) {
    counts.push_back(load(wordAt(0, b.sub(highest, i))));
    sum = b.add(sum, counts.back());
  }
  Value scan = b.scanWarp(sum);
  remaining = b.min(remaining, b.shuffle(scan, b.i32(31)));
  b.ifThen(b.both(b.equal(remaining, 0), b.equal(lane, 0)), [&] {
    b.store(b.i32(bins - 1), word(digitWord));
    b.store(b.i32(0), word(remainingWord));
  });
  Value before = b.sub(scan, sum);
  for (int64_t i = 0; i < laneBins; ++i) {
    Value after = b.add(before, counts[i]);
    Value isLast = b.both(b.less(before, remaining),
                          b.logicalNot(b.less(after, remaining)));
    b.ifThen(isLast, [&] {
      b.store(b.sub(highest, i), word(digitWord));
      b.store(b.sub(remaining, before), word(remainingWord));
    });
    before = after;
  }
}

RadixTopK::Threshold RadixTopK::findThreshold(Value count, Value k,
                                              Load loadCandidate) {
  constexpr int64_t passes = 32 / digitBits;
  SmallVector<Value> found = b.loop(
      b.i32(0), b.i32(passes), b.i32(1), {b.i32(0), b.i32(0), k},
      [&](Value pass, ValueRange carried) {
        Value key = carried[0], mask = carried[1], remaining = carried[2];
        Value shift = b.sub(b.i32(32 - digitBits), b.mul(pass, digitBits));
        b.loop(b.thread(), b.i32(bins), b.i32(threads),
               [&](Value i) { b.store(b.i32(0), wordAt(0, i)); });
        b.barrier();
        b.loop(b.thread(), count, b.i32(threads), [&](Value i) {
          Candidate candidate = loadCandidate(i);
          Value candidateKey = keyOf(candidate.value);
          Value matches = b.equal(b.bitAnd(candidateKey, mask), key);
          b.ifThen(b.both(candidate.valid, matches), [&] {
            Value digit = arith::ShRUIOp::create(b, candidateKey, shift);
            b.atomicAdd(wordAt(0, b.bitAnd(digit, bins - 1)), b.i32(1));
          });
        });
        b.barrier();
        b.ifThen(b.less(b.thread(), GPUBuilder::warpSize),
                 [&] { findDigit(remaining); });
        b.barrier();
        auto shifted = [&](Value x) -> Value {
          return arith::ShLIOp::create(b, x, shift);
        };
        return SmallVector<Value>{b.bitOr(key, shifted(load(word(digitWord)))),
                                  b.bitOr(mask, shifted(b.i32(bins - 1))),
                                  load(word(remainingWord))};
      });
  return {found[0], found[2]};
}

void RadixTopK::emit(Value count, Value k, Load loadCandidate, Store store) {
  Threshold threshold = findThreshold(count, k, loadCandidate);
  int64_t warps = threads / GPUBuilder::warpSize;
  Value lane = b.lane(), warp = b.warp();
  b.loop(b.i32(0), count, b.i32(threads), {b.i32(0)},
         [&](Value start, ValueRange carried) {
           Value i = b.add(start, b.thread());
           Value inside = b.less(i, count);
           Candidate candidate = loadCandidate(b.select(inside, i, start));
           Value valid = b.both(candidate.valid, inside),
                 key = keyOf(candidate.value);
           Value larger = b.both(valid, b.below(threshold.key, key));
           Value ties = b.both(valid, b.equal(key, threshold.key));
           // Rank the ties by index: a scan over lanes, then over warps.
           Value laneScan = b.scanWarp(b.toI32(ties));
           b.ifThen(b.equal(lane, GPUBuilder::warpSize - 1),
                    [&] { b.store(laneScan, wordAt(warpTiesWord, warp)); });
           b.barrier();
           Value warpTies = load(wordAt(warpTiesWord, b.min(lane, warps - 1)));
           warpTies = b.select(b.less(lane, warps), warpTies, b.i32(0));
           Value warpScan = b.scanWarp(warpTies);
           Value before =
               b.sub(b.shuffle(warpScan, warp), b.shuffle(warpTies, warp));
           Value rank =
               b.add(b.add(carried[0], before), b.sub(laneScan, b.toI32(ties)));
           Value fits = b.both(ties, b.less(rank, threshold.ties));
           b.ifThen(inside, [&] { store(i, b.either(larger, fits)); });
           // All threads have read the counts of the warps.
           b.barrier();
           return SmallVector<Value>{
               b.add(carried[0], b.shuffle(warpScan, b.i32(31)))};
         });
}
