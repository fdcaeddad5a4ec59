//===- overlap_test.cpp - Launches that begin early -----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Programmatic dependent launch. The prologue of the kernel `second` sets a
// flag; `first` looks for it, for a while, before it ends, and writes what it
// saw. So the result says whether the second began under the first.
//
//===----------------------------------------------------------------------===//

#include "cuda_testing.h"

using namespace moe::test;

namespace {

const char *const image = R"(
.version 8.0
.target sm_90
.address_size 64

.visible .entry first(.param .u64 p_flag, .param .u64 p_seen)
{
  .reg .pred more;
  .reg .b32 count, value;
  .reg .b64 flag, seen;
  ld.param.u64 flag, [p_flag];
  ld.param.u64 seen, [p_seen];
  griddepcontrol.launch_dependents;
  mov.u32 count, 0;
again:
  ld.acquire.gpu.global.u32 value, [flag];
  st.relaxed.gpu.global.u32 [seen], value; // to wait without an end is an error
  add.u32 count, count, 1;
  setp.lt.u32 more, count, 3000;
  setp.eq.and.u32 more, value, 0, more;
  @more bra again;
  ret;
}

.visible .entry second(.param .u64 p_flag)
{
  .reg .b64 flag;
  ld.param.u64 flag, [p_flag];
  st.release.gpu.global.u32 [flag], 7;
  griddepcontrol.wait;
  ret;
}

.visible .entry other()
{
  ret;
}
)";

enum : int64_t { firstKernel, secondKernel, otherKernel };
const char *const arguments =
    R"({"name": "flag", "role": "output", "dtype": "i32", "shape": [-1]},
       {"name": "seen", "role": "output", "dtype": "i32", "shape": [-1]})";

int64_t otherBlocks = 0; // of a launch between the two

int32_t entry(void **args, const moe_rt_launcher_t *launcher) {
  const moe_rt_kernel_argument_t all[] = {argument(args[0]), argument(args[1])};
  auto launch = [&](int64_t kernel, int64_t blocks, int64_t count) {
    return launcher->launch(launcher->user, kernel, blocks, 1, 1, all, count);
  };
  return launch(firstKernel, 1, 2) | launch(otherKernel, otherBlocks, 0) |
         launch(secondKernel, 1, 1);
}

class CudaOverlapTest : public CudaLayerTest {
protected:
  void SetUp() override {
    CudaLayerTest::SetUp();
    if (!jit)
      return;
    if (gpu->device->capability().major < 9)
      GTEST_SKIP() << "the device has no programmatic dependent launch";
    const char *seed = std::getenv("MOE_CUDA_DOUBLE_SEED");
    if (seed && std::string(seed) == "1")
      GTEST_SKIP() << "launches do not overlap with this seed";
    otherBlocks = 0;
  }

  /// A layer whose second kernel may begin under these.
  void load(const std::string &primaries) {
    jit = std::make_unique<DeviceJit>(options());
    jit->symbols["image"] = image;
    jit->load(
        arguments, entry, [](int64_t) { return int64_t(0); },
        {"sm_90",
         R"([{"format": "ptx", "arch": "sm_90", "symbol": "image", "size": )" +
             std::to_string(std::strlen(image)) + "}]",
         R"([{"name": "first", "threads": 1}, {"name": "second", "threads": 1,
              "primaries": )" +
             primaries + R"(}, {"name": "other", "threads": 1}])"});
    jit->create();
    flag = std::make_unique<DeviceArray<int32_t>>(*gpu, i32({1}));
    seen = std::make_unique<DeviceArray<int32_t>>(*gpu, i32({1}));
  }
  bool overlaps() {
    EXPECT_OK(jit->call({}, {flag->dl(), seen->dl()}));
    return seen->download()[0] == 7;
  }
  void TearDown() override {
    flag.reset();
    seen.reset();
    CudaLayerTest::TearDown();
  }

  std::unique_ptr<DeviceArray<int32_t>> flag, seen;
};

TEST_F(CudaOverlapTest, BeginsUnderThePrimary) {
  load("[0]");
  EXPECT_TRUE(overlaps());
  load("[0, 2]");
  EXPECT_TRUE(overlaps());
}

TEST_F(CudaOverlapTest, WaitsForOthers) {
  load("[]");
  EXPECT_FALSE(overlaps());
  load("[2]");
  EXPECT_FALSE(overlaps());
  // The one directly before counts.
  otherBlocks = 1;
  load("[0]");
  EXPECT_FALSE(overlaps());
}

TEST_F(CudaOverlapTest, ProfilesKernelsOneByOne) {
  load("[0]");
  ASSERT_OK(moe_rt_layer_enable_profile(jit->layer, 1));
  EXPECT_FALSE(overlaps());
}

TEST_F(CudaOverlapTest, InGraphs) {
  load("[0]");
  cuda::CUstream stream = gpu->newStream();
  void *graph = gpu->capture(stream, [&] {
    EXPECT_OK(jit->enqueue(stream, {}, {flag->dl(), seen->dl()}));
  });
  gpu->replay(graph, stream);
  gpu->wait(stream);
  EXPECT_EQ(seen->download()[0], 7);
  gpu->check(gpu->function<int(void *)>("cuGraphExecDestroy")(graph));
}

} // namespace
