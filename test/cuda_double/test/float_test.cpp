//===- float_test.cpp - Floating point ------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "testing.h"

#include <cmath>

using namespace moe::gpu::test;

namespace {

using Words = std::vector<uint32_t>;
using Halves = std::vector<uint16_t>;
using Floats = std::vector<float>;

constexpr float inf = INFINITY;
const float nan32 = std::nanf("");

class FloatTest : public Gpu {
protected:
  /// Applies a conversion from f32 and returns the bits.
  template <typename D>
  std::vector<D> convert(const std::string &instruction, const char *type,
                         Floats values) {
    return apply<D>(instruction + " %d, %a;", {type, "f32"}, values);
  }
  const std::vector<std::string> f32x2 = {"f32", "f32", "f32"};
};

TEST_F(FloatTest, AdditionRoundsAsAsked) {
  Floats one = {1}, tiny = {std::ldexp(1.f, -30)};
  auto add = [&](const std::string &modifiers, Floats a, Floats b) {
    return apply<float>("add" + modifiers + ".f32 %d, %a, %b;", f32x2, a, b)[0];
  };
  EXPECT_EQ(add(".rn", one, tiny), 1.f);
  EXPECT_EQ(add(".rz", one, tiny), 1.f);
  EXPECT_EQ(add(".rm", one, tiny), 1.f);
  EXPECT_EQ(add(".rp", one, tiny), std::nextafter(1.f, 2.f));
  EXPECT_EQ(add(".rm", one, {-tiny[0]}), std::nextafter(1.f, 0.f));
  EXPECT_EQ(add(".sat", {0.75f}, {0.75f}), 1.f);
  EXPECT_EQ(add(".sat", {inf}, {-inf}), 0.f);
}

TEST_F(FloatTest, FlushesSubnormalsToZeroOfTheirSign) {
  float least = std::ldexp(1.f, -149);
  EXPECT_EQ(
      apply<float>("mul.f32 %d, %a, %b;", f32x2, Floats{least}, Floats{1.f})[0],
      least);
  float flushed = apply<float>("mul.ftz.f32 %d, %a, %b;", f32x2, Floats{-least},
                               Floats{1.f})[0];
  EXPECT_EQ(flushed, 0.f);
  EXPECT_TRUE(std::signbit(flushed));
}

TEST_F(FloatTest, FusedMultiplyAddRoundsOnce) {
  // (1 + e)(1 - e) - 1 = -e^2, which is 0 if the product is rounded.
  float e = std::ldexp(1.f, -12);
  EXPECT_EQ(apply<float>("fma.rn.f32 %d, %a, %b, %c;",
                         {"f32", "f32", "f32", "f32"}, Floats{1 + e},
                         Floats{1 - e}, Floats{-1})[0],
            -e * e);
}

TEST_F(FloatTest, MinimaAndNaN) {
  Floats a = {1, nan32, -0.f, nan32}, b = {nan32, 2, 0.f, nan32};
  Floats least = apply<float>("min.f32 %d, %a, %b;", f32x2, a, b);
  EXPECT_EQ(least[0], 1);
  EXPECT_EQ(least[1], 2);
  EXPECT_TRUE(std::signbit(least[2]));
  EXPECT_TRUE(std::isnan(least[3]));
  Floats most = apply<float>("max.f32 %d, %a, %b;", f32x2, a, b);
  EXPECT_FALSE(std::signbit(most[2]));
  EXPECT_TRUE(
      std::isnan(apply<float>("max.NaN.f32 %d, %a, %b;", f32x2, a, b)[0]));
}

TEST_F(FloatTest, ComparisonsWithNaN) {
  Floats a = {1, nan32}, b = {1, 1};
  auto compare = [&](const char *op) {
    return apply<uint32_t>(std::string("setp.") + op + ".f32 %d, %a, %b;",
                           {"pred", "f32", "f32"}, a, b);
  };
  EXPECT_EQ(compare("eq"), (Words{1, 0}));
  EXPECT_EQ(compare("ne"), (Words{0, 0}));
  EXPECT_EQ(compare("neu"), (Words{0, 1}));
  EXPECT_EQ(compare("geu"), (Words{1, 1}));
  EXPECT_EQ(compare("num"), (Words{1, 0}));
  EXPECT_EQ(compare("nan"), (Words{0, 1}));
}

TEST_F(FloatTest, ConversionsToIntegersClamp) {
  Floats values = {1.5f, 2.5f, -1.5f, 3e9f, -3e9f, nan32};
  using Ints = std::vector<int32_t>;
  EXPECT_EQ(convert<int32_t>("cvt.rni.s32.f32", "b32", values),
            (Ints{2, 2, -2, INT32_MAX, INT32_MIN, 0}));
  EXPECT_EQ(convert<int32_t>("cvt.rzi.s32.f32", "b32", values),
            (Ints{1, 2, -1, INT32_MAX, INT32_MIN, 0}));
  EXPECT_EQ(convert<int32_t>("cvt.rmi.s32.f32", "b32", values),
            (Ints{1, 2, -2, INT32_MAX, INT32_MIN, 0}));
  EXPECT_EQ(convert<int32_t>("cvt.rpi.s32.f32", "b32", values),
            (Ints{2, 3, -1, INT32_MAX, INT32_MIN, 0}));
  EXPECT_EQ(convert<uint32_t>("cvt.rzi.u32.f32", "b32", values),
            (Words{1, 2, 0, 3000000000u, 0, 0}));
  EXPECT_EQ(convert<float>("cvt.rni.f32.f32", "f32", {2.5f, -0.5f}),
            (Floats{2, -0.f}));
}

TEST_F(FloatTest, IntegersRoundOnce) {
  // 2^24 + 1 is a tie; 2^54 + 2^30 + 1 is not, but becomes one in double.
  EXPECT_EQ(apply<float>("cvt.rn.f32.s32 %d, %a;", {"f32", "b32"},
                         std::vector<int32_t>{(1 << 24) + 1})[0],
            16777216.f);
  EXPECT_EQ(apply<float>("cvt.rp.f32.s32 %d, %a;", {"f32", "b32"},
                         std::vector<int32_t>{(1 << 24) + 1})[0],
            16777218.f);
  EXPECT_EQ(apply<float>("cvt.rn.f32.s64 %d, %a;", {"f32", "b64"},
                         std::vector<int64_t>{(int64_t(1) << 54) +
                                              (int64_t(1) << 30) + 1})[0],
            std::ldexp(1.f + std::ldexp(1.f, -23), 54));
}

TEST_F(FloatTest, ConversionsToHalf) {
  // The largest finite number; just below and at the overflow threshold.
  EXPECT_EQ(convert<uint16_t>("cvt.rn.f16.f32", "b16",
                              {65504, 65519.996f, 65520, -1, inf, nan32}),
            (Halves{0x7BFF, 0x7BFF, 0x7C00, 0xBC00, 0x7C00, 0x7FFF}));
  EXPECT_EQ(convert<uint16_t>("cvt.rz.f16.f32", "b16", {1e6f, -1e6f}),
            (Halves{0x7BFF, 0xFBFF}));
  // Subnormals: 2^-24 is the smallest; half of it rounds to even, to zero.
  EXPECT_EQ(convert<uint16_t>("cvt.rn.f16.f32", "b16",
                              {std::ldexp(1.f, -24), std::ldexp(1.f, -25),
                               std::ldexp(1.5f, -25)}),
            (Halves{1, 0, 1}));
  EXPECT_EQ(convert<uint16_t>("cvt.rn.satfinite.f16.f32", "b16", {1e6f, -inf}),
            (Halves{0x7BFF, 0xFBFF}));
  EXPECT_EQ(convert<uint16_t>("cvt.rn.relu.f16.f32", "b16", {-2, 1}),
            (Halves{0, 0x3C00}));
  EXPECT_EQ((apply<float>("cvt.f32.f16 %d, %a;", {"f32", "b16"},
                          Halves{0x0001, 0xFBFF, 0x3555}))[0],
            std::ldexp(1.f, -24));
}

TEST_F(FloatTest, ConversionsToBfloatRoundToEven) {
  // 1 + 2^-8 is a tie between 1 and 1 + 2^-7.
  EXPECT_EQ(convert<uint16_t>("cvt.rn.bf16.f32", "b16",
                              {1 + std::ldexp(1.f, -8), 1 + std::ldexp(3.f, -8),
                               1 + std::ldexp(1.f, -8) + std::ldexp(1.f, -20)}),
            (Halves{0x3F80, 0x3F82, 0x3F81}));
  EXPECT_EQ(convert<uint16_t>("cvt.rz.bf16.f32", "b16", {3.999f, 3.4e38f}),
            (Halves{0x407F, 0x7F7F}));
  // The first operand is the upper half.
  EXPECT_EQ((apply<uint32_t>("cvt.rn.bf16x2.f32 %d, %a, %b;",
                             {"b32", "f32", "f32"}, Floats{1}, Floats{-2})),
            (Words{0x3F80C000}));
}

TEST_F(FloatTest, ConversionsToBytes) {
  auto pair = [&](const char *type, Floats high, Floats low) {
    return apply<uint16_t>(std::string("cvt.rn.satfinite.") + type +
                               ".f32 %d, %a, %b;",
                           {"b16", "f32", "f32"}, high, low);
  };
  // 448 is the largest e4m3; 1.0 is 0x38.
  EXPECT_EQ(pair("e4m3x2", {1, 1000, nan32}, {448, -1000, 0.001f}),
            (Halves{0x387E, 0x7EFE, 0x7F01}));
  // 57344 is the largest e5m2; 1.0 is 0x3C.
  EXPECT_EQ(pair("e5m2x2", {1, 1e6f}, {57344, -1e6f}),
            (Halves{0x3C7B, 0x7BFB}));
  EXPECT_EQ((apply<uint32_t>("cvt.rn.f16x2.e4m3x2 %d, %a;", {"b32", "b16"},
                             Halves{0x387E, 0x01FE})),
            (Words{0x3C005F00, 0x1800DF00}));
}

TEST_F(FloatTest, Tf32RoundsAwayFromZero) {
  EXPECT_EQ(convert<uint32_t>("cvt.rna.tf32.f32", "b32",
                              {1 + std::ldexp(1.f, -11), 1.f}),
            (Words{0x3F802000, 0x3F800000}));
}

TEST_F(FloatTest, HalfArithmeticRoundsOnce) {
  std::vector<std::string> pair = {"b32", "b32", "b32"};
  // f16: 2048 + 1 is a tie, to even; 2048 + 3 rounds up. 0x6800 is 2048.
  EXPECT_EQ((apply<uint32_t>("add.f16x2 %d, %a, %b;", pair, Words{0x68006800},
                             Words{0x3C004200})),
            (Words{0x68006802}));
  // bf16, fused: 1.0078125^2 - 1 = 2^-6 + 2^-14, rounded to 8 bits.
  EXPECT_EQ((apply<uint16_t>("fma.rn.bf16 %d, %a, %b, %c;",
                             {"b16", "b16", "b16", "b16"}, Halves{0x3F81},
                             Halves{0x3F81}, Halves{0xBF80})),
            (Halves{toBfloat(std::ldexp(1.f, -6) + std::ldexp(1.f, -14))}));
  // An exact tie in f16 that the last bit of the addend breaks: 2048 * 1 + 1
  // plus 2^-24.
  EXPECT_EQ((apply<uint16_t>("fma.rn.f16 %d, %a, %b, %c;",
                             {"b16", "b16", "b16", "b16"}, Halves{0x6801},
                             Halves{0x3C00}, Halves{0x3C00})),
            (Halves{0x6802}));
  EXPECT_EQ((apply<uint16_t>("fma.rn.relu.f16 %d, %a, %b, %c;",
                             {"b16", "b16", "b16", "b16"}, Halves{0x3C00},
                             Halves{0xBC00}, Halves{0})),
            (Halves{0}));
  EXPECT_EQ((apply<uint32_t>("neg.bf16x2 %d, %a;", {"b32", "b32"},
                             Words{0x3F80BF80})),
            (Words{0xBF803F80}));
  EXPECT_EQ((apply<uint32_t>("max.bf16x2 %d, %a, %b;", pair, Words{0x3F807FC0},
                             Words{0x40003F80})),
            (Words{0x40003F80}));
}

/// The largest error of an instruction over many operands, relative to the
/// result, in units of 2^-23.
static double errorOf(const Floats &found, const std::vector<double> &exact) {
  double most = 0;
  for (size_t i = 0; i < found.size(); ++i)
    most = std::max(most, std::fabs(found[i] / exact[i] - 1));
  return most * 0x1p23;
}

TEST_F(FloatTest, Approximations) {
  std::vector<std::string> same = {"f32", "f32"};
  Floats a(4096);
  std::vector<double> exp2, inverse, root, tanh, third;
  for (size_t i = 0; i < a.size(); ++i) {
    a[i] = 0.01f + 0.003f * i;
    exp2.push_back(std::exp2(double(a[i])));
    inverse.push_back(1 / double(a[i]));
    root.push_back(std::sqrt(double(a[i])));
    tanh.push_back(std::tanh(double(a[i])));
    third.push_back(a[i] / 3.0);
  }
  auto run = [&](const char *name) {
    return apply<float>(std::string(name) + ".f32 %d, %a;", same, a);
  };
  // Within the bounds of the ISA, and not exact.
  double error = errorOf(run("ex2.approx.ftz"), exp2);
  EXPECT_TRUE(error > 0.75 && error < 2) << error;
  error = errorOf(run("rcp.approx"), inverse);
  EXPECT_TRUE(error > 0.5 && error < 1) << error;
  error = errorOf(run("sqrt.approx"), root);
  EXPECT_TRUE(error > 0.5 && error < 1) << error;
  error = errorOf(run("tanh.approx"), tanh);
  EXPECT_TRUE(error > 0x1p11 && error < 0x1p12) << error;
  Floats threes(a.size(), 3);
  for (const char *text :
       {"div.full.f32 %d, %a, %b;", "div.approx.f32 %d, %a, %b;"}) {
    error = errorOf(apply<float>(text, f32x2, a, threes), third);
    EXPECT_TRUE(error > 0.75 && error < 2) << error;
  }
  // The same operands, the same result.
  EXPECT_EQ(run("ex2.approx"), run("ex2.approx"));
  // What tables of the ISA say.
  EXPECT_EQ(apply<float>("ex2.approx.ftz.f32 %d, %a;", same,
                         Floats{-200, -inf, inf, -130}),
            (Floats{0, 0, inf, 0}));
  EXPECT_EQ(apply<float>("rcp.approx.ftz.f32 %d, %a;", same,
                         Floats{-0.f, inf, 0x1p127f, 0x1p-130f}),
            (Floats{-inf, 0, 0, inf}));
  EXPECT_EQ(apply<float>("div.approx.f32 %d, %a, %b;", f32x2, Floats{0x1p100f},
                         Floats{0x1p127f}),
            (Floats{0}));
  EXPECT_NEAR(apply<float>("div.full.f32 %d, %a, %b;", f32x2, Floats{0x1p100f},
                           Floats{0x1p127f})[0],
              0x1p-27, 0x1p-48);
  EXPECT_NEAR(apply<float>("rsqrt.approx.f32 %d, %a;", same, Floats{16})[0],
              0.25, 0x1p-24);
  EXPECT_NEAR(apply<float>("lg2.approx.f32 %d, %a;", same, Floats{8})[0], 3,
              0x1p-20);
  // Correctly rounded without .approx.
  EXPECT_EQ(apply<float>("sqrt.rn.f32 %d, %a;", same, Floats{2}),
            (Floats{std::sqrt(2.f)}));
  EXPECT_EQ(apply<float>("div.rn.f32 %d, %a, %b;", f32x2, Floats{1}, Floats{3}),
            (Floats{1 / 3.f}));
}

TEST_F(FloatTest, PropertiesAndSigns) {
  Floats a = {inf, nan32, std::ldexp(1.f, -140), 1};
  auto test = [&](const char *property) {
    return apply<uint32_t>(std::string("testp.") + property + ".f32 %d, %a;",
                           {"pred", "f32"}, a);
  };
  EXPECT_EQ(test("finite"), (Words{0, 0, 1, 1}));
  EXPECT_EQ(test("notanumber"), (Words{0, 1, 0, 0}));
  EXPECT_EQ(test("subnormal"), (Words{0, 0, 1, 0}));
  // The sign of the first operand, the magnitude of the second.
  EXPECT_EQ(apply<float>("copysign.f32 %d, %a, %b;", f32x2, Floats{-0.f},
                         Floats{3})[0],
            -3);
}

TEST_F(FloatTest, LiteralsAreBits) {
  std::string body = R"(
    ld.param.u64 %rd0, [out];
    mov.f32 %f0, 0f40490FDB;
    add.f32 %f0, %f0, 0fBF800000;
    st.global.f32 [%rd0], %f0;
    mov.f64 %fd0, 0d3FF8000000000000;
    cvt.rn.f32.f64 %f1, %fd0;
    st.global.f32 [%rd0+4], %f1;)";
  EXPECT_EQ(outputOf<float>(Source{body}, 1, 2),
            (Floats{3.14159274f - 1, 1.5f}));
}

} // namespace
