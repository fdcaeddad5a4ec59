//===- integer_test.cpp - Integers and bits -------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "testing.h"

#include <climits>

using namespace moe::gpu::test;

namespace {

using Ints = std::vector<int32_t>;
using Words = std::vector<uint32_t>;
using Longs = std::vector<uint64_t>;

class IntegerTest : public Gpu {};

TEST_F(IntegerTest, AdditionWrapsAndSaturates) {
  Ints a = {INT_MAX, INT_MIN, -1, 5}, b = {1, -1, 1, 7};
  EXPECT_EQ(
      (apply<int32_t>("add.s32 %d, %a, %b;", {"b32", "b32", "b32"}, a, b)),
      (Ints{INT_MIN, INT_MAX, 0, 12}));
  EXPECT_EQ(
      (apply<int32_t>("add.sat.s32 %d, %a, %b;", {"b32", "b32", "b32"}, a, b)),
      (Ints{INT_MAX, INT_MIN, 0, 12}));
  EXPECT_EQ(
      (apply<int32_t>("sub.sat.s32 %d, %a, %b;", {"b32", "b32", "b32"}, a, b)),
      (Ints{INT_MAX - 1, INT_MIN + 1, -2, -2}));
}

TEST_F(IntegerTest, ProductsHighLowAndWide) {
  Words a = {0xFFFFFFFF, 0x80000000, 3}, b = {0xFFFFFFFF, 2, 5};
  std::vector<std::string> same = {"b32", "b32", "b32"};
  EXPECT_EQ((apply<uint32_t>("mul.lo.u32 %d, %a, %b;", same, a, b)),
            (Words{1, 0, 15}));
  EXPECT_EQ((apply<uint32_t>("mul.hi.u32 %d, %a, %b;", same, a, b)),
            (Words{0xFFFFFFFE, 1, 0}));
  EXPECT_EQ((apply<uint32_t>("mul.hi.s32 %d, %a, %b;", same, a, b)),
            (Words{0, 0xFFFFFFFF, 0}));
  EXPECT_EQ((apply<uint64_t>("mul.wide.s32 %d, %a, %b;", {"b64", "b32", "b32"},
                             a, b)),
            (Longs{1, 0xFFFFFFFF00000000, 15}));
  EXPECT_EQ((apply<uint64_t>("mul.wide.u32 %d, %a, %b;", {"b64", "b32", "b32"},
                             a, b)),
            (Longs{0xFFFFFFFE00000001, 0x100000000, 15}));
  Longs x = {0xFFFFFFFFFFFFFFFF, 0x123456789ABCDEF0};
  EXPECT_EQ(
      (apply<uint64_t>("mul.hi.u64 %d, %a, %b;", {"b64", "b64", "b64"}, x, x)),
      (Longs{0xFFFFFFFFFFFFFFFE, 0x014B66DC33F6ACDC}));
  EXPECT_EQ((apply<uint64_t>("mad.wide.s32 %d, %a, %b, %c;",
                             {"b64", "b32", "b32", "b64"}, Words{0xFFFFFFFF},
                             Words{7}, Longs{10})),
            (Longs{3}));
}

TEST_F(IntegerTest, Mad24IgnoresTheUpperBits) {
  EXPECT_EQ((apply<uint32_t>("mad24.lo.u32 %d, %a, %b, %c;",
                             {"b32", "b32", "b32", "b32"}, Words{0xAB000003},
                             Words{0xCD000004}, Words{5})),
            (Words{17}));
}

TEST_F(IntegerTest, DivisionOfTheLeastNumber) {
  Ints a = {INT_MIN, -7, 7}, b = {-1, 2, -2};
  std::vector<std::string> same = {"b32", "b32", "b32"};
  EXPECT_EQ((apply<int32_t>("div.s32 %d, %a, %b;", same, a, b)),
            (Ints{INT_MIN, -3, -3}));
  EXPECT_EQ((apply<int32_t>("rem.s32 %d, %a, %b;", same, a, b)),
            (Ints{0, -1, 1}));
}

TEST_F(IntegerTest, DivisionByZeroIsReported) {
  CUfunction kernel = load(Source{"mov.u32 %r0, %ctaid.x;\n"
                                  "div.u32 %r1, 7, %r0;"});
  EXPECT_NE(
      failure(CUDA_ERROR_LAUNCH_FAILED, kernel, {1}, {1}, 0, CUdeviceptr(0))
          .find("divides by zero"),
      std::string::npos);
}

TEST_F(IntegerTest, CarriesChain) {
  // 0x00000001'FFFFFFFF + 0x00000002'00000001, and back.
  std::string body = R"(
    ld.param.u64 %rd0, [out];
    add.cc.u32 %r0, 0xFFFFFFFF, 1;
    addc.u32 %r1, 1, 2;
    sub.cc.u32 %r2, 0, 1;
    subc.u32 %r3, 4, 0;
    mad.lo.cc.u32 %r4, 0xFFFFFFFF, 2, 5;
    madc.hi.u32 %r5, 0xFFFFFFFF, 2, 0;
    st.global.v2.u32 [%rd0], {%r0, %r1};
    st.global.v2.u32 [%rd0+8], {%r2, %r3};
    st.global.v2.u32 [%rd0+16], {%r4, %r5};)";
  EXPECT_EQ(outputOf<uint32_t>(Source{body}, 1, 6),
            (Words{0, 4, 0xFFFFFFFF, 3, 3, 2}));
}

TEST_F(IntegerTest, ShiftsBeyondTheWidth) {
  Words a = {0x80000001, 0x80000001, 0x80000001}, b = {31, 32, 1000};
  std::vector<std::string> same = {"b32", "b32", "b32"};
  EXPECT_EQ((apply<uint32_t>("shl.b32 %d, %a, %b;", same, a, b)),
            (Words{0x80000000, 0, 0}));
  EXPECT_EQ((apply<uint32_t>("shr.u32 %d, %a, %b;", same, a, b)),
            (Words{1, 0, 0}));
  EXPECT_EQ((apply<uint32_t>("shr.s32 %d, %a, %b;", same, a, b)),
            (Words{0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF}));
  // In 16 bits, the sign is bit 15.
  EXPECT_EQ((apply<uint16_t>("shr.s16 %d, %a, %b;", {"b16", "b16", "b32"},
                             std::vector<uint16_t>{0x8000}, Words{15})),
            (std::vector<uint16_t>{0xFFFF}));
}

TEST_F(IntegerTest, FunnelShifts) {
  Words a = {0x12345678, 0x12345678}, b = {0x9ABCDEF0, 0x9ABCDEF0}, c = {8, 40};
  std::vector<std::string> same = {"b32", "b32", "b32", "b32"};
  EXPECT_EQ((apply<uint32_t>("shf.l.wrap.b32 %d, %a, %b, %c;", same, a, b, c)),
            (Words{0xBCDEF012, 0xBCDEF012}));
  EXPECT_EQ((apply<uint32_t>("shf.l.clamp.b32 %d, %a, %b, %c;", same, a, b, c)),
            (Words{0xBCDEF012, 0x12345678}));
  EXPECT_EQ((apply<uint32_t>("shf.r.clamp.b32 %d, %a, %b, %c;", same, a, b, c)),
            (Words{0xF0123456, 0x9ABCDEF0}));
}

TEST_F(IntegerTest, Fields) {
  std::vector<std::string> types = {"b32", "b32", "b32", "b32"};
  Words a = {0xABCD1234, 0xABCD1234, 0xABCD1234, 0xABCD1234};
  Words from = {8, 28, 28, 40}, length = {8, 4, 8, 4};
  EXPECT_EQ(
      (apply<uint32_t>("bfe.u32 %d, %a, %b, %c;", types, a, from, length)),
      (Words{0x12, 0xA, 0xA, 0}));
  // Beyond bit 31 the field is filled with the sign bit.
  EXPECT_EQ(
      (apply<uint32_t>("bfe.s32 %d, %a, %b, %c;", types, a, from, length)),
      (Words{0x12, 0xFFFFFFFA, 0xFFFFFFFA, 0xFFFFFFFF}));
  EXPECT_EQ((apply<uint32_t>("bfi.b32 %d, %a, %b, 4, 8;", {"b32", "b32", "b32"},
                             Words{0xFFF}, Words{0x12345678})),
            (Words{0x12345FF8}));
}

TEST_F(IntegerTest, CountsAndOrders) {
  Words a = {0, 1, 0x80000000, 0x00F0F000};
  std::vector<std::string> same = {"b32", "b32"};
  EXPECT_EQ((apply<uint32_t>("popc.b32 %d, %a;", same, a)),
            (Words{0, 1, 1, 8}));
  EXPECT_EQ((apply<uint32_t>("clz.b32 %d, %a;", same, a)),
            (Words{32, 31, 0, 8}));
  EXPECT_EQ((apply<uint32_t>("brev.b32 %d, %a;", same, a)),
            (Words{0, 0x80000000, 1, 0x000F0F00}));
  EXPECT_EQ((apply<uint32_t>("bfind.u32 %d, %a;", same, a)),
            (Words{0xFFFFFFFF, 0, 31, 23}));
  EXPECT_EQ((apply<uint32_t>("bfind.s32 %d, %a;", same, a)),
            (Words{0xFFFFFFFF, 0, 30, 23}));
  EXPECT_EQ((apply<uint32_t>("bfind.shiftamt.u32 %d, %a;", same, a)),
            (Words{0xFFFFFFFF, 31, 0, 8}));
  EXPECT_EQ((apply<uint32_t>("clz.b64 %d, %a;", {"b32", "b64"}, Longs{0, 255})),
            (Words{64, 56}));
}

TEST_F(IntegerTest, PermutesBytes) {
  Words a = {0x33221100}, b = {0x77665544};
  auto permute = [&](const char *control) {
    return apply<uint32_t>(std::string("prmt.b32 %d, %a, %b, ") + control + ";",
                           {"b32", "b32", "b32"}, a, b)[0];
  };
  EXPECT_EQ(permute("0x3210"), 0x33221100u);
  EXPECT_EQ(permute("0x7604"), 0x77660044u);
  // 8 repeats the sign of a byte: those of 0x11 and 0x77 are 0.
  EXPECT_EQ(permute("0x9F10"), 0x00001100u);
  EXPECT_EQ((apply<uint32_t>("prmt.b32.f4e %d, %a, %b, 2;",
                             {"b32", "b32", "b32"}, a, b)[0]),
            0x55443322u);
}

TEST_F(IntegerTest, AnyLogicOfThree) {
  Words a = {0xF0F0F0F0}, b = {0xCCCCCCCC}, c = {0xAAAAAAAA};
  std::vector<std::string> same = {"b32", "b32", "b32", "b32"};
  // lop3 of these operands gives its own lookup table.
  for (uint32_t table : {0x80u, 0x96u, 0xE8u, 0x1Bu}) {
    std::string number = std::to_string(table);
    EXPECT_EQ((apply<uint32_t>("lop3.b32 %d, %a, %b, %c, " + number + ";", same,
                               a, b, c)[0]),
              table * 0x01010101u);
  }
}

TEST_F(IntegerTest, DotProductsOfBytes) {
  std::vector<std::string> same = {"b32", "b32", "b32", "b32"};
  // -1 * 2 + 2 * 3 + 3 * 4 + 4 * 5 + 100
  EXPECT_EQ((apply<int32_t>("dp4a.s32.s32 %d, %a, %b, %c;", same,
                            Words{0x040302FF}, Words{0x05040302}, Words{100})),
            (Ints{136}));
  EXPECT_EQ((apply<int32_t>("dp4a.u32.s32 %d, %a, %b, %c;", same,
                            Words{0x000000FF}, Words{0x000000FF}, Words{0})),
            (Ints{-255}));
}

TEST_F(IntegerTest, MinimaKnowTheSign) {
  Words a = {0xFFFFFFFF}, b = {1};
  std::vector<std::string> same = {"b32", "b32", "b32"};
  EXPECT_EQ(apply<uint32_t>("min.s32 %d, %a, %b;", same, a, b)[0], 0xFFFFFFFF);
  EXPECT_EQ(apply<uint32_t>("min.u32 %d, %a, %b;", same, a, b)[0], 1u);
  EXPECT_EQ(apply<uint32_t>("abs.s32 %d, %a;", {"b32", "b32"}, a)[0], 1u);
}

TEST_F(IntegerTest, PredicatesCombine) {
  Words a = {1, 1, 5, 5}, b = {1, 2, 1, 2};
  std::string text = R"(
    setp.eq.u32 %p1, %b, 2;
    setp.lt.and.u32 %p2|%p3, %a, 3, %p1;
    setp.lt.or.u32 %p4, %a, 3, !%p1;
    xor.pred %p5, %p2, %p4;
    and.pred %d, %p5, %p1;)";
  // a < 3 and b == 2, xor (a < 3 or b != 2), where b == 2.
  EXPECT_EQ((apply<uint32_t>(text, {"pred", "b32", "b32"}, a, b)),
            (Words{0, 0, 0, 0}));
  text = "setp.eq.u32 %p1, %b, 2;\n"
         "setp.lt.and.u32 %p2|%d, %a, 3, %p1;";
  EXPECT_EQ((apply<uint32_t>(text, {"pred", "b32", "b32"}, a, b)),
            (Words{0, 0, 0, 1}));
}

TEST_F(IntegerTest, VectorsPackAndUnpack) {
  std::string body = R"(
    ld.param.u64 %rd0, [out];
    mov.b32 {%h0, %h1}, 0x12345678;
    mov.b32 %r0, {%h1, %h0};
    mov.b64 %rd1, {%r0, 7};
    mov.b64 {_, %r1}, %rd1;
    st.global.u32 [%rd0], %r0;
    st.global.u32 [%rd0+4], %r1;)";
  EXPECT_EQ(outputOf<uint32_t>(Source{body}, 1, 2), (Words{0x56781234, 7}));
}

TEST_F(IntegerTest, ConversionsExtendAndClamp) {
  EXPECT_EQ(
      (apply<uint32_t>("cvt.s32.s8 %d, %a;", {"b32", "b32"}, Words{0x180})),
      (Words{0xFFFFFF80}));
  EXPECT_EQ(
      (apply<uint32_t>("cvt.u32.u8 %d, %a;", {"b32", "b32"}, Words{0x180})),
      (Words{0x80}));
  EXPECT_EQ((apply<uint32_t>("cvt.sat.s8.s32 %d, %a;", {"b32", "b32"},
                             Ints{1000, -1000, 5})),
            (Words{127, 0xFFFFFF80, 5}));
  EXPECT_EQ((apply<uint32_t>("cvt.sat.u16.s32 %d, %a;", {"b32", "b32"},
                             Ints{-5, 70000})),
            (Words{0, 65535}));
  EXPECT_EQ((apply<uint64_t>("cvt.s64.s32 %d, %a;", {"b64", "b32"}, Ints{-2})),
            (Longs{0xFFFFFFFFFFFFFFFE}));
  EXPECT_EQ((apply<uint64_t>("cvt.u64.u32 %d, %a;", {"b64", "b32"}, Ints{-2})),
            (Longs{0xFFFFFFFE}));
}

} // namespace
