//===- call_layout.cpp - The memory of a call -----------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "layer/call_layout.h"
#include "layer/statistics.h"
#include "layer/tensor.h"
#include "support/checked.h"

using namespace moe;
using namespace moe::rt;

bool CallLayout::compute(const Function &function) {
  uint64_t count = function.arguments.size(); // bounded by the signature
  pointers = bound + count * sizeof(BoundTensor);
  descriptors = pointers + (count + 1) * sizeof(void *);
  reports = descriptors + descriptorWords(1) * sizeof(int64_t);
  for (const Argument &argument : function.arguments)
    reports += descriptorWords(argument.shape.size()) * sizeof(int64_t);
  uint64_t end = reports + function.dispatches.size() * sizeof(DispatchReport);
  if (!checkedAlign(end, bufferAlignment, total))
    return false;
  for (const Argument &argument : function.arguments)
    if (isReport(argument) &&
        (!checkedAdd(reportBytes, argument.staticBytes(), reportBytes) ||
         !checkedAlign(reportBytes, MOE_RT_REPORT_ALIGNMENT, reportBytes)))
      return false;
  uint64_t both;
  return checkedAdd(total, reportBytes, both);
}
