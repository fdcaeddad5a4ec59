//===- layer.h - Layers -----------------------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_LAYER_LAYER_H
#define MOE_RT_SRC_LAYER_LAYER_H

#include "layer/call.h"
#include "layer/statistics.h"
#include "layer/weights.h"

struct moe_rt_layer_s {
  moe_rt_layer_s(moe_rt_module_t *module, const moe::rt::Function &function)
      : module(module), function(function) {}

  moe_rt_module_t *module;
  const moe::rt::Function &function;
  moe::rt::CallLayout layout;
  std::unique_ptr<moe::rt::DeviceLayer> onDevice;
  /// Keeps the files in memory that some of the weights lie in; often empty.
  std::shared_ptr<void> mapping;
};

namespace moe::rt {

/// Create a layer whose weights come from a source.
moe_rt_status_t createLayer(moe_rt_module_t *module, const Function &function,
                            const WeightSource &source, moe_rt_layer_t **out);
/// Check what every kind of call is given.
moe_rt_status_t checkCall(const char *name, const moe_rt_layer_t *layer,
                          const DLTensor *inputs, size_t inputCount,
                          const DLTensor *outputs, size_t outputCount);

} // namespace moe::rt

#endif // MOE_RT_SRC_LAYER_LAYER_H
