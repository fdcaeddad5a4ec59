//===- prepare.h - Prepare weights ------------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_PREPARE_H
#define MOE_RT_SRC_PREPARE_H

#include "module.h"
#include "tensor.h"

namespace moe::rt {

/// Reads ranges of weights from a host's source; without `read` there is none.
struct WeightSource {
  moe_rt_read_weight_fn read = nullptr;
  void *user = nullptr;

  /// Read a part of an argument, weight `weight` of its function.
  moe_rt_status_t load(const Argument &argument, size_t weight, int64_t first,
                       int64_t count, char *data, uint64_t bytes) const;
};

/// The weights of a function, as its calls read them.
class LayerWeights {
public:
  LayerWeights(const moe_rt_module_t &module, const Function &function)
      : module(module), function(function) {}

  /// Check the caller's tensors, one for each weight, and prepare.
  moe_rt_status_t bind(const DLTensor *tensors);
  /// Read what calls want to memory of its own, and prepare the rest.
  moe_rt_status_t read(moe_rt_read_weight_fn read, void *user);

  /// Of the weights and of the prepared arguments, in signature order each.
  /// One that is not retained has no data.
  const std::vector<BoundTensor> &weights() const { return boundWeights; }
  const std::vector<BoundTensor> &prepared() const { return boundPrepared; }

  uint64_t ownedBytes() const;

private:
  moe_rt_status_t own(const Argument &argument, const char *what,
                      BoundTensor &out);
  moe_rt_status_t prepareAll(const WeightSource &source);

  const moe_rt_module_t &module;
  const Function &function;
  std::vector<BoundTensor> boundWeights, boundPrepared;
  std::vector<Buffer> owned;
};

} // namespace moe::rt

#endif // MOE_RT_SRC_PREPARE_H
