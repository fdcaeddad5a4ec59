//===- global_shadow.h - What happened to global memory ---------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CUDA_DOUBLE_GLOBAL_SHADOW_H
#define MOE_CUDA_DOUBLE_GLOBAL_SHADOW_H

#include "race.h"

#include <array>
#include <cstdlib>
#include <memory>
#include <vector>

namespace moe::gpu {

/// An access to a word of global memory by an agent of a cluster.
struct GlobalRecord {
  uint32_t cluster : 20; // its number in the machine
  uint32_t lane : 5;
  uint32_t bytes : 4; // mask of the bytes of the word
  uint32_t strong : 1;
  uint32_t async : 1; // through the asynchronous proxy
  uint32_t exists : 1;
  Epoch epoch;

  static constexpr uint32_t maxClusters = 1u << 20;
  bool operator==(const GlobalRecord &other) const {
    return cluster == other.cluster && lane == other.lane &&
           bytes == other.bytes && strong == other.strong &&
           async == other.async && exists == other.exists &&
           epoch.bits == other.epoch.bits;
  }
};
static_assert(sizeof(GlobalRecord) == 8, "there are three for each word");

/// The shadow of an allocation: for each byte whether anything wrote it, and
/// for each word the last write and two reads since, of the launches that run
/// together. Two reads suffice: a write that is ordered with neither races, and
/// one that is ordered with both is hardly unordered with a third.
class GlobalShadow {
public:
  /// `written`: whether the bytes have values from the start.
  GlobalShadow(uint64_t bytes, bool written);
  ~GlobalShadow() { std::free(bits); }
  GlobalShadow(const GlobalShadow &) = delete;

  /// Returns the first byte of a range that nobody wrote, or its end.
  uint64_t firstUnwritten(uint64_t offset, uint64_t count) const {
    if (allWritten)
      return offset + count;
    return findUnwritten(offset, count);
  }
  void markWritten(uint64_t offset, uint64_t count) {
    if (!allWritten)
      mark(offset, count);
  }
  /// Marks what a copy writes: as much as was written in its source.
  void copyWritten(uint64_t offset, const GlobalShadow &from,
                   uint64_t fromOffset, uint64_t count);

  static constexpr uint32_t pageWords = 1024;
  struct Page {
    uint64_t machine = 0; // whose accesses these are
    std::array<GlobalRecord, pageWords> write, reads[2];
  };
  /// The page of a word, emptied if it has the accesses of another machine.
  Page &page(uint64_t word, uint64_t machine) {
    std::unique_ptr<Page> &found = pages[word / pageWords];
    if (!found || found->machine != machine)
      renew(found, machine);
    return *found;
  }

private:
  uint64_t findUnwritten(uint64_t offset, uint64_t count) const;
  void mark(uint64_t offset, uint64_t count);
  static void renew(std::unique_ptr<Page> &page, uint64_t machine);

  uint64_t bytes;
  bool allWritten;
  uint64_t *bits = nullptr; // one for each byte; from calloc: mostly untouched
  std::vector<std::unique_ptr<Page>> pages;
};

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_GLOBAL_SHADOW_H
