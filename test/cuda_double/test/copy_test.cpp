//===- copy_test.cpp - mbarriers, asynchronous copies and tensor maps -----===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "testing.h"

#include <algorithm>

using namespace moe::gpu::test;

namespace {

using Words = std::vector<uint32_t>;

/// A kernel with dynamic shared memory `smem`.
Source sharedSource(const std::string &body,
                    const std::string &parameters = ".param .u64 out") {
  Source source{body, parameters};
  source.globals = ".extern .shared .align 1024 .b8 smem[];\n";
  return source;
}

/// Waits for the phase with a parity; the braces make its labels local.
std::string waitFor(const std::string &address, const std::string &parity) {
  return "{\n.reg .pred %done;\n$again:\n"
         "mbarrier.try_wait.parity.shared.b64 %done, [" +
         address + "], " + parity + ";\n@!%done bra $again;\n}\n";
}

class CopyTest : public SeededGpu {
protected:
  bool late() const { return GetParam() == 0; }
  std::string failing(const std::string &body, unsigned threads = 1,
                      CUresult code = CUDA_ERROR_LAUNCH_FAILED) {
    CUfunction kernel = load(sharedSource(body));
    return failure(code, kernel, {1}, {threads}, 8192, alloc(4096));
  }
  static ::testing::AssertionResult contains(const std::string &message,
                                             const std::string &words) {
    if (message.find(words) != std::string::npos)
      return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure() << message;
  }
};
INSTANTIATE_TEST_SUITE_P(Seeds, CopyTest, MOE_SEEDS);

//===----------------------------------------------------------------------===//
// mbarrier
//===----------------------------------------------------------------------===//

TEST_P(CopyTest, PhasesOfAnMbarrier) {
  // Two arrivals for each phase; the returned state contains the phase.
  Words results = outputOf<uint32_t>(sharedSource(R"(
    ld.param.u64 %rd0, [out];
    mbarrier.init.shared::cta.b64 [smem], 2;
    mbarrier.test_wait.parity.shared.b64 %p0, [smem], 1;
    mbarrier.test_wait.parity.shared.b64 %p1, [smem], 0;
    mbarrier.arrive.shared.b64 %rd1, [smem];
    mbarrier.pending_count.b64 %r5, %rd1;
    mbarrier.test_wait.shared.b64 %p2, [smem], %rd1;
    mbarrier.arrive.shared.b64 %rd2, [smem];
    mbarrier.test_wait.shared.b64 %p3, [smem], %rd1;
    mbarrier.test_wait.parity.shared.b64 %p4, [smem], 0;
    mbarrier.arrive.shared.b64 %rd3, [smem], 2;
    mbarrier.test_wait.parity.shared.b64 %p5, [smem], 1;
    selp.u32 %r0, 1, 0, %p0;
    selp.u32 %r1, 1, 0, %p1;
    selp.u32 %r2, 1, 0, %p2;
    selp.u32 %r3, 1, 0, %p3;
    selp.u32 %r4, 1, 0, %p4;
    selp.u32 %r6, 1, 0, %p5;
    st.global.v4.u32 [%rd0], {%r0, %r1, %r2, %r3};
    st.global.v2.u32 [%rd0+16], {%r4, %r5};
    st.global.u32 [%rd0+24], %r6;)"),
                                     1, 7, 64);
  // Initially the preceding phase, of parity 1, counts as complete.
  EXPECT_EQ(results, (Words{1, 0, 0, 1, 1, 2, 1}));
}

TEST_P(CopyTest, TransactionBytesHoldAPhase) {
  Words results = outputOf<uint32_t>(sharedSource(R"(
    ld.param.u64 %rd0, [out];
    mbarrier.init.shared.b64 [smem], 1;
    mbarrier.arrive.expect_tx.shared.b64 _, [smem], 48;
    mbarrier.complete_tx.relaxed.cluster.shared::cluster.b64 [smem], 16;
    mbarrier.test_wait.parity.shared.b64 %p0, [smem], 0;
    mbarrier.complete_tx.relaxed.cluster.shared::cluster.b64 [smem], 32;
    mbarrier.test_wait.parity.shared.b64 %p1, [smem], 0;
    selp.u32 %r0, 1, 0, %p0;
    selp.u32 %r1, 1, 0, %p1;
    st.global.v2.u32 [%rd0], {%r0, %r1};)"),
                                     1, 2, 64);
  EXPECT_EQ(results, (Words{0, 1}));
}

TEST_P(CopyTest, MbarriersOrderTheirArrivals) {
  // A producer and a consumer with a pipeline of two stages of one word.
  Words results = outputOf<uint32_t>(sharedSource(R"(
    ld.param.u64 %rd0, [out];
    mov.u32 %r0, %tid.x;
    mov.u32 %r10, smem;
    setp.ne.u32 %p0, %r0, 0;
    @%p0 bra $ready;
    mbarrier.init.shared.b64 [smem], 1;
    mbarrier.init.shared.b64 [smem+8], 1;
    mbarrier.init.shared.b64 [smem+16], 1;
    mbarrier.init.shared.b64 [smem+24], 1;
  $ready:
    bar.sync 0;
    mov.u32 %r1, 0;
    setp.eq.u32 %p1, %r0, 32;
    @!%p0 bra $loop;
    @%p1 bra $loop;
    bra.uni $end;
  $loop:
    and.b32 %r2, %r1, 1;
    shr.u32 %r3, %r1, 1;
    and.b32 %r3, %r3, 1;
    mad.lo.s32 %r4, %r2, 8, %r10;
    mad.lo.s32 %r5, %r2, 4, %r10;
    @%p1 bra $consume;
    xor.b32 %r3, %r3, 1;
    )" + waitFor("%r4+16", "%r3") +
                                                  R"(
    mul.lo.s32 %r6, %r1, %r1;
    st.shared.u32 [%r5+64], %r6;
    mbarrier.arrive.shared.b64 _, [%r4];
    bra.uni $next;
  $consume:
    )" + waitFor("%r4", "%r3") +
                                                  R"(
    ld.shared.u32 %r6, [%r5+64];
    mbarrier.arrive.shared.b64 _, [%r4+16];
    mul.wide.u32 %rd1, %r1, 4;
    add.s64 %rd2, %rd0, %rd1;
    st.global.u32 [%rd2], %r6;
  $next:
    add.s32 %r1, %r1, 1;
    setp.lt.u32 %p2, %r1, 9;
    @%p2 bra $loop;
  $end:)"),
                                     64, 9, 128);
  for (uint32_t i = 0; i < 9; ++i)
    EXPECT_EQ(results[i], i * i);
}

TEST_P(CopyTest, MisuseOfMbarriers) {
  EXPECT_TRUE(contains(failing("mbarrier.arrive.shared.b64 _, [smem];"),
                       "no mbarrier object"));
  SetUp();
  EXPECT_TRUE(contains(failing("mbarrier.init.shared.b64 [smem], 1;\n"
                               "st.shared.u32 [smem+4], 1;"),
                       "overwrites the mbarrier"));
  SetUp();
  EXPECT_TRUE(contains(failing("mbarrier.init.shared.b64 [smem], 1;\n"
                               "mbarrier.arrive.shared.b64 _, [smem], 2;"),
                       "more arrivals"));
  SetUp();
  EXPECT_TRUE(contains(failing("mbarrier.init.shared.b64 [smem+4], 1;", 1,
                               CUDA_ERROR_MISALIGNED_ADDRESS),
                       "not aligned"));
  SetUp();
  std::string message = failing("mbarrier.init.shared.b64 [smem], 2;\n"
                                "mbarrier.arrive.shared.b64 _, [smem];\n" +
                                    waitFor("smem", "0"),
                                1, CUDA_ERROR_LAUNCH_TIMEOUT);
  EXPECT_TRUE(contains(message, "1 of 2 arrivals and 0 bytes pending"));
}

//===----------------------------------------------------------------------===//
// cp.async
//===----------------------------------------------------------------------===//

TEST_P(CopyTest, CopiesByThread) {
  std::string body = R"(
    ld.param.u64 %rd0, [out];
    ld.param.u64 %rd1, [in];
    cp.async.cg.shared.global [smem], [%rd1], 16;
    cp.async.commit_group;
    cp.async.ca.shared.global [smem+16], [%rd1+16], 8, 4;
    mov.u32 %r5, 0;
    cp.async.cg.shared.global [smem+32], [%rd1+16], 16, %r5;
    cp.async.commit_group;
    cp.async.wait_group 1;
    ld.shared.v2.u32 {%r0, %r1}, [smem];
    cp.async.wait_all;
    ld.shared.v2.u32 {%r2, %r3}, [smem+16];
    ld.shared.u32 %r4, [smem+44];
    st.global.v4.u32 [%rd0], {%r0, %r1, %r2, %r3};
    st.global.u32 [%rd0+16], %r4;)";
  CUfunction kernel =
      load(sharedSource(body, ".param .u64 out, .param .u64 in"));
  CUdeviceptr out = alloc(20);
  EXPECT_OK(run(kernel, {1}, {1}, 64, out, put(Words{1, 2, 3, 4, 5, 6, 7, 8})));
  // Bytes beyond src-size are zero.
  EXPECT_EQ(get<uint32_t>(out, 5), (Words{1, 2, 5, 0, 0}));
}

TEST_P(CopyTest, NobodyReadsACopyUnderWay) {
  std::string body = R"(
    ld.param.u64 %rd0, [out];
    cp.async.cg.shared.global [smem], [%rd0], 16;
    cp.async.commit_group;
    cp.async.cg.shared.global [smem+16], [%rd0+16], 16;
    cp.async.commit_group;
    cp.async.wait_group 1;
    ld.shared.u32 %r0, [smem+16];)";
  EXPECT_TRUE(contains(failing(body), "an asynchronous copy is under way"));
}

TEST_P(CopyTest, CopiesArriveAtMbarriers) {
  Words in(64);
  for (uint32_t i = 0; i < 64; ++i)
    in[i] = i * 3;
  CUfunction kernel = load(sharedSource(R"(
    ld.param.u64 %rd0, [out];
    ld.param.u64 %rd1, [in];
    mov.u32 %r0, %tid.x;
    setp.ne.u32 %p0, %r0, 0;
    @!%p0 mbarrier.init.shared.b64 [smem], 64;
    bar.sync 0;
    shl.b32 %r1, %r0, 2;
    mov.u32 %r2, smem;
    add.s32 %r3, %r2, %r1;
    cvt.u64.u32 %rd2, %r1;
    add.s64 %rd3, %rd1, %rd2;
    cp.async.ca.shared.global [%r3+64], [%rd3], 4;
    cp.async.mbarrier.arrive.noinc.shared.b64 [smem];
    )" + waitFor("smem", "0") +
                                            R"(
    xor.b32 %r4, %r1, 252;
    add.s32 %r4, %r4, %r2;
    ld.shared.u32 %r5, [%r4+64];
    add.s64 %rd4, %rd0, %rd2;
    st.global.u32 [%rd4], %r5;)",
                                        ".param .u64 out, .param .u64 in"));
  CUdeviceptr out = alloc(256);
  EXPECT_OK(run(kernel, {1}, {64}, 512, out, put(in)));
  std::reverse(in.begin(), in.end());
  EXPECT_EQ(get<uint32_t>(out, 64), in);
}

//===----------------------------------------------------------------------===//
// Bulk copies
//===----------------------------------------------------------------------===//

/// One thread bulk-copies bytes of `in` to smem + 1024.
std::string bulkLoad(uint32_t bytes) {
  std::string n = std::to_string(bytes);
  return R"(
    ld.param.u64 %rd0, [out];
    ld.param.u64 %rd1, [in];
    mbarrier.init.shared.b64 [smem], 1;
    fence.mbarrier_init.release.cluster;
    mbarrier.arrive.expect_tx.shared.b64 _, [smem], )" +
         n + R"(;
    cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes
      [smem+1024], [%rd1], )" +
         n + ", [smem];\n";
}

TEST_P(CopyTest, BulkCopiesThereAndBack) {
  Words in(256);
  for (uint32_t i = 0; i < 256; ++i)
    in[i] = i + 1000;
  CUfunction kernel =
      load(sharedSource(bulkLoad(1024) + waitFor("smem", "0") + R"(
    ld.shared.u32 %r0, [smem+1028];
    add.s32 %r0, %r0, 5;
    st.shared.u32 [smem+1028], %r0;
    fence.proxy.async.shared::cta;
    cp.async.bulk.global.shared::cta.bulk_group [%rd0], [smem+1024], 1024;
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group.read 0;
    st.shared.u32 [smem+1028], 1;
    cp.async.bulk.wait_group 0;
    ld.global.u32 %r1, [%rd0+4];
    st.global.u32 [%rd0+1024], %r1;)",
                        ".param .u64 out, .param .u64 in"));
  CUdeviceptr out = alloc(1028);
  EXPECT_OK(run(kernel, {1}, {1}, 4096, out, put(in)));
  in[1] += 5;
  in.push_back(in[1]);
  EXPECT_EQ(get<uint32_t>(out, 257), in);
}

TEST_P(CopyTest, BulkReductions) {
  CUfunction kernel = load(sharedSource(R"(
    ld.param.u64 %rd0, [out];
    mov.f32 %f0, 0f3FC00000;
    st.shared.v4.f32 [smem], {%f0, %f0, %f0, %f0};
    fence.proxy.async;
    cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32
      [%rd0], [smem], 16;
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group 0;)"));
  CUdeviceptr out = put(std::vector<float>{1, 2, 3, 4});
  EXPECT_OK(run(kernel, {2}, {1}, 64, out));
  EXPECT_EQ(get<float>(out, 4), (std::vector<float>{4, 5, 6, 7}));
}

TEST_P(CopyTest, ReadsBeforeTheCopyArrived) {
  CUfunction kernel = load(sharedSource(
      bulkLoad(16) + "ld.shared.u32 %r0, [smem+1024];\n" + waitFor("smem", "0"),
      ".param .u64 out, .param .u64 in"));
  CUdeviceptr out = alloc(64);
  void *parameters[] = {&out, &out};
  ASSERT_OK(cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 2048, nullptr, parameters,
                           nullptr));
  // The race is detected only if the copy takes effect late.
  CUresult result = cuCtxSynchronize();
  if (late()) {
    EXPECT_EQ(result, CUDA_ERROR_LAUNCH_FAILED);
    EXPECT_TRUE(contains(message(), "an asynchronous copy is under way"));
  }
}

TEST_P(CopyTest, ProxiesNeedAFence) {
  std::string store = "ld.param.u64 %rd0, [out];\n"
                      "st.shared.v2.u64 [smem], {%rd0, %rd0};\n";
  std::string bulk =
      "cp.async.bulk.global.shared::cta.bulk_group [%rd0], [smem], 16;\n"
      "cp.async.bulk.commit_group;\ncp.async.bulk.wait_group 0;";
  EXPECT_TRUE(
      contains(failing(store + bulk), "executed no fence.proxy.async since"));
  SetUp();
  // A fence that is not a proxy fence is not enough.
  EXPECT_TRUE(
      contains(failing(store + "fence.acq_rel.cta;\n" + bulk), "no fence"));
  SetUp();
  CUfunction kernel =
      load(sharedSource(store + "fence.proxy.async.shared::cta;\n" + bulk));
  EXPECT_OK(run(kernel, {1}, {1}, 64, alloc(64)));
}

TEST_P(CopyTest, StoresAreWaitedFor) {
  std::string body = "ld.param.u64 %rd0, [out];\n"
                     "st.shared.v2.u64 [smem], {%rd0, %rd0};\n"
                     "fence.proxy.async;\n"
                     "cp.async.bulk.global.shared::cta.bulk_group [%rd0], "
                     "[smem], 16;\ncp.async.bulk.commit_group;\n";
  const std::string wait = "cp.async.bulk.wait_group";
  EXPECT_TRUE(contains(failing(body), "wait_group.read is missing"));
  SetUp();
  EXPECT_TRUE(contains(failing(body + wait + ".read 1;"),
                       "wait_group.read is missing"));
  for (const char *end : {" 0;", ".read 0;"}) {
    SetUp();
    EXPECT_OK(
        run(load(sharedSource(body + wait + end)), {1}, {1}, 64, alloc(64)));
  }
}

TEST_P(CopyTest, NewMbarriersNeedAFence) {
  std::string body = bulkLoad(16);
  body.replace(body.find("fence.mbarrier_init.release.cluster;"), 36, "");
  CUfunction kernel =
      load(sharedSource(body, ".param .u64 out, .param .u64 in"));
  CUdeviceptr out = alloc(64);
  EXPECT_TRUE(contains(
      failure(CUDA_ERROR_LAUNCH_FAILED, kernel, {1}, {1}, 2048, out, out),
      "fence.mbarrier_init"));
  start({{"SEED", std::to_string(GetParam())}, {"BARRIERS", "allow"}});
  kernel = load(sharedSource(body + waitFor("smem", "0"),
                             ".param .u64 out, .param .u64 in"));
  EXPECT_OK(run(kernel, {1}, {1}, 2048, put(Words(16)), put(Words(16))));
}

TEST_P(CopyTest, MbarriersAreInitialisedBeforeUse) {
  // Warp 1 waits and warp 2 copies, with and without a preceding barrier.
  std::string body = R"(
    ld.param.u64 %rd0, [out];
    mov.u32 %r0, %tid.x;
    setp.ne.u32 %p0, %r0, 0;
    @%p0 bra $initialised;
    mbarrier.init.shared.b64 [smem], 1;
    fence.mbarrier_init.release.cluster;
  $initialised:
    BARRIER
    setp.ne.u32 %p1, %r0, 64;
    @%p1 bra $issued;
    mbarrier.arrive.expect_tx.shared.b64 _, [smem], 16;
    cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes
      [smem+1024], [%rd0], 16, [smem];
  $issued:
    )" + waitFor("smem", "0");
  std::string ordered = body, racing = body;
  ordered.replace(body.find("BARRIER"), 7, "bar.sync 0;");
  racing.replace(body.find("BARRIER"), 7, "");
  EXPECT_OK(run(load(sharedSource(ordered)), {1}, {96}, 2048, alloc(64)));
  EXPECT_NE(run(load(sharedSource(racing)), {1}, {96}, 2048, alloc(64)),
            CUDA_SUCCESS);
  EXPECT_TRUE(contains(message(), "mbarrier object"));
}

TEST_P(CopyTest, BlocksWaitForTheirCopies) {
  CUfunction kernel =
      load(sharedSource(bulkLoad(16), ".param .u64 out, .param .u64 in"));
  CUdeviceptr out = alloc(64);
  void *parameters[] = {&out, &out};
  ASSERT_OK(cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 2048, nullptr, parameters,
                           nullptr));
  EXPECT_EQ(cuCtxSynchronize(), CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_TRUE(contains(message(), late() ? "its block ends while a bulk copy"
                                         : "its block ends"));
}

//===----------------------------------------------------------------------===//
// Tensor maps
//===----------------------------------------------------------------------===//

struct MapTest : CopyTest {
  /// Encodes a tensor map of 16-bit elements.
  CUresult encode(CUdeviceptr address, std::vector<uint64_t> sizes,
                  std::vector<uint64_t> strides, std::vector<uint32_t> box,
                  CUtensorMapSwizzle swizzle) {
    std::vector<uint32_t> ones(sizes.size(), 1);
    return cuTensorMapEncodeTiled(
        &map, CU_TENSOR_MAP_DATA_TYPE_UINT16,
        static_cast<uint32_t>(sizes.size()), reinterpret_cast<void *>(address),
        sizes.data(), strides.data(), box.data(), ones.data(),
        CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, CU_TENSOR_MAP_L2_PROMOTION_NONE,
        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  }

  /// Loads a box and returns the 16-bit elements in shared memory.
  std::vector<uint16_t> loaded(int rank, uint32_t bytes, int32_t x, int32_t y,
                               int32_t z = 0) {
    std::string n = std::to_string(bytes), d = std::to_string(rank);
    std::string at = rank == 2 ? "{%r0, %r1}" : "{%r0, %r1, %r2}";
    CUfunction kernel = load(sharedSource(
        R"(
    ld.param.u64 %rd0, [out];
    ld.param.v2.u32 {%r0, %r1}, [x];
    ld.param.u32 %r2, [x+8];
    mov.b64 %rd1, map;
    cvta.param.u64 %rd2, %rd1;
    mbarrier.init.shared.b64 [smem+16384], 1;
    fence.mbarrier_init.release.cluster;
    mbarrier.arrive.expect_tx.shared.b64 _, [smem+16384], )" +
            n + R"(;
    cp.async.bulk.tensor.)" +
            d + R"(d.shared::cluster.global.tile.mbarrier::complete_tx::bytes
      [smem], [%rd2, )" +
            at + R"(], [smem+16384];
    )" + waitFor("smem+16384", "0") +
            R"(
    mov.u32 %r3, smem;
    mov.u32 %r4, 0;
  $copy:
    ld.shared.v2.u64 {%rd3, %rd4}, [%r3];
    st.global.v2.u64 [%rd0], {%rd3, %rd4};
    add.s32 %r3, %r3, 16;
    add.s64 %rd0, %rd0, 16;
    add.s32 %r4, %r4, 16;
    setp.lt.u32 %p0, %r4, )" +
            n + ";\n@%p0 bra $copy;\n",
        ".param .u64 out, .param .align 16 .b8 x[12], "
        ".param .align 64 .b8 map[128]"));
    CUdeviceptr out = alloc(bytes);
    struct alignas(16) {
      int32_t at[3];
    } coordinates = {{x, y, z}};
    EXPECT_OK(run(kernel, {1}, {1}, 20480, out, coordinates, map));
    return get<uint16_t>(out, bytes / 2);
  }

  CUtensorMap map;
};
INSTANTIATE_TEST_SUITE_P(Seeds, MapTest, MOE_SEEDS);

/// Element (x, y) of a tensor is 1000 y + x.
std::vector<uint16_t> numbered(uint32_t width, uint32_t height) {
  std::vector<uint16_t> data(width * height);
  for (uint32_t i = 0; i < data.size(); ++i)
    data[i] = static_cast<uint16_t>(1000 * (i / width) + i % width);
  return data;
}

TEST_P(MapTest, BoxesOutsideOfTheTensorAreZero) {
  // A tensor of 40 x 6 with boxes of 16 x 4 that cross its bounds.
  CUdeviceptr data = put(numbered(40, 6));
  ASSERT_OK(encode(data, {40, 6}, {80}, {16, 4}, CU_TENSOR_MAP_SWIZZLE_NONE));
  for (auto [x0, y0] : {std::pair(8, 1), {32, 4}, {-5, -2}, {100, 0}}) {
    std::vector<uint16_t> box = loaded(2, 128, x0, y0);
    for (int y = 0; y < 4; ++y)
      for (int x = 0; x < 16; ++x) {
        int gx = x0 + x, gy = y0 + y;
        bool inside = gx >= 0 && gx < 40 && gy >= 0 && gy < 6;
        EXPECT_EQ(box[static_cast<size_t>(16 * y + x)],
                  inside ? 1000 * gy + gx : 0)
            << x << " " << y;
      }
  }
}

TEST_P(MapTest, Swizzles) {
  // By the PTX ISA, the 128-byte swizzle moves the 16-byte chunk c of row r to
  // c ^ (r % 8), the 64-byte swizzle to c ^ (r / 2 % 4), the 32-byte swizzle to
  // c ^ (r / 4 % 2).
  for (uint32_t span : {32u, 64u, 128u}) {
    uint32_t width = span / 2, rows = 32, chunks = span / 16;
    std::vector<uint16_t> data = numbered(width, rows);
    CUtensorMapSwizzle swizzle = span == 32   ? CU_TENSOR_MAP_SWIZZLE_32B
                                 : span == 64 ? CU_TENSOR_MAP_SWIZZLE_64B
                                              : CU_TENSOR_MAP_SWIZZLE_128B;
    ASSERT_OK(encode(put(data), {width, rows}, {span}, {width, rows}, swizzle));
    std::vector<uint16_t> box = loaded(2, span * rows, 0, 0);
    for (uint32_t r = 0; r < rows; ++r)
      for (uint32_t c = 0; c < chunks; ++c) {
        uint32_t at = c ^ (r * span / 128 % chunks);
        EXPECT_EQ(box[r * width + at * 8], 1000 * r + c * 8)
            << span << " " << r;
        EXPECT_EQ(box[r * width + at * 8 + 7], 1000 * r + c * 8 + 7);
      }
  }
}

TEST_P(MapTest, ThirdDimensionAndStrides) {
  // Planes of 4 rows with padded strides.
  std::vector<uint16_t> data(64 * 16);
  for (uint32_t i = 0; i < data.size(); ++i)
    data[i] = static_cast<uint16_t>(i);
  ASSERT_OK(encode(put(data), {8, 4, 3}, {64, 512}, {8, 2, 2},
                   CU_TENSOR_MAP_SWIZZLE_NONE));
  std::vector<uint16_t> box = loaded(3, 64, 0, 1, 1);
  for (uint32_t z = 0; z < 2; ++z)
    for (uint32_t y = 0; y < 2; ++y)
      for (uint32_t x = 0; x < 8; ++x)
        EXPECT_EQ(box[16 * z + 8 * y + x], 256 * (z + 1) + 32 * (y + 1) + x);
}

TEST_P(MapTest, StoresLeaveOutWhatIsOutside) {
  CUdeviceptr data = put(std::vector<uint16_t>(40 * 6, 7));
  ASSERT_OK(encode(data, {40, 6}, {80}, {64, 4}, CU_TENSOR_MAP_SWIZZLE_128B));
  CUfunction kernel = load(sharedSource(R"(
    mov.b64 %rd1, map;
    cvta.param.u64 %rd2, %rd1;
    mov.u32 %r0, %tid.x;
    shl.b32 %r1, %r0, 4;
    mov.u32 %r2, smem;
    add.s32 %r1, %r1, %r2;
    mov.u32 %r3, 0x00010001;
    mul.lo.s32 %r3, %r3, %r0;
    st.shared.v4.u32 [%r1], {%r3, %r3, %r3, %r3};
    fence.proxy.async.shared::cta;
    bar.sync 0;
    setp.ne.u32 %p0, %r0, 0;
    @%p0 bra $end;
    mov.u32 %r4, 0;
    mov.u32 %r5, 3;
    cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group
      [%rd2, {%r4, %r5}], [smem];
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group.read 0;
  $end:)",
                                        ".param .align 64 .b8 map[128]"));
  EXPECT_OK(run(kernel, {1}, {32}, 1024, map));
  std::vector<uint16_t> result = get<uint16_t>(data, 40 * 6);
  for (uint32_t y = 0; y < 6; ++y)
    for (uint32_t x = 0; x < 40; ++x) {
      // Thread t wrote chunk t of the swizzled box.
      uint32_t row = y - 3, expected = 8 * row + ((x / 8) ^ row);
      EXPECT_EQ(result[40 * y + x], y < 3 ? 7u : expected) << x << " " << y;
    }
}

TEST_P(MapTest, RulesOfTheDriver) {
  CUdeviceptr data = alloc(1 << 16);
  auto none = CU_TENSOR_MAP_SWIZZLE_NONE;
  EXPECT_OK(encode(data, {64, 8}, {128}, {64, 8}, CU_TENSOR_MAP_SWIZZLE_128B));
  auto refused = [&](CUresult result, const char *words) {
    EXPECT_EQ(result, CUDA_ERROR_INVALID_VALUE);
    EXPECT_TRUE(contains(message(), words));
  };
  refused(encode(data + 8, {64, 8}, {128}, {64, 8}, none), "multiple of 16");
  refused(encode(data, {64, 8}, {136}, {64, 8}, none), "stride");
  refused(encode(data, {64, 8}, {112}, {64, 8}, none), "bytes of a row");
  refused(encode(data, {64, 8, 2}, {128, 64}, {64, 8, 1}, none),
          "bytes of a row");
  EXPECT_OK(encode(data, {64, 8, 1}, {128, 64}, {64, 8, 1}, none));
  EXPECT_OK(encode(data, {64, 2, 8}, {1024, 128}, {64, 2, 8}, none));
  refused(encode(data, {64, 8}, {128}, {64, 257}, none), "257 elements");
  refused(encode(data, {64, 8}, {128}, {60, 8}, none), "no multiple of 16");
  refused(encode(data, {64, 8}, {128}, {72, 8}, CU_TENSOR_MAP_SWIZZLE_128B),
          "more than the swizzle's 128");
  refused(encode(data, {64, 0}, {128}, {64, 8}, none), "has 0 elements");
  start({{"ARCH", "8.0"}});
  EXPECT_EQ(encode(alloc(64), {64, 8}, {128}, {64, 8}, none),
            CUDA_ERROR_NOT_SUPPORTED);
}

TEST_P(MapTest, MapsThatReachBeyondTheirMemory) {
  CUdeviceptr data = alloc(1024);
  ASSERT_OK(
      encode(data, {64, 16}, {128}, {64, 16}, CU_TENSOR_MAP_SWIZZLE_NONE));
  CUfunction kernel = load(sharedSource(R"(
    mov.b64 %rd1, map;
    mbarrier.init.shared.b64 [smem+4096], 1;
    fence.mbarrier_init.release.cluster;
    mbarrier.arrive.expect_tx.shared.b64 _, [smem+4096], 2048;
    cvta.param.u64 %rd2, %rd1;
    mov.u32 %r0, 0;
    cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes
      [smem], [%rd2, {%r0, %r0}], [smem+4096];
    )" + waitFor("smem+4096", "0"),
                                        ".param .align 64 .b8 map[128]"));
  EXPECT_TRUE(
      contains(failure(CUDA_ERROR_ILLEGAL_ADDRESS, kernel, {1}, {1}, 8192, map),
               "the tensor map reaches"));
}

} // namespace
