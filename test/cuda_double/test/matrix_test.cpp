//===- matrix_test.cpp - Warp-level matrix instructions -------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "testing.h"

#include <functional>

using namespace moe::gpu::test;

namespace {

using Words = std::vector<uint32_t>;

class MatrixTest : public SeededGpu {};
INSTANTIATE_TEST_SUITE_P(Seeds, MatrixTest, MOE_SEEDS);

/// Each thread t copies 16 bytes of `in` to smem + 16 t; %r30 is t, %r29 smem.
std::string fill(const std::string &body) {
  return R"(
    ld.param.u64 %rd0, [out];
    ld.param.u64 %rd1, [in];
    mov.u32 %r30, %tid.x;
    mov.u32 %r29, smem;
    mul.wide.u32 %rd2, %r30, 16;
    add.s64 %rd1, %rd1, %rd2;
    ld.global.v2.u64 {%rd3, %rd4}, [%rd1];
    mad.lo.s32 %r28, %r30, 16, %r29;
    st.shared.v2.u64 [%r28], {%rd3, %rd4};
    bar.sync 0;
  )" + body;
}

Source matrixSource(const std::string &body) {
  Source source{body, ".param .u64 out, .param .u64 in"};
  source.globals = ".extern .shared .align 1024 .b8 smem[];\n";
  return source;
}

TEST_P(MatrixTest, LoadsMatrices) {
  // Matrix i has rows 8 i to 8 i + 7; element (r, c) is 8 r + c.
  std::vector<uint16_t> in(256);
  for (uint32_t i = 0; i < 256; ++i)
    in[i] = static_cast<uint16_t>(i);
  for (bool transposed : {false, true}) {
    CUfunction kernel = load(
        matrixSource(fill(std::string("ldmatrix.sync.aligned.m8n8.x4") +
                          (transposed ? ".trans" : "") +
                          ".shared.b16 {%r0, %r1, %r2, %r3}, [%r28];\n"
                          "add.s64 %rd0, %rd0, %rd2;\n"
                          "st.global.v4.u32 [%rd0], {%r0, %r1, %r2, %r3};")));
    CUdeviceptr out = alloc(512);
    EXPECT_OK(run(kernel, {1}, {32}, 1024, out, put(in)));
    Words words = get<uint32_t>(out, 128);
    for (uint32_t t = 0; t < 32; ++t)
      for (uint32_t i = 0; i < 4; ++i)
        for (uint32_t e = 0; e < 2; ++e) {
          uint32_t row = t / 4, column = t % 4 * 2 + e;
          if (transposed)
            std::swap(row, column);
          EXPECT_EQ(words[4 * t + i] >> (16 * e) & 0xFFFF,
                    64 * i + 8 * row + column);
        }
  }
}

TEST_P(MatrixTest, StoresMatrices) {
  // Each thread's halves are 2 t and 2 t + 1, so matrix (r, c) is 8 r + c.
  for (bool transposed : {false, true}) {
    CUfunction kernel = load(
        matrixSource(fill(std::string("shl.b32 %r0, %r30, 1;\n"
                                      "mad.lo.s32 %r0, %r0, 0x10001, 0x10000;\n"
                                      "add.s32 %r1, %r0, 0x01000100;\n"
                                      "stmatrix.sync.aligned.m8n8.x2") +
                          (transposed ? ".trans" : "") +
                          ".shared.b16 [%r28], {%r0, %r1};\n"
                          "bar.sync 0;\n"
                          "ld.shared.v2.u64 {%rd5, %rd6}, [%r28];\n"
                          "add.s64 %rd0, %rd0, %rd2;\n"
                          "st.global.v2.u64 [%rd0], {%rd5, %rd6};")));
    CUdeviceptr out = alloc(512);
    EXPECT_OK(
        run(kernel, {1}, {32}, 1024, out, put(std::vector<uint16_t>(256, 9))));
    std::vector<uint16_t> halves = get<uint16_t>(out, 256);
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t matrix = i / 64, row = i / 8 % 8, column = i % 8;
      if (transposed)
        std::swap(row, column);
      uint32_t stored = 256 * matrix + 8 * row + column;
      EXPECT_EQ(halves[i], matrix < 2 ? stored : 9u) << i;
    }
  }
}

TEST_P(MatrixTest, RowsAreAligned) {
  CUfunction kernel = load(matrixSource(
      fill("add.s32 %r28, %r28, 8;\n"
           "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r0}, [%r28];")));
  CUdeviceptr out = put(std::vector<uint8_t>(512));
  EXPECT_NE(
      failure(CUDA_ERROR_MISALIGNED_ADDRESS, kernel, {1}, {32}, 1024, out, out)
          .find("lane 0"),
      std::string::npos);
}

/// The fragments of A and B of an mma, in the layout of the PTX ISA's figures.
struct Fragments {
  Words a, b; // registers of lane 0, then of lane 1, ...
};
Fragments fragments(int k, int bits, const std::function<uint32_t(int, int)> &a,
                    const std::function<uint32_t(int, int)> &b) {
  int per = 32 / bits;
  Fragments result;
  for (int lane = 0; lane < 32; ++lane) {
    int group = lane >> 2, inGroup = lane % 4;
    for (int i = 0; i < 16 * k / 32; i += per) {
      // Element i of the fragment of A: its row and column.
      uint32_t word = 0;
      for (int e = 0; e < per; ++e) {
        int x = i + e, half = 16 * k / 64; // elements of the first columns
        int row = x % half < half / 2 ? group : group + 8;
        int column = inGroup * per + x % per + (x < half ? 0 : 4 * per);
        if (16 * k / 32 / per == 2) {
          // Two registers: the fragment has only the first columns.
          row = x < per ? group : group + 8;
          column = inGroup * per + x % per;
        }
        word |= a(row, column) << (bits * e);
      }
      result.a.push_back(word);
    }
    for (int i = 0; i < 8 * k / 32; i += per) {
      uint32_t word = 0;
      for (int e = 0; e < per; ++e) {
        int row = inGroup * per + e + (i < per ? 0 : 4 * per);
        word |= b(row, group) << (bits * e);
      }
      result.b.push_back(word);
    }
  }
  return result;
}

TEST_P(MatrixTest, ProductsOfAWarp) {
  struct Case {
    const char *shape, *types;
    int k, bits;
  };
  for (const Case &c : {Case{"m16n8k16", "f32.bf16.bf16.f32", 16, 16},
                        Case{"m16n8k8", "f32.bf16.bf16.f32", 8, 16},
                        Case{"m16n8k16", "f32.f16.f16.f32", 16, 16},
                        Case{"m16n8k8", "f32.tf32.tf32.f32", 8, 32},
                        Case{"m16n8k32", "s32.s8.s8.s32", 32, 8},
                        Case{"m16n8k16", "s32.s8.u8.s32", 16, 8}}) {
    bool integers = c.bits == 8;
    // Small numbers that are exact in every type.
    auto numberA = [](int i, int x) { return (i * 3 + x * 5) % 7 - 3; };
    auto numberB = [](int x, int j) { return (x * 2 + j * 3) % 5; };
    auto bits = [&](int value) -> uint32_t {
      float real = static_cast<float>(value);
      uint32_t word;
      std::memcpy(&word, &real, 4);
      if (integers)
        return static_cast<uint8_t>(value);
      if (c.bits == 32)
        return word;
      if (std::string(c.types).find("bf16") != std::string::npos)
        return word >> 16;
      return value == 0
                 ? 0
                 : (word >> 16 & 0x8000) |
                       (((word >> 13 & 0x3FFFF) - (112u << 10)) & 0x7FFF);
    };
    Fragments parts = fragments(
        c.k, c.bits, [&](int i, int x) { return bits(numberA(i, x)); },
        [&](int x, int j) { return bits(numberB(x, j)); });
    size_t na = parts.a.size() / 32, nb = parts.b.size() / 32;
    // For each lane: A in 4 words, B in 2, C in 4.
    Words in(32 * 12, 0);
    for (size_t lane = 0; lane < 32; ++lane) {
      for (size_t r = 0; r < na; ++r)
        in[12 * lane + r] = parts.a[na * lane + r];
      for (size_t r = 0; r < nb; ++r)
        in[12 * lane + 4 + r] = parts.b[nb * lane + r];
      for (size_t e = 0; e < 4; ++e) {
        int row = static_cast<int>(lane / 4 + (e < 2 ? 0 : 8));
        int column = static_cast<int>(lane % 4 * 2 + e % 2);
        float real = static_cast<float>(row + column);
        uint32_t word;
        std::memcpy(&word, &real, 4);
        in[12 * lane + 8 + e] =
            integers ? static_cast<uint32_t>(row + column) : word;
      }
    }
    std::string instruction =
        std::string("mma.sync.aligned.") + c.shape + ".row.col." + c.types;
    std::string operandA = na == 4 ? "{%r0, %r1, %r2, %r3}" : "{%r0, %r1}";
    std::string operandB = nb == 2 ? "{%r4, %r5}" : "{%r4}";
    CUfunction kernel = load(matrixSource(
        R"(
    ld.param.u64 %rd0, [out];
    ld.param.u64 %rd1, [in];
    mov.u32 %r30, %tid.x;
    mul.wide.u32 %rd2, %r30, 48;
    add.s64 %rd1, %rd1, %rd2;
    ld.global.v4.u32 {%r0, %r1, %r2, %r3}, [%rd1];
    ld.global.v4.u32 {%r4, %r5, %r6, %r7}, [%rd1+16];
    ld.global.v4.u32 {%r8, %r9, %r10, %r11}, [%rd1+32];
    )" + instruction +
        " {%r12, %r13, %r14, %r15}, " + operandA + ", " + operandB +
        ", {%r8, %r9, %r10, %r11};\n" + R"(
    mul.wide.u32 %rd2, %r30, 16;
    add.s64 %rd0, %rd0, %rd2;
    st.global.v4.u32 [%rd0], {%r12, %r13, %r14, %r15};)"));
    CUdeviceptr out = alloc(512);
    EXPECT_OK(run(kernel, {1}, {32}, 0, out, put(in)));
    Words results = get<uint32_t>(out, 128);
    for (int lane = 0; lane < 32; ++lane)
      for (int e = 0; e < 4; ++e) {
        int row = lane / 4 + (e < 2 ? 0 : 8), column = lane % 4 * 2 + e % 2;
        int sum = row + column;
        for (int x = 0; x < c.k; ++x)
          sum += numberA(row, x) * numberB(x, column);
        uint32_t word = results[static_cast<size_t>(4 * lane + e)];
        float value;
        std::memcpy(&value, &word, 4);
        EXPECT_EQ(integers ? static_cast<float>(static_cast<int32_t>(word))
                           : value,
                  static_cast<float>(sum))
            << instruction << " at " << row << ", " << column;
      }
  }
}

TEST_P(MatrixTest, WholeWarpsOnly) {
  CUfunction kernel = load(
      matrixSource("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r0}, [smem];"));
  CUdeviceptr out = alloc(64);
  EXPECT_NE(failure(CUDA_ERROR_LAUNCH_FAILED, kernel, {1}, {16}, 1024, out, out)
                .find("fewer than 32"),
            std::string::npos);
}

} // namespace
