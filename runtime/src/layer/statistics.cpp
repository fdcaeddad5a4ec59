//===- statistics.cpp - Statistics of dispatches --------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "layer/statistics.h"

#include <cinttypes>

using namespace moe::rt;

moe_rt_status_t Statistics::check(const Function &function, size_t dispatch,
                                  const DispatchReport &report) {
  // The kernel of the CUDA device has the same rules.
  int64_t experts = function.dispatches[dispatch].numExperts;
  int64_t choices = report.choices(experts), invalid = report.invalid();
  bool consistent = report.offsets[0] == 0 && invalid == 0;
  for (int64_t e = 0; e < experts; ++e)
    consistent &= report.offsets[e] <= report.offsets[e + 1];
  if (!consistent || choices < report.offsets[experts] || report.padding() < 0)
    return refuse(
        function, dispatch,
        {choices, invalid, report.offsets[0], report.offsets[experts]});
  return nullptr;
}

moe_rt_status_t Statistics::refuse(const Function &function, size_t dispatch,
                                   const BadReport &report) {
  if (report.invalid > 0)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "function '%s', dispatch %zu: %" PRId64
                     " expert ids outside [0, %" PRId64 ")",
                     function.name.c_str(), dispatch, report.invalid,
                     function.dispatches[dispatch].numExperts);
  return makeError(MOE_RT_INTERNAL,
                   "function '%s', dispatch %zu: the code reported %" PRId64
                   " choices and %d kept rows, with offsets from %d",
                   function.name.c_str(), dispatch, report.choices, report.kept,
                   report.first);
}
