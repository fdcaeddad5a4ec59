//===- weights_test.cpp - Weights on a device -----------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "cuda_testing.h"

#include <algorithm>
#include <numeric>

using namespace moe::test;

namespace {

/// y = 2 * w, as far as y goes.
int32_t weightEntry(void **args, const moe_rt_launcher_t *launcher) {
  auto count =
      static_cast<uint32_t>(static_cast<const Memref *>(args[1])->dims[0]);
  const moe_rt_kernel_argument_t arguments[] = {
      argument(args[0]), argument(args[1]), argument(count), argument(2.f)};
  return launcher->launch(launcher->user, scaleKernel, (count + 127) / 128, 1,
                          1, arguments, 4);
}

std::string weightArguments(const std::string &shape) {
  return R"({"name": "w", "role": "weight", "dtype": "f32", "shape": )" +
         shape + R"(},
            {"name": "y", "role": "output", "dtype": "f32", "shape": [-1]})";
}

/// A source of one weight, which remembers what was read.
struct Source {
  std::vector<float> values;
  int64_t failAt = -1; // reading from here on fails
  std::vector<std::pair<int64_t, int64_t>> reads = {};

  static int32_t read(void *user, size_t weight, int64_t first, int64_t count,
                      void *data, uint64_t bytes) {
    auto *source = static_cast<Source *>(user);
    EXPECT_EQ(weight, 0u);
    source->reads.emplace_back(first, count);
    if (first == source->failAt)
      return 5;
    size_t each = bytes / static_cast<size_t>(count);
    std::memcpy(data,
                reinterpret_cast<const char *>(source->values.data()) +
                    static_cast<size_t>(first) * each,
                bytes);
    return 0;
  }
};

class CudaWeightsTest : public CudaLayerTest {
protected:
  moe_rt_status_t createFrom(Source &source) {
    return moe_rt_layer_create_from_source(jit->module, "f", Source::read,
                                           &source, &jit->layer);
  }
  /// The first `count` elements of 2 * w.
  std::vector<float> call(int64_t count) {
    DeviceArray<float> y(*gpu, f32({count}));
    EXPECT_OK(jit->call({}, {y.dl()}));
    return y.download();
  }
};

TEST_F(CudaWeightsTest, AreReadWhereTheyAre) {
  jit->load(weightArguments("[3, 4]"), weightEntry);
  DeviceArray<float> w(*gpu, f32({3, 4}, 1.5f));
  jit->create({w.dl()});
  EXPECT_EQ(moe_rt_layer_weight_bytes(jit->layer), 0u);
  EXPECT_EQ(call(12), std::vector<float>(12, 3));
  w.data().assign(12, 4);
  w.upload();
  EXPECT_EQ(call(12), std::vector<float>(12, 8));
  // A call may not write there.
  EXPECT_ERROR(jit->call({}, {[&] {
                           DLTensor out = w.dl();
                           static int64_t shape[] = {4};
                           out.ndim = 1;
                           out.shape = shape;
                           return out;
                         }()}),
               MOE_RT_INVALID_ARGUMENT, "output 'y' overlaps weight 'w'");

  Array<float> host = f32({3, 4});
  DLTensor there = host.dl();
  moe_rt_layer_t *layer = nullptr;
  EXPECT_ERROR(moe_rt_layer_create(jit->module, "f", &there, 1, &layer),
               MOE_RT_INVALID_ARGUMENT,
               "weight 'w' is on the CPU, expected CUDA device 0");
}

TEST_F(CudaWeightsTest, FromASource) {
  jit->load(weightArguments("[3, 4]"), weightEntry);
  Source source = {std::vector<float>(12)};
  std::iota(source.values.begin(), source.values.end(), 1.f);
  ASSERT_OK(createFrom(source));
  EXPECT_EQ(moe_rt_layer_weight_bytes(jit->layer), 48u);
  EXPECT_EQ(source.reads, (std::vector<std::pair<int64_t, int64_t>>{{0, 3}}));
  std::vector<float> expected = source.values;
  for (float &value : expected)
    value *= 2;
  source.values.assign(12, 0); // the layer has its own
  EXPECT_EQ(call(12), expected);
}

TEST_F(CudaWeightsTest, FromASourceInPieces) {
  // Rows of 4 MiB, of which 32 MiB are read at once.
  jit->load(weightArguments("[10, 1048576]"), weightEntry);
  Source source = {std::vector<float>(10 << 20)};
  for (size_t i = 0; i < source.values.size(); ++i)
    source.values[i] = static_cast<float>(i >> 10);
  ASSERT_OK(createFrom(source));
  EXPECT_EQ(source.reads,
            (std::vector<std::pair<int64_t, int64_t>>{{0, 8}, {8, 2}}));
  EXPECT_EQ(moe_rt_layer_weight_bytes(jit->layer), uint64_t(40) << 20);
  // What the layer has, byte for byte, and not by a kernel: there is too much.
  static const void *data;
  DeviceJit probe(options());
  probe.load(weightArguments("[10, 1048576]"),
             [](void **args, const moe_rt_launcher_t *) -> int32_t {
               data = static_cast<const Memref *>(args[0])->aligned;
               return 0;
             });
  ASSERT_OK(moe_rt_layer_create_from_source(probe.module, "f", Source::read,
                                            &source, &probe.layer));
  DeviceArray<float> y(*gpu, f32({1}));
  ASSERT_OK(probe.call({}, {y.dl()}));
  std::vector<float> copy(source.values.size());
  cuda::ContextScope scope(*gpu->device);
  gpu->check(gpu->driver().cuMemcpyDtoH(copy.data(), cuda::deviceAddress(data),
                                        copy.size() * sizeof(float)));
  EXPECT_EQ(copy, source.values);
}

TEST_F(CudaWeightsTest, FromASourceASmallOneFirst) {
  jit->load(
      R"({"name": "v", "role": "weight", "dtype": "f32", "shape": [2]},)" +
          weightArguments("[3, 1000]"),
      [](void **args, const moe_rt_launcher_t *launcher) {
        return weightEntry(args + 1, launcher);
      });
  auto read = [](void *, size_t weight, int64_t, int64_t, void *data,
                 uint64_t bytes) -> int32_t {
    for (size_t i = 0; i < bytes / sizeof(float); ++i)
      static_cast<float *>(data)[i] = static_cast<float>(weight + i);
    return 0;
  };
  ASSERT_OK(moe_rt_layer_create_from_source(jit->module, "f", read, nullptr,
                                            &jit->layer));
  EXPECT_EQ(moe_rt_layer_weight_bytes(jit->layer), 12008u);
  std::vector<float> expected(3000);
  std::iota(expected.begin(), expected.end(), 1.f);
  for (float &value : expected)
    value *= 2;
  EXPECT_EQ(call(3000), expected);
}

TEST_F(CudaWeightsTest, ASourceThatFails) {
  jit->load(weightArguments("[3, 4]"), weightEntry);
  Source source = {std::vector<float>(12), 0};
  EXPECT_ERROR(createFrom(source), MOE_RT_NOT_FOUND,
               "weight 'w': the source failed with code 5 to read 3 elements "
               "of its first dimension from 0 on");
  EXPECT_EQ(jit->layer, nullptr);
}

TEST_F(CudaWeightsTest, OddShapes) {
  for (const char *shape : {"[]", "[0, 4]", "[7]"}) {
    DeviceJit each(options());
    each.load(weightArguments(shape),
              [](void **, const moe_rt_launcher_t *) { return int32_t(0); });
    Source source = {std::vector<float>(7)};
    SCOPED_TRACE(shape);
    EXPECT_OK(moe_rt_layer_create_from_source(each.module, "f", Source::read,
                                              &source, &each.layer));
  }
}

//===----------------------------------------------------------------------===//
// Prepared weights
//===----------------------------------------------------------------------===//

/// The layer's code: y = 2 * p, where p = 3 * w is prepared.
int32_t preparedEntry(void **args, const moe_rt_launcher_t *launcher) {
  if (static_cast<const Memref *>(args[0])->aligned)
    return 9; // nobody keeps w
  return weightEntry(args + 1, launcher);
}

int32_t prepareEntry(void **args, const moe_rt_launcher_t *launcher) {
  // By way of the workspace.
  auto count =
      static_cast<uint32_t>(4 * static_cast<const Memref *>(args[0])->dims[0]);
  const moe_rt_kernel_argument_t there[] = {
      argument(args[0]), argument(args[2]), argument(count), argument(3.f)};
  const moe_rt_kernel_argument_t back[] = {argument(args[2]), argument(args[1]),
                                           argument(count), argument(1.f)};
  if (int32_t code =
          launcher->launch(launcher->user, scaleKernel, 1, 1, 1, there, 4))
    return code;
  return launcher->launch(launcher->user, scaleKernel, 1, 1, 1, back, 4);
}

class CudaPreparationTest : public CudaWeightsTest {
protected:
  void SetUp() override {
    CudaWeightsTest::SetUp();
    if (!jit)
      return;
    jit->symbols["entry"] = reinterpret_cast<const void *>(preparedEntry);
    jit->symbols["workspace"] = reinterpret_cast<const void *>(
        static_cast<WorkspaceFn>([](int64_t) { return int64_t(0); }));
    jit->symbols["prepare"] = reinterpret_cast<const void *>(prepareEntry);
    jit->symbols["room"] = reinterpret_cast<const void *>(
        static_cast<WorkspaceFn>([](int64_t experts) { return 16 * experts; }));
    jit->symbols["image"] = testImage;
    ASSERT_OK(jit->load(metadataOfVariants({DeviceVariant().json(
        {R"("name": "f", "entry": "entry", "workspace": "workspace",
            "tokens": {"min": 0, "max": 100}, "arguments": [
              {"name": "w", "role": "weight", "dtype": "f32", "shape": [3, 4],
               "retained": false},
              {"name": "p", "role": "prepared", "dtype": "f32",
               "shape": [3, 4], "prepare": "g", "sources": ["w"],
               "alignment": 4096},
              {"name": "y", "role": "output", "dtype": "f32",
               "shape": [-1]}])",
         R"("name": "g", "prepares": "f", "entry": "prepare",
            "workspace": "room", "tokens": {"min": 1, "max": 3},
            "arguments": [
              {"name": "in", "role": "input", "dtype": "f32",
               "shape": [-1, 4]},
              {"name": "out", "role": "output", "dtype": "f32",
               "shape": [-1, 4]}])"})})));
  }
};

TEST_F(CudaPreparationTest, FromTensors) {
  {
    Array<float> values = f32({3, 4});
    std::iota(values.data.begin(), values.data.end(), 1.f);
    DeviceArray<float> w(*gpu, values);
    jit->create({w.dl()});
    w.data().assign(12, 0); // it may go
    w.upload();
  }
  EXPECT_EQ(moe_rt_layer_weight_bytes(jit->layer), 48u);
  std::vector<float> expected(12);
  for (size_t i = 0; i < 12; ++i)
    expected[i] = 6 * static_cast<float>(i + 1);
  EXPECT_EQ(call(12), expected);
}

TEST_F(CudaPreparationTest, Update) {
  Array<float> values = f32({3, 4});
  std::iota(values.data.begin(), values.data.end(), 1.f);
  DeviceArray<float> w(*gpu, values);
  jit->create({w.dl()});
  for (float &value : w.data())
    value *= 10;
  w.upload();
  DLTensor dl = w.dl();
  ASSERT_OK(moe_rt_layer_update(jit->layer, &dl, 1));
  EXPECT_EQ(moe_rt_layer_weight_bytes(jit->layer), 48u);
  std::vector<float> expected(12);
  for (size_t i = 0; i < 12; ++i)
    expected[i] = 60 * static_cast<float>(i + 1);
  EXPECT_EQ(call(12), expected);
  // What is refused changes nothing.
  DLTensor onHost = values.dl();
  EXPECT_ERROR(moe_rt_layer_update(jit->layer, &onHost, 1),
               MOE_RT_INVALID_ARGUMENT,
               "weight 'w' is on the CPU, expected CUDA device");
  EXPECT_EQ(call(12), expected);
  cuda::CUstream stream = gpu->newStream();
  {
    cuda::ContextScope scope(*gpu->device);
    gpu->check(gpu->function<int(cuda::CUstream, int)>(
        "cuStreamBeginCapture_v2")(stream, 0));
    EXPECT_ERROR(moe_rt_layer_update(jit->layer, &dl, 1),
                 MOE_RT_FAILED_PRECONDITION,
                 "weights cannot be replaced while a stream of the device is "
                 "captured");
    void *graph = nullptr;
    (void)gpu->function<int(cuda::CUstream, void **)>("cuStreamEndCapture")(
        stream, &graph);
  }
  EXPECT_EQ(call(12), expected);
}

TEST_F(CudaPreparationTest, FromASource) {
  Source source = {std::vector<float>(12, 2)};
  ASSERT_OK(createFrom(source));
  EXPECT_EQ(source.reads, (std::vector<std::pair<int64_t, int64_t>>{{0, 3}}));
  EXPECT_EQ(moe_rt_layer_weight_bytes(jit->layer), 48u);
  EXPECT_EQ(call(12), std::vector<float>(12, 12));
}

TEST_F(CudaPreparationTest, Alignment) {
  static int64_t address;
  Source source = {std::vector<float>(12, 2)};
  DeviceJit probe(options());
  probe.symbols = jit->symbols;
  probe.symbols["entry"] = reinterpret_cast<const void *>(
      static_cast<DeviceEntry>([](void **args, const moe_rt_launcher_t *) {
        address = reinterpret_cast<int64_t>(
            static_cast<const Memref *>(args[1])->aligned);
        return int32_t(0);
      }));
  ASSERT_OK(probe.load(moe_rt_module_metadata(jit->module)));
  ASSERT_OK(moe_rt_layer_create_from_source(probe.module, "f", Source::read,
                                            &source, &probe.layer));
  DeviceArray<float> y(*gpu, f32({1}));
  ASSERT_OK(probe.call({}, {y.dl()}));
  EXPECT_EQ(address % 4096, 0);
}

//===----------------------------------------------------------------------===//
// Too little memory
//===----------------------------------------------------------------------===//

TEST_F(CudaWeightsTest, TooLittleMemory) {
  if (!isDouble())
    GTEST_SKIP() << "a real device has more than a test may take";
  jit.reset();
  gpu.reset();
  Environment memory("MOE_CUDA_DOUBLE_MEMORY", "1000000");
  resetDouble();
  gpu = std::make_unique<Gpu>();
  ASSERT_TRUE(gpu->device) << gpu->reason;
  jit = std::make_unique<DeviceJit>(options());
  jit->load(weightArguments("[300, 1000]"), weightEntry,
            [](int64_t tokens) { return 10000 * tokens; });
  Source source = {std::vector<float>(300000)};
  EXPECT_ERROR(createFrom(source), MOE_RT_RESOURCE_EXHAUSTED,
               "for the weight 'w': CUDA_ERROR_OUT_OF_MEMORY (");
  EXPECT_EQ(jit->layer, nullptr);
  EXPECT_TRUE(source.reads.empty());
  // What a layer has goes with it: there is room for one at a time.
  DeviceJit small(options());
  small.load(weightArguments("[150, 1000]"), weightEntry);
  for (int i = 0; i < 5; ++i) {
    moe_rt_layer_destroy(small.layer);
    small.layer = nullptr;
    ASSERT_OK(moe_rt_layer_create_from_source(small.module, "f", Source::read,
                                              &source, &small.layer));
  }
  moe_rt_layer_destroy(small.layer);
  small.layer = nullptr;
  // There is enough for the layer, but not for every call.
  DeviceArray<float> w(*gpu, f32({2, 1000}, 1));
  jit = std::make_unique<DeviceJit>(options());
  jit->load(weightArguments("[2, 1000]"), weightEntry,
            [](int64_t tokens) { return 10000 * tokens; });
  jit->create({w.dl()});
  DeviceArray<float> y(*gpu, f32({2})), z(*gpu, f32({200}));
  EXPECT_OK(jit->call({}, {y.dl()}));
  EXPECT_ERROR(jit->call({}, {z.dl()}), MOE_RT_RESOURCE_EXHAUSTED,
               "cannot allocate 2000000 bytes on ");
  EXPECT_ERROR(jit->enqueue(nullptr, {}, {z.dl()}), MOE_RT_RESOURCE_EXHAUSTED,
               "for the workspace: CUDA_ERROR_OUT_OF_MEMORY (");
  EXPECT_OK(jit->call({}, {y.dl()}));
}

} // namespace
