//===- reports.h - What dispatches report on a device -----------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_CUDA_REPORT_REPORTS_H
#define MOE_RT_SRC_CUDA_REPORT_REPORTS_H

#include "cuda/device/memory.h"
#include "cuda/report/report_kernel.h"

#include <atomic>

namespace moe::rt::cuda {

/// What the dispatches of a layer have done on a device, and how it is known
/// without waiting for it. The code of a call reports in memory of that call;
/// a kernel behind it adds that to totals in memory of the layer, or leaves a
/// record of what is wrong with it. Safe to use from several threads. Functions
/// that enqueue are used within a ContextScope.
class Reports final : public Statistics {
public:
  /// `argumentBytes` is what the offsets and counters of a call take.
  Reports(CUDADevice &device, const Function &function, uint64_t argumentBytes)
      : device(device), function(function), argumentBytes(argumentBytes),
        sharedRecord(device), memory(device) {}

  /// Load the kernel and allocate. To be called once, before anything else.
  moe_rt_status_t create();

  /// Bytes of a call's memory, 0 without dispatches; the code's offsets and
  /// counters come first.
  uint64_t callBytes() const;
  /// Whether nothing is wrong with a call, whatever its inputs: there is only
  /// counting to do.
  bool areAlwaysRight() const;
  /// Clear a call's memory, before its code runs.
  moe_rt_status_t clear(const char *call, CUstream stream) const;
  /// Count a call behind its code. What is wrong with its reports goes to the
  /// layer's record.
  moe_rt_status_t collect(const char *call, CUstream stream) const;
  /// Likewise, into `record`, which holds once the stream has been waited for.
  moe_rt_status_t collect(const char *call, CUstream stream,
                          ErrorRecord &record) const;
  /// Count a call that has nothing to compute.
  void countEmptyCall() { emptyCalls.fetch_add(1, std::memory_order_relaxed); }

  moe_rt_status_t check(const ErrorRecord &record) const;
  /// The error in the layer's record, which is cleared.
  moe_rt_status_t takeError();

  /// Both wait for the device.
  moe_rt_status_t read(size_t dispatch, moe_rt_statistics_t &out) override;
  void reset() override;

private:
  ErrorRecord *layerRecord() const {
    return reinterpret_cast<ErrorRecord *>(sharedRecord.data());
  }
  moe_rt_status_t launch(const char *call, CUdeviceptr record, CUdeviceptr lock,
                         CUstream stream) const;

  CUDADevice &device;
  const Function &function;
  const uint64_t argumentBytes;
  const ReportKernel *kernel = nullptr;
  PinnedBuffer sharedRecord; // polled by the host
  DeviceBuffer memory;       // lock of that record, entries, totals
  uint64_t totalsBegin = 0;  // in that memory

  std::mutex mutex;
  std::vector<ReportEntry> entries;
  std::vector<std::vector<int64_t>> snapshots; // what `read` handed out
  std::atomic<int64_t> emptyCalls{0};
};

} // namespace moe::rt::cuda

#endif // MOE_RT_SRC_CUDA_REPORT_REPORTS_H
