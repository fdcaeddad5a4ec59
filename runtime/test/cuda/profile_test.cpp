//===- profile_test.cpp - Times and ranges of kernels ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "cuda_testing.h"

using namespace moe::test;

namespace {

/// y = 4 * x, in two launches.
int32_t twiceEntry(void **args, const moe_rt_launcher_t *launcher) {
  auto count =
      static_cast<uint32_t>(4 * static_cast<const Memref *>(args[0])->dims[0]);
  const moe_rt_kernel_argument_t first[] = {
      argument(args[0]), argument(args[1]), argument(count), argument(2.f)};
  const moe_rt_kernel_argument_t second[] = {
      argument(args[1]), argument(args[1]), argument(count), argument(2.f)};
  for (const moe_rt_kernel_argument_t *arguments : {first, second})
    if (int32_t code = launcher->launch(launcher->user, scaleKernel, 1, 1, 1,
                                        arguments, 4))
      return code;
  return 0;
}

class CudaProfileTest : public CudaScaleTest {
protected:
  void SetUp() override {
    CudaScaleTest::SetUp();
    if (!jit)
      return;
    jit->load(scaleArguments, twiceEntry);
    jit->create();
  }

  moe_rt_stage_profile_t read(size_t stage) {
    moe_rt_stage_profile_t out = {};
    EXPECT_OK(moe_rt_layer_profile(jit->layer, stage, &out));
    return out;
  }
};

TEST_F(CudaProfileTest, TimesKernels) {
  ASSERT_EQ(moe_rt_layer_stage_count(jit->layer), 3u);
  EXPECT_OK(call());
  EXPECT_EQ(read(scaleKernel).calls, 0);
  ASSERT_OK(moe_rt_layer_enable_profile(jit->layer, 1));
  EXPECT_OK(call());
  EXPECT_EQ(y->download(), std::vector<float>(4, 6.f));
  cuda::CUstream stream = gpu->newStream();
  EXPECT_OK(jit->enqueue(stream, {x->dl()}, {y->dl()}));
  gpu->wait(stream);
  moe_rt_stage_profile_t scale = read(scaleKernel),
                         whole = read(MOE_RT_WHOLE_CALL);
  EXPECT_STREQ(scale.name, "scale");
  EXPECT_EQ(scale.calls, 2);
  EXPECT_EQ(scale.runs, 4);
  EXPECT_GE(scale.total_nanoseconds, 0);
  EXPECT_EQ(whole.calls, 2);
  EXPECT_GE(whole.total_nanoseconds, scale.total_nanoseconds - 4000);
  // Kernels that the function did not start.
  EXPECT_EQ(read(reportKernel).calls, 0);
}

TEST_F(CudaProfileTest, LeavesOutCapturedCalls) {
  ASSERT_OK(moe_rt_layer_enable_profile(jit->layer, 1));
  cuda::CUstream stream = gpu->newStream();
  void *graph = gpu->capture(
      stream, [&] { EXPECT_OK(jit->enqueue(stream, {x->dl()}, {y->dl()})); });
  gpu->replay(graph, stream);
  gpu->wait(stream);
  EXPECT_EQ(y->download(), std::vector<float>(4, 6.f));
  EXPECT_EQ(read(MOE_RT_WHOLE_CALL).calls, 0);
  gpu->check(gpu->function<int(void *)>("cuGraphExecDestroy")(graph));
}

TEST_F(CudaProfileTest, NamesRanges) {
  if (!std::getenv("NVTX_INJECTION64_PATH"))
    GTEST_SKIP() << "no tool";
  TemporaryDirectory directory;
  {
    Environment log("NVTX_TOOL_LOG", directory / "log");
    EXPECT_OK(call());
  }
  EXPECT_EQ(readFile(directory / "log"), "f\n  scale\n  scale\n");
}

} // namespace
