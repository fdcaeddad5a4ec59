//===- parallel_move_test.cpp - Experts that move between ranks -----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "parallel/faulty_engine.h"

#include <algorithm>
#include <chrono>
#include <numeric>

using namespace moe::test;

namespace {

using Table = std::vector<int32_t>;
constexpr int32_t ranks = 3;
constexpr int64_t slots = 4;

moe_rt_status_t move(Rank &rank, Table table) {
  std::vector<int64_t> shape = {ranks, slots};
  DLTensor given = tableTensor(table, shape);
  return moe_rt_layer_move(rank.layer, &given);
}

/// Experts in any order, some of them twice.
Table drawTable(unsigned seed) {
  std::mt19937 generator(seed);
  std::vector<int32_t> experts(E);
  std::iota(experts.begin(), experts.end(), 0);
  std::shuffle(experts.begin(), experts.end(), generator);
  Table table(ranks * slots, -1);
  auto has = [&](size_t rank, int32_t expert) {
    return std::count(table.begin() + static_cast<ptrdiff_t>(rank * slots),
                      table.begin() +
                          static_cast<ptrdiff_t>((rank + 1) * slots),
                      expert) > 0;
  };
  for (size_t i = 0; i < table.size(); ++i) {
    size_t place = i % ranks * slots + i / ranks;
    if (i < E)
      table[place] = experts[i];
    else if (int32_t copy = experts[generator() % E]; !has(i % ranks, copy))
      table[place] = copy;
  }
  for (size_t r = 0; r < ranks; ++r)
    std::shuffle(table.begin() + static_cast<ptrdiff_t>(r * slots),
                 table.begin() + static_cast<ptrdiff_t>((r + 1) * slots),
                 generator);
  return table;
}

/// Experts that rank `r` has in one table only.
int64_t countNew(const Table &from, const Table &to, int32_t r) {
  int64_t count = 0;
  auto begin = from.begin() + r * slots;
  for (int64_t s = 0; s < slots; ++s) {
    int32_t expert = to[static_cast<size_t>(r * slots + s)];
    count +=
        expert >= 0 && std::find(begin, begin + slots, expert) == begin + slots;
  }
  return count;
}

void expectResult(Rank &rank, Problem &problem, int32_t r) {
  std::vector<float> y;
  ASSERT_OK(rank.call(problem, 4 * r, 4 * r + 4, y));
  EXPECT_TRUE(
      std::equal(y.begin(), y.end(), problem.expected().begin() + 4 * r * H));
}

/// Ranks of a late engine whose layer has the default table; `body` is given
/// the rank.
void runLayer(Problem &problem, double deadline, uint64_t limit,
              const std::function<void(int32_t, Rank &)> &body) {
  runRanks(ranks, [&](int32_t r, const moe_rt_communicator_t &communicator) {
    FaultyEngine engine(communicator, static_cast<unsigned>(r));
    moe_rt_communicator_t late = engine.communicator();
    moe_rt_group_options_t options = {
        sizeof(options), deadline, limit, 0, 0, 0};
    Rank rank(&late, &options);
    LayerOptions layer;
    layer.slots = slots;
    ASSERT_OK(rank.load(layer));
    ASSERT_OK(rank.create(problem, nullptr));
    body(r, rank);
  });
}

const Table neighbours = {0, 1, 2, -1, 3, 4, 5, -1, 6, 7, -1, -1};

TEST(ParallelMove, HasTheResultsOfALayerWithTheTable) {
  Problem problem(3, 12);
  runLayer(problem, 20, 0, [&](int32_t r, Rank &rank) {
    Table before = neighbours;
    for (unsigned seed = 0; seed < 12; ++seed) {
      Table table = seed % 4 == 3 ? neighbours : drawTable(seed);
      // The default table needs no name.
      ASSERT_OK(seed % 4 == 3 ? moe_rt_layer_move(rank.layer, nullptr)
                              : move(rank, table));
      moe_rt_exchange_statistics_t moved;
      ASSERT_OK(moe_rt_layer_exchange_statistics(rank.layer, &moved));
      int64_t taken = countNew(before, table, r);
      EXPECT_EQ(moved.rows_received, taken);
      EXPECT_EQ(moved.bytes_received,
                static_cast<uint64_t>(taken) * (H * H + H) * sizeof(float));
      expectResult(rank, problem, r);
      before = table;
    }
    // Nothing moves.
    ASSERT_OK(move(rank, before));
    expectResult(rank, problem, r);
  });
}

TEST(ParallelMove, LeavesWhatIsReadInPlace) {
  Problem problem(3, 12);
  const std::vector<float> up = problem.up.data, bias = problem.bias.data;
  runRanks(2, [&](int32_t r, const moe_rt_communicator_t &communicator) {
    Rank rank(&communicator);
    LayerOptions layer;
    layer.slots = slots;
    ASSERT_OK(rank.load(layer));
    ASSERT_OK(rank.create(problem, nullptr));
    EXPECT_EQ(moe_rt_layer_weight_bytes(rank.layer), 0u);
    Table table = {0, 2, 4, 6, 1, 3, 5, 7};
    std::vector<int64_t> shape = {2, slots};
    DLTensor given = tableTensor(table, shape);
    ASSERT_OK(moe_rt_layer_move(rank.layer, &given));
    EXPECT_EQ(moe_rt_layer_weight_bytes(rank.layer),
              static_cast<uint64_t>(slots * (H * H + H) * 4));
    expectResult(rank, problem, r);
    ASSERT_OK(moe_rt_layer_move(rank.layer, nullptr));
    expectResult(rank, problem, r);
  });
  EXPECT_EQ(problem.up.data, up) << "the caller's weights stay as they are";
  EXPECT_EQ(problem.bias.data, bias);
}

TEST(ParallelMove, WorksOnOneRank) {
  Problem problem(3, 12);
  Rank rank(nullptr);
  ASSERT_OK(rank.load({}));
  ASSERT_OK(rank.create(problem, nullptr));
  ASSERT_OK(moe_rt_layer_move(rank.layer, nullptr));
  expectResult(rank, problem, 0);
  EXPECT_ERROR(moe_rt_layer_move(nullptr, nullptr), MOE_RT_INVALID_ARGUMENT,
               "moe_rt_layer_move: 'layer' is NULL");
}

TEST(ParallelMove, RefusesATableOnAllRanks) {
  Problem problem(3, 12);
  const struct {
    size_t place;
    int32_t expert;
    const char *message;
  } cases[] = {{3, 0, "expert 0 twice on rank 0"},
               {5, -1, "expert 4 on no rank"},
               {3, 8, "has 8 in slot 3 of rank 0, expected 0 to 7 or -1"}};
  runLayer(problem, 20, 0, [&](int32_t r, Rank &rank) {
    for (const auto &each : cases)
      for (bool isOfAll : {true, false}) {
        Table table = neighbours;
        if (isOfAll || r == 1)
          table[each.place] = each.expert;
        const char *message =
            isOfAll || r == 1 ? each.message : "rank 1 failed with code 3";
        EXPECT_ERROR(move(rank, table), MOE_RT_INVALID_ARGUMENT, message);
        expectResult(rank, problem, r);
      }
    // Right ones that differ, and a rank that calls instead.
    EXPECT_ERROR(move(rank, drawTable(r == 2 ? 8 : 9)), MOE_RT_INVALID_ARGUMENT,
                 "rank 2 has a table of experts with hash");
    expectResult(rank, problem, r);
    std::vector<float> y;
    EXPECT_ERROR(r == 2 ? rank.call(problem, 0, 1, y)
                        : move(rank, drawTable(9)),
                 MOE_RT_INVALID_ARGUMENT,
                 "rank 2 calls a layer while rank 0 moves the experts");
    expectResult(rank, problem, r);
    ASSERT_OK(move(rank, drawTable(9)));
    expectResult(rank, problem, r);
  });
}

TEST(ParallelMove, KeepsToTheLimitOfMemory) {
  Problem problem(3, 12);
  // Of an expert 100 bytes are the largest array; calls take more.
  runLayer(problem, 20, 3000, [&](int32_t r, Rank &rank) {
    ASSERT_OK(move(rank, drawTable(9)));
    expectResult(rank, problem, r);
  });
  runRanks(ranks, [&](int32_t r, const moe_rt_communicator_t &communicator) {
    moe_rt_group_options_t options = {
        sizeof(options), 20, r == 1 ? 150u : 0u, 0, 0, 0};
    Rank rank(&communicator, &options);
    LayerOptions layer;
    layer.slots = slots;
    ASSERT_OK(rank.load(layer));
    ASSERT_OK(rank.create(problem, nullptr));
    Result result(move(rank, drawTable(9)));
    EXPECT_EQ(result.code,
              r == 1 ? MOE_RT_RESOURCE_EXHAUSTED : MOE_RT_INVALID_ARGUMENT);
    EXPECT_NE(result.message.find(
                  r == 1 ? "experts of up to 100 bytes an array needs more "
                           "memory than the group's limit of 150 bytes"
                         : "rank 1 failed with code 8"),
              std::string::npos)
        << result.message;
    EXPECT_OK(moe_rt_group_status(rank.group));
  });
}

TEST(ParallelMove, CopiesWeightsWhenTheRanksHaveAgreed) {
  Problem problem(9, 10);
  runRanks(2, [&](int32_t r, const moe_rt_communicator_t &communicator) {
    Rank rank(&communicator);
    LayerOptions layer;
    layer.slots = slots;
    ASSERT_OK(rank.load(layer));
    ASSERT_OK(rank.create(problem, nullptr));
    auto moveTo = [&](std::vector<int32_t> table) {
      std::vector<int64_t> shape = {2, slots};
      DLTensor given = tableTensor(table, shape);
      return moe_rt_layer_move(rank.layer, &given);
    };
    auto expectRight = [&] {
      std::vector<float> y;
      ASSERT_OK(rank.call(problem, r * 5, r * 5 + 5, y));
      EXPECT_TRUE(std::equal(y.begin(), y.end(),
                             problem.expected().begin() + r * 5 * H));
    };
    // Weights are the caller's, and stay so where another rank is wrong.
    EXPECT_EQ(moe_rt_layer_weight_bytes(rank.layer), 0u);
    EXPECT_ERROR(moveTo({4, 1, 2, 3, r == 1 ? 9 : 0, 5, 6, 7}),
                 MOE_RT_INVALID_ARGUMENT, "rank 1");
    EXPECT_EQ(moe_rt_layer_weight_bytes(rank.layer), 0u);
    expectRight();
    // No expert comes to rank 0.
    ASSERT_OK(moveTo({0, 1, 2, 3, 5, 4, 6, 7}));
    EXPECT_EQ(moe_rt_layer_weight_bytes(rank.layer) == 0, r == 0);
    expectRight();
    std::vector<float> before = problem.up.data;
    ASSERT_OK(moveTo({4, 1, 2, 3, 0, 5, 6, 7}));
    EXPECT_GT(moe_rt_layer_weight_bytes(rank.layer), 0u);
    expectRight();
    EXPECT_EQ(problem.up.data, before);
  });
}

TEST(ParallelMove, EndsAtEachFailureOfTheEngine) {
  Problem problem(1, 12);
  for (Failure failure : {Failure::start, Failure::test, Failure::silent})
    // After the group and the layer (twice): the agreement, two weights, and
    // the end.
    for (int64_t at = 3; at <= 7; ++at)
      runRanks(ranks, [&](int32_t r, const moe_rt_communicator_t &inner) {
        bool isBad = r == 1;
        FaultyEngine engine(inner, static_cast<unsigned>(r),
                            isBad ? failure : Failure::none, at);
        moe_rt_communicator_t faulty = engine.communicator();
        moe_rt_group_options_t options = {
            sizeof(options),
            failure == Failure::silent && at < 7 ? 0.1 : 20,
            0,
            0,
            0,
            0};
        Rank rank(&faulty, &options);
        LayerOptions layer;
        layer.slots = slots;
        ASSERT_OK(rank.load(layer));
        // Rank 1 may have given up before others end this.
        Result created(rank.create(problem, nullptr));
        if (created.code != MOE_RT_OK && !isBad) {
          EXPECT_EQ(created.code, MOE_RT_UNAVAILABLE) << created.message;
          EXPECT_EQ(at, 3) << created.message;
          return;
        }
        ASSERT_EQ(created.code, MOE_RT_OK) << created.message;
        auto begin = std::chrono::steady_clock::now();
        Result moved(move(rank, drawTable(9)));
        if (at == 7) {
          EXPECT_EQ(moved.code, MOE_RT_OK) << moved.message;
          EXPECT_EQ(engine.started(), 7);
          return;
        }
        std::vector<float> y;
        // Who ends the last agreement before the failure has no error yet.
        if (isBad || at < 6 || moved.code != MOE_RT_OK) {
          EXPECT_TRUE(moved.code == MOE_RT_UNAVAILABLE ||
                      moved.code == MOE_RT_DEADLINE_EXCEEDED)
              << at << moved.message;
        }
        Result called(rank.call(problem, 0, 1, y));
        EXPECT_NE(called.code, MOE_RT_OK) << at;
        EXPECT_LT(std::chrono::duration<double>(
                      std::chrono::steady_clock::now() - begin)
                      .count(),
                  5);
      });
}

} // namespace
