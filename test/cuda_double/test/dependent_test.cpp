//===- dependent_test.cpp - Programmatic dependent launches ---------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "testing.h"

using namespace moe::gpu::test;

namespace {

using Words = std::vector<uint32_t>;

/// Kernels of two blocks of one thread, each with a word of `in` and `out`.
class DependentTest : public SeededGpu {
protected:
  struct Step {
    std::string body;
    CUdeviceptr out, in;
    bool programmatic;
    unsigned blocks = 2;
  };
  static Source kernel(const std::string &body) {
    return Source{"ld.param.u64 %rd0, [out];\nld.param.u64 %rd1, [in];\n"
                  "mov.u32 %r0, %ctaid.x;\nmul.wide.u32 %rd2, %r0, 4;\n"
                  "add.s64 %rd0, %rd0, %rd2;\nadd.s64 %rd1, %rd1, %rd2;\n" +
                      body,
                  ".param .u64 out, .param .u64 in"};
  }
  void launch(const Step &step, CUstream stream) {
    CUfunction function = load(kernel(step.body));
    CUdeviceptr out = step.out, in = step.in;
    void *parameters[] = {&out, &in};
    CUlaunchAttribute attribute = {};
    attribute.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
    attribute.value.programmaticStreamSerializationAllowed = step.programmatic;
    CUlaunchConfig config = {step.blocks, 1, 1,      1,          1,
                             1,           0, stream, &attribute, 1};
    EXPECT_OK(cuLaunchKernelEx(&config, function, parameters, nullptr));
  }
  CUresult steps(const std::vector<Step> &all) {
    for (const Step &step : all)
      launch(step, nullptr);
    return cuCtxSynchronize();
  }
  ::testing::AssertionResult fails(CUresult result, const std::string &words) {
    if (result == CUDA_ERROR_LAUNCH_FAILED &&
        message().find(words) != std::string::npos)
      return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure() << result << ": " << message();
  }
  void SetUp() override {
    SeededGpu::SetUp();
    a = put(Words{10, 20});
    b = put(Words{0, 0});
    c = put(Words{0, 0});
  }
  CUdeviceptr a, b, c;
};
INSTANTIATE_TEST_SUITE_P(Seeds, DependentTest, MOE_SEEDS);

const std::string trigger = "griddepcontrol.launch_dependents;\n",
                  wait = "griddepcontrol.wait;\n",
                  // As long that the next kernel has begun.
    linger = "mov.u32 %r5, 0;\n$linger:\nnanosleep.u32 100;\n"
             "add.u32 %r5, %r5, 1;\nsetp.lt.u32 %p5, %r5, 50;\n"
             "@%p5 bra $linger;\n",
                  increment = "ld.global.u32 %r1, [%rd1];\n"
                              "add.u32 %r1, %r1, 1;\n"
                              "st.global.u32 [%rd0], %r1;\n";

TEST_P(DependentTest, TheWaitOrders) {
  EXPECT_OK(steps({{trigger + linger + increment, b, a, false},
                   {linger + wait + increment, c, b, true}}));
  EXPECT_EQ(get<uint32_t>(c, 2), (Words{12, 22}));
}

TEST_P(DependentTest, ReadsBeforeTheWait) {
  const std::string words = "griddepcontrol.wait has to come before";
  EXPECT_TRUE(fails(steps({{trigger + increment, b, a, false},
                           {increment + wait, c, b, true}}),
                    words));
  // What comes before the trigger is not visible, either.
  SetUp();
  EXPECT_TRUE(fails(steps({{increment + trigger, b, a, false},
                           {increment + wait, c, b, true}}),
                    words));
  // Without a trigger, the end of its blocks is one.
  SetUp();
  EXPECT_TRUE(
      fails(steps({{increment, b, a, false}, {increment + wait, c, b, true}}),
            words));
  // Writes of what the kernel before reads.
  SetUp();
  EXPECT_TRUE(fails(steps({{trigger + linger + increment, b, a, false},
                           {increment + wait, a, c, true}}),
                    words));
}

TEST_P(DependentTest, OtherLaunchesWait) {
  EXPECT_OK(
      steps({{trigger + increment, b, a, false}, {increment, c, b, false}}));
  EXPECT_EQ(get<uint32_t>(c, 2), (Words{12, 22}));
  // The first of a stream, and one behind a copy, wait for nothing.
  SetUp();
  EXPECT_OK(steps({{wait + increment, b, a, true}}));
  EXPECT_OK(cuMemcpyDtoDAsync_v2(c, b, 8, nullptr));
  EXPECT_OK(steps({{increment, c, c, true}}));
  EXPECT_EQ(get<uint32_t>(c, 2), (Words{12, 22}));
}

TEST_P(DependentTest, ThePrologueRunsEarly) {
  // The dependent kernel sets a flag that the first one waits for: only where
  // its prologue runs under the first kernel, this ends.
  std::string first = trigger + "$again:\nld.acquire.gpu.global.u32 %r1, "
                                "[%rd1];\nsetp.eq.u32 %p0, %r1, 7;\n"
                                "@!%p0 bra $again;\n";
  std::string second = "st.release.gpu.global.u32 [%rd0], 7;\n" + wait;
  CUresult result = steps({{first, b, c, false, 1}, {second, c, b, true, 1}});
  if (GetParam() == 1) {
    EXPECT_EQ(result, CUDA_ERROR_LAUNCH_TIMEOUT) << message();
  } else {
    EXPECT_OK(result);
  }
}

TEST_P(DependentTest, ChainsOfThree) {
  EXPECT_OK(steps({{trigger + linger + increment, b, a, false},
                   {trigger + wait + increment, c, b, true},
                   {trigger + wait + increment, a, c, true}}));
  EXPECT_EQ(get<uint32_t>(a, 2), (Words{13, 23}));
  // The end of a kernel that has not waited says nothing of those before.
  SetUp();
  EXPECT_TRUE(fails(steps({{trigger + linger + increment, b, a, false},
                           {trigger, c, c, true},
                           {wait + increment, c, b, true}}),
                    "griddepcontrol.wait has to come before"));
}

TEST_P(DependentTest, TheTriggerHandsOnWhatWasWaitedFor) {
  // The third launch begins under the second, which lets it after its wait for
  // the first.
  const std::string third = increment + wait;
  EXPECT_OK(steps({{trigger + linger + increment, b, a, false},
                   {wait + trigger + linger, c, c, true},
                   {third, c, b, true}}));
  EXPECT_EQ(get<uint32_t>(c, 2), (Words{12, 22}));
  const std::string words = "griddepcontrol.wait has to come before";
  for (const std::string &second : {trigger + wait, linger}) {
    SetUp();
    EXPECT_TRUE(fails(steps({{trigger + linger + increment, b, a, false},
                             {second, c, c, true},
                             {third, c, b, true}}),
                      words));
  }
}

TEST_P(DependentTest, CapturedGraphs) {
  for (bool waits : {true, false}) {
    SetUp();
    CUstream stream;
    EXPECT_OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    EXPECT_OK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
    launch({trigger + linger + increment, b, a, false}, stream);
    launch({(waits ? wait : "") + increment, c, b, true}, stream);
    CUgraph graph;
    CUgraphExec executable;
    EXPECT_OK(cuStreamEndCapture(stream, &graph));
    EXPECT_OK(cuGraphInstantiateWithFlags(&executable, graph, 0));
    EXPECT_OK(cuGraphLaunch(executable, stream));
    CUresult result = cuStreamSynchronize(stream);
    if (waits) {
      EXPECT_OK(result);
      EXPECT_EQ(get<uint32_t>(c, 2), (Words{12, 22}));
    } else {
      EXPECT_TRUE(fails(result, "griddepcontrol.wait"));
    }
  }
}

} // namespace
