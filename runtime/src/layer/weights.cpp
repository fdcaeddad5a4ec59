//===- weights.cpp - Weights of a layer -----------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "layer/weights.h"

#include <cinttypes>

using namespace moe::rt;

moe_rt_status_t WeightSource::load(const Argument &argument, size_t weight,
                                   int64_t first, int64_t count, char *data,
                                   uint64_t bytes) const {
  if (bytes == 0)
    return nullptr;
  if (int32_t code = read(user, weight, first, count, data, bytes))
    return makeError(MOE_RT_NOT_FOUND,
                     "weight '%s': the source failed with code %d to read "
                     "%" PRId64 " elements of its first dimension from "
                     "%" PRId64 " on",
                     argument.name.c_str(), code, count, first);
  return checkElements(argument, {data, bytes});
}

moe_rt_status_t LayerWeights::prepareAll(const WeightSource &source) {
  complete = false;
  for (size_t i = 0; i < function.preparations.size(); ++i) {
    const Preparation &preparation = function.preparations[i];
    const Argument &argument = function.arguments[preparation.argument];
    if (i == boundPrepared.size()) {
      BoundTensor created;
      MOE_RT_TRY(own(argument, "prepared weight", created));
      boundPrepared.push_back(created);
    }
    const BoundTensor bound = boundPrepared[i];
    if (bound.bytes > 0)
      MOE_RT_TRY(prepare(source, preparation, bound));
    if (preparation.measures) {
      std::vector<float> errors(bound.bytes / sizeof(float));
      if (bound.bytes > 0)
        MOE_RT_TRY(fetch(argument, bound, errors.data()));
      measured[*preparation.measures] = std::move(errors);
    }
  }
  complete = true;
  return nullptr;
}

const std::vector<float> &LayerWeights::errors(size_t position) const {
  static const std::vector<float> none;
  auto found = measured.find(position);
  return found == measured.end() ? none : found->second;
}

moe_rt_status_t LayerWeights::check(const DLTensor *tensors,
                                    std::vector<BoundTensor> &out) const {
  for (size_t i = 0; i < function.weights.size(); ++i) {
    TokenCount unused; // a weight has no dynamic extent
    BoundTensor bound;
    MOE_RT_TRY(checkTensor(weight(i), tensors[i], *module.context->device,
                           unused, bound));
    MOE_RT_TRY(checkContents(weight(i), bound));
    out.push_back(bound);
  }
  return nullptr;
}

moe_rt_status_t LayerWeights::bind(const DLTensor *tensors) {
  std::vector<BoundTensor> checked;
  MOE_RT_TRY(check(tensors, checked));
  fromTensors = true;
  return prepareBound(std::move(checked));
}

moe_rt_status_t LayerWeights::rebind(const DLTensor *tensors) {
  std::vector<BoundTensor> checked;
  MOE_RT_TRY(check(tensors, checked));
  MOE_RT_TRY(waitForCalls());
  return prepareBound(std::move(checked));
}

moe_rt_status_t LayerWeights::prepareBound(std::vector<BoundTensor> tensors) {
  boundWeights = std::move(tensors);
  MOE_RT_TRY(prepareAll(WeightSource()));
  for (size_t i = 0; i < function.weights.size(); ++i)
    if (!weight(i).retained)
      boundWeights[i] = {nullptr, 0};
  return nullptr;
}

moe_rt_status_t LayerWeights::place(const WeightSource &source, size_t position,
                                    BoundTensor &out) {
  MOE_RT_TRY(own(weight(position), "weight", out));
  return load(source, position, out);
}

moe_rt_status_t LayerWeights::keep(size_t position) {
  BoundTensor &bound = boundWeights[position];
  if (owns(bound))
    return nullptr;
  BoundTensor copy;
  MOE_RT_TRY(own(weight(position), "weight", copy));
  if (bound.bytes > 0)
    MOE_RT_TRY(fetch(weight(position), bound, copy.data));
  bound = copy;
  return nullptr;
}

moe_rt_status_t LayerWeights::reread(const WeightSource &source) {
  MOE_RT_TRY(waitForCalls());
  complete = false;
  for (size_t i = 0; i < function.weights.size(); ++i) {
    if (!weight(i).retained)
      continue;
    if (owns(boundWeights[i]))
      MOE_RT_TRY(load(source, i, boundWeights[i]));
    else
      MOE_RT_TRY(place(source, i, boundWeights[i]));
  }
  return prepareAll(source);
}

moe_rt_status_t LayerWeights::read(const WeightSource &source) {
  for (size_t i = 0; i < function.weights.size(); ++i) {
    BoundTensor bound = {nullptr, 0};
    if (weight(i).retained)
      MOE_RT_TRY(place(source, i, bound));
    boundWeights.push_back(bound);
  }
  return prepareAll(source);
}
