//===- parallel_beside_test.cpp - Work beside an exchange -----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A call on tokens of this rank that follows an exchange runs while that is
// pending, once.
//
//===----------------------------------------------------------------------===//

#include "parallel/parallel_testing.h"

#include <cstring>

using namespace moe::test;

namespace {

/// The layer with a second output, which "sums.part0" computes of x.
std::string withWorkBeside(const LayerOptions &options) {
  std::string text = parallelOf(options);
  auto insert = [&](const char *before, const char *added) {
    size_t at = text.find(before);
    ASSERT_NE(at, std::string::npos) << before;
    text.insert(at, added);
  };
  insert(R"({"name": "y", "role": "output")",
         R"({"name": "shared", "role": "output", "dtype": "f32",
             "shape": [-1, 5]}, )");
  insert(R"({"call": "layer.part1")",
         R"({"call": "sums.part0", "inputs": ["x"], "outputs": ["shared"]}, )");
  return text;
}

/// Ends no exchange of rows before the work beside it is done.
struct WaitingEngine {
  moe_rt_communicator_t inner;
  const float *written = nullptr;

  moe_rt_communicator_t communicator() {
    moe_rt_communicator_t result = inner;
    result.user = this;
    // `test` reads what the work writes: not at the same time.
    result.features = 0;
    result.allocate = [](void *user, uint64_t bytes) {
      auto &inner = static_cast<WaitingEngine *>(user)->inner;
      return inner.allocate(inner.user, bytes);
    };
    result.release = [](void *user, void *memory, uint64_t bytes) {
      auto &inner = static_cast<WaitingEngine *>(user)->inner;
      inner.release(inner.user, memory, bytes);
    };
    result.counts = [](void *user, const int64_t *send, int64_t *receive,
                       int32_t each, void *stream, void **request) {
      auto &inner = static_cast<WaitingEngine *>(user)->inner;
      return inner.counts(inner.user, send, receive, each, stream, request);
    };
    result.exchange = [](void *user, const void *send, const int64_t *sendRows,
                         const int64_t *sendBegins, void *receive,
                         const int64_t *receiveRows,
                         const int64_t *receiveBegins, uint64_t rowBytes,
                         void *stream, void **request) {
      auto &engine = *static_cast<WaitingEngine *>(user);
      engine.moves = true;
      return engine.inner.exchange(engine.inner.user, send, sendRows,
                                   sendBegins, receive, receiveRows,
                                   receiveBegins, rowBytes, stream, request);
    };
    result.test = [](void *user, void *request) {
      auto &engine = *static_cast<WaitingEngine *>(user);
      if (engine.moves && engine.written && *engine.written == sentinel)
        return 0;
      return engine.inner.test(engine.inner.user, request);
    };
    result.abort = [](void *user) {
      auto &inner = static_cast<WaitingEngine *>(user)->inner;
      inner.abort(inner.user);
    };
    result.message = [](void *user) {
      auto &inner = static_cast<WaitingEngine *>(user)->inner;
      return inner.message(inner.user);
    };
    return result;
  }

  static constexpr float sentinel = -12345;
  bool moves = false;
};

void runBeside(uint64_t memoryLimit, int64_t &rounds) {
  constexpr int32_t ranks = 3;
  Problem problem(3, 60);
  std::vector<float> expected = problem.expected();
  std::vector<int64_t> begins = {0, 13, 21, 60};
  LayerOptions options;
  options.parallel = withWorkBeside(options);
  runRanks(ranks, [&](int32_t r, const moe_rt_communicator_t &given) {
    WaitingEngine engine = {given};
    moe_rt_communicator_t communicator = engine.communicator();
    moe_rt_group_options_t groupOptions = {
        sizeof(groupOptions), 5, memoryLimit, 0, MOE_RT_WAY_ALL_TO_ALL, 0};
    Rank rank(&communicator, &groupOptions);
    ASSERT_EQ(rank.created.code, MOE_RT_OK) << rank.created.message;
    ASSERT_OK(rank.load(options));
    ASSERT_OK(rank.create(problem, nullptr));
    auto at = static_cast<size_t>(r);
    int64_t begin = begins[at], count = begins[at + 1] - begin;
    std::vector<float> y(static_cast<size_t>(count * H)), shared(y.size());
    shared[0] = WaitingEngine::sentinel;
    engine.written = shared.data();
    int64_t ofRows[] = {count, H}, ofChoices[] = {count, K};
    auto tensor = [&](void *data, int64_t *shape, uint8_t code) {
      return DLTensor{data, {kDLCPU, 0}, 2, {code, 32, 1}, shape, nullptr, 0};
    };
    DLTensor inputs[] = {
        tensor(problem.x.data.data() + begin * H, ofRows, kDLFloat),
        tensor(problem.ids.data.data() + begin * K, ofChoices, kDLInt),
        tensor(problem.w.data.data() + begin * K, ofChoices, kDLFloat)};
    DLTensor outputs[] = {tensor(shared.data(), ofRows, kDLFloat),
                          tensor(y.data(), ofRows, kDLFloat)};
    ASSERT_OK(moe_rt_layer_call(rank.layer, inputs, 3, outputs, 2, nullptr, 0));
    EXPECT_EQ(std::memcmp(y.data(), expected.data() + begin * H,
                          y.size() * sizeof(float)),
              0);
    EXPECT_EQ(shared[0], problem.x.data[static_cast<size_t>(begin * H)]);
    moe_rt_exchange_statistics_t statistics;
    ASSERT_OK(moe_rt_layer_exchange_statistics(rank.layer, &statistics));
    if (r == 0)
      rounds = statistics.rounds;
  });
}

TEST(ParallelBeside, RunsWhileRowsTravel) {
  int64_t rounds = 0;
  runBeside(0, rounds);
  EXPECT_EQ(rounds, 1);
}

TEST(ParallelBeside, RunsInTheFirstOfSeveralRounds) {
  int64_t rounds = 0;
  runBeside(9000, rounds);
  EXPECT_GT(rounds, 1);
}

} // namespace
