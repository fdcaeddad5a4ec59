//===- cluster_test.cpp - Thread block clusters ---------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "testing.h"

using namespace moe::gpu::test;

namespace {

using Words = std::vector<uint32_t>;

/// A kernel whose blocks have one thread, in clusters of `size` blocks.
Source clusterSource(const std::string &body, int size,
                     const std::string &parameters = ".param .u64 out") {
  Source source{body, parameters};
  source.globals = ".extern .shared .align 1024 .b8 smem[];\n";
  source.directives = ".reqnctapercluster " + std::to_string(size) + ", 1, 1 ";
  return source;
}

const std::string clusterBarrier = "barrier.cluster.arrive.release;\n"
                                   "barrier.cluster.wait.acquire;\n";

class ClusterTest : public SeededGpu {};
INSTANTIATE_TEST_SUITE_P(Seeds, ClusterTest, MOE_SEEDS);

TEST_P(ClusterTest, SpecialRegisters) {
  CUfunction kernel = load(clusterSource(R"(
    ld.param.u64 %rd0, [out];
    mov.u32 %r0, %ctaid.x;
    mov.u32 %r1, %clusterid.x;
    mov.u32 %r2, %cluster_ctarank;
    mov.u32 %r3, %cluster_nctarank;
    mov.u32 %r4, %nclusterid.x;
    mul.wide.u32 %rd1, %r0, 16;
    add.s64 %rd0, %rd0, %rd1;
    st.global.v4.u32 [%rd0], {%r1, %r2, %r3, %r4};)",
                                         4));
  CUdeviceptr out = alloc(8 * 16);
  EXPECT_OK(run(kernel, {8}, {1}, 0, out));
  Words values = get<uint32_t>(out, 32);
  for (uint32_t i = 0; i < 8; ++i)
    EXPECT_EQ(Words(&values[4 * i], &values[4 * i] + 4),
              (Words{i / 4, i % 4, 4, 2}));
}

TEST_P(ClusterTest, SharedMemoryOfTheOthers) {
  // Each block reads distributed shared memory of its neighbour and adds to it.
  std::string body = R"(
    ld.param.u64 %rd0, [out];
    mov.u32 %r0, %cluster_ctarank;
    mov.u32 %r1, smem;
    mad.lo.s32 %r2, %r0, 10, 5;
    st.shared.u32 [smem], %r2;
    mov.u32 %r3, 1000;
    st.shared.u32 [smem+4], %r3;
    )" + clusterBarrier +
                     R"(
    add.s32 %r4, %r0, 1;
    and.b32 %r4, %r4, 3;
    mapa.shared::cluster.u32 %r5, %r1, %r4;
    ld.shared::cluster.u32 %r6, [%r5];
    atom.shared::cluster.add.u32 %r7, [%r5+4], %r0;
    )" + clusterBarrier +
                     R"(
    ld.shared.u32 %r8, [smem+4];
    mul.wide.u32 %rd1, %r0, 8;
    add.s64 %rd0, %rd0, %rd1;
    st.global.v2.u32 [%rd0], {%r6, %r8};)";
  CUfunction kernel = load(clusterSource(body, 4));
  CUdeviceptr out = alloc(32);
  EXPECT_OK(run(kernel, {4}, {1}, 64, out));
  EXPECT_EQ(get<uint32_t>(out, 8),
            (Words{15, 1003, 25, 1000, 35, 1001, 5, 1002}));
}

TEST_P(ClusterTest, OtherBlocksAreNotInSharedCta) {
  CUfunction kernel = load(clusterSource(R"(
    mov.u32 %r0, %cluster_ctarank;
    mov.u32 %r1, smem;
    st.shared.u32 [smem], 1;
    )" + clusterBarrier + R"(
    xor.b32 %r0, %r0, 1;
    mapa.shared::cluster.u32 %r2, %r1, %r0;
    ld.shared.u32 %r3, [%r2];
    )" + clusterBarrier,
                                         2));
  EXPECT_NE(failure(CUDA_ERROR_INVALID_ADDRESS_SPACE, kernel, {2}, {1}, 64,
                    CUdeviceptr(0))
                .find("another block of the cluster"),
            std::string::npos);
}

TEST_P(ClusterTest, BlocksOutsideOfTheCluster) {
  // The upper bits of a .shared::cluster address are the CTA's rank.
  CUfunction kernel = load(clusterSource(R"(
    mov.u32 %r1, smem;
    add.s32 %r1, %r1, 0x5000000;
    ld.shared::cluster.u32 %r2, [%r1];)",
                                         2));
  EXPECT_NE(
      failure(CUDA_ERROR_ILLEGAL_ADDRESS, kernel, {2}, {1}, 64, CUdeviceptr(0))
          .find("of a cluster of 2"),
      std::string::npos);
}

TEST_P(ClusterTest, BlocksMustOutliveTheirReaders) {
  // Without a cluster barrier at the end, the other block may have exited.
  std::string body = R"(
    mov.u32 %r0, %cluster_ctarank;
    mov.u32 %r1, smem;
    st.shared.u32 [smem], 1;
    )" + clusterBarrier +
                     R"(
    setp.eq.u32 %p0, %r0, 0;
    @%p0 bra $end;
    nanosleep.u32 100;
    nanosleep.u32 100;
    mov.u32 %r2, 0;
    mapa.shared::cluster.u32 %r3, %r1, %r2;
    ld.shared::cluster.u32 %r4, [%r3];
  $end:
)";
  CUdeviceptr none = 0;
  EXPECT_OK(
      run(load(clusterSource(body + clusterBarrier, 2)), {2}, {1}, 64, none));
  std::string said = failure(CUDA_ERROR_LAUNCH_FAILED,
                             load(clusterSource(body, 2)), {2}, {1}, 64, none);
  EXPECT_TRUE(said.find("which has ended") != std::string::npos ||
              said.find("nothing orders that behind an access of warp 0 of "
                        "block 1") != std::string::npos)
      << said;
}

TEST_P(ClusterTest, MulticastAndRemoteArrivals) {
  // Block 0 multicasts a vector to both blocks, which arrive after reading it.
  std::string body = R"(
    ld.param.u64 %rd0, [out];
    ld.param.u64 %rd1, [in];
    mov.u32 %r0, %cluster_ctarank;
    mov.u32 %r1, smem;
    mbarrier.init.shared.b64 [smem+1024], 1;
    mbarrier.init.shared.b64 [smem+1032], 2;
    fence.mbarrier_init.release.cluster;
    barrier.cluster.arrive.relaxed.aligned;
    barrier.cluster.wait.aligned;
    mbarrier.arrive.expect_tx.shared.b64 _, [smem+1024], 32;
    setp.ne.u32 %p0, %r0, 0;
    mov.u16 %h0, 3;
    @!%p0 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster
      [smem], [%rd1], 32, [smem+1024], %h0;
  $full:
    mbarrier.try_wait.parity.shared.b64 %p1, [smem+1024], 0;
    @!%p1 bra $full;
    ld.shared.u32 %r2, [smem+28];
    mul.wide.u32 %rd2, %r0, 4;
    add.s64 %rd3, %rd0, %rd2;
    st.global.u32 [%rd3], %r2;
    mov.u32 %r3, 0;
    mapa.shared::cluster.u32 %r4, %r1, %r3;
    mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r4+1032];
    @%p0 bra $end;
  $empty:
    mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %p2, [smem+1032], 0;
    @!%p2 bra $empty;
    st.global.u32 [%rd0+8], 77;
  $end:
    )" + clusterBarrier;
  CUfunction kernel =
      load(clusterSource(body, 2, ".param .u64 out, .param .u64 in"));
  CUdeviceptr out = alloc(12);
  EXPECT_OK(
      run(kernel, {2}, {1}, 2048, out, put(Words{1, 2, 3, 4, 5, 6, 7, 8})));
  EXPECT_EQ(get<uint32_t>(out, 3), (Words{8, 8, 77}));
}

TEST_P(ClusterTest, ArrivalsNeedWaits) {
  CUdeviceptr none = 0;
  EXPECT_NE(failure(CUDA_ERROR_LAUNCH_FAILED,
                    load(clusterSource("barrier.cluster.wait;", 2)), {2}, {1},
                    0, none)
                .find("without an arrival"),
            std::string::npos);
}

TEST_P(ClusterTest, SizesOfClusters) {
  CUfunction kernel = load(Source{"mov.u32 %r0, %cluster_nctarank;"});
  CUdeviceptr out = 0;
  void *parameters[] = {&out};
  auto launch = [&](unsigned grid, unsigned size) {
    CUlaunchAttribute attribute = {};
    attribute.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    attribute.value.clusterDim = {size, 1, 1};
    CUlaunchConfig config = {grid, 1, 1, 1, 1, 1, 0, nullptr, &attribute, 1};
    return cuLaunchKernelEx(&config, kernel, parameters, nullptr);
  };
  EXPECT_OK(launch(8, 8));
  EXPECT_EQ(launch(6, 4), CUDA_ERROR_INVALID_CLUSTER_SIZE);
  EXPECT_EQ(launch(16, 16), CUDA_ERROR_INVALID_CLUSTER_SIZE);
  EXPECT_OK(cuFuncSetAttribute(
      kernel, CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1));
  EXPECT_OK(launch(16, 16));
  EXPECT_OK(cuCtxSynchronize());
  // A launch attribute cannot change the size that .reqnctapercluster sets.
  kernel = load(clusterSource("", 2));
  EXPECT_EQ(launch(4, 4), CUDA_ERROR_INVALID_CLUSTER_SIZE);
  EXPECT_EQ(
      cuLaunchKernel(kernel, 3, 1, 1, 1, 1, 1, 0, nullptr, parameters, nullptr),
      CUDA_ERROR_INVALID_CLUSTER_SIZE);
}

} // namespace
