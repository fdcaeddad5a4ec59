//===- report_kernel.cpp - Check and add up reports -----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "cuda/report/report_kernel.h"
#include "cuda/report/report_kernel_source.h"

using namespace moe::rt;
using namespace moe::rt::cuda;

moe_rt_status_t ReportKernel::load() {
  MOE_RT_TRY(image.load(reportKernelSource, "the kernel of the statistics"));
  return image.find("moe_rt_report", function);
}

moe_rt_status_t ReportKernel::launch(ReportParameters parameters,
                                     CUstream stream) const {
  void *pointers[] = {&parameters.call,    &parameters.layer,
                      &parameters.entries, &parameters.record,
                      &parameters.lock,    &parameters.count};
  CUlaunchConfig config = {};
  config.gridDimX = config.gridDimY = config.gridDimZ = 1;
  config.blockDimX = reportKernelBlock;
  config.blockDimY = config.blockDimZ = 1;
  config.hStream = stream;
  const Driver &driver = device.driver();
  return driver.check(
      driver.cuLaunchKernelEx(&config, function, pointers, nullptr),
      "start the kernel of the statistics");
}
