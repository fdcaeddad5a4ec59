//===- profile.cpp - Times of the stages of a layer -----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "layer/profile.h"
#include "layer/layer.h"
#include "support/checked.h"

#include <algorithm>
#include <ctime>
#include <new>

using namespace moe;
using namespace moe::rt;

//===----------------------------------------------------------------------===//
// Profile
//===----------------------------------------------------------------------===//

void Profile::addStage(std::string name, std::string kernels) {
  names.push_back({std::move(name), std::move(kernels)});
}

moe_rt_status_t Profile::enable(bool value) {
  std::lock_guard<std::mutex> lock(mutex);
  if (value && entries.empty()) {
    std::vector<Entry> made(names.size() + 1);
    for (Entry &entry : made) {
      entry.samples.reset(new (std::nothrow) int64_t[maxSamples]);
      entry.snapshot.reset(new (std::nothrow) int64_t[maxSamples]);
      if (!entry.samples || !entry.snapshot)
        return makeError(MOE_RT_RESOURCE_EXHAUSTED,
                         "cannot allocate the profile of %zu stages",
                         names.size());
    }
    entries = std::move(made);
  }
  enabled.store(value, std::memory_order_relaxed);
  return nullptr;
}

void Profile::add(Entry &entry, const StageTime &time) {
  if (time.runs == 0)
    return;
  entry.samples[static_cast<size_t>(entry.calls) % maxSamples] =
      time.nanoseconds;
  entry.calls = saturatingAdd(entry.calls, 1);
  entry.runs = saturatingAdd(entry.runs, time.runs);
  entry.total = saturatingAdd(entry.total, time.nanoseconds);
}

void Profile::add(const StageTime *times, int64_t callNanoseconds) {
  std::lock_guard<std::mutex> lock(mutex);
  for (size_t i = 0; i < names.size(); ++i)
    add(entries[i], times[i]);
  add(entries.back(), {callNanoseconds, 1});
}

void Profile::read(size_t stage, moe_rt_stage_profile_t &out) {
  std::lock_guard<std::mutex> lock(mutex);
  bool isCall = stage == names.size();
  out = {};
  out.name = isCall ? "call" : names[stage].name.c_str();
  out.kernels = isCall ? "" : names[stage].kernels.c_str();
  if (entries.empty())
    return;
  Entry &entry = entries[stage];
  out.calls = entry.calls;
  out.runs = entry.runs;
  out.total_nanoseconds = entry.total;
  out.sample_count =
      static_cast<size_t>(std::min<int64_t>(entry.calls, maxSamples));
  std::copy_n(entry.samples.get(), out.sample_count, entry.snapshot.get());
  out.samples = entry.snapshot.get();
}

void Profile::reset() {
  std::lock_guard<std::mutex> lock(mutex);
  for (Entry &entry : entries)
    entry.calls = entry.runs = entry.total = 0;
}

//===----------------------------------------------------------------------===//
// StageTimer
//===----------------------------------------------------------------------===//

int64_t moe::rt::readClock() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t(now.tv_sec) * 1000000000 + now.tv_nsec;
}

StageTimer::StageTimer(Profile &profile) : profile(profile) {
  if (!profile.isEnabled())
    return;
  times.reset(new (std::nothrow) StageTime[profile.stageCount() + 1]);
  callStarted = readClock();
}

void StageTimer::begin(int64_t stage) {
  int64_t now = readClock();
  if (current >= 0)
    times[current].nanoseconds += now - started;
  bool isKnown =
      stage >= 0 && static_cast<size_t>(stage) < profile.stageCount();
  current = isKnown ? stage : -1;
  started = now;
  if (isKnown)
    ++times[current].runs;
}

void StageTimer::end() {
  if (!times)
    return;
  begin(-1);
  profile.add(times.get(), started - callStarted);
}

//===----------------------------------------------------------------------===//
// C interface
//===----------------------------------------------------------------------===//

extern "C" {

moe_rt_status_t moe_rt_layer_enable_profile(moe_rt_layer_t *layer,
                                            int enabled) {
  if (!layer)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "moe_rt_layer_enable_profile: 'layer' is NULL");
  return layer->onDevice->enableProfile(enabled != 0);
}

size_t moe_rt_layer_stage_count(const moe_rt_layer_t *layer) {
  return layer ? layer->onDevice->profile().stageCount() : 0;
}

moe_rt_status_t moe_rt_layer_profile(moe_rt_layer_t *layer, size_t stage,
                                     moe_rt_stage_profile_t *out) {
  if (!layer || !out)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "moe_rt_layer_profile: an argument is NULL");
  Profile &profile = layer->onDevice->profile();
  if (stage == MOE_RT_WHOLE_CALL)
    stage = profile.stageCount();
  else if (stage >= profile.stageCount())
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "layer has %zu stages, there is no stage %zu",
                     profile.stageCount(), stage);
  profile.read(stage, *out);
  return nullptr;
}

void moe_rt_layer_reset_profile(moe_rt_layer_t *layer) {
  if (layer)
    layer->onDevice->profile().reset();
}

} // extern "C"
