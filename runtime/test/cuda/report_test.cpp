//===- report_test.cpp - Statistics and errors on a device ----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "cuda_testing.h"

#include <thread>

using namespace moe::test;

namespace {

/// Reports what the input says; further inputs are further dispatches.
template <int dispatches>
int32_t reportingEntry(void **args, const moe_rt_launcher_t *launcher) {
  for (int i = 0; i < dispatches; ++i) {
    void *from = args[i], *offsets = args[dispatches + 1 + 2 * i],
         *counters = args[dispatches + 2 + 2 * i];
    auto numOffsets =
        static_cast<uint32_t>(static_cast<Memref *>(offsets)->dims[0]);
    auto numCounters =
        static_cast<uint32_t>(static_cast<Memref *>(counters)->dims[0]);
    const moe_rt_kernel_argument_t arguments[] = {
        argument(from), argument(offsets), argument(counters),
        argument(numOffsets), argument(numCounters)};
    if (int32_t code = launcher->launch(launcher->user, reportKernel, 1, 1, 1,
                                        arguments, 5))
      return code;
  }
  return 0;
}

/// The same of one dispatch that has no counters.
int32_t offsetsEntry(void **args, const moe_rt_launcher_t *launcher) {
  void *from = args[0], *offsets = args[2];
  uint32_t numOffsets = 4, numCounters = 0;
  const moe_rt_kernel_argument_t arguments[] = {
      argument(from), argument(offsets), argument(offsets),
      argument(numOffsets), argument(numCounters)};
  return launcher->launch(launcher->user, reportKernel, 1, 1, 1, arguments, 5);
}

int64_t someWorkspace(int64_t tokens) { return 100 * tokens; }

std::string json(const char *name, const char *role, const char *dtype,
                 int64_t extent) {
  return R"({"name": ")" + std::string(name) + R"(", "role": ")" + role +
         R"(", "dtype": ")" + dtype + R"(", "shape": [)" +
         std::to_string(extent) + "]}";
}

/// What a dispatch reports: offsets, choices, ids out of range, and padding.
using Report = std::vector<int64_t>;

std::vector<int64_t> tokensOf(const moe_rt_statistics_t &statistics) {
  return {statistics.tokens_per_expert,
          statistics.tokens_per_expert + statistics.num_experts};
}

class CudaReportTest : public CudaLayerTest {
protected:
  void SetUp() override {
    CudaLayerTest::SetUp();
    if (!jit)
      return;
    jit->load(json("r", "input", "i64", 7) + ", " +
                  json("y", "output", "f32", -1) + ", " +
                  json("o", "offsets", "i32", 4) + ", " +
                  json("c", "counters", "i64", 3) +
                  R"(], "dispatches": [{"num_experts": 3, "top_k": 2,
                                  "offsets": "o", "counters": "c"})",
              reportingEntry<1>, someWorkspace);
    jit->create();
    from = std::make_unique<DeviceArray<int64_t>>(
        *gpu, Array<int64_t>({7}, {kDLInt, 64, 1}));
    y = std::make_unique<DeviceArray<float>>(*gpu, f32({2}));
  }
  void TearDown() override {
    from.reset();
    y.reset();
    CudaLayerTest::TearDown();
  }

  void report(const Report &next) {
    from->data() = next;
    from->upload();
  }
  moe_rt_status_t call(const Report &next) {
    report(next);
    return jit->call({from->dl()}, {y->dl()});
  }
  moe_rt_status_t enqueue(cuda::CUstream stream, const Report &next) {
    gpu->wait(stream); // the one before has read its report
    report(next);
    return jit->enqueue(stream, {from->dl()}, {y->dl()});
  }
  moe_rt_statistics_t statistics() {
    moe_rt_statistics_t result = {};
    EXPECT_OK(moe_rt_layer_statistics(jit->layer, 0, &result));
    return result;
  }

  std::unique_ptr<DeviceArray<int64_t>> from;
  std::unique_ptr<DeviceArray<float>> y;
};

TEST_F(CudaReportTest, Counts) {
  EXPECT_EQ(moe_rt_layer_dispatch_count(jit->layer), 1u);
  moe_rt_statistics_t result = statistics();
  EXPECT_EQ(result.num_experts, 3);
  EXPECT_EQ(result.top_k, 2);
  EXPECT_EQ(result.calls, 0);
  EXPECT_EQ(tokensOf(result), (std::vector<int64_t>{0, 0, 0}));

  ASSERT_OK(call({0, 1, 1, 4, 6, 0, 28}));
  cuda::CUstream stream = gpu->newStream();
  ASSERT_OK(enqueue(stream, {0, 0, 2, 2, 2, 0, 30}));
  result = statistics(); // waits for the stream
  EXPECT_EQ(tokensOf(result), (std::vector<int64_t>{1, 2, 3}));
  EXPECT_EQ(result.calls, 2);
  EXPECT_EQ(result.choices, 8);
  EXPECT_EQ(result.dropped, 2);
  EXPECT_EQ(result.padding, 58);

  // A call that has nothing to compute is one, too.
  DLTensor none = y->dl();
  int64_t zero = 0;
  none.shape = &zero;
  ASSERT_OK(jit->call({from->dl()}, {none}));
  result = statistics();
  EXPECT_EQ(result.calls, 3);
  EXPECT_EQ(result.choices, 8);

  moe_rt_layer_reset_statistics(jit->layer);
  result = statistics();
  EXPECT_EQ(tokensOf(result), (std::vector<int64_t>{0, 0, 0}));
  EXPECT_EQ(result.calls + result.choices + result.dropped + result.padding, 0);
  ASSERT_OK(call({0, 1, 1, 4, 6, 0, 28}));
  EXPECT_EQ(statistics().calls, 1);

  EXPECT_ERROR(moe_rt_layer_statistics(jit->layer, 1, &result),
               MOE_RT_INVALID_ARGUMENT, "has 1 dispatches");
}

TEST_F(CudaReportTest, TheWorkspaceHasRoomForReports) {
  uint64_t bytes = 0;
  ASSERT_OK(moe_rt_layer_workspace_bytes(jit->layer, 2, &bytes));
  // 200 bytes for the code, then offsets, counters and errors.
  EXPECT_EQ(bytes, 256u + 64 + 64 + 64);
  DeviceArray<uint8_t> memory(
      *gpu, {{static_cast<int64_t>(bytes) + 64}, {kDLUInt, 8, 1}, 0xa5});
  report({0, 1, 1, 4, 6, 0, 28});
  ASSERT_OK(jit->call({from->dl()}, {y->dl()}, memory.address(), bytes));
  EXPECT_EQ(memory.download()[bytes], 0xa5) << "more was used";
  EXPECT_EQ(statistics().calls, 1);
  EXPECT_ERROR(jit->call({from->dl()}, {y->dl()}, memory.address(), bytes - 1),
               MOE_RT_RESOURCE_EXHAUSTED,
               "workspace has 447 bytes, expected at least 448 for T = 2");
}

TEST_F(CudaReportTest, IdsOutOfRange) {
  EXPECT_ERROR(call({0, 0, 0, 0, 0, 3, 0}), MOE_RT_INVALID_ARGUMENT,
               "function 'f', dispatch 0: 3 expert ids outside [0, 3)");
  EXPECT_OK(moe_rt_layer_poll(jit->layer)); // the call has returned it
  EXPECT_EQ(statistics().calls, 0);
  ASSERT_OK(call({0, 1, 1, 4, 6, 0, 28}));
}

TEST_F(CudaReportTest, RefusesNonsense) {
  const Report nonsense[] = {
      {1, 1, 1, 1, 4, 0, 0},  // does not start at 0
      {0, 2, 1, 3, 4, 0, 0},  // descends
      {0, 1, 2, -1, 4, 0, 0}, // negative
      {0, 1, 2, 3, 2, 0, 0},  // more kept than chosen
      {0, 1, 2, 3, 4, -1, 0}, // fewer than none out of range
      {0, 1, 2, 3, 4, 0, -1}, // fewer than no padding
  };
  for (const Report &next : nonsense)
    EXPECT_ERROR(call(next), MOE_RT_INTERNAL,
                 "function 'f', dispatch 0: the code reported " +
                     std::to_string(next[4]) + " choices and " +
                     std::to_string(next[3]) +
                     " kept rows, with offsets from " +
                     std::to_string(next[0]));
  EXPECT_EQ(statistics().calls, 0);
}

TEST_F(CudaReportTest, Polls) {
  cuda::CUstream stream = gpu->newStream();
  EXPECT_OK(moe_rt_layer_poll(jit->layer));
  ASSERT_OK(enqueue(stream, {0, 1, 1, 4, 6, 0, 28}));
  gpu->wait(stream);
  EXPECT_OK(moe_rt_layer_poll(jit->layer));

  ASSERT_OK(enqueue(stream, {0, 0, 0, 0, 0, 2, 0}));
  gpu->wait(stream);
  EXPECT_ERROR(moe_rt_layer_poll(jit->layer), MOE_RT_INVALID_ARGUMENT,
               "function 'f', dispatch 0: 2 expert ids outside [0, 3)");
  EXPECT_OK(moe_rt_layer_poll(jit->layer)); // it was consumed

  // The next call on a stream finds it, too, and does not run.
  ASSERT_OK(enqueue(stream, {0, 0, 0, 0, 0, 4, 0}));
  gpu->wait(stream);
  EXPECT_ERROR(
      enqueue(stream, {0, 1, 1, 4, 6, 0, 28}), MOE_RT_INVALID_ARGUMENT,
      "an earlier call failed: function 'f', dispatch 0: 4 expert ids");
  EXPECT_EQ(statistics().calls, 1);
  ASSERT_OK(enqueue(stream, {0, 1, 1, 4, 6, 0, 28}));
  EXPECT_EQ(statistics().calls, 2);

  // A call that waits returns its own errors.
  ASSERT_OK(enqueue(stream, {0, 0, 0, 0, 0, 5, 0}));
  gpu->wait(stream);
  EXPECT_OK(call({0, 1, 1, 4, 6, 0, 28}));
  EXPECT_ERROR(call({0, 0, 0, 0, 0, 6, 0}), MOE_RT_INVALID_ARGUMENT,
               "6 expert ids");
  EXPECT_ERROR(moe_rt_layer_poll(jit->layer), MOE_RT_INVALID_ARGUMENT,
               "5 expert ids");
}

TEST_F(CudaReportTest, Graphs) {
  cuda::CUstream stream = gpu->newStream();
  DeviceArray<uint8_t> memory(*gpu, {{448}, {kDLUInt, 8, 1}});
  void *graph = gpu->capture(stream, [&] {
    EXPECT_OK(
        jit->enqueue(stream, {from->dl()}, {y->dl()}, memory.address(), 448));
    EXPECT_OK(moe_rt_layer_poll(jit->layer));
  });
  EXPECT_EQ(statistics().calls, 0) << "nothing has run";
  auto replay = [&](const Report &next) {
    report(next);
    gpu->replay(graph, stream);
    gpu->wait(stream);
  };
  replay({0, 1, 1, 4, 6, 0, 28});
  replay({0, 0, 2, 2, 2, 0, 30});
  EXPECT_OK(moe_rt_layer_poll(jit->layer));
  EXPECT_EQ(tokensOf(statistics()), (std::vector<int64_t>{1, 2, 3}));
  // The first of several errors is kept.
  for (int64_t count : {7, 8, 9})
    replay({0, 0, 0, 0, 0, count, 0});
  EXPECT_ERROR(moe_rt_layer_poll(jit->layer), MOE_RT_INVALID_ARGUMENT,
               "7 expert ids");
  EXPECT_OK(moe_rt_layer_poll(jit->layer));
  replay({1, 0, 0, 0, 0, 0, 0});
  EXPECT_ERROR(moe_rt_layer_poll(jit->layer), MOE_RT_INTERNAL,
               "the code reported");
  EXPECT_EQ(statistics().calls, 2);
  gpu->check(gpu->function<int(void *)>("cuGraphExecDestroy")(graph));
}

TEST_F(CudaReportTest, NoStatisticsInACapture) {
  ASSERT_OK(call({0, 1, 1, 4, 6, 0, 28}));
  cuda::CUstream stream = gpu->newStream();
  {
    cuda::ContextScope scope(*gpu->device);
    gpu->check(gpu->function<int(cuda::CUstream, int)>(
        "cuStreamBeginCapture_v2")(stream, 0));
    moe_rt_statistics_t unused;
    EXPECT_ERROR(moe_rt_layer_statistics(jit->layer, 0, &unused),
                 MOE_RT_FAILED_PRECONDITION,
                 "while a stream of the device is captured");
    moe_rt_layer_reset_statistics(jit->layer); // does nothing
    void *graph = nullptr;
    (void)gpu->function<int(cuda::CUstream, void **)>("cuStreamEndCapture")(
        stream, &graph);
  }
  EXPECT_EQ(statistics().calls, 1);
}

TEST_F(CudaReportTest, Threads) {
  report({0, 1, 1, 4, 6, 0, 28});
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&, i] {
      cuda::CUstream stream = gpu->newStream();
      for (int j = 0; j < 10; ++j) {
        DeviceArray<float> own(*gpu, f32({2}));
        if (i % 2)
          EXPECT_OK(jit->call({from->dl()}, {own.dl()}));
        else
          EXPECT_OK(jit->enqueue(stream, {from->dl()}, {own.dl()}));
        EXPECT_OK(moe_rt_layer_poll(jit->layer));
        gpu->wait(stream);
      }
    });
  for (std::thread &thread : threads)
    thread.join();
  moe_rt_statistics_t result = statistics();
  EXPECT_EQ(result.calls, 40);
  EXPECT_EQ(tokensOf(result), (std::vector<int64_t>{40, 0, 120}));
}

TEST_F(CudaReportTest, OffsetsAlone) {
  DeviceJit alone(options());
  alone.load(json("r", "input", "i64", 4) + ", " +
                 json("y", "output", "f32", -1) + ", " +
                 json("o", "offsets", "i32", 4) +
                 R"(], "dispatches": [{"num_experts": 3, "offsets": "o"})",
             offsetsEntry);
  alone.create();
  Array<int64_t> report({4}, {kDLInt, 64, 1});
  report.data = {0, 1, 1, 4};
  DeviceArray<int64_t> r(*gpu, report);
  ASSERT_OK(alone.call({r.dl()}, {y->dl()}));
  moe_rt_statistics_t result;
  ASSERT_OK(moe_rt_layer_statistics(alone.layer, 0, &result));
  EXPECT_EQ(tokensOf(result), (std::vector<int64_t>{1, 0, 3}));
  EXPECT_EQ(result.choices, 4);
  EXPECT_EQ(result.dropped, 0);
  // What cannot be wrong need not be looked at.
  moe_rt_layer_enable_statistics(alone.layer, 0);
  ASSERT_OK(alone.call({r.dl()}, {y->dl()}));
  ASSERT_OK(moe_rt_layer_statistics(alone.layer, 0, &result));
  EXPECT_EQ(result.calls, 1);
  moe_rt_layer_enable_statistics(alone.layer, 1);
  r.data()[1] = 5;
  r.upload();
  EXPECT_ERROR(alone.call({r.dl()}, {y->dl()}), MOE_RT_INTERNAL,
               "the code reported 4 choices and 4 kept rows");
}

/// Ids out of range are found all the same.
TEST_F(CudaReportTest, ChecksWhenDisabled) {
  moe_rt_layer_enable_statistics(jit->layer, 0);
  EXPECT_ERROR(call({0, 0, 0, 0, 0, 3, 0}), MOE_RT_INVALID_ARGUMENT,
               "3 expert ids outside [0, 3)");
}

TEST_F(CudaReportTest, SeveralDispatches) {
  DeviceJit two(options());
  two.load(json("r", "input", "i64", 6) + ", " +
               json("s", "input", "i64", 1003) + ", " +
               json("y", "output", "f32", -1) + ", " +
               json("o", "offsets", "i32", 4) + ", " +
               json("c", "counters", "i64", 2) + ", " +
               json("p", "offsets", "i32", 1001) + ", " +
               json("d", "counters", "i64", 2) +
               R"(], "dispatches": [
                    {"num_experts": 3, "offsets": "o", "counters": "c"},
                    {"num_experts": 1000, "offsets": "p", "counters": "d"})",
           reportingEntry<2>);
  two.create();
  ASSERT_EQ(moe_rt_layer_dispatch_count(two.layer), 2u);
  Array<int64_t> first({6}, {kDLInt, 64, 1}), second({1003}, {kDLInt, 64, 1});
  first.data = {0, 1, 1, 4, 6, 0};
  for (size_t i = 0; i <= 1000; ++i)
    second.data[i] = static_cast<int64_t>(2 * i);
  second.data[1001] = 2000;
  DeviceArray<int64_t> r(*gpu, first), s(*gpu, second);
  ASSERT_OK(two.call({r.dl(), s.dl()}, {y->dl()}));
  moe_rt_statistics_t result;
  ASSERT_OK(moe_rt_layer_statistics(two.layer, 0, &result));
  EXPECT_EQ(tokensOf(result), (std::vector<int64_t>{1, 0, 3}));
  EXPECT_EQ(result.padding, 0);
  ASSERT_OK(moe_rt_layer_statistics(two.layer, 1, &result));
  EXPECT_EQ(tokensOf(result), std::vector<int64_t>(1000, 2));
  EXPECT_EQ(result.dropped, 0);
  EXPECT_EQ(result.top_k, 0);

  // An error of the second keeps the first from being counted.
  s.data()[1002] = 8;
  s.upload();
  EXPECT_ERROR(two.call({r.dl(), s.dl()}, {y->dl()}), MOE_RT_INVALID_ARGUMENT,
               "dispatch 1: 8 expert ids outside [0, 1000)");
  s.data()[1002] = 0;
  s.data()[900] = 1; // one that descends, far from where a block begins
  s.upload();
  EXPECT_ERROR(two.call({r.dl(), s.dl()}, {y->dl()}), MOE_RT_INTERNAL,
               "dispatch 1: the code reported 2000 choices and 2000 kept rows");
  ASSERT_OK(moe_rt_layer_statistics(two.layer, 0, &result));
  EXPECT_EQ(result.calls, 1);
}

TEST_F(CudaReportTest, ErrorsThatLast) {
  if (!isDouble())
    GTEST_SKIP() << "the tests that follow would have no device";
  DeviceJit broken(options());
  broken.load(scaleArguments,
              [](void **, const moe_rt_launcher_t *launcher) -> int32_t {
                return launcher->launch(launcher->user, faultKernel, 1, 1, 1,
                                        nullptr, 0);
              });
  broken.create();
  {
    DeviceArray<float> x(*gpu, f32({1, 4})), z(*gpu, f32({1, 4}));
    EXPECT_ERROR(broken.call({x.dl()}, {z.dl()}), MOE_RT_INTERNAL,
                 "cannot run function 'f': CUDA_ERROR_ILLEGAL_ADDRESS (");
    for (int i = 0; i < 2; ++i)
      EXPECT_ERROR(moe_rt_layer_poll(jit->layer), MOE_RT_INTERNAL,
                   "cannot use the device any more: "
                   "CUDA_ERROR_ILLEGAL_ADDRESS (");
    EXPECT_ERROR(broken.enqueue(nullptr, {x.dl()}, {z.dl()}), MOE_RT_INTERNAL,
                 "CUDA_ERROR_ILLEGAL_ADDRESS (");
  }
}

} // namespace
