//===- driver_test.cpp - Contexts for a device ----------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "cuda_testing.h"

#include <dlfcn.h>
#include <thread>

using namespace moe::test;

namespace {

moe_rt_status_t create(DLDevice device) {
  moe_rt_context_options_t options = {sizeof(options), {}, 1, nullptr, device};
  moe_rt_context_t *context = nullptr;
  moe_rt_status_t status = moe_rt_context_create(&options, &context);
  EXPECT_EQ(status == nullptr, context != nullptr);
  moe_rt_context_destroy(context);
  return status;
}

/// Create a context with the driver of that path.
moe_rt_status_t createWith(const std::string &driver) {
  Environment library("MOE_CUDA_LIBRARY", driver);
  return create({kDLCUDA, 0});
}

TEST(CudaDriverTest, RefusesOtherDevices) {
  EXPECT_OK(create({}));
  EXPECT_OK(create({kDLCPU, 0}));
  EXPECT_ERROR(create({kDLCPU, 1}), MOE_RT_INVALID_ARGUMENT,
               "device has type 1 and id 1, expected the CPU (1, 0) or CUDA "
               "(2) with the number of a device");
  for (int type : {3, 7, -1})
    EXPECT_ERROR(create({static_cast<DLDeviceType>(type), 0}),
                 MOE_RT_INVALID_ARGUMENT,
                 "device has type " + std::to_string(type));
}

TEST(CudaDriverTest, NoDriver) {
  EXPECT_ERROR(createWith("/nonexistent/libcuda.so.1"),
               MOE_RT_FAILED_PRECONDITION,
               "cannot use CUDA device 0: no NVIDIA driver: cannot open "
               "/nonexistent/libcuda.so.1: ");
  // What is no library at all.
  TemporaryDirectory directory;
  writeFile(directory / "text", "this is no library");
  EXPECT_ERROR(createWith(directory / "text"), MOE_RT_FAILED_PRECONDITION,
               "no NVIDIA driver: cannot open " + (directory / "text"));
}

TEST(CudaDriverTest, NoDevice) {
  EXPECT_ERROR(createWith(DRIVER_WITHOUT_DEVICE), MOE_RT_FAILED_PRECONDITION,
               "cannot use CUDA device 0: cannot initialise the NVIDIA driver: "
               "CUDA_ERROR_NO_DEVICE (no CUDA-capable device is detected)");
}

TEST(CudaDriverTest, OldDriver) {
  EXPECT_ERROR(createWith(DRIVER_OLD), MOE_RT_FAILED_PRECONDITION,
               "the NVIDIA driver supports CUDA 11.8, expected 12.0 or later");
}

TEST(CudaDriverTest, DriverWithoutAFunction) {
  EXPECT_ERROR(createWith(DRIVER_PARTIAL), MOE_RT_FAILED_PRECONDITION,
               "the NVIDIA driver (" + std::string(DRIVER_PARTIAL) +
                   ") has no function 'cuDeviceGetCount'");
  // A library that is no driver.
  EXPECT_ERROR(createWith(FIXTURE), MOE_RT_FAILED_PRECONDITION,
               ") has no function 'cuGetErrorName'");
}

TEST(CudaDriverTest, OnTheCPU) {
  Context context;
  std::string text = metadataFor(
      R"("name": "f", "entry": "entry", "workspace": "workspace",
         "tokens": {"min": 0, "max": 10}, "arguments": [)" +
      std::string(scaleArguments) + "]");
  auto resolve = [](void *, const char *symbol) {
    auto entry = [](void **, const moe_rt_executor_t *) -> int32_t {
      return 0;
    };
    auto workspace = [](int64_t) -> int64_t { return 0; };
    return std::string(symbol) == "entry"
               ? reinterpret_cast<void *>(
                     static_cast<int32_t (*)(void **,
                                             const moe_rt_executor_t *)>(entry))
               : reinterpret_cast<void *>(
                     static_cast<int64_t (*)(int64_t)>(workspace));
  };
  moe_rt_module_t *module = nullptr;
  moe_rt_layer_t *layer = nullptr;
  ASSERT_OK(moe_rt_module_create(context, text.data(), text.size(), resolve,
                                 nullptr, &module));
  ASSERT_OK(moe_rt_layer_create(module, nullptr, nullptr, 0, &layer));
  Array<float> x = f32({1, 4}), y = f32({1, 4});
  DLTensor in = x.dl(), out = y.dl();
  EXPECT_OK(
      moe_rt_layer_call_on_stream(layer, &in, 1, &out, 1, nullptr, 0, nullptr));
  int stream;
  EXPECT_ERROR(
      moe_rt_layer_call_on_stream(layer, &in, 1, &out, 1, nullptr, 0, &stream),
      MOE_RT_INVALID_ARGUMENT, "expected NULL on the CPU");
  EXPECT_OK(moe_rt_layer_poll(layer));
  in.device = {kDLCUDA, 0};
  EXPECT_ERROR(moe_rt_layer_call(layer, &in, 1, &out, 1, nullptr, 0),
               MOE_RT_INVALID_ARGUMENT,
               "input 'x' is on device type 2, expected the CPU (1)");
  EXPECT_ERROR(moe_rt_layer_poll(nullptr), MOE_RT_INVALID_ARGUMENT, "NULL");
  EXPECT_ERROR(moe_rt_layer_call_on_stream(nullptr, &in, 1, &out, 1, nullptr, 0,
                                           nullptr),
               MOE_RT_INVALID_ARGUMENT, "'layer' is NULL");
  EXPECT_ERROR(moe_rt_layer_call_live_on_stream(nullptr, &in, 1, &out, 1,
                                                nullptr, 0, nullptr, nullptr),
               MOE_RT_INVALID_ARGUMENT,
               "moe_rt_layer_call_live_on_stream: 'layer' is NULL");
  moe_rt_layer_destroy(layer);
  moe_rt_module_destroy(module);
}

class CudaContextTest : public CudaTest {};

TEST_F(CudaContextTest, NoSuchDevice) {
  for (int32_t ordinal : {-1, 64, INT32_MAX})
    EXPECT_ERROR(create({kDLCUDA, ordinal}), MOE_RT_FAILED_PRECONDITION,
                 "cannot use CUDA device " + std::to_string(ordinal) +
                     ": devices that the driver shows to this process: ");
}

TEST_F(CudaContextTest, LeavesTheCurrentContextAlone) {
  EXPECT_EQ(gpu->currentContext(), nullptr);
  moe_rt_context_options_t settings = options();
  {
    Context context(&settings);
    EXPECT_EQ(gpu->currentContext(), nullptr);
    moe_rt_context_trim(context);
    EXPECT_EQ(gpu->currentContext(), nullptr);
    // It is the primary context, which this thread may use, too.
    cuda::ContextScope scope(*gpu->device);
    Context second(&settings);
    EXPECT_EQ(gpu->currentContext(), gpu->device->context());
  }
  EXPECT_EQ(gpu->currentContext(), nullptr);
}

TEST_F(CudaContextTest, ReleasesTheDevice) {
  if (!isDouble())
    GTEST_SKIP() << "what has been released is not to be used";
  auto push = gpu->function<int(cuda::CUcontext)>("cuCtxPushCurrent_v2");
  cuda::CUcontext primary = gpu->device->context();
  moe_rt_context_options_t settings = options();
  {
    Context context(&settings);
    gpu.reset();
    EXPECT_EQ(push(primary), 0) << "the context retains it";
    cuda::CUcontext popped;
    (void)reinterpret_cast<int (*)(cuda::CUcontext *)>(
        dlsym(driverLibrary(), "cuCtxPopCurrent_v2"))(&popped);
  }
  EXPECT_NE(push(primary), 0) << "nobody does any more";
}

TEST_F(CudaContextTest, CreatedByManyThreads) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([] {
      for (int j = 0; j < 10; ++j)
        EXPECT_OK(create({kDLCUDA, 0}));
    });
  for (std::thread &thread : threads)
    thread.join();
}

TEST_F(CudaContextTest, WhatTheDoubleSays) {
  if (!isDouble())
    GTEST_SKIP() << "a real driver cannot be told what to say";
  gpu.reset();
  {
    Environment none("MOE_CUDA_DOUBLE_DEVICES", "0");
    resetDouble();
    EXPECT_ERROR(create({kDLCUDA, 0}), MOE_RT_FAILED_PRECONDITION,
                 "CUDA_ERROR_NO_DEVICE");
  }
  {
    Environment old("MOE_CUDA_DOUBLE_DRIVER", "11080");
    resetDouble();
    EXPECT_ERROR(create({kDLCUDA, 0}), MOE_RT_FAILED_PRECONDITION,
                 "supports CUDA 11.8, expected 12.0 or later");
  }
  {
    Environment two("MOE_CUDA_DOUBLE_DEVICES", "2");
    resetDouble();
    EXPECT_OK(create({kDLCUDA, 1}));
    EXPECT_ERROR(create({kDLCUDA, 2}), MOE_RT_FAILED_PRECONDITION,
                 "devices that the driver shows to this process: 2");
  }
}

} // namespace
