//===- parallel_replicated_test.cpp - Ranks that have the same tokens -----===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "parallel/faulty_engine.h"

#include <algorithm>
#include <chrono>

using namespace moe::test;

namespace {

moe_rt_group_options_t replicated(double seconds, moe_rt_way_t way) {
  return {sizeof(moe_rt_group_options_t), seconds, 0, 0, way,
          MOE_RT_TOKENS_REPLICATED};
}

constexpr moe_rt_way_t allWays[] = {MOE_RT_WAY_ALL_TO_ALL, MOE_RT_WAY_PEER,
                                    MOE_RT_WAY_ALL_GATHER};

TEST(ParallelReplicated, HasTheResultsOfAllTokens) {
  for (moe_rt_way_t way : allWays)
    for (int32_t ranks : {1, 2, 3, 4})
      for (int64_t tokens : {0, 1, 11}) {
        Problem problem(5, std::max<int64_t>(tokens, 1));
        runRanks(ranks, [&](int32_t, moe_rt_communicator_t communicator) {
          moe_rt_group_options_t options = replicated(20, way);
          Rank rank(&communicator, &options);
          ASSERT_EQ(rank.created.code, MOE_RT_OK) << rank.created.message;
          ASSERT_OK(rank.load({}));
          ASSERT_OK(rank.create(problem, nullptr));
          for (int i = 0; i < 2; ++i) {
            std::vector<float> y;
            ASSERT_OK(rank.call(problem, 0, tokens, y));
            ASSERT_EQ(y.size(), static_cast<size_t>(tokens * H));
            EXPECT_TRUE(
                std::equal(y.begin(), y.end(), problem.expected().begin()));
          }
          moe_rt_exchange_statistics_t statistics;
          ASSERT_OK(moe_rt_layer_exchange_statistics(rank.layer, &statistics));
          EXPECT_EQ(statistics.way, ranks == 1 ? MOE_RT_WAY_ALL_TO_ALL : way);
        });
      }
}

TEST(ParallelReplicated, EndsAtEachFailureOfTheEngine) {
  Problem problem(1, 9);
  for (moe_rt_way_t way : allWays)
    for (Failure failure : {Failure::start, Failure::test, Failure::silent}) {
      // The collectives of the group, the layer and two calls.
      int64_t steps = 1;
      for (int64_t at = 0; at <= steps; ++at)
        runRanks(3, [&](int32_t r, const moe_rt_communicator_t &communicator) {
          const bool isBad = r == 1 && at > 0;
          FaultyEngine engine(communicator, static_cast<unsigned>(r),
                              isBad ? failure : Failure::none, at - 1);
          moe_rt_communicator_t faulty = engine.communicator();
          moe_rt_group_options_t options =
              replicated(at > 0 && failure == Failure::silent ? 0.1 : 20, way);
          const auto begin = std::chrono::steady_clock::now();
          Rank rank(&faulty, &options);
          Result result = rank.created;
          if (result.code == MOE_RT_OK) {
            ASSERT_OK(rank.load({}));
            result = Result(rank.create(problem, nullptr));
          }
          for (int i = 0; i < 2 && result.code == MOE_RT_OK; ++i) {
            std::vector<float> y;
            result = Result(rank.call(problem, 0, 9, y));
            if (result.code == MOE_RT_OK) {
              EXPECT_TRUE(
                  std::equal(y.begin(), y.end(), problem.expected().begin()));
            }
          }
          const std::chrono::duration<double> waited =
              std::chrono::steady_clock::now() - begin;
          EXPECT_LT(waited.count(), 5) << at;
          if (at == 0) {
            EXPECT_EQ(result.code, MOE_RT_OK) << result.message;
            if (r == 1)
              steps = engine.started();
            return;
          }
          // Who ends the last exchange before the failure has no error.
          if (!isBad && result.code == MOE_RT_OK)
            return;
          expectGroupIsDead(result, failure, at);
        });
      EXPECT_EQ(steps, way == MOE_RT_WAY_PEER ? 15 : 14);
    }
}

/// What a layer says that it needs is enough where slices differ, and all
/// tokens go to all ranks.
TEST(ParallelReplicated, StaysWithinTheLimitOfMemory) {
  Problem problem(3, 4);
  // Each token has an expert on each rank.
  for (size_t i = 0; i < problem.ids.data.size(); ++i)
    problem.ids.data[i] = static_cast<int32_t>(i % 3 * 3);
  for (moe_rt_way_t way : {MOE_RT_WAY_ALL_TO_ALL, MOE_RT_WAY_ALL_GATHER})
    runRanks(3, [&](int32_t, const moe_rt_communicator_t &communicator) {
      moe_rt_group_options_t options = replicated(20, way);
      for (uint64_t limit : {uint64_t(0), uint64_t(1)}) {
        Rank rank(&communicator, &options);
        ASSERT_OK(rank.load({}));
        ASSERT_OK(rank.create(problem, nullptr));
        std::vector<float> y;
        ASSERT_OK(rank.call(problem, 0, 4, y));
        EXPECT_TRUE(std::equal(y.begin(), y.end(), problem.expected().begin()));
        moe_rt_exchange_statistics_t statistics;
        ASSERT_OK(moe_rt_layer_exchange_statistics(rank.layer, &statistics));
        EXPECT_EQ(statistics.rounds, 1) << limit;
        ASSERT_OK(
            moe_rt_layer_workspace_bytes(rank.layer, 4, &options.memory_limit));
      }
    });
}

/// A rank that cannot call lets the others know, who do not wait for its part
/// of the results.
TEST(ParallelReplicated, RefusesOtherTokensAndGoesOn) {
  Problem problem(2, 8);
  runRanks(2, [&](int32_t r, const moe_rt_communicator_t &communicator) {
    moe_rt_group_options_t options = replicated(20, MOE_RT_WAY_ALL_TO_ALL);
    Rank rank(&communicator, &options);
    ASSERT_OK(rank.load({}));
    ASSERT_OK(rank.create(problem, nullptr));
    std::vector<float> y;
    EXPECT_ERROR(rank.call(problem, 0, 8 - r, y), MOE_RT_INVALID_ARGUMENT,
                 "rank 1 has tokens 7, rank 0 has 8, expected the same on all "
                 "ranks");
    ASSERT_OK(rank.call(problem, 0, 8, y));
    EXPECT_TRUE(std::equal(y.begin(), y.end(), problem.expected().begin()));
  });
}

} // namespace
