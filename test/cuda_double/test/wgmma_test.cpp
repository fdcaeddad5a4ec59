//===- wgmma_test.cpp - Asynchronous warpgroup matrix products ------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "testing.h"

using namespace moe::gpu::test;

namespace {

using Floats = std::vector<float>;
using Halves = std::vector<uint16_t>;

constexpr int M = 64, K = 64;

/// The layout of an operand in memory and its swizzle.
struct Layout {
  bool mnMajor; // [k][mn], else [mn][k]
  uint32_t span;
};

/// D[64][n] = A[64][64] * B[64][n] in bf16; operands are loaded by tensor map.
class WgmmaTest : public SeededGpu {
protected:
  bool late() const { return GetParam() == 0; }

  /// Encodes the tensor map of a matrix [rows][columns] with boxes of `width`
  /// columns.
  void encode(CUtensorMap &map, CUdeviceptr data, uint64_t rows,
              uint64_t columns, uint32_t width, uint32_t span) {
    uint64_t sizes[] = {columns, rows}, strides[] = {columns * 2};
    uint32_t box[] = {width, static_cast<uint32_t>(rows)}, ones[] = {1, 1};
    EXPECT_OK(cuTensorMapEncodeTiled(
        &map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2,
        reinterpret_cast<void *>(data), sizes, strides, box, ones,
        CU_TENSOR_MAP_INTERLEAVE_NONE,
        span == 128  ? CU_TENSOR_MAP_SWIZZLE_128B
        : span == 64 ? CU_TENSOR_MAP_SWIZZLE_64B
                     : CU_TENSOR_MAP_SWIZZLE_32B,
        CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
  }

  /// An operand with `extent` rows along m or n: the PTX that loads it to
  /// shared memory and its matrix descriptor. Boxes are `span` bytes wide.
  struct Operand {
    std::string loads;
    uint64_t descriptor; // without the address
    uint32_t step; // in units of 16 bytes, from one k = 16 slice to the next
    uint32_t bytes;
    CUtensorMap map;
  };
  Operand operand(const Halves &values, int extent, Layout layout,
                  const std::string &tensor, uint32_t at) {
    Halves data = values;
    if (layout.mnMajor)
      for (int i = 0; i < extent; ++i)
        for (int x = 0; x < K; ++x)
          data[static_cast<size_t>(x * extent + i)] =
              values[static_cast<size_t>(i * K + x)];
    int rows = layout.mnMajor ? K : extent;
    int columns = layout.mnMajor ? extent : K;
    int width = static_cast<int>(layout.span / 2);
    Operand result;
    result.bytes = static_cast<uint32_t>(extent * K * 2);
    // GCC does not align the storage of a returned map.
    CUtensorMap map;
    encode(map, put(data), static_cast<uint64_t>(rows),
           static_cast<uint64_t>(columns), static_cast<uint32_t>(width),
           layout.span);
    result.map = map;
    uint32_t boxBytes = static_cast<uint32_t>(rows) * layout.span;
    for (int box = 0; box < columns / width; ++box)
      result.loads +=
          "mov.u32 %r10, " + std::to_string(box * width) +
          ";\ncp.async.bulk.tensor.2d.shared::cluster.global.tile"
          ".mbarrier::complete_tx::bytes [smem+" +
          std::to_string(at + static_cast<uint32_t>(box) * boxBytes) + "], [" +
          tensor + ", {%r10, %r11}], [smem+65536];\n";
    uint64_t swizzle = layout.span == 128 ? 1 : layout.span == 64 ? 2 : 3;
    uint64_t stride = 8 * layout.span, leading = 16;
    if (layout.mnMajor) {
      leading = boxBytes;
      result.step = 16 * layout.span / 16;
    } else {
      result.step = 32 / 16;
    }
    result.descriptor =
        swizzle << 62 | (stride >> 4) << 32 | (leading >> 4) << 16;
    return result;
  }

  /// Registers name0, name1, ... in braces.
  static std::string list(const std::string &name, int count) {
    std::string result = "{";
    for (int i = 0; i < count; ++i)
      result += (i ? ", " : "") + name + std::to_string(i);
    return result + "}";
  }

  /// Loads A and B and waits for them; %rd10 and %rd11 are the descriptors.
  static std::string prologue(const Operand &a, const Operand &b) {
    auto number = [](uint64_t value) { return std::to_string(value); };
    return R"(
    .reg .f32 %acc<128>;
    ld.param.u64 %rd0, [out];
    mov.u32 %r0, %tid.x;
    mov.b64 %rd1, mapA;
    cvta.param.u64 %rd2, %rd1;
    mov.b64 %rd3, mapB;
    cvta.param.u64 %rd4, %rd3;
    mov.u32 %r11, 0;
    setp.ne.u32 %p0, %r0, 0;
    @%p0 bra $loaded;
    mbarrier.init.shared.b64 [smem+65536], 1;
    fence.mbarrier_init.release.cluster;
    mbarrier.arrive.expect_tx.shared.b64 _, [smem+65536], )" +
           number(a.bytes + b.bytes) + ";\n" + a.loads + b.loads + R"(
  $loaded:
    bar.sync 0;
  $wait:
    mbarrier.try_wait.parity.shared.b64 %p1, [smem+65536], 0;
    @!%p1 bra $wait;
    mov.u32 %r1, smem;
    and.b32 %r1, %r1, 0x3FFFF;
    shr.u32 %r2, %r1, 4;
    cvt.u64.u32 %rd10, %r2;
    add.s64 %rd11, %rd10, 1024;
    or.b64 %rd10, %rd10, )" +
           number(a.descriptor) + ";\n or.b64 %rd11, %rd11, " +
           number(b.descriptor) + ";\n";
  }

  /// The four wgmma of k = 16.
  static std::string products(int n, const Operand &a, const Operand &b,
                              Layout layoutA, Layout layoutB) {
    std::string result = "wgmma.fence.sync.aligned;\n";
    for (int x = 0; x < K / 16; ++x) {
      auto offset = [&](const Operand &operand) {
        return std::to_string(operand.step * static_cast<uint32_t>(x));
      };
      result +=
          "add.s64 %rd12, %rd10, " + offset(a) + ";\nadd.s64 %rd13, %rd11, " +
          offset(b) + ";\nsetp.ne.b32 %p2, " + std::to_string(x) +
          ", 0;\nwgmma.mma_async.sync.aligned.m64n" + std::to_string(n) +
          "k16.f32.bf16.bf16 " + list("%acc", n / 2) +
          ", %rd12, %rd13, %p2, 1, 1, " + (layoutA.mnMajor ? "1, " : "0, ") +
          (layoutB.mnMajor ? "1" : "0") + ";\n";
    }
    return result + "wgmma.commit_group.sync.aligned;\n";
  }

  static std::string epilogue(int n) {
    std::string result = R"(
    and.b32 %r3, %r0, 31;
    shr.u32 %r4, %r0, 5;
    shr.u32 %r5, %r3, 2;
    mad.lo.s32 %r5, %r4, 16, %r5;
    and.b32 %r6, %r3, 3;
    shl.b32 %r6, %r6, 1;
    mad.lo.s32 %r6, %r5, )" +
                         std::to_string(n) +
                         R"(, %r6;
    mul.wide.u32 %rd14, %r6, 4;
    add.s64 %rd0, %rd0, %rd14;
)";
    for (int i = 0; i < n / 2; ++i) {
      // See figure "WGMMA .m64nNk16 register fragment layout for D".
      int row = i / 2 % 2 * 8, column = i / 4 * 8 + i % 2;
      result += "st.global.f32 [%rd0+" +
                std::to_string(4 * (row * n + column)) + "], %acc" +
                std::to_string(i) + ";\n";
    }
    return result;
  }

  static Source source(const std::string &body) {
    Source result{body, ".param .u64 out, .param .align 64 .b8 mapA[128], "
                        ".param .align 64 .b8 mapB[128]"};
    result.globals = ".extern .shared .align 1024 .b8 smem[];\n";
    return result;
  }

  static Floats expected(const Halves &a, const Halves &b, int n) {
    Floats c(static_cast<size_t>(M * n), 0);
    for (int i = 0; i < M; ++i)
      for (int j = 0; j < n; ++j)
        for (int x = 0; x < K; ++x)
          c[static_cast<size_t>(i * n + j)] +=
              fromBfloat(a[static_cast<size_t>(i * K + x)]) *
              fromBfloat(b[static_cast<size_t>(j * K + x)]);
    return c;
  }

  static constexpr unsigned sharedBytes = 65536 + 64;
  Halves a = bfloatPattern(M * K, 1);
};
INSTANTIATE_TEST_SUITE_P(Seeds, WgmmaTest, MOE_SEEDS);

TEST_P(WgmmaTest, OperandsInSharedMemory) {
  for (int n : {64, 128, 8})
    for (Layout layoutA : {Layout{false, 128}, {true, 128}})
      for (Layout layoutB : {Layout{false, 128},
                             {false, 64},
                             {false, 32},
                             {true, 128},
                             {true, 64},
                             {true, 32}}) {
        // An MN-major operand is at least as wide as its swizzle.
        if (layoutB.mnMajor && static_cast<uint32_t>(n) < layoutB.span / 2)
          continue;
        if (!layoutB.mnMajor && layoutB.span != 128)
          continue; // k advances by whole boxes: see the next test
        Halves b = bfloatPattern(static_cast<size_t>(n * K), 2);
        Operand oa = operand(a, M, layoutA, "%rd2", 0);
        Operand ob = operand(b, n, layoutB, "%rd4", 16384);
        CUfunction kernel = load(
            source(prologue(oa, ob) + products(n, oa, ob, layoutA, layoutB) +
                   "wgmma.wait_group.sync.aligned 0;\n" + epilogue(n)));
        CUdeviceptr out = alloc(static_cast<size_t>(M * n * 4));
        ASSERT_OK(run(kernel, {1}, {128}, sharedBytes, out, oa.map, ob.map));
        EXPECT_EQ(get<float>(out, static_cast<size_t>(M * n)),
                  expected(a, b, n))
            << n << " " << layoutA.mnMajor << " " << layoutB.mnMajor << " "
            << layoutB.span;
      }
}

TEST_P(WgmmaTest, KMajorWithNarrowSwizzles) {
  // Consecutive boxes of 32 or 16 elements along k.
  for (uint32_t span : {64u, 32u}) {
    Layout layout = {false, span};
    Halves b = bfloatPattern(64 * K, 3);
    Operand oa = operand(a, M, {false, 128}, "%rd2", 0);
    Operand ob = operand(b, 64, layout, "%rd4", 16384);
    std::string body = products(64, oa, ob, {false, 128}, layout);
    // The step along k is not uniform: 32 bytes in a box, then the next box.
    for (uint32_t x = 1; x < 4; ++x) {
      std::string from = "%rd13, %rd11, " + std::to_string(2 * x) + ";";
      uint32_t perBox = span / 32;
      uint32_t to = (x / perBox * 64 * span + x % perBox * 32) / 16;
      body.replace(body.find(from), from.size(),
                   "%rd13, %rd11, " + std::to_string(to) + ";");
    }
    CUfunction kernel =
        load(source(prologue(oa, ob) + body +
                    "wgmma.wait_group.sync.aligned 0;\n" + epilogue(64)));
    CUdeviceptr out = alloc(M * 64 * 4);
    ASSERT_OK(run(kernel, {1}, {128}, sharedBytes, out, oa.map, ob.map));
    EXPECT_EQ(get<float>(out, M * 64), expected(a, b, 64)) << span;
  }
}

TEST_P(WgmmaTest, OperandInRegisters) {
  Halves b = bfloatPattern(64 * K, 4);
  Layout layout = {false, 128};
  Operand oa = operand(a, M, layout, "%rd2", 0);
  Operand ob = operand(b, 64, layout, "%rd4", 16384);
  // Fragments of A for k 0 to 15 by ldmatrix from the swizzled tile: row
  // lane % 16 of the warp, chunk lane / 16.
  std::string body = prologue(oa, ob) + R"(
    and.b32 %r3, %r0, 31;
    shr.u32 %r4, %r0, 5;
    and.b32 %r5, %r3, 15;
    mad.lo.s32 %r5, %r4, 16, %r5;
    shr.u32 %r6, %r3, 4;
    and.b32 %r7, %r5, 7;
    xor.b32 %r6, %r6, %r7;
    shl.b32 %r6, %r6, 4;
    mad.lo.s32 %r6, %r5, 128, %r6;
    mov.u32 %r8, smem;
    add.s32 %r6, %r6, %r8;
    ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r20, %r21, %r22, %r23}, [%r6];
    setp.ne.b32 %p2, 0, 0;
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 )" +
                     list("%acc", 32) +
                     R"(, {%r20, %r21, %r22, %r23}, %rd11, %p2, 1, -1, 0;
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
)" + epilogue(64);
  CUfunction kernel = load(source(body));
  CUdeviceptr out = alloc(M * 64 * 4);
  ASSERT_OK(run(kernel, {1}, {128}, sharedBytes, out, oa.map, ob.map));
  Floats expected(M * 64, 0);
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < 64; ++j)
      for (int x = 0; x < 16; ++x)
        expected[static_cast<size_t>(i * 64 + j)] -=
            fromBfloat(a[static_cast<size_t>(i * K + x)]) *
            fromBfloat(b[static_cast<size_t>(j * K + x)]);
  EXPECT_EQ(get<float>(out, M * 64), expected);
}

//===----------------------------------------------------------------------===//
// Bytes, without swizzle
//===----------------------------------------------------------------------===//

TEST_P(WgmmaTest, BytesInCoreMatrices) {
  // A[64][32] and B[8][32] of e4m3, mostly 1.0 (0x38). Without
  // swizzle: core matrices of 8 rows of 16 bytes, LBO along k, SBO along rows.
  std::string body = R"(
    .reg .f32 %acc<4>;
    ld.param.u64 %rd0, [out];
    mov.u32 %r0, %tid.x;
    mov.u32 %r1, smem;
    shl.b32 %r2, %r0, 4;
    add.s32 %r2, %r2, %r1;
    mov.u32 %r3, 0x38383838;
    st.shared.v4.b32 [%r2], {%r3, %r3, %r3, %r3};
    setp.lt.u32 %p0, %r0, 16;
    @!%p0 bra $done;
    // B is at 2048, row r of chunk c at 128 c + 16 r. Row r is all r.
    and.b32 %r4, %r0, 7;
    mov.u32 %r5, 0;
    setp.ge.u32 %p1, %r4, 1;
    selp.b32 %r5, 0x38383838, 0, %p1;
    setp.ge.u32 %p1, %r4, 2;
    selp.b32 %r5, 0x40404040, %r5, %p1;
    st.shared.v4.b32 [%r2+2048], {%r5, %r5, %r5, %r5};
  $done:
    fence.proxy.async.shared::cta;
    bar.sync 0;
    shr.u32 %r6, %r1, 4;
    and.b32 %r6, %r6, 0x3FFF;
    cvt.u64.u32 %rd10, %r6;
    // LBO 128, SBO 256.
    or.b64 %rd10, %rd10, 68720001024;
    add.s64 %rd11, %rd10, 128;
    setp.ne.b32 %p2, 0, 0;
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3
      {%acc0, %acc1, %acc2, %acc3}, %rd10, %rd11, %p2, 1, 1;
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
)" + epilogue(8);
  // 256 / 16 << 32 | 128 / 16 << 16
  size_t at = body.find("68720001024");
  body.replace(at, 11, std::to_string(uint64_t(16) << 32 | 8 << 16));
  body.erase(body.find("    .reg .f32 %acc<4>;\n"), 23);
  CUfunction kernel = load(source("    .reg .f32 %acc<4>;\n" + body));
  CUdeviceptr out = alloc(64 * 8 * 4);
  CUtensorMap none = {};
  ASSERT_OK(run(kernel, {1}, {128}, sharedBytes, out, none, none));
  Floats result = get<float>(out, 64 * 8);
  for (size_t i = 0; i < 64; ++i)
    for (size_t j = 0; j < 8; ++j)
      EXPECT_EQ(result[8 * i + j], j == 0 ? 0 : j == 1 ? 32 : 64);
}

//===----------------------------------------------------------------------===//
// Undefined behaviour
//===----------------------------------------------------------------------===//

class WgmmaMisuseTest : public WgmmaTest {
protected:
  void SetUp() override {
    WgmmaTest::SetUp();
    makeOperands();
  }
  void makeOperands() {
    Halves b = bfloatPattern(64 * K, 5);
    oa = operand(a, M, {false, 128}, "%rd2", 0);
    ob = operand(b, 64, {false, 128}, "%rd4", 16384);
    multiply = products(64, oa, ob, {false, 128}, {false, 128});
  }
  CUresult result(const std::string &body, unsigned threads = 128) {
    CUfunction kernel = load(source(prologue(oa, ob) + body));
    return run(kernel, {1}, {threads}, sharedBytes, alloc(M * 64 * 4), oa.map,
               ob.map);
  }
  ::testing::AssertionResult fails(const std::string &body,
                                   const std::string &words,
                                   unsigned threads = 128) {
    if (result(body, threads) == CUDA_ERROR_LAUNCH_FAILED &&
        message().find(words) != std::string::npos)
      return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure() << message();
  }
  Operand oa, ob;
  std::string multiply;
  const std::string wait = "wgmma.wait_group.sync.aligned 0;\n";
};
INSTANTIATE_TEST_SUITE_P(Seeds, WgmmaMisuseTest, MOE_SEEDS);

TEST_P(WgmmaMisuseTest, AccumulatorsBeforeTheWait) {
  EXPECT_TRUE(fails(multiply + "add.f32 %f0, %acc3, %acc4;\n" + wait,
                    "touches a register of a wgmma"));
  SetUp();
  EXPECT_TRUE(fails(multiply +
                        "wgmma.wait_group.sync.aligned 1;\n"
                        "mov.f32 %acc3, 0f00000000;\n" +
                        wait,
                    "touches a register of a wgmma"));
  SetUp();
  EXPECT_TRUE(fails(multiply, "exits while a wgmma"));
}

TEST_P(WgmmaMisuseTest, FirstFence) {
  std::string without = multiply;
  without.erase(0, without.find('\n') + 1);
  EXPECT_TRUE(fails(without + wait, "needs a wgmma.fence"));
}

TEST_P(WgmmaMisuseTest, FenceBehindAccessesToRegisters) {
  std::string without = multiply.substr(multiply.find('\n') + 1);
  std::string read = "add.f32 %f0, %acc3, %acc4;\n";
  EXPECT_TRUE(fails(multiply + wait + read + without + wait,
                    "register 3 of it was accessed by another instruction"));
  SetUp();
  EXPECT_OK(result(multiply + wait + read + multiply + wait));
  SetUp();
  // A copy of accumulators is an access once it is one.
  std::string there = "mov.f32 %f1, %acc3;\n", back = "mov.f32 %acc3, %f1;\n";
  EXPECT_OK(result(multiply + wait + there + back + without + wait));
  SetUp();
  EXPECT_TRUE(fails(multiply + wait + there + "add.f32 %f1, %f1, %f1;\n" +
                        back + without + wait,
                    "register 3"));
  SetUp();
  // While others are under way.
  std::string others = multiply;
  for (size_t at = 0; (at = others.find("%acc", at)) != std::string::npos;)
    others.replace(at, 4, "%bcc");
  others = ".reg .f32 %bcc<128>;\n" + multiply + others +
           "wgmma.wait_group.sync.aligned 1;\n" + read;
  EXPECT_TRUE(fails(others + without + wait, "register 3"));
  SetUp();
  EXPECT_OK(result(others + multiply + wait));
  SetUp();
  // Without accesses, no fence is needed.
  EXPECT_OK(result(multiply + wait + without + wait));
  SetUp();
  // wgmma with the same accumulators and shape execute in order.
  EXPECT_OK(
      result(multiply + "wgmma.wait_group.sync.aligned 1;\n" + without + wait));
}

TEST_P(WgmmaMisuseTest, StartsWithinTheSwizzle) {
  std::string along = multiply;
  along.replace(along.find("add.s64 %rd12, %rd10, 0"), 23,
                "add.s64 %rd12, %rd10, 2");
  EXPECT_OK(result(along + wait));
  SetUp();
  along.replace(along.find("add.s64 %rd12, %rd10, 2"), 23,
                "add.s64 %rd12, %rd10, 8");
  EXPECT_TRUE(fails(along + wait, "in row 1 of a swizzle of 128 bytes"));
}

TEST_P(WgmmaMisuseTest, RegistersWrittenBehindTheFence) {
  std::string zero = "cvt.rn.f32.u32 %acc5, %r11;\n";
  EXPECT_OK(result(zero + multiply + wait));
  SetUp();
  std::string late = multiply;
  late.insert(late.find('\n') + 1, zero);
  EXPECT_TRUE(fails(late + wait, "register 5 of it was accessed"));
}

TEST_P(WgmmaMisuseTest, StagesThatAreOverwrittenTooEarly) {
  // The next load to the same stage, before and after the wait.
  std::string reload = "@%p0 bra $on;\n"
                       "mbarrier.arrive.expect_tx.shared.b64 _, "
                       "[smem+65536], 8192;\n" +
                       ob.loads +
                       "$on:\n$again:\n"
                       "mbarrier.try_wait.parity.shared.b64 %p3, "
                       "[smem+65536], 1;\n@!%p3 bra $again;\n";
  EXPECT_OK(result(multiply + wait + "bar.sync 0;\n" + reload));
  SetUp();
  EXPECT_TRUE(fails(multiply + reload + wait, "a wgmma of warpgroup 0"));
}

TEST_P(WgmmaMisuseTest, OperandsThatTheProxyDoesNotSee) {
  std::string store = "shl.b32 %r3, %r0, 2;\nmov.u32 %r4, smem;\n"
                      "add.s32 %r3, %r3, %r4;\nst.shared.u32 [%r3], 0;\n";
  std::string barrier = "bar.sync 0;\n";
  EXPECT_TRUE(fails(store + barrier + multiply + wait,
                    "executed no fence.proxy.async since"));
  SetUp();
  EXPECT_OK(result(store + "fence.proxy.async.shared::cta;\n" + barrier +
                   multiply + wait));
  SetUp();
  // Without the barrier, stores of other threads race with the wgmma.
  EXPECT_NE(
      result(store + "fence.proxy.async.shared::cta;\n" + multiply + wait),
      CUDA_SUCCESS);
}

TEST_P(WgmmaMisuseTest, FenceOfTheReader) {
  // A second warpgroup writes; the first reads, and executes the fence.
  std::string store = "setp.ge.u32 %p4, %r0, 128;\nshl.b32 %r3, %r0, 2;\n"
                      "mov.u32 %r4, smem;\nadd.s32 %r3, %r3, %r4;\n"
                      "@%p4 st.shared.u32 [%r3], 0;\n";
  std::string barrier = "bar.sync 0;\n@%p4 bra $end;\n";
  std::string fence = "fence.proxy.async.shared::cta;\n";
  std::string rest = multiply + wait + "$end:\n";
  EXPECT_OK(result(store + barrier + fence + rest, 256));
  SetUp();
  EXPECT_TRUE(fails(store + barrier + rest,
                    "executed no fence.proxy.async since", 256));
  SetUp();
  // A fence before the barrier does not order the writes.
  EXPECT_TRUE(fails("setp.ge.u32 %p4, %r0, 128;\n@%p4 bra $skip;\n" + fence +
                        "$skip:\nbar.sync 0;\n" + store + barrier + rest,
                    "executed no fence.proxy.async since", 256));
}

TEST_P(WgmmaMisuseTest, CopiesThatCompleteOnMbarriers) {
  // The second warpgroup copies by cp.async; the first waits on the mbarrier.
  std::string copy = R"(
    setp.ge.u32 %p4, %r0, 128;
    setp.eq.u32 %p5, %r0, 128;
    @%p5 mbarrier.init.shared.b64 [smem+65544], 128;
    bar.sync 0;
    @!%p4 bra $consume;
    shl.b32 %r3, %r0, 4;
    mov.u32 %r4, smem;
    add.s32 %r3, %r3, %r4;
    cp.async.cg.shared.global [%r3], [%rd0], 16;
    cp.async.mbarrier.arrive.noinc.shared.b64 [smem+65544];
    cp.async.wait_all;
    bra.uni $end;
  $consume:
  $full:
    mbarrier.try_wait.parity.shared.b64 %p6, [smem+65544], 0;
    @!%p6 bra $full;
)";
  std::string fence = "fence.proxy.async.shared::cta;\n";
  std::string rest = multiply + wait + "$end:\n";
  EXPECT_OK(result(copy + fence + rest, 256));
  SetUp();
  EXPECT_TRUE(fails(copy + rest, "executed no fence.proxy.async since", 256));
  // As hardware behaves.
  start({{"SEED", std::to_string(GetParam())}, {"COPIES", "allow"}});
  WgmmaMisuseTest::makeOperands();
  EXPECT_OK(result(copy + rest, 256));
}

TEST_P(WgmmaMisuseTest, AllFourWarps) {
  std::string body = "setp.ge.u32 %p4, %r0, 96;\n@%p4 bra $end;\n" + multiply +
                     wait + "$end:\n";
  EXPECT_EQ(result(body), CUDA_ERROR_LAUNCH_TIMEOUT);
  EXPECT_NE(message().find("waits for other warps"), std::string::npos)
      << message();
  SetUp();
  EXPECT_TRUE(fails(multiply + wait, "fewer than 128 threads", 96));
}

TEST_P(WgmmaMisuseTest, OtherArchitectures) {
  Source plain = source(prologue(oa, ob) + multiply + wait);
  plain.target = "sm_90";
  EXPECT_NE(loadError(plain).find("sm_90a"), std::string::npos);
}

} // namespace
