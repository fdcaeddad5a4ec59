//===- dispatch_test.cpp - Statistics of dispatches -----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "testing.h"

#include <thread>

using namespace moe::test;

namespace {

struct Memref {
  void *allocated, *aligned;
  int64_t offset;
};

/// What the next call of the code reports.
struct Report {
  int32_t offsets[4];
  int64_t counters[3];
};
Report report;

int32_t reportingEntry(void **args, const moe_rt_executor_t *) {
  auto *offsets =
      static_cast<int32_t *>(static_cast<Memref *>(args[1])->aligned);
  auto *counters =
      static_cast<int64_t *>(static_cast<Memref *>(args[2])->aligned);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(offsets[i], 0) << "not cleared before the call";
    offsets[i] = report.offsets[i];
  }
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(counters[i], 0) << "not cleared before the call";
    counters[i] = report.counters[i];
  }
  return 0;
}

int64_t noWorkspace(int64_t) { return 0; }

void *resolveReporting(void *, const char *symbol) {
  return std::string(symbol) == "entry"
             ? reinterpret_cast<void *>(reportingEntry)
             : reinterpret_cast<void *>(noWorkspace);
}

class DispatchTest : public ::testing::Test {
protected:
  void SetUp() override {
    std::string bytes =
        makeArtifact(readFile(FIXTURE), metadataOf({layerFunction}));
    ASSERT_OK(moe_rt_module_load_memory(context, bytes.data(), bytes.size(),
                                        &module));
    DLTensor weight = w.dl();
    ASSERT_OK(moe_rt_layer_create(module, nullptr, &weight, 1, &layer));
  }
  ~DispatchTest() override {
    moe_rt_layer_destroy(layer);
    moe_rt_module_destroy(module);
  }

  moe_rt_status_t call(std::vector<int32_t> choices) {
    auto tokens = static_cast<int64_t>(choices.size() / 2);
    Array<float> x = f32({tokens, 4}, 1), y = f32({tokens, 4});
    Array<int32_t> ids = i32({tokens, 2});
    ids.data = std::move(choices);
    DLTensor inputs[] = {x.dl(), ids.dl()}, output = y.dl();
    return moe_rt_layer_call(layer, inputs, 2, &output, 1, nullptr, 0);
  }

  Context context;
  moe_rt_module_t *module = nullptr;
  moe_rt_layer_t *layer = nullptr;
  Array<float> w = f32({3, 4}, 2);
};

std::vector<int64_t> tokensOf(const moe_rt_statistics_t &statistics) {
  return {statistics.tokens_per_expert,
          statistics.tokens_per_expert + statistics.num_experts};
}

TEST_F(DispatchTest, Counts) {
  EXPECT_EQ(moe_rt_layer_dispatch_count(layer), 1u);
  moe_rt_statistics_t statistics;
  ASSERT_OK(moe_rt_layer_statistics(layer, 0, &statistics));
  EXPECT_EQ(statistics.num_experts, 3);
  EXPECT_EQ(statistics.top_k, 2);
  EXPECT_EQ(statistics.calls, 0);
  EXPECT_EQ(tokensOf(statistics), (std::vector<int64_t>{0, 0, 0}));

  ASSERT_OK(call({0, 1, 2, 1, 1, -1}));
  ASSERT_OK(moe_rt_layer_statistics(layer, 0, &statistics));
  EXPECT_EQ(tokensOf(statistics), (std::vector<int64_t>{1, 3, 1}));
  EXPECT_EQ(statistics.calls, 1);
  EXPECT_EQ(statistics.choices, 5);
  EXPECT_EQ(statistics.dropped, 0);
  EXPECT_EQ(statistics.padding, 0);

  // Expert 2 takes four.
  ASSERT_OK(call({2, 2, 2, 2, 2, 2, 2, -1}));
  ASSERT_OK(moe_rt_layer_statistics(layer, 0, &statistics));
  EXPECT_EQ(tokensOf(statistics), (std::vector<int64_t>{1, 3, 5}));
  EXPECT_EQ(statistics.calls, 2);
  EXPECT_EQ(statistics.choices, 12);
  EXPECT_EQ(statistics.dropped, 3);

  ASSERT_OK(call({})); // T = 0 is a call, too
  ASSERT_OK(moe_rt_layer_statistics(layer, 0, &statistics));
  EXPECT_EQ(statistics.calls, 3);
  EXPECT_EQ(statistics.choices, 12);

  moe_rt_layer_reset_statistics(layer);
  ASSERT_OK(moe_rt_layer_statistics(layer, 0, &statistics));
  EXPECT_EQ(tokensOf(statistics), (std::vector<int64_t>{0, 0, 0}));
  EXPECT_EQ(statistics.calls + statistics.choices + statistics.dropped, 0);
}

TEST_F(DispatchTest, RefusedCallsDoNotCount) {
  EXPECT_ERROR(call({0, 3}), MOE_RT_INVALID_ARGUMENT, "element 1 is 3");
  moe_rt_statistics_t statistics;
  ASSERT_OK(moe_rt_layer_statistics(layer, 0, &statistics));
  EXPECT_EQ(statistics.calls, 0);
  EXPECT_ERROR(moe_rt_layer_statistics(layer, 1, &statistics),
               MOE_RT_INVALID_ARGUMENT, "has 1 dispatches");
  EXPECT_ERROR(moe_rt_layer_statistics(nullptr, 0, &statistics),
               MOE_RT_INVALID_ARGUMENT, "NULL");
  EXPECT_EQ(moe_rt_layer_dispatch_count(nullptr), 0u);
  moe_rt_layer_reset_statistics(nullptr);
}

// Many experts, so that adding up takes long enough to be interrupted.
constexpr int32_t manyExperts = 4096;

int32_t evenEntry(void **args, const moe_rt_executor_t *) {
  auto *offsets =
      static_cast<int32_t *>(static_cast<Memref *>(args[1])->aligned);
  for (int32_t e = 0; e <= manyExperts; ++e)
    offsets[e] = e;
  *static_cast<int64_t *>(static_cast<Memref *>(args[2])->aligned) =
      manyExperts;
  return 0;
}

TEST(ConcurrentDispatchTest, AllCallsCount) {
  std::string text = metadataFor(R"(
      "name": "f", "entry": "entry", "workspace": "workspace",
      "tokens": {"min": 0, "max": 10}, "arguments": [
        {"name": "y", "role": "output", "dtype": "f32", "shape": [-1]},
        {"name": "o", "role": "offsets", "dtype": "i32", "shape": [4097]},
        {"name": "c", "role": "counters", "dtype": "i64", "shape": [2]}],
      "dispatches": [{"num_experts": 4096, "offsets": "o", "counters": "c"}])");
  auto resolve = [](void *, const char *symbol) {
    return std::string(symbol) == "entry"
               ? reinterpret_cast<void *>(evenEntry)
               : reinterpret_cast<void *>(noWorkspace);
  };
  Context context;
  moe_rt_module_t *module = nullptr;
  moe_rt_layer_t *layer = nullptr;
  ASSERT_OK(moe_rt_module_create(context, text.data(), text.size(), resolve,
                                 nullptr, &module));
  ASSERT_OK(moe_rt_layer_create(module, nullptr, nullptr, 0, &layer));
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (int j = 0; j < 5000; ++j) {
        Array<float> y = f32({2});
        DLTensor output = y.dl();
        EXPECT_OK(moe_rt_layer_call(layer, nullptr, 0, &output, 1, nullptr, 0));
      }
    });
  for (std::thread &thread : threads)
    thread.join();
  moe_rt_statistics_t statistics;
  ASSERT_OK(moe_rt_layer_statistics(layer, 0, &statistics));
  EXPECT_EQ(statistics.calls, 20000);
  EXPECT_EQ(tokensOf(statistics), std::vector<int64_t>(manyExperts, 20000));
  moe_rt_layer_destroy(layer);
  moe_rt_module_destroy(module);
}

int32_t offsetsEntry(void **args, const moe_rt_executor_t *) {
  auto *offsets =
      static_cast<int32_t *>(static_cast<Memref *>(args[1])->aligned);
  std::copy_n(report.offsets, 4, offsets);
  return 0;
}

/// A layer whose code reports what the test says.
class ReportTest : public ::testing::Test {
protected:
  void SetUp() override {
    create(R"({"name": "c", "role": "counters", "dtype": "i64", "shape": [3]})",
           R"("counters": "c")", resolveReporting);
  }
  void create(const std::string &argument, const std::string &dispatch,
              moe_rt_resolve_fn resolve) {
    auto with = [](const std::string &more) {
      return more.empty() ? "" : ", " + more;
    };
    std::string text = metadataFor(R"(
      "name": "f", "entry": "entry", "workspace": "workspace",
      "tokens": {"min": 0, "max": 10}, "arguments": [
        {"name": "y", "role": "output", "dtype": "f32", "shape": [-1]},
        {"name": "o", "role": "offsets", "dtype": "i32", "shape": [4]})" +
                                   with(argument) + R"(],
      "dispatches": [{"num_experts": 3, "offsets": "o")" +
                                   with(dispatch) + "}]");
    ASSERT_OK(moe_rt_module_create(context, text.data(), text.size(), resolve,
                                   nullptr, &module));
    ASSERT_OK(moe_rt_layer_create(module, nullptr, nullptr, 0, &layer));
  }
  ~ReportTest() override {
    moe_rt_layer_destroy(layer);
    moe_rt_module_destroy(module);
  }
  moe_rt_status_t call(const Report &next) {
    report = next;
    Array<float> y = f32({2});
    DLTensor output = y.dl();
    return moe_rt_layer_call(layer, nullptr, 0, &output, 1, nullptr, 0);
  }

  Context context;
  moe_rt_module_t *module = nullptr;
  moe_rt_layer_t *layer = nullptr;
};

class OffsetsAloneTest : public ReportTest {
protected:
  void SetUp() override {
    create("", "", [](void *, const char *symbol) {
      return std::string(symbol) == "entry"
                 ? reinterpret_cast<void *>(offsetsEntry)
                 : reinterpret_cast<void *>(noWorkspace);
    });
  }
};

/// Without counters every choice is a row.
TEST_F(OffsetsAloneTest, Counts) {
  ASSERT_OK(call({{0, 1, 1, 4}, {}}));
  moe_rt_statistics_t statistics;
  ASSERT_OK(moe_rt_layer_statistics(layer, 0, &statistics));
  EXPECT_EQ(tokensOf(statistics), (std::vector<int64_t>{1, 0, 3}));
  EXPECT_EQ(statistics.choices, 4);
  EXPECT_EQ(statistics.dropped, 0);
  EXPECT_ERROR(call({{0, 2, 1, 4}, {}}), MOE_RT_INTERNAL,
               "the code reported 4 choices");
}

TEST_F(OffsetsAloneTest, CountsNothingWhenDisabled) {
  moe_rt_statistics_t statistics;
  moe_rt_layer_enable_statistics(layer, 0);
  ASSERT_OK(call({{0, 1, 1, 4}, {}}));
  ASSERT_OK(moe_rt_layer_statistics(layer, 0, &statistics));
  EXPECT_EQ(statistics.calls, 0);
  EXPECT_EQ(statistics.choices, 0);
  moe_rt_layer_enable_statistics(layer, 1);
  ASSERT_OK(call({{0, 1, 1, 4}, {}}));
  ASSERT_OK(moe_rt_layer_statistics(layer, 0, &statistics));
  EXPECT_EQ(statistics.calls, 1);
  EXPECT_EQ(statistics.choices, 4);
  moe_rt_layer_enable_statistics(nullptr, 0);
}

TEST_F(ReportTest, CountsPadding) {
  ASSERT_OK(call({{0, 1, 1, 4}, {6, 0, 28}}));
  ASSERT_OK(call({{0, 0, 2, 2}, {2, 0, 30}}));
  moe_rt_statistics_t statistics;
  ASSERT_OK(moe_rt_layer_statistics(layer, 0, &statistics));
  EXPECT_EQ(tokensOf(statistics), (std::vector<int64_t>{1, 2, 3}));
  EXPECT_EQ(statistics.dropped, 2);
  EXPECT_EQ(statistics.padding, 58);
}

TEST_F(ReportTest, ReportsIdsOutOfRange) {
  EXPECT_ERROR(call({{0, 0, 0, 0}, {0, 3, 0}}), MOE_RT_INVALID_ARGUMENT,
               "3 expert ids outside [0, 3)");
}

TEST_F(ReportTest, RefusesNonsense) {
  const Report nonsense[] = {
      {{1, 1, 1, 1}, {4, 0, 0}},  // does not start at 0
      {{0, 2, 1, 3}, {4, 0, 0}},  // descends
      {{0, 1, 2, -1}, {4, 0, 0}}, // negative
      {{0, 1, 2, 3}, {2, 0, 0}},  // more kept than chosen
      {{0, 1, 2, 3}, {4, -1, 0}}, // fewer than none out of range
      {{0, 1, 2, 3}, {4, 0, -1}}, // fewer than no padding
  };
  for (const Report &next : nonsense)
    EXPECT_ERROR(call(next), MOE_RT_INTERNAL, "the code reported");
  moe_rt_statistics_t statistics;
  ASSERT_OK(moe_rt_layer_statistics(layer, 0, &statistics));
  EXPECT_EQ(statistics.calls, 0);
}

} // namespace
