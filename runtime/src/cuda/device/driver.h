//===- driver.h - The CUDA driver -------------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_CUDA_DEVICE_DRIVER_H
#define MOE_RT_SRC_CUDA_DEVICE_DRIVER_H

#include "cuda/device/api.h"
#include "support/status.h"

#include <string>

namespace moe::rt::cuda {

/// The functions of libcuda.so.1, which is opened at run time: without a driver
/// the runtime works, for the CPU.
class Driver {
public:
  Driver() = default;
  ~Driver();
  Driver(const Driver &) = delete;
  Driver &operator=(const Driver &) = delete;

  /// Open the library and initialise it. To be called once, before anything
  /// else.
  moe_rt_status_t open();

  /// Success, or "cannot <what>: CUDA_ERROR_... (...)". `what` is a format.
  moe_rt_status_t check(CUresult result, const char *what, ...) const
      __attribute__((format(printf, 3, 4)));
  /// "CUDA_ERROR_INVALID_VALUE" and "invalid argument".
  const char *name(CUresult result) const;
  const char *description(CUresult result) const;

#define MOE_CUDA_FUNCTION(function, version, parameters)                       \
  CUresult(*function) parameters = nullptr;
#define MOE_CUDA_OPTIONAL_FUNCTION MOE_CUDA_FUNCTION
#include "cuda/device/functions.def"

  /// The version of CUDA that it supports, 12030 for 12.3.
  int version() const { return cudaVersion; }

private:
  template <typename F> moe_rt_status_t find(const char *symbol, F &out);
  moe_rt_status_t checkVersion();

  void *library = nullptr;
  std::string path; // where the library was looked for
  int cudaVersion = 0;

  // An old driver has these, too, and tells with them that it is old.
  CUresult (*cuInit)(unsigned flags) = nullptr;
  CUresult (*cuDriverGetVersion)(int *version) = nullptr;
  CUresult (*cuGetErrorName)(CUresult result, const char **name) = nullptr;
  CUresult (*cuGetErrorString)(CUresult result, const char **text) = nullptr;
};

} // namespace moe::rt::cuda

#endif // MOE_RT_SRC_CUDA_DEVICE_DRIVER_H
