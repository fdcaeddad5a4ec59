//===- segments.h - Memory that ranks of a machine share --------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_PARALLEL_WINDOWS_SEGMENTS_H
#define MOE_RT_SRC_PARALLEL_WINDOWS_SEGMENTS_H

#include "support/status.h"

#include <array>
#include <map>
#include <string>
#include <unistd.h>
#include <vector>

namespace moe::rt {

/// Where another rank finds memory of this one, in words that travel.
struct Window {
  int64_t segment; // 0: `offset` is an address
  int64_t offset;
};

/// Memory of this process that other processes of its machine map and read. A
/// segment is a file without a name: it goes with the last process that has it,
/// however that one ends.
class Segments {
public:
  /// What the other processes need to find those of this one.
  static constexpr size_t wordCount = 5;
  using Words = std::array<int64_t, wordCount>;

  explicit Segments(size_t ranks) : others(ranks), seen(ranks) {}
  ~Segments();
  Segments(const Segments &) = delete;
  Segments &operator=(const Segments &) = delete;

  /// Make a segment that tells whether others can read it.
  bool describe(Words &out);
  /// Check the one of another rank; on failure `why` says what is wrong.
  bool meet(size_t rank, const Words &words, std::string &why);

  void *allocate(uint64_t bytes);
  /// Free its pages, too, where other processes have it mapped.
  void release(void *memory);
  /// Where the others find an address in what `allocate` has returned.
  Window share(const void *address) const;
  /// The address of `bytes` of another rank's memory here, or null. What has
  /// been mapped stays until its rank has another segment in its place.
  const char *open(size_t rank, const Window &window, uint64_t bytes);

private:
  struct Own {
    int file;
    uint64_t bytes;
    int64_t name;
  };
  struct Seen {
    int64_t name;
    char *begin;
    uint64_t bytes;
  };

  /// What tells the segments of a rank from all others: later, a number of a
  /// process and a file may mean another one.
  struct Other {
    int64_t process, secret;
  };

  std::vector<Other> others; // of each rank
  std::map<const char *, Own> own;
  std::vector<std::map<int32_t, Seen>> seen; // of each rank, by its file
  int64_t count = 0;                         // of segments so far
  int64_t secret = 0;
  const pid_t process = getpid(); // not that of a copy (fork)
  void *probe = nullptr;
};

} // namespace moe::rt

#endif // MOE_RT_SRC_PARALLEL_WINDOWS_SEGMENTS_H
