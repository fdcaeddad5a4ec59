//===- call_test.cpp - Calls on a device ----------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Calls of functions that are in this process, as a JIT's are, and start small
// kernels.
//
//===----------------------------------------------------------------------===//

#include "cuda_testing.h"

#include <atomic>
#include <dlfcn.h>
#include <numeric>
#include <sstream>
#include <thread>

using namespace moe::test;

namespace {

/// f32[tokens, 4] with values from `first` on.
Array<float> ramp(int64_t tokens, float first = 1) {
  Array<float> array = f32({tokens, 4});
  std::iota(array.data.begin(), array.data.end(), first);
  return array;
}

std::vector<float> scaled(const std::vector<float> &values, float factor) {
  std::vector<float> result = values;
  for (float &value : result)
    value *= factor;
  return result;
}

/// x -> workspace -> y: y = 6 * x.
int32_t workspaceEntry(void **args, const moe_rt_launcher_t *launcher) {
  auto count =
      static_cast<uint32_t>(4 * static_cast<const Memref *>(args[0])->dims[0]);
  const moe_rt_kernel_argument_t there[] = {
      argument(args[0]), argument(args[2]), argument(count), argument(2.f)};
  const moe_rt_kernel_argument_t back[] = {argument(args[2]), argument(args[1]),
                                           argument(count), argument(3.f)};
  int64_t blocks = (count + 127) / 128;
  if (int32_t code =
          launcher->launch(launcher->user, scaleKernel, blocks, 1, 1, there, 4))
    return code;
  return launcher->launch(launcher->user, scaleKernel, blocks, 1, 1, back, 4);
}

int64_t workspaceBytes(int64_t tokens) { return 16 * tokens; }

class CudaCallTest : public CudaLayerTest {};

TEST_F(CudaCallTest, Computes) {
  jit->load(scaleArguments, scaleEntry);
  jit->create();
  for (int64_t tokens : {1, 31, 32, 33, 1000}) {
    DeviceArray<float> x(*gpu, ramp(tokens)), y(*gpu, f32({tokens, 4}));
    ASSERT_OK(jit->call({x.dl()}, {y.dl()}));
    EXPECT_EQ(y.download(), scaled(x.data(), 2)) << tokens;
  }
  EXPECT_EQ(gpu->currentContext(), nullptr);
  EXPECT_EQ(moe_rt_layer_weight_bytes(jit->layer), 0u);
}

TEST_F(CudaCallTest, PassesDescriptors) {
  static int64_t seen[2][7];
  static int64_t multiprocessors;
  jit->load(R"({"name": "a", "role": "input", "dtype": "f32",
                "shape": [2, -1]},
               {"name": "b", "role": "output", "dtype": "f32", "shape": [-1]})",
            [](void **args, const moe_rt_launcher_t *launcher) -> int32_t {
              for (int i = 0; i < 2; ++i)
                std::memcpy(seen[i], args[i], sizeof(seen[i]));
              multiprocessors = launcher->multiprocessors;
              return 0;
            });
  jit->create();
  DeviceArray<float> a(*gpu, f32({2, 4})), b(*gpu, f32({3}));
  // byte_offset counts, and need not leave the pointer aligned to more.
  int64_t shape[] = {2, 3};
  DLTensor in = a.dl(), out = b.dl();
  in.shape = shape;
  in.byte_offset = 4;
  ASSERT_OK(jit->call({in}, {out}));
  auto at = reinterpret_cast<int64_t>(a.address()) + 4;
  EXPECT_EQ(std::vector<int64_t>(seen[0], seen[0] + 7),
            (std::vector<int64_t>{at, at, 0, 2, 3, 3, 1}));
  EXPECT_EQ(seen[1][0], reinterpret_cast<int64_t>(b.address()));
  EXPECT_EQ(multiprocessors, gpu->device->multiprocessors());
}

TEST_F(CudaCallTest, NoTokens) {
  static int calls;
  calls = 0;
  jit->load(scaleArguments, [](void **, const moe_rt_launcher_t *) -> int32_t {
    return ++calls, 0;
  });
  jit->create();
  Array<float> none = f32({0, 4});
  DLTensor in = none.dl(), out = none.dl();
  in.device = out.device = {kDLCUDA, 0};
  in.data = out.data = nullptr;
  EXPECT_OK(jit->call({in}, {out}));
  EXPECT_OK(jit->enqueue(nullptr, {in}, {out}));
  EXPECT_EQ(calls, 0) << "there was nothing to compute";
  in.device = {kDLCPU, 0};
  EXPECT_ERROR(jit->call({in}, {out}), MOE_RT_INVALID_ARGUMENT,
               "input 'x' is on the CPU, expected CUDA device 0");
}

TEST_F(CudaCallTest, RefusesTensorsElsewhere) {
  jit->load(scaleArguments, scaleEntry);
  jit->create();
  DeviceArray<float> x(*gpu, ramp(3)), y(*gpu, f32({3, 4}));
  Array<float> host = f32({3, 4});
  EXPECT_ERROR(jit->call({host.dl()}, {y.dl()}), MOE_RT_INVALID_ARGUMENT,
               "input 'x' is on the CPU, expected CUDA device 0");
  EXPECT_ERROR(jit->call({x.dl()}, {host.dl()}), MOE_RT_INVALID_ARGUMENT,
               "output 'y' is on the CPU, expected CUDA device 0");
  DLTensor other = x.dl();
  other.device.device_id = 1;
  EXPECT_ERROR(jit->enqueue(nullptr, {other}, {y.dl()}),
               MOE_RT_INVALID_ARGUMENT,
               "input 'x' is on CUDA device 1, expected CUDA device 0");
  other.device.device_type = kDLCUDAHost;
  EXPECT_ERROR(jit->call({other}, {y.dl()}), MOE_RT_INVALID_ARGUMENT,
               "input 'x' is on device type 3, expected CUDA device 0");
  // The rest is checked as on the CPU.
  DLTensor odd = y.dl();
  odd.byte_offset = 2;
  EXPECT_ERROR(jit->call({x.dl()}, {odd}), MOE_RT_INVALID_ARGUMENT,
               "expected alignment to 4 bytes");
  EXPECT_ERROR(jit->call({x.dl()}, {x.dl()}), MOE_RT_INVALID_ARGUMENT,
               "output 'y' overlaps input 'x'");
  EXPECT_ERROR(jit->call({}, {y.dl()}), MOE_RT_INVALID_ARGUMENT,
               "0 inputs are given, expected 1");
}

TEST_F(CudaCallTest, Workspace) {
  jit->load(scaleArguments, workspaceEntry, workspaceBytes);
  jit->create();
  DeviceArray<float> x(*gpu, ramp(40)), y(*gpu, f32({40, 4}));
  uint64_t bytes = 0;
  ASSERT_OK(moe_rt_layer_workspace_bytes(jit->layer, 40, &bytes));
  EXPECT_EQ(bytes, 640u);
  // The context's.
  ASSERT_OK(jit->call({x.dl()}, {y.dl()}));
  EXPECT_EQ(y.download(), scaled(x.data(), 6));
  // The caller's.
  DeviceArray<uint8_t> memory(*gpu, {{1024}, {kDLUInt, 8, 1}, 7});
  y.data().assign(160, 0);
  y.upload();
  ASSERT_OK(jit->call({x.dl()}, {y.dl()}, memory.address() + 256, 640));
  EXPECT_EQ(y.download(), scaled(x.data(), 6));
  memory.download();
  EXPECT_EQ(memory.data()[255], 7) << "before the workspace";
  EXPECT_EQ(memory.data()[256 + 640], 7) << "behind the workspace";

  EXPECT_ERROR(jit->call({x.dl()}, {y.dl()}, memory.address(), 639),
               MOE_RT_RESOURCE_EXHAUSTED,
               "workspace has 639 bytes, expected at least 640 for T = 40");
  EXPECT_ERROR(jit->call({x.dl()}, {y.dl()}, memory.address() + 64, 640),
               MOE_RT_INVALID_ARGUMENT, "expected alignment to 256 bytes");
  alignas(256) static char host[1024];
  EXPECT_ERROR(jit->call({x.dl()}, {y.dl()}, host, sizeof(host)),
               MOE_RT_INVALID_ARGUMENT,
               "is memory of the host, expected CUDA device 0");
  EXPECT_ERROR(jit->call({x.dl()}, {y.dl()}, x.address(), 640),
               MOE_RT_INVALID_ARGUMENT, "workspace overlaps input 'x'");
  cuda::PinnedBuffer pinned(*gpu->device);
  {
    cuda::ContextScope scope(*gpu->device);
    ASSERT_OK(pinned.allocate(4096, "test"));
  }
  EXPECT_ERROR(jit->call({x.dl()}, {y.dl()}, pinned.data(), 4096),
               MOE_RT_INVALID_ARGUMENT,
               "is memory of the host, expected CUDA device 0");
  moe_rt_context_trim(jit->context);
  ASSERT_OK(jit->call({x.dl()}, {y.dl()}));
}

TEST_F(CudaCallTest, Streams) {
  jit->load(scaleArguments, workspaceEntry, workspaceBytes);
  jit->create();
  cuda::CUstream streams[] = {gpu->newStream(), gpu->newStream()};
  DeviceArray<float> x(*gpu, ramp(100)), y(*gpu, f32({100, 4})),
      z(*gpu, f32({100, 4}));
  // Along one stream a call sees what the one before has written.
  ASSERT_OK(jit->enqueue(streams[0], {x.dl()}, {y.dl()}));
  ASSERT_OK(jit->enqueue(streams[0], {y.dl()}, {z.dl()}));
  gpu->wait(streams[0]);
  EXPECT_EQ(z.download(), scaled(x.data(), 36));
  // Along two they may run at once: each has a workspace of its own.
  ASSERT_OK(jit->enqueue(streams[0], {x.dl()}, {y.dl()}));
  ASSERT_OK(jit->enqueue(streams[1], {x.dl()}, {z.dl()}));
  gpu->wait(streams[0]);
  gpu->wait(streams[1]);
  EXPECT_EQ(y.download(), scaled(x.data(), 6));
  EXPECT_EQ(z.download(), scaled(x.data(), 6));
  EXPECT_OK(moe_rt_layer_poll(jit->layer));
  EXPECT_EQ(gpu->currentContext(), nullptr);
}

TEST_F(CudaCallTest, Graphs) {
  jit->load(scaleArguments, workspaceEntry, workspaceBytes);
  jit->create();
  cuda::CUstream stream = gpu->newStream();
  DeviceArray<float> x(*gpu, ramp(50)), y(*gpu, f32({50, 4}));
  DeviceArray<uint8_t> memory(*gpu, {{800}, {kDLUInt, 8, 1}});
  for (bool bringsWorkspace : {true, false}) {
    if (!bringsWorkspace && isDouble())
      break; // it has no allocations in graphs
    void *graph = gpu->capture(stream, [&] {
      EXPECT_OK(jit->enqueue(stream, {x.dl()}, {y.dl()},
                             bringsWorkspace ? memory.address() : nullptr,
                             bringsWorkspace ? 800 : 0));
      EXPECT_OK(moe_rt_layer_poll(jit->layer));
    });
    for (float first : {1.f, -20.f, 300.f}) {
      x.data() = ramp(50, first).data;
      x.upload();
      gpu->replay(graph, stream);
      gpu->wait(stream);
      EXPECT_EQ(y.download(), scaled(x.data(), 6));
    }
    gpu->check(gpu->function<int(void *)>("cuGraphExecDestroy")(graph));
  }
}

TEST_F(CudaCallTest, Threads) {
  jit->load(scaleArguments, workspaceEntry, workspaceBytes);
  jit->create();
  std::atomic<int> failures{0};
  auto work = [&](int seed) {
    cuda::CUstream stream = gpu->newStream();
    for (int i = 0; i < 10; ++i) {
      int64_t tokens = 1 + (seed * 31 + i) % 17;
      DeviceArray<float> x(*gpu, ramp(tokens, static_cast<float>(seed))),
          y(*gpu, f32({tokens, 4}));
      moe_rt_status_t status = i % 2 ? jit->call({x.dl()}, {y.dl()})
                                     : jit->enqueue(stream, {x.dl()}, {y.dl()});
      gpu->wait(stream);
      failures += status != nullptr || y.download() != scaled(x.data(), 6);
      moe_rt_status_free(status);
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back(work, i);
  for (std::thread &thread : threads)
    thread.join();
  EXPECT_EQ(failures, 0);
}

TEST_F(CudaCallTest, ElementsAreNotRead) {
  // Not on the host: what the kernels make of them is theirs.
  jit->load(R"({"name": "ids", "role": "input", "dtype": "i32",
                "shape": [-1], "num_experts": 4},
               {"name": "mask", "role": "input", "dtype": "i1", "shape": [-1]},
               {"name": "w", "role": "weight", "dtype": "i1", "shape": [3]},
               {"name": "y", "role": "output", "dtype": "f32", "shape": [-1]})",
            [](void **, const moe_rt_launcher_t *) { return int32_t(0); });
  DeviceArray<int32_t> ids(*gpu, i32({2}, 1000));
  DeviceArray<uint8_t> mask(*gpu, {{2}, {kDLUInt, 8, 1}, 7}),
      w(*gpu, {{3}, {kDLUInt, 8, 1}, 7});
  DeviceArray<float> y(*gpu, f32({2}));
  jit->create({w.dl()});
  EXPECT_OK(jit->call({ids.dl(), mask.dl()}, {y.dl()}));
}

TEST_F(CudaCallTest, SeveralDevices) {
  if (!isDouble())
    GTEST_SKIP() << "there may be one alone";
  jit.reset();
  gpu.reset();
  Environment devices("MOE_CUDA_DOUBLE_DEVICES", "2");
  resetDouble();
  gpu = std::make_unique<Gpu>();
  auto other = std::make_unique<Gpu>(1);
  ASSERT_TRUE(gpu->device && other->device) << gpu->reason << other->reason;
  jit = std::make_unique<DeviceJit>(options(1));
  jit->load(scaleArguments, workspaceEntry, workspaceBytes);
  jit->create();
  DeviceArray<float> x(*other, ramp(40)), y(*other, f32({40, 4})),
      here(*gpu, ramp(40));
  ASSERT_OK(jit->call({x.dl()}, {y.dl()}));
  EXPECT_EQ(y.download(), scaled(x.data(), 6));
  EXPECT_ERROR(jit->call({here.dl()}, {y.dl()}), MOE_RT_INVALID_ARGUMENT,
               "input 'x' is on CUDA device 0, expected CUDA device 1");
  EXPECT_ERROR(jit->call({x.dl()}, {y.dl()}, here.address(), 640),
               MOE_RT_INVALID_ARGUMENT, ", expected CUDA device 1");
}

TEST_F(CudaCallTest, TwoContexts) {
  DeviceJit other(options());
  for (DeviceJit *each : {jit.get(), &other}) {
    each->load(scaleArguments, scaleEntry);
    each->create();
  }
  DeviceArray<float> x(*gpu, ramp(5)), y(*gpu, f32({5, 4})),
      z(*gpu, f32({5, 4}));
  ASSERT_OK(jit->call({x.dl()}, {y.dl()}));
  jit.reset(); // the other stays usable
  ASSERT_OK(other.call({y.dl()}, {z.dl()}));
  EXPECT_EQ(z.download(), scaled(x.data(), 4));
}

TEST_F(CudaCallTest, PoolOfItsOwn) {
  if (!isDouble())
    GTEST_SKIP() << "a real driver does not tell what is asked of its pools";
  void *library = dlopen(DRIVER_WITH_POOLS, RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(library, nullptr) << dlerror();
  auto *record = reinterpret_cast<const char *(*)()>(
      dlsym(library, "moe_test_pool_record"));
  DeviceArray<float> x(*gpu, ramp(40)), y(*gpu, f32({40, 4}));
  {
    Environment driver("MOE_CUDA_LIBRARY", DRIVER_WITH_POOLS);
    DeviceJit pooled(options());
    EXPECT_STREQ(record(), "create on device 0; keep 18446744073709551615; ");
    pooled.load(scaleArguments, workspaceEntry, workspaceBytes);
    pooled.create();
    ASSERT_OK(pooled.call({x.dl()}, {y.dl()}));
    EXPECT_EQ(y.download(), scaled(x.data(), 6));
    EXPECT_STREQ(record(), "allocate 640; ");
    moe_rt_context_trim(pooled.context);
    EXPECT_STREQ(record(), "trim to 0; ");
  }
  EXPECT_STREQ(record(), "destroy 0; ");
  dlclose(library);
}

TEST_F(CudaCallTest, NoPools) {
  if (!isDouble())
    GTEST_SKIP() << "real devices have pools";
  void *library = dlopen(DRIVER_WITH_POOLS, RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(library, nullptr) << dlerror();
  auto *denied = static_cast<int *>(dlsym(library, "moe_test_no_pools"));
  *denied = 1;
  {
    Environment driver("MOE_CUDA_LIBRARY", DRIVER_WITH_POOLS);
    DeviceJit poor(options());
    poor.load(scaleArguments, workspaceEntry, workspaceBytes);
    poor.create();
    DeviceArray<float> x(*gpu, ramp(40)), y(*gpu, f32({40, 4})),
        space = {*gpu, ramp(40)};
    EXPECT_ERROR(poor.call({x.dl()}, {y.dl()}), MOE_RT_FAILED_PRECONDITION,
                 ") has no pools of memory, so a call needs a workspace of the "
                 "caller's, of 640 bytes");
    ASSERT_OK(poor.call({x.dl()}, {y.dl()}, space.address(), 640));
    EXPECT_EQ(y.download(), scaled(x.data(), 6));
    moe_rt_context_trim(poor.context);
  }
  *denied = 0;
  dlclose(library);
}

/// What the double writes down of a scope: the events in their order.
class Events {
public:
  explicit Events(const std::string &path) : path(path), begin(read().size()) {}

  std::vector<std::string> since() const {
    std::vector<std::string> events;
    std::istringstream lines(read().substr(begin));
    const std::string key = "{\"event\": \"";
    for (std::string line; std::getline(lines, line);) {
      std::string event =
          line.substr(key.size(), line.find('"', key.size()) - key.size());
      // Of a launch: nobody asked for it.
      if (event != "end")
        events.push_back(event);
    }
    return events;
  }

private:
  std::string read() const { return readFile(path); }

  std::string path;
  size_t begin;
};

TEST_F(CudaCallTest, WhatCallsAskOfTheDriver) {
  if (!isDouble())
    GTEST_SKIP() << "a real driver does not tell what it is asked";
  jit.reset();
  gpu.reset();
  TemporaryDirectory directory;
  Environment log("MOE_CUDA_DOUBLE_LOG", directory / "log");
  resetDouble();
  gpu = std::make_unique<Gpu>();
  ASSERT_TRUE(gpu->device) << gpu->reason;
  jit = std::make_unique<DeviceJit>(options());
  using Names = std::vector<std::string>;
  {
    // The kernels are loaded once, by the first layer.
    Events events(directory / "log");
    jit->load(scaleArguments, workspaceEntry, workspaceBytes);
    EXPECT_EQ(events.since(), Names());
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i)
      threads.emplace_back([&] {
        moe_rt_layer_t *layer = nullptr;
        EXPECT_OK(moe_rt_layer_create(jit->module, "f", nullptr, 0, &layer));
        moe_rt_layer_destroy(layer);
      });
    for (std::thread &thread : threads)
      thread.join();
    jit->create();
    EXPECT_EQ(events.since(), Names{"module_load"});
  }
  cuda::CUstream stream = gpu->newStream();
  DeviceArray<float> x(*gpu, ramp(40)), y(*gpu, f32({40, 4}));
  DeviceArray<uint8_t> memory(*gpu, {{640}, {kDLUInt, 8, 1}});
  {
    Events events(directory / "log");
    ASSERT_OK(jit->enqueue(stream, {x.dl()}, {y.dl()}, memory.address(), 640));
    EXPECT_OK(moe_rt_layer_poll(jit->layer));
    EXPECT_EQ(events.since(), (Names{"launch", "launch"}));
  }
  {
    Events events(directory / "log");
    ASSERT_OK(jit->enqueue(stream, {x.dl()}, {y.dl()}));
    EXPECT_EQ(events.since(), (Names{"alloc", "launch", "launch", "free"}));
  }
  {
    Events events(directory / "log");
    ASSERT_OK(jit->call({x.dl()}, {y.dl()}, memory.address(), 640));
    EXPECT_EQ(events.since(), (Names{"launch", "launch", "synchronise"}));
  }
  {
    // What is refused asks for nothing.
    Events events(directory / "log");
    EXPECT_ERROR(jit->call({x.dl()}, {x.dl()}), MOE_RT_INVALID_ARGUMENT,
                 "overlaps");
    EXPECT_EQ(events.since(), Names());
  }
  gpu->wait(stream);
}

} // namespace
