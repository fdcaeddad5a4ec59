//===- memory_test.cpp - Memory accesses, atomics and calls ---------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "testing.h"

using namespace moe::gpu::test;
using ::testing::Test;

namespace {

using Words = std::vector<uint32_t>;

/// Checks that a message contains all of these words.
::testing::AssertionResult says(const std::string &message,
                                std::vector<std::string> words) {
  for (const std::string &word : words)
    if (message.find(word) == std::string::npos)
      return ::testing::AssertionFailure()
             << "no '" << word << "' in: " << message;
  return ::testing::AssertionSuccess();
}

class MemoryTest : public Gpu {};

TEST_F(MemoryTest, VectorsAndNarrowElements) {
  std::string body = R"(
    ld.param.u64 %rd0, [out];
    mov.u32 %r0, 0x80FF7F01;
    st.global.b32 [%rd0], %r0;
    ld.global.s8 %r1, [%rd0+2];
    ld.global.u8 %h1, [%rd0+3];
    ld.global.s16 %r2, [%rd0+2];
    cvt.u32.u16 %r3, %h1;
    st.global.v4.b32 [%rd0], {%r1, %r2, %r3, %r0};
    ld.global.v2.b64 {%rd1, %rd2}, [%rd0];
    st.global.v2.u64 [%rd0+16], {%rd2, %rd1};)";
  EXPECT_EQ(outputOf<uint32_t>(Source{body}, 1, 8),
            (Words{0xFFFFFFFF, 0xFFFF80FF, 0x80, 0x80FF7F01, 0x80, 0x80FF7F01,
                   0xFFFFFFFF, 0xFFFF80FF}));
}

TEST_F(MemoryTest, FreshMemoryIsNotZero) {
  EXPECT_EQ(get<uint32_t>(alloc(8), 2), (Words{0xFFFFFFFF, 0xFFFFFFFF}));
}

TEST_F(MemoryTest, HostsCannotReadDeviceAddresses) {
  CUdeviceptr address = alloc(16);
  EXPECT_EQ(address % 256, 0u);
  EXPECT_DEATH(EXPECT_EQ(*reinterpret_cast<volatile int *>(address), 0), "");
}

TEST_F(MemoryTest, AccessesOutsideOfAllocations) {
  CUdeviceptr out = alloc(64);
  CUfunction kernel = load(Source{R"(
    ld.param.u64 %rd0, [out];
    mov.u32 %r0, %tid.x;
    mul.wide.u32 %rd1, %r0, 4;
    add.s64 %rd0, %rd0, %rd1;
    st.global.u32 [%rd0], %r0;)"});
  EXPECT_OK(run(kernel, {1}, {16}, 0, out));
  EXPECT_TRUE(
      says(failure(CUDA_ERROR_ILLEGAL_ADDRESS, kernel, {1}, {17}, 0, out),
           {"kernel 'k', block (0,0,0), thread (16,0,0), line",
            "st.global.u32 [%rd0], %r0", "accesses 4 bytes of global memory",
            "0 bytes behind the allocation of 64 bytes"}));
}

TEST_F(MemoryTest, ErrorsAreSticky) {
  CUfunction kernel = load(Source{"mov.u64 %rd0, 64;\n"
                                  "ld.global.u32 %r0, [%rd0];"});
  failure(CUDA_ERROR_ILLEGAL_ADDRESS, kernel, {1}, {1}, 0, CUdeviceptr(0));
  CUdeviceptr address;
  EXPECT_EQ(cuMemAlloc_v2(&address, 16), CUDA_ERROR_ILLEGAL_ADDRESS);
  EXPECT_EQ(cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
  CUstream stream;
  EXPECT_EQ(cuStreamCreate(&stream, 0), CUDA_ERROR_ILLEGAL_ADDRESS);
  // A released primary context is created anew.
  EXPECT_OK(cuDevicePrimaryCtxRelease_v2(0));
  CUcontext context;
  EXPECT_OK(cuDevicePrimaryCtxRetain(&context, 0));
  EXPECT_OK(cuCtxSetCurrent(context));
  EXPECT_OK(cuMemAlloc_v2(&address, 16));
}

TEST_F(MemoryTest, FreedMemoryIsGone) {
  CUdeviceptr out = alloc(64);
  EXPECT_OK(cuMemFree_v2(out));
  EXPECT_EQ(cuMemFree_v2(out), CUDA_ERROR_INVALID_VALUE);
  CUfunction kernel = load(Source{"ld.param.u64 %rd0, [out];\n"
                                  "ld.global.u32 %r0, [%rd0];"});
  failure(CUDA_ERROR_ILLEGAL_ADDRESS, kernel, {1}, {1}, 0, out);
}

TEST_F(MemoryTest, MisalignedVectors) {
  CUfunction kernel = load(Source{"ld.param.u64 %rd0, [out];\n"
                                  "ld.global.v4.u32 {%r0, %r1, %r2, %r3}, "
                                  "[%rd0+8];"});
  EXPECT_TRUE(says(
      failure(CUDA_ERROR_MISALIGNED_ADDRESS, kernel, {1}, {1}, 0, alloc(64)),
      {"accesses 16 bytes", "not a multiple"}));
}

TEST_F(MemoryTest, PinnedMemoryOfTheHostIsInReach) {
  void *memory;
  ASSERT_OK(cuMemHostAlloc(&memory, 64, 0));
  CUdeviceptr address;
  ASSERT_OK(cuMemHostGetDevicePointer_v2(&address, memory, 0));
  CUfunction kernel = load(Source{"ld.param.u64 %rd0, [out];\n"
                                  "st.global.u32 [%rd0+4], 77;"});
  EXPECT_OK(run(kernel, {1}, {1}, 0, address));
  EXPECT_EQ(static_cast<uint32_t *>(memory)[1], 77u);
  EXPECT_OK(cuMemFreeHost(memory));
}

//===----------------------------------------------------------------------===//
// Shared memory
//===----------------------------------------------------------------------===//

const char *const dynamicShared = ".extern .shared .align 1024 .b8 smem[];\n";

TEST_F(MemoryTest, SharedMemoryOfABlock) {
  Source source{R"(
    ld.param.u64 %rd0, [out];
    mov.u32 %r0, %tid.x;
    mov.u32 %r1, %ctaid.x;
    shl.b32 %r2, %r0, 2;
    mov.u32 %r3, smem;
    add.s32 %r4, %r3, %r2;
    mad.lo.s32 %r5, %r1, 100, %r0;
    st.shared.u32 [%r4], %r5;
    bar.sync 0;
    xor.b32 %r6, %r2, 252;
    add.s32 %r6, %r6, %r3;
    ld.shared.u32 %r7, [%r6];
    mad.lo.s32 %r8, %r1, 64, %r0;
    mul.wide.u32 %rd1, %r8, 4;
    add.s64 %rd0, %rd0, %rd1;
    st.global.u32 [%rd0], %r7;)"};
  source.globals = dynamicShared;
  CUfunction kernel = load(source);
  CUdeviceptr out = alloc(4 * 2 * 64);
  EXPECT_OK(run(kernel, {2}, {64}, 256, out));
  Words values = get<uint32_t>(out, 128);
  for (uint32_t i = 0; i < 128; ++i)
    EXPECT_EQ(values[i], i / 64 * 100 + 63 - i % 64);
}

TEST_F(MemoryTest, UninitialisedSharedMemory) {
  Source source{"ld.shared.u32 %r0, [smem+12];"};
  source.globals = dynamicShared;
  EXPECT_TRUE(says(failure(CUDA_ERROR_LAUNCH_FAILED, load(source), {1}, {1}, 64,
                           CUdeviceptr(0)),
                   {"offset 12", "nobody wrote in this block"}));
  start({{"UNINIT", "allow"}});
  EXPECT_OK(run(load(source), {1}, {1}, 64, CUdeviceptr(0)));
}

TEST_F(MemoryTest, BlocksDoNotInheritSharedMemory) {
  Source source{R"(
    mov.u32 %r0, %ctaid.x;
    setp.eq.u32 %p0, %r0, 0;
    @%p0 st.shared.u32 [smem], %r0;
    ld.shared.u32 %r1, [smem];)"};
  source.globals = dynamicShared;
  start({{"SMS", "1"}});
  EXPECT_TRUE(says(failure(CUDA_ERROR_LAUNCH_FAILED, load(source), {2}, {1}, 64,
                           CUdeviceptr(0)),
                   {"block (1,0,0)", "nobody wrote"}));
}

TEST_F(MemoryTest, BoundsOfSharedMemory) {
  Source source{"st.shared.u32 [smem+64], 1;"};
  source.globals = dynamicShared;
  EXPECT_TRUE(says(failure(CUDA_ERROR_ILLEGAL_ADDRESS, load(source), {1}, {1},
                           64, CUdeviceptr(0)),
                   {"offset 64", "of 64 bytes of shared memory"}));
}

TEST_F(MemoryTest, LimitsOfSharedMemory) {
  Source source{"st.shared.u32 [smem], 1;"};
  source.globals = dynamicShared;
  CUfunction kernel = load(source);
  CUdeviceptr out = 0;
  void *parameters[] = {&out};
  auto launch = [&](unsigned bytes) {
    return cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, bytes, nullptr, parameters,
                          nullptr);
  };
  auto attribute = CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
  EXPECT_EQ(launch(48 << 10), CUDA_SUCCESS);
  EXPECT_EQ(launch((48 << 10) + 1), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuFuncSetAttribute(kernel, attribute, (227 << 10) + 1),
            CUDA_ERROR_INVALID_VALUE);
  EXPECT_OK(cuFuncSetAttribute(kernel, attribute, 227 << 10));
  EXPECT_OK(launch(227 << 10));
  EXPECT_OK(cuCtxSynchronize());
  start({{"ARCH", "8.0"}});
  source.target = "sm_80";
  kernel = load(source);
  EXPECT_EQ(cuFuncSetAttribute(kernel, attribute, (163 << 10) + 1),
            CUDA_ERROR_INVALID_VALUE);
  EXPECT_OK(cuFuncSetAttribute(kernel, attribute, 163 << 10));
}

TEST_F(MemoryTest, StaticSharedMemoryAndAlignment) {
  Source source{R"(
    ld.param.u64 %rd0, [out];
    mov.u32 %r0, a;
    mov.u32 %r1, b;
    mov.u64 %rd1, smem;
    cvt.u32.u64 %r2, %rd1;
    st.global.v2.u32 [%rd0], {%r0, %r1};
    st.global.u32 [%rd0+8], %r2;)"};
  source.globals = std::string(".shared .align 4 .b8 a[20];\n"
                               ".shared .align 16 .b8 b[16];\n"
                               ".shared .align 16 .b8 unused[40000];\n") +
                   dynamicShared;
  Words at = outputOf<uint32_t>(source, 1, 3, 128);
  EXPECT_EQ(at[1] % 16, 0u);
  EXPECT_GE(at[1], at[0] + 20);
  EXPECT_EQ(at[2] % 1024, 0u);
  EXPECT_GE(at[2], at[1] + 16);
}

TEST_F(MemoryTest, GenericAddressesOfEverySpace) {
  Source source{R"(
    .local .align 8 .b8 depot[16];
    .reg .b64 %sp;
    ld.param.u64 %rd0, [out];
    mov.u64 %rd1, smem;
    cvta.shared.u64 %rd2, %rd1;
    st.u32 [%rd2], 5;
    ld.shared.u32 %r0, [smem];
    mov.u64 %sp, depot;
    cvta.local.u64 %rd3, %sp;
    st.u32 [%rd3+8], 6;
    ld.local.u32 %r1, [depot+8];
    mov.b64 %rd4, out;
    cvta.param.u64 %rd5, %rd4;
    ld.u64 %rd6, [%rd5];
    sub.s64 %rd7, %rd6, %rd0;
    isspacep.shared %p0, %rd2;
    isspacep.global %p1, %rd2;
    isspacep.local %p2, %rd3;
    selp.u32 %r2, 1, 0, %p0;
    selp.u32 %r3, 10, 0, %p1;
    selp.u32 %r4, 100, 0, %p2;
    add.s32 %r2, %r2, %r3;
    add.s32 %r2, %r2, %r4;
    cvta.to.shared.u64 %rd8, %rd2;
    ld.shared.u32 %r5, [%rd8];
    st.v2.u32 [%rd0], {%r0, %r1};
    st.global.u32 [%rd0+8], %rd7;
    st.v2.u32 [%rd0+12], {%r2, %r5};)"};
  // st of a 64-bit register with 32 bits takes the lower half; the vector
  // must be aligned.
  source.body.replace(source.body.rfind("[%rd0+12]"), 9, "[%rd0+16]");
  source.globals = dynamicShared;
  EXPECT_EQ(outputOf<uint32_t>(source, 1, 6, 64),
            (Words{5, 6, 0, 0xFFFFFFFF, 101, 5}));
}

TEST_F(MemoryTest, RacesInSharedMemory) {
  Source source{R"(
    mov.u32 %r0, %tid.x;
    setp.eq.u32 %p0, %r0, 0;
    @%p0 st.shared.u32 [smem], %r0;
    BARRIER
    setp.eq.u32 %p1, %r0, 32;
    @%p1 ld.shared.u32 %r1, [smem];)"};
  source.globals = dynamicShared;
  auto with = [&](const char *barrier) {
    Source copy = source;
    copy.body.replace(copy.body.find("BARRIER"), 7, barrier);
    return copy;
  };
  EXPECT_OK(run(load(with("bar.sync 0;")), {1}, {64}, 64, CUdeviceptr(0)));
  EXPECT_TRUE(says(failure(CUDA_ERROR_LAUNCH_FAILED, load(with("")), {1}, {64},
                           64, CUdeviceptr(0)),
                   {"data race", "warp 1", "warp 0"}));
}

//===----------------------------------------------------------------------===//
// Variables, calls, atomics
//===----------------------------------------------------------------------===//

TEST_F(MemoryTest, VariablesOfModules) {
  Source source{R"(
    ld.param.u64 %rd0, [out];
    ld.const.u32 %r0, [table+8];
    ld.global.u32 %r1, [counter];
    ld.global.u64 %rd1, [pointer];
    ld.global.f32 %f0, [%rd1];
    st.global.v2.u32 [%rd0], {%r0, %r1};
    st.global.f32 [%rd0+8], %f0;)"};
  source.globals = R"(
.visible .const .align 4 .u32 table[4] = {1, 2, 3};
.visible .global .align 4 .u32 counter = 42;
.visible .global .align 4 .f32 numbers[2] = {0f3F800000, 0f40000000};
.visible .global .align 8 .u64 pointer = numbers+4;
)";
  CUmodule module;
  std::string text = source;
  ASSERT_OK(cuModuleLoadData(&module, text.c_str()));
  CUdeviceptr counter;
  size_t bytes;
  ASSERT_OK(cuModuleGetGlobal_v2(&counter, &bytes, module, "counter"));
  EXPECT_EQ(bytes, 4u);
  uint32_t value = 43;
  EXPECT_OK(cuMemcpyHtoD_v2(counter, &value, 4));
  CUfunction kernel;
  ASSERT_OK(cuModuleGetFunction(&kernel, module, "k"));
  CUdeviceptr out = alloc(12);
  EXPECT_OK(run(kernel, {1}, {1}, 0, out));
  EXPECT_EQ(get<uint32_t>(out, 3), (Words{3, 43, 0x40000000}));
  EXPECT_EQ(cuModuleGetGlobal_v2(&counter, &bytes, module, "none"),
            CUDA_ERROR_NOT_FOUND);
}

TEST_F(MemoryTest, CallsOfFunctions) {
  Source source{R"(
    ld.param.u64 %rd0, [out];
    mov.u32 %r0, 10;
    {
      .param .b32 argument;
      .param .b32 result;
      st.param.b32 [argument], %r0;
      call.uni (result), factorial, (argument);
      ld.param.b32 %r1, [result];
    }
    st.global.u32 [%rd0], %r1;)"};
  source.globals = R"(
.func (.param .b32 value) factorial(.param .b32 n)
{
  .reg .b32 %r<4>;
  .reg .pred %p<2>;
  ld.param.b32 %r0, [n];
  mov.b32 %r1, 1;
  setp.lt.u32 %p0, %r0, 2;
  @%p0 bra $done;
  sub.s32 %r2, %r0, 1;
  {
    .param .b32 argument;
    .param .b32 result;
    st.param.b32 [argument], %r2;
    call (result), factorial, (argument);
    ld.param.b32 %r3, [result];
  }
  mul.lo.s32 %r1, %r0, %r3;
$done:
  st.param.b32 [value], %r1;
  ret;
}
)";
  EXPECT_EQ(outputOf<uint32_t>(source, 1, 1), (Words{3628800}));
}

TEST_F(MemoryTest, BranchesByIndex) {
  Source source{R"(
    ld.param.u64 %rd0, [out];
    mov.u32 %r0, %tid.x;
    $targets: .branchtargets $L0, $L1, $L2;
    brx.idx %r0, $targets;
  $L0: mov.u32 %r1, 7; bra.uni $end;
  $L1: mov.u32 %r1, 8; bra.uni $end;
  $L2: mov.u32 %r1, 9;
  $end:
    mul.wide.u32 %rd1, %r0, 4;
    add.s64 %rd0, %rd0, %rd1;
    st.global.u32 [%rd0], %r1;)"};
  EXPECT_EQ(outputOf<uint32_t>(source, 3, 3), (Words{7, 8, 9}));
}

TEST_F(MemoryTest, Atomics) {
  Source source{R"(
    ld.param.u64 %rd0, [out];
    atom.global.add.u32 %r0, [%rd0], 3;
    red.global.max.s32 [%rd0+4], 17;
    atom.global.inc.u32 %r1, [%rd0+8], 5;
    red.global.add.f32 [%rd0+12], 0f3F000000;
    atom.global.cas.b32 %r2, [%rd0+16], 0, 9;
    atom.global.exch.b32 %r3, [%rd0+20], 4;
    red.relaxed.gpu.global.add.noftz.bf16x2 [%rd0+24], 0x3F80;
    atom.global.or.b32 %r4, [%rd0+28], 6;)"};
  // A packed immediate must be in a register.
  source.body.replace(source.body.find("0x3F80"), 6, "%r9");
  source.body.insert(0, "mov.b32 %r9, 0x3F803F80;\n");
  CUfunction kernel = load(source);
  CUdeviceptr out = put(Words{0, 0xFFFFFFFF, 0, 0, 0, 0, 0, 1});
  EXPECT_OK(run(kernel, {2}, {8}, 0, out));
  EXPECT_EQ(get<uint32_t>(out, 8),
            (Words{48, 17, 16 % 6, 0x41000000, 9, 4, 0x41804180, 7}));
}

TEST_F(MemoryTest, BlocksThatSpinOnFlagsOfOthersGoOn) {
  // Block 0 waits for the last block that can be co-resident.
  Source source{R"(
    ld.param.u64 %rd0, [out];
    mov.u32 %r0, %ctaid.x;
    setp.eq.u32 %p0, %r0, 3;
    @%p0 st.release.gpu.global.u32 [%rd0], 1;
    setp.ne.u32 %p1, %r0, 0;
    @%p1 bra $end;
  $loop:
    ld.acquire.gpu.global.u32 %r1, [%rd0];
    setp.ne.u32 %p2, %r1, 1;
    @%p2 bra $loop;
  $end:)"};
  EXPECT_OK(runTogether(load(source), 4, 1, put(Words{0})));
  // Only those of a cooperative launch are sure to run side by side.
  EXPECT_TRUE(says(failure(CUDA_ERROR_LAUNCH_TIMEOUT, load(source), {4}, {1}, 0,
                           put(Words{0})),
                   {"deadlock", "3 of 4 clusters have not begun"}));
}

TEST_F(MemoryTest, TheLimitEndsALoop) {
  start({{"LIMIT", "1e6"}});
  EXPECT_TRUE(says(failure(CUDA_ERROR_LAUNCH_TIMEOUT,
                           load(Source{"$loop:\nadd.u32 %r0, %r0, 1;\n"
                                       "bra $loop;"}),
                           {1}, {1}, 0, CUdeviceptr(0)),
                   {"does not end"}));
}

TEST_F(MemoryTest, UninitialisedGlobalMemory) {
  Source source{"ld.param.u64 %rd0, [out];\nld.global.v2.u32 {%r0, %r1}, "
                "[%rd0+8];"};
  CUfunction kernel = load(source);
  CUdeviceptr out = alloc(64);
  ASSERT_OK(cuMemsetD8_v2(out, 0, 12));
  auto fails = [&] {
    return says(
        failure(CUDA_ERROR_LAUNCH_FAILED, kernel, {1}, {1}, 0, out),
        {"reads byte 12 of an allocation in global memory, which nobody "
         "wrote"});
  };
  EXPECT_TRUE(fails());
  // A copy of what nobody wrote is no write.
  SetUp();
  kernel = load(source);
  CUdeviceptr from = alloc(64);
  out = alloc(64);
  ASSERT_OK(cuMemsetD8_v2(from + 8, 0, 4));
  ASSERT_OK(cuMemcpyDtoD_v2(out, from, 64));
  EXPECT_TRUE(fails());
  SetUp();
  kernel = load(source);
  out = alloc(64);
  ASSERT_OK(cuMemsetD8_v2(out + 8, 0, 8));
  EXPECT_OK(run(kernel, {1}, {1}, 0, out));
  start({{"UNINIT", "allow"}});
  EXPECT_OK(run(load(source), {1}, {1}, 0, alloc(64)));
}

TEST_F(MemoryTest, DynamicSharedMemoryIsNotMoreAligned) {
  Source source{"ld.param.u64 %rd0, [out];\nmov.u32 %r0, smem;\n"
                "st.global.u32 [%rd0], %r0;"};
  for (unsigned align : {16u, 128u, 1024u}) {
    start();
    source.globals =
        ".extern .shared .align " + std::to_string(align) + " .b8 smem[];\n";
    EXPECT_EQ(outputOf<uint32_t>(source, 1, 1, 64)[0] % (2 * align), align);
    start({{"PLACEMENT", "hardware"}});
    EXPECT_EQ(outputOf<uint32_t>(source, 1, 1, 64)[0], 1024u);
  }
  // Not where there is no room.
  start();
  source.globals = ".extern .shared .align 16 .b8 smem[];\n";
  EXPECT_EQ(outputOf<uint32_t>(source, 1, 1, 227 << 10)[0], 1024u);
}

TEST_F(MemoryTest, WritesOfEqualValues) {
  // Two warps write a word, in shared and in global memory.
  auto text = [](const std::string &at, const std::string &value) {
    Source source{"ld.param.u64 %rd0, [out];\nmov.u32 %r0, %tid.x;\n"
                  "shr.u32 %r1, %r0, 5;\nmov.u32 %r2, 5;\n"
                  "and.b32 %r3, %r0, 31;\nsetp.eq.u32 %p0, %r3, 0;\n@%p0 st." +
                  at + ", " + value + ";"};
    source.globals = dynamicShared;
    return source;
  };
  for (const char *at : {"shared.u32 [smem]", "global.u32 [%rd0]"}) {
    start();
    EXPECT_TRUE(says(failure(CUDA_ERROR_LAUNCH_FAILED, load(text(at, "%r2")),
                             {1}, {64}, 64, put(Words{1})),
                     {"data race: warp 1"}));
    start({{"RACES", "equal"}});
    EXPECT_OK(run(load(text(at, "%r2")), {1}, {64}, 64, put(Words{1})));
    EXPECT_TRUE(says(failure(CUDA_ERROR_LAUNCH_FAILED, load(text(at, "%r1")),
                             {1}, {64}, 64, put(Words{1})),
                     {"data race: warp 1"}));
  }
}

TEST_F(MemoryTest, RacesOfLanes) {
  auto text = [](const std::string &first, const std::string &second,
                 const std::string &between) {
    Source source{"ld.param.u64 %rd0, [out];\nmov.u32 %r0, %laneid;\n"
                  "setp.eq.u32 %p0, %r0, 0;\nsetp.eq.u32 %p1, %r0, 1;\n"
                  "st.shared.u32 [smem], %r0;\nbar.sync 0;\n@%p0 " +
                  first + "\n" + between + "\n@%p1 " + second};
    source.globals = dynamicShared;
    return source;
  };
  const std::string load4 = "ld.shared.u32 %r1, [smem];",
                    store4 = "st.shared.u32 [smem], 1;",
                    loadGlobal = "ld.global.u32 %r1, [%rd0];",
                    storeGlobal = "st.global.u32 [%rd0], 1;";
  for (const auto &[first, second] :
       {std::pair(store4, load4), std::pair(load4, store4),
        std::pair(storeGlobal, loadGlobal), std::pair(loadGlobal, storeGlobal)})
    for (const char *seed : {"0", "1", "2", "3", "4"}) {
      start({{"SEED", seed}});
      EXPECT_OK(run(load(text(first, second, "bar.warp.sync -1;")), {1}, {32},
                    64, put(Words{1})));
      EXPECT_TRUE(
          says(failure(CUDA_ERROR_LAUNCH_FAILED, load(text(first, second, "")),
                       {1}, {32}, 64, put(Words{1})),
               {"data race: lane ", "of its warp"}))
          << first << second;
      start({{"SEED", seed}, {"RACES", "allow"}});
      EXPECT_OK(
          run(load(text(first, second, "")), {1}, {32}, 64, put(Words{1})));
    }
}

TEST_F(MemoryTest, UnknownThingsAreErrorsOfLoading) {
  EXPECT_TRUE(says(loadError(Source{"foo.u32 %r0, 1;"}),
                   {"line 12", "unknown instruction"}));
  EXPECT_TRUE(says(loadError(Source{"add.what.u32 %r0, %r0, 1;"}),
                   {"unknown qualifier .what"}));
  EXPECT_TRUE(says(loadError(Source{"add.u32 %r0, %rd0, 1;"}),
                   {"'%rd0' has 64 bits, not 32"}));
  EXPECT_TRUE(says(loadError(Source{"bra $nowhere;"}), {"unknown label"}));
  EXPECT_TRUE(
      says(loadError(Source{"mov.u32 %r0, %missing;"}), {"unknown register"}));
  EXPECT_TRUE(says(loadError(Source{"add.u32 %r0, %r0"}), {"expected ';'"}));
}

TEST_F(MemoryTest, TrapsEndTheLaunch) {
  failure(CUDA_ERROR_ILLEGAL_INSTRUCTION, load(Source{"trap;"}), {1}, {1}, 0,
          CUdeviceptr(0));
}

} // namespace
