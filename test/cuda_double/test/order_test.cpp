//===- order_test.cpp - Order between blocks in global memory -------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "testing.h"

using namespace moe::gpu::test;

namespace {

using Words = std::vector<uint32_t>;

class OrderTest : public SeededGpu {
protected:
  /// Runs two blocks of two warps; `out` has 16 words of zero: data, and a flag
  /// at byte 32.
  CUresult blocks(const std::string &body) {
    SetUp();
    Source source{"ld.param.u64 %rd0, [out];\n"
                  "mov.u32 %r0, %ctaid.x;\n"
                  "mov.u32 %r1, %tid.x;\n"
                  "setp.eq.u32 %p0, %r0, 0;\n"
                  "setp.eq.u32 %p1, %r1, 0;\n"
                  "setp.eq.u32 %p2, %r1, 32;\n" +
                  body};
    source.globals = ".extern .shared .align 128 .b8 smem[];\n";
    CUfunction kernel = load(source);
    CUdeviceptr out = put(Words(16));
    void *parameters[] = {&out};
    CUresult result = cuLaunchCooperativeKernel(kernel, 2, 1, 1, 64, 1, 1, 1024,
                                                nullptr, parameters);
    return result == CUDA_SUCCESS ? cuCtxSynchronize() : result;
  }
  ::testing::AssertionResult races(const std::string &body,
                                   const std::string &words = "data race") {
    if (blocks(body) == CUDA_ERROR_LAUNCH_FAILED &&
        message().find(words) != std::string::npos)
      return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure() << message();
  }
};
INSTANTIATE_TEST_SUITE_P(Seeds, OrderTest, MOE_SEEDS);

/// Block 0 writes data, then a flag that the first thread of block 1 waits for.
std::string handOver(const std::string &release, const std::string &set,
                     const std::string &get, const std::string &acquire) {
  return R"(
    @!%p0 bra $reader;
    @!%p1 bra $end;
    st.global.u32 [%rd0], 42;
    )" + release +
         "\n" + set + ".global.u32 [%rd0+32], 1;\nbra $end;\n" + R"(
  $reader:
    @!%p1 bra $end;
  $again:
    )" + get +
         ".global.u32 %r2, [%rd0+32];\nsetp.eq.u32 %p3, %r2, 1;\n"
         "@!%p3 bra $again;\n" +
         acquire + "\nld.global.u32 %r3, [%rd0];\n$end:\n";
}

TEST_P(OrderTest, Flags) {
  const std::string fence = "fence.acq_rel.gpu;";
  EXPECT_OK(blocks(handOver("", "st.release.gpu", "ld.acquire.gpu", "")));
  EXPECT_OK(blocks(handOver(fence, "st.relaxed.gpu", "ld.relaxed.gpu", fence)));
  EXPECT_OK(blocks(
      handOver("membar.gl;", "st.volatile", "ld.volatile", "fence.sc.sys;")));
  EXPECT_TRUE(races(handOver("", "st.relaxed.gpu", "ld.acquire.gpu", "")));
  EXPECT_TRUE(races(handOver("", "st.release.gpu", "ld.relaxed.gpu", "")));
  EXPECT_TRUE(races(handOver("", "st.volatile", "ld.volatile", fence)));
  EXPECT_TRUE(races(handOver(fence, "st.volatile", "ld.volatile", "")));
  // The flag is a race itself.
  EXPECT_TRUE(races(handOver(fence, "st", "ld.acquire.gpu", "")));
}

TEST_P(OrderTest, ScopesOfFences) {
  EXPECT_TRUE(races(
      handOver("fence.acq_rel.cta;", "st.relaxed.gpu", "ld.acquire.gpu", "")));
  EXPECT_TRUE(races(handOver("", "st.release.cluster", "ld.acquire.gpu", "")));
  EXPECT_TRUE(
      races(handOver("membar.cta;", "st.volatile", "ld.acquire.gpu", "")));
}

TEST_P(OrderTest, StoresBehindTheFence) {
  std::string late = handOver("fence.acq_rel.gpu;\nst.global.u32 [%rd0], 43;",
                              "st.relaxed.gpu", "ld.acquire.gpu", "");
  EXPECT_TRUE(races(late));
}

/// All threads write; the last block to arrive at a counter reads all.
std::string lastBlock(const std::string &before, const std::string &arrive,
                      const std::string &behind) {
  return R"(
    mad.lo.u32 %r2, %r0, 64, %r1;
    and.b32 %r3, %r2, 3;
    setp.lt.u32 %p4, %r1, 34;
    and.b32 %r4, %r1, 1;
    setp.eq.u32 %p5, %r4, 0;
    shr.u32 %r4, %r1, 5;
    mad.lo.u32 %r4, %r0, 2, %r4;
    mul.wide.u32 %rd1, %r4, 4;
    add.s64 %rd1, %rd0, %rd1;
    and.b32 %r5, %r1, 31;
    setp.eq.u32 %p6, %r5, 0;
    @%p6 st.global.u32 [%rd1], %r1;
    )" + before +
         R"(
    mov.u32 %r6, 0;
    @%p1 )" +
         arrive + R"(.add.u32 %r6, [%rd0+32], 1;
    )" + behind +
         R"(
    @%p1 st.shared.u32 [smem], %r6;
    bar.sync 0;
    ld.shared.u32 %r6, [smem];
    setp.ne.u32 %p7, %r6, 1;
    @%p7 bra $end;
    @!%p2 bra $end;
    ld.global.v4.u32 {%r7, %r8, %r9, %r10}, [%rd0];
  $end:
)";
}

TEST_P(OrderTest, TheLastBlockReadsAll) {
  const std::string all = "fence.acq_rel.gpu;", one = "@%p1 " + all,
                    barrier = "bar.sync 0;";
  EXPECT_OK(blocks(lastBlock(barrier, "atom.acq_rel.gpu.global", "")));
  EXPECT_OK(blocks(lastBlock(barrier + one, "atom.global", one)));
  // As in CUDA's sample: each thread's fence, a barrier, the atomic.
  EXPECT_OK(blocks(lastBlock(all + barrier, "atom.global", one)));
  EXPECT_TRUE(races(lastBlock("", "atom.acq_rel.gpu.global", "")));
  EXPECT_TRUE(races(lastBlock(barrier, "atom.global", one)));
  EXPECT_TRUE(races(lastBlock(barrier + one, "atom.global", "")));
  EXPECT_TRUE(races(lastBlock(barrier, "atom.acquire.gpu.global", "")));
  EXPECT_TRUE(races(lastBlock(barrier, "atom.release.gpu.global", "")));
}

TEST_P(OrderTest, PlainRaces) {
  EXPECT_TRUE(races("@%p1 st.global.u32 [%rd0], %r0;"));
  EXPECT_TRUE(races("and.pred %p3, %p0, %p1;\n@%p3 st.global.u32 [%rd0], 1;\n"
                    "not.pred %p3, %p0;\nand.pred %p3, %p3, %p1;\n"
                    "@%p3 ld.global.u32 %r3, [%rd0];"));
  // Of other bytes of a word, and of warps of one block.
  std::string halves = "mul.wide.u32 %rd1, %r0, 2;\nadd.s64 %rd1, %rd0, %rd1;\n"
                       "@%p1 st.global.u16 [%rd1], 1;";
  EXPECT_OK(blocks(halves));
  EXPECT_TRUE(races(with(halves, "%r0, 2", "%r0, 0")));
  std::string warps = "and.pred %p3, %p0, %p1;\n@%p3 st.global.u32 [%rd0], 1;\n"
                      "BARRIER\nand.pred %p3, %p0, %p2;\n"
                      "@%p3 ld.global.u32 %r3, [%rd0];";
  EXPECT_OK(blocks(with(warps, "BARRIER", "bar.sync 0;")));
  EXPECT_TRUE(races(with(warps, "BARRIER", ""), "warp 1 of block 0"));
  // Atomic operations do not race with each other, but with what is none.
  EXPECT_OK(blocks("@%p1 red.global.add.u32 [%rd0], 1;"));
  EXPECT_TRUE(races("@%p0 red.global.add.u32 [%rd0], 1;\n"
                    "@!%p0 ld.global.u32 %r3, [%rd0];"));
}

TEST_P(OrderTest, LaunchesAreOrdered) {
  CUfunction kernel = load(Source{"ld.param.u64 %rd0, [out];\n"
                                  "ld.global.u32 %r0, [%rd0];\n"
                                  "add.u32 %r0, %r0, 1;\n"
                                  "st.global.u32 [%rd0], %r0;"});
  CUdeviceptr out = put(Words{0});
  for (int i = 0; i < 3; ++i)
    EXPECT_OK(run(kernel, {1}, {1}, 0, out));
  EXPECT_EQ(get<uint32_t>(out, 1)[0], 3u);
}

//===----------------------------------------------------------------------===//
// Bulk copies
//===----------------------------------------------------------------------===//

/// Thread 0 of each block writes; a thread of warp 1 copies that to shared
/// memory.
std::string copied(const std::string &behind, const std::string &before) {
  return R"(
    mul.wide.u32 %rd1, %r0, 16;
    add.s64 %rd1, %rd0, %rd1;
    @%p1 mbarrier.init.shared.b64 [smem], 1;
    @%p1 fence.mbarrier_init.release.cluster;
    @%p1 st.global.v4.u32 [%rd1], {%r0, %r0, %r0, %r0};
    )" + behind +
         "\nbar.sync 0;\n" + before + R"(
    @!%p2 bra $wait;
    mbarrier.arrive.expect_tx.shared.b64 _, [smem], 16;
    cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes
      [smem+128], [%rd1], 16, [smem];
  $wait:
    mbarrier.try_wait.parity.shared.b64 %p3, [smem], 0;
    @!%p3 bra $wait;
    ld.shared.u32 %r2, [smem+128];
)";
}

TEST_P(OrderTest, CopiesOfWhatTheKernelWrote) {
  EXPECT_OK(blocks(copied("fence.proxy.async.global;", "")));
  EXPECT_OK(blocks(copied("fence.proxy.async;", "")));
  EXPECT_OK(blocks(copied("", "@%p2 fence.proxy.async;")));
  const std::string words = "through the asynchronous proxy, but warp 0";
  EXPECT_TRUE(races(copied("", ""), words));
  EXPECT_TRUE(races(copied("fence.acq_rel.gpu;", ""), words));
  EXPECT_TRUE(races(copied("fence.proxy.async.shared::cta;", ""), words));
  // Before the store it does not count.
  EXPECT_TRUE(races(with(copied("", ""), "@%p1 st.global",
                         "fence.proxy.async;\n@%p1 st.global"),
                    words));
}

TEST_P(OrderTest, FlagsBehindBulkStores) {
  std::string store = R"(
    st.shared.v4.u32 [smem], {%r0, %r0, %r0, %r0};
    fence.proxy.async.shared::cta;
    cp.async.bulk.global.shared::cta.bulk_group [%rd0], [smem], 16;
    cp.async.bulk.commit_group;
    WAIT)";
  std::string body = handOver("", "st.release.gpu", "ld.acquire.gpu", "");
  body = with(body, "st.global.u32 [%rd0], 42;", store);
  const std::string wait = "cp.async.bulk.wait_group";
  EXPECT_OK(blocks(with(body, "WAIT", wait + " 0;")));
  EXPECT_TRUE(races(with(body, "WAIT", wait + ".read 0;"), "a bulk store"));
}

TEST_P(OrderTest, CopiesUnderWay) {
  // A bulk copy reads what another warp writes before the copy has completed.
  std::string body = with(copied("fence.proxy.async;", ""),
                          "$wait:", "$wait:\n@%p1 st.global.u32 [%rd1], 5;");
  EXPECT_TRUE(races(body, "a bulk copy of warp 1"));
  body = copied("fence.proxy.async;", "") + "@%p1 st.global.u32 [%rd1], 5;";
  EXPECT_OK(blocks(body));
}

} // namespace
