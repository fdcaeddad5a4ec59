//===- parallel_layer.h - Layers over several ranks -------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_PARALLEL_PARALLEL_LAYER_H
#define MOE_RT_SRC_PARALLEL_PARALLEL_LAYER_H

#include "layer/layer.h"
#include "layer/profile.h"
#include "parallel/expert_table.h"
#include "parallel/group.h"

namespace moe::rt {

/// Its weights are those of its parts.
class ParallelWeights final : public LayerWeights {
public:
  explicit ParallelWeights(const moe_rt_module_t &module);

  uint64_t ownedBytes() const override;

  std::vector<std::unique_ptr<moe_rt_layer_t>> parts;

private:
  moe_rt_status_t own(const Argument &, const char *, BoundTensor &) override;
  moe_rt_status_t load(const WeightSource &, size_t,
                       const BoundTensor &) override;
  moe_rt_status_t prepare(const WeightSource &, const Preparation &,
                          const BoundTensor &) override;
  moe_rt_status_t fetch(const Argument &, const BoundTensor &,
                        void *) const override;
};

/// There are none of the whole layer.
class NoStatistics final : public Statistics {
public:
  moe_rt_status_t read(size_t, moe_rt_statistics_t &) override;
  void reset() override {}
};

class ParallelSource;

/// A layer on one rank of a group.
class ParallelLayer final : public DeviceLayer {
public:
  ParallelLayer(const moe_rt_layer_t &layer, const ParallelFunction &function,
                moe_rt_group_t &group)
      : layer(layer), function(function), group(group),
        itsWeights(*layer.module),
        itsTargets(layer.module->context->allocator) {}

  /// Check what is to be the same on all ranks, then create the parts from the
  /// weights of all experts.
  moe_rt_status_t create(const DLTensor *table, moe_rt_status_t failure,
                         const WeightSource &weights);

  LayerWeights &weights() override { return itsWeights; }
  Statistics &statistics() override { return itsStatistics; }
  Profile &profile() override { return itsProfile; }
  moe_rt_status_t enableProfile(bool value) override {
    return itsProfile.enable(value);
  }
  moe_rt_status_t workspace(int64_t tokens, uint64_t &out) const override;
  moe_rt_status_t call(const CallArguments &arguments) override;
  moe_rt_status_t callOnStream(const CallArguments &arguments, void *stream,
                               const int32_t *liveTokens) override;
  moe_rt_status_t poll() override { return nullptr; }
  moe_rt_status_t refuse(moe_rt_status_t status) override;
  /// Take other weights for the experts of this rank.
  moe_rt_status_t update(ParallelSource &source);
  /// Whether there are weights: not after an `update` that failed.
  moe_rt_status_t checkWeights() const;
  /// Change the table of experts, with all other ranks.
  moe_rt_status_t move(const DLTensor *table);
  ParallelLayer *parallel() override { return this; }

  /// The value of the metadata that says where tokens go.
  const int32_t *targets() const {
    return reinterpret_cast<const int32_t *>(itsTargets.data());
  }
  /// Says which experts all ranks have.
  uint64_t tableHash() const { return experts.hash(); }
  /// The part that a step calls.
  moe_rt_layer_t &part(const PartCall &call) const {
    return *itsWeights.parts[partOf[call.function]];
  }

  const moe_rt_layer_t &layer;
  const ParallelFunction &function;
  moe_rt_group_t &group;
  size_t number = 0; // in the group
  Profile itsProfile;
  moe_rt_exchange_statistics_t exchanged = {};
  /// Whether all tokens go to all ranks, where a call can do that.
  bool gathersTokens = false;
  /// Rows that the group's memory was large enough for, at its size then.
  int64_t readyRows = 0;

private:
  moe_rt_status_t prepare(const DLTensor *table);
  void writeTargets();
  void chooseWay();
  moe_rt_status_t createParts(const WeightSource &weights);

  ParallelWeights itsWeights;
  NoStatistics itsStatistics;
  Buffer itsTargets;
  ExpertTable experts;
  std::vector<size_t> partOf; // of each function of the variant
};

/// Where the weights of a layer over several ranks come from.
class ParallelSource {
public:
  virtual ~ParallelSource() = default;
  /// Check it for a layer.
  virtual moe_rt_status_t open(const moe_rt_module_t &module,
                               const ParallelFunction &function,
                               WeightSource &out) = 0;
  /// What the layer has to keep in memory.
  virtual std::shared_ptr<void> mapping() { return nullptr; }
};

moe_rt_status_t createParallelLayer(moe_rt_module_t *module, const char *name,
                                    moe_rt_group_t *group,
                                    const DLTensor *table,
                                    ParallelSource &source,
                                    moe_rt_layer_t **out);

} // namespace moe::rt

#endif // MOE_RT_SRC_PARALLEL_PARALLEL_LAYER_H
