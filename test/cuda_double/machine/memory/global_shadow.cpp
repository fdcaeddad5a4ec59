//===- global_shadow.cpp - What happened to global memory -----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "global_shadow.h"

#include <new>

using namespace moe::gpu;

GlobalShadow::GlobalShadow(uint64_t bytes, bool written)
    : bytes(bytes), allWritten(written),
      pages((bytes + 4 * pageWords - 1) / (4 * pageWords)) {
  if (written)
    return;
  bits = static_cast<uint64_t *>(std::calloc((bytes + 63) / 64, 8));
  if (!bits)
    throw std::bad_alloc();
}

/// The bits from `first` up to `end`, both within a word of 64.
static uint64_t maskOf(uint64_t first, uint64_t end) {
  uint64_t upTo = end >= 64 ? ~uint64_t(0) : (uint64_t(1) << end) - 1;
  return upTo & ~uint64_t(0) << first;
}

uint64_t GlobalShadow::findUnwritten(uint64_t offset, uint64_t count) const {
  uint64_t end = offset + count;
  for (uint64_t at = offset; at < end; at = (at / 64 + 1) * 64) {
    uint64_t mask = maskOf(at % 64, std::min<uint64_t>(64, end - at / 64 * 64));
    if (uint64_t missing = mask & ~bits[at / 64])
      return at / 64 * 64 + static_cast<uint64_t>(__builtin_ctzll(missing));
  }
  return end;
}

void GlobalShadow::mark(uint64_t offset, uint64_t count) {
  uint64_t end = offset + count;
  if (offset == 0 && count == bytes)
    allWritten = true;
  for (uint64_t at = offset; at < end; at = (at / 64 + 1) * 64)
    bits[at / 64] |=
        maskOf(at % 64, std::min<uint64_t>(64, end - at / 64 * 64));
}

void GlobalShadow::copyWritten(uint64_t offset, const GlobalShadow &from,
                               uint64_t fromOffset, uint64_t count) {
  uint64_t end = fromOffset + count;
  for (uint64_t at = fromOffset; at < end;) {
    uint64_t hole = from.firstUnwritten(at, end - at);
    if (hole != at)
      markWritten(offset + (at - fromOffset), hole - at);
    for (at = hole; at < end && from.firstUnwritten(at, 1) == at;)
      ++at;
  }
}

void GlobalShadow::renew(std::unique_ptr<Page> &page, uint64_t machine) {
  page = std::make_unique<Page>();
  page->machine = machine;
}
