//===- report_kernel.h - Check and add up reports ---------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The runtime's own kernel, which runs behind the code of a call that has
// dispatches, and what it reads and writes. It knows the layout of these
// structures.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_CUDA_REPORT_REPORT_KERNEL_H
#define MOE_RT_SRC_CUDA_REPORT_REPORT_KERNEL_H

#include "cuda/program.h"
#include "layer/statistics.h"

namespace moe::rt::cuda {

/// Where one dispatch reports and is counted, in bytes.
struct ReportEntry {
  uint64_t offsets, counters; // from the memory of the call
  uint64_t totals;            // from the memory of the layer
  uint32_t experts;
  uint32_t numCounters; // 0, 2, or 3 with padding
};
static_assert(sizeof(ReportEntry) == 32, "the kernel knows this layout");

/// What one dispatch has done; the tokens of each expert follow, an int64_t
/// each.
struct ReportTotals {
  int64_t calls, choices, dropped, padding;
};
static_assert(sizeof(ReportTotals) == 32, "the kernel knows this layout");

/// The first bad report since `code` was 0. Whoever reads it clears `code`.
struct ErrorRecord {
  uint32_t code; // not 0: the rest holds
  uint32_t dispatch;
  BadReport report;
};
static_assert(sizeof(ErrorRecord) == 32 && offsetof(ErrorRecord, report) == 8 &&
                  sizeof(BadReport) == 24,
              "the kernel knows this layout");

/// The kernel's parameters, all of them addresses on the device but for the
/// count.
struct ReportParameters {
  CUdeviceptr call;    // its memory
  CUdeviceptr layer;   // its memory
  CUdeviceptr entries; // of the dispatches
  CUdeviceptr record;  // an ErrorRecord, which may be in memory of the host
  CUdeviceptr lock;    // of the record: a word on the device, 0
  uint32_t count;      // of the dispatches
};

class ReportKernel {
public:
  explicit ReportKernel(const CUDADevice &device)
      : device(device), image(device) {}

  moe_rt_status_t load();
  /// Enqueue the kernel.
  moe_rt_status_t launch(ReportParameters parameters, CUstream stream) const;

private:
  const CUDADevice &device;
  LoadedImage image;
  CUfunction function = nullptr;
};

} // namespace moe::rt::cuda

#endif // MOE_RT_SRC_CUDA_REPORT_REPORT_KERNEL_H
