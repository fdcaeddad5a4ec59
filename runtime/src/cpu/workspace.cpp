//===- workspace.cpp - Workspaces that calls take in turn -----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "cpu/workspace.h"

#include <algorithm>

using namespace moe::rt;

/// The smallest idle one that is large enough, else the largest, which a larger
/// one is to replace; empty if there is none.
Buffer Workspaces::pick(uint64_t bytes) {
  std::lock_guard<std::mutex> lock(mutex);
  Buffer *best = &idle[0];
  for (Buffer &each : idle) {
    bool smaller = each.bytes() < best->bytes();
    if (best->bytes() >= bytes ? smaller && each.bytes() >= bytes
                               : each.bytes() > best->bytes())
      best = &each;
  }
  return std::move(*best);
}

moe_rt_status_t Workspaces::take(uint64_t bytes, Buffer &out) {
  if (bytes == 0)
    return nullptr;
  if (Buffer found = pick(bytes); found.data())
    out = std::move(found);
  if (out.bytes() >= bytes)
    return nullptr;
  size_t alignment = bytes < hugePage ? bufferAlignment : hugePage;
  moe_rt_status_t status = out.allocate(bytes, "workspace", alignment);
  if (moe_rt_status_code(status) != MOE_RT_RESOURCE_EXHAUSTED)
    return status;
  // What lies idle may be what is missing.
  if (!trim())
    return status;
  moe_rt_status_free(status);
  return out.allocate(bytes, "workspace", alignment);
}

void Workspaces::giveBack(Buffer &&workspace) {
  if (!workspace.data())
    return;
  std::lock_guard<std::mutex> lock(mutex);
  for (Buffer &each : idle)
    if (!each.data()) {
      each = std::move(workspace);
      return;
    }
}

bool Workspaces::trim() {
  std::array<Buffer, kept> released;
  {
    // The allocator, which may be the host's, is called without the lock.
    std::lock_guard<std::mutex> lock(mutex);
    std::swap(released, idle);
  }
  return std::any_of(released.begin(), released.end(),
                     [](const Buffer &each) { return each.data(); });
}
