//===- cuda_testing.cpp - Helpers of the tests on a device ----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "cuda_testing.h"

#include <cstdlib>
#include <dlfcn.h>

using namespace moe::test;
using namespace moe::rt;

//===----------------------------------------------------------------------===//
// Kernels
//===----------------------------------------------------------------------===//

const char *const moe::test::testImage = R"(
.version 7.0
.target sm_80
.address_size 64

// y[i] = factor * x[i] for i < count.
.visible .entry scale(.param .u64 p_x, .param .u64 p_y, .param .u32 p_count,
                      .param .f32 p_factor)
{
  .reg .pred done;
  .reg .b32 i, block, threads, count;
  .reg .f32 value, factor;
  .reg .b64 x, y;
  ld.param.u64 x, [p_x];
  ld.param.u64 y, [p_y];
  ld.param.u32 count, [p_count];
  ld.param.f32 factor, [p_factor];
  mov.u32 i, %tid.x;
  mov.u32 block, %ctaid.x;
  mov.u32 threads, %ntid.x;
  mad.lo.u32 i, block, threads, i;
  setp.ge.u32 done, i, count;
  @done bra End;
  mad.wide.u32 x, i, 4, x;
  mad.wide.u32 y, i, 4, y;
  ld.global.f32 value, [x];
  mul.f32 value, value, factor;
  st.global.f32 [y], value;
End:
  ret;
}

// What a dispatch reports: offsets and counters from a list of 64-bit numbers.
.visible .entry report(.param .u64 p_from, .param .u64 p_offsets,
                       .param .u64 p_counters, .param .u32 p_numOffsets,
                       .param .u32 p_numCounters)
{
  .reg .pred done;
  .reg .b32 i, numOffsets, numCounters, offset;
  .reg .b64 from, offsets, counters, at, value;
  ld.param.u64 from, [p_from];
  ld.param.u64 offsets, [p_offsets];
  ld.param.u64 counters, [p_counters];
  ld.param.u32 numOffsets, [p_numOffsets];
  ld.param.u32 numCounters, [p_numCounters];
  mov.u32 i, 0;
Offsets:
  setp.ge.u32 done, i, numOffsets;
  @done bra Next;
  mad.wide.u32 at, i, 8, from;
  ld.global.u64 value, [at];
  mad.wide.u32 at, i, 4, offsets;
  cvt.u32.u64 offset, value;
  st.global.u32 [at], offset;
  add.u32 i, i, 1;
  bra Offsets;
Next:
  mad.wide.u32 from, i, 8, from;
  mov.u32 i, 0;
Counters:
  setp.ge.u32 done, i, numCounters;
  @done bra End;
  mad.wide.u32 at, i, 8, from;
  ld.global.u64 value, [at];
  mad.wide.u32 at, i, 8, counters;
  st.global.u64 [at], value;
  add.u32 i, i, 1;
  bra Counters;
End:
  ret;
}

// Writes where there is nothing.
.visible .entry fault()
{
  .reg .b64 at;
  mov.u64 at, 4096;
  st.global.u32 [at], 1;
  ret;
}
)";

const char *const moe::test::testKernels = R"([
  {"name": "scale", "threads": 128},
  {"name": "report", "threads": 1},
  {"name": "fault", "threads": 32, "shared": 0, "cluster": 1}])";

const char *const moe::test::sm90Image = R"(
.version 8.0
.target sm_90
.address_size 64

.extern .shared .align 1024 .b8 dynamic[];

// Copies the box at (column, row) of a tensor of bytes to `out` as it lies in
// shared memory.
.visible .entry copyBox(.param .align 64 .b8 p_map[128], .param .u64 p_out,
                        .param .s32 p_column, .param .s32 p_row,
                        .param .u32 p_bytes)
{
  .reg .pred leader, done;
  .reg .b32 thread, column, row, bytes, tile, bar, at, value;
  .reg .b64 map, out, wide;
  .shared .align 8 .b64 barrier;
  ld.param.u64 out, [p_out];
  ld.param.s32 column, [p_column];
  ld.param.s32 row, [p_row];
  ld.param.u32 bytes, [p_bytes];
  mov.b64 map, p_map;
  cvta.param.u64 map, map;
  mov.u32 tile, dynamic;
  mov.u32 bar, barrier;
  mov.u32 thread, %tid.x;
  setp.eq.u32 leader, thread, 0;
  @leader mbarrier.init.shared::cta.b64 [bar], 1;
  @leader fence.proxy.async.shared::cta;
  bar.sync 0;
  @leader mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], bytes;
  @leader cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes
      [tile], [map, {column, row}], [bar];
Wait:
  mbarrier.try_wait.parity.shared::cta.b64 done, [bar], 0;
  @!done bra Wait;
  shl.b32 at, thread, 2;
Copy:
  setp.ge.u32 done, at, bytes;
  @done bra End;
  add.u32 value, tile, at;
  ld.shared.u32 value, [value];
  cvt.u64.u32 wide, at;
  add.u64 wide, wide, out;
  st.global.u32 [wide], value;
  add.u32 at, at, 128;
  bra Copy;
End:
  ret;
}

// Of each block, the blocks of its cluster.
.visible .entry clusterSize(.param .u64 p_out)
{
  .reg .b32 block, size;
  .reg .b64 out;
  ld.param.u64 out, [p_out];
  mov.u32 block, %ctaid.x;
  mov.u32 size, %cluster_nctaid.x;
  mad.wide.u32 out, block, 4, out;
  st.global.u32 [out], size;
  ret;
}
)";

//===----------------------------------------------------------------------===//
// The driver
//===----------------------------------------------------------------------===//

Environment::Environment(const char *name, const std::string &value)
    : name(name) {
  const char *old = std::getenv(name);
  wasSet = old != nullptr;
  before = old ? old : "";
  setenv(name, value.c_str(), 1);
}

Environment::~Environment() {
  if (wasSet)
    setenv(name, before.c_str(), 1);
  else
    unsetenv(name);
}

void *moe::test::driverLibrary() {
  static void *library = [] {
    const char *path = std::getenv("MOE_CUDA_LIBRARY");
    return dlopen(path ? path : "libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  }();
  return library;
}

static void *findInDriver(const char *symbol) {
  return driverLibrary() ? dlsym(driverLibrary(), symbol) : nullptr;
}

bool moe::test::isDouble() {
  return findInDriver("moe_cuda_double_reset") != nullptr;
}

void moe::test::resetDouble() {
  if (void *reset = findInDriver("moe_cuda_double_reset"))
    reinterpret_cast<void (*)()>(reset)();
}

Gpu::Gpu(int32_t ordinal) {
  Result result(cuda::CUDADevice::open(ordinal, device));
  reason = result.message;
}

Gpu::~Gpu() {
  if (!device)
    return;
  cuda::ContextScope scope(*device);
  for (cuda::CUstream stream : streams)
    (void)driver().cuStreamDestroy(stream);
}

void *Gpu::find(const char *symbol) const { return findInDriver(symbol); }

int Gpu::check(int result) const {
  auto code = static_cast<cuda::CUresult>(result);
  EXPECT_EQ(code, cuda::CUDA_SUCCESS) << driver().name(code);
  return result;
}

cuda::CUstream Gpu::newStream() {
  cuda::ContextScope scope(*device);
  cuda::CUstream stream = nullptr;
  check(driver().cuStreamCreate(&stream, cuda::CU_STREAM_NON_BLOCKING));
  std::lock_guard<std::mutex> lock(mutex);
  streams.push_back(stream);
  return stream;
}

void Gpu::wait(cuda::CUstream stream) const {
  cuda::ContextScope scope(*device);
  check(driver().cuStreamSynchronize(stream));
}

void *Gpu::capture(cuda::CUstream stream,
                   const std::function<void()> &enqueue) const {
  cuda::ContextScope scope(*device);
  void *graph = nullptr, *executable = nullptr;
  check(function<int(cuda::CUstream, int)>("cuStreamBeginCapture_v2")(
      stream, 0 /* any thread */));
  enqueue();
  check(function<int(cuda::CUstream, void **)>("cuStreamEndCapture")(stream,
                                                                     &graph));
  check(function<int(void **, void *, unsigned long long)>(
      "cuGraphInstantiateWithFlags")(&executable, graph, 0));
  check(function<int(void *)>("cuGraphDestroy")(graph));
  return executable;
}

void Gpu::replay(void *graph, cuda::CUstream stream) const {
  cuda::ContextScope scope(*device);
  check(function<int(void *, cuda::CUstream)>("cuGraphLaunch")(graph, stream));
}

void *Gpu::currentContext() const {
  void *context = nullptr;
  check(function<int(void **)>("cuCtxGetCurrent")(&context));
  return context;
}

//===----------------------------------------------------------------------===//
// Fixtures
//===----------------------------------------------------------------------===//

void CudaTest::SetUp() {
  resetDouble();
  gpu = std::make_unique<Gpu>();
  if (gpu->device)
    return;
  ASSERT_EQ(std::getenv("MOE_CUDA_LIBRARY"), nullptr) << gpu->reason;
  GTEST_SKIP() << gpu->reason;
}

void CudaTest::TearDown() { gpu.reset(); }

moe_rt_context_options_t CudaTest::options(int32_t ordinal) {
  return {sizeof(moe_rt_context_options_t), {}, 1, nullptr, {kDLCUDA, ordinal}};
}

std::string
DeviceVariant::json(const std::vector<std::string> &functions) const {
  std::string body;
  for (const std::string &function : functions)
    body += (body.empty() ? "{" : ", {") + function + "}";
  std::string list = images;
  if (list.empty())
    list =
        R"([{"format": "ptx", "arch": "sm_80", "symbol": "image", "size": )" +
        std::to_string(std::strlen(testImage)) + "}]";
  return R"({"target": {"triple": ")" + std::string(hostTriple) +
         R"(", "features": [], "device": {"kind": "cuda", "arch": ")" + arch +
         R"("}}, "images": )" + list + R"(, "kernels": )" + kernels +
         R"(, "functions": [)" + body + "]}";
}

DeviceVariant moe::test::sm90Variant(const std::string &kernels) {
  return {"sm_90",
          R"([{"format": "ptx", "arch": "sm_90", "symbol": "image", "size": )" +
              std::to_string(std::strlen(sm90Image)) + "}]",
          kernels};
}

void *DeviceJit::resolve(void *user, const char *symbol) {
  auto &symbols = static_cast<DeviceJit *>(user)->symbols;
  auto position = symbols.find(symbol);
  return position == symbols.end() ? nullptr
                                   : const_cast<void *>(position->second);
}

moe_rt_status_t DeviceJit::load(const std::string &metadata) {
  return moe_rt_module_create(context, metadata.data(), metadata.size(),
                              resolve, this, &module);
}

void DeviceJit::load(const std::string &arguments, DeviceEntry entry,
                     WorkspaceFn workspace, const DeviceVariant &variant) {
  symbols["entry"] = reinterpret_cast<const void *>(entry);
  symbols["workspace"] = reinterpret_cast<const void *>(workspace);
  symbols.emplace("image", testImage);
  ASSERT_OK(load(metadataOfVariants(
      {variant.json({R"("name": "f", "entry": "entry", "workspace": "workspace",
          "tokens": {"min": 0, "max": 5000}, "arguments": [)" +
                     arguments + "]"})})));
}

void DeviceJit::create(const std::vector<DLTensor> &weights) {
  ASSERT_OK(moe_rt_layer_create(module, nullptr, weights.data(), weights.size(),
                                &layer));
}

const char *const moe::test::scaleArguments =
    R"({"name": "x", "role": "input", "dtype": "f32", "shape": [-1, 4]},
       {"name": "y", "role": "output", "dtype": "f32", "shape": [-1, 4]})";

int32_t moe::test::scaleEntry(void **args, const moe_rt_launcher_t *launcher) {
  auto count =
      static_cast<uint32_t>(4 * static_cast<const Memref *>(args[0])->dims[0]);
  const moe_rt_kernel_argument_t arguments[] = {
      argument(args[0]), argument(args[1]), argument(count), argument(2.f)};
  return launcher->launch(launcher->user, scaleKernel, (count + 127) / 128, 1,
                          1, arguments, 4);
}
