//===- prepare_test.cpp - Weights that are prepared -----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "testing.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <numeric>
#include <thread>

using namespace moe::test;

namespace {

class PrepareTest : public ::testing::Test {
protected:
  PrepareTest() {
    std::iota(gate.data.begin(), gate.data.end(), 1.f);
    std::iota(up.data.begin(), up.data.end(), 0.5f);
    std::iota(bias.data.begin(), bias.data.end(), 100.f);
  }
  ~PrepareTest() override { close(); }

  void close() {
    moe_rt_layer_destroy(layer);
    moe_rt_module_destroy(module);
    moe_rt_context_destroy(context);
    layer = nullptr;
    module = nullptr;
    context = nullptr;
  }
  void load(const moe_rt_context_options_t *options = nullptr) {
    std::string bytes = makeArtifact(
        readFile(FIXTURE), metadataOf({packFunction, packedFunction}));
    close();
    ASSERT_OK(moe_rt_context_create(options, &context));
    ASSERT_OK(moe_rt_module_load_memory(context, bytes.data(), bytes.size(),
                                        &module));
  }
  moe_rt_status_t create() {
    DLTensor weights[] = {gate.dl(), up.dl(), bias.dl()};
    return moe_rt_layer_create(module, nullptr, weights, 3, &layer);
  }
  moe_rt_status_t update(DLTensor up, size_t count = 3) {
    DLTensor weights[] = {gate.dl(), up, bias.dl()};
    return moe_rt_layer_update(layer, weights, count);
  }
  /// Call the layer and compare with what it is to compute, with the weights
  /// of the test, `up` times a factor.
  void expectRuns(float factor = 1) {
    Array<float> x = f32({5, 4}), y = f32({5, 4}), expected = f32({5, 4});
    std::iota(x.data.begin(), x.data.end(), -3.f);
    for (size_t i = 0; i < 20; ++i) {
      float scale = 0;
      for (size_t e = 0; e < 3; ++e)
        scale += (1 + static_cast<float>(4 * e + i % 4)) * factor *
                 (0.5f + static_cast<float>(4 * e + i % 4));
      expected.data[i] = scale * x.data[i] + 100 + static_cast<float>(i % 4);
    }
    DLTensor in = x.dl(), out = y.dl();
    ASSERT_OK(moe_rt_layer_call(layer, &in, 1, &out, 1, nullptr, 0));
    EXPECT_EQ(y.data, expected.data);
  }

  Array<float> gate = f32({3, 4}), up = f32({3, 4}), bias = f32({4});
  moe_rt_context_t *context = nullptr;
  moe_rt_module_t *module = nullptr;
  moe_rt_layer_t *layer = nullptr;
};

TEST_F(PrepareTest, TheFunctionThatPreparesIsNotSeen) {
  load();
  ASSERT_EQ(moe_rt_module_function_count(module), 1u);
  EXPECT_STREQ(moe_rt_module_function_name(module, 0), "packed");
  EXPECT_EQ(moe_rt_module_function_name(module, 1), nullptr);
  size_t count;
  EXPECT_OK(
      moe_rt_function_tensor_count(module, nullptr, MOE_RT_WEIGHT, &count));
  EXPECT_EQ(count, 3u);
  EXPECT_ERROR(
      moe_rt_function_tensor_count(module, "pack", MOE_RT_INPUT, &count),
      MOE_RT_NOT_FOUND, "no function 'pack'; it has: 'packed'");
  moe_rt_tensor_info_t info;
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_OK(
        moe_rt_function_tensor_info(module, nullptr, MOE_RT_WEIGHT, i, &info));
    EXPECT_EQ(info.retained, i == 2) << info.name;
  }
}

TEST_F(PrepareTest, FromTensors) {
  for (int64_t threads : {1, 2, 5}) {
    CountingAllocator allocator;
    moe_rt_context_options_t options = allocator.options();
    options.num_threads = threads;
    load(&options);
    ASSERT_OK(create());
    EXPECT_EQ(allocator.live, 1u) << "only what is prepared stays";
    EXPECT_EQ(moe_rt_layer_weight_bytes(layer), 96u);
    // Calls read the bias where it is, and nothing of the others.
    Array<float> kept[] = {gate, up};
    std::fill(gate.data.begin(), gate.data.end(), -1.f);
    std::fill(up.data.begin(), up.data.end(), -1.f);
    expectRuns();
    bias.data[0] = -5;
    Array<float> x = f32({1, 4}), y = f32({1, 4});
    DLTensor in = x.dl(), out = y.dl();
    ASSERT_OK(moe_rt_layer_call(layer, &in, 1, &out, 1, nullptr, 0));
    EXPECT_EQ(y.data[0], -5);
    bias.data[0] = 100;
    gate = kept[0];
    up = kept[1];
    close();
    EXPECT_EQ(allocator.live, 0u);
  }
}

TEST_F(PrepareTest, Update) {
  for (int64_t threads : {1, 2, 5}) {
    CountingAllocator allocator;
    moe_rt_context_options_t options = allocator.options();
    options.num_threads = threads;
    load(&options);
    ASSERT_OK(create());
    expectRuns();
    // Only what a preparation works with is allocated, and a call's workspace
    // is there.
    size_t before = allocator.allocations, live = allocator.live;
    Array<float> twice = up;
    for (float &value : twice.data)
      value *= 2;
    {
      Array<float> bias = this->bias;
      std::swap(bias.data, this->bias.data); // retained: at another address
      std::thread([&] { ASSERT_OK(update(twice.dl())); }).join();
      std::fill(bias.data.begin(), bias.data.end(), -1.f);
    }
    std::fill(twice.data.begin(), twice.data.end(), -1.f);
    EXPECT_EQ(allocator.live, live);
    EXPECT_LE(allocator.allocations - before, static_cast<size_t>(threads));
    EXPECT_EQ(moe_rt_layer_weight_bytes(layer), 96u);
    expectRuns(2);
    // The preparation works without allocating anything else.
    allocator.failAt = allocator.allocations;
    EXPECT_ERROR(update(up.dl()), MOE_RT_RESOURCE_EXHAUSTED, "workspace");
    DLTensor none = {};
    EXPECT_ERROR(moe_rt_layer_call(layer, &none, 1, &none, 1, nullptr, 0),
                 MOE_RT_FAILED_PRECONDITION,
                 "function 'packed': the layer has no weights, as "
                 "moe_rt_layer_update failed");
    ASSERT_OK(update(up.dl()));
    expectRuns();
    close();
    EXPECT_EQ(allocator.live, 0u);
  }
}

TEST_F(PrepareTest, UpdateRefusesAndChangesNothing) {
  load();
  ASSERT_OK(create());
  Array<float> other = f32({3, 5}), elsewhere = f32({3, 4});
  EXPECT_ERROR(update(other.dl()), MOE_RT_INVALID_ARGUMENT,
               "weight 'up': extent 1 is 5, expected 4");
  DLTensor half = elsewhere.dl();
  half.dtype.bits = 16;
  EXPECT_ERROR(update(half), MOE_RT_INVALID_ARGUMENT, "weight 'up'");
  EXPECT_ERROR(update(elsewhere.dl(), 2), MOE_RT_INVALID_ARGUMENT,
               "function 'packed': 2 weights are given, expected 3");
  EXPECT_ERROR(moe_rt_layer_update(layer, nullptr, 3), MOE_RT_INVALID_ARGUMENT,
               "the weights are NULL");
  EXPECT_ERROR(moe_rt_layer_update(nullptr, &half, 1), MOE_RT_INVALID_ARGUMENT,
               "'layer' is NULL");
  expectRuns();
}

TEST_F(PrepareTest, AllocatorFailures) {
  CountingAllocator allocator;
  moe_rt_context_options_t options = allocator.options();
  load(&options);
  ASSERT_OK(create());
  moe_rt_layer_destroy(layer);
  layer = nullptr;
  size_t needed = allocator.allocations;
  EXPECT_GE(needed, 2u); // what is prepared, and a workspace
  for (size_t i = 0; i < needed; ++i) {
    allocator.failAt = allocator.allocations + i;
    EXPECT_ERROR(create(), MOE_RT_RESOURCE_EXHAUSTED, "cannot allocate");
    EXPECT_EQ(allocator.live, 0u);
    EXPECT_EQ(layer, nullptr);
  }
  allocator.failAt = allocator.allocations;
  EXPECT_ERROR(create(), MOE_RT_RESOURCE_EXHAUSTED,
               "cannot allocate 96 bytes for the prepared weight 'both'");
}

TEST_F(PrepareTest, OutputsMayNotOverlapIt) {
  // The address of the prepared weight is known to the allocator alone.
  struct Watch {
    static void *allocate(void *user, size_t bytes, size_t alignment) {
      void *memory = std::aligned_alloc(alignment, (bytes + 127) / 64 * 64);
      if (bytes == 96)
        *static_cast<void **>(user) = memory;
      return memory;
    }
    static void release(void *, void *memory, size_t) { std::free(memory); }
  };
  void *prepared = nullptr;
  moe_rt_context_options_t options = {
      sizeof(options),
      {&prepared, Watch::allocate, Watch::release},
      1,
      nullptr,
      {}};
  load(&options);
  ASSERT_OK(create());
  ASSERT_NE(prepared, nullptr);
  Array<float> x = f32({1, 4}), y = f32({1, 4});
  DLTensor in = x.dl(), out = y.dl();
  out.data = prepared;
  EXPECT_ERROR(moe_rt_layer_call(layer, &in, 1, &out, 1, nullptr, 0),
               MOE_RT_INVALID_ARGUMENT, "overlaps prepared 'both'");
}

/// A source of the weights of the test, which remembers what was read.
struct Source {
  const std::vector<Array<float> *> weights;
  int32_t fail = 0; // what reading expert 1 of `up` returns
  std::mutex mutex = {};
  std::vector<std::vector<int64_t>> reads = {};

  static int32_t read(void *user, size_t weight, int64_t first, int64_t count,
                      void *data, uint64_t bytes) {
    auto *source = static_cast<Source *>(user);
    std::lock_guard<std::mutex> lock(source->mutex);
    source->reads.push_back({static_cast<int64_t>(weight), first, count});
    if (weight == 1 && first == 1 && source->fail)
      return source->fail;
    const Array<float> &array = *source->weights[weight];
    size_t row =
        array.data.size() / static_cast<size_t>(array.shape[0]) * sizeof(float);
    EXPECT_EQ(bytes, static_cast<size_t>(count) * row);
    std::memcpy(data,
                reinterpret_cast<const char *>(array.data.data()) +
                    static_cast<size_t>(first) * row,
                bytes);
    return 0;
  }
};

TEST_F(PrepareTest, FromSource) {
  for (int64_t threads : {1, 3, 8}) {
    CountingAllocator allocator;
    moe_rt_context_options_t options = allocator.options();
    options.num_threads = threads;
    load(&options);
    Source source{{&gate, &up, &bias}};
    ASSERT_OK(moe_rt_layer_create_from_source(module, nullptr, Source::read,
                                              &source, &layer));
    EXPECT_EQ(allocator.live, 2u) << "what is prepared, and the bias";
    EXPECT_EQ(moe_rt_layer_weight_bytes(layer), 96u + 16u);
    // The bias as a whole, the others expert by expert.
    std::sort(source.reads.begin(), source.reads.end());
    EXPECT_ERROR(update(up.dl()), MOE_RT_FAILED_PRECONDITION,
                 "function 'packed': the layer keeps weights of a source");
    EXPECT_EQ(source.reads, (std::vector<std::vector<int64_t>>{{0, 0, 1},
                                                               {0, 1, 1},
                                                               {0, 2, 1},
                                                               {1, 0, 1},
                                                               {1, 1, 1},
                                                               {1, 2, 1},
                                                               {2, 0, 4}}));
    expectRuns();
    close();
    EXPECT_EQ(allocator.live, 0u);
  }
}

TEST_F(PrepareTest, SourceFails) {
  for (int64_t threads : {1, 3}) {
    CountingAllocator allocator;
    moe_rt_context_options_t options = allocator.options();
    options.num_threads = threads;
    load(&options);
    Source source{{&gate, &up, &bias}, 7};
    EXPECT_ERROR(moe_rt_layer_create_from_source(module, nullptr, Source::read,
                                                 &source, &layer),
                 MOE_RT_NOT_FOUND,
                 "weight 'up': the source failed with code 7 to read 1 "
                 "elements of its first dimension from 1 on");
    EXPECT_EQ(layer, nullptr);
    EXPECT_EQ(allocator.live, 0u);
  }
  EXPECT_ERROR(moe_rt_layer_create_from_source(module, nullptr, nullptr,
                                               nullptr, &layer),
               MOE_RT_INVALID_ARGUMENT, "NULL");
  EXPECT_EQ(moe_rt_layer_weight_bytes(nullptr), 0u);
}

//===----------------------------------------------------------------------===//
// Code of this process
//===----------------------------------------------------------------------===//

struct Memref {
  void *allocated, *aligned;
  int64_t offset;
  int64_t dims[8];
};

using Entry = int32_t (*)(void **, const moe_rt_executor_t *);

/// A layer of a function 'f' of one weight w and the prepared p, which the
/// function 'g' makes. The entry of 'f' is never called.
class Packing {
public:
  Packing(const std::string &weight, const std::string &prepared,
          const std::string &input, const std::string &output, Entry entry,
          int64_t workspace = 0,
          const moe_rt_context_options_t *options = nullptr)
      : context(options), entry(entry) {
    bytes = workspace;
    std::string tokens = R"("tokens": {"min": 1, "max": 100000})";
    std::string text = metadataOf(
        {R"("name": "f", "entry": "f", "workspace": "w", )" + tokens +
             R"(, "arguments": [{"name": "w", "role": "weight", )" + weight +
             R"(, "retained": false}, {"name": "p", "role": "prepared", )" +
             prepared + R"(, "prepare": "g", "sources": ["w"]}])",
         R"("name": "g", "prepares": "f", "entry": "g", "workspace": "w", )" +
             tokens + R"(, "arguments": [{"name": "i", "role": "input", )" +
             input + R"(}, {"name": "o", "role": "output", )" + output + "}]"});
    EXPECT_OK(moe_rt_module_create(context, text.data(), text.size(), resolve,
                                   this, &module));
  }
  ~Packing() {
    moe_rt_layer_destroy(layer);
    moe_rt_module_destroy(module);
  }
  moe_rt_status_t create(DLTensor weight) {
    return moe_rt_layer_create(module, nullptr, &weight, 1, &layer);
  }

  Context context;
  moe_rt_module_t *module = nullptr;
  moe_rt_layer_t *layer = nullptr;

private:
  static void *resolve(void *user, const char *symbol) {
    Workspace workspace = [](int64_t) { return bytes; };
    return *symbol == 'w'
               ? reinterpret_cast<void *>(workspace)
               : reinterpret_cast<void *>(static_cast<Packing *>(user)->entry);
  }

  using Workspace = int64_t (*)(int64_t);
  Entry entry;
  static int64_t bytes;
};

int64_t Packing::bytes;

TEST(PackingTest, AWeightWithoutExperts) {
  // [N, K] is seen as [1, N, K], with all threads for the code.
  static int64_t seen[6], concurrency;
  Entry entry = [](void **args, const moe_rt_executor_t *executor) {
    auto *in = static_cast<Memref *>(args[0]);
    auto *out = static_cast<Memref *>(args[1]);
    std::memcpy(seen, in->dims, sizeof(seen));
    concurrency = executor->concurrency;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(out->aligned) % 128, 0u);
    EXPECT_EQ(out->dims[0], 1);
    return 0;
  };
  moe_rt_context_options_t options = {sizeof(options), {}, 3, nullptr, {}};
  Packing packing(R"("dtype": "f32", "shape": [2, 3])",
                  R"("dtype": "i8", "shape": [1, 5], "alignment": 128)",
                  R"("dtype": "f32", "shape": [-1, 2, 3])",
                  R"("dtype": "i8", "shape": [-1, 5], "alignment": 128)", entry,
                  0, &options);
  Array<float> weight = f32({2, 3});
  ASSERT_OK(packing.create(weight.dl()));
  EXPECT_EQ(std::vector<int64_t>(seen, seen + 6),
            (std::vector<int64_t>{1, 2, 3, 6, 3, 1}));
  EXPECT_EQ(concurrency, 3);
  moe_rt_layer_destroy(packing.layer);
  packing.layer = nullptr;
  // Its first dimension is read as a whole.
  auto read = [](void *, size_t weight, int64_t first, int64_t count, void *,
                 uint64_t bytes) -> int32_t {
    return weight == 0 && first == 0 && count == 2 && bytes == 24 ? 0 : 1;
  };
  EXPECT_OK(moe_rt_layer_create_from_source(packing.module, nullptr, read,
                                            nullptr, &packing.layer));
}

TEST(PackingTest, EveryExpertOnceInHugePages) {
  static constexpr int64_t experts = 100, size = 30000;
  Entry entry = [](void **args, const moe_rt_executor_t *) {
    auto *in = static_cast<Memref *>(args[0]);
    auto *out = static_cast<Memref *>(args[1]);
    auto *workspace = static_cast<Memref *>(args[2]);
    EXPECT_EQ(workspace->dims[0], size);
    // Two tasks that shared a workspace would race.
    auto bytes = static_cast<size_t>(in->dims[0] * size);
    std::memcpy(workspace->aligned, in->aligned, bytes);
    auto *target = static_cast<int8_t *>(out->aligned);
    for (size_t i = 0; i < bytes; ++i)
      target[i] = static_cast<int8_t>(
          target[i] + static_cast<int8_t *>(workspace->aligned)[i]);
    return 0;
  };
  struct Zeroed {
    static void *allocate(void *user, size_t bytes, size_t alignment) {
      void *memory = nullptr;
      if (posix_memalign(&memory, alignment, bytes) != 0)
        return nullptr;
      std::memset(memory, 0, bytes);
      if (bytes == experts * size) {
        EXPECT_EQ(alignment, size_t(2) << 20);
        *static_cast<void **>(user) = memory;
      }
      return memory;
    }
    static void release(void *, void *memory, size_t) { std::free(memory); }
  };
  void *result = nullptr;
  moe_rt_context_options_t options = {
      sizeof(options),
      {&result, Zeroed::allocate, Zeroed::release},
      4,
      nullptr,
      {}};
  Packing packing(R"("dtype": "i8", "shape": [100, 30000])",
                  R"("dtype": "i8", "shape": [100, 30000])",
                  R"("dtype": "i8", "shape": [-1, 30000])",
                  R"("dtype": "i8", "shape": [-1, 30000])", entry, size,
                  &options);
  Array<int8_t> weight({experts, size}, {kDLInt, 8, 1});
  for (size_t i = 0; i < weight.data.size(); ++i)
    weight.data[i] = static_cast<int8_t>(i % 127);
  ASSERT_OK(packing.create(weight.dl()));
  ASSERT_NE(result, nullptr);
  EXPECT_EQ(std::memcmp(result, weight.data.data(), weight.data.size()), 0);
  EXPECT_EQ(moe_rt_layer_weight_bytes(packing.layer), weight.data.size());
  moe_rt_layer_destroy(packing.layer);
  packing.layer = nullptr;
  // The default allocator gives as much.
  Packing plain(R"("dtype": "i8", "shape": [100, 30000])",
                R"("dtype": "i8", "shape": [100, 30000])",
                R"("dtype": "i8", "shape": [-1, 30000])",
                R"("dtype": "i8", "shape": [-1, 30000])", entry, size);
  EXPECT_OK(plain.create(weight.dl()));
}

TEST(PackingTest, FailureOfTheCode) {
  static std::atomic<int> calls;
  calls = 0;
  Entry entry = [](void **, const moe_rt_executor_t *) {
    return ++calls == 3 ? 5 : 0;
  };
  auto failing = [&](int64_t threads, int64_t workspace) {
    calls = 0;
    moe_rt_context_options_t options = {
        sizeof(options), {}, threads, nullptr, {}};
    Packing packing(R"("dtype": "f32", "shape": [50, 2])",
                    R"("dtype": "f32", "shape": [50, 2])",
                    R"("dtype": "f32", "shape": [-1, 2])",
                    R"("dtype": "f32", "shape": [-1, 2])", entry, workspace,
                    &options);
    Array<float> weight = f32({50, 2});
    return packing.create(weight.dl());
  };
  for (int64_t threads : {4, 1})
    EXPECT_ERROR(failing(threads, 0), MOE_RT_INTERNAL,
                 "function 'g', which prepares 'p', failed with code 5");
  EXPECT_EQ(calls, 3) << "the others are left";
  {
    // A layer that is updated in vain has no weights.
    calls = 3;
    Packing packing(R"("dtype": "f32", "shape": [2, 2])",
                    R"("dtype": "f32", "shape": [2, 2])",
                    R"("dtype": "f32", "shape": [-1, 2])",
                    R"("dtype": "f32", "shape": [-1, 2])", entry);
    Array<float> weight = f32({2, 2});
    DLTensor dl = weight.dl();
    ASSERT_OK(packing.create(dl));
    calls = 1;
    EXPECT_ERROR(moe_rt_layer_update(packing.layer, &dl, 1), MOE_RT_INTERNAL,
                 "function 'g', which prepares 'p', failed with code 5");
    EXPECT_ERROR(
        moe_rt_layer_call(packing.layer, nullptr, 0, nullptr, 0, nullptr, 0),
        MOE_RT_FAILED_PRECONDITION, "the layer has no weights");
    EXPECT_OK(moe_rt_layer_update(packing.layer, &dl, 1));
  }
  EXPECT_ERROR(failing(1, -1), MOE_RT_INTERNAL,
               "function 'g': the code asks for a workspace of -1 bytes");
}

} // namespace
