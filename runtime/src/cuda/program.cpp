//===- program.cpp - Kernels that the driver has loaded -------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "cuda/program.h"
#include "cuda/cuda_layer.h"
#include "cuda/device/compatibility.h"
#include "layer/layer.h"

#include <cstring>
#include <new>
#include <string>

using namespace moe::rt;
using namespace moe::rt::cuda;

// Clusters above this size run on some devices only, and are to be asked for.
static constexpr int64_t maxPortableCluster = 8;

//===----------------------------------------------------------------------===//
// LoadedImage
//===----------------------------------------------------------------------===//

void LoadedImage::unload() {
  if (!module)
    return;
  ContextScope scope(device);
  (void)device.driver().cuModuleUnload(module);
  module = nullptr;
}

/// The first lines of a log, as one.
static std::string firstLines(const char *log) {
  std::string text;
  for (int lines = 0; *log && lines < 3; ++lines) {
    size_t length = std::strcspn(log, "\n");
    text += (lines ? " / " : "; ") + std::string(log, length);
    log += length;
    log += std::strspn(log, "\n");
  }
  return text;
}

moe_rt_status_t LoadedImage::load(const void *data, const char *what) {
  unload();
  char log[4096] = "";
  CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER,
                            CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
  void *values[] = {log, reinterpret_cast<void *>(sizeof(log) - 1)};
  const Driver &driver = device.driver();
  CUresult result =
      driver.cuModuleLoadDataEx(&module, data, 2, options, values);
  moe_rt_status_t status = driver.check(result, "load %s", what);
  if (!status)
    return nullptr;
  module = nullptr;
  moe_rt_status_t full =
      makeError(moe_rt_status_code(status), "%s%s",
                moe_rt_status_message(status), firstLines(log).c_str());
  moe_rt_status_free(status);
  return full;
}

moe_rt_status_t LoadedImage::find(const char *kernel, CUfunction &out) const {
  const Driver &driver = device.driver();
  return driver.check(driver.cuModuleGetFunction(&out, module, kernel),
                      "find kernel '%s' in its image", kernel);
}

//===----------------------------------------------------------------------===//
// CUDAProgram
//===----------------------------------------------------------------------===//

/// Both messages; either status may be none.
static moe_rt_status_t joinErrors(moe_rt_status_t first,
                                  moe_rt_status_t second) {
  if (!first || !second)
    return first ? first : second;
  moe_rt_status_t both =
      makeError(moe_rt_status_code(first), "%s; %s",
                moe_rt_status_message(first), moe_rt_status_message(second));
  moe_rt_status_free(first);
  moe_rt_status_free(second);
  return both;
}

/// Load the first image that the driver accepts, native code before PTX, which
/// it has to compile.
moe_rt_status_t CUDAProgram::loadImages(const char *function) {
  std::string prefix = "the kernels of '" + std::string(function) + "' (";
  moe_rt_status_t status = nullptr;
  for (ImageFormat format : {ImageFormat::cubin, ImageFormat::ptx}) {
    for (const Image &each : code.images) {
      if (each.format != format ||
          !runsOn(each.arch, format, device.capability()))
        continue;
      // A copy: PTX ends with a NUL for the driver, in the object it need not.
      std::string data(static_cast<const char *>(each.data), each.size);
      moe_rt_status_t failure =
          image.load(data.c_str(), (prefix + each.describe() + ")").c_str());
      if (!failure) {
        moe_rt_status_free(status);
        return nullptr;
      }
      status = joinErrors(status, failure);
    }
  }
  return status;
}

/// Find a kernel, and let it have what it asks for.
moe_rt_status_t CUDAProgram::prepare(const Kernel &kernel,
                                     CUfunction &out) const {
  const Driver &driver = device.driver();
  MOE_RT_TRY(image.find(kernel.name.c_str(), out));
  if (kernel.shared > 0)
    MOE_RT_TRY(
        driver.check(driver.cuFuncSetAttribute(
                         out, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                         static_cast<int>(kernel.shared)),
                     "give kernel '%s' %d bytes of shared memory",
                     kernel.name.c_str(), static_cast<int>(kernel.shared)));
  if (kernel.cluster > maxPortableCluster)
    MOE_RT_TRY(driver.check(
        driver.cuFuncSetAttribute(
            out, CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1),
        "allow kernel '%s' clusters of %d blocks", kernel.name.c_str(),
        static_cast<int>(kernel.cluster)));
  return nullptr;
}

moe_rt_status_t CUDAProgram::load(const char *function) {
  std::lock_guard<std::mutex> lock(mutex);
  if (loaded)
    return nullptr;
  MOE_RT_TRY(loadImages(function));
  functions.resize(code.kernels.size());
  for (size_t i = 0; i < functions.size(); ++i)
    MOE_RT_TRY(prepare(code.kernels[i], functions[i]));
  loaded = true;
  return nullptr;
}

moe_rt_status_t CUDAProgram::newLayer(const moe_rt_layer_t &layer,
                                      std::unique_ptr<DeviceLayer> &out) {
  ContextScope scope(device);
  MOE_RT_TRY(scope.check());
  MOE_RT_TRY(load(layer.function.name.c_str()));
  std::unique_ptr<CUDALayer> created(new (std::nothrow)
                                         CUDALayer(layer, device, *this));
  if (!created)
    return makeError(MOE_RT_RESOURCE_EXHAUSTED, "cannot allocate the weights");
  MOE_RT_TRY(created->create());
  out = std::move(created);
  return nullptr;
}
