//===- workspace.cpp - Workspaces that calls take in turn -----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "workspace.h"

#include <algorithm>

using namespace moe::rt;

moe_rt_status_t Workspaces::take(uint64_t bytes, Buffer &out) {
  if (bytes == 0)
    return nullptr;
  {
    std::lock_guard<std::mutex> lock(mutex);
    // The smallest that is large enough; else the largest is replaced.
    auto smaller = [](const Buffer &a, const Buffer &b) {
      return a.bytes() < b.bytes();
    };
    std::sort(idle.begin(), idle.end(), smaller);
    auto found = std::find_if(idle.begin(), idle.end(), [&](const Buffer &each) {
      return each.bytes() >= bytes;
    });
    bool fits = found != idle.end();
    if (!fits && !idle.empty())
      --found;
    if (found != idle.end()) {
      out = std::move(*found);
      idle.erase(found);
    }
    if (fits)
      return nullptr;
  }
  return out.allocate(bytes, "workspace",
                      bytes < hugePage ? bufferAlignment : hugePage);
}

void Workspaces::giveBack(Buffer &&workspace) {
  if (!workspace.data())
    return;
  std::lock_guard<std::mutex> lock(mutex);
  if (idle.size() < kept) // never grows, so never allocates
    idle.push_back(std::move(workspace));
}

void Workspaces::trim() {
  std::lock_guard<std::mutex> lock(mutex);
  idle.clear();
}
