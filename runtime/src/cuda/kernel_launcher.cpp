//===- kernel_launcher.cpp - Start the kernels of compiled code -----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "cuda/kernel_launcher.h"
#include "cuda/nvtx.h"

#include <algorithm>
#include <cinttypes>
#include <iterator>
#include <utility>

using namespace moe::rt;
using namespace moe::rt::cuda;

static constexpr int64_t maxArguments = 256;
static constexpr int64_t maxMaps = 32;
static constexpr int64_t maxRank = 5;
static constexpr int64_t maxGrid[] = {INT32_MAX, 65535, 65535};

//===----------------------------------------------------------------------===//
// Tensor maps
//===----------------------------------------------------------------------===//

// By moe_rt_map_element_t.
static constexpr CUtensorMapDataType elementTypes[] = {
    CU_TENSOR_MAP_DATA_TYPE_UINT8, CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
    CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
    CU_TENSOR_MAP_DATA_TYPE_INT32};
static constexpr const char *elementNames[] = {"u8", "f16", "bf16", "f32",
                                               "i32"};

static bool findSwizzle(int64_t bytes, CUtensorMapSwizzle &out) {
  switch (bytes) {
  case 0:
    out = CU_TENSOR_MAP_SWIZZLE_NONE;
    return true;
  case 32:
    out = CU_TENSOR_MAP_SWIZZLE_32B;
    return true;
  case 64:
    out = CU_TENSOR_MAP_SWIZZLE_64B;
    return true;
  case 128:
    out = CU_TENSOR_MAP_SWIZZLE_128B;
    return true;
  default:
    return false;
  }
}

/// "[128, 64]", for messages.
static std::string list(const int64_t *values, int64_t count) {
  std::string text = "[";
  for (int64_t i = 0; i < count; ++i)
    text += (i ? ", " : "") + std::to_string(values[i]);
  return text + "]";
}

/// What the driver would not see, as its types are narrower; the rest of what
/// is wrong with a map it finds itself.
static const char *findFault(const moe_rt_tensor_map_t &map,
                             CUtensorMapSwizzle &swizzle) {
  if (map.element < 0 ||
      map.element >= static_cast<int64_t>(std::size(elementTypes)))
    return "there is no such element type";
  if (map.rank < 1 || map.rank > maxRank)
    return "its rank is not from 1 to 5";
  if (!findSwizzle(map.swizzle, swizzle))
    return "its swizzle is not 0, 32, 64 or 128";
  for (int64_t i = 0; i < map.rank; ++i)
    if (map.box[i] < 1 || map.box[i] > 256)
      return "its box is not from 1 to 256 everywhere";
  if (map.address % 16 != 0)
    return "its address is no multiple of 16";
  return nullptr;
}

moe_rt_status_t Launcher::encode(const Kernel &kernel, int64_t argument,
                                 const moe_rt_tensor_map_t &map,
                                 CUtensorMap &out) const {
  CUtensorMapSwizzle swizzle;
  const char *fault = findFault(map, swizzle);
  if (!fault) {
    uint64_t sizes[maxRank], strides[maxRank];
    uint32_t box[maxRank], ones[maxRank];
    for (int64_t i = 0; i < map.rank; ++i) {
      sizes[i] = static_cast<uint64_t>(map.sizes[i]);
      strides[i] = static_cast<uint64_t>(map.strides[i]);
      box[i] = static_cast<uint32_t>(map.box[i]);
      ones[i] = 1;
    }
    // The driver takes no stride of dimension 0.
    CUresult result = device.driver().cuTensorMapEncodeTiled(
        &out, elementTypes[map.element], static_cast<uint32_t>(map.rank),
        reinterpret_cast<void *>(static_cast<uintptr_t>(map.address)), sizes,
        strides + 1, box, ones, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
        CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result == CUDA_SUCCESS)
      return nullptr;
    fault = device.driver().name(result);
  }
  int64_t rank = map.rank < 1 || map.rank > maxRank ? 0 : map.rank;
  bool known = map.element >= 0 &&
               map.element < static_cast<int64_t>(std::size(elementNames));
  return makeError(
      MOE_RT_INTERNAL,
      "kernel '%s', argument %" PRId64 ": no tensor map of address 0x%" PRIx64
      ", element type %" PRId64 " (%s), rank %" PRId64
      ", sizes %s, strides %s, box %s, swizzle %" PRId64 ": %s",
      kernel.name.c_str(), argument, map.address, map.element,
      known ? elementNames[map.element] : "unknown", map.rank,
      list(map.sizes, rank).c_str(), list(map.strides, rank).c_str(),
      list(map.box, rank).c_str(), map.swizzle, fault);
}

//===----------------------------------------------------------------------===//
// Launches
//===----------------------------------------------------------------------===//

static moe_rt_status_t checkGrid(const Kernel &kernel, const int64_t *grid) {
  for (int i = 0; i < 3; ++i)
    if (grid[i] < 0 || grid[i] > maxGrid[i])
      return makeError(MOE_RT_INTERNAL,
                       "kernel '%s': extent %d of the grid is %" PRId64
                       ", expected 0 to %" PRId64,
                       kernel.name.c_str(), i, grid[i], maxGrid[i]);
  if (grid[0] % kernel.cluster != 0)
    return makeError(MOE_RT_INTERNAL,
                     "kernel '%s': extent 0 of the grid is %" PRId64
                     ", expected a multiple of the cluster of %" PRId64,
                     kernel.name.c_str(), grid[0], kernel.cluster);
  return nullptr;
}

/// Whether a kernel may begin before the one that was launched last has ended:
/// programmatic dependent launch.
bool Launcher::mayOverlap(const Kernel &kernel) const {
  // Graphs have had edges of that kind since CUDA 12.3.
  constexpr int graphVersion = 12030;
  if (!std::binary_search(kernel.primaries.begin(), kernel.primaries.end(),
                          before) ||
      device.capability().major < 9 || (timer && timer->isRunning()))
    return false;
  const Driver &driver = device.driver();
  CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
  return driver.version() >= graphVersion ||
         (driver.cuStreamIsCapturing(stream, &status) == CUDA_SUCCESS &&
          status == CU_STREAM_CAPTURE_STATUS_NONE);
}

moe_rt_status_t Launcher::launch(int64_t index, const int64_t *grid,
                                 const moe_rt_kernel_argument_t *arguments,
                                 int64_t count) {
  const std::vector<Kernel> &kernels = program.kernels();
  if (index < 0 || static_cast<size_t>(index) >= kernels.size())
    return makeError(MOE_RT_INTERNAL,
                     "the code starts kernel %" PRId64 " of %zu", index,
                     kernels.size());
  const Kernel &kernel = kernels[static_cast<size_t>(index)];
  MOE_RT_TRY(checkGrid(kernel, grid));
  if (grid[0] == 0 || grid[1] == 0 || grid[2] == 0)
    return nullptr;
  if (count < 0 || count > maxArguments || (count > 0 && !arguments))
    return makeError(MOE_RT_INTERNAL,
                     "kernel '%s' is given %" PRId64
                     " arguments, expected at most %" PRId64,
                     kernel.name.c_str(), count, maxArguments);

  void *pointers[maxArguments];
  CUtensorMap maps[maxMaps];
  int64_t mapCount = 0;
  for (int64_t i = 0; i < count; ++i) {
    const moe_rt_kernel_argument_t &argument = arguments[i];
    if (argument.size != 0) {
      // The lowest bytes come first in memory.
      pointers[i] = const_cast<uint64_t *>(&argument.value);
      continue;
    }
    if (mapCount == maxMaps)
      return makeError(MOE_RT_INTERNAL,
                       "kernel '%s' is given more than %" PRId64 " tensor maps",
                       kernel.name.c_str(), maxMaps);
    const auto *map = reinterpret_cast<const moe_rt_tensor_map_t *>(
        static_cast<uintptr_t>(argument.value));
    MOE_RT_TRY(encode(kernel, i, *map, maps[mapCount]));
    pointers[i] = &maps[mapCount++];
  }

  CUlaunchAttribute attributes[2] = {};
  unsigned attributeCount = 0;
  if (kernel.cluster > 1) {
    CUlaunchAttribute &cluster = attributes[attributeCount++];
    cluster.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    cluster.value.clusterDim = {static_cast<unsigned>(kernel.cluster), 1, 1};
  }
  if (mayOverlap(kernel)) {
    CUlaunchAttribute &overlap = attributes[attributeCount++];
    overlap.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
    overlap.value.programmaticStreamSerializationAllowed = 1;
  }
  before = index;
  CUlaunchConfig config = {};
  config.gridDimX = static_cast<unsigned>(grid[0]);
  config.gridDimY = static_cast<unsigned>(grid[1]);
  config.gridDimZ = static_cast<unsigned>(grid[2]);
  config.blockDimX = static_cast<unsigned>(kernel.threads);
  config.blockDimY = config.blockDimZ = 1;
  config.sharedMemBytes = static_cast<unsigned>(kernel.shared);
  config.hStream = stream;
  config.attrs = attributes;
  config.numAttrs = attributeCount;
  const Driver &driver = device.driver();
  NvtxRange range(kernel.name);
  CUresult result = driver.cuLaunchKernelEx(
      &config, program.kernel(static_cast<size_t>(index)), pointers, nullptr);
  if (result == CUDA_SUCCESS)
    return timer ? timer->launched(static_cast<size_t>(index)) : nullptr;
  return driver.check(result,
                      "start kernel '%s' with %s blocks of %" PRId64
                      " threads and %" PRId64
                      " bytes of shared memory, in clusters of %" PRId64,
                      kernel.name.c_str(), list(grid, 3).c_str(),
                      kernel.threads, kernel.shared, kernel.cluster);
}

moe_rt_status_t Launcher::run(const Function &function, void **args) {
  auto start = [](void *self, int64_t kernel, int64_t x, int64_t y, int64_t z,
                  const moe_rt_kernel_argument_t *arguments,
                  int64_t count) -> int32_t {
    auto *launcher = static_cast<Launcher *>(self);
    // Code that goes on after a failure starts nothing more.
    const int64_t grid[] = {x, y, z};
    if (!launcher->failure)
      launcher->failure = launcher->launch(kernel, grid, arguments, count);
    return launcher->failure ? 1 : 0;
  };
  moe_rt_launcher_t interface = {this, device.multiprocessors(), start,
                                 reinterpret_cast<uintptr_t>(liveTokens)};
  NvtxRange range(function.name);
  auto entry = reinterpret_cast<moe_rt_device_entry_fn>(function.entryAddress);
  int32_t code = entry(args, &interface);
  if (failure) {
    std::string prefix = "function '" + function.name + "'";
    moe_rt_status_t status = std::exchange(failure, nullptr);
    return wrapError(moe_rt_status_code(status), prefix.c_str(), status);
  }
  if (code != 0)
    return makeError(MOE_RT_INTERNAL, "function '%s' failed with code %d",
                     function.name.c_str(), code);
  return nullptr;
}
