//===- part_weights.cpp - The weights of one rank -------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "parallel/part_weights.h"

#include <cstring>

using namespace moe::rt;

//===----------------------------------------------------------------------===//
// TensorSource
//===----------------------------------------------------------------------===//

moe_rt_status_t TensorSource::check(const Function &layer, const Device &device,
                                    const DLTensor *tensors) {
  for (size_t i = 0; i < layer.weights.size(); ++i) {
    const Argument &argument = layer.arguments[layer.weights[i]];
    TokenCount unused; // a weight has no dynamic extent
    BoundTensor tensor;
    MOE_RT_TRY(checkTensor(argument, tensors[i], device, unused, tensor));
    MOE_RT_TRY(checkElements(argument, tensor));
    bound.push_back(tensor);
    bool hasElements = !argument.shape.empty() && argument.shape[0] > 0;
    strides.push_back(hasElements ? tensor.bytes /
                                        static_cast<uint64_t>(argument.shape[0])
                                  : 0);
  }
  return nullptr;
}

WeightSource TensorSource::source() {
  WeightSource source;
  source.user = this;
  source.read = [](void *user, size_t weight, int64_t first, int64_t,
                   void *data, uint64_t bytes) -> int32_t {
    const auto &self = *static_cast<const TensorSource *>(user);
    std::memcpy(data,
                self.bound[weight].data +
                    static_cast<uint64_t>(first) * self.strides[weight],
                static_cast<size_t>(bytes));
    return 0;
  };
  source.mapped = [](void *user, size_t weight) -> const void * {
    return static_cast<const TensorSource *>(user)->bound[weight].data;
  };
  return source;
}

//===----------------------------------------------------------------------===//
// PartSource
//===----------------------------------------------------------------------===//

PartSource::PartSource(const ParallelFunction &layer, const Function &part,
                       const WeightSource &whole, const int32_t *slots)
    : whole(whole), slots(slots), slotCount(layer.slots) {
  const Function &signature = layer.signature;
  for (size_t index : part.weights) {
    const Argument &own = part.arguments[index];
    // Parsing has found it.
    Origin origin = {0, false, 0, own.alignment};
    while (signature.arguments[signature.weights[origin.weight]].name !=
           own.name)
      ++origin.weight;
    const Argument &from =
        signature.arguments[signature.weights[origin.weight]];
    origin.isOfSlots = own.shape != from.shape;
    if (origin.isOfSlots)
      origin.expertBytes = own.staticBytes() / static_cast<uint64_t>(slotCount);
    origins.push_back(origin);
  }
}

int32_t PartSource::read(size_t weight, int64_t first, int64_t count,
                         char *data, uint64_t bytes) const {
  const Origin &origin = origins[weight];
  if (!origin.isOfSlots)
    return whole.read(whole.user, origin.weight, first, count, data, bytes);
  for (int64_t i = 0; i < count;) {
    int32_t expert = slots[first + i];
    int64_t run = 1;
    if (expert >= 0)
      while (i + run < count && slots[first + i + run] == expert + run)
        ++run;
    uint64_t runBytes = static_cast<uint64_t>(run) * origin.expertBytes;
    if (expert < 0)
      std::memset(data, 0, static_cast<size_t>(runBytes));
    else if (int32_t code = whole.read(whole.user, origin.weight, expert, run,
                                       data, runBytes))
      return code;
    data += runBytes;
    i += run;
  }
  return 0;
}

const void *PartSource::map(size_t weight) const {
  const Origin &origin = origins[weight];
  const void *data =
      whole.mapped ? whole.mapped(whole.user, origin.weight) : nullptr;
  auto isAligned = [&](const void *address) {
    return reinterpret_cast<uintptr_t>(address) % origin.alignment == 0;
  };
  if (!data || !origin.isOfSlots)
    return isAligned(data) ? data : nullptr;
  for (int64_t i = 0; i < slotCount; ++i)
    if (slots[0] < 0 || slots[i] != slots[0] + i)
      return nullptr;
  const char *begin = static_cast<const char *>(data) +
                      static_cast<uint64_t>(slots[0]) * origin.expertBytes;
  return isAligned(begin) ? begin : nullptr;
}

WeightSource PartSource::source() {
  WeightSource source;
  source.user = this;
  source.read = [](void *user, size_t weight, int64_t first, int64_t count,
                   void *data, uint64_t bytes) {
    return static_cast<const PartSource *>(user)->read(
        weight, first, count, static_cast<char *>(data), bytes);
  };
  source.mapped = [](void *user, size_t weight) {
    return static_cast<const PartSource *>(user)->map(weight);
  };
  return source;
}
