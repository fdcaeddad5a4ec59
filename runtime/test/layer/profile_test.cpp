//===- profile_test.cpp - Times of the stages of a layer ------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "testing.h"

#include "moe_rt/abi.h"

#include <atomic>
#include <chrono>
#include <numeric>
#include <thread>

using namespace moe::test;

namespace {

/// The stages that the next call of the code begins, and how long each takes.
std::vector<std::pair<int64_t, std::chrono::microseconds>> script;
std::atomic<bool> asked;
int32_t resultCode;

int32_t stagedEntry(void **, const moe_rt_tasks_t *tasks) {
  EXPECT_GE(tasks->executor.concurrency, 1);
  asked = tasks->begin_stage != nullptr;
  for (auto [stage, duration] : script) {
    if (asked)
      tasks->begin_stage(tasks->profile, stage);
    std::this_thread::sleep_for(duration);
  }
  return resultCode;
}

int64_t noWorkspace(int64_t) { return 0; }

void *resolveStaged(void *, const char *symbol) {
  return std::string(symbol) == "moe_entry_double"
             ? reinterpret_cast<void *>(stagedEntry)
             : reinterpret_cast<void *>(noWorkspace);
}

constexpr const char *stagesOf =
    R"(, "stages": [{"name": "gate", "kernels": []},
       {"name": "grouped_matmul", "kernels": ["f32_6x2x16", "f32_1x2x16"]}])";

class ProfileTest : public ::testing::Test {
protected:
  void SetUp() override {
    std::string metadata = metadataOf({std::string(doubleFunction) + stagesOf});
    ASSERT_OK(moe_rt_module_create(context, metadata.data(), metadata.size(),
                                   resolveStaged, nullptr, &module));
    ASSERT_OK(moe_rt_layer_create(module, nullptr, nullptr, 0, &layer));
    resultCode = 0;
    using std::chrono::microseconds;
    script = {{0, microseconds(1000)}, {1, microseconds(3000)}};
  }
  ~ProfileTest() override {
    moe_rt_layer_destroy(layer);
    moe_rt_module_destroy(module);
  }

  moe_rt_status_t call(int64_t tokens = 2) {
    Array<float> x = f32({tokens, 4}, 1), y = f32({tokens, 4});
    DLTensor input = x.dl(), output = y.dl();
    return moe_rt_layer_call(layer, &input, 1, &output, 1, nullptr, 0);
  }
  moe_rt_stage_profile_t read(size_t stage) {
    moe_rt_stage_profile_t out = {};
    EXPECT_OK(moe_rt_layer_profile(layer, stage, &out));
    return out;
  }

  Context context;
  moe_rt_module_t *module = nullptr;
  moe_rt_layer_t *layer = nullptr;
};

} // namespace

TEST_F(ProfileTest, TimesStages) {
  ASSERT_EQ(moe_rt_layer_stage_count(layer), 2u);
  ASSERT_OK(moe_rt_layer_enable_profile(layer, 1));
  for (int i = 0; i < 5; ++i)
    EXPECT_OK(call());
  EXPECT_TRUE(asked);
  moe_rt_stage_profile_t gate = read(0), matmul = read(1),
                         whole = read(MOE_RT_WHOLE_CALL);
  EXPECT_STREQ(gate.name, "gate");
  EXPECT_STREQ(gate.kernels, "");
  EXPECT_STREQ(matmul.name, "grouped_matmul");
  EXPECT_STREQ(matmul.kernels, "f32_6x2x16, f32_1x2x16");
  EXPECT_STREQ(whole.name, "call");
  for (const auto &each : {gate, matmul, whole}) {
    EXPECT_EQ(each.calls, 5);
    EXPECT_EQ(each.runs, 5);
    ASSERT_EQ(each.sample_count, 5u);
    EXPECT_EQ(std::accumulate(each.samples, each.samples + 5, int64_t(0)),
              each.total_nanoseconds);
  }
  // No stage is shorter than what it slept.
  for (int i = 0; i < 5; ++i) {
    EXPECT_GE(gate.samples[i], 1000000);
    EXPECT_GE(matmul.samples[i], 3000000);
    EXPECT_GE(whole.samples[i], gate.samples[i] + matmul.samples[i]);
  }
}

TEST_F(ProfileTest, IsOffUnlessEnabled) {
  EXPECT_OK(call());
  EXPECT_FALSE(asked);
  EXPECT_EQ(read(0).calls, 0);
  EXPECT_EQ(read(0).sample_count, 0u);
  ASSERT_OK(moe_rt_layer_enable_profile(layer, 1));
  EXPECT_OK(call());
  ASSERT_OK(moe_rt_layer_enable_profile(layer, 0));
  EXPECT_OK(call());
  EXPECT_FALSE(asked);
  EXPECT_EQ(read(0).calls, 1);
  moe_rt_layer_reset_profile(layer);
  EXPECT_EQ(read(0).calls, 0);
  EXPECT_EQ(read(MOE_RT_WHOLE_CALL).total_nanoseconds, 0);
}

TEST_F(ProfileTest, CountsRunsOfChunks) {
  ASSERT_OK(moe_rt_layer_enable_profile(layer, 1));
  using std::chrono::microseconds;
  script = {
      {0, microseconds(1000)}, {1, microseconds(0)}, {0, microseconds(1000)}};
  EXPECT_OK(call());
  EXPECT_EQ(read(0).calls, 1);
  EXPECT_GE(read(0).samples[0], 2000000);
  EXPECT_EQ(read(0).runs, 2);
  EXPECT_EQ(read(1).runs, 1);
  // A stage that did not run is in no call.
  script = {{1, microseconds(0)}};
  EXPECT_OK(call());
  EXPECT_EQ(read(0).calls, 1);
  EXPECT_EQ(read(1).calls, 2);
}

TEST_F(ProfileTest, KeepsTheLastSamples) {
  ASSERT_OK(moe_rt_layer_enable_profile(layer, 1));
  script = {{0, std::chrono::microseconds(0)}};
  for (int i = 0; i < 5000; ++i)
    EXPECT_OK(call());
  EXPECT_EQ(read(0).calls, 5000);
  EXPECT_EQ(read(0).sample_count, 4096u);
}

TEST_F(ProfileTest, IgnoresStagesThatDoNotExist) {
  ASSERT_OK(moe_rt_layer_enable_profile(layer, 1));
  using std::chrono::microseconds;
  script = {{2, microseconds(0)},
            {-1, microseconds(0)},
            {INT64_MAX, microseconds(0)},
            {0, microseconds(0)},
            {INT64_MIN, microseconds(0)}};
  EXPECT_OK(call());
  EXPECT_EQ(read(0).runs, 1);
  EXPECT_EQ(read(1).runs, 0);
}

TEST_F(ProfileTest, LeavesOutCallsThatFail) {
  ASSERT_OK(moe_rt_layer_enable_profile(layer, 1));
  resultCode = 3;
  EXPECT_ERROR(call(), MOE_RT_INTERNAL, "failed with code 3");
  EXPECT_EQ(read(MOE_RT_WHOLE_CALL).calls, 0);
}

TEST_F(ProfileTest, MayBeReadWhileCallsRun) {
  ASSERT_OK(moe_rt_layer_enable_profile(layer, 1));
  script = {{0, std::chrono::microseconds(0)}};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i)
    threads.emplace_back([&] {
      for (int j = 0; j < 200; ++j)
        EXPECT_OK(call());
    });
  for (int i = 0; i < 100; ++i) {
    read(0);
    EXPECT_OK(moe_rt_layer_enable_profile(layer, 1));
  }
  for (std::thread &thread : threads)
    thread.join();
  EXPECT_EQ(read(0).calls, 600);
}

TEST_F(ProfileTest, RefusesWhatDoesNotExist) {
  moe_rt_stage_profile_t out;
  EXPECT_ERROR(moe_rt_layer_profile(layer, 2, &out), MOE_RT_INVALID_ARGUMENT,
               "layer has 2 stages, there is no stage 2");
  EXPECT_ERROR(moe_rt_layer_profile(layer, 0, nullptr), MOE_RT_INVALID_ARGUMENT,
               "an argument is NULL");
  EXPECT_ERROR(moe_rt_layer_profile(nullptr, 0, &out), MOE_RT_INVALID_ARGUMENT,
               "an argument is NULL");
  EXPECT_ERROR(moe_rt_layer_enable_profile(nullptr, 1), MOE_RT_INVALID_ARGUMENT,
               "'layer' is NULL");
  EXPECT_EQ(moe_rt_layer_stage_count(nullptr), 0u);
  moe_rt_layer_reset_profile(nullptr);
}
