//===- driver_test.cpp - The driver API -----------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "testing.h"

#include <cstdio>
#include <fstream>
#include <functional>
#include <thread>
#include <unistd.h>

using namespace moe::gpu::test;

namespace {

using Words = std::vector<uint32_t>;

/// A kernel that adds 1 to a word.
const Source increment{R"(
    ld.param.u64 %rd0, [out];
    ld.global.u32 %r0, [%rd0];
    add.s32 %r0, %r0, 1;
    st.global.u32 [%rd0], %r0;)"};

class DriverTest : public Gpu {
protected:
  CUresult launch(CUfunction kernel, CUdeviceptr out, CUstream stream = nullptr,
                  Shape block = {}) {
    void *parameters[] = {&out};
    return cuLaunchKernel(kernel, 1, 1, 1, block.x, block.y, block.z, 0, stream,
                          parameters, nullptr);
  }
  CUstream stream(unsigned flags = CU_STREAM_NON_BLOCKING) {
    CUstream result = nullptr;
    EXPECT_OK(cuStreamCreate(&result, flags));
    return result;
  }
};

TEST_F(DriverTest, NothingWorksBeforeInitialisation) {
  moe_cuda_double_reset();
  int count;
  EXPECT_EQ(cuDeviceGetCount(&count), CUDA_ERROR_NOT_INITIALIZED);
  int version = 0;
  EXPECT_OK(cuDriverGetVersion(&version));
  EXPECT_EQ(version, 13000);
  EXPECT_OK(cuInit(0));
  EXPECT_OK(cuDeviceGetCount(&count));
  EXPECT_EQ(count, 1);
  CUdeviceptr address;
  EXPECT_EQ(cuMemAlloc_v2(&address, 4), CUDA_ERROR_INVALID_CONTEXT);
}

TEST_F(DriverTest, NoDevice) {
  moe_cuda_double_reset();
  setenv("MOE_CUDA_DOUBLE_DEVICES", "0", 1);
  EXPECT_EQ(cuInit(0), CUDA_ERROR_NO_DEVICE);
}

TEST_F(DriverTest, PropertiesOfTheDevice) {
  start({{"ARCH", "8.0"}, {"SMS", "7"}, {"MEMORY", "1000000"}});
  auto attribute = [](CUdevice_attribute which) {
    int value = -1;
    EXPECT_OK(cuDeviceGetAttribute(&value, which, 0));
    return value;
  };
  EXPECT_EQ(attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR), 8);
  EXPECT_EQ(attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT), 7);
  EXPECT_EQ(attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN),
            163 << 10);
  EXPECT_EQ(attribute(CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH), 0);
  CUdeviceptr address = alloc(900000);
  size_t available, total;
  EXPECT_OK(cuMemGetInfo_v2(&available, &total));
  EXPECT_EQ(available, 100000u);
  EXPECT_EQ(cuMemAlloc_v2(&address, 200000), CUDA_ERROR_OUT_OF_MEMORY);
}

TEST_F(DriverTest, NamesOfErrorsAndFunctions) {
  const char *text;
  EXPECT_OK(cuGetErrorName(CUDA_ERROR_ILLEGAL_ADDRESS, &text));
  EXPECT_STREQ(text, "CUDA_ERROR_ILLEGAL_ADDRESS");
  EXPECT_OK(cuGetErrorString(CUDA_ERROR_OUT_OF_MEMORY, &text));
  EXPECT_STREQ(text, "out of memory");
  EXPECT_EQ(cuGetErrorName(static_cast<CUresult>(12345), &text),
            CUDA_ERROR_INVALID_VALUE);
  void *function;
  CUdriverProcAddressQueryResult status;
  EXPECT_OK(cuGetProcAddress_v2("cuMemAlloc", &function, 12000, 0, &status));
  EXPECT_EQ(function, reinterpret_cast<void *>(&cuMemAlloc_v2));
  EXPECT_OK(cuGetProcAddress_v2("cuNothing", &function, 12000, 0, &status));
  EXPECT_EQ(status, CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
}

//===----------------------------------------------------------------------===//
// Modules and launches
//===----------------------------------------------------------------------===//

TEST_F(DriverTest, ImagesThatDoNotFit) {
  CUmodule module;
  Source source = increment;
  auto loads = [&](const std::string &text) {
    return cuModuleLoadData(&module, text.c_str());
  };
  EXPECT_OK(loads(source));
  source.target = "sm_100";
  EXPECT_EQ(loads(source), CUDA_ERROR_INVALID_PTX);
  start({{"ARCH", "10.0"}});
  source.target = "sm_90";
  EXPECT_OK(loads(source));
  source.target = "sm_90a";
  EXPECT_EQ(loads(source), CUDA_ERROR_INVALID_PTX);
  start({{"DRIVER", "12000"}});
  std::string text = source;
  EXPECT_EQ(loads(text), CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
  EXPECT_EQ(loads(std::string("\x7F"
                              "ELF and so on")),
            CUDA_ERROR_NO_BINARY_FOR_GPU);
  EXPECT_EQ(loads("nothing"), CUDA_ERROR_INVALID_IMAGE);
}

TEST_F(DriverTest, LogsOfTheCompiler) {
  char errors[256] = "", information[256] = "";
  CUjit_option options[] = {
      CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
      CU_JIT_INFO_LOG_BUFFER, CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES};
  void *size = reinterpret_cast<void *>(sizeof(errors));
  void *values[] = {errors, size, information, size};
  CUmodule module;
  std::string bad = Source{"bad %r0;"}, good = increment;
  EXPECT_EQ(cuModuleLoadDataEx(&module, bad.c_str(), 4, options, values),
            CUDA_ERROR_INVALID_PTX);
  EXPECT_NE(std::string(errors).find("unknown instruction"), std::string::npos);
  EXPECT_EQ(reinterpret_cast<size_t>(values[1]), std::strlen(errors));
  values[1] = values[3] = size;
  EXPECT_OK(cuModuleLoadDataEx(&module, good.c_str(), 4, options, values));
  EXPECT_NE(std::string(information), "");
  CUfunction function;
  EXPECT_EQ(cuModuleGetFunction(&function, module, "none"),
            CUDA_ERROR_NOT_FOUND);
  EXPECT_OK(cuModuleUnload(module));
  EXPECT_EQ(cuModuleGetFunction(&function, module, "k"),
            CUDA_ERROR_INVALID_HANDLE);
}

TEST_F(DriverTest, ShapesOfLaunches) {
  Source bounded = increment;
  bounded.directives = ".maxntid 64, 1, 1 ";
  CUfunction kernel = load(bounded);
  CUdeviceptr out = put(Words{0});
  EXPECT_OK(launch(kernel, out, nullptr, {64}));
  EXPECT_EQ(launch(kernel, out, nullptr, {65}), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(launch(kernel, out, nullptr, {0}), CUDA_ERROR_INVALID_VALUE);
  bounded.directives = ".reqntid 32, 2, 1 ";
  kernel = load(bounded);
  EXPECT_OK(launch(kernel, out, nullptr, {32, 2}));
  EXPECT_EQ(launch(kernel, out, nullptr, {64, 1}), CUDA_ERROR_INVALID_VALUE);
  kernel = load(increment);
  EXPECT_EQ(launch(kernel, out, nullptr, {1024, 2}), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(launch(kernel, out, nullptr, {1, 1, 65}), CUDA_ERROR_INVALID_VALUE);
  void *parameters[] = {&out};
  EXPECT_EQ(cuLaunchKernel(kernel, 1, 65536, 1, 1, 1, 1, 0, nullptr, parameters,
                           nullptr),
            CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(
      cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr),
      CUDA_ERROR_INVALID_VALUE);
}

TEST_F(DriverTest, CooperativeLaunchesFitTheDevice) {
  start({{"SMS", "2"}});
  Source source = increment;
  source.directives = ".maxntid 1024, 1, 1 ";
  CUfunction kernel = load(source);
  int blocks;
  EXPECT_OK(
      cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, 1024, 0));
  EXPECT_EQ(blocks, 1); // 64 registers for each thread
  CUdeviceptr out = put(Words{0});
  void *parameters[] = {&out};
  EXPECT_OK(cuLaunchCooperativeKernel(kernel, 2, 1, 1, 1024, 1, 1, 0, nullptr,
                                      parameters));
  EXPECT_EQ(cuLaunchCooperativeKernel(kernel, 3, 1, 1, 1024, 1, 1, 0, nullptr,
                                      parameters),
            CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE);
}

//===----------------------------------------------------------------------===//
// Streams
//===----------------------------------------------------------------------===//

TEST_F(DriverTest, ResultsAreThereAfterTheWait) {
  CUfunction kernel = load(increment);
  void *memory;
  ASSERT_OK(cuMemHostAlloc(&memory, 4, 0));
  auto *word = static_cast<volatile uint32_t *>(memory);
  *word = 5;
  CUdeviceptr out = reinterpret_cast<CUdeviceptr>(memory);
  CUstream s = stream();
  EXPECT_OK(launch(kernel, out, s));
  EXPECT_EQ(*word, 5u);
  EXPECT_EQ(cuStreamQuery(s), CUDA_ERROR_NOT_READY);
  EXPECT_OK(cuStreamQuery(s));
  EXPECT_EQ(*word, 6u);
  // A blocking copy does not wait for a non-blocking stream.
  CUdeviceptr device = put(Words{10});
  EXPECT_OK(launch(kernel, device, s));
  EXPECT_EQ(get<uint32_t>(device, 1)[0], 10u);
  EXPECT_OK(cuStreamSynchronize(s));
  EXPECT_EQ(get<uint32_t>(device, 1)[0], 11u);
  // It waits for a stream that synchronizes with the default stream.
  EXPECT_OK(launch(kernel, device, stream(CU_STREAM_DEFAULT)));
  EXPECT_EQ(get<uint32_t>(device, 1)[0], 12u);
}

TEST_F(DriverTest, PinnedMemoryIsReadLate) {
  void *memory;
  ASSERT_OK(cuMemHostAlloc(&memory, 4, 0));
  auto *pinned = static_cast<uint32_t *>(memory);
  uint32_t pageable = 1;
  *pinned = 1;
  CUdeviceptr a = alloc(4), b = alloc(4);
  CUstream s = stream();
  EXPECT_OK(cuMemcpyHtoDAsync_v2(a, pinned, 4, s));
  EXPECT_OK(cuMemcpyHtoDAsync_v2(b, &pageable, 4, s));
  *pinned = pageable = 2;
  EXPECT_OK(cuStreamSynchronize(s));
  EXPECT_EQ(get<uint32_t>(a, 1)[0], 2u);
  EXPECT_EQ(get<uint32_t>(b, 1)[0], 1u);
}

TEST_F(DriverTest, EventsOrderStreams) {
  CUfunction kernel = load(increment);
  CUdeviceptr out = put(Words{0});
  CUstream first = stream(), second = stream();
  CUevent event;
  ASSERT_OK(cuEventCreate(&event, 0));
  EXPECT_OK(cuEventQuery(event));
  EXPECT_OK(cuMemsetD32Async(out, 100, 1, first));
  EXPECT_OK(cuEventRecord(event, first));
  EXPECT_OK(launch(kernel, out, first));
  EXPECT_EQ(cuEventQuery(event), CUDA_ERROR_NOT_READY);
  EXPECT_OK(cuStreamWaitEvent(second, event, 0));
  EXPECT_OK(cuMemsetD32Async(out, 7, 1, second));
  // The second stream waits only for the operations before the event.
  EXPECT_OK(cuStreamSynchronize(second));
  EXPECT_EQ(get<uint32_t>(out, 1)[0], 7u);
  EXPECT_OK(cuStreamSynchronize(first));
  EXPECT_EQ(get<uint32_t>(out, 1)[0], 8u);
  CUevent later;
  ASSERT_OK(cuEventCreate(&later, 0));
  EXPECT_OK(cuEventRecord(later, first));
  float milliseconds;
  EXPECT_EQ(cuEventElapsedTime(&milliseconds, event, later),
            CUDA_ERROR_NOT_READY);
  EXPECT_OK(cuEventSynchronize(later));
  EXPECT_OK(cuEventElapsedTime(&milliseconds, event, later));
  EXPECT_GE(milliseconds, 0);
}

TEST_F(DriverTest, CopiesCheckTheirPointers) {
  CUdeviceptr device = alloc(16);
  uint32_t word = 0;
  EXPECT_EQ(cuMemcpyHtoD_v2(device, &word, 17), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuMemcpyHtoD_v2(device + 14, &word, 4), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuMemcpyDtoH_v2(reinterpret_cast<void *>(device), device, 4),
            CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuMemcpyHtoD_v2(reinterpret_cast<CUdeviceptr>(&word), &word, 4),
            CUDA_ERROR_INVALID_VALUE);
  EXPECT_OK(cuMemcpy(device, reinterpret_cast<CUdeviceptr>(&word), 4));
  unsigned kind = 0;
  EXPECT_OK(cuPointerGetAttribute(&kind, CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
                                  device + 8));
  EXPECT_EQ(kind, unsigned(CU_MEMORYTYPE_DEVICE));
  EXPECT_EQ(cuPointerGetAttribute(&kind, CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
                                  reinterpret_cast<CUdeviceptr>(&word)),
            CUDA_ERROR_INVALID_VALUE);
}

//===----------------------------------------------------------------------===//
// Captures
//===----------------------------------------------------------------------===//

class CaptureTest : public DriverTest {
protected:
  void SetUp() override {
    DriverTest::SetUp();
    kernel = load(increment);
    out = put(Words{0});
    captured = stream();
  }
  void begin(CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL) {
    ASSERT_OK(cuStreamBeginCapture_v2(captured, mode));
  }
  CUfunction kernel;
  CUdeviceptr out;
  CUstream captured;
  CUgraph graph = nullptr;
};

TEST_F(CaptureTest, GraphsReplayTheirNodes) {
  begin();
  EXPECT_OK(cuMemsetD32Async(out, 40, 1, captured));
  EXPECT_OK(launch(kernel, out, captured));
  EXPECT_OK(launch(kernel, out, captured));
  CUstreamCaptureStatus status;
  EXPECT_OK(cuStreamIsCapturing(captured, &status));
  EXPECT_EQ(status, CU_STREAM_CAPTURE_STATUS_ACTIVE);
  EXPECT_OK(cuStreamEndCapture(captured, &graph));
  EXPECT_EQ(get<uint32_t>(out, 1)[0], 0u);
  size_t nodes = 0;
  EXPECT_OK(cuGraphGetNodes(graph, nullptr, &nodes));
  EXPECT_EQ(nodes, 3u);
  CUgraphExec executable;
  EXPECT_OK(cuGraphInstantiateWithFlags(&executable, graph, 0));
  EXPECT_OK(cuGraphDestroy(graph));
  EXPECT_OK(cuGraphLaunch(executable, captured));
  EXPECT_OK(launch(kernel, out, captured));
  EXPECT_OK(cuStreamSynchronize(captured));
  EXPECT_EQ(get<uint32_t>(out, 1)[0], 43u);
  EXPECT_OK(cuGraphLaunch(executable, captured));
  EXPECT_OK(cuStreamSynchronize(captured));
  EXPECT_EQ(get<uint32_t>(out, 1)[0], 42u);
  EXPECT_OK(cuGraphExecDestroy(executable));
}

TEST_F(CaptureTest, UnsafeCallsEndACapture) {
  std::vector<std::function<CUresult()>> calls = {
      [&] { return cuStreamSynchronize(captured); },
      [&] { return cuCtxSynchronize(); },
      [&] {
        CUdeviceptr address;
        return cuMemAlloc_v2(&address, 16);
      },
      [&] { return cuMemFree_v2(out); },
      [&] {
        uint32_t word;
        return cuMemcpyDtoH_v2(&word, out, 4);
      },
      [&] {
        CUmodule module;
        std::string text = increment;
        return cuModuleLoadData(&module, text.c_str());
      },
      [&] { return cuStreamQuery(captured); }};
  for (size_t i = 0; i < calls.size(); ++i) {
    begin();
    EXPECT_EQ(calls[i](), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED) << i;
    EXPECT_EQ(launch(kernel, out, captured),
              CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    EXPECT_EQ(cuStreamEndCapture(captured, &graph),
              CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    EXPECT_EQ(graph, nullptr);
    // The stream is usable again.
    EXPECT_OK(launch(kernel, out, captured));
    EXPECT_OK(cuStreamSynchronize(captured));
  }
}

TEST_F(CaptureTest, RelaxedCapturesAllowThem) {
  begin(CU_STREAM_CAPTURE_MODE_RELAXED);
  alloc(16);
  EXPECT_OK(launch(kernel, out, captured));
  EXPECT_OK(cuStreamEndCapture(captured, &graph));
  // A thread-local capture does not restrict other threads.
  begin(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
  std::thread([&] {
    CUcontext context;
    EXPECT_OK(cuDevicePrimaryCtxRetain(&context, 0));
    EXPECT_OK(cuCtxSetCurrent(context));
    alloc(16);
  }).join();
  EXPECT_OK(cuStreamEndCapture(captured, &graph));
}

TEST_F(CaptureTest, TheDefaultStreamIsInTheWay) {
  EXPECT_EQ(cuStreamBeginCapture_v2(nullptr, CU_STREAM_CAPTURE_MODE_RELAXED),
            CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  captured = stream(CU_STREAM_DEFAULT);
  begin(CU_STREAM_CAPTURE_MODE_RELAXED);
  EXPECT_EQ(launch(kernel, out), CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
  EXPECT_EQ(cuStreamEndCapture(captured, &graph),
            CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
}

TEST_F(CaptureTest, StreamsJoinByEvents) {
  CUstream other = stream();
  CUevent fork, join;
  ASSERT_OK(cuEventCreate(&fork, CU_EVENT_DISABLE_TIMING));
  ASSERT_OK(cuEventCreate(&join, CU_EVENT_DISABLE_TIMING));
  for (bool joined : {true, false}) {
    begin();
    EXPECT_OK(launch(kernel, out, captured));
    EXPECT_OK(cuEventRecord(fork, captured));
    EXPECT_OK(cuStreamWaitEvent(other, fork, 0));
    EXPECT_OK(launch(kernel, out, other));
    EXPECT_OK(cuEventRecord(join, other));
    if (joined) {
      EXPECT_OK(cuStreamWaitEvent(captured, join, 0));
    }
    EXPECT_EQ(cuStreamEndCapture(captured, &graph),
              joined ? CUDA_SUCCESS : CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
  }
  EXPECT_OK(launch(kernel, out, other));
  EXPECT_OK(cuStreamSynchronize(other));
  EXPECT_EQ(get<uint32_t>(out, 1)[0], 1u);
}

//===----------------------------------------------------------------------===//
// The log
//===----------------------------------------------------------------------===//

TEST_F(DriverTest, TheLogHasALineForEachCall) {
  std::string path =
      ::testing::TempDir() + "cuda_double_log_" + std::to_string(getpid());
  start({{"LOG", path}});
  CUfunction kernel = load(increment);
  CUdeviceptr out = put(Words{0});
  EXPECT_OK(launch(kernel, out));
  EXPECT_EQ(get<uint32_t>(out, 1)[0], 1u);
  failure(CUDA_ERROR_ILLEGAL_ADDRESS, kernel, {1}, {1}, 0, CUdeviceptr(8));
  moe_cuda_double_reset();
  std::ifstream file(path);
  std::string all((std::istreambuf_iterator<char>(file)), {});
  std::remove(path.c_str());
  for (const char *words :
       {"{\"event\": \"module_load\", \"target\": \"sm_90a\"",
        "\"event\": \"alloc\", \"bytes\": 4", "\"event\": \"memcpy\"",
        "\"event\": \"launch\", \"kernel\": \"k\", \"grid\": [1,1,1], "
        "\"block\": [1,1,1]",
        "\"parameters\": \"0800000000000000\"",
        "\"event\": \"fault\", \"code\": 700"})
    EXPECT_NE(all.find(words), std::string::npos) << words << "\n" << all;
}

} // namespace
