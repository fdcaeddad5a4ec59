//===- random_test.cpp - Random tensors and 16 and 8-bit floating point ---===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "io/float.h"
#include "support/dtype.h"
#include "testing.h"

#include "moe_rt/io.h"

#include <cmath>
#include <cstring>
#include <set>

using namespace moe::io;
using namespace moe::test;

namespace {

TEST(RandomTest, IsSplitmix64) {
  // The first numbers of the reference implementation for seed 1234567.
  EXPECT_EQ(randomBits(1234567, 0), 6457827717110365317u);
  EXPECT_EQ(randomBits(1234567, 1), 3203168211198807973u);
  EXPECT_EQ(randomBits(1234567, 2), 9817491932198370423u);
}

TEST(RandomTest, SeedsDiffer) {
  std::set<uint64_t> seeds;
  for (uint64_t seed = 0; seed < 100; ++seed)
    for (const char *name : {"", "a", "b", "ab", "ba"})
      seeds.insert(mixSeed(seed, name));
  EXPECT_EQ(seeds.size(), 500u);
}

TEST(RandomTest, IsNormal) {
  for (DLDataType type :
       {DLDataType{kDLFloat, 32, 1}, DLDataType{kDLFloat, 16, 1},
        DLDataType{kDLBfloat, 16, 1}, DLDataType{kDLFloat, 64, 1}}) {
    const int64_t count = 3 << 20; // several chunks, several threads
    Expected<Tensor> tensor = Tensor::create(type, {count + 1});
    ASSERT_TRUE(tensor);
    ASSERT_TRUE(fillNormal(*tensor, 5, 2.0));
    double sum = 0, squares = 0, large = 0;
    for (int64_t i = 0; i <= count; ++i) {
      double value = readElement(tensor->view(), static_cast<uint64_t>(i));
      ASSERT_TRUE(std::isfinite(value));
      sum += value;
      squares += value * value;
      large += std::fabs(value) > 4;
    }
    EXPECT_NEAR(sum / count, 0, 0.01);
    EXPECT_NEAR(squares / count, 4, 0.02);
    EXPECT_NEAR(large / count, 0.0455, 0.001);
  }
}

TEST(RandomTest, IsReproducible) {
  Expected<Tensor> a = Tensor::create({kDLFloat, 32, 1}, {3, 1001});
  Expected<Tensor> b = Tensor::create({kDLFloat, 32, 1}, {1001});
  ASSERT_TRUE(fillNormal(*a, 9, 1) && fillNormal(*b, 9, 1));
  // The same numbers, however many follow.
  EXPECT_EQ(std::memcmp(a->data(), b->data(), b->bytes()), 0);
  ASSERT_TRUE(fillNormal(*b, 10, 1));
  EXPECT_NE(std::memcmp(a->data(), b->data(), b->bytes()), 0);
}

TEST(RandomTest, Weights) {
  std::vector<WeightSpec> specs = {{"a", {kDLFloat, 32, 1}, {50, 400}, 4, {}},
                                   {"b", {kDLBfloat, 16, 1}, {10}, 2, {}}};
  Expected<WeightBinder> first = WeightBinder::random(specs, 3);
  ASSERT_TRUE(first) << first.error();
  std::swap(specs[0], specs[1]);
  Expected<WeightBinder> second = WeightBinder::random(specs, 3);
  ASSERT_TRUE(second);
  EXPECT_EQ(std::memcmp(first->tensors()[0].data, second->tensors()[1].data,
                        20000 * sizeof(float)),
            0)
      << "must depend on the name alone";
  const float *data = static_cast<float *>(first->tensors()[0].data);
  double squares = 0;
  for (int i = 0; i < 20000; ++i)
    squares += data[i] * data[i];
  EXPECT_NEAR(squares / 20000, 1.0 / 400, 2e-4);
  // An i1, of which two values are valid.
  Expected<WeightBinder> booleans =
      WeightBinder::random({{"n", {kDLUInt, 8, 1}, {10}, 1, {}}}, 3);
  ASSERT_FALSE(booleans);
  EXPECT_NE(booleans.error().find("weight 'n' has type u8, expected f32"),
            std::string::npos);
  EXPECT_FALSE(WeightBinder::random(
      {{"n", {kDLFloat, 32, 1}, {int64_t(1) << 62}, 1, {}}}, 3));
}

TEST(RandomTest, OtherWeights) {
  const int64_t count = 100000;
  auto draw = [&](DLDataType type) {
    Expected<WeightBinder> binder =
        WeightBinder::random({{"w", type, {count}, 8, {}}}, 3);
    EXPECT_TRUE(binder) << binder.error();
    std::vector<double> values;
    TensorView view = {type, {count}, binder->tensors()[0].data, 0};
    for (uint64_t i = 0; i < count; ++i)
      values.push_back(readElement(view, i));
    return values;
  };
  for (uint8_t bits : {8, 16, 32, 64}) {
    double scale = std::ldexp(1.0, bits - 1), sum = 0, squares = 0;
    for (double value : draw({kDLInt, bits, 1})) {
      sum += value / scale;
      squares += value / scale * value / scale;
    }
    EXPECT_NEAR(sum / count, 0, 0.01) << int(bits);
    EXPECT_NEAR(squares / count, 1.0 / 3, 0.01) << int(bits);
  }
  std::set<double> powers;
  for (double value : draw({moe::dlFloat8E8M0FNU, 8, 1}))
    powers.insert(value);
  EXPECT_EQ(powers,
            (std::set<double>{0.0625, 0.125, 0.25, 0.5, 1, 2, 4, 8, 16}));
  double squares = 0;
  for (double value : draw({moe::dlFloat8E5M2, 8, 1}))
    squares += value * value;
  EXPECT_NEAR(squares, 1, 0.05); // deviation 1/sqrt(count)
}

TEST(FloatTest, HalfRoundTrips) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    auto half = static_cast<uint16_t>(bits);
    float value = halfToFloat(half);
    if (std::isnan(value))
      EXPECT_TRUE(std::isnan(halfToFloat(floatToHalf(value))));
    else
      ASSERT_EQ(floatToHalf(value), half) << bits;
    value = bfloatToFloat(half);
    if (std::isnan(value))
      EXPECT_TRUE(std::isnan(bfloatToFloat(floatToBfloat(value))));
    else
      ASSERT_EQ(floatToBfloat(value), half) << bits;
  }
}

TEST(FloatTest, EightBits) {
  EXPECT_EQ(float8ToFloat(0x01), 0x1p-9f);
  EXPECT_EQ(float8ToFloat(0x08), 0x1p-6f);
  EXPECT_EQ(float8ToFloat(0xb8), -1.0f);
  EXPECT_EQ(float8ToFloat(0x7e), 448.0f);
  for (uint32_t bits = 0; bits < 0x100; ++bits) {
    auto byte = static_cast<uint8_t>(bits);
    float value = float8ToFloat(byte);
    EXPECT_EQ(std::isnan(value), (bits & 0x7f) == 0x7f);
    ASSERT_EQ(floatToFloat8(value), byte) << bits;
    if ((bits & 0x7f) >= 0x7e)
      continue;
    // As with halves: the middle of two neighbours is exact.
    float next = float8ToFloat(static_cast<uint8_t>(byte + 1));
    float middle = (value + next) / 2;
    auto even = static_cast<uint8_t>(byte + (byte & 1));
    ASSERT_EQ(floatToFloat8(middle), even) << bits;
    ASSERT_EQ(floatToFloat8(std::nextafter(middle, value)), byte) << bits;
    ASSERT_EQ(floatToFloat8(std::nextafter(middle, next)), byte + 1) << bits;
  }
  EXPECT_EQ(floatToFloat8(464.0f), 0x7e);
  EXPECT_EQ(floatToFloat8(-464.5f), 0xff);
  EXPECT_EQ(floatToFloat8(INFINITY), 0x7f);
}

TEST(FloatTest, EightBitsWithFiveOfExponent) {
  EXPECT_EQ(float8E5M2ToFloat(0x01), 0x1p-16f);
  EXPECT_EQ(float8E5M2ToFloat(0x3c), 1.0f);
  EXPECT_EQ(float8E5M2ToFloat(0x7b), 57344.0f);
  for (uint32_t bits = 0; bits < 0x100; ++bits) {
    auto byte = static_cast<uint8_t>(bits);
    float value = float8E5M2ToFloat(byte);
    EXPECT_EQ(std::isnan(value), (bits & 0x7f) > 0x7c);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(float8E5M2ToFloat(floatToFloat8E5M2(value))));
      continue;
    }
    ASSERT_EQ(floatToFloat8E5M2(value), byte) << bits;
    if ((bits & 0x7f) >= 0x7b)
      continue;
    float next = float8E5M2ToFloat(static_cast<uint8_t>(byte + 1));
    float middle = (value + next) / 2;
    auto even = static_cast<uint8_t>(byte + (byte & 1));
    ASSERT_EQ(floatToFloat8E5M2(middle), even) << bits;
    ASSERT_EQ(floatToFloat8E5M2(std::nextafter(middle, value)), byte) << bits;
    ASSERT_EQ(floatToFloat8E5M2(std::nextafter(middle, next)), byte + 1)
        << bits;
  }
  EXPECT_EQ(floatToFloat8E5M2(std::nextafter(61440.0f, 0.0f)), 0x7b);
  EXPECT_EQ(floatToFloat8E5M2(61440.0f), 0x7c);
  EXPECT_EQ(floatToFloat8E5M2(-INFINITY), 0xfc);
}

TEST(FloatTest, PowersOfTwo) {
  for (uint32_t bits = 0; bits < 0xff; ++bits)
    EXPECT_EQ(float8E8M0ToFloat(static_cast<uint8_t>(bits)),
              std::ldexp(1.0, static_cast<int>(bits) - 127));
  EXPECT_TRUE(std::isnan(float8E8M0ToFloat(0xff)));
}

TEST(FloatTest, RoundsToNearestEven) {
  // The middle of each two neighbours goes to the even one, and what is just
  // beside the middle to the nearer one.
  for (uint16_t half = 0; half < 0x7bff; ++half) {
    float low = halfToFloat(half),
          high = halfToFloat(static_cast<uint16_t>(half + 1));
    float middle = (low + high) / 2; // exact
    auto even = static_cast<uint16_t>(half + (half & 1));
    ASSERT_EQ(floatToHalf(middle), even) << half;
    ASSERT_EQ(floatToHalf(std::nextafter(middle, 0.0f)), half) << half;
    ASSERT_EQ(floatToHalf(std::nextafter(middle, 1e9f)), half + 1) << half;
    ASSERT_EQ(floatToHalf(-middle), even | 0x8000) << half;
  }
  EXPECT_EQ(floatToHalf(65519.996f), 0x7bff);
  EXPECT_EQ(floatToHalf(65520.0f), 0x7c00);
  EXPECT_EQ(floatToHalf(INFINITY), 0x7c00);
  EXPECT_EQ(floatToBfloat(1.00390625f), 0x3f80); // the middle, to even
  EXPECT_EQ(floatToBfloat(1.01171875f), 0x3f82);
  EXPECT_EQ(floatToBfloat(3.4e38f), 0x7f80);
}

} // namespace
