//===- parallel_layer.cpp - Layers over several ranks ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "parallel/parallel_layer.h"
#include "parallel/move_experts.h"
#include "parallel/parallel_call.h"
#include "parallel/part_weights.h"

#include <new>

#define XXH_INLINE_ALL
#include <xxhash.h>

using namespace moe::rt;

//===----------------------------------------------------------------------===//
// Weights and statistics
//===----------------------------------------------------------------------===//

/// From this share on, packing the tokens that go to a rank saves no bytes. The
/// plan has the same (NEARLY_ALL).
static constexpr double nearlyAll = 0.99;

/// A function without weights.
static const Function none = {};

ParallelWeights::ParallelWeights(const moe_rt_module_t &module)
    : LayerWeights(module, none) {}

uint64_t ParallelWeights::ownedBytes() const {
  uint64_t bytes = 0;
  for (const auto &part : parts)
    bytes += part->onDevice->weights().ownedBytes();
  return bytes;
}

static moe_rt_status_t unimplemented(const char *what) {
  return makeError(MOE_RT_UNIMPLEMENTED, "a layer over several ranks has no %s",
                   what);
}

moe_rt_status_t ParallelWeights::own(const Argument &, const char *,
                                     BoundTensor &) {
  return unimplemented("weights of its own");
}

moe_rt_status_t ParallelWeights::load(const WeightSource &, size_t,
                                      const BoundTensor &) {
  return unimplemented("weights of its own");
}

moe_rt_status_t ParallelWeights::prepare(const WeightSource &,
                                         const Preparation &,
                                         const BoundTensor &) {
  return unimplemented("prepared weights of its own");
}

moe_rt_status_t ParallelWeights::fetch(const Argument &, const BoundTensor &,
                                       void *) const {
  return unimplemented("weights of its own");
}

moe_rt_status_t NoStatistics::read(size_t, moe_rt_statistics_t &) {
  return unimplemented("statistics of dispatches");
}

//===----------------------------------------------------------------------===//
// ParallelLayer
//===----------------------------------------------------------------------===//

/// What this rank can find out alone.
moe_rt_status_t ParallelLayer::prepare(const DLTensor *table) {
  MOE_RT_TRY(experts.initialise(function, group.size(), table));
  size_t alignment = bufferAlignment;
  for (const Value &value : function.values)
    if (value.kind == Value::Kind::placement)
      alignment = std::max<size_t>(alignment, value.type.alignment);
  auto count = static_cast<size_t>(function.experts * function.replicas);
  MOE_RT_TRY(
      itsTargets.allocate(count * sizeof(int32_t), "placement", alignment));
  writeTargets();
  return itsWeights.read(WeightSource());
}

/// Write where tokens go for the table of experts.
void ParallelLayer::writeTargets() {
  std::vector<int32_t> ids = experts.targetsOf(
      group.rank(), static_cast<size_t>(group.communicator.node_size));
  std::copy(ids.begin(), ids.end(),
            reinterpret_cast<int32_t *>(itsTargets.data()));
}

/// Choose whether all tokens go to all ranks, where the group may: the table is
/// the same on all ranks, and so is what comes of it.
void ParallelLayer::chooseWay() {
  gathersTokens = group.way == MOE_RT_WAY_ALL_GATHER ||
                  (group.mayGather && !function.roundTrips.empty());
  if (!group.mayGather)
    return;
  for (const RoundTrip &trip : function.roundTrips) {
    const Sent &slots = function.steps[trip.first].exchange.values[trip.slots];
    gathersTokens &=
        experts.shareOfTokens(
            function.values[slots.source].type.shape.back()) >= nearlyAll;
  }
}

/// Create the parts with the weights of this rank's experts.
moe_rt_status_t ParallelLayer::createParts(const WeightSource &weights) {
  const Variant &variant = layer.module->variant;
  partOf.assign(variant.functions.size(), SIZE_MAX);
  for (const Step &step : function.steps) {
    if (step.kind != Step::Kind::call || partOf[step.call.function] != SIZE_MAX)
      continue;
    const Function &part = variant.functions[step.call.function];
    PartSource source(function, part, weights, experts.slotsOf(group.rank()));
    moe_rt_layer_t *created = nullptr;
    MOE_RT_TRY(createLayer(layer.module, part, source.source(), &created));
    partOf[step.call.function] = itsWeights.parts.size();
    itsWeights.parts.emplace_back(created);
  }
  return nullptr;
}

moe_rt_status_t ParallelLayer::create(const DLTensor *table,
                                      moe_rt_status_t failure,
                                      const WeightSource &weights) {
  if (!failure)
    failure = prepare(table);
  const Function &signature = function.signature;
  const std::string &text = layer.module->text;
  // The code for another machine may compute other bits.
  uint64_t artifact = XXH3_64bits_withSeed(text.data(), text.size(),
                                           layer.module->variantIndex);
  Words own = {static_cast<int64_t>(Action::createLayer),
               0,
               0,
               {signature.minTokens, signature.maxTokens,
                static_cast<int64_t>(
                    XXH3_64bits(signature.name.data(), signature.name.size())),
                failure ? 0 : static_cast<int64_t>(experts.hash()),
                static_cast<int64_t>(artifact)}};
  MOE_RT_TRY(group.agree(own, failure,
                         {{0, "a least T of"},
                          {1, "a greatest T of"},
                          {2, "a layer whose name has hash"},
                          {3, "a table of experts with hash"},
                          {4, "an artifact with hash"}}));
  moe_rt_status_t created = createParts(weights);
  MOE_RT_TRY(group.agree({static_cast<int64_t>(Action::createLayer), 0, 0, {}},
                         created, {}));
  for (const Step &step : function.steps) {
    switch (step.kind) {
    case Step::Kind::call:
      itsProfile.addStage(
          layer.module->variant.functions[step.call.function].name, "");
      break;
    case Step::Kind::exchange:
      itsProfile.addStage("exchange", "");
      break;
    case Step::Kind::gather:
      itsProfile.addStage("gather", "");
      break;
    case Step::Kind::own:
      itsProfile.addStage("own", "");
      break;
    }
  }
  itsProfile.addStage("agreement", "");
  chooseWay();
  number = group.layerNames.size();
  group.layerNames.push_back(signature.name);
  return nullptr;
}

moe_rt_status_t ParallelLayer::workspace(int64_t tokens, uint64_t &out) const {
  out = ParallelCall::workspace(*this, tokens);
  return nullptr;
}

moe_rt_status_t ParallelLayer::call(const CallArguments &arguments) {
  std::lock_guard<std::mutex> lock(group.mutex);
  MOE_RT_TRY(group.checkAlive());
  return ParallelCall(*this).run(arguments);
}

moe_rt_status_t ParallelLayer::update(ParallelSource &source) {
  std::lock_guard<std::mutex> lock(group.mutex);
  WeightSource weights;
  MOE_RT_TRY(source.open(*layer.module, function, weights));
  const Variant &variant = layer.module->variant;
  for (size_t i = 0; i < partOf.size(); ++i) {
    if (partOf[i] == SIZE_MAX)
      continue;
    PartSource part(function, variant.functions[i], weights,
                    experts.slotsOf(group.rank()));
    MOE_RT_TRY(
        itsWeights.parts[partOf[i]]->onDevice->weights().reread(part.source()));
  }
  return nullptr;
}

moe_rt_status_t ParallelLayer::checkWeights() const {
  for (const auto &part : itsWeights.parts)
    if (!part->onDevice->weights().isComplete())
      return makeError(MOE_RT_FAILED_PRECONDITION,
                       "layer '%s' has no weights, as an update failed",
                       function.signature.name.c_str());
  return nullptr;
}

moe_rt_status_t ParallelLayer::move(const DLTensor *table) {
  std::lock_guard<std::mutex> lock(group.mutex);
  MOE_RT_TRY(group.checkAlive());
  ExpertTable wanted;
  ExpertMove move(group);
  moe_rt_status_t status = wanted.initialise(function, group.size(), table);
  // Other ranks would take what is no weight.
  if (!status)
    status = checkWeights();
  if (!status)
    status = move.prepare(function, itsWeights, experts, wanted);
  Words own = {static_cast<int64_t>(Action::moveExperts),
               0,
               0,
               {static_cast<int64_t>(number),
                status ? 0 : static_cast<int64_t>(wanted.hash()),
                !status && move.copies()}};
  status = group.agree(
      own, status, {{0, "layer", true}, {1, "a table of experts with hash"}});
  // A copy may fail, too, before anything has moved.
  bool copies = false;
  for (size_t r = 0; r < group.size() && !status; ++r)
    copies |= group.heard(r).values[2] != 0;
  if (copies)
    status = group.agree({static_cast<int64_t>(Action::moveExperts), 0, 0, {}},
                         move.copy(), {});
  if (status) {
    move.cancel();
    return status;
  }
  MOE_RT_TRY(move.run(exchanged));
  // A rank that has not come so far has experts of both tables: no rank goes
  // on.
  MOE_RT_TRY(group.agree({static_cast<int64_t>(Action::moveExperts), 0, 0, {}},
                         nullptr, {}));
  experts = std::move(wanted);
  writeTargets();
  chooseWay();
  return nullptr;
}

moe_rt_status_t ParallelLayer::refuse(moe_rt_status_t status) {
  std::lock_guard<std::mutex> lock(group.mutex);
  return ParallelCall(*this).refuse(status);
}

moe_rt_status_t ParallelLayer::callOnStream(const CallArguments &arguments,
                                            void *stream,
                                            const int32_t *liveTokens) {
  if (stream || liveTokens)
    return refuse(makeError(MOE_RT_INVALID_ARGUMENT,
                            "stream is %p and live_tokens is %p, expected NULL "
                            "on the CPU",
                            stream, static_cast<const void *>(liveTokens)));
  return call(arguments);
}

//===----------------------------------------------------------------------===//
// C interface
//===----------------------------------------------------------------------===//

moe_rt_status_t
moe::rt::createParallelLayer(moe_rt_module_t *module, const char *name,
                             moe_rt_group_t *group, const DLTensor *table,
                             ParallelSource &source, moe_rt_layer_t **out) {
  std::lock_guard<std::mutex> lock(group->mutex);
  MOE_RT_TRY(group->checkAlive());
  // The others learn that there is no such layer.
  static const ParallelFunction unknown = {};
  const ParallelFunction *function = &unknown;
  moe_rt_status_t failure = findParallel(module, name, function);
  WeightSource weights;
  if (!failure)
    failure = source.open(*module, *function, weights);
  if (!failure && module->context != group->context)
    failure = makeError(MOE_RT_INVALID_ARGUMENT,
                        "layer '%s': the module and the group have different "
                        "contexts",
                        function->signature.name.c_str());
  auto created = std::make_unique<moe_rt_layer_t>(module, function->signature);
  auto parallel = std::make_unique<ParallelLayer>(*created, *function, *group);
  MOE_RT_TRY(parallel->create(table, failure, weights));
  created->onDevice = std::move(parallel);
  created->mapping = source.mapping();
  *out = created.release();
  return nullptr;
}

namespace {

class FromTensors final : public ParallelSource {
public:
  FromTensors(const DLTensor *tensors, size_t count)
      : tensors(tensors), count(count) {}

  moe_rt_status_t open(const moe_rt_module_t &module,
                       const ParallelFunction &function,
                       WeightSource &out) override {
    const Function &signature = function.signature;
    if (count != signature.weights.size() || (count > 0 && !tensors))
      return makeError(MOE_RT_INVALID_ARGUMENT,
                       "layer '%s': %zu weights are given, expected %zu",
                       signature.name.c_str(), tensors ? count : 0,
                       signature.weights.size());
    out = source.source();
    return source.check(signature, *module.context->device, tensors);
  }

private:
  const DLTensor *tensors;
  size_t count;
  TensorSource source;
};

class FromReader final : public ParallelSource {
public:
  FromReader(moe_rt_read_weight_fn read, void *user) {
    given.read = read;
    given.user = user;
  }

  moe_rt_status_t open(const moe_rt_module_t &, const ParallelFunction &,
                       WeightSource &out) override {
    out = given;
    return nullptr;
  }

private:
  WeightSource given;
};

} // namespace

extern "C" {

moe_rt_status_t
moe_rt_layer_create_parallel(moe_rt_module_t *module, const char *name,
                             moe_rt_group_t *group, const DLTensor *table,
                             const DLTensor *weights, size_t count,
                             moe_rt_layer_t **out) {
  if (!module || !group || !out)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "moe_rt_layer_create_parallel: an argument is NULL");
  FromTensors source(weights, count);
  return createParallelLayer(module, name, group, table, source, out);
}

moe_rt_status_t moe_rt_layer_create_parallel_from_source(
    moe_rt_module_t *module, const char *name, moe_rt_group_t *group,
    const DLTensor *table, moe_rt_read_weight_fn read, void *user,
    moe_rt_layer_t **out) {
  if (!module || !group || !read || !out)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "moe_rt_layer_create_parallel_from_source: an argument is "
                     "NULL");
  FromReader source(read, user);
  return createParallelLayer(module, name, group, table, source, out);
}

moe_rt_status_t moe_rt_layer_update_parallel_from_source(
    moe_rt_layer_t *layer, moe_rt_read_weight_fn read, void *user) {
  if (!layer || !read)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "moe_rt_layer_update_parallel_from_source: an argument is "
                     "NULL");
  ParallelLayer *parallel = layer->onDevice->parallel();
  if (!parallel)
    return makeError(MOE_RT_FAILED_PRECONDITION,
                     "function '%s' is no layer over several ranks",
                     layer->function.name.c_str());
  FromReader source(read, user);
  return parallel->update(source);
}

moe_rt_status_t moe_rt_layer_move(moe_rt_layer_t *layer,
                                  const DLTensor *table) {
  if (!layer)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "moe_rt_layer_move: 'layer' is NULL");
  ParallelLayer *parallel = layer->onDevice->parallel();
  if (!parallel)
    return makeError(MOE_RT_FAILED_PRECONDITION,
                     "function '%s' is no layer over several ranks",
                     layer->function.name.c_str());
  return parallel->move(table);
}

moe_rt_status_t
moe_rt_layer_exchange_statistics(moe_rt_layer_t *layer,
                                 moe_rt_exchange_statistics_t *out) {
  if (!layer || !out)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "moe_rt_layer_exchange_statistics: an argument is NULL");
  const ParallelLayer *parallel = layer->onDevice->parallel();
  if (!parallel)
    return makeError(MOE_RT_FAILED_PRECONDITION,
                     "function '%s' is no layer over several ranks",
                     layer->function.name.c_str());
  std::lock_guard<std::mutex> lock(parallel->group.mutex);
  *out = parallel->exchanged;
  return nullptr;
}

size_t moe_rt_module_parallel_count(const moe_rt_module_t *module) {
  return module ? module->variant.parallel.size() : 0;
}

const char *moe_rt_module_parallel_name(const moe_rt_module_t *module,
                                        size_t index) {
  if (index >= moe_rt_module_parallel_count(module))
    return nullptr;
  return module->variant.parallel[index]->signature.name.c_str();
}

moe_rt_status_t moe_rt_parallel_info(const moe_rt_module_t *module,
                                     const char *name,
                                     moe_rt_parallel_info_t *out) {
  if (!module || !out)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "moe_rt_parallel_info: an argument is NULL");
  const ParallelFunction *found;
  MOE_RT_TRY(findParallel(module, name, found));
  *out = {found->experts, found->slots, found->replicas,
          found->signature.minTokens, found->signature.maxTokens};
  return nullptr;
}

} // extern "C"
