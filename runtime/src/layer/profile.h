//===- profile.h - Times of the stages of a layer ---------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_LAYER_PROFILE_H
#define MOE_RT_SRC_LAYER_PROFILE_H

#include "artifact/signature.h"

#include <atomic>
#include <memory>
#include <mutex>

namespace moe::rt {

/// The time of one stage in one call.
struct StageTime {
  int64_t nanoseconds = 0;
  int64_t runs = 0;
};

/// Times of the stages of a layer, and of whole calls. Safe to use from several
/// threads.
class Profile {
public:
  /// Of the last calls, the median of which is known.
  static constexpr size_t maxSamples = 4096;

  /// Add a stage; all before the first call.
  void addStage(std::string name, std::string kernels);
  size_t stageCount() const { return names.size(); }

  moe_rt_status_t enable(bool value);
  bool isEnabled() const { return enabled.load(std::memory_order_relaxed); }

  /// Add one call. `times` has an element for each stage.
  void add(const StageTime *times, int64_t callNanoseconds);
  /// `stage` may be stageCount(), the whole call.
  void read(size_t stage, moe_rt_stage_profile_t &out);
  void reset();

private:
  struct Entry {
    int64_t calls = 0, runs = 0, total = 0;
    std::unique_ptr<int64_t[]> samples;  // a ring of maxSamples
    std::unique_ptr<int64_t[]> snapshot; // what `read` handed out
  };
  struct Name {
    std::string name, kernels;
  };

  static void add(Entry &entry, const StageTime &time);

  std::vector<Name> names;
  std::atomic<bool> enabled{false};
  std::mutex mutex;
  std::vector<Entry> entries; // of the stages, then of the call; once enabled
};

/// Now, on a clock that never goes back, in nanoseconds.
int64_t readClock();

/// Times the stages of one call on the thread that runs it, if the profile is
/// enabled when it is made.
class StageTimer {
public:
  explicit StageTimer(Profile &profile);

  bool isRunning() const { return times != nullptr; }
  StageTime *stages() { return times.get(); }
  /// End the stage before, and begin another one.
  void begin(int64_t stage);
  /// End the last stage and the call, and add them to the profile.
  void end();

private:
  Profile &profile;
  std::unique_ptr<StageTime[]> times; // null: not enabled, or no memory
  int64_t current = -1;
  int64_t started = 0, callStarted = 0;
};

} // namespace moe::rt

#endif // MOE_RT_SRC_LAYER_PROFILE_H
