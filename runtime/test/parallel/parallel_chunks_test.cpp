//===- parallel_chunks_test.cpp - Calls in chunks -------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "parallel/faulty_engine.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

using namespace moe::test;

namespace {

using Clock = std::chrono::steady_clock;

double secondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

TEST(ParallelChunks, HaveTheResultsOfOne) {
  for (unsigned seed = 0; seed < 9; ++seed) {
    const int32_t ranks = 2 + static_cast<int32_t>(seed % 3);
    const int32_t chunks = 2 + static_cast<int32_t>(seed / 3) * 2;
    Problem problem(seed, 100);
    std::vector<int64_t> begins = splitTokens(100, ranks, seed);
    if (seed == 4) // all on one rank
      begins = {0, 0, 0, 100};
    std::vector<float> expected = problem.expected();
    runRanks(ranks, [&](int32_t r, const moe_rt_communicator_t &communicator) {
      FaultyEngine engine(communicator, 10 * seed + static_cast<unsigned>(r));
      engine.maxDelay = seed % 2 ? 3 : 200;
      moe_rt_communicator_t late = engine.communicator();
      moe_rt_group_options_t options = {sizeof(options),       20, 0, chunks,
                                        MOE_RT_WAY_ALL_TO_ALL, 0};
      Rank rank(&late, &options);
      LayerOptions layer;
      layer.slots = 4;
      ASSERT_OK(rank.load(layer));
      std::vector<int32_t> table = tableOf(ranks, 4, seed % 2);
      ASSERT_OK(rank.create(problem, &table));
      size_t k = static_cast<size_t>(r);
      for (int i = 0; i < 3; ++i) {
        std::vector<float> y;
        ASSERT_OK(rank.call(problem, begins[k], begins[k + 1], y));
        ASSERT_TRUE(
            std::equal(y.begin(), y.end(), expected.begin() + begins[k] * H));
        moe_rt_exchange_statistics_t statistics;
        ASSERT_OK(moe_rt_layer_exchange_statistics(rank.layer, &statistics));
        EXPECT_EQ(statistics.rounds, chunks);
      }
      // As few tokens as travel at once; the memory is there.
      std::vector<float> y;
      ASSERT_OK(rank.call(problem, r, r + 1, y));
      ASSERT_TRUE(std::equal(y.begin(), y.end(), expected.begin() + r * H));
      moe_rt_exchange_statistics_t statistics;
      ASSERT_OK(moe_rt_layer_exchange_statistics(rank.layer, &statistics));
      EXPECT_EQ(statistics.rounds, 1);
    });
  }
}

TEST(ParallelChunks, StayWithinTheLimitOfMemory) {
  Problem problem(5, 100);
  runRanks(2, [&](int32_t r, const moe_rt_communicator_t &communicator) {
    moe_rt_group_options_t options = {sizeof(options), 20, 0, 4, 0, 0};
    uint64_t bytes = 0;
    for (uint64_t limit : {uint64_t(0), uint64_t(1)}) {
      Rank limited(&communicator, &options);
      ASSERT_OK(limited.load({}));
      ASSERT_OK(limited.create(problem, nullptr));
      std::vector<float> y;
      ASSERT_OK(limited.call(problem, 50 * r, 50 * r + 50, y));
      EXPECT_TRUE(std::equal(y.begin(), y.end(),
                             problem.expected().begin() + 50 * r * H));
      moe_rt_exchange_statistics_t statistics;
      ASSERT_OK(moe_rt_layer_exchange_statistics(limited.layer, &statistics));
      EXPECT_EQ(statistics.rounds, 4) << limit;
      // What the layer says that it needs is enough.
      ASSERT_OK(moe_rt_layer_workspace_bytes(limited.layer, 50, &bytes));
      options.memory_limit = bytes;
    }
  });
}

TEST(ParallelChunks, AreTheSameOnAllRanks) {
  runRanks(2, [&](int32_t r, const moe_rt_communicator_t &communicator) {
    moe_rt_group_options_t options = {sizeof(options), 20, 0, 2 + r, 0, 0};
    Rank rank(&communicator, &options);
    EXPECT_EQ(rank.created.code, MOE_RT_INVALID_ARGUMENT);
    EXPECT_EQ(rank.created.message, "rank 1 has chunks 3, rank 0 has 2, "
                                    "expected the same on all ranks");
  });
  Context context(&oneThread);
  moe_rt_group_options_t options = {sizeof(options), 0, 0, -1, 0, 0};
  moe_rt_group_t *group = nullptr;
  EXPECT_ERROR(moe_rt_group_create(context, nullptr, &options, &group),
               MOE_RT_INVALID_ARGUMENT, "chunks is -1, expected 0 to 1024");
}

TEST(ParallelChunks, EndAtEachFailureOfTheEngine) {
  Problem problem(1, 64);
  for (Failure failure : {Failure::start, Failure::test, Failure::silent})
    // After the group, the layer (twice), the call and its memory: in each of
    // three chunks two values out and one home.
    for (int64_t at : {3, 5, 8, 11, 13, 14})
      runRanks(2, [&](int32_t r, const moe_rt_communicator_t &inner) {
        bool isBad = r == 1;
        FaultyEngine engine(inner, static_cast<unsigned>(r),
                            isBad ? failure : Failure::none, at);
        moe_rt_communicator_t faulty = engine.communicator();
        moe_rt_group_options_t options = {
            sizeof(options),
            failure == Failure::silent && at < 14 ? 0.5 : 20,
            0,
            3,
            0,
            0};
        Rank rank(&faulty, &options);
        ASSERT_OK(rank.load({}));
        // Rank 1 may have given up before others end this.
        Result created(rank.create(problem, nullptr));
        if (created.code != MOE_RT_OK && !isBad) {
          EXPECT_EQ(created.code, MOE_RT_UNAVAILABLE) << created.message;
          EXPECT_EQ(at, 3) << created.message;
          return;
        }
        ASSERT_EQ(created.code, MOE_RT_OK) << created.message;
        Clock::time_point begin = Clock::now();
        std::vector<float> y;
        Result result(rank.call(problem, 32 * r, 32 * r + 32, y));
        EXPECT_LT(secondsSince(begin), 5) << at;
        if (result.code == MOE_RT_OK) {
          EXPECT_TRUE(std::equal(y.begin(), y.end(),
                                 problem.expected().begin() + 32 * r * H));
          // Who ends the last exchange before the failure has no error.
          EXPECT_TRUE(at == 14 || (!isBad && at == 13)) << at;
        } else {
          EXPECT_TRUE(result.code == MOE_RT_UNAVAILABLE ||
                      result.code == MOE_RT_DEADLINE_EXCEEDED)
              << result.message;
          EXPECT_TRUE(at < 14) << result.message;
        }
        if (at == 14) {
          EXPECT_EQ(engine.started(), 14);
        }
      });
}

/// An engine whose exchanges take a time each, however many are pending.
class SlowEngine {
public:
  SlowEngine(const moe_rt_communicator_t &inner, double seconds)
      : inner(inner), seconds(seconds) {}

  moe_rt_communicator_t communicator() {
    moe_rt_communicator_t result = inner;
    result.user = this;
    result.allocate = [](void *user, uint64_t bytes) {
      const moe_rt_communicator_t &inner = innerOf(user);
      return inner.allocate(inner.user, bytes);
    };
    result.release = [](void *user, void *memory, uint64_t bytes) {
      const moe_rt_communicator_t &inner = innerOf(user);
      inner.release(inner.user, memory, bytes);
    };
    result.counts = [](void *user, const int64_t *send, int64_t *receive,
                       int32_t each, void *stream, void **request) {
      const moe_rt_communicator_t &inner = innerOf(user);
      auto *made = new Request{nullptr, Clock::now()};
      *request = made;
      return inner.counts(inner.user, send, receive, each, stream,
                          &made->inner);
    };
    result.exchange = [](void *user, const void *send, const int64_t *sendRows,
                         const int64_t *sendBegins, void *receive,
                         const int64_t *receiveRows,
                         const int64_t *receiveBegins, uint64_t rowBytes,
                         void *stream, void **request) {
      const moe_rt_communicator_t &inner = innerOf(user);
      auto *made = new Request{
          nullptr,
          Clock::now() + std::chrono::duration_cast<Clock::duration>(
                             std::chrono::duration<double>(
                                 static_cast<SlowEngine *>(user)->seconds))};
      *request = made;
      ++static_cast<SlowEngine *>(user)->started;
      return inner.exchange(inner.user, send, sendRows, sendBegins, receive,
                            receiveRows, receiveBegins, rowBytes, stream,
                            &made->inner);
    };
    result.test = [](void *user, void *request) {
      auto *made = static_cast<Request *>(request);
      const moe_rt_communicator_t &inner = innerOf(user);
      if (Clock::now() < made->ready)
        return 0;
      int32_t state = inner.test(inner.user, made->inner);
      if (state > 0)
        delete made;
      return state;
    };
    result.abort = nullptr;
    result.message = nullptr;
    return result;
  }

  std::atomic<int> started = 0; // exchanges

private:
  struct Request {
    void *inner;
    Clock::time_point ready;
  };

  static const moe_rt_communicator_t &innerOf(void *user) {
    return static_cast<SlowEngine *>(user)->inner;
  }

  const moe_rt_communicator_t inner;
  const double seconds;
};

/// The seconds of each of 30 calls whose tokens take 10 ms out and 10 ms home,
/// and 10 ms of computing; `started` gets how many exchanges have started
/// before the experts compute, for each chunk of each call.
std::vector<double> timeCalls(int32_t chunks, std::vector<int> &started) {
  Problem problem(2, 128);
  std::vector<double> times;
  runRanks(2, [&](int32_t r, const moe_rt_communicator_t &communicator) {
    SlowEngine engine(communicator, 0.01 / chunks);
    moe_rt_communicator_t slow = engine.communicator();
    moe_rt_group_options_t options = {sizeof(options),       20, 0, chunks,
                                      MOE_RT_WAY_ALL_TO_ALL, 0};
    Rank rank(&slow, &options);
    ASSERT_OK(rank.load({}));
    ASSERT_OK(rank.create(problem, nullptr));
    int before = 0;
    setOnCompute([&] {
      if (r == 0)
        started.push_back(engine.started - before);
      std::this_thread::sleep_for(std::chrono::duration<double>(0.01 / chunks));
    });
    for (int i = 0; i < 32; ++i) {
      std::vector<float> y;
      before = engine.started;
      Clock::time_point begin = Clock::now();
      ASSERT_OK(rank.call(problem, 64 * r, 64 * r + 64, y));
      if (r == 0 && i >= 2)
        times.push_back(secondsSince(begin));
    }
    setOnCompute(nullptr);
  });
  std::sort(times.begin(), times.end());
  return times;
}

TEST(ParallelChunks, HideTheExchange) {
  std::vector<int> ofOne, ofFour;
  std::vector<double> one = timeCalls(1, ofOne), four = timeCalls(4, ofFour);
  ASSERT_EQ(four.size(), 30u);
  // Tokens leave in two exchanges, rows and slots.
  EXPECT_EQ(ofOne, std::vector<int>(32, 2));
  // While a chunk computes, the next one comes and those before go home.
  std::vector<int> expected;
  for (int i = 0; i < 32; ++i)
    for (int chunk = 0; chunk < 4; ++chunk)
      expected.push_back(2 * std::min(chunk + 2, 4) + chunk);
  EXPECT_EQ(ofFour, expected);
  // One after the other, 30 ms; of four chunks the first comes and the last
  // goes home alone: 15 ms.
  EXPECT_GE(one.front(), 0.03);
  EXPECT_GE(four.front(), 0.015);
  std::printf("one chunk: %.1f to %.1f ms; four: %.1f, median %.1f, %.1f ms\n",
              1e3 * one.front(), 1e3 * one.back(), 1e3 * four.front(),
              1e3 * four[15], 1e3 * four.back());
}

} // namespace
