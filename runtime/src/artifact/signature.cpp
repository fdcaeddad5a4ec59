//===- signature.cpp - Signatures of functions ----------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "artifact/signature.h"
#include "artifact/argument_parser.h"
#include "artifact/parallel.h"
#include "support/buffer.h"
#include "support/checked.h"
#include "support/dtype.h"

#include "moe_rt/artifact.h"

#include <algorithm>
#include <iterator>
#include <map>

using namespace moe;
using namespace moe::rt;

// Far above what a compiler writes; they keep later arithmetic on counts safe.
static constexpr size_t maxMetadataSize = size_t(64) << 20;
static constexpr size_t maxRank = 16;
static constexpr size_t maxStages = 4096;
static constexpr int64_t maxAlignment = 65536;

static constexpr uint32_t minPreparedAlignment = bufferAlignment;

static constexpr const char *roleNames[] = {"input",   "weight",   "output",
                                            "offsets", "counters", "prepared"};

const char *Argument::roleName() const {
  return roleNames[static_cast<size_t>(role)];
}

uint64_t Argument::staticBytes() const {
  uint64_t bytes = elementSize();
  for (int64_t extent : shape)
    bytes *= static_cast<uint64_t>(extent);
  return bytes;
}

const std::vector<size_t> &Function::indices(moe_rt_role_t role) const {
  return role == MOE_RT_INPUT    ? inputs
         : role == MOE_RT_WEIGHT ? weights
                                 : outputs;
}

static moe_rt_status_t parseRole(const Node &node, Role &out) {
  std::string text;
  MOE_RT_TRY(node.string(text));
  for (size_t i = 0; i < std::size(roleNames); ++i) {
    if (text == roleNames[i]) {
      out = static_cast<Role>(i);
      return nullptr;
    }
  }
  return node.refuse("is '" + text +
                     "', expected input, weight, output, offsets, counters or "
                     "prepared");
}

moe_rt_status_t moe::rt::parseDType(const Node &node, Argument &argument) {
  std::string text;
  MOE_RT_TRY(node.string(text));
  if (text == "i1") {
    argument.dtype = {kDLUInt, 8, 1};
    argument.isBool = true;
    return nullptr;
  }
  static constexpr const char *allowed[] = {
      "f32",       "f16", "bf16", "f64", "f8E4M3FN", "f8E5M2",
      "f8E8M0FNU", "i8",  "i16",  "i32", "i64"};
  for (const char *name : allowed) {
    if (text != name)
      continue;
    for (const DTypeName &entry : dtypeNames)
      if (text == entry.name)
        argument.dtype = entry.type;
    return nullptr;
  }
  return node.refuse("is '" + text +
                     "', expected f32, f16, bf16, f64, f8E4M3FN, f8E5M2, "
                     "f8E8M0FNU, i8, i16, i32, i64 or i1");
}

moe_rt_status_t moe::rt::parseShape(const Node &node, bool mayBeDynamic,
                                    Argument &argument) {
  size_t rank = 0;
  MOE_RT_TRY(node.array(rank));
  if (rank > maxRank)
    return node.refuse("has rank " + std::to_string(rank) +
                       ", expected at most " + std::to_string(maxRank));
  int64_t bytes = static_cast<int64_t>(argument.elementSize());
  for (size_t i = 0; i < rank; ++i) {
    int64_t extent;
    MOE_RT_TRY(node.element(i).integer(mayBeDynamic ? dynamicExtent : 0,
                                       INT64_MAX, extent));
    argument.shape.push_back(extent);
    // Extents of zero must not hide an overflow in strides.
    if (extent > 0 && !checkedMul(bytes, extent, bytes))
      return node.refuse("has more than 2^63-1 bytes");
  }
  return nullptr;
}

static moe_rt_status_t parseSource(const Node &node, const Argument &argument) {
  if (!node.exists())
    return nullptr;
  if (argument.role != Role::weight)
    return node.refuse("is on an argument that is no weight");
  size_t count = 0;
  MOE_RT_TRY(node.array(count));
  if (count == 0)
    return node.refuse("is empty");
  for (size_t i = 0; i < count; ++i) {
    std::string text;
    MOE_RT_TRY(node.element(i).string(text));
  }
  if (count > 1 && (argument.shape.empty() ||
                    argument.shape[0] != static_cast<int64_t>(count)))
    return node.refuse("has " + std::to_string(count) +
                       " names, expected the first extent of the shape");
  return nullptr;
}

static moe_rt_status_t parseArgument(const Node &node, Argument &out) {
  MOE_RT_TRY(node.object());
  MOE_RT_TRY(node.member("name").string(out.name));
  MOE_RT_TRY(parseRole(node.member("role"), out.role));
  MOE_RT_TRY(parseDType(node.member("dtype"), out));
  bool mayBeDynamic = out.role == Role::input || out.role == Role::output;
  MOE_RT_TRY(parseShape(node.member("shape"), mayBeDynamic, out));

  out.alignment = static_cast<uint32_t>(out.elementSize());
  if (Node alignment = node.member("alignment"); alignment.exists()) {
    int64_t number;
    MOE_RT_TRY(alignment.integer(1, maxAlignment, number));
    if (number & (number - 1))
      return alignment.refuse("is " + std::to_string(number) +
                              ", expected a power of two");
    out.alignment = static_cast<uint32_t>(number);
  }
  if (Node experts = node.member("num_experts"); experts.exists()) {
    MOE_RT_TRY(experts.integer(1, maxExperts, out.numExperts));
    if (out.dtype.code != kDLInt ||
        (out.role != Role::input && out.role != Role::output))
      return experts.refuse("is on an argument that is no integer input or "
                            "output");
  }
  if (Node retained = node.member("retained"); retained.exists()) {
    MOE_RT_TRY(retained.boolean(out.retained));
    if (out.role != Role::weight)
      return retained.refuse("is on an argument that is no weight");
  }
  // For who reads the weight from its source.
  if (Node convert = node.member("convert"); convert.exists()) {
    bool unused;
    MOE_RT_TRY(convert.boolean(unused));
    if (out.role != Role::weight)
      return convert.refuse("is on an argument that is no weight");
  }
  if (Node format = node.member("source_format"); format.exists()) {
    std::string unused;
    MOE_RT_TRY(format.string(unused));
    if (!node.member("source").exists())
      return format.refuse("is on an argument without a source");
  }
  return parseSource(node.member("source"), out);
}

static bool hasShape(const Argument &argument, int64_t extent) {
  return argument.shape.size() == 1 && argument.shape[0] == extent;
}

/// Find the argument that a dispatch names and claim it.
static moe_rt_status_t parseReport(const Node &node, const Function &function,
                                   Role role, std::vector<bool> &claimed,
                                   size_t &out) {
  std::string name;
  MOE_RT_TRY(node.string(name));
  for (size_t i = 0; i < function.arguments.size(); ++i) {
    const Argument &argument = function.arguments[i];
    if (argument.name != name)
      continue;
    if (argument.role != role)
      return node.refuse("names '" + name + "', which has role " +
                         argument.roleName() + ", expected " +
                         roleNames[static_cast<size_t>(role)]);
    if (claimed[i])
      return node.refuse("names '" + name +
                         "', which another dispatch reports in");
    claimed[i] = true;
    out = i;
    return nullptr;
  }
  return node.refuse("names '" + name + "', which is no argument");
}

static moe_rt_status_t parseDispatches(const Node &node, Function &function) {
  std::vector<bool> claimed(function.arguments.size());
  size_t count = 0;
  if (node.exists())
    MOE_RT_TRY(node.array(count));
  for (size_t i = 0; i < count; ++i) {
    Node item = node.element(i);
    MOE_RT_TRY(item.object());
    Dispatch dispatch;
    MOE_RT_TRY(
        item.member("num_experts").integer(1, maxExperts, dispatch.numExperts));
    if (Node topK = item.member("top_k"); topK.exists())
      MOE_RT_TRY(topK.integer(1, INT64_MAX, dispatch.topK));
    MOE_RT_TRY(parseReport(item.member("offsets"), function, Role::offsets,
                           claimed, dispatch.offsets));
    const Argument &offsets = function.arguments[dispatch.offsets];
    if (!sameDType(offsets.dtype, {kDLInt, 32, 1}) ||
        !hasShape(offsets, dispatch.numExperts + 1))
      return item.refuse("has offsets '" + offsets.name +
                         "' of another type than i32[" +
                         std::to_string(dispatch.numExperts + 1) + "]");
    if (Node named = item.member("counters"); named.exists()) {
      size_t index = 0;
      MOE_RT_TRY(parseReport(named, function, Role::counters, claimed, index));
      const Argument &counters = function.arguments[index];
      if (!sameDType(counters.dtype, {kDLInt, 64, 1}) ||
          (!hasShape(counters, 2) && !hasShape(counters, 3)))
        return item.refuse("has counters '" + counters.name +
                           "' of another type than i64[2] or i64[3]");
      dispatch.counters = index;
    }
    function.dispatches.push_back(dispatch);
  }
  for (size_t i = 0; i < function.arguments.size(); ++i) {
    const Argument &argument = function.arguments[i];
    if ((argument.role == Role::offsets || argument.role == Role::counters) &&
        !claimed[i])
      return node.refuse("does not name argument '" + argument.name +
                         "' of role " + argument.roleName());
  }
  return nullptr;
}

static moe_rt_status_t parseStages(const Node &node, Function &function) {
  if (!node.exists())
    return nullptr;
  size_t count = 0;
  MOE_RT_TRY(node.array(count, maxStages));
  for (size_t i = 0; i < count; ++i) {
    Node stage = node.element(i);
    MOE_RT_TRY(stage.object());
    Stage described;
    MOE_RT_TRY(stage.member("name").string(described.name));
    Node kernels = stage.member("kernels");
    size_t kernelCount = 0;
    MOE_RT_TRY(kernels.array(kernelCount));
    described.kernels.resize(kernelCount);
    for (size_t k = 0; k < kernelCount; ++k)
      MOE_RT_TRY(kernels.element(k).string(described.kernels[k]));
    function.stages.push_back(std::move(described));
  }
  return nullptr;
}

moe_rt_status_t moe::rt::parseSignature(const Node &node, Function &out) {
  Node tokens = node.member("tokens");
  MOE_RT_TRY(tokens.object());
  MOE_RT_TRY(tokens.member("min").integer(0, INT64_MAX, out.minTokens));
  MOE_RT_TRY(
      tokens.member("max").integer(out.minTokens, INT64_MAX, out.maxTokens));
  Node arguments = node.member("arguments");
  size_t count = 0;
  MOE_RT_TRY(arguments.array(count, maxArguments));
  std::map<std::string, size_t> names;
  for (size_t i = 0; i < count; ++i) {
    Argument argument;
    MOE_RT_TRY(parseArgument(arguments.element(i), argument));
    if (!names.emplace(argument.name, i).second)
      return arguments.element(i).refuse("repeats the name '" + argument.name +
                                         "'");
    if (argument.role == Role::input)
      out.inputs.push_back(i);
    else if (argument.role == Role::weight)
      out.weights.push_back(i);
    else if (argument.role == Role::output)
      out.outputs.push_back(i);
    out.arguments.push_back(std::move(argument));
  }
  return nullptr;
}

static moe_rt_status_t parseFunction(const Node &node, Function &out) {
  MOE_RT_TRY(node.object());
  MOE_RT_TRY(node.member("name").string(out.name));
  MOE_RT_TRY(node.member("entry").string(out.entry));
  MOE_RT_TRY(node.member("workspace").string(out.workspace));
  if (Node prepares = node.member("prepares"); prepares.exists())
    MOE_RT_TRY(prepares.string(out.prepares));
  MOE_RT_TRY(parseSignature(node, out));
  if (Node live = node.member("live_tokens"); live.exists())
    MOE_RT_TRY(live.boolean(out.takesLiveTokens));
  MOE_RT_TRY(parseStages(node.member("stages"), out));
  return parseDispatches(node.member("dispatches"), out);
}

//===----------------------------------------------------------------------===//
// Prepared weights
//===----------------------------------------------------------------------===//

std::string moe::rt::describe(const Argument &argument) {
  std::string text = findDTypeName(argument.dtype);
  if (argument.isBool)
    text = "i1";
  text += "[";
  for (size_t i = 0; i < argument.shape.size(); ++i)
    text += (i ? ", " : "") + (argument.shape[i] == dynamicExtent
                                   ? std::string("T")
                                   : std::to_string(argument.shape[i]));
  return text + "]";
}

/// Whether `whole` has for each expert what `part` has for each of its T.
static bool holdsExperts(const Argument &part, const Argument &whole,
                         int64_t experts) {
  std::vector<int64_t> shape = whole.shape;
  // A weight without experts is one expert.
  if (experts == 1 && shape.size() + 1 == part.shape.size())
    shape.insert(shape.begin(), 1);
  return sameDType(part.dtype, whole.dtype) && part.isBool == whole.isBool &&
         !shape.empty() && shape.size() == part.shape.size() &&
         shape[0] == experts && part.shape[0] == dynamicExtent &&
         std::equal(shape.begin() + 1, shape.end(), part.shape.begin() + 1);
}

/// Whether `part` is aligned wherever in an aligned `whole` a range of experts
/// starts.
static bool alignsExperts(const Argument &part, const Argument &whole,
                          uint32_t alignment, int64_t experts) {
  uint64_t stride = whole.staticBytes() / static_cast<uint64_t>(experts);
  return alignment % part.alignment == 0 &&
         (experts == 1 || stride % part.alignment == 0);
}

/// Check that a function makes one argument of ranges of experts of weights.
static moe_rt_status_t checkPreparation(const Node &node,
                                        const Function &function,
                                        const Preparation &preparation,
                                        const Function &prepare) {
  const Argument &target = function.arguments[preparation.argument];
  std::string name = "'" + prepare.name + "'";
  int64_t experts = target.shape[0];
  size_t sources = preparation.sources.size();
  if (prepare.inputs.size() != sources || prepare.outputs.size() != 1 ||
      prepare.arguments.size() != sources + 1)
    return node.refuse("names function " + name + " with " +
                       std::to_string(prepare.arguments.size()) +
                       " arguments, expected " + std::to_string(sources) +
                       " inputs and one output");
  if (prepare.minTokens > 1 || prepare.maxTokens < experts)
    return node.refuse("names function " + name + " for " +
                       std::to_string(prepare.minTokens) + " to " +
                       std::to_string(prepare.maxTokens) +
                       " experts, expected 1 to " + std::to_string(experts));
  auto check = [&](const Argument &part, const Argument &whole,
                   uint32_t alignment) -> moe_rt_status_t {
    if (part.numExperts > 0 || !holdsExperts(part, whole, experts))
      return node.refuse("names function " + name + " whose " +
                         part.roleName() + " '" + part.name + "' has type " +
                         describe(part) + ", expected T of the " +
                         std::to_string(experts) + " experts of '" +
                         whole.name + "' of type " + describe(whole));
    if (!alignsExperts(part, whole, alignment, experts))
      return node.refuse(
          "names function " + name + " whose " + part.roleName() + " '" +
          part.name + "' is aligned to " + std::to_string(part.alignment) +
          " bytes, which not every expert of '" + whole.name + "' is");
    return nullptr;
  };
  for (size_t i = 0; i < sources; ++i) {
    const Argument &weight =
        function.arguments[function.weights[preparation.sources[i]]];
    MOE_RT_TRY(
        check(prepare.arguments[prepare.inputs[i]], weight, weight.alignment));
  }
  return check(prepare.arguments[prepare.outputs[0]], target,
               std::max(target.alignment, minPreparedAlignment));
}

static moe_rt_status_t parseSources(const Node &node, const Function &function,
                                    std::vector<size_t> &out) {
  size_t count = 0;
  MOE_RT_TRY(node.array(count));
  if (count == 0)
    return node.refuse("is empty");
  for (size_t i = 0; i < count; ++i) {
    std::string name;
    MOE_RT_TRY(node.element(i).string(name));
    size_t position = 0;
    while (position < function.weights.size() &&
           function.arguments[function.weights[position]].name != name)
      ++position;
    if (position == function.weights.size())
      return node.element(i).refuse("names '" + name + "', which is no weight");
    out.push_back(position);
  }
  return nullptr;
}

/// Read which weight a prepared argument measures, one of its sources.
static moe_rt_status_t parseMeasures(const Node &node, const Function &function,
                                     const Argument &argument,
                                     Preparation &out) {
  if (!node.exists())
    return nullptr;
  std::string name;
  MOE_RT_TRY(node.string(name));
  for (size_t source : out.sources)
    if (function.arguments[function.weights[source]].name == name)
      out.measures = source;
  if (!out.measures)
    return node.refuse("names '" + name + "', which is no source");
  if (argument.shape.size() != 1 || argument.dtype.code != kDLFloat ||
      argument.dtype.bits != 32)
    return node.refuse("is on an argument of type " + describe(argument) +
                       ", expected f32 for each expert");
  return nullptr;
}

/// True if `candidate` prepares weights of `function`, or of another function
/// with the same code.
static bool preparesFor(const Function &candidate, const Function &function,
                        const std::map<std::string, size_t> &names,
                        const Variant &variant) {
  auto position = names.find(candidate.prepares);
  return position != names.end() &&
         variant.functions[position->second].entry == function.entry;
}

/// Find the functions that prepare the arguments of function `index`.
static moe_rt_status_t
parsePreparations(const Node &node, const std::map<std::string, size_t> &names,
                  Variant &variant, size_t index) {
  Function &function = variant.functions[index];
  if (!function.prepares.empty()) {
    auto position = names.find(function.prepares);
    if (position == names.end() ||
        !variant.functions[position->second].prepares.empty())
      return node.member("prepares")
          .refuse("names '" + function.prepares +
                  "', which is no function that can be called");
  }
  for (size_t i = 0; i < function.arguments.size(); ++i) {
    const Argument &argument = function.arguments[i];
    Node item = node.member("arguments").element(i);
    Node prepare = item.member("prepare"), sources = item.member("sources");
    Node measures = item.member("measures");
    if (argument.role != Role::prepared) {
      if (prepare.exists() || sources.exists() || measures.exists())
        return item.refuse("has 'prepare', 'sources' or 'measures' but role " +
                           std::string(argument.roleName()) +
                           ", expected prepared");
      continue;
    }
    if (argument.shape.empty() || argument.shape[0] < 1 ||
        argument.shape[0] > maxExperts)
      return item.member("shape").refuse("has no first extent from 1 to " +
                                         std::to_string(maxExperts) +
                                         ", the number of experts");
    Preparation preparation;
    preparation.argument = i;
    MOE_RT_TRY(parseSources(sources, function, preparation.sources));
    MOE_RT_TRY(parseMeasures(measures, function, argument, preparation));
    std::string name;
    MOE_RT_TRY(prepare.string(name));
    auto position = names.find(name);
    if (position == names.end() ||
        !preparesFor(variant.functions[position->second], function, names,
                     variant))
      return prepare.refuse("names '" + name +
                            "', which is no function that prepares '" +
                            function.name + "'");
    preparation.function = position->second;
    MOE_RT_TRY(checkPreparation(prepare, function, preparation,
                                variant.functions[preparation.function]));
    function.preparations.push_back(std::move(preparation));
  }
  return nullptr;
}

/// Read what a variant for a device has; any other has none of it.
static moe_rt_status_t parseDevice(const Node &variant, const Node &device,
                                   Variant &out) {
  if (device.exists())
    return parseDeviceCode(variant, device, out.device.emplace());
  for (const char *key : {"images", "kernels"})
    if (Node item = variant.member(key); item.exists())
      return item.refuse("is in a variant whose target has no device");
  return nullptr;
}

static moe_rt_status_t parseVariant(const Node &node, Variant &out) {
  MOE_RT_TRY(node.object());
  Node target = node.member("target");
  MOE_RT_TRY(target.object());
  MOE_RT_TRY(target.member("triple").string(out.triple));
  if (Node cpu = target.member("cpu"); cpu.exists())
    MOE_RT_TRY(cpu.string(out.cpu));
  if (Node features = target.member("features"); features.exists()) {
    size_t count = 0;
    MOE_RT_TRY(features.array(count));
    out.features.resize(count);
    for (size_t i = 0; i < count; ++i)
      MOE_RT_TRY(features.element(i).string(out.features[i]));
  }

  MOE_RT_TRY(parseDevice(node, target.member("device"), out));

  Node functions = node.member("functions");
  size_t count = 0;
  MOE_RT_TRY(functions.array(count));
  std::map<std::string, size_t> names;
  for (size_t i = 0; i < count; ++i) {
    Function function;
    MOE_RT_TRY(parseFunction(functions.element(i), function));
    if (!names.emplace(function.name, i).second)
      return functions.element(i).refuse("repeats the name '" + function.name +
                                         "'");
    if (function.prepares.empty())
      out.callable.push_back(i);
    out.functions.push_back(std::move(function));
  }
  for (size_t i = 0; i < count; ++i)
    MOE_RT_TRY(parsePreparations(functions.element(i), names, out, i));
  return parseParallel(node.member("parallel"), names, out);
}

moe_rt_status_t moe::rt::parseMetadata(const char *text, size_t size,
                                       Metadata &out) {
  if (size > maxMetadataSize)
    return makeError(MOE_RT_DATA_LOSS,
                     "metadata has %zu bytes, expected at most %zu", size,
                     maxMetadataSize);
  json::Value root;
  std::string error;
  if (!json::parse(text, size, root, error))
    return makeError(MOE_RT_DATA_LOSS, "metadata: invalid JSON: %s",
                     error.c_str());
  if (!json::asObject(&root))
    return makeError(MOE_RT_DATA_LOSS, "metadata is %s, expected an object",
                     json::describe(&root));
  Node node(&root, "");
  int64_t format;
  MOE_RT_TRY(node.member("format").integer(
      MOE_ARTIFACT_FORMAT_VERSION, MOE_ARTIFACT_FORMAT_VERSION, format));
  Node variants = node.member("variants");
  size_t count = 0;
  MOE_RT_TRY(variants.array(count));
  if (count == 0)
    return variants.refuse("is empty");
  out.variants.resize(count);
  for (size_t i = 0; i < count; ++i)
    MOE_RT_TRY(parseVariant(variants.element(i), out.variants[i]));
  return nullptr;
}
