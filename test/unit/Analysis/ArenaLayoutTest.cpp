//===- ArenaLayoutTest.cpp - No two live buffers overlap ------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Analysis/ArenaLayout.h"

#include "gtest/gtest.h"

#include <limits>
#include <random>

using namespace mlir::moe;

using Sizes = std::vector<int64_t>;
using Lifetimes = std::vector<Lifetime>;

/// Where a layout puts buffers of some sizes.
static Sizes offsetsOf(const ArenaLayout &layout, const Sizes &sizes) {
  Sizes offsets(sizes.size(), 0);
  for (unsigned buffer : layout.order)
    for (unsigned other : layout.below[buffer])
      offsets[buffer] =
          std::max(offsets[buffer], offsets[other] + sizes[other]);
  return offsets;
}

static int64_t peakOf(const ArenaLayout &layout, const Sizes &sizes) {
  Sizes offsets = offsetsOf(layout, sizes);
  int64_t peak = 0;
  for (size_t i = 0; i < sizes.size(); ++i)
    peak = std::max(peak, offsets[i] + sizes[i]);
  return peak;
}

/// The most bytes that live at one time: no layout takes less.
static int64_t liveBytes(const Lifetimes &lifetimes, const Sizes &sizes) {
  int64_t most = 0;
  for (const Lifetime &at : lifetimes) {
    int64_t live = 0;
    for (size_t i = 0; i < sizes.size(); ++i)
      if (lifetimes[i].begin <= at.begin && at.begin <= lifetimes[i].end)
        live += sizes[i];
    most = std::max(most, live);
  }
  return most;
}

TEST(ArenaLayout, Empty) {
  auto layout = computeArenaLayout({}, {});
  ASSERT_TRUE(layout);
  EXPECT_TRUE(layout->order.empty());
}

TEST(ArenaLayout, SharesAfterTheEnd) {
  Lifetimes lifetimes = {{0, 3}, {4, 6}};
  EXPECT_EQ(peakOf(*computeArenaLayout(lifetimes, {10, 20}), {10, 20}), 20);
}

TEST(ArenaLayout, ApartWhileBothLive) {
  Lifetimes lifetimes = {{0, 4}, {4, 6}};
  EXPECT_EQ(peakOf(*computeArenaLayout(lifetimes, {10, 20}), {10, 20}), 30);
}

// 4 lives beside 6, and 2 fits into the gap that 6 leaves under what is long.
TEST(ArenaLayout, FillsTheGap) {
  Lifetimes lifetimes = {{0, 9}, {0, 4}, {5, 9}, {5, 9}};
  Sizes sizes = {10, 6, 4, 2};
  EXPECT_EQ(peakOf(*computeArenaLayout(lifetimes, sizes), sizes), 16);
}

TEST(ArenaLayout, SumAbove64Bits) {
  int64_t half = std::numeric_limits<int64_t>::max() / 2 + 1;
  Lifetimes lifetimes = {{0, 1}, {2, 3}};
  EXPECT_FALSE(computeArenaLayout(lifetimes, {half, half}));
  EXPECT_TRUE(computeArenaLayout(lifetimes, {half, half - 1}));
}

// The order is chosen for some sizes and must hold for all others, 0 included.
TEST(ArenaLayout, NoOverlapForAnySizes) {
  std::mt19937 random(1);
  double total = 0, best = 0;
  for (int round = 0; round < 500; ++round) {
    size_t count = random() % 24;
    Lifetimes lifetimes;
    Sizes sizes;
    for (size_t i = 0; i < count; ++i) {
      unsigned begin = random() % 40, length = random() % 12;
      lifetimes.push_back({begin, begin + length});
      sizes.push_back(random() % 5 == 0 ? 0 : random() % 1000);
    }
    auto layout = computeArenaLayout(lifetimes, sizes);
    ASSERT_TRUE(layout);
    ASSERT_EQ(layout->order.size(), count);
    total += peakOf(*layout, sizes);
    best += liveBytes(lifetimes, sizes);
    for (int other = 0; other < 10; ++other) {
      Sizes offsets = offsetsOf(*layout, sizes);
      for (size_t i = 0; i < count; ++i)
        for (size_t j = 0; j < i; ++j)
          ASSERT_TRUE(!lifetimes[i].overlaps(lifetimes[j]) ||
                      offsets[i] + sizes[i] <= offsets[j] ||
                      offsets[j] + sizes[j] <= offsets[i])
              << "round " << round << ", buffers " << i << " and " << j;
      for (int64_t &size : sizes)
        size = random() % 3 == 0 ? 0 : random() % 100000;
    }
  }
  // Close to what no layout beats.
  EXPECT_GE(total, best);
  EXPECT_LE(total, 1.05 * best);
}
