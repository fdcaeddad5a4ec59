//===- report_kernel_source.h - The source of the kernel --------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_CUDA_REPORT_REPORT_KERNEL_SOURCE_H
#define MOE_RT_SRC_CUDA_REPORT_REPORT_KERNEL_SOURCE_H

namespace moe::rt::cuda {

/// report_kernel.ptx, and the threads of a block that its `.maxntid` says.
extern const char reportKernelSource[];
extern const unsigned reportKernelBlock;

} // namespace moe::rt::cuda

#endif // MOE_RT_SRC_CUDA_REPORT_REPORT_KERNEL_SOURCE_H
