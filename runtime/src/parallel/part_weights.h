//===- part_weights.h - The weights of one rank -----------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_PARALLEL_PART_WEIGHTS_H
#define MOE_RT_SRC_PARALLEL_PART_WEIGHTS_H

#include "artifact/parallel.h"
#include "layer/weights.h"

namespace moe::rt {

/// A caller's weights of all experts, as a source.
class TensorSource {
public:
  /// Check the tensors, one for each weight of the layer.
  moe_rt_status_t check(const Function &layer, const Device &device,
                        const DLTensor *tensors);
  WeightSource source();

private:
  std::vector<BoundTensor> bound;
  std::vector<uint64_t> strides; // bytes of an element of the first dimension
};

/// Reads the weights of a part from a source of the whole layer: of the
/// experts, those in the slots of one rank.
class PartSource {
public:
  PartSource(const ParallelFunction &layer, const Function &part,
             const WeightSource &whole, const int32_t *slots);

  WeightSource source();

private:
  /// How a weight of the part comes from one of the layer.
  struct Origin {
    size_t weight;
    bool isOfSlots;       // else it is the same
    uint64_t expertBytes; // of one expert, if it is of slots
    uint32_t alignment;
  };

  int32_t read(size_t weight, int64_t first, int64_t count, char *data,
               uint64_t bytes) const;
  const void *map(size_t weight) const;

  const WeightSource &whole;
  const int32_t *slots;
  const int64_t slotCount;
  std::vector<Origin> origins; // of the weights of the part
};

} // namespace moe::rt

#endif // MOE_RT_SRC_PARALLEL_PART_WEIGHTS_H
