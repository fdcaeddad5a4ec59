//===- parallel_failure_test.cpp - Ranks that fail, or do not come --------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "parallel/faulty_engine.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>

using namespace moe::test;

namespace {

using Clock = std::chrono::steady_clock;

double secondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

moe_rt_group_options_t deadlineOf(double seconds,
                                  moe_rt_way_t way = MOE_RT_WAY_ALL_TO_ALL) {
  return {sizeof(moe_rt_group_options_t), seconds, 0, 0, way, 0};
}

/// Ranks with the layer, 4 slots each; `body` is given the rank.
void runLayer(int32_t ranks, Problem &problem, double deadline,
              const std::function<void(int32_t, Rank &)> &body) {
  runRanks(ranks, [&](int32_t r, const moe_rt_communicator_t &communicator) {
    moe_rt_group_options_t options = deadlineOf(deadline);
    Rank rank(&communicator, &options);
    ASSERT_EQ(rank.created.code, MOE_RT_OK) << rank.created.message;
    LayerOptions layer;
    layer.slots = 4;
    ASSERT_OK(rank.load(layer));
    ASSERT_OK(rank.create(problem, nullptr));
    body(r, rank);
  });
}

/// The group can be used: a call has the right result.
void expectUsable(Rank &rank, Problem &problem, int32_t r) {
  std::vector<float> y;
  ASSERT_OK(rank.call(problem, r, r + 1, y));
  EXPECT_TRUE(
      std::equal(y.begin(), y.end(), problem.expected().begin() + r * H));
}

/// The group is dead, and says so at once.
void expectDead(Rank &rank, Problem &problem) {
  Clock::time_point begin = Clock::now();
  std::vector<float> y;
  Result result(rank.call(problem, 0, 1, y));
  EXPECT_TRUE(result.code == MOE_RT_UNAVAILABLE ||
              result.code == MOE_RT_DEADLINE_EXCEEDED ||
              result.code == MOE_RT_INTERNAL)
      << result.message;
  EXPECT_EQ(result.message.find("the group is dead: "), 0u) << result.message;
  Result status(moe_rt_group_status(rank.group));
  EXPECT_EQ(status.message, result.message);
  EXPECT_LT(secondsSince(begin), 0.1);
}

TEST(ParallelFailure, WaitsForAnEngineThatIsLate) {
  for (unsigned seed = 0; seed < 10; ++seed) {
    Problem problem(seed, 30);
    std::vector<int64_t> begins = splitTokens(30, 3, seed);
    std::vector<float> expected = problem.expected();
    runRanks(3, [&](int32_t r, const moe_rt_communicator_t &communicator) {
      FaultyEngine engine(communicator, 10 * seed + static_cast<unsigned>(r));
      engine.maxDelay = seed % 2 ? 3 : 200;
      moe_rt_communicator_t late = engine.communicator();
      moe_rt_group_options_t options = deadlineOf(
          20, seed % 4 < 2 ? MOE_RT_WAY_PEER : MOE_RT_WAY_ALL_TO_ALL);
      options.memory_limit = seed % 3 == 0 ? 0 : 6000 + 1000 * seed;
      Rank rank(&late, &options);
      LayerOptions layer;
      layer.slots = 4;
      ASSERT_OK(rank.load(layer));
      ASSERT_OK(rank.create(problem, nullptr));
      for (int i = 0; i < 3; ++i) {
        std::vector<float> y;
        size_t k = static_cast<size_t>(r);
        ASSERT_OK(rank.call(problem, begins[k], begins[k + 1], y));
        ASSERT_TRUE(
            std::equal(y.begin(), y.end(), expected.begin() + begins[k] * H));
      }
    });
  }
}

TEST(ParallelFailure, EndsAtEachFailureOfTheEngine) {
  Problem problem(1, 9);
  for (auto [failure, way] : {std::pair(Failure::start, MOE_RT_WAY_ALL_TO_ALL),
                              {Failure::test, MOE_RT_WAY_ALL_TO_ALL},
                              {Failure::silent, MOE_RT_WAY_ALL_TO_ALL},
                              {Failure::start, MOE_RT_WAY_PEER},
                              {Failure::test, MOE_RT_WAY_PEER},
                              {Failure::silent, MOE_RT_WAY_PEER},
                              {Failure::test, MOE_RT_WAY_ALL_GATHER},
                              {Failure::silent, MOE_RT_WAY_ALL_GATHER}})
    // Of the group, the layer (twice), the call and its memory, two values out
    // and one home, or places out, those home and the end of reading; then
    // those of the second call, which tells places out as it begins.
    for (int64_t steps = way == MOE_RT_WAY_PEER ? 11 : 12, at = 0; at <= steps;
         ++at)
      runRanks(3, [&, failure = failure, way = way](
                      int32_t r, const moe_rt_communicator_t &communicator) {
        bool isBad = r == 1;
        FaultyEngine engine(communicator, static_cast<unsigned>(r),
                            isBad ? failure : Failure::none, at);
        moe_rt_communicator_t faulty = engine.communicator();
        const double deadline =
            failure == Failure::silent && at < steps ? 0.1 : 20;
        moe_rt_group_options_t options = deadlineOf(deadline, way);
        Clock::time_point begin = Clock::now();
        Rank rank(&faulty, &options);
        LayerOptions layer;
        layer.slots = 4;
        Result result(nullptr);
        if (rank.created.code != MOE_RT_OK) {
          result = rank.created;
          EXPECT_EQ(rank.group, nullptr);
        } else {
          ASSERT_OK(rank.load(layer));
          result = Result(rank.create(problem, nullptr));
          std::vector<float> y;
          for (int i = 0; i < 2 && result.code == MOE_RT_OK; ++i) {
            result = Result(rank.call(problem, 3 * r, 3 * r + 3, y));
            if (result.code == MOE_RT_OK) {
              EXPECT_TRUE(std::equal(y.begin(), y.end(),
                                     problem.expected().begin() + 3 * r * H));
            }
          }
        }
        EXPECT_LT(secondsSince(begin), 5) << at;
        if (at == steps) { // there are no more
          EXPECT_EQ(result.code, MOE_RT_OK) << result.message;
          EXPECT_EQ(engine.started(), steps);
          return;
        }
        // Who ends the last exchange before the failure has no error.
        bool mayPass = !isBad && result.code == MOE_RT_OK;
        if (mayPass)
          return;
        expectGroupIsDead(result, failure, at);
        if (rank.layer)
          expectDead(rank, problem);
      });
}

TEST(ParallelFailure, EndsWithoutARankThatDoesNotCome) {
  Problem problem(2, 10);
  std::atomic<int> waiting{2};
  runLayer(3, problem, 0.3, [&](int32_t r, Rank &rank) {
    if (r == 1) {
      while (waiting > 0)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      // Who comes too late learns it from the engine.
      Clock::time_point begin = Clock::now();
      std::vector<float> y;
      EXPECT_ERROR(rank.call(problem, 1, 2, y), MOE_RT_UNAVAILABLE,
                   "rank 1 of 3: the engine failed: rank ");
      EXPECT_LT(secondsSince(begin), 0.1);
      expectDead(rank, problem);
      return;
    }
    Clock::time_point begin = Clock::now();
    std::vector<float> y;
    Result result(rank.call(problem, r, r + 1, y));
    double waited = secondsSince(begin);
    --waiting;
    // The first that gives up lets the other know.
    EXPECT_TRUE(result.code == MOE_RT_DEADLINE_EXCEEDED ||
                result.code == MOE_RT_UNAVAILABLE)
        << result.message;
    EXPECT_GT(waited, 0.25);
    EXPECT_LT(waited, 0.8);
    expectDead(rank, problem);
    // Also for a layer.
    DLTensor weights[] = {problem.up.dl(), problem.bias.dl(),
                          problem.scale.dl()};
    moe_rt_layer_t *layer = nullptr;
    EXPECT_ERROR(moe_rt_layer_create_parallel(rank.module, "layer", rank.group,
                                              nullptr, weights, 3, &layer),
                 result.code, "the group is dead");
  });
}

TEST(ParallelFailure, NamesTheDeadline) {
  runRanks(2, [&](int32_t r, const moe_rt_communicator_t &communicator) {
    if (r == 1)
      return;
    moe_rt_group_options_t options = deadlineOf(0.05);
    Rank rank(&communicator, &options);
    EXPECT_EQ(rank.created.code, MOE_RT_DEADLINE_EXCEEDED);
    EXPECT_EQ(rank.created.message.find("rank 0 of 2 has waited 0.05"), 0u)
        << rank.created.message;
  });
}

TEST(ParallelFailure, RefusesCountsThatCannotBe) {
  Problem problem(3, 6);
  runRanks(2, [&](int32_t r, const moe_rt_communicator_t &communicator) {
    // The fourth collective is the first of a call.
    FaultyEngine engine(communicator, 1,
                        r == 1 ? Failure::counts : Failure::none, 3);
    moe_rt_communicator_t faulty = engine.communicator();
    moe_rt_group_options_t options = deadlineOf(20);
    Rank rank(&faulty, &options);
    LayerOptions layer;
    layer.slots = 4;
    ASSERT_OK(rank.load(layer));
    ASSERT_OK(rank.create(problem, nullptr));
    for (size_t i = 0; r == 0 && i < problem.ids.data.size(); ++i)
      problem.ids.data[i] = static_cast<int32_t>(5 + i % K);
    std::vector<float> y;
    // All three tokens of rank 0 go to rank 1.
    if (r == 1)
      EXPECT_ERROR(rank.call(problem, 3, 3, y), MOE_RT_INTERNAL,
                   "rank 1: rank 0 announces 4 rows of its 3 tokens");
    else
      EXPECT_ERROR(rank.call(problem, 0, 3, y), MOE_RT_UNAVAILABLE,
                   "rank 1 has given up");
    expectDead(rank, problem);
  });
}

TEST(ParallelFailure, LetsAllRanksKnowOfBadArguments) {
  Problem problem(4, 2000);
  runLayer(3, problem, 20, [&](int32_t r, Rank &rank) {
    auto refused = [&](moe_rt_status_t status, moe_rt_code_t code,
                       const char *text) {
      if (r == 1)
        EXPECT_ERROR(status, code, std::string("rank 1: ") + text);
      else
        EXPECT_ERROR(status, MOE_RT_INVALID_ARGUMENT,
                     "rank 1 failed with code " + std::to_string(code));
    };
    std::vector<float> y;
    refused(rank.call(problem, 0, r == 1 ? 1001 : 3, y), MOE_RT_OUT_OF_RANGE,
            "function 'layer': T is 1001, expected 0 to 1000");
    expectUsable(rank, problem, r);
    Problem bad(4, 5);
    if (r == 1)
      bad.ids.data[4] = E;
    refused(rank.call(bad, 0, 5, y), MOE_RT_INVALID_ARGUMENT,
            "input 'ids': element 4 is 8, expected an expert id in [0, 8)");
    expectUsable(rank, problem, r);
    Array<float> x = f32({2, H}), w = f32({2, K}), out = f32({2, H});
    Array<int32_t> ids = i32({2, K}, -1);
    DLTensor inputs[] = {x.dl(), ids.dl(), w.dl()}, output = out.dl();
    size_t count = r == 1 ? 2 : 3;
    refused(
        moe_rt_layer_call(rank.layer, inputs, count, &output, 1, nullptr, 0),
        MOE_RT_INVALID_ARGUMENT,
        "function 'layer': 2 inputs are given, expected 3");
    expectUsable(rank, problem, r);
    if (r == 1)
      output = x.dl();
    refused(moe_rt_layer_call(rank.layer, inputs, 3, &output, 1, nullptr, 0),
            MOE_RT_INVALID_ARGUMENT, "output 'y' overlaps input 'x'");
    expectUsable(rank, problem, r);
    output = out.dl();
    void *stream = r == 1 ? &x : nullptr;
    refused(moe_rt_layer_call_on_stream(rank.layer, inputs, 3, &output, 1,
                                        nullptr, 0, stream),
            MOE_RT_INVALID_ARGUMENT, "stream is ");
    expectUsable(rank, problem, r);
  });
}

TEST(ParallelFailure, ChecksWhatTheCodeSends) {
  Problem problem(5, 6);
  const std::pair<Fault, const char *> faults[] = {
      {Fault::counts, "the code sends 3 rows to rank 0 of 3, and there are 2"},
      {Fault::index, "the code sends row 2, and there are 2"},
      {Fault::expected, "the code expects "}};
  for (auto [fault, text] : faults)
    runLayer(
        3, problem, 20, [&, fault = fault, text = text](int32_t r, Rank &rank) {
          setFault(r == 2 ? fault : Fault::none);
          std::vector<float> y;
          if (r == 2)
            EXPECT_ERROR(rank.call(problem, 4, 6, y), MOE_RT_INTERNAL, text);
          else
            EXPECT_ERROR(rank.call(problem, 2 * r, 2 * r + 2, y),
                         MOE_RT_INVALID_ARGUMENT,
                         "rank 2 failed with code 13, INTERNAL");
          setFault(Fault::none);
          expectUsable(rank, problem, r);
        });
}

TEST(ParallelFailure, GivesUpWhereRowsAreMissing) {
  Problem problem(6, 6);
  const std::pair<Fault, const char *> faults[] = {
      {Fault::returns, "the code returns "},
      {Fault::code, "function 'layer.part1' failed with code 7"}};
  for (auto [fault, text] : faults)
    runLayer(
        3, problem, 20, [&, fault = fault, text = text](int32_t r, Rank &rank) {
          setFault(r == 2 ? fault : Fault::none);
          std::vector<float> y;
          moe_rt_status_t status = rank.call(problem, 2 * r, 2 * r + 2, y);
          if (r == 2)
            EXPECT_ERROR(status, MOE_RT_INTERNAL, text);
          else
            EXPECT_ERROR(status, MOE_RT_UNAVAILABLE, "rank 2 has given up");
          setFault(Fault::none);
          expectDead(rank, problem);
        });
}

TEST(ParallelFailure, RefusesCallsInAnotherOrder) {
  Problem problem(7, 6);
  runLayer(2, problem, 20, [&](int32_t r, Rank &rank) {
    moe_rt_layer_t *sums = nullptr;
    ASSERT_OK(moe_rt_layer_create_parallel(rank.module, "sums", rank.group,
                                           nullptr, nullptr, 0, &sums));
    Array<float> x = f32({1, H}), y = f32({1, H});
    DLTensor in = x.dl(), out = y.dl();
    std::vector<float> result;
    const char *text = "rank 1 has layer 1 ('sums'), rank 0 has 0 ('layer'), "
                       "expected the same on all ranks";
    if (r == 1)
      EXPECT_ERROR(moe_rt_layer_call(sums, &in, 1, &out, 1, nullptr, 0),
                   MOE_RT_INVALID_ARGUMENT, text);
    else
      EXPECT_ERROR(rank.call(problem, 0, 1, result), MOE_RT_INVALID_ARGUMENT,
                   text);
    expectUsable(rank, problem, r);
    // Or one that is created.
    const char *other = "rank 1 calls a layer while rank 0 creates a layer";
    if (r == 1)
      EXPECT_ERROR(rank.call(problem, 0, 1, result), MOE_RT_INVALID_ARGUMENT,
                   other);
    else {
      moe_rt_layer_t *layer = nullptr;
      EXPECT_ERROR(moe_rt_layer_create_parallel(rank.module, "sums", rank.group,
                                                nullptr, nullptr, 0, &layer),
                   MOE_RT_INVALID_ARGUMENT, other);
    }
    expectUsable(rank, problem, r);
    moe_rt_layer_destroy(sums);
  });
}

TEST(ParallelFailure, RefusesLayersThatDiffer) {
  Problem problem(8, 6);
  runRanks(2, [&](int32_t r, const moe_rt_communicator_t &communicator) {
    Rank rank(&communicator);
    auto differs = [&](LayerOptions here, std::vector<int32_t> *table,
                       const char *text) {
      ASSERT_OK(rank.load(here));
      EXPECT_ERROR(rank.create(problem, table), MOE_RT_INVALID_ARGUMENT, text);
    };
    LayerOptions same, other;
    other.maxTokens = r == 0 ? 1000 : 900;
    differs(other, nullptr,
            "rank 1 has a greatest T of 900, rank 0 has 1000, expected");
    other = same;
    other.name = r == 0 ? "layer" : "block";
    differs(other, nullptr, "rank 1 has a layer whose name has hash ");
    other = same;
    other.slots = 7 + r;
    differs(other, nullptr, "rank 1 has a table of experts with hash ");
    other = same;
    other.replicas = 7 + r;
    differs(other, nullptr, "rank 1 has an artifact with hash ");
    other.replicas = E;
    std::vector<int32_t> table = tableOf(2, E, r == 1);
    differs(same, &table, "rank 1 has a table of experts with hash ");
    // One that is not there, or whose weights cannot be read.
    ASSERT_OK(rank.load(same));
    const char *name = r == 0 ? "layer" : "other";
    DLTensor weights[] = {problem.up.dl(), problem.bias.dl(),
                          problem.scale.dl()};
    moe_rt_status_t status = moe_rt_layer_create_parallel(
        rank.module, name, rank.group, nullptr, weights, 3, &rank.layer);
    if (r == 0)
      EXPECT_ERROR(status, MOE_RT_INVALID_ARGUMENT,
                   "rank 1 failed with code 5, NOT_FOUND");
    else
      EXPECT_ERROR(status, MOE_RT_NOT_FOUND,
                   "rank 1: the module has no layer 'other'");
    status =
        moe_rt_layer_create_parallel(rank.module, "layer", rank.group, nullptr,
                                     weights, r == 0 ? 3 : 2, &rank.layer);
    if (r == 0)
      EXPECT_ERROR(status, MOE_RT_INVALID_ARGUMENT, "rank 1 failed");
    else
      EXPECT_ERROR(status, MOE_RT_INVALID_ARGUMENT,
                   "layer 'layer': 2 weights are given, expected 3");
    int32_t code = r;
    auto read = [](void *user, size_t, int64_t, int64_t, void *data,
                   uint64_t bytes) -> int32_t {
      std::memset(data, 0, bytes);
      return *static_cast<int32_t *>(user) == 1 ? 77 : 0;
    };
    status = moe_rt_layer_create_parallel_from_source(
        rank.module, "layer", rank.group, nullptr, read, &code, &rank.layer);
    if (r == 0)
      EXPECT_ERROR(status, MOE_RT_INVALID_ARGUMENT, "rank 1 failed");
    else
      EXPECT_ERROR(status, MOE_RT_NOT_FOUND, "failed with code 77");
    // The group can still be used.
    ASSERT_OK(rank.create(problem, nullptr));
    expectUsable(rank, problem, r);
  });
}

TEST(ParallelFailure, RefusesTables) {
  Problem problem(9, 6);
  LayerOptions options;
  options.slots = 5;
  options.replicas = 1;
  const std::pair<std::vector<int32_t>, const char *> tables[] = {
      {{0, 1, 2, 3, 1, 4, 5, 6, 7, -1}, "expert 1 twice on rank 0"},
      {{0, 1, 2, 3, -1, 4, 5, 6, -1, -1}, "expert 7 on no rank"},
      {{0, 1, 2, 3, 8, 4, 5, 6, 7, -1}, "8 in slot 4 of rank 0, expected 0 to"},
      {{0, 1, 2, 3, -2, 4, 5, 6, 7, -1}, "-2 in slot 4 of rank 0"},
      {{0, 1, 2, 3, 4, 4, 5, 6, 7, -1},
       "expert 4 on 2 ranks, layer 'layer' was compiled for at most 1"}};
  runRanks(2, [&](int32_t, const moe_rt_communicator_t &communicator) {
    Rank rank(&communicator);
    ASSERT_OK(rank.load(options));
    for (auto [table, text] : tables)
      EXPECT_ERROR(rank.create(problem, &table), MOE_RT_INVALID_ARGUMENT, text);
    // Of other shapes.
    std::vector<int32_t> table(15, -1);
    DLTensor weights[] = {problem.up.dl(), problem.bias.dl(),
                          problem.scale.dl()};
    for (std::vector<int64_t> shape : {std::vector<int64_t>{3, 5}, {2, 4}}) {
      DLTensor given = tableTensor(table, shape);
      EXPECT_ERROR(moe_rt_layer_create_parallel(rank.module, "layer",
                                                rank.group, &given, weights, 3,
                                                &rank.layer),
                   MOE_RT_INVALID_ARGUMENT, "expected i32[2, 5]");
    }
    LayerOptions few;
    few.slots = 3;
    ASSERT_OK(rank.load(few));
    EXPECT_ERROR(rank.create(problem, nullptr), MOE_RT_INVALID_ARGUMENT,
                 "8 experts and was compiled for 3 on a rank, which are 6 on "
                 "2 ranks");
  });
  runRanks(9, [&](int32_t, const moe_rt_communicator_t &communicator) {
    Rank rank(&communicator);
    ASSERT_OK(rank.load({}));
    EXPECT_ERROR(rank.create(problem, nullptr), MOE_RT_INVALID_ARGUMENT,
                 "8 experts, expected at least one for each of 9 ranks");
  });
}

TEST(ParallelFailure, RefusesPeersOfSomeRanks) {
  runRanks(2, [&](int32_t r, moe_rt_communicator_t communicator) {
    if (r == 1)
      communicator.features &= ~MOE_RT_COMMUNICATOR_PEER_MEMORY;
    for (auto way : {MOE_RT_WAY_AUTOMATIC, MOE_RT_WAY_PEER}) {
      moe_rt_group_options_t options = deadlineOf(5, way);
      Rank rank(&communicator, &options);
      EXPECT_EQ(rank.created.code, MOE_RT_INVALID_ARGUMENT);
      EXPECT_EQ(rank.created.message,
                "rank 1 has the feature PEER_MEMORY 0, rank 0 has 1, expected "
                "the same on all ranks");
    }
    moe_rt_group_options_t options = deadlineOf(5);
    EXPECT_EQ(Rank(&communicator, &options).created.code, MOE_RT_OK);
  });
}

/// Has no memory for larger buffers than this.
struct PoorEngine {
  moe_rt_communicator_t inner;
  uint64_t most;

  static PoorEngine &of(void *user) { return *static_cast<PoorEngine *>(user); }

  moe_rt_communicator_t communicator() {
    moe_rt_communicator_t result = inner;
    result.user = this;
    result.allocate = [](void *user, uint64_t bytes) -> void * {
      return bytes > of(user).most
                 ? nullptr
                 : of(user).inner.allocate(of(user).inner.user, bytes);
    };
    result.release = [](void *user, void *memory, uint64_t bytes) {
      of(user).inner.release(of(user).inner.user, memory, bytes);
    };
    result.counts = [](void *user, const int64_t *send, int64_t *receive,
                       int32_t each, void *stream, void **request) {
      return of(user).inner.counts(of(user).inner.user, send, receive, each,
                                   stream, request);
    };
    result.exchange = [](void *user, const void *send, const int64_t *sendRows,
                         const int64_t *sendBegins, void *receive,
                         const int64_t *receiveRows,
                         const int64_t *receiveBegins, uint64_t rowBytes,
                         void *stream, void **request) {
      return of(user).inner.exchange(of(user).inner.user, send, sendRows,
                                     sendBegins, receive, receiveRows,
                                     receiveBegins, rowBytes, stream, request);
    };
    result.gather = [](void *user, const void *send, void *receive,
                       const int64_t *rows, uint64_t rowBytes, void *stream,
                       void **request) {
      return of(user).inner.gather(of(user).inner.user, send, receive, rows,
                                   rowBytes, stream, request);
    };
    result.test = [](void *user, void *request) {
      return of(user).inner.test(of(user).inner.user, request);
    };
    result.abort = [](void *user) {
      of(user).inner.abort(of(user).inner.user);
    };
    result.message = [](void *user) {
      return of(user).inner.message(of(user).inner.user);
    };
    return result;
  }
};

/// Memory that could not grow is gone, also for calls that had enough.
TEST(ParallelFailure, GoesOnWhereMemoryWasNotEnough) {
  Problem problem(3, 400);
  runRanks(2, [&](int32_t r, const moe_rt_communicator_t &communicator) {
    PoorEngine engine = {communicator, UINT64_MAX};
    moe_rt_communicator_t poor = engine.communicator();
    moe_rt_group_options_t options = deadlineOf(5, MOE_RT_WAY_ALL_GATHER);
    Rank rank(&poor, &options);
    ASSERT_OK(rank.load({}));
    ASSERT_OK(rank.create(problem, nullptr));
    std::vector<float> y;
    ASSERT_OK(rank.call(problem, 10 * r, 10 * r + 10, y));
    if (r == 1)
      engine.most = 30000;
    EXPECT_ERROR(rank.call(problem, 200 * r, 200 * r + 200, y),
                 r == 1 ? MOE_RT_RESOURCE_EXHAUSTED : MOE_RT_INVALID_ARGUMENT,
                 r == 1 ? "bytes for the received rows" : "rank 1 failed");
    ASSERT_OK(rank.call(problem, 10 * r, 10 * r + 10, y));
    EXPECT_TRUE(std::equal(y.begin(), y.end(),
                           problem.expected().begin() + 10 * r * H));
  });
}

TEST(ParallelFailure, RefusesOptions) {
  Context context(&oneThread);
  moe_rt_group_t *group = nullptr;
  moe_rt_group_options_t options = deadlineOf(-1);
  EXPECT_ERROR(moe_rt_group_create(context, nullptr, &options, &group),
               MOE_RT_INVALID_ARGUMENT, "deadline_seconds is -1");
  options = {1, 1, 0, 0, 0, 0};
  EXPECT_ERROR(moe_rt_group_create(context, nullptr, &options, &group),
               MOE_RT_INVALID_ARGUMENT, "struct_size is 1, expected 40");
  moe_rt_communicator_t communicator;
  ASSERT_OK(moe_rt_thread_communicators_create(1, &communicator));
  moe_rt_communicator_t bad = communicator;
  bad.rank = 1;
  EXPECT_ERROR(moe_rt_group_create(context, &bad, nullptr, &group),
               MOE_RT_INVALID_ARGUMENT, "rank is 1 of 1");
  bad = communicator;
  bad.gather = nullptr;
  EXPECT_ERROR(moe_rt_group_create(context, &bad, nullptr, &group),
               MOE_RT_INVALID_ARGUMENT, "a function is NULL");
  bad = communicator;
  bad.struct_size = 8;
  EXPECT_ERROR(moe_rt_group_create(context, &bad, nullptr, &group),
               MOE_RT_INVALID_ARGUMENT, "communicator: struct_size is 8");
  bad = communicator;
  bad.device = {kDLCUDA, 0};
  EXPECT_ERROR(moe_rt_group_create(context, &bad, nullptr, &group),
               MOE_RT_UNIMPLEMENTED, "device type 2");
  bad = communicator;
  bad.peer = nullptr;
  EXPECT_ERROR(moe_rt_group_create(context, &bad, nullptr, &group),
               MOE_RT_INVALID_ARGUMENT, "peer is NULL");
  options = deadlineOf(1, static_cast<moe_rt_way_t>(4));
  EXPECT_ERROR(moe_rt_group_create(context, nullptr, &options, &group),
               MOE_RT_INVALID_ARGUMENT, "way is 4, expected 0 to 3");
  options = deadlineOf(1);
  options.tokens = 2;
  EXPECT_ERROR(moe_rt_group_create(context, nullptr, &options, &group),
               MOE_RT_INVALID_ARGUMENT, "tokens is 2, expected 0 or 1");
  options = deadlineOf(1, MOE_RT_WAY_PEER);
  options.chunks = 2;
  EXPECT_ERROR(moe_rt_group_create(context, nullptr, &options, &group),
               MOE_RT_INVALID_ARGUMENT,
               "chunks is 2, expected 0 or 1 for way 2");
  moe_rt_thread_communicators_destroy(&communicator);
  EXPECT_ERROR(moe_rt_thread_communicators_create(0, &communicator),
               MOE_RT_INVALID_ARGUMENT, "count is 0");
}

} // namespace
