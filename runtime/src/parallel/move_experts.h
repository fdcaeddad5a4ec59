//===- move_experts.h - Move experts between ranks --------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_PARALLEL_MOVE_EXPERTS_H
#define MOE_RT_SRC_PARALLEL_MOVE_EXPERTS_H

#include "parallel/parallel_layer.h"

namespace moe::rt {

/// Moves the weights of a layer from one table of experts to another, an array
/// at a time. What a part has for a slot, as it is and as it is prepared,
/// depends on the expert in it alone.
class ExpertMove {
public:
  explicit ExpertMove(moe_rt_group_t &group)
      : group(group), sent(group.communicator), received(group.communicator),
        outgoing(group.size()), incoming(group.size()) {}

  /// Find out what moves, and allocate what this rank needs for it. Changes no
  /// weight.
  moe_rt_status_t prepare(const ParallelFunction &function,
                          const ParallelWeights &weights,
                          const ExpertTable &from, const ExpertTable &to);
  /// Free what `prepare` has allocated, where no exchange follows.
  void cancel();
  /// Whether this rank has to copy what is mapped before it takes experts.
  bool copies() const;
  /// Copy it, when the ranks have agreed.
  moe_rt_status_t copy();
  /// Exchange it; an error ends the group.
  moe_rt_status_t run(moe_rt_exchange_statistics_t &statistics);

private:
  /// An array with an element for each slot: of the weights of a part.
  struct SlotArray {
    LayerWeights *weights;
    size_t position;
    bool isPrepared; // a prepared argument, else a weight
    uint64_t slotBytes;

    char *data() const {
      return (isPrepared ? weights->prepared() : weights->weights())[position]
          .data;
    }
    /// Whether it is the layer's to write.
    bool isKept() const { return isPrepared || weights->isKept(position); }
  };

  void plan(const ExpertTable &from, const ExpertTable &to);
  moe_rt_status_t findArrays(const ParallelFunction &function,
                             moe_rt_layer_t &part);
  moe_rt_status_t moveArray(const SlotArray &array,
                            moe_rt_exchange_statistics_t &statistics);

  moe_rt_group_t &group;
  SharedBuffer sent, received;
  std::vector<SlotArray> arrays;
  /// The slots of this rank that each rank takes, and those that what comes
  /// from each rank is for, both in the order of the latter.
  std::vector<std::vector<size_t>> outgoing, incoming;
  bool moves = false;   // some rank takes an expert
  bool changes = false; // this one does
};

} // namespace moe::rt

#endif // MOE_RT_SRC_PARALLEL_MOVE_EXPERTS_H
