//===- weights.h - Weights of a layer ---------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_LAYER_WEIGHTS_H
#define MOE_RT_SRC_LAYER_WEIGHTS_H

#include "core/module.h"
#include "layer/tensor.h"

#include <map>

namespace moe::rt {

/// Reads ranges of weights from a host's source; without `read` there is none.
struct WeightSource {
  moe_rt_read_weight_fn read = nullptr;
  void *user = nullptr;
  /// Where a weight already lies in memory of the host, aligned as its argument
  /// says, for as long as the layer lives; NULL if it does not.
  const void *(*mapped)(void *user, size_t weight) = nullptr;

  /// Read a part of an argument, weight `weight` of its function, to memory of
  /// the host.
  moe_rt_status_t load(const Argument &argument, size_t weight, int64_t first,
                       int64_t count, char *data, uint64_t bytes) const;
};

/// The weights of a function, as its calls read them.
class LayerWeights {
public:
  LayerWeights(const moe_rt_module_t &module, const Function &function)
      : module(module), function(function) {}
  virtual ~LayerWeights() = default;

  /// Check the caller's tensors, one for each weight, and prepare.
  virtual moe_rt_status_t bind(const DLTensor *tensors);
  /// Like `bind`, again: what is prepared replaces what was, in its memory. An
  /// error of the check changes nothing; any other leaves no weights.
  virtual moe_rt_status_t rebind(const DLTensor *tensors);
  /// Read what calls want to memory of its own, where it is not mapped, and
  /// prepare the rest.
  virtual moe_rt_status_t read(const WeightSource &source);

  /// Like `read`, again, to the memory that there is. An error leaves no
  /// weights.
  moe_rt_status_t reread(const WeightSource &source);

  /// Of the weights and of the prepared arguments, in signature order each.
  /// One that is not retained has no data.
  const std::vector<BoundTensor> &weights() const { return boundWeights; }
  const std::vector<BoundTensor> &prepared() const { return boundPrepared; }

  virtual uint64_t ownedBytes() const = 0;

  /// Move a weight that calls read to memory of the layer, if it lies in
  /// another's.
  moe_rt_status_t keep(size_t position);
  /// Whether it lies in memory of the layer.
  bool isKept(size_t position) const { return owns(boundWeights[position]); }

  /// Whether there are weights: not after a `rebind` that failed.
  bool isComplete() const { return complete; }
  /// Whether they are the caller's tensors, and not read from a source.
  bool areFromTensors() const { return fromTensors; }

  /// The relative errors of a weight that was quantised, one for each expert;
  /// empty for others.
  const std::vector<float> &errors(size_t position) const;

protected:
  /// Wait for calls that were enqueued and read the weights.
  virtual moe_rt_status_t waitForCalls() const { return nullptr; }

  const Argument &weight(size_t position) const {
    return function.arguments[function.weights[position]];
  }

  /// Check the elements of a caller's weight, where they can be seen.
  virtual moe_rt_status_t checkContents(const Argument &,
                                        const BoundTensor &) const {
    return nullptr;
  }
  /// Find the place of a weight that calls read: memory of the layer, unless
  /// the device reaches it where it is mapped.
  virtual moe_rt_status_t place(const WeightSource &source, size_t position,
                                BoundTensor &out);
  /// Allocate memory for an argument that the layer keeps, `what` of it.
  virtual moe_rt_status_t own(const Argument &argument, const char *what,
                              BoundTensor &out) = 0;
  /// Read all of a weight to such memory.
  virtual moe_rt_status_t load(const WeightSource &source, size_t position,
                               const BoundTensor &out) = 0;
  /// Compute an argument from weights: those that are bound, or the source's
  /// where there is one and calls do not read them.
  virtual moe_rt_status_t prepare(const WeightSource &source,
                                  const Preparation &preparation,
                                  const BoundTensor &out) = 0;

  /// Whether a weight lies in memory of the layer.
  virtual bool owns(const BoundTensor &) const { return true; }
  /// Copy an argument that the layer keeps to memory of the host.
  virtual moe_rt_status_t fetch(const Argument &argument,
                                const BoundTensor &from, void *to) const = 0;

  const moe_rt_module_t &module;
  const Function &function;

private:
  moe_rt_status_t check(const DLTensor *tensors,
                        std::vector<BoundTensor> &out) const;
  moe_rt_status_t prepareBound(std::vector<BoundTensor> tensors);
  moe_rt_status_t prepareAll(const WeightSource &source);

  bool complete = false, fromTensors = false;
  std::vector<BoundTensor> boundWeights, boundPrepared;
  std::map<size_t, std::vector<float>> measured; // by position of the weight
};

} // namespace moe::rt

#endif // MOE_RT_SRC_LAYER_WEIGHTS_H
