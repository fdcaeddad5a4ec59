//===- launch_test.cpp - What code starts on a device ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "cuda_testing.h"

using namespace moe::test;

namespace {

class CudaLaunchTest : public CudaScaleTest {};

int64_t noWorkspace(int64_t) { return 0; }

TEST_F(CudaLaunchTest, EmptyGridsStartNothing) {
  jit->load(scaleArguments,
            [](void **, const moe_rt_launcher_t *launcher) -> int32_t {
              for (int i = 0; i < 3; ++i) {
                int64_t grid[] = {1, 1, 1};
                grid[i] = 0;
                if (int32_t code =
                        launcher->launch(launcher->user, faultKernel, grid[0],
                                         grid[1], grid[2], nullptr, 0))
                  return code;
              }
              return 0;
            });
  jit->create();
  EXPECT_OK(call());
}

/// What the next call of the code starts, and what it returns then.
struct Launch {
  int64_t kernel = scaleKernel;
  int64_t grid[3] = {1, 1, 1};
  std::vector<moe_rt_kernel_argument_t> arguments = {};
  int32_t code = -1; // -1: what the launch returned
};
Launch next;

int32_t nextEntry(void **, const moe_rt_launcher_t *launcher) {
  int32_t code = launcher->launch(
      launcher->user, next.kernel, next.grid[0], next.grid[1], next.grid[2],
      next.arguments.data(), static_cast<int64_t>(next.arguments.size()));
  return next.code < 0 ? code : next.code;
}

TEST_F(CudaLaunchTest, RefusesLaunches) {
  DeviceVariant variant;
  variant.kernels.replace(variant.kernels.find("\"cluster\": 1"), 12,
                          "\"cluster\": 2");
  jit->load(scaleArguments, nextEntry, noWorkspace, variant);
  jit->create();
  auto refuse = [&](const Launch &launch, const std::string &text) {
    next = launch;
    EXPECT_ERROR(call(), MOE_RT_INTERNAL, text);
  };
  refuse({-1}, "function 'f': the code starts kernel -1 of 3");
  refuse({3}, "the code starts kernel 3 of 3");
  refuse({scaleKernel, {-1, 1, 1}},
         "kernel 'scale': extent 0 of the grid is -1, expected 0 to "
         "2147483647");
  refuse({scaleKernel, {1, 65536, 1}},
         "kernel 'scale': extent 1 of the grid is 65536, expected 0 to 65535");
  refuse({faultKernel, {3, 1, 1}},
         "kernel 'fault': extent 0 of the grid is 3, expected a multiple of "
         "the cluster of 2");
  std::vector<moe_rt_kernel_argument_t> many(257, {8, 0});
  refuse({scaleKernel, {1, 1, 1}, many},
         "kernel 'scale' is given 257 arguments, expected at most 256");
  // A failure that the code does not pass on is one, too.
  refuse({3, {1, 1, 1}, {}, 0}, "the code starts kernel 3 of 3");
  // A failure of the code itself.
  refuse({faultKernel, {0, 1, 1}, {}, 7}, "function 'f' failed with code 7");
  // The layer stays usable.
  next = {faultKernel, {0, 1, 1}};
  EXPECT_OK(call());
}

TEST_F(CudaLaunchTest, NothingStartsBehindAFailure) {
  jit->load(scaleArguments,
            [](void **args, const moe_rt_launcher_t *launcher) -> int32_t {
              (void)launcher->launch(launcher->user, 7, 1, 1, 1, nullptr, 0);
              EXPECT_NE(scaleEntry(args, launcher), 0);
              return 0;
            });
  jit->create();
  EXPECT_ERROR(call(), MOE_RT_INTERNAL, "the code starts kernel 7 of 3");
  EXPECT_EQ(y->download(), std::vector<float>(4, 0));
}

TEST_F(CudaLaunchTest, Clusters) {
  if (gpu->device->capability().major < 9)
    GTEST_SKIP() << "the device has no clusters";
  for (uint32_t size :
       {1u, 2u, 16u}) { // the last is larger than all devices do
    DeviceJit each(options());
    each.symbols["image"] = sm90Image;
    each.load(
        R"({"name": "y", "role": "output", "dtype": "i32", "shape": [-1]})",
        [](void **args, const moe_rt_launcher_t *launcher) -> int32_t {
          const moe_rt_kernel_argument_t arguments[] = {argument(args[0])};
          return launcher->launch(launcher->user, 0, 32, 1, 1, arguments, 1);
        },
        noWorkspace,
        sm90Variant(R"([{"name": "clusterSize", "threads": 1, "cluster": )" +
                    std::to_string(size) + "}]"));
    each.create();
    DeviceArray<int32_t> sizes(*gpu, i32({32}));
    ASSERT_OK(each.call({}, {sizes.dl()}));
    EXPECT_EQ(sizes.download(),
              std::vector<int32_t>(32, static_cast<int32_t>(size)));
  }
}

TEST_F(CudaLaunchTest, UnknownKernels) {
  DeviceVariant variant;
  variant.kernels = R"([{"name": "none", "threads": 1}])";
  jit->load(scaleArguments, scaleEntry, noWorkspace, variant);
  EXPECT_ERROR(
      moe_rt_layer_create(jit->module, nullptr, nullptr, 0, &jit->layer),
      MOE_RT_INTERNAL, "cannot find kernel 'none' in its image: CUDA_");
  EXPECT_EQ(jit->layer, nullptr);
}

TEST_F(CudaLaunchTest, BadImages) {
  jit->symbols["image"] = ".version 7.0\n.target sm_80\n.nonsense\n";
  DeviceVariant variant;
  variant.images = R"([{"format": "ptx", "arch": "sm_80", "symbol": "image",
                        "size": 38}])";
  jit->load(scaleArguments, scaleEntry, noWorkspace, variant);
  Result result(
      moe_rt_layer_create(jit->module, nullptr, nullptr, 0, &jit->layer));
  EXPECT_NE(result.code, MOE_RT_OK);
  const std::string start =
      "cannot load the kernels of 'f' (PTX for sm_80): CUDA_ERROR_";
  EXPECT_EQ(result.message.substr(0, start.size()), start) << result.message;
  EXPECT_NE(result.message.find("; "), std::string::npos)
      << "without the compiler's log: " << result.message;
}

TEST_F(CudaLaunchTest, TakesTheImageThatLoads) {
  // What says that it is native code comes first, and is not.
  jit->symbols["native"] = "no code at all";
  jit->symbols["image"] = "neither";
  cuda::Capability capability = gpu->device->capability();
  std::string native =
      "sm_" + std::to_string(10 * capability.major + capability.minor);
  DeviceVariant variant;
  variant.images =
      R"([{"format": "ptx", "arch": "sm_80", "symbol": "image", "size": 7},
          {"format": "cubin", "arch": ")" +
      native + R"(", "symbol": "native", "size": 14}])";
  jit->load(scaleArguments, scaleEntry, noWorkspace, variant);
  Result result(
      moe_rt_layer_create(jit->module, nullptr, nullptr, 0, &jit->layer));
  EXPECT_LT(result.message.find("'f' (cubin for " + native + ")"),
            result.message.find("'f' (PTX for sm_80)"))
      << result.message;
  EXPECT_NE(result.message.find("'f' (PTX for sm_80)"), std::string::npos);

  moe_rt_module_destroy(jit->module);
  jit->symbols["image"] = testImage;
  variant.images.replace(variant.images.find("7}"), 1,
                         std::to_string(std::strlen(testImage)));
  jit->load(scaleArguments, scaleEntry, noWorkspace, variant);
  jit->create();
  ASSERT_OK(call());
  EXPECT_EQ(y->download(), std::vector<float>(4, 3));
}

} // namespace
