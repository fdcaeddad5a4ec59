//===- tensor_test.cpp - Tensors that are wrong ---------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The checks of a call: each wrong tensor is refused by name, and nothing is
// written.
//
//===----------------------------------------------------------------------===//

#include "testing.h"

#include <cstring>

using namespace moe::test;

namespace {

class TensorTest : public ::testing::Test {
protected:
  void SetUp() override {
    std::string bytes =
        makeArtifact(readFile(FIXTURE), metadataOf({layerFunction}));
    ASSERT_OK(moe_rt_module_load_memory(context, bytes.data(), bytes.size(),
                                        &module));
    weight = w.dl();
    ASSERT_OK(moe_rt_layer_create(module, nullptr, &weight, 1, &layer));
    inputs[0] = x.dl();
    inputs[1] = ids.dl();
    output = y.dl();
  }
  ~TensorTest() override {
    moe_rt_layer_destroy(layer);
    moe_rt_module_destroy(module);
  }

  moe_rt_status_t call() {
    return moe_rt_layer_call(layer, inputs, 2, &output, 1, nullptr, 0);
  }

  /// The call is refused and the output is as it was.
  void expectRefused(moe_rt_code_t code, const std::string &text) {
    EXPECT_ERROR(call(), code, text);
    for (float value : y.data)
      ASSERT_EQ(value, -7) << "written before all checks: " << text;
  }
  void expectRefused(const std::string &text) {
    expectRefused(MOE_RT_INVALID_ARGUMENT, text);
  }

  Context context;
  moe_rt_module_t *module = nullptr;
  moe_rt_layer_t *layer = nullptr;
  Array<float> x = f32({5, 4}, 1), y = f32({5, 4}, -7), w = f32({3, 4}, 2);
  Array<int32_t> ids = i32({5, 2}, 1);
  DLTensor inputs[2], output, weight;
};

TEST_F(TensorTest, Works) {
  ASSERT_OK(call());
  // Expert 1 takes four of the ten choices, which are two tokens.
  EXPECT_EQ(y.data, std::vector<float>({4, 4, 4, 4, 4, 4, 4, 4, 0, 0,
                                        0, 0, 0, 0, 0, 0, 0, 0, 0, 0}));
}

TEST_F(TensorTest, Device) {
  inputs[0].device.device_type = kDLCUDA;
  expectRefused("input 'x' is on device type 2, expected the CPU (1)");
  inputs[0].device.device_type = static_cast<DLDeviceType>(77);
  expectRefused("device type 77");
  inputs[0].device.device_type = kDLCUDAHost; // pinned memory of the host
  EXPECT_OK(call());
}

TEST_F(TensorTest, Type) {
  inputs[0].dtype = {kDLFloat, 16, 1};
  expectRefused("input 'x' has type f16, expected f32");
  inputs[0].dtype = {kDLFloat, 32, 2};
  expectRefused("type code 2 with 32 bits and 2 lanes, expected f32");
  inputs[0].dtype = {kDLInt, 32, 1};
  expectRefused("has type i32, expected f32");
  inputs[0].dtype = {200, 255, 65535};
  expectRefused("type code 200");
  inputs[0] = x.dl();
  output.dtype = {kDLBfloat, 16, 1};
  expectRefused("output 'y' has type bf16, expected f32");
}

TEST_F(TensorTest, Rank) {
  for (int32_t rank : {0, 1, 3, -1, INT32_MAX, INT32_MIN}) {
    inputs[0].ndim = rank;
    expectRefused("input 'x' has rank " + std::to_string(rank) +
                  ", expected 2");
  }
  inputs[0] = x.dl();
  inputs[0].shape = nullptr;
  expectRefused("input 'x' has no shape");
}

TEST_F(TensorTest, Shape) {
  x.shape[1] = 3;
  expectRefused("input 'x': extent 1 is 3, expected 4");
  x.shape = {-1, 4};
  expectRefused("input 'x': extent 0 is -1, expected no less than 0");
  x.shape = {5, 4};
  ids.shape[0] = 4;
  expectRefused("input 'ids': extent 0 is 4, expected T = 5 as in 'x'");
  ids.shape[0] = 5;
  y.shape[0] = 6;
  expectRefused("output 'y': extent 0 is 6, expected T = 5 as in 'x'");
  y.shape[0] = 4;
  expectRefused("output 'y': extent 0 is 4, expected T = 5 as in 'x'");
}

TEST_F(TensorTest, Tokens) {
  x.shape[0] = ids.shape[0] = y.shape[0] = 1001;
  expectRefused(MOE_RT_OUT_OF_RANGE,
                "function 'layer': T is 1001, expected 0 to 1000");
  for (int64_t huge :
       {INT64_MAX, INT64_MAX / 4, INT64_MAX / 16, int64_t(1) << 60}) {
    x.shape[0] = ids.shape[0] = y.shape[0] = huge;
    Result result(call());
    EXPECT_TRUE(result.code == MOE_RT_OUT_OF_RANGE ||
                result.code == MOE_RT_INVALID_ARGUMENT);
  }
}

TEST_F(TensorTest, Strides) {
  int64_t strides[] = {4, 1};
  inputs[0].strides = strides;
  EXPECT_OK(call());
  y = f32({5, 4}, -7);
  output = y.dl();
  strides[0] = 8;
  expectRefused("input 'x': stride 0 is 8, expected 4 (compact, row-major)");
  strides[0] = 1, strides[1] = 5;
  expectRefused("input 'x': stride 1 is 5, expected 1");
  strides[0] = 0, strides[1] = 1; // a broadcast
  expectRefused("input 'x': stride 0 is 0, expected 4");
  strides[0] = -4;
  expectRefused("input 'x': stride 0 is -4, expected 4");
}

TEST_F(TensorTest, StridesThatAreNeverTaken) {
  x.shape[0] = ids.shape[0] = y.shape[0] = 1;
  int64_t strides[] = {-99, 1};
  inputs[0].strides = inputs[1].strides = output.strides = strides;
  EXPECT_OK(call());
  x.shape[0] = ids.shape[0] = y.shape[0] = 0;
  strides[1] = 12345;
  EXPECT_OK(call());
}

TEST_F(TensorTest, Data) {
  inputs[0].data = nullptr;
  expectRefused("input 'x' has no data, expected 80 bytes");
  inputs[0] = x.dl();
  inputs[0].byte_offset = UINT64_MAX;
  expectRefused("leave the address space");
  inputs[0].byte_offset =
      UINT64_MAX - 80 - reinterpret_cast<uintptr_t>(inputs[0].data) + 79;
  expectRefused("leave the address space");
}

TEST_F(TensorTest, ByteOffset) {
  Array<float> more = f32({6, 4}, 3);
  for (int i = 0; i < 4; ++i)
    more.data[i] = 100;
  inputs[0].data = more.data.data();
  inputs[0].byte_offset = 16;
  ASSERT_OK(call());
  EXPECT_EQ(y.data[0], 12);
  y = f32({5, 4}, -7);
  output = y.dl();
  inputs[0].byte_offset = 2;
  expectRefused("expected alignment to 4 bytes");
}

TEST_F(TensorTest, Alignment) {
  std::vector<char> bytes(200);
  char *at = bytes.data();
  while (reinterpret_cast<uintptr_t>(at) % 4 != 1)
    ++at;
  inputs[0].data = at;
  expectRefused("input 'x' is at address 0x");
  inputs[0] = x.dl();
  output.data = at;
  expectRefused("output 'y' is at address 0x");
}

TEST_F(TensorTest, Overlap) {
  output.data = inputs[0].data;
  expectRefused("output 'y' overlaps input 'x', expected separate memory");
  std::vector<float> shared(100);
  inputs[0].data = shared.data();
  output.data = shared.data() + 19;
  expectRefused("output 'y' overlaps input 'x'");
  output.data = shared.data() + 20; // side by side
  EXPECT_OK(call());
  inputs[0].data = shared.data() + 20;
  output.data = shared.data() + 1;
  expectRefused("output 'y' overlaps input 'x'");
  inputs[0] = x.dl();
  // The weight lies within the output.
  std::vector<float> large(12 + 20);
  DLTensor other = w.dl();
  other.data = large.data() + 19;
  moe_rt_layer_t *second = nullptr;
  ASSERT_OK(moe_rt_layer_create(module, nullptr, &other, 1, &second));
  output.data = large.data();
  EXPECT_ERROR(moe_rt_layer_call(second, inputs, 2, &output, 1, nullptr, 0),
               MOE_RT_INVALID_ARGUMENT, "output 'y' overlaps weight 'w'");
  moe_rt_layer_destroy(second);
}

TEST_F(TensorTest, WorkspaceOverlap) {
  alignas(64) static char workspace[512];
  auto run = [&] {
    return moe_rt_layer_call(layer, inputs, 2, &output, 1, workspace, 128);
  };
  output.data = workspace + 124;
  EXPECT_ERROR(run(), MOE_RT_INVALID_ARGUMENT, "workspace overlaps output 'y'");
  output = y.dl();
  inputs[0].data = workspace + 64;
  EXPECT_ERROR(run(), MOE_RT_INVALID_ARGUMENT, "workspace overlaps input 'x'");
  inputs[0].data = workspace + 128;
  EXPECT_OK(run());
}

TEST_F(TensorTest, Ids) {
  for (int32_t bad : {3, 4, 1 << 30, INT32_MAX, -2, INT32_MIN}) {
    ids.data[7] = bad;
    expectRefused("input 'ids': element 7 is " + std::to_string(bad) +
                  ", expected an expert id in [0, 3) or -1");
  }
  ids.data[7] = -1;
  EXPECT_OK(call());
}

TEST_F(TensorTest, Counts) {
  EXPECT_ERROR(moe_rt_layer_call(layer, inputs, 1, &output, 1, nullptr, 0),
               MOE_RT_INVALID_ARGUMENT,
               "function 'layer': 1 inputs are given, expected 2");
  EXPECT_ERROR(moe_rt_layer_call(layer, inputs, 2, &output, 0, nullptr, 0),
               MOE_RT_INVALID_ARGUMENT, "0 outputs are given, expected 1");
  EXPECT_ERROR(moe_rt_layer_call(layer, nullptr, 2, &output, 1, nullptr, 0),
               MOE_RT_INVALID_ARGUMENT, "the inputs are NULL, expected 2");
  EXPECT_ERROR(moe_rt_layer_call(layer, inputs, 2, nullptr, 1, nullptr, 0),
               MOE_RT_INVALID_ARGUMENT, "the outputs are NULL");
  EXPECT_ERROR(moe_rt_layer_call(nullptr, inputs, 2, &output, 1, nullptr, 0),
               MOE_RT_INVALID_ARGUMENT, "NULL");
}

TEST_F(TensorTest, Weights) {
  moe_rt_layer_t *other = nullptr;
  auto create = [&](size_t count = 1) {
    return moe_rt_layer_create(module, "layer", &weight, count, &other);
  };
  EXPECT_ERROR(create(0), MOE_RT_INVALID_ARGUMENT,
               "0 weights are given, expected 1");
  w.shape[0] = 2;
  EXPECT_ERROR(create(), MOE_RT_INVALID_ARGUMENT,
               "weight 'w': extent 0 is 2, expected 3");
  w.shape[0] = 3;
  weight.dtype = {kDLFloat, 16, 1};
  EXPECT_ERROR(create(), MOE_RT_INVALID_ARGUMENT,
               "weight 'w' has type f16, expected f32");
  weight = w.dl();
  weight.data = nullptr;
  EXPECT_ERROR(create(), MOE_RT_INVALID_ARGUMENT, "weight 'w' has no data");
  EXPECT_ERROR(moe_rt_layer_create(module, "none", &weight, 1, &other),
               MOE_RT_NOT_FOUND, "no function 'none'; it has: 'layer'");
  EXPECT_ERROR(moe_rt_layer_create(module, "layer", nullptr, 1, &other),
               MOE_RT_INVALID_ARGUMENT, "the weights are NULL");
  EXPECT_EQ(other, nullptr);
}

} // namespace
