//===- workspace.h - Workspaces that calls take in turn ---------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_CPU_WORKSPACE_H
#define MOE_RT_SRC_CPU_WORKSPACE_H

#include "support/buffer.h"

#include <array>
#include <mutex>

namespace moe::rt {

/// Memory of calls that have ended, for those that come: to clear the pages of
/// fresh memory takes a large call a fifth of its time. There are no more
/// workspaces than there were calls at the same time, and idle ones of `kept`.
class Workspaces {
public:
  /// At least `bytes` bytes, none for zero.
  moe_rt_status_t take(uint64_t bytes, Buffer &out);
  void giveBack(Buffer &&workspace);
  /// Release what no call uses; whether there was any.
  bool trim();

private:
  Buffer pick(uint64_t bytes);

  static constexpr size_t kept = 16;
  std::mutex mutex;
  std::array<Buffer, kept> idle;
};

} // namespace moe::rt

#endif // MOE_RT_SRC_CPU_WORKSPACE_H
