//===- ranks.h - Ranks that run a layer together ----------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RUN_RANKS_H
#define MOE_RUN_RANKS_H

#include "options.h"

#include "moe_rt/group.h"
#include "moe_rt/io.h"

#include <functional>

namespace moe::run {

/// What one rank knows of all, and what it tells them outside of calls.
class Ranks {
public:
  Ranks(const moe_rt_communicator_t &communicator, double deadline)
      : engine(communicator), deadline(deadline) {}

  size_t rank() const { return static_cast<size_t>(engine.rank); }
  size_t size() const { return static_cast<size_t>(engine.size); }
  const moe_rt_communicator_t &communicator() const { return engine; }
  double deadlineSeconds() const { return deadline; }

  /// Tells all ranks a number, and returns those of all in their order; an
  /// error if one of them has one.
  io::Expected<std::vector<int64_t>> tell(io::Expected<void> own,
                                          int64_t number);
  /// Whether all ranks can go on.
  io::Expected<void> agree(io::Expected<void> own);
  /// Returns the rows of all ranks on rank 0, which have tokens[r] of them, and
  /// a tensor without rows elsewhere.
  io::Expected<io::Tensor> collect(const io::Tensor &own,
                                   const std::vector<int64_t> &tokens);

  /// True after a failure of the engine: nothing more can be sent, and memory
  /// that it may still use is left to it.
  bool isDead() const { return dead; }
  void setDead() { dead = true; }
  /// True if the error is another rank's, which reports it.
  bool isOfOthers() const { return ofOthers; }

private:
  io::Expected<void> wait(void *request);
  io::Error failed();

  const moe_rt_communicator_t engine;
  const double deadline;
  bool dead = false, ofOthers = false;
};

/// Returns whether all ranks can go on; `own` without ranks.
io::Expected<void> agree(Ranks *ranks, io::Expected<void> own);

/// Runs `body` on the ranks of the engine that the options name: once in this
/// process, or in a thread for each. Returns the largest exit status.
int runRanks(const Options &options,
             const std::function<int(const Options &, Ranks *)> &body);

} // namespace moe::run

#endif // MOE_RUN_RANKS_H
