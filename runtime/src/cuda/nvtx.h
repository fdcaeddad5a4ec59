//===- nvtx.h - Ranges for NVIDIA's profilers -------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_CUDA_NVTX_H
#define MOE_RT_SRC_CUDA_NVTX_H

#include <string>

namespace moe::rt::cuda {

/// A range of the calling thread that Nsight Systems and other tools with NVTX
/// show, as long as the object lives. Without a tool it costs a load.
///
/// It speaks to the tool as the headers of NVTX 3 do: the environment variable
/// NVTX_INJECTION64_PATH, which a tool sets, names a library that gets tables
/// of function pointers and sets those that it implements.
class NvtxRange {
public:
  explicit NvtxRange(const std::string &name);
  ~NvtxRange();
  NvtxRange(const NvtxRange &) = delete;
  NvtxRange &operator=(const NvtxRange &) = delete;

private:
  bool pushed = false;
};

} // namespace moe::rt::cuda

#endif // MOE_RT_SRC_CUDA_NVTX_H
