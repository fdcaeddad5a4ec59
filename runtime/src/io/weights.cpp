//===- weights.cpp - Bind weights to a function ---------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "support/dtype.h"
#include "support/json.h"

#include "moe_rt/io.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>
#include <set>

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
  if (const json::Value *retained = json::find(argument, "retained"))
    if (!json::asBool(retained, spec.retained))
      return Error{"metadata: weight '" + spec.name + "': retained is " +
                   json::describe(retained) + ", expected true or false"};
  if (const json::Value *convert = json::find(argument, "convert"))
    if (!json::asBool(convert, spec.convert))
      return Error{"metadata: weight '" + spec.name + "': convert is " +
                   json::describe(convert) + ", expected true or false"};
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
  if (const json::Value *format = json::find(argument, "source_format")) {
    const std::string *text = json::asString(format);
    if (!text)
      return Error{"metadata: weight '" + spec.name + "': source_format is " +
                   json::describe(format) + ", expected a string"};
    spec.sourceFormat = *text;
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
  size_t count = 0;
  std::set<std::string> parts; // of layers for several ranks
  auto consider = [&](const json::Value &candidate) {
    ++count;
    const std::string *name = json::asString(json::find(candidate, "name"));
    if (function.empty() || (name && *name == function))
      found = &candidate;
  };
  if (const auto *parallel =
          json::asArray(json::find((*variants)[variant], "parallel")))
    for (const json::Value &candidate : *parallel) {
      consider(candidate);
      if (const auto *steps = json::asArray(json::find(candidate, "steps")))
        for (const json::Value &step : *steps)
          if (const std::string *part =
                  json::asString(json::find(step, "call")))
            parts.insert(*part);
    }
  for (const json::Value &candidate : *functions) {
    const std::string *name = json::asString(json::find(candidate, "name"));
    // No function to call.
    if (!json::find(candidate, "prepares") && !(name && parts.count(*name)))
      consider(candidate);
  }
  if (function.empty() && count != 1)
    found = nullptr;
  if (!found)
    return Error{function.empty() ? "no function is named and the module has " +
                                        std::to_string(count) + ", expected one"
                                  : "the module has no function '" +
                                        std::string(function) + "'"};
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

/// Whether both shapes are one sequence of elements with a dimension of the one
/// for neighbouring ones of the other.
static bool isReshape(const std::vector<int64_t> &a,
                      const std::vector<int64_t> &b) {
  if (a == b)
    return true;
  std::optional<int64_t> count = countElements(a);
  if (!count || *count == 0 || count != countElements(b))
    return false;
  // Extents of 1 apart, dimensions of the finer shape end where those of the
  // coarser one do.
  auto ends = [](const std::vector<int64_t> &shape) {
    std::vector<int64_t> result = {1};
    for (int64_t extent : shape)
      if (extent != 1)
        result.push_back(result.back() * extent);
    return result;
  };
  std::vector<int64_t> fine = ends(a), coarse = ends(b);
  if (fine.size() < coarse.size())
    std::swap(fine, coarse);
  return std::includes(fine.begin(), fine.end(), coarse.begin(), coarse.end());
}

static bool compatible(DLDataType wanted, DLDataType given) {
  return isSameButForSign(wanted, given) ||
         // An i1 argument is a byte; files call it a boolean.
         (sameDType(wanted, {kDLUInt, 8, 1}) &&
          sameDType(given, {dlBool, 8, 1}));
}

static bool isConvertible(DLDataType type) {
  return sameDType(type, {kDLFloat, 32, 1}) ||
         sameDType(type, {kDLFloat, 16, 1}) ||
         sameDType(type, {kDLBfloat, 16, 1});
}

/// Whether a tensor that the weight's source names has a type that fits.
static bool fitsSource(const WeightSpec &spec, DLDataType given) {
  return compatible(spec.dtype, given) ||
         (spec.convert && isConvertible(spec.dtype) && isConvertible(given));
}

/// Whether a tensor's blocks have the format that the code decodes. Formats of
/// as many bytes differ in their meaning only.
static bool hasFormat(const WeightSpec &spec, const TensorView &view) {
  return spec.sourceFormat.empty() || !view.format ||
         spec.sourceFormat == view.format;
}

/// Bytes that a tensor has in the weight.
static uint64_t bytesIn(const WeightSpec &spec, const TensorView &part) {
  return compatible(spec.dtype, part.dtype)
             ? part.bytes
             : part.bytes / (part.dtype.bits / 8u) * (spec.dtype.bits / 8u);
}

/// Bytes [offset, offset + bytes) of what a tensor is in the weight; returns
/// where it has them.
static std::pair<const char *, uint64_t> copyPart(const WeightSpec &spec,
                                                  const TensorView &part,
                                                  uint64_t offset, void *to,
                                                  uint64_t bytes) {
  const auto *data = static_cast<const char *>(part.data);
  if (compatible(spec.dtype, part.dtype)) {
    if (bytes > 0)
      std::memcpy(to, data + offset, bytes);
    return {data + offset, bytes};
  }
  uint64_t size = spec.dtype.bits / 8u, stored = part.dtype.bits / 8u;
  (void)convertElements(part, offset / size, bytes / size, spec.dtype, to);
  return {data + offset / size * stored, bytes / size * stored};
}

static Error mismatch(const WeightSpec &spec, const std::string &tensor,
                      const TensorView &view,
                      const std::vector<int64_t> &expected) {
  auto ofBlocks = [](const std::string &format) {
    return format.empty() ? "" : " of " + format + " blocks";
  };
  return Error{"weight '" + spec.name + "': tensor '" + tensor + "' has type " +
               typeName(view.dtype, view.shape) +
               ofBlocks(view.format ? view.format : "") + ", expected " +
               typeName(spec.dtype, expected) + ofBlocks(spec.sourceFormat)};
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
                     typeName(spec.dtype, spec.shape),
                 ErrorKind::NotFound};
  }

  if (!bySource || spec.source.size() == 1) {
    const std::string &name = bySource ? spec.source[0] : spec.name;
    Expected<TensorView> view = checkpoint.lookup(name);
    if (!view)
      return view.takeError().in("weight '" + spec.name + "'");
    // A tensor of a checkpoint may be reshaped, one of the same name may not.
    bool sameShape = bySource ? isReshape(view->shape, spec.shape)
                              : view->shape == spec.shape;
    bool fits = bySource ? fitsSource(spec, view->dtype)
                         : compatible(spec.dtype, view->dtype);
    if (!fits || !sameShape || !hasFormat(spec, *view))
      return mismatch(spec, name, *view, spec.shape);
    // The format does not promise any alignment.
    plan.copy = reinterpret_cast<uintptr_t>(view->data) % spec.alignment != 0 ||
                !compatible(spec.dtype, view->dtype);
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
                       ", expected " + typeName(spec.dtype, slice),
                   view.takeError().kind};
    if (!fitsSource(spec, view->dtype) || view->shape != slice ||
        !hasFormat(spec, *view))
      return mismatch(spec, name, *view, slice);
    plan.parts.push_back(std::move(*view));
  }
  plan.copy = true;
  return plan;
}

/// Everything is found and checked before the first byte is copied.
static Expected<std::vector<Plan>> planAll(const std::vector<WeightSpec> &specs,
                                           Checkpoint &checkpoint) {
  std::vector<Plan> plans;
  for (const WeightSpec &spec : specs) {
    Expected<Plan> plan = planWeight(spec, checkpoint);
    if (!plan)
      return plan.takeError();
    plans.push_back(std::move(*plan));
  }
  return plans;
}

Expected<WeightBinder>
WeightBinder::bind(const std::vector<WeightSpec> &specs,
                   std::shared_ptr<Checkpoint> checkpoint,
                   const ProgressFn &progress) {
  Expected<std::vector<Plan>> plans = planAll(specs, *checkpoint);
  if (!plans)
    return plans.takeError();
  uint64_t total = 0, done = 0;
  for (const Plan &plan : *plans)
    if (plan.copy)
      for (const TensorView &part : plan.parts)
        total += part.bytes;

  WeightBinder binder;
  binder.checkpoint = std::move(checkpoint);
  for (size_t i = 0; i < specs.size(); ++i) {
    const WeightSpec &spec = specs[i];
    if (!(*plans)[i].copy) {
      binder.add((*plans)[i].parts[0].data, spec);
      continue;
    }
    Expected<Tensor> copy =
        Tensor::create(spec.dtype, spec.shape, spec.alignment);
    if (!copy)
      return copy.takeError().in("weight '" + spec.name + "'");
    auto *to = static_cast<char *>(copy->data());
    for (const TensorView &part : (*plans)[i].parts) {
      uint64_t bytes = bytesIn(spec, part);
      copyPart(spec, part, 0, to, bytes);
      to += bytes;
      done += part.bytes;
      if (progress)
        progress(done, total);
    }
    binder.add(copy->data(), spec);
    binder.owned.push_back(std::move(*copy));
  }
  return binder;
}

/// The standard deviation of a random weight.
static double deviationOf(const WeightSpec &spec) {
  int64_t fanIn = spec.shape.empty() ? 1 : spec.shape.back();
  return fanIn > 0 ? 1.0 / std::sqrt(static_cast<double>(fanIn)) : 1.0;
}

static Error notRandom(const WeightSpec &spec) {
  return Error{"weight '" + spec.name + "' has type " + dtypeName(spec.dtype) +
               ", expected f32, f16, bf16, f64, f8E4M3FN, f8E5M2, f8E8M0FNU, "
               "i8, i16, i32 or i64 for random weights"};
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
      return tensor.takeError().in("weight '" + spec.name + "'");
    uint64_t size = spec.dtype.bits / 8u;
    if (!fillWeight(spec.dtype, tensor->data(), 0,
                    size ? tensor->bytes() / size : 0, mixSeed(seed, spec.name),
                    deviationOf(spec)))
      return notRandom(spec);
    binder.add(tensor->data(), spec);
    binder.owned.push_back(std::move(*tensor));
    done += binder.owned.back().bytes();
    if (progress)
      progress(done, total);
  }
  return binder;
}

//===----------------------------------------------------------------------===//
// Reading piece by piece
//===----------------------------------------------------------------------===//

struct WeightReader::State {
  std::vector<WeightSpec> specs;
  ProgressFn progress;
  std::mutex mutex; // of what follows, which is for the progress
  uint64_t done = 0, total = 0;

  // A checkpoint with a plan for each weight, or a seed.
  std::shared_ptr<Checkpoint> checkpoint;
  std::vector<Plan> plans;
  uint64_t seed = 0;

  bool read(size_t weight, uint64_t offset, void *data, uint64_t bytes);
  void report(uint64_t bytes);
};

WeightReader::WeightReader(std::unique_ptr<State> state)
    : state(std::move(state)) {}
WeightReader::WeightReader(WeightReader &&) = default;
WeightReader &WeightReader::operator=(WeightReader &&) = default;
WeightReader::~WeightReader() = default;

Expected<WeightReader>
WeightReader::open(const std::vector<WeightSpec> &specs,
                   std::shared_ptr<Checkpoint> checkpoint,
                   ProgressFn progress) {
  Expected<std::vector<Plan>> plans = planAll(specs, *checkpoint);
  if (!plans)
    return plans.takeError();
  auto state = std::make_unique<State>();
  state->specs = specs;
  state->progress = std::move(progress);
  state->checkpoint = std::move(checkpoint);
  state->plans = std::move(*plans);
  for (const WeightSpec &spec : specs)
    state->total += byteSize(spec.dtype, spec.shape).value_or(0);
  return WeightReader(std::move(state));
}

Expected<WeightReader>
WeightReader::random(const std::vector<WeightSpec> &specs, uint64_t seed,
                     ProgressFn progress) {
  auto state = std::make_unique<State>();
  for (const WeightSpec &spec : specs) {
    if (!fillWeight(spec.dtype, nullptr, 0, 0, seed, 1))
      return notRandom(spec);
    state->total += byteSize(spec.dtype, spec.shape).value_or(0);
  }
  state->specs = specs;
  state->progress = std::move(progress);
  state->seed = seed;
  return WeightReader(std::move(state));
}

const void *WeightReader::mapped(size_t weight) const {
  if (weight >= state->plans.size() || state->plans[weight].copy)
    return nullptr;
  return state->plans[weight].parts[0].data;
}

/// Bytes [offset, offset + bytes) of a weight.
bool WeightReader::State::read(size_t weight, uint64_t offset, void *data,
                               uint64_t bytes) {
  const WeightSpec &spec = specs[weight];
  if (!checkpoint) {
    uint64_t size = spec.dtype.bits / 8u;
    return fillWeight(spec.dtype, data, offset / size, bytes / size,
                      mixSeed(seed, spec.name), deviationOf(spec));
  }
  auto *to = static_cast<char *>(data);
  for (const TensorView &part : plans[weight].parts) {
    uint64_t size = bytesIn(spec, part);
    if (offset >= size) {
      offset -= size;
      continue;
    }
    uint64_t count = std::min(bytes, size - offset);
    auto [from, length] = copyPart(spec, part, offset, to, count);
    dropMappedPages(from, length);
    to += count;
    bytes -= count;
    offset = 0;
    if (bytes == 0)
      return true;
  }
  return bytes == 0;
}

void WeightReader::State::report(uint64_t bytes) {
  if (!progress)
    return;
  std::lock_guard<std::mutex> lock(mutex);
  // A weight that several others are prepared from is read more than once.
  done = std::min(done + bytes, total);
  progress(done, total);
}

int32_t WeightReader::read(void *user, size_t weight, int64_t first,
                           int64_t count, void *data, uint64_t bytes) {
  State &state = *static_cast<WeightReader *>(user)->state;
  if (weight >= state.specs.size() || first < 0 || count <= 0)
    return 1;
  // All elements of the first dimension have the same size.
  uint64_t size = bytes / static_cast<uint64_t>(count);
  if (!state.read(weight, static_cast<uint64_t>(first) * size, data, bytes))
    return 1;
  state.report(bytes);
  return 0;
}
