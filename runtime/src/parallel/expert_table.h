//===- expert_table.h - Which rank has which expert -------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_PARALLEL_EXPERT_TABLE_H
#define MOE_RT_SRC_PARALLEL_EXPERT_TABLE_H

#include "artifact/parallel.h"

namespace moe::rt {

/// The expert of each slot of each rank.
class ExpertTable {
public:
  /// Check a caller's table for `ranks` ranks; without one, give each rank
  /// neighbours.
  moe_rt_status_t initialise(const ParallelFunction &function, size_t ranks,
                             const DLTensor *table);

  /// The expert of each slot of a rank, -1 for an empty one.
  const int32_t *slotsOf(size_t rank) const { return &table[rank * slots]; }
  /// Where rank `rank` sends the tokens of each expert, [E, replicas]: slots of
  /// all ranks, then -1. Its own if it has the expert, else those of its node,
  /// else all; ranks begin with different ones.
  std::vector<int32_t> targetsOf(size_t rank, size_t nodeSize) const;
  uint64_t hash() const;
  /// The mean share of all tokens that goes to a rank, if each token chooses so
  /// many different experts, all alike. Experts that other ranks have, too, do
  /// not count.
  double shareOfTokens(int64_t choices) const;
  size_t slotCount() const { return slots; }
  size_t expertCount() const { return experts; }

private:
  moe_rt_status_t read(const DLTensor &tensor);
  moe_rt_status_t check(const ParallelFunction &function) const;

  size_t ranks = 0, slots = 0, experts = 0, replicas = 0;
  std::vector<int32_t> table;
};

} // namespace moe::rt

#endif // MOE_RT_SRC_PARALLEL_EXPERT_TABLE_H
