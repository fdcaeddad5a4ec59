//===- reports.cpp - What dispatches report on a device -------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "cuda/report/reports.h"
#include "layer/call_layout.h"
#include "support/checked.h"

#include <algorithm>
#include <cstring>

using namespace moe;
using namespace moe::rt;
using namespace moe::rt::cuda;

// The memory of a call ends with a record and its lock, that of the layer
// begins with a lock: each on a line, as reports are.
static constexpr uint64_t lineBytes = MOE_RT_REPORT_ALIGNMENT;
static_assert(sizeof(ErrorRecord) + sizeof(uint32_t) <= lineBytes,
              "record and lock of a call share a line");

static uint64_t totalsBytes(uint32_t experts) {
  return sizeof(ReportTotals) + experts * sizeof(int64_t);
}

uint64_t Reports::callBytes() const {
  return function.dispatches.empty() ? 0 : argumentBytes + lineBytes;
}

bool Reports::areAlwaysRight() const {
  return std::none_of(
      function.dispatches.begin(), function.dispatches.end(),
      [](const Dispatch &dispatch) { return bool(dispatch.counters); });
}

moe_rt_status_t Reports::create() {
  if (function.dispatches.empty())
    return nullptr;
  MOE_RT_TRY(device.reportKernel(kernel));

  std::vector<uint64_t> places; // of the arguments in the memory of a call
  uint64_t end = 0;
  for (const Argument &argument : function.arguments) {
    places.push_back(end);
    end += isReport(argument) ? reportSize(argument) : 0;
  }
  totalsBegin = lineBytes + function.dispatches.size() * sizeof(ReportEntry);
  end = totalsBegin;
  for (const Dispatch &dispatch : function.dispatches) {
    auto experts = static_cast<uint32_t>(dispatch.numExperts);
    ReportEntry entry = {places[dispatch.offsets], 0, end, experts, 0};
    if (dispatch.counters) {
      entry.counters = places[*dispatch.counters];
      entry.numCounters = static_cast<uint32_t>(
          function.arguments[*dispatch.counters].shape[0]);
    }
    entries.push_back(entry);
    end += totalsBytes(experts);
  }
  snapshots.resize(entries.size());

  MOE_RT_TRY(sharedRecord.allocate(lineBytes, "errors of a layer"));
  std::memset(sharedRecord.data(), 0, lineBytes);
  MOE_RT_TRY(memory.allocate(end, "statistics"));
  const Driver &driver = device.driver();
  MOE_RT_TRY(
      driver.check(driver.cuMemsetD8Async(memory.address(), 0, end, nullptr),
                   "clear the statistics"));
  MOE_RT_TRY(driver.check(
      driver.cuMemcpyHtoD(memory.address() + lineBytes, entries.data(),
                          entries.size() * sizeof(ReportEntry)),
      "describe the dispatches to the device"));
  // Streams of calls do not wait for this one.
  return driver.check(driver.cuStreamSynchronize(nullptr),
                      "clear the statistics");
}

//===----------------------------------------------------------------------===//
// Calls
//===----------------------------------------------------------------------===//

moe_rt_status_t Reports::clear(const char *call, CUstream stream) const {
  if (!kernel)
    return nullptr;
  const Driver &driver = device.driver();
  return driver.check(
      driver.cuMemsetD8Async(deviceAddress(call), 0, callBytes(), stream),
      "clear the reports of a call");
}

moe_rt_status_t Reports::launch(const char *call, CUdeviceptr record,
                                CUdeviceptr lock, CUstream stream) const {
  ReportParameters parameters = {deviceAddress(call),
                                 memory.address(),
                                 memory.address() + lineBytes,
                                 record,
                                 lock,
                                 uint32_t(entries.size())};
  return kernel->launch(parameters, stream);
}

moe_rt_status_t Reports::collect(const char *call, CUstream stream) const {
  if (!kernel)
    return nullptr;
  return launch(call, sharedRecord.address(), memory.address(), stream);
}

moe_rt_status_t Reports::collect(const char *call, CUstream stream,
                                 ErrorRecord &record) const {
  if (!kernel)
    return nullptr;
  CUdeviceptr own = deviceAddress(call) + argumentBytes;
  MOE_RT_TRY(launch(call, own, own + sizeof(ErrorRecord), stream));
  const Driver &driver = device.driver();
  return driver.check(
      driver.cuMemcpyDtoHAsync(&record, own, sizeof(record), stream),
      "read the errors of a call");
}

moe_rt_status_t Reports::check(const ErrorRecord &record) const {
  if (!record.code)
    return nullptr;
  return Statistics::refuse(function, record.dispatch, record.report);
}

moe_rt_status_t Reports::takeError() {
  if (!kernel)
    return nullptr;
  // The kernel writes `code` last, and nothing while it is not 0.
  uint32_t &code = layerRecord()->code;
  if (!__atomic_load_n(&code, __ATOMIC_ACQUIRE))
    return nullptr;
  std::lock_guard<std::mutex> lock(mutex);
  if (!__atomic_load_n(&code, __ATOMIC_ACQUIRE))
    return nullptr; // another thread took it
  ErrorRecord record = *layerRecord();
  __atomic_store_n(&code, 0, __ATOMIC_RELEASE);
  return check(record);
}

//===----------------------------------------------------------------------===//
// Statistics
//===----------------------------------------------------------------------===//

moe_rt_status_t Reports::read(size_t dispatch, moe_rt_statistics_t &out) {
  ContextScope scope(device);
  MOE_RT_TRY(scope.check());
  MOE_RT_TRY(device.waitForAll("statistics cannot be had"));
  std::lock_guard<std::mutex> lock(mutex);
  const ReportEntry &entry = entries[dispatch];
  std::vector<int64_t> &snapshot = snapshots[dispatch];
  size_t bytes = totalsBytes(entry.experts);
  snapshot.resize(bytes / sizeof(int64_t));
  const Driver &driver = device.driver();
  MOE_RT_TRY(
      driver.check(driver.cuMemcpyDtoH(snapshot.data(),
                                       memory.address() + entry.totals, bytes),
                   "read the statistics"));
  ReportTotals totals;
  std::memcpy(&totals, snapshot.data(), sizeof(totals));
  out = {entry.experts,
         function.dispatches[dispatch].topK,
         snapshot.data() + sizeof(totals) / sizeof(int64_t),
         saturatingAdd(totals.calls, emptyCalls),
         totals.choices,
         totals.dropped,
         totals.padding};
  return nullptr;
}

void Reports::reset() {
  if (!kernel)
    return;
  ContextScope scope(device);
  const Driver &driver = device.driver();
  moe_rt_status_t status = device.waitForAll("statistics cannot be had");
  if (!status) {
    (void)driver.cuMemsetD8Async(memory.address() + totalsBegin, 0,
                                 memory.bytes() - totalsBegin, nullptr);
    (void)driver.cuStreamSynchronize(nullptr);
    emptyCalls = 0;
  }
  moe_rt_status_free(status);
}
