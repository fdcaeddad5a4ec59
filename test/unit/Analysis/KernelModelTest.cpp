//===- KernelModelTest.cpp - How long kernels of a GPU should take --------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Analysis/KernelModel.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/MLIRContext.h"

#include "gtest/gtest.h"
#include <cmath>

using namespace mlir;
using namespace mlir::moe;

namespace {

struct KernelModel : testing::Test {
  KernelModel() { context.loadDialect<MoEDialect>(); }

  TileAttr wgmma(int64_t rows, int64_t columns, bool swapAB = false,
                 int64_t split = 1, WarpRoles roles = WarpRoles::Cooperative) {
    return TileAttr::get(&context, MatrixUnit::Wgmma, rows, columns, 64, 4,
                         roles, swapAB, split, GatherFence::Producer);
  }

  /// Gate and up of a layer of 128 experts, H 4096, I 512.
  GroupedMatmulWork work(TileAttr tile, int64_t index = 0) {
    Type bf16 = BFloat16Type::get(&context);
    GroupedMatmulWork work;
    work.index = index;
    work.tile = tile;
    work.experts = 128;
    work.n = 512;
    work.k = 4096;
    work.accumulators = 2;
    work.lhs = work.weights = work.result = bf16;
    work.instructions = 20;
    return work;
  }

  MLIRContext context;
  GPUMachine h100 = *findGPU("h100-sxm");
};

/// The peak of tensor cores is a power of two of operations for a clock of a
/// multiprocessor.
TEST_F(KernelModel, Machines) {
  for (StringRef name : listGPUs()) {
    GPUMachine gpu = *findGPU(name);
    double perClock = gpu.rates.f16 / (double(gpu.multiprocessors) * gpu.hertz);
    double power = std::exp2(std::round(std::log2(perClock)));
    EXPECT_NEAR(perClock / power, 1, 0.005) << name.str();
    EXPECT_EQ(gpu.rates.name, findGPURates(name)->name);
  }
  EXPECT_TRUE(findGPU("sm_90a")->hasWgmma);
  EXPECT_FALSE(findGPU("b200")->hasWgmma);
  EXPECT_FALSE(findGPU("sm_70"));
}

TEST_F(KernelModel, Attribute) {
  DictionaryAttr attr = work(wgmma(128, 256), 3).toAttr();
  auto read = GroupedMatmulWork::fromAttr(attr);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->toAttr(), attr);
  EXPECT_EQ(read->index, 3);
  EXPECT_FALSE(MemoryWork::fromAttr(attr));
  DictionaryAttr memory = MemoryWork{1, 2, 3}.toAttr(&context);
  EXPECT_EQ(MemoryWork::fromAttr(memory)->bytesPerRow, 3);
  EXPECT_FALSE(GroupedMatmulWork::fromAttr(memory));
  // Incomplete, or no products.
  Builder b(&context);
  NamedAttrList entries(attr);
  entries.erase("k");
  EXPECT_FALSE(GroupedMatmulWork::fromAttr(b.getDictionaryAttr(entries)));
  entries.set("k", b.getI64IntegerAttr(0));
  EXPECT_FALSE(GroupedMatmulWork::fromAttr(b.getDictionaryAttr(entries)));
}

/// All experts once: the time of their weights in memory.
TEST_F(KernelModel, FewRows) {
  KernelPrediction predicted =
      work(wgmma(8, 128, true)).predict(h100, {128, 128, 1024});
  EXPECT_EQ(predicted.bound(), "memory");
  double weights = 128. * 4096 * 1024 * 2, rows = 128 * (4096. + 512) * 2;
  EXPECT_EQ(predicted.memoryBytes, weights + rows);
  EXPECT_GT(predicted.seconds, weights / 3.35e12);
  EXPECT_LT(predicted.seconds, 1.2 * weights / 3.35e12);
  // More memory bandwidth, less time.
  EXPECT_LT(work(wgmma(8, 128, true))
                .predict(*findGPU("h200"), {128, 128, 1024})
                .seconds,
            0.8 * predicted.seconds);
}

/// One expert with a row: a few tiles, each of which takes as long as k.
TEST_F(KernelModel, SplitK) {
  RowCounts one = {1, 1, 8};
  KernelPrediction whole = work(wgmma(8, 128, true)).predict(h100, one),
                   split = work(wgmma(8, 128, true, 4)).predict(h100, one);
  EXPECT_EQ(whole.waves, 1);
  EXPECT_EQ(split.waves, 1);
  EXPECT_LT(split.seconds, whole.seconds);
  EXPECT_EQ(split.cacheBytes, whole.cacheBytes);
  EXPECT_EQ(work(wgmma(8, 128, true)).predict(h100, {}).bound(), "its start");
}

TEST_F(KernelModel, ManyRows) {
  RowCounts many = {262144, 128, 262144 + 128 * 64};
  KernelPrediction predicted = work(wgmma(128, 256)).predict(h100, many);
  // 384 rows and columns of 128 bytes, for each of 64 steps of the tiles.
  EXPECT_EQ(predicted.cacheBytes, (2048. + 64) * 4 * 64 * 384 * 128);
  double flops = 2. * 262144 * 4096 * 1024;
  EXPECT_LT(flops / predicted.seconds, h100.rates.bf16);
  EXPECT_GT(flops / predicted.seconds, 0.4 * h100.rates.bf16);
  // A warpgroup's epilogue runs beside the products of the other.
  GroupedMatmulWork slow = work(wgmma(128, 256));
  slow.k = 128;
  slow.instructions = 100;
  GroupedMatmulWork pingPong = slow;
  pingPong.tile = wgmma(128, 256, false, 1, WarpRoles::PingPong);
  EXPECT_EQ(slow.predict(h100, many).bound(), "its epilogue");
  EXPECT_LT(pingPong.predict(h100, many).seconds,
            0.7 * slow.predict(h100, many).seconds);
  // Twice the work takes about twice as long.
  RowCounts twice = {524288, 128, 524288 + 128 * 64};
  EXPECT_NEAR(work(wgmma(128, 256)).predict(h100, twice).seconds /
                  predicted.seconds,
              1.97, 0.03);
}

/// The blocks of a cluster read one operand from the L2 cache once for both.
TEST_F(KernelModel, Multicast) {
  GroupedMatmulWork alone = work(wgmma(128, 256)), weights = alone,
                    rows = alone;
  weights.multicast = Multicast::Weights;
  rows.multicast = Multicast::Rows;
  EXPECT_EQ(GroupedMatmulWork::fromAttr(rows.toAttr())->multicast,
            Multicast::Rows);
  RowCounts many = {262144, 128, 262144};
  double steps = 2048. * 4 * 64;
  EXPECT_EQ(alone.predict(h100, many).cacheBytes, steps * (128 + 256) * 128);
  EXPECT_EQ(weights.predict(h100, many).cacheBytes, steps * (128 + 128) * 128);
  EXPECT_EQ(rows.predict(h100, many).cacheBytes, steps * (64 + 256) * 128);
  EXPECT_LT(rows.predict(h100, many).seconds,
            alone.predict(h100, many).seconds);
  EXPECT_LT(weights.predict(h100, many).seconds,
            alone.predict(h100, many).seconds);
  // A pair of tiles for each expert, of which one is empty, takes longer.
  EXPECT_EQ(scheduledRows(alone.tile, Multicast::Weights), 256);
  EXPECT_GT(weights.predict(h100, {16384, 128, 128 * 256}).cache,
            alone.predict(h100, {16384, 128, 128 * 128}).cache);
}

/// Sums of the rows of tokens run beside the products as far as these leave
/// bandwidth, and when the last expert of a token has been computed.
TEST_F(KernelModel, CombinedRows) {
  GroupedMatmulWork down = work(wgmma(128, 192, false, 1, WarpRoles::PingPong));
  down.n = 4096;
  down.k = 512;
  down.accumulators = 1;
  RowCounts rows = {262144, 128, 262144 + 128 * 64};
  MemoryWork sum;
  sum.bytesPerRow = sum.bytesPerToken = 4096 * 2;
  auto predict = [&](int64_t choices) {
    GroupedMatmulWork fused = down;
    fused.combined = choices;
    EXPECT_EQ(GroupedMatmulWork::fromAttr(fused.toAttr())->combined, choices);
    return fused.predict(h100, rows);
  };
  KernelPrediction apart = predict(0), sums = sum.predict(h100, 32768, rows);
  KernelPrediction together = predict(8);
  // Two passes over the experts read their weights twice.
  double weights = 128.0 * down.k * down.n * 2;
  EXPECT_EQ(together.memoryBytes,
            apart.memoryBytes + sums.memoryBytes + weights);
  EXPECT_LT(together.seconds, apart.seconds + sums.seconds);
  EXPECT_GT(together.seconds, apart.seconds);
  // The fewer experts a token has, the earlier its sum begins.
  double eight = together.seconds - predict(8).memory;
  double two = predict(2).seconds - predict(2).memory;
  EXPECT_LT(two, eight);
  // Nothing is faster than its bytes.
  rows.padded = rows.total;
  h100.rates.bandwidth /= 8;
  together = predict(8);
  EXPECT_GE(together.seconds, startSeconds + together.memory);
}

/// A router reads its weights once for each tile of a block.
TEST_F(KernelModel, Routers) {
  auto router = [&](int64_t tile, int64_t cluster) {
    RouterWork work;
    work.experts = 128;
    work.k = 4096;
    work.choices = 8;
    work.tile = tile;
    work.cluster = cluster;
    work.whole = tile == 64;
    work.x = work.weights = BFloat16Type::get(&context);
    return work;
  };
  DictionaryAttr attr = router(64, 8).toAttr();
  EXPECT_EQ(RouterWork::fromAttr(attr)->toAttr(), attr);
  EXPECT_FALSE(GroupedMatmulWork::fromAttr(attr));
  EXPECT_FALSE(MemoryWork::fromAttr(attr));
  EXPECT_FALSE(ScatterWork::fromAttr(attr));
  DictionaryAttr scatter = ScatterWork{8, 128, 0}.toAttr(&context);
  EXPECT_EQ(ScatterWork::fromAttr(scatter)->toAttr(&context), scatter);
  EXPECT_FALSE(RouterWork::fromAttr(scatter));

  RouterWork kernels[] = {router(16, 8), router(32, 1), router(64, 8)};
  auto chosen = [&](int64_t tokens) {
    ChosenRouter its = ChosenRouter::of(kernels, h100, tokens);
    return std::make_pair(its.index, its.tokensOfBlock);
  };
  auto is = [](size_t index, int64_t tokens) {
    return std::make_pair(index, tokens);
  };
  EXPECT_EQ(chosen(1), is(0, 16));
  EXPECT_EQ(chosen(16), is(0, 16));
  EXPECT_EQ(chosen(17), is(2, 64));
  EXPECT_EQ(chosen(64), is(2, 64));
  EXPECT_EQ(chosen(65), is(0, 16));
  EXPECT_EQ(chosen(16 * 16), is(0, 16)); // 16 clusters of eight, 132 blocks
  EXPECT_EQ(chosen(16 * 16 + 1), is(1, 32));
  EXPECT_EQ(chosen(32768), is(1, 256));

  KernelPrediction many = kernels[1].predict(h100, 32768);
  EXPECT_EQ(many.waves, 8);
  EXPECT_EQ(many.cacheBytes, 1024. * (32 + 128) * 4096 * 2);
  EXPECT_EQ(many.bound(), "the L2 cache");
  // A staged kernel reads them once for 128 tokens, and has more than a wave.
  RouterWork staged = router(128, 1);
  staged.staged = true;
  EXPECT_TRUE(RouterWork::fromAttr(staged.toAttr())->staged);
  RouterWork more[] = {kernels[0], kernels[1], staged, kernels[2]};
  auto chosenOf = [&](int64_t tokens) {
    ChosenRouter its = ChosenRouter::of(more, h100, tokens);
    return std::make_pair(its.index, its.tokensOfBlock);
  };
  EXPECT_EQ(chosenOf(16), is(0, 16));
  EXPECT_EQ(chosenOf(64), is(3, 64));
  EXPECT_EQ(chosenOf(132 * 32), is(1, 32));
  EXPECT_EQ(chosenOf(132 * 32 + 1), is(2, 64));
  EXPECT_EQ(chosenOf(32768), is(2, 256));
  KernelPrediction once = staged.predict(h100, 32768);
  EXPECT_EQ(once.waves, 2);
  EXPECT_EQ(once.cacheBytes, 256. * (128 + 128) * 4096 * 2);
  EXPECT_EQ(once.bound(), "memory");
  // 160 tokens of a block are two tiles of 80.
  EXPECT_EQ(staged.predict(h100, 132 * 160).cacheBytes,
            264. * (80 + 128) * 4096 * 2);
  // Tokens are read again for more experts.
  staged.experts = 256;
  EXPECT_EQ(staged.predict(h100, 32768).cacheBytes,
            256. * (2 * 128 + 256) * 4096 * 2);

  RouterWork plain = kernels[1];
  plain.tensorCores = false;
  EXPECT_EQ(plain.predict(h100, 32768).bound(), "its instructions");
  // A cluster has an eighth of the weights in each block.
  EXPECT_EQ(kernels[0].predict(h100, 1).cacheBytes,
            8. * (16 + 128 / 8) * 4096 * 2);
}

/// The launches of routing that run; all but the first may begin early.
TEST_F(KernelModel, RoutingLaunches) {
  RouterWork few, many;
  few.x = few.weights = many.x = many.weights = BFloat16Type::get(&context);
  few.cluster = 8;
  many.tile = 32;
  MemoryWork sum;
  sum.bytesPerToken = 64;
  sum.minTokens = 65;
  std::vector<LaunchWork> launches = {
      {"few", few.toAttr()},
      {"many", many.toAttr(), true},
      {"scatter", ScatterWork{2, 8, 0}.toAttr(&context), true},
      {"sum", sum.toAttr(&context), true}};
  auto namesAt = [&](int64_t tokens) {
    std::string names;
    for (const PredictedLaunch &each :
         predictLaunches(launches, h100, {}, {}, tokens)) {
      names += each.kernel + " ";
      EXPECT_EQ(each.predicted.start, names == each.kernel + " "
                                          ? startSeconds
                                          : overlappedStartSeconds);
    }
    return names;
  };
  EXPECT_EQ(namesAt(16), "few ");
  EXPECT_EQ(namesAt(17), "few scatter ");
  EXPECT_EQ(namesAt(65), "few scatter sum ");
  EXPECT_EQ(namesAt(4096), "many scatter sum ");
}

/// Without a dispatch the rows are the tokens.
TEST_F(KernelModel, Launches) {
  auto launchesOf = [&](bool grouped) {
    std::vector<LaunchWork> launches = {{"other", {}}};
    int64_t index = 0;
    for (TileAttr tile : {wgmma(8, 128, true, 4), wgmma(8, 128, true),
                          wgmma(64, 128, true), wgmma(128, 256)}) {
      GroupedMatmulWork of = work(tile, index++);
      of.grouped = grouped;
      of.experts = 1;
      launches.push_back({"tile" + std::to_string(index), of.toAttr()});
    }
    launches.push_back({"sum", MemoryWork{0, 64, 0}.toAttr(&context)});
    return launches;
  };
  auto namesAt = [&](int64_t tokens, bool grouped = false) {
    std::string names;
    for (const PredictedLaunch &each :
         predictLaunches(launchesOf(grouped), h100, {}, {}, tokens))
      names += each.kernel + " ";
    return names;
  };
  EXPECT_EQ(namesAt(1), "tile1 sum ");
  EXPECT_EQ(namesAt(64), "tile3 sum ");
  EXPECT_EQ(namesAt(65), "tile4 sum ");
  // Clusters that are not all resident do not run.
  h100.multiprocessors = 2;
  EXPECT_EQ(namesAt(1), "tile2 sum ");
}

} // namespace
