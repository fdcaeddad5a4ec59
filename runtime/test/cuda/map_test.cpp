//===- map_test.cpp - Tensor maps -----------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Tensor maps that code passes to its kernels, by what the bulk copy engine
// makes of them.
//
//===----------------------------------------------------------------------===//

#include "cuda_testing.h"

using namespace moe::test;

namespace {

constexpr int64_t rows = 12, columns = 128, boxRows = 8;

/// What the next call of the code passes; the address is that of its input.
moe_rt_tensor_map_t map;
int32_t corner[2]; // column and row of the box

int32_t mapEntry(void **args, const moe_rt_launcher_t *launcher) {
  moe_rt_tensor_map_t passed = map;
  passed.address += static_cast<const Memref *>(args[0])->address();
  auto bytes =
      static_cast<uint32_t>(static_cast<const Memref *>(args[1])->dims[0]);
  const moe_rt_kernel_argument_t arguments[] = {
      {0, static_cast<uint64_t>(reinterpret_cast<uintptr_t>(&passed))},
      argument(args[1]),
      argument(static_cast<uint32_t>(corner[0])),
      argument(static_cast<uint32_t>(corner[1])),
      argument(bytes)};
  return launcher->launch(launcher->user, 0, 1, 1, 1, arguments, 5);
}

class CudaMapTest : public CudaLayerTest {
protected:
  void SetUp() override {
    CudaLayerTest::SetUp();
    if (!jit)
      return;
    if (gpu->device->capability().major < 9)
      GTEST_SKIP() << "the device has no bulk copies";
    map = {
        0, MOE_RT_MAP_U8, 2, {columns, rows}, {1, columns}, {columns, boxRows},
        0};
    corner[0] = corner[1] = 0;
    jit->symbols["image"] = sm90Image;
    jit->load(
        R"({"name": "x", "role": "input", "dtype": "i8", "shape": [12, 128]},
           {"name": "y", "role": "output", "dtype": "i8", "shape": [-1]})",
        mapEntry, [](int64_t) { return int64_t(0); },
        sm90Variant(
            R"([{"name": "copyBox", "threads": 32, "shared": 65536}])"));
    jit->create();
    Array<int8_t> values({rows, columns}, {kDLInt, 8, 1});
    for (size_t i = 0; i < values.data.size(); ++i)
      values.data[i] = value(static_cast<int64_t>(i));
    x = std::make_unique<DeviceArray<int8_t>>(*gpu, values);
  }
  void TearDown() override {
    x.reset();
    CudaLayerTest::TearDown();
  }

  static int8_t value(int64_t i) { return static_cast<int8_t>(i * 7 % 251); }
  /// That of a byte of the tensor, zero outside.
  static int8_t at(int64_t row, int64_t column) {
    bool inside = row >= 0 && row < rows && column >= 0 && column < columns;
    return inside ? value(row * columns + column) : 0;
  }

  /// The box as it lies in shared memory.
  std::vector<int8_t> copy(int64_t bytes) {
    DeviceArray<int8_t> y(*gpu, {{bytes}, {kDLInt, 8, 1}, 99});
    EXPECT_OK(jit->call({x->dl()}, {y.dl()}));
    return y.download();
  }
  void refuse(const std::string &text) {
    DeviceArray<int8_t> y(*gpu, {{128}, {kDLInt, 8, 1}});
    EXPECT_ERROR(jit->call({x->dl()}, {y.dl()}), MOE_RT_INTERNAL, text);
  }

  std::unique_ptr<DeviceArray<int8_t>> x;
};

TEST_F(CudaMapTest, BoxesAndWhatLiesOutside) {
  corner[0] = 64; // half of the box lies beside the tensor,
  corner[1] = 7;  // and three of its rows below
  std::vector<int8_t> box = copy(columns * boxRows), expected;
  for (int64_t row = 0; row < boxRows; ++row)
    for (int64_t column = 0; column < columns; ++column)
      expected.push_back(at(row + 7, column + 64));
  EXPECT_EQ(box, expected);
}

TEST_F(CudaMapTest, Swizzle) {
  for (int64_t bytes : {32, 64, 128}) {
    map.swizzle = map.box[0] = bytes;
    std::vector<int8_t> box = copy(bytes * boxRows), expected(box.size());
    // Chunks of 16 bytes change places by the number of their line of 128.
    for (int64_t i = 0; i < bytes * boxRows; ++i) {
      int64_t to = i ^ ((i >> 7 & (bytes / 16 - 1)) << 4);
      expected[static_cast<size_t>(to)] = at(i / bytes, i % bytes);
    }
    EXPECT_EQ(box, expected) << bytes;
  }
}

TEST_F(CudaMapTest, ElementsAndStrides) {
  struct Case {
    int64_t element, bytes;
  };
  for (Case each : {Case{MOE_RT_MAP_F16, 2}, Case{MOE_RT_MAP_BF16, 2},
                    Case{MOE_RT_MAP_F32, 4}, Case{MOE_RT_MAP_I32, 4}}) {
    // Every other row, from the 16th byte on.
    map.address = 16;
    map.element = each.element;
    map.sizes[0] = 64 / each.bytes;
    map.sizes[1] = rows / 2;
    map.strides[1] = 2 * columns;
    map.box[0] = 64 / each.bytes;
    map.box[1] = 4;
    corner[1] = 1;
    std::vector<int8_t> box = copy(4 * 64), expected;
    for (int64_t row = 0; row < 4; ++row)
      for (int64_t column = 0; column < 64; ++column)
        expected.push_back(at(2 * (row + 1), column + 16));
    EXPECT_EQ(box, expected) << each.element;
  }
}

TEST_F(CudaMapTest, Refuses) {
  const moe_rt_tensor_map_t good = map;
  map.address = 8;
  refuse("kernel 'copyBox', argument 0: no tensor map of address 0x");
  refuse(", element type 0 (u8), rank 2, sizes [128, 12], strides [1, 128], "
         "box [128, 8], swizzle 0: its address is no multiple of 16");
  map = good;
  map.element = 5;
  refuse("element type 5 (unknown)");
  refuse("there is no such element type");
  map = good;
  map.element = -1;
  refuse("there is no such element type");
  for (int64_t rank : {int64_t(0), int64_t(6), int64_t(-1), INT64_MAX}) {
    map = good;
    map.rank = rank;
    refuse("its rank is not from 1 to 5");
  }
  for (int64_t swizzle : {16, 256, -32, 1}) {
    map = good;
    map.swizzle = swizzle;
    refuse("its swizzle is not 0, 32, 64 or 128");
  }
  for (int64_t box : {int64_t(0), int64_t(257), (int64_t(1) << 32) + 8}) {
    map = good;
    map.box[1] = box;
    refuse("its box is not from 1 to 256 everywhere");
  }
  // The rest is the driver's.
  map = good;
  map.strides[1] = 120;
  refuse("strides [1, 120], box [128, 8], swizzle 0: CUDA_ERROR_INVALID_VALUE");
  map = good;
  map.sizes[1] = 0;
  refuse("sizes [128, 0]");
  map = good;
  map.sizes[0] = -1;
  refuse("sizes [-1, 12]");
  map = good;
  map.swizzle = 32;
  refuse("swizzle 32: CUDA_ERROR_INVALID_VALUE");
}

} // namespace
