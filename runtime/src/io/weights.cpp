//===- weights.cpp - Bind weights to a function ---------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "../dtype.h"
#include "../json.h"

#include "moe_rt/io.h"

#include <cmath>
#include <cstring>

using namespace moe;
using namespace moe::io;

//===----------------------------------------------------------------------===//
// Specifications
//===----------------------------------------------------------------------===//

static Expected<WeightSpec> parseSpec(const json::Value &argument) {
  WeightSpec spec;
  const std::string *name = json::asString(json::find(argument, "name"));
  const std::string *dtype = json::asString(json::find(argument, "dtype"));
  const auto *shape = json::asArray(json::find(argument, "shape"));
  if (!name || !dtype || !shape)
    return Error{"metadata: a weight has no name, type or shape"};
  spec.name = *name;
  std::optional<DLDataType> type = parseDType(*dtype);
  if (!type)
    return Error{"metadata: weight '" + spec.name + "' has unknown type '" +
                 *dtype + "'"};
  spec.dtype = *type;
  for (const json::Value &element : *shape) {
    int64_t extent;
    if (!json::asInt(&element, extent) || extent < 0)
      return Error{"metadata: weight '" + spec.name +
                   "' has an extent that is no integer from 0 to 2^63-1"};
    spec.shape.push_back(extent);
  }
  spec.alignment = (spec.dtype.bits + 7u) / 8u;
  int64_t alignment;
  if (json::asInt(json::find(argument, "alignment"), alignment) &&
      alignment > 0 && alignment <= 65536)
    spec.alignment = static_cast<uint32_t>(alignment);
  if (const json::Value *source = json::find(argument, "source")) {
    const auto *names = json::asArray(source);
    if (!names)
      return Error{"metadata: weight '" + spec.name + "': source is " +
                   json::describe(source) + ", expected an array"};
    for (const json::Value &element : *names) {
      const std::string *text = json::asString(&element);
      if (!text)
        return Error{"metadata: weight '" + spec.name + "': source has " +
                     json::describe(&element) + ", expected strings"};
      spec.source.push_back(*text);
    }
  }
  return spec;
}

Expected<std::vector<WeightSpec>>
moe::io::readWeightSpecs(std::string_view metadata, size_t variant,
                         std::string_view function) {
  json::Value root;
  std::string error;
  if (!json::parse(metadata.data(), metadata.size(), root, error))
    return Error{"metadata: invalid JSON: " + error};
  const auto *variants = json::asArray(json::find(root, "variants"));
  if (!variants || variant >= variants->size())
    return Error{"metadata: there is no variant " + std::to_string(variant)};
  const auto *functions =
      json::asArray(json::find((*variants)[variant], "functions"));
  if (!functions)
    return Error{"metadata: there are no functions"};
  const json::Value *found = nullptr;
  for (const json::Value &candidate : *functions) {
    const std::string *name = json::asString(json::find(candidate, "name"));
    if (function.empty() ? functions->size() == 1 : name && *name == function)
      found = &candidate;
  }
  if (!found)
    return Error{function.empty()
                     ? "no function is named and the module has " +
                           std::to_string(functions->size()) + ", expected one"
                     : "the module has no function '" + std::string(function) +
                           "'"};
  std::vector<WeightSpec> specs;
  const auto *arguments = json::asArray(json::find(*found, "arguments"));
  if (!arguments)
    return Error{"metadata: a function has no arguments"};
  for (const json::Value &argument : *arguments) {
    const std::string *role = json::asString(json::find(argument, "role"));
    if (!role || *role != "weight")
      continue;
    Expected<WeightSpec> spec = parseSpec(argument);
    if (!spec)
      return spec.takeError();
    specs.push_back(std::move(*spec));
  }
  return specs;
}

//===----------------------------------------------------------------------===//
// Binding
//===----------------------------------------------------------------------===//

static std::optional<int64_t> countElements(const std::vector<int64_t> &shape) {
  std::optional<uint64_t> bytes = byteSize({kDLInt, 8, 1}, shape);
  if (!bytes)
    return std::nullopt;
  return static_cast<int64_t>(*bytes);
}

static bool compatible(DLDataType wanted, DLDataType given) {
  return sameDType(wanted, given) ||
         // An i1 argument is a byte; files call it a boolean.
         (sameDType(wanted, {kDLUInt, 8, 1}) &&
          sameDType(given, {dlBool, 8, 1}));
}

static Error mismatch(const WeightSpec &spec, const std::string &tensor,
                      const TensorView &view, const std::string &expected) {
  return Error{"weight '" + spec.name + "': tensor '" + tensor + "' has type " +
               typeName(view.dtype, view.shape) + ", expected " + expected};
}

void WeightBinder::add(const void *data, const WeightSpec &spec) {
  // On the heap each, so that views stay valid when the binder moves.
  shapes.push_back(std::make_unique<std::vector<int64_t>>(spec.shape));
  views.push_back({const_cast<void *>(data),
                   {kDLCPU, 0},
                   static_cast<int32_t>(spec.shape.size()),
                   spec.dtype,
                   shapes.back()->data(),
                   nullptr,
                   0});
}

uint64_t WeightBinder::ownedBytes() const {
  uint64_t bytes = 0;
  for (const Tensor &tensor : owned)
    bytes += tensor.bytes();
  return bytes;
}

namespace {

/// Where the bytes of one weight come from.
struct Plan {
  std::vector<TensorView> parts;
  bool copy;
};

} // namespace

static Expected<Plan> planWeight(const WeightSpec &spec,
                                 Checkpoint &checkpoint) {
  Plan plan;
  bool bySource =
      !spec.source.empty() && checkpoint.contains(spec.source.front());
  if (!bySource && !checkpoint.contains(spec.name)) {
    std::string wanted = "'" + spec.name + "'";
    if (!spec.source.empty() && spec.source.front() != spec.name)
      wanted = "'" + spec.source.front() + "' and no " + wanted;
    return Error{"weight '" + spec.name + "': " + checkpoint.path() +
                 " has no tensor " + wanted + ", expected " +
                 typeName(spec.dtype, spec.shape)};
  }

  if (!bySource || spec.source.size() == 1) {
    const std::string &name = bySource ? spec.source[0] : spec.name;
    Expected<TensorView> view = checkpoint.lookup(name);
    if (!view)
      return Error{"weight '" + spec.name + "': " + view.error()};
    // A tensor of a checkpoint may be reshaped, one of the same name may not.
    bool sameShape =
        bySource ? countElements(view->shape) == countElements(spec.shape)
                 : view->shape == spec.shape;
    if (!compatible(spec.dtype, view->dtype) || !sameShape)
      return mismatch(spec, name, *view, typeName(spec.dtype, spec.shape));
    // The format does not promise any alignment.
    plan.copy = reinterpret_cast<uintptr_t>(view->data) % spec.alignment != 0;
    plan.parts.push_back(std::move(*view));
    return plan;
  }

  if (spec.shape.empty() ||
      spec.shape[0] != static_cast<int64_t>(spec.source.size()))
    return Error{"weight '" + spec.name + "' of type " +
                 typeName(spec.dtype, spec.shape) + " has " +
                 std::to_string(spec.source.size()) +
                 " tensors as its source, expected its first extent"};
  std::vector<int64_t> slice(spec.shape.begin() + 1, spec.shape.end());
  for (const std::string &name : spec.source) {
    Expected<TensorView> view = checkpoint.lookup(name);
    if (!view)
      return Error{"weight '" + spec.name + "': " + view.error() +
                   ", expected " + typeName(spec.dtype, slice)};
    if (!compatible(spec.dtype, view->dtype) || view->shape != slice)
      return mismatch(spec, name, *view, typeName(spec.dtype, slice));
    plan.parts.push_back(std::move(*view));
  }
  plan.copy = true;
  return plan;
}

Expected<WeightBinder>
WeightBinder::bind(const std::vector<WeightSpec> &specs,
                   std::shared_ptr<Checkpoint> checkpoint,
                   const ProgressFn &progress) {
  // Everything is found and checked before the first byte is copied.
  std::vector<Plan> plans;
  uint64_t total = 0, done = 0;
  for (const WeightSpec &spec : specs) {
    Expected<Plan> plan = planWeight(spec, *checkpoint);
    if (!plan)
      return plan.takeError();
    if (plan->copy)
      for (const TensorView &part : plan->parts)
        total += part.bytes;
    plans.push_back(std::move(*plan));
  }

  WeightBinder binder;
  binder.checkpoint = std::move(checkpoint);
  for (size_t i = 0; i < specs.size(); ++i) {
    const WeightSpec &spec = specs[i];
    if (!plans[i].copy) {
      binder.add(plans[i].parts[0].data, spec);
      continue;
    }
    Expected<Tensor> copy =
        Tensor::create(spec.dtype, spec.shape, spec.alignment);
    if (!copy)
      return Error{"weight '" + spec.name + "': " + copy.error()};
    auto *to = static_cast<char *>(copy->data());
    for (const TensorView &part : plans[i].parts) {
      if (part.bytes > 0)
        std::memcpy(to, part.data, part.bytes);
      to += part.bytes;
      done += part.bytes;
      if (progress)
        progress(done, total);
    }
    binder.add(copy->data(), spec);
    binder.owned.push_back(std::move(*copy));
  }
  return binder;
}

Expected<WeightBinder>
WeightBinder::random(const std::vector<WeightSpec> &specs, uint64_t seed,
                     const ProgressFn &progress) {
  WeightBinder binder;
  uint64_t total = 0, done = 0;
  for (const WeightSpec &spec : specs)
    total += byteSize(spec.dtype, spec.shape).value_or(0);
  for (const WeightSpec &spec : specs) {
    Expected<Tensor> tensor =
        Tensor::create(spec.dtype, spec.shape, spec.alignment);
    if (!tensor)
      return Error{"weight '" + spec.name + "': " + tensor.error()};
    int64_t fanIn = spec.shape.empty() ? 1 : spec.shape.back();
    double deviation =
        fanIn > 0 ? 1.0 / std::sqrt(static_cast<double>(fanIn)) : 1.0;
    if (!fillNormal(*tensor, mixSeed(seed, spec.name), deviation))
      return Error{"weight '" + spec.name + "' has type " +
                   dtypeName(spec.dtype) +
                   ", expected f32, f16, bf16 or f64 for random weights"};
    binder.add(tensor->data(), spec);
    binder.owned.push_back(std::move(*tensor));
    done += binder.owned.back().bytes();
    if (progress)
      progress(done, total);
  }
  return binder;
}
