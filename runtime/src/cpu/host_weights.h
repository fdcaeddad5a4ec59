//===- host_weights.h - Weights in memory of the host -----------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_CPU_HOST_WEIGHTS_H
#define MOE_RT_SRC_CPU_HOST_WEIGHTS_H

#include "layer/weights.h"
#include "support/buffer.h"

#include "moe_rt/executor.h"

namespace moe::rt {

/// The weights of a layer on the CPU.
class HostWeights final : public LayerWeights {
public:
  /// `executor` runs what prepares weights.
  HostWeights(const moe_rt_module_t &module, const Function &function,
              const moe_rt_executor_t &executor)
      : LayerWeights(module, function), executor(executor) {}

  uint64_t ownedBytes() const override;

private:
  moe_rt_status_t checkContents(const Argument &argument,
                                const BoundTensor &tensor) const override;
  /// Weights that are mapped stay where they are.
  moe_rt_status_t place(const WeightSource &source, size_t position,
                        BoundTensor &out) override;
  moe_rt_status_t own(const Argument &argument, const char *what,
                      BoundTensor &out) override;
  moe_rt_status_t load(const WeightSource &source, size_t position,
                       const BoundTensor &out) override;
  moe_rt_status_t prepare(const WeightSource &source,
                          const Preparation &preparation,
                          const BoundTensor &out) override;

  bool owns(const BoundTensor &tensor) const override;
  moe_rt_status_t fetch(const Argument &argument, const BoundTensor &from,
                        void *to) const override;

  const moe_rt_executor_t &executor;
  std::vector<Buffer> owned;
};

} // namespace moe::rt

#endif // MOE_RT_SRC_CPU_HOST_WEIGHTS_H
