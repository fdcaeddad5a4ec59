//===- profile.h - Times of the stages of a layer ---------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RUN_PROFILE_H
#define MOE_RUN_PROFILE_H

#include "program.h"

#include <functional>

namespace moe::run {

/// Times of one stage of a layer, copied from moe_rt_stage_profile_t, in
/// seconds.
struct StageTiming {
  std::string name, kernels;
  int64_t calls, runs;
  double total, median;
};

/// What calls with one number of tokens took.
struct ProfileResult {
  StageTiming call;
  std::vector<StageTiming> stages; // that ran

  /// The part of the calls that no stage took, at least 0.
  double otherTotal() const;
};

/// Profiles so many calls.
io::Expected<ProfileResult>
profile(const Program &program, int64_t count,
        const std::function<io::Expected<void>()> &call);

void printProfile(const Program &program, const ProfileResult &result);

} // namespace moe::run

#endif // MOE_RUN_PROFILE_H
