//===- testing.h - Helpers for the tests of the double ----------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CUDA_DOUBLE_TESTING_H
#define MOE_CUDA_DOUBLE_TESTING_H

#include "driver/cuda_abi.h"

#include <cstring>
#include <gtest/gtest.h>
#include <map>
#include <string>
#include <vector>

namespace moe::gpu::test {

/// Expects success, and prints the double's message on failure.
#define EXPECT_OK(call) EXPECT_EQ(call, CUDA_SUCCESS) << Gpu::message()
#define ASSERT_OK(call) ASSERT_EQ(call, CUDA_SUCCESS) << Gpu::message()

struct Shape {
  unsigned x = 1, y = 1, z = 1;
};

/// A module: the header, globals, and a kernel `k` with these parameters and
/// body. The body may use registers %p, %h (16 bits), %r (32), %rd (64), %f and
/// %fd.
struct Source {
  std::string body;
  std::string parameters = ".param .u64 out";
  std::string globals = "";
  std::string directives = "";
  std::string target = "sm_90a";
  operator std::string() const;
};

/// Each test starts with a new state of the double.
class Gpu : public ::testing::Test {
protected:
  using Environment = std::map<std::string, std::string>;

  void SetUp() override { start(); }
  void TearDown() override { moe_cuda_double_reset(); }

  /// Restarts the double with only these MOE_CUDA_DOUBLE_* variables set.
  void start(const Environment &environment = {});
  static std::string message() { return moe_cuda_double_message(); }

  /// Loads a module and returns its kernel; nullptr on a failure.
  CUfunction load(const std::string &ptx, const char *name = "k");
  /// Expects loading to fail and returns the message.
  std::string loadError(const std::string &ptx);

  CUdeviceptr alloc(size_t bytes);
  template <typename T> CUdeviceptr put(const std::vector<T> &data) {
    CUdeviceptr address = alloc(data.size() * sizeof(T));
    EXPECT_OK(cuMemcpyHtoD_v2(address, data.data(), data.size() * sizeof(T)));
    return address;
  }
  template <typename T> std::vector<T> get(CUdeviceptr address, size_t count) {
    std::vector<T> data(count);
    EXPECT_OK(cuMemcpyDtoH_v2(data.data(), address, count * sizeof(T)));
    return data;
  }

  /// Launches a kernel and waits for it.
  template <typename... Args>
  CUresult run(CUfunction kernel, Shape grid, Shape block, unsigned shared,
               Args... args) {
    void *parameters[] = {static_cast<void *>(&args)..., nullptr};
    return runWith(kernel, grid, block, shared, parameters);
  }
  /// The same with a cooperative launch.
  template <typename... Args>
  CUresult runTogether(CUfunction kernel, unsigned grid, unsigned block,
                       Args... args) {
    void *parameters[] = {static_cast<void *>(&args)..., nullptr};
    CUresult result = cuLaunchCooperativeKernel(kernel, grid, 1, 1, block, 1, 1,
                                                0, nullptr, parameters);
    return result == CUDA_SUCCESS ? cuCtxSynchronize() : result;
  }
  /// Expects a launch to fail with `code` and returns the message.
  template <typename... Args>
  std::string failure(CUresult code, CUfunction kernel, Shape grid, Shape block,
                      unsigned shared, Args... args) {
    EXPECT_EQ(run(kernel, grid, block, shared, args...), code) << message();
    return message();
  }

  /// Runs `source` with one block and returns the contents of `out`.
  template <typename T>
  std::vector<T> outputOf(const std::string &source, unsigned threads,
                          size_t count, unsigned shared = 0) {
    CUfunction kernel = load(source);
    CUdeviceptr out = alloc(count * sizeof(T));
    if (!kernel)
      return std::vector<T>(count);
    EXPECT_OK(run(kernel, {1}, {threads}, shared, out));
    return get<T>(out, count);
  }

  /// Executes an instruction that reads %a, %b and %c and writes %d, for each
  /// index of the inputs. `types` are the register types of d, a, b and c.
  template <typename D, typename A, typename B = A, typename C = A>
  std::vector<D> apply(const std::string &instruction,
                       std::vector<std::string> types, std::vector<A> a,
                       std::vector<B> b = {}, std::vector<C> c = {}) {
    size_t count = a.size();
    b.resize(count);
    c.resize(count);
    CUfunction kernel = load(applySource(instruction, types));
    CUdeviceptr out = alloc(count * 8);
    if (!kernel)
      return std::vector<D>(count);
    CUdeviceptr pa = put(widened(a)), pb = put(widened(b)),
                pc = put(widened(c));
    EXPECT_OK(
        run(kernel, {static_cast<unsigned>(count)}, {1}, 0, out, pa, pb, pc));
    std::vector<uint64_t> wide = get<uint64_t>(out, count);
    std::vector<D> result(count);
    for (size_t i = 0; i < count; ++i)
      std::memcpy(&result[i], &wide[i], sizeof(D));
    return result;
  }

private:
  template <typename T>
  static std::vector<uint64_t> widened(const std::vector<T> &values) {
    std::vector<uint64_t> wide(values.size(), 0);
    for (size_t i = 0; i < values.size(); ++i)
      std::memcpy(&wide[i], &values[i], sizeof(T));
    return wide;
  }
  static std::string applySource(const std::string &instruction,
                                 const std::vector<std::string> &types);
  CUresult runWith(CUfunction kernel, Shape grid, Shape block, unsigned shared,
                   void **parameters);
};

/// Runs a test with asynchronous operations that take effect as late as
/// possible, at their issue, and at random times.
class SeededGpu : public Gpu, public ::testing::WithParamInterface<int> {
protected:
  void SetUp() override { start({{"SEED", std::to_string(GetParam())}}); }
};
#define MOE_SEEDS ::testing::Values(0, 1, 2, 3, 4)

/// Replaces the first occurrence.
std::string with(std::string text, const std::string &what,
                 const std::string &by);

/// Conversions to bf16, rounded, and back.
uint16_t toBfloat(float value);
float fromBfloat(uint16_t bits);
/// Small multiples of 0.5, whose products and sums are exact.
std::vector<uint16_t> bfloatPattern(size_t count, unsigned seed);

} // namespace moe::gpu::test

#endif // MOE_CUDA_DOUBLE_TESTING_H
