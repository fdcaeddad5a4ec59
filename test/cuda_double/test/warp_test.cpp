//===- warp_test.cpp - Warps and barriers ---------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "testing.h"

using namespace moe::gpu::test;

namespace {

using Words = std::vector<uint32_t>;

class WarpTest : public SeededGpu {
protected:
  /// Runs a body with the thread index in %r30; returns %r31 of each thread.
  Words perThread(const std::string &body, unsigned threads = 32) {
    return outputOf<uint32_t>(source(body), threads, threads);
  }
  static Source source(const std::string &body) {
    return Source{"mov.u32 %r30, %tid.x;\n" + body + R"(
      ld.param.u64 %rd0, [out];
      mul.wide.u32 %rd1, %r30, 4;
      add.s64 %rd0, %rd0, %rd1;
      st.global.u32 [%rd0], %r31;)"};
  }
  std::string failing(const std::string &body, unsigned threads = 32,
                      CUresult code = CUDA_ERROR_LAUNCH_FAILED) {
    CUfunction kernel = load(source(body));
    return failure(code, kernel, {1}, {threads}, 0, alloc(threads * 4));
  }
};
INSTANTIATE_TEST_SUITE_P(Seeds, WarpTest, MOE_SEEDS);

TEST_P(WarpTest, Shuffles) {
  Words down = perThread("shfl.sync.down.b32 %r31, %r30, 3, 31, -1;");
  Words up = perThread("shfl.sync.up.b32 %r31, %r30, 1, 0, -1;");
  Words butterfly = perThread("shfl.sync.bfly.b32 %r31, %r30, 5, 31, -1;");
  // Segments of 8 lanes: c is 0x1800 + 7.
  Words segment = perThread("shfl.sync.idx.b32 %r31, %r30, 2, 0x1807, -1;");
  Words inside = perThread("shfl.sync.down.b32 %r0|%p0, %r30, 1, 0x1807, -1;\n"
                           "selp.u32 %r31, %r0, 99, %p0;");
  for (uint32_t i = 0; i < 32; ++i) {
    EXPECT_EQ(down[i], i + 3 < 32 ? i + 3 : i);
    EXPECT_EQ(up[i], i > 0 ? i - 1 : 0);
    EXPECT_EQ(butterfly[i], i ^ 5);
    EXPECT_EQ(segment[i], i / 8 * 8 + 2);
    EXPECT_EQ(inside[i], i % 8 == 7 ? 99 : i + 1);
  }
}

TEST_P(WarpTest, Votes) {
  std::string compare = "setp.lt.u32 %p0, %r30, 5;\n";
  EXPECT_EQ(perThread(compare + "vote.sync.ballot.b32 %r31, %p0, -1;"),
            Words(32, 0x1F));
  EXPECT_EQ(perThread(compare + "vote.sync.any.pred %p1, %p0, -1;\n"
                                "selp.u32 %r31, 1, 0, %p1;"),
            Words(32, 1));
  EXPECT_EQ(perThread(compare + "vote.sync.all.pred %p1, !%p0, -1;\n"
                                "selp.u32 %r31, 1, 0, %p1;"),
            Words(32, 0));
}

TEST_P(WarpTest, ReductionsAndMatches) {
  EXPECT_EQ(perThread("redux.sync.add.u32 %r31, %r30, -1;"), Words(32, 496));
  EXPECT_EQ(perThread("sub.s32 %r0, %r30, 16;\n"
                      "redux.sync.min.s32 %r31, %r0, -1;"),
            Words(32, uint32_t(-16)));
  Words groups = perThread("and.b32 %r0, %r30, 3;\n"
                           "match.any.sync.b32 %r31, %r0, -1;");
  for (uint32_t i = 0; i < 32; ++i)
    EXPECT_EQ(groups[i], 0x11111111u << (i % 4));
}

TEST_P(WarpTest, ElectsOneLeader) {
  Words chosen = perThread("elect.sync %r0|%p0, -1;\n"
                           "selp.u32 %r31, %r0, 100, %p0;");
  // The lowest lane, as on hardware.
  for (uint32_t i = 0; i < 32; ++i)
    EXPECT_EQ(chosen[i], i == 0 ? 0u : 100u);
}

TEST_P(WarpTest, DivergedHalvesMeetOnTheirOwn) {
  // The halves of the warp diverge and reduce separately.
  Words sums = perThread(R"(
    setp.lt.u32 %p0, %r30, 16;
    @!%p0 bra $upper;
    redux.sync.add.u32 %r31, %r30, 0xFFFF;
    bra.uni $end;
  $upper:
    redux.sync.add.u32 %r31, %r30, 0xFFFF0000;
  $end:
    bar.warp.sync -1;)");
  EXPECT_EQ(sums[0], 120u);
  EXPECT_EQ(sums[31], 376u);
}

TEST_P(WarpTest, CollectivesAtDifferentPlaces) {
  std::string message = failing(R"(
    setp.lt.u32 %p0, %r30, 16;
    @!%p0 bra $upper;
    shfl.sync.idx.b32 %r31, %r30, 0, 31, -1;
    bra.uni $end;
  $upper:
    shfl.sync.idx.b32 %r31, %r30, 1, 31, -1;
  $end:)");
  EXPECT_NE(message.find("wait for lane"), std::string::npos) << message;
}

TEST_P(WarpTest, ThreadsThatExitAreMissed) {
  EXPECT_NE(failing(R"(
    setp.eq.u32 %p0, %r30, 7;
    @%p0 exit;
    redux.sync.add.u32 %r31, %r30, -1;)")
                .find("exit"),
            std::string::npos);
}

TEST_P(WarpTest, ThreadsOutsideOfTheirMask) {
  EXPECT_NE(failing("redux.sync.add.u32 %r31, %r30, 0xFF;").find("member mask"),
            std::string::npos);
}

//===----------------------------------------------------------------------===//
// Barriers
//===----------------------------------------------------------------------===//

TEST_P(WarpTest, NamedBarriersOfSomeWarps) {
  // Warps 0 and 1 synchronize at barrier 1, warps 2 and 3 at barrier 2, where
  // warp 2 only arrives.
  Source source{R"(
    .shared .align 4 .b32 cell[2];
    mov.u32 %r0, %tid.x;
    shr.u32 %r1, %r0, 5;
    setp.eq.u32 %p0, %r1, 0;
    setp.eq.u32 %p1, %r1, 1;
    setp.eq.u32 %p2, %r1, 2;
    ld.param.u64 %rd0, [out];
    and.b32 %r2, %r0, 31;
    setp.ne.u32 %p3, %r2, 0;
    @%p1 bra $one;
    @%p2 bra $two;
    @!%p0 bra $three;
    @!%p3 st.shared.u32 [cell], 11;
    bar.sync 1, 64;
    bra.uni $end;
  $one:
    bar.sync 1, 64;
    ld.shared.u32 %r3, [cell];
    @!%p3 st.global.u32 [%rd0], %r3;
    bra.uni $end;
  $two:
    @!%p3 st.shared.u32 [cell+4], 22;
    bar.arrive 2, 64;
    bra.uni $end;
  $three:
    barrier.cta.sync.aligned 2, 64;
    ld.shared.u32 %r3, [cell+4];
    @!%p3 st.global.u32 [%rd0+4], %r3;
  $end:)"};
  EXPECT_EQ(outputOf<uint32_t>(source, 128, 2), (Words{11, 22}));
}

TEST_P(WarpTest, BarriersReduce) {
  EXPECT_EQ(perThread("setp.lt.u32 %p0, %r30, 40;\n"
                      "barrier.cta.red.popc.aligned.u32 %r31, 0, %p0;",
                      64),
            Words(64, 40));
  EXPECT_EQ(perThread("setp.lt.u32 %p0, %r30, 40;\n"
                      "bar.red.and.pred %p1, 0, %p0;\n"
                      "selp.u32 %r31, 1, 0, %p1;",
                      64),
            Words(64, 0));
}

TEST_P(WarpTest, BarriersDoNotWaitForExitedThreads) {
  CUfunction kernel = load(source(R"(
    setp.ge.u32 %p0, %r30, 40;
    @%p0 exit;
    bar.sync 0;
    mov.u32 %r31, 1;)"));
  EXPECT_OK(run(kernel, {1}, {96}, 0, alloc(96 * 4)));
}

TEST_P(WarpTest, MissingWarpsAreADeadlock) {
  std::string message = failing(R"(
    setp.ge.u32 %p0, %r30, 32;
    @%p0 bra $end;
    bar.sync 3, 96;
  $end:
    mov.u32 %r31, 1;)",
                                64, CUDA_ERROR_LAUNCH_TIMEOUT);
  EXPECT_NE(message.find("deadlock"), std::string::npos);
  EXPECT_NE(message.find("warp 0, lanes 0xffffffff waits at a barrier"),
            std::string::npos)
      << message;
}

TEST_P(WarpTest, DivergedThreadsAtAnAlignedBarrier) {
  EXPECT_NE(failing(R"(
    setp.lt.u32 %p0, %r30, 16;
    @%p0 bra $lower;
    bar.sync 0;
    bra.uni $end;
  $lower:
    bar.sync 0;
  $end:
    mov.u32 %r31, 1;)")
                .find("aligned barrier"),
            std::string::npos);
}

TEST_P(WarpTest, CountsOfBarriersAreWholeWarps) {
  EXPECT_NE(failing("bar.sync 1, 40;\nmov.u32 %r31, 1;", 64)
                .find("no multiple of the warp size"),
            std::string::npos);
}

//===----------------------------------------------------------------------===//
// Registers
//===----------------------------------------------------------------------===//

/// A producer warpgroup releases registers to two consumer warpgroups.
Source registers(const char *producer, const char *consumer) {
  Source source{std::string(R"(
    mov.u32 %r0, %tid.x;
    setp.lt.u32 %p0, %r0, 128;
    @!%p0 bra $consumer;
    setmaxnreg.dec.sync.aligned.u32 )") +
                producer +
                ";\n bra.uni $end;\n$consumer:\n"
                "setmaxnreg.inc.sync.aligned.u32 " +
                consumer + ";\n$end:"};
  source.directives = ".maxntid 384, 1, 1 .minnctapersm 1";
  return source;
}

TEST_P(WarpTest, RegistersMoveBetweenWarpgroups) {
  // 168 registers for each of 384 threads: the producer frees 168 - 40 for each
  // of its threads, and the consumers take 2 * (232 - 168).
  EXPECT_OK(run(load(registers("40", "232")), {1}, {384}, 0, CUdeviceptr(0)));
  std::string message =
      failure(CUDA_ERROR_LAUNCH_TIMEOUT, load(registers("56", "232")), {1},
              {384}, 0, CUdeviceptr(0));
  EXPECT_NE(message.find("waits for registers"), std::string::npos) << message;
}

} // namespace
