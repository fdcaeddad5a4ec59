//===- driver.cpp - The CUDA driver ---------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "cuda/device/driver.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>

using namespace moe::rt;
using namespace moe::rt::cuda;

// The first one with tensor maps and cuLaunchKernelEx.
static constexpr int minVersion = 12000;

static constexpr const char *defaultPath = "libcuda.so.1";

template <typename F> moe_rt_status_t Driver::find(const char *symbol, F &out) {
  out = reinterpret_cast<F>(dlsym(library, symbol));
  if (!out)
    return makeError(MOE_RT_FAILED_PRECONDITION,
                     "the NVIDIA driver (%s) has no function '%s'",
                     path.c_str(), symbol);
  return nullptr;
}

moe_rt_status_t Driver::checkVersion() {
  MOE_RT_TRY(check(cuDriverGetVersion(&cudaVersion),
                   "ask the NVIDIA driver for its version"));
  if (cudaVersion < minVersion)
    return makeError(MOE_RT_FAILED_PRECONDITION,
                     "the NVIDIA driver supports CUDA %d.%d, expected %d.%d or "
                     "later",
                     cudaVersion / 1000, cudaVersion % 1000 / 10,
                     minVersion / 1000, minVersion % 1000 / 10);
  return nullptr;
}

moe_rt_status_t Driver::open() {
  const char *given = std::getenv("MOE_CUDA_LIBRARY");
  path = given && *given ? given : defaultPath;
  // The driver's code must stay: threads of its own may outlive the last
  // context.
  library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (!library) {
    const char *reason = dlerror();
    return makeError(MOE_RT_FAILED_PRECONDITION,
                     "no NVIDIA driver: cannot open %s: %s", path.c_str(),
                     reason ? reason : "unknown reason");
  }
  MOE_RT_TRY(find("cuGetErrorName", cuGetErrorName));
  MOE_RT_TRY(find("cuGetErrorString", cuGetErrorString));
  MOE_RT_TRY(find("cuDriverGetVersion", cuDriverGetVersion));
  MOE_RT_TRY(find("cuInit", cuInit));
  MOE_RT_TRY(checkVersion());
  MOE_RT_TRY(check(cuInit(0), "initialise the NVIDIA driver"));
#define MOE_CUDA_FUNCTION(function, version, parameters)                       \
  MOE_RT_TRY(find(#function version, function));
#define MOE_CUDA_OPTIONAL_FUNCTION(function, version, parameters)              \
  function =                                                                   \
      reinterpret_cast<decltype(function)>(dlsym(library, #function version));
#include "cuda/device/functions.def"
  return nullptr;
}

Driver::~Driver() {
  if (library)
    dlclose(library);
}

const char *Driver::name(CUresult result) const {
  const char *text = nullptr;
  if (cuGetErrorName(result, &text) != CUDA_SUCCESS || !text)
    return "unknown CUDA error";
  return text;
}

const char *Driver::description(CUresult result) const {
  const char *text = nullptr;
  if (cuGetErrorString(result, &text) != CUDA_SUCCESS || !text)
    return "no description";
  return text;
}

static moe_rt_code_t codeOf(CUresult result) {
  switch (result) {
  case CUDA_ERROR_OUT_OF_MEMORY:
    return MOE_RT_RESOURCE_EXHAUSTED;
  case CUDA_ERROR_NO_DEVICE:
  case CUDA_ERROR_NO_BINARY_FOR_GPU:
  case CUDA_ERROR_UNSUPPORTED_PTX_VERSION:
  case CUDA_ERROR_JIT_COMPILER_NOT_FOUND:
  case CUDA_ERROR_JIT_COMPILATION_DISABLED:
    return MOE_RT_FAILED_PRECONDITION;
  default:
    return MOE_RT_INTERNAL;
  }
}

moe_rt_status_t Driver::check(CUresult result, const char *what, ...) const {
  if (result == CUDA_SUCCESS)
    return nullptr;
  char purpose[512];
  va_list args;
  va_start(args, what);
  std::vsnprintf(purpose, sizeof(purpose), what, args);
  va_end(args);
  return makeError(codeOf(result), "cannot %s: %s (%s)", purpose, name(result),
                   description(result));
}
