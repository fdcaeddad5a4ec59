//===- profile.cpp - Times of the stages of a layer -----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "profile.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>

using namespace moe;
using namespace moe::run;
using moe::io::Error;
using moe::io::Expected;

static constexpr int warmUpCalls = 3;

double ProfileResult::otherTotal() const {
  double rest = call.total;
  for (const StageTiming &stage : stages)
    rest -= stage.total;
  return std::max(rest, 0.0);
}

static Expected<StageTiming> readStage(const Program &program, size_t stage) {
  moe_rt_stage_profile_t raw;
  if (moe_rt_status_t status =
          moe_rt_layer_profile(program.layer(), stage, &raw))
    return takeStatus(status);
  std::vector<int64_t> samples(raw.samples, raw.samples + raw.sample_count);
  std::sort(samples.begin(), samples.end());
  double median = 0;
  if (size_t count = samples.size())
    median = (static_cast<double>(samples[(count - 1) / 2]) +
              static_cast<double>(samples[count / 2])) /
             2;
  return StageTiming{raw.name,
                     raw.kernels,
                     raw.calls,
                     raw.runs,
                     static_cast<double>(raw.total_nanoseconds) * 1e-9,
                     median * 1e-9};
}

Expected<ProfileResult>
moe::run::profile(const Program &program, int64_t count,
                  const std::function<Expected<void>()> &call) {
  for (int i = 0; i < warmUpCalls; ++i)
    if (Expected<void> called = call(); !called)
      return called.takeError();
  moe_rt_layer_reset_profile(program.layer());
  if (moe_rt_status_t status = moe_rt_layer_enable_profile(program.layer(), 1))
    return takeStatus(status);
  for (int64_t i = 0; i < count; ++i)
    if (Expected<void> called = call(); !called)
      return called.takeError();
  // Disabling never fails.
  moe_rt_status_free(moe_rt_layer_enable_profile(program.layer(), 0));
  Expected<StageTiming> whole = readStage(program, MOE_RT_WHOLE_CALL);
  if (!whole)
    return whole.takeError();
  ProfileResult result = {*whole, {}};
  size_t stages = moe_rt_layer_stage_count(program.layer());
  for (size_t i = 0; i < stages; ++i) {
    Expected<StageTiming> stage = readStage(program, i);
    if (!stage)
      return stage.takeError();
    if (stage->calls > 0)
      result.stages.push_back(std::move(*stage));
  }
  return result;
}

/// The first and the last of the kernels, which are by rows.
static std::string summarizeKernels(const std::string &kernels) {
  size_t end = kernels.find(", ");
  if (end == std::string::npos)
    return kernels;
  return kernels.substr(0, end) + " to " +
         kernels.substr(kernels.rfind(", ") + 2);
}

void moe::run::printProfile(const Program &program,
                            const ProfileResult &result) {
  const StageTiming &call = result.call;
  std::printf("profile: %s, %" PRId64 " calls, median %.2f us\n",
              program.target().c_str(), call.calls, call.median * 1e6);
  std::printf("  %-32s %10s %12s %8s  %s\n", "stage", "runs/call", "median us",
              "share %", "kernels");
  auto share = [&](double seconds) {
    return call.total > 0 ? 100 * seconds / call.total : 0.0;
  };
  for (const StageTiming &stage : result.stages)
    std::printf("  %-32s %10.1f %12.2f %8.1f  %s\n", stage.name.c_str(),
                static_cast<double>(stage.runs) /
                    static_cast<double>(stage.calls),
                stage.median * 1e6, share(stage.total),
                summarizeKernels(stage.kernels).c_str());
  if (result.stages.empty())
    std::printf("  the code has no stages\n");
  else
    std::printf("  %-32s %10s %12s %8.1f\n", "other", "", "",
                share(result.otherTotal()));
}
