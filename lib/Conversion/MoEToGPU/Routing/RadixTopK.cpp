//===- RadixTopK.cpp - The largest of many numbers ------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "RadixTopK.h"

using namespace mlir;
using namespace mlir::moe;

static constexpr int64_t digitBits = 8;
static constexpr int64_t digits = 1 << digitBits;
/// Words of shared memory: a count of each digit, ...
static constexpr int64_t chosenDigit = digits;
static constexpr int64_t leftOver = digits + 1; // to be taken of that digit
static constexpr int64_t equalsOfWarps = digits + 2;

SelectLargest::SelectLargest(GPUBuilder &b, int64_t threads, Value shared)
    : b(b), threads(threads), shared(shared) {}

Value SelectLargest::keyOf(Value number) {
  // -0 and 0 are equal.
  number = arith::AddFOp::create(b, number, b.f32(0.0));
  Value bits = arith::BitcastOp::create(b, b.getI32Type(), number);
  Value flips = arith::ShRSIOp::create(b, bits, b.i32(31));
  return b.bitXor(bits, b.bitOr(flips, b.i32(INT32_MIN)));
}

/// The first warp finds the digit that the last of `left` numbers has, the
/// largest digits first, and how many of that digit are among them. Where none
/// are left, no number is as large as the digits that this makes.
void SelectLargest::findDigit(Value left) {
  constexpr int64_t own = digits / GPUBuilder::warpSize;
  Value lane = b.thread();
  Value highest = b.sub(b.i32(digits - 1), b.mul(lane, own));
  SmallVector<Value> counts;
  Value sum = b.i32(0);
  for (int64_t i = 0; i < own; ++i) {
    counts.push_back(load(wordAt(0, b.sub(highest, i))));
    sum = b.add(sum, counts.back());
  }
  Value upTo = b.scanWarp(sum);
  left = b.min(left, b.shuffle(upTo, b.i32(31)));
  b.ifThen(b.both(b.equal(left, 0), b.equal(lane, 0)), [&] {
    b.store(b.i32(digits - 1), word(chosenDigit));
    b.store(b.i32(0), word(leftOver));
  });
  Value before = b.sub(upTo, sum);
  for (int64_t i = 0; i < own; ++i) {
    Value after = b.add(before, counts[i]);
    Value isLast =
        b.both(b.less(before, left), b.logicalNot(b.less(after, left)));
    b.ifThen(isLast, [&] {
      b.store(b.sub(highest, i), word(chosenDigit));
      b.store(b.sub(left, before), word(leftOver));
    });
    before = after;
  }
}

SelectLargest::Least SelectLargest::find(Value count, Value most,
                                         Load loadOne) {
  constexpr int64_t rounds = 32 / digitBits;
  SmallVector<Value> found = b.loop(
      b.i32(0), b.i32(rounds), b.i32(1), {b.i32(0), b.i32(0), most},
      [&](Value round, ValueRange carried) {
        Value key = carried[0], mask = carried[1], left = carried[2];
        Value shift = b.sub(b.i32(32 - digitBits), b.mul(round, digitBits));
        b.loop(b.thread(), b.i32(digits), b.i32(threads),
               [&](Value i) { b.store(b.i32(0), wordAt(0, i)); });
        b.barrier();
        b.loop(b.thread(), count, b.i32(threads), [&](Value i) {
          Candidate one = loadOne(i);
          Value its = keyOf(one.number);
          Value matches = b.equal(b.bitAnd(its, mask), key);
          b.ifThen(b.both(one.there, matches), [&] {
            Value digit = arith::ShRUIOp::create(b, its, shift);
            b.atomicAdd(wordAt(0, b.bitAnd(digit, digits - 1)), b.i32(1));
          });
        });
        b.barrier();
        b.ifThen(b.less(b.thread(), GPUBuilder::warpSize),
                 [&] { findDigit(left); });
        b.barrier();
        auto shifted = [&](Value x) -> Value {
          return arith::ShLIOp::create(b, x, shift);
        };
        return SmallVector<Value>{
            b.bitOr(key, shifted(load(word(chosenDigit)))),
            b.bitOr(mask, shifted(b.i32(digits - 1))), load(word(leftOver))};
      });
  return {found[0], found[2]};
}

void SelectLargest::emit(Value count, Value most, Load loadOne, Store store) {
  Least least = find(count, most, loadOne);
  int64_t warps = threads / GPUBuilder::warpSize;
  Value lane = b.lane(), warp = b.warp();
  b.loop(b.i32(0), count, b.i32(threads), {b.i32(0)},
         [&](Value start, ValueRange carried) {
           Value i = b.add(start, b.thread());
           Value inside = b.less(i, count);
           Candidate one = loadOne(b.select(inside, i, start));
           Value there = b.both(one.there, inside), key = keyOf(one.number);
           Value larger = b.both(there, b.below(least.key, key));
           Value equals = b.both(there, b.equal(key, least.key));
           // How many equal ones are before this one.
           Value upTo = b.scanWarp(b.toI32(equals));
           b.ifThen(b.equal(lane, GPUBuilder::warpSize - 1),
                    [&] { b.store(upTo, wordAt(equalsOfWarps, warp)); });
           b.barrier();
           Value ofWarp = load(wordAt(equalsOfWarps, b.min(lane, warps - 1)));
           ofWarp = b.select(b.less(lane, warps), ofWarp, b.i32(0));
           Value warpsUpTo = b.scanWarp(ofWarp);
           Value before =
               b.sub(b.shuffle(warpsUpTo, warp), b.shuffle(ofWarp, warp));
           Value rank =
               b.add(b.add(carried[0], before), b.sub(upTo, b.toI32(equals)));
           Value fits = b.both(equals, b.less(rank, least.equals));
           b.ifThen(inside, [&] { store(i, b.either(larger, fits)); });
           // The counts have been read.
           b.barrier();
           return SmallVector<Value>{
               b.add(carried[0], b.shuffle(warpsUpTo, b.i32(31)))};
         });
}
