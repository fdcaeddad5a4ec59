//===- ContractModelTest.cpp - Contractions and loops ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Analysis/KernelModel.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/MLIRContext.h"

#include "gtest/gtest.h"

using namespace mlir;
using namespace mlir::moe;

namespace {

struct ContractModel : testing::Test {
  ContractModel() { context.loadDialect<MoEDialect>(); }

  /// Gradients of the weights of 128 experts, H 2048, I 768.
  ContractWork work() {
    ContractWork work;
    work.experts = 128;
    work.k = 768;
    work.n = 2048;
    work.tileK = 128;
    work.tileN = 256;
    work.gathers = 1;
    work.rows = work.result = BFloat16Type::get(&context);
    return work;
  }

  MLIRContext context;
  GPUMachine h100 = *findGPU("h100-sxm");
  RowCounts rows = {262144, 128, 262144};
};

TEST_F(ContractModel, Attribute) {
  ContractWork made = work();
  made.accumulate = true;
  made.unit = MatrixUnit::MmaSync;
  DictionaryAttr attr = made.toAttr();
  auto read = ContractWork::fromAttr(attr);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->toAttr(), attr);
  EXPECT_TRUE(read->accumulate && read->grouped && !read->elements);
  EXPECT_FALSE(GroupedMatmulWork::fromAttr(attr));
  EXPECT_FALSE(MemoryWork::fromAttr(attr));
  EXPECT_FALSE(RouterWork::fromAttr(attr));
  EXPECT_FALSE(ScatterWork::fromAttr(attr));
  NamedAttrList entries(attr);
  entries.erase("tile_k");
  EXPECT_FALSE(ContractWork::fromAttr(entries.getDictionary(&context)));
}

TEST_F(ContractModel, Products) {
  KernelPrediction predicted = work().predict(h100, rows);
  // 6 · 8 tiles of an expert, each with 32 steps of 64 rows.
  EXPECT_EQ(predicted.waves, 47);
  EXPECT_EQ(predicted.cacheBytes, 48. * 262144 / 64 * (128 + 256) * 64 * 2);
  EXPECT_EQ(predicted.memoryBytes,
            262144. * (768 + 2048) * 2 + 128. * 768 * 2048 * 2);
  double flops = 2. * 262144 * 768 * 2048;
  EXPECT_LT(flops / predicted.seconds, h100.rates.bf16);
  EXPECT_GT(flops / predicted.seconds, 0.4 * h100.rates.bf16);
  // Adding reads the matrices, too; f32 has twice the bytes.
  ContractWork sum = work();
  sum.accumulate = true;
  sum.result = Float32Type::get(&context);
  EXPECT_EQ(sum.predict(h100, rows).memoryBytes - predicted.memoryBytes,
            128. * 768 * 2048 * 6);
  EXPECT_GT(sum.predict(h100, rows).seconds, predicted.seconds);
}

/// Without rows the matrices are cleared.
TEST_F(ContractModel, NoRows) {
  KernelPrediction predicted = work().predict(h100, {});
  EXPECT_EQ(predicted.memoryBytes, 128. * 768 * 2048 * 2);
  EXPECT_EQ(predicted.tensor, 0);
  EXPECT_GE(predicted.seconds, startSeconds + predicted.memory);
}

/// Tensor cores do more than threads.
TEST_F(ContractModel, Elements) {
  ContractWork slow = work();
  slow.elements = true;
  slow.tileK = slow.tileN = 1;
  EXPECT_GT(slow.predict(h100, rows).seconds,
            10 * work().predict(h100, rows).seconds);
}

TEST_F(ContractModel, Loops) {
  // A copy is as fast as its bytes.
  LoopWork copy;
  copy.iterations = 1e8;
  copy.instructions = 8e8;
  copy.readBytes = copy.writtenBytes = 4e8;
  copy.memoryBytes = 8e8;
  KernelPrediction predicted = copy.predict(h100);
  EXPECT_EQ(predicted.bound(), "memory");
  EXPECT_EQ(predicted.seconds, startSeconds + predicted.memory);
  // Sums in memory wait for each other.
  LoopWork sums = copy;
  sums.chain = 1000;
  EXPECT_GT(sums.predict(h100).seconds, predicted.seconds);
  EXPECT_EQ(sums.predict(h100).bound(), "its instructions");
}

/// Launches with a grid of no blocks do not run; those of which nothing is
/// known are counted.
TEST_F(ContractModel, Launches) {
  ContractWork ofNoRows = work();
  ofNoRows.elements = true;
  auto rowsOfTokens = [](int64_t tokens) -> std::optional<int64_t> {
    return 8 * tokens;
  };
  std::vector<LaunchWork> launches(4);
  launches[0].kernel = "contract";
  launches[0].work = work().toAttr();
  launches[0].rows = rowsOfTokens;
  launches[1].kernel = "no rows";
  launches[1].work = ofNoRows.toAttr();
  launches[1].blocks = [](int64_t tokens) { return tokens == 0 ? 8 : 0; };
  launches[2].kernel = "loop";
  launches[2].loop = [](int64_t tokens) {
    LoopWork loop;
    loop.iterations = double(tokens);
    return loop;
  };
  launches[3].kernel = "other";
  auto namesAt = [&](int64_t tokens, const RowsOfExperts &model) {
    std::string names;
    int64_t unknown = 0;
    for (const PredictedLaunch &each :
         predictLaunches(launches, h100, {}, {}, tokens, model, &unknown))
      names += each.kernel + ", ";
    return names + std::to_string(unknown);
  };
  auto uniform = [](int64_t experts, int64_t topK) {
    EXPECT_EQ(topK, 8);
    return std::optional(RowDistribution(
        topK, std::vector<double>(experts, double(topK) / double(experts)),
        1e-6));
  };
  EXPECT_EQ(namesAt(32768, uniform), "contract, loop, 1");
  EXPECT_EQ(namesAt(32768, nullptr), "loop, 2");
}

} // namespace
