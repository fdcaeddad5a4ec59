//===- call_memory.h - The memory of a call over ranks ----------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_PARALLEL_CALL_MEMORY_H
#define MOE_RT_SRC_PARALLEL_CALL_MEMORY_H

#include "artifact/parallel.h"

namespace moe::rt {

/// The product of the first `dimensions` extents of a type, with `extent` for
/// dynamic ones; UINT64_MAX if it is more than that.
uint64_t countElements(const Argument &type, int64_t extent, size_t dimensions);
/// Rows of a value, of which its last dimension is one.
inline uint64_t countRows(const Argument &type, int64_t extent) {
  return countElements(type, extent, type.shape.size() - 1);
}

/// Where the values of a layer lie in the blocks of memory of a group, each of
/// which other extents decide. All sums saturate.
class CallMemory {
public:
  /// With `isRead` other ranks read rows where they lie.
  CallMemory(const ParallelFunction &function, const Variant &variant,
             bool isRead = false);

  /// Lay out the values of this rank's T tokens, those of all ranks' tokens,
  /// and those of received rows; return the bytes.
  uint64_t layoutHome(int64_t tokens);
  uint64_t layoutGathered(int64_t tokens);
  uint64_t layoutReceived(int64_t rows);

  /// Bytes of the rows to pack for an exchange that tokens leave by; where
  /// rows are read, those of the values of `tokens` that others cannot reach.
  uint64_t packedBytes(const Exchange &exchange, uint64_t rows,
                       int64_t tokens) const;
  /// The most workspace of a part with rows of one kind.
  uint64_t workspace(Rows kind, int64_t extent) const;
  /// The most received rows that all parts take.
  int64_t maxReceived() const { return receivedLimit; }
  /// What the dynamic extent of a step's part is.
  Rows rowsOf(size_t step) const { return partRows[step]; }
  /// Whether the sum of all tokens is in the range of all parts.
  moe_rt_status_t checkAll(int64_t tokens) const;

  /// Where the contents of a block begin.
  char *base(char *block) const {
    auto address = reinterpret_cast<uintptr_t>(block);
    return block + (-address & (maxAlignment - 1));
  }
  /// Of a value that is made, in its block.
  uint64_t offsetOf(size_t value) const { return offsets[value]; }
  /// Of the rows packed for value `i` of an exchange home, or for a gather.
  uint64_t packedOffsetOf(size_t step, size_t i) const {
    return packed[step][i];
  }
  /// Whether rows of it have to be copied before they can be sent.
  bool isPacked(const Sent &sent) const {
    return sent.index || !isReachable(sent.source);
  }
  /// Whether it lies in memory of the group.
  bool isReachable(size_t value) const {
    return function.values[value].kind == Value::Kind::made;
  }
  /// Bytes of the copy of a value that other ranks read, 0 if they can read it.
  uint64_t copyBytes(size_t value, int64_t extent) const;

  /// The bytes of a block whose contents end there.
  uint64_t finish(uint64_t end) const;

private:
  uint64_t layout(Rows kind, int64_t extent, uint64_t begin);

  const ParallelFunction &function;
  const Variant &variant;
  const bool isRead;
  std::vector<Rows> partRows; // of each step that is a call
  std::vector<uint64_t> offsets;
  std::vector<std::vector<uint64_t>> packed;
  int64_t receivedLimit = INT64_MAX;
  uint64_t maxAlignment;
};

} // namespace moe::rt

#endif // MOE_RT_SRC_PARALLEL_CALL_MEMORY_H
