//===- async.cpp - Asynchronous copies and wgmma --------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "async.h"
#include "machine/machine.h"

using namespace moe::gpu;

//===----------------------------------------------------------------------===//
// cp.async
//===----------------------------------------------------------------------===//

void CopyQueue::issue(Thread &thread, const Copy &copy, bool now) {
  copy.block->shared.copyIssued(*thread.warp, copy.offset, copy.bytes);
  copies.push_back(copy);
  if (now)
    land(thread, copies.back());
}

void CopyQueue::land(Thread &thread, Copy &copy) {
  uint8_t *to = copy.block->shared.data(copy.offset);
  if (copy.sourceBytes != 0)
    std::memcpy(to,
                thread.machine().memory.translate(copy.from, copy.sourceBytes),
                copy.sourceBytes);
  std::memset(to + copy.sourceBytes, 0, copy.bytes - copy.sourceBytes);
  copy.landed = true;
}

void CopyQueue::finish(Thread &thread, uint64_t count) {
  for (; first < count; ++first) {
    Copy &copy = copies.front();
    if (!copy.landed)
      land(thread, copy);
    copy.block->shared.copyArrived(thread, copy.offset, copy.bytes);
    copies.pop_front();
    ++thread.machine().effects;
  }
}

void CopyQueue::commit() { groups.push_back(issued()); }

void CopyQueue::wait(Thread &thread, uint64_t groupsLeft) {
  while (groups.size() > groupsLeft) {
    finish(thread, groups.front());
    groups.pop_front();
  }
}

void CopyQueue::waitAll(Thread &thread) {
  groups.clear();
  finish(thread, issued());
}

//===----------------------------------------------------------------------===//
// Bulk copies out of shared memory
//===----------------------------------------------------------------------===//

void BulkQueue::finish(Bulk &bulk, bool readsOnly) {
  if (bulk.read) {
    bulk.read();
    bulk.read = nullptr;
  }
  if (!readsOnly && bulk.write) {
    bulk.write();
    bulk.write = nullptr;
  }
}

void BulkQueue::issue(Bulk bulk, bool readNow, bool writeNow) {
  bulks.push_back(std::move(bulk));
  if (readNow)
    finish(bulks.back(), !writeNow);
}

void BulkQueue::commit() { groups.push_back(first + bulks.size()); }

void BulkQueue::wait(Warp &warp, uint64_t groupsLeft, bool readsOnly) {
  if (groups.size() <= groupsLeft)
    return;
  uint64_t end = groups[groups.size() - 1 - groupsLeft];
  for (uint64_t k = first; k < end; ++k) {
    finish(bulks[k - first], readsOnly);
    warp.acquire(bulks[k - first].after);
    bulks[k - first].readsAwaited = true;
    if (!readsOnly)
      warp.acquire(bulks[k - first].written);
  }
  if (readsOnly)
    return;
  bulks.erase(bulks.begin(),
              bulks.begin() + static_cast<ptrdiff_t>(end - first));
  first = end;
  groups.erase(groups.begin(),
               groups.end() - static_cast<ptrdiff_t>(groupsLeft));
}

bool BulkQueue::readsPending() const {
  for (const Bulk &bulk : bulks)
    if (!bulk.readsAwaited)
      return true;
  return false;
}

void BulkQueue::finishWrites() {
  for (Bulk &bulk : bulks)
    finish(bulk, false);
  bulks.clear();
}
