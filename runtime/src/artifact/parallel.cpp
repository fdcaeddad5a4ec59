//===- parallel.cpp - Layers for several ranks ----------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "artifact/parallel.h"
#include "artifact/argument_parser.h"
#include "artifact/round_trips.h"
#include "support/dtype.h"

#include <algorithm>
#include <iterator>

using namespace moe;
using namespace moe::rt;

static constexpr size_t maxSteps = 4096;
// Far above what there is; they bound what a layer allocates.
static constexpr int64_t maxParallelExperts = 65536;
static constexpr int64_t maxTargets = int64_t(1) << 24;
static constexpr const char *placementName = "placement";

namespace {

/// Reads one layer.
class Parser {
public:
  Parser(const Variant &variant, const std::map<std::string, size_t> &functions,
         ParallelFunction &out)
      : variant(variant), functions(functions), out(out) {}

  moe_rt_status_t parse(const Node &node);

private:
  moe_rt_status_t checkRoles(const Node &node);
  moe_rt_status_t addValue(const Node &node, Value value);
  moe_rt_status_t parseForward(const Node &node);
  moe_rt_status_t parseSaved(const Node &node, Value &value) const;
  moe_rt_status_t parseValues(const Node &node);
  moe_rt_status_t parseStep(const Node &node);

  /// Find a value that a step uses, or one that it makes.
  moe_rt_status_t find(const Node &node, std::string &name,
                       size_t &value) const;
  moe_rt_status_t use(const Node &node, size_t &value);
  moe_rt_status_t make(const Node &node, size_t &value);
  /// Use or make a value of type i32[E].
  moe_rt_status_t checkCounts(const Node &node, size_t value);

  moe_rt_status_t parseCall(const Node &node, PartCall &call);
  moe_rt_status_t bindTensors(const Node &node, const Function &part,
                              bool areOutputs, PartCall &call,
                              std::optional<size_t> &extent);
  moe_rt_status_t checkWeights(const Node &node, const Function &part);
  moe_rt_status_t parseExchange(const Node &node, Exchange &exchange);
  moe_rt_status_t parseGather(const Node &node, bool isOwn, Gather &gather);

  Value &value(size_t index) { return out.values[index]; }
  const Value &value(size_t index) const { return out.values[index]; }

  const Variant &variant;
  const std::map<std::string, size_t> &functions;
  ParallelFunction &out;

  std::map<std::string, size_t> names;
  std::vector<bool> isMade;
  size_t received = 0; // exchanges so far that receive
};

} // namespace

static bool hasDynamicExtent(const Argument &argument) {
  return std::count(argument.shape.begin(), argument.shape.end(),
                    dynamicExtent) > 0;
}

static std::string quote(const std::string &name) { return "'" + name + "'"; }

static bool isI32(const Argument &argument) {
  return sameDType(argument.dtype, {kDLInt, 32, 1});
}

static bool sameType(const Argument &a, const Argument &b) {
  return sameDType(a.dtype, b.dtype) && a.isBool == b.isBool;
}

//===----------------------------------------------------------------------===//
// Values
//===----------------------------------------------------------------------===//

moe_rt_status_t Parser::checkRoles(const Node &node) {
  for (size_t i = 0; i < out.signature.arguments.size(); ++i) {
    Role role = out.signature.arguments[i].role;
    if (role != Role::input && role != Role::weight && role != Role::output)
      return node.element(i).refuse(
          "has role " + std::string(out.signature.arguments[i].roleName()) +
          ", expected input, weight or output");
  }
  return nullptr;
}

moe_rt_status_t Parser::addValue(const Node &node, Value value) {
  if (!names.emplace(value.type.name, out.values.size()).second)
    return node.refuse("repeats the name " + quote(value.type.name));
  isMade.push_back(value.kind == Value::Kind::input ||
                   value.kind == Value::Kind::placement ||
                   value.kind == Value::Kind::saved);
  out.values.push_back(std::move(value));
  return nullptr;
}

/// Find the layer whose calls save what this one needs.
moe_rt_status_t Parser::parseForward(const Node &node) {
  if (!node.exists())
    return nullptr;
  std::string name;
  MOE_RT_TRY(node.string(name));
  for (const auto &layer : variant.parallel)
    if (layer->signature.name == name)
      out.forward = layer;
  if (!out.forward)
    return node.refuse("names " + quote(name) +
                       ", which is no layer for several ranks before this one");
  if (out.forward->experts != out.experts || out.forward->slots != out.slots ||
      out.forward->replicas != out.replicas)
    return node.refuse("names " + quote(name) +
                       ", which has other experts, slots or replicas");
  return nullptr;
}

/// Read whether a value is saved, by this layer or before by another one.
moe_rt_status_t Parser::parseSaved(const Node &node, Value &value) const {
  if (!node.exists())
    return nullptr;
  std::string when;
  MOE_RT_TRY(node.string(when));
  value.isKept = when == "after";
  if (value.isKept)
    return nullptr;
  if (when != "before" || !out.forward)
    return node.refuse(
        "is " + quote(when) +
        (out.forward ? ", expected after or before"
                     : ", expected after, in a layer without 'forward'"));
  value.kind = Value::Kind::saved;
  // Which exchange received its rows is known where it is used with others.
  if (value.rows == Rows::received)
    value.exchange = SIZE_MAX;
  const std::vector<Value> &values = out.forward->values;
  for (size_t i = 0; i < values.size(); ++i) {
    if (!values[i].isKept || values[i].type.name != value.type.name)
      continue;
    if (!sameType(values[i].type, value.type) ||
        values[i].type.shape != value.type.shape ||
        values[i].rows != value.rows)
      return node.refuse("is for " + quote(value.type.name) +
                         ", which has another type or other rows in layer " +
                         quote(out.forward->signature.name));
    value.argument = i;
    return nullptr;
  }
  return node.refuse("is for " + quote(value.type.name) + ", which layer " +
                     quote(out.forward->signature.name) + " does not save");
}

moe_rt_status_t Parser::parseValues(const Node &node) {
  for (size_t i = 0; i < out.signature.arguments.size(); ++i) {
    const Argument &argument = out.signature.arguments[i];
    if (argument.role == Role::weight)
      continue;
    Value value;
    value.type = argument;
    value.kind =
        argument.role == Role::input ? Value::Kind::input : Value::Kind::output;
    value.argument = i;
    if (hasDynamicExtent(argument))
      value.rows = Rows::home;
    MOE_RT_TRY(addValue(node, std::move(value)));
  }
  Value placement;
  placement.type.name = placementName;
  placement.type.dtype = {kDLInt, 32, 1};
  placement.type.shape = {out.experts, out.replicas};
  placement.type.alignment = sizeof(int32_t);
  placement.kind = Value::Kind::placement;
  MOE_RT_TRY(addValue(node, std::move(placement)));

  size_t count = 0;
  MOE_RT_TRY(node.array(count, maxArguments));
  for (size_t i = 0; i < count; ++i) {
    Node item = node.element(i);
    MOE_RT_TRY(item.object());
    Value value;
    value.kind = Value::Kind::made;
    MOE_RT_TRY(item.member("name").string(value.type.name));
    MOE_RT_TRY(parseDType(item.member("dtype"), value.type));
    MOE_RT_TRY(parseShape(item.member("shape"), true, value.type));
    value.type.alignment = static_cast<uint32_t>(value.type.elementSize());
    bool isDynamic = hasDynamicExtent(value.type);
    std::string rows = "none";
    if (Node given = item.member("rows"); isDynamic || given.exists())
      MOE_RT_TRY(given.string(rows));
    static constexpr const char *kinds[] = {"none", "home", "received", "all"};
    size_t kind = 0;
    while (kind < std::size(kinds) && rows != kinds[kind])
      ++kind;
    if (kind == std::size(kinds) || (kind == 0 && isDynamic))
      return item.member("rows").refuse("is " + quote(rows) +
                                        ", expected home, received or all");
    if (isDynamic)
      value.rows = static_cast<Rows>(kind);
    MOE_RT_TRY(parseSaved(item.member("saved"), value));
    MOE_RT_TRY(addValue(item, std::move(value)));
  }
  return nullptr;
}

/// Read the name of a value.
moe_rt_status_t Parser::find(const Node &node, std::string &name,
                             size_t &index) const {
  MOE_RT_TRY(node.string(name));
  auto found = names.find(name);
  if (found == names.end())
    return node.refuse("names " + quote(name) + ", which is no value");
  index = found->second;
  return nullptr;
}

moe_rt_status_t Parser::use(const Node &node, size_t &index) {
  std::string name;
  MOE_RT_TRY(find(node, name, index));
  if (!isMade[index])
    return node.refuse("uses " + quote(name) + " before a step has made it");
  return nullptr;
}

moe_rt_status_t Parser::make(const Node &node, size_t &index) {
  std::string name;
  MOE_RT_TRY(find(node, name, index));
  if (isMade[index])
    return node.refuse("makes " + quote(name) + " again");
  isMade[index] = true;
  // The rows of the exchange before.
  if (value(index).rows == Rows::received) {
    if (received == 0)
      return node.refuse("makes " + quote(name) +
                         " of received rows before an exchange");
    value(index).exchange = received - 1;
  }
  return nullptr;
}

moe_rt_status_t Parser::checkCounts(const Node &node, size_t index) {
  const Argument &type = value(index).type;
  if (isI32(type) && type.shape == std::vector<int64_t>{out.experts})
    return nullptr;
  return node.refuse("names " + quote(type.name) + " of type " +
                     describe(type) + ", expected i32[" +
                     std::to_string(out.experts) + "]");
}

//===----------------------------------------------------------------------===//
// Parts
//===----------------------------------------------------------------------===//

/// Bind the values that a step names to the part's inputs or outputs. `extent`
/// is a value that has its dynamic extent, once there is one.
moe_rt_status_t Parser::bindTensors(const Node &node, const Function &part,
                                    bool areOutputs, PartCall &call,
                                    std::optional<size_t> &extent) {
  const std::vector<size_t> &arguments =
      areOutputs ? part.outputs : part.inputs;
  std::vector<size_t> &bound = areOutputs ? call.outputs : call.inputs;
  size_t count = 0;
  MOE_RT_TRY(node.array(count));
  if (count != arguments.size())
    return node.refuse("has " + std::to_string(count) + " names, expected " +
                       std::to_string(arguments.size()) + " for function " +
                       quote(part.name));
  for (size_t i = 0; i < count; ++i) {
    const Argument &argument = part.arguments[arguments[i]];
    size_t index = 0;
    MOE_RT_TRY(areOutputs ? make(node.element(i), index)
                          : use(node.element(i), index));
    Value &tensor = value(index);
    if (!sameType(tensor.type, argument) || tensor.type.shape != argument.shape)
      return node.element(i).refuse("names " + quote(tensor.type.name) +
                                    " of type " + describe(tensor.type) +
                                    ", expected " + describe(argument) +
                                    " as in function " + quote(part.name));
    if (tensor.rows != Rows::none) {
      if (tensor.kind == Value::Kind::saved && tensor.rows == Rows::received &&
          tensor.exchange == SIZE_MAX) {
        if (received == 0)
          return node.element(i).refuse("names " + quote(tensor.type.name) +
                                        " of received rows before an exchange");
        tensor.exchange = received - 1;
      }
      if (!extent)
        extent = index;
      const Value &first = value(*extent);
      if (first.rows != tensor.rows || first.exchange != tensor.exchange)
        return node.element(i).refuse(
            "names " + quote(tensor.type.name) +
            ", which has other rows than " + quote(first.type.name) +
            ", and a function has one dynamic extent");
    }
    if (tensor.kind == Value::Kind::made || tensor.kind == Value::Kind::saved ||
        tensor.kind == Value::Kind::placement)
      tensor.type.alignment =
          std::max(tensor.type.alignment, argument.alignment);
    else if (tensor.type.alignment % argument.alignment != 0)
      return node.element(i).refuse(
          "names " + quote(tensor.type.name) + ", which is aligned to " +
          std::to_string(tensor.type.alignment) + " bytes, expected " +
          std::to_string(argument.alignment));
    bound.push_back(index);
  }
  return nullptr;
}

/// Check that the layer has the weights of a part, for all experts or in full.
moe_rt_status_t Parser::checkWeights(const Node &node, const Function &part) {
  for (size_t index : part.weights) {
    const Argument &own = part.arguments[index];
    const Argument *whole = nullptr;
    for (size_t candidate : out.signature.weights)
      if (out.signature.arguments[candidate].name == own.name)
        whole = &out.signature.arguments[candidate];
    bool fits = whole && sameType(*whole, own);
    if (fits && whole->shape != own.shape)
      fits = !own.shape.empty() && own.shape.size() == whole->shape.size() &&
             own.shape[0] == out.slots && whole->shape[0] == out.experts &&
             std::equal(own.shape.begin() + 1, own.shape.end(),
                        whole->shape.begin() + 1);
    if (!fits)
      return node.refuse("names function " + quote(part.name) +
                         " whose weight " + quote(own.name) + " has type " +
                         describe(own) + ", " +
                         (whole ? "and the layer's has type " + describe(*whole)
                                : "and the layer has none of that name"));
  }
  return nullptr;
}

moe_rt_status_t Parser::parseCall(const Node &node, PartCall &call) {
  std::string name;
  Node callee = node.member("call");
  MOE_RT_TRY(callee.string(name));
  auto found = functions.find(name);
  if (found == functions.end() ||
      !variant.functions[found->second].prepares.empty())
    return callee.refuse("names " + quote(name) +
                         ", which is no function that can be called");
  call.function = found->second;
  const Function &part = variant.functions[call.function];
  std::optional<size_t> extent;
  MOE_RT_TRY(bindTensors(node.member("inputs"), part, false, call, extent));
  MOE_RT_TRY(bindTensors(node.member("outputs"), part, true, call, extent));
  MOE_RT_TRY(checkWeights(callee, part));
  Rows rows = extent ? value(*extent).rows : Rows::none;
  const Function &layer = out.signature;
  int64_t min = rows == Rows::home || rows == Rows::all ? layer.minTokens : 0;
  int64_t max = rows == Rows::home ? layer.maxTokens : min;
  if (rows != Rows::none && (part.minTokens > min || part.maxTokens < max))
    return callee.refuse("names function " + quote(name) + " for " +
                         std::to_string(part.minTokens) + " to " +
                         std::to_string(part.maxTokens) + " rows, expected " +
                         std::to_string(min) + " to " + std::to_string(max) +
                         " or more");
  return nullptr;
}

//===----------------------------------------------------------------------===//
// What ranks do together
//===----------------------------------------------------------------------===//

/// Whether rows of this type can be exchanged: they are the last dimension.
static bool hasRows(const Argument &type) {
  return type.shape.size() >= 2 && type.shape.back() > 0;
}

moe_rt_status_t Parser::parseExchange(const Node &node, Exchange &exchange) {
  MOE_RT_TRY(node.object());
  Node sources = node.member("sources"), results = node.member("results");
  size_t count = 0, resultCount = 0;
  MOE_RT_TRY(sources.array(count));
  MOE_RT_TRY(results.array(resultCount));
  if (count == 0 || count != resultCount)
    return results.refuse("has " + std::to_string(resultCount) + " names for " +
                          std::to_string(count) +
                          " sources, expected one for each");
  for (size_t i = 0; i < count; ++i) {
    Node item = sources.element(i);
    MOE_RT_TRY(item.object());
    Sent sent = {};
    MOE_RT_TRY(use(item.member("value"), sent.source));
    const Argument &type = value(sent.source).type;
    if (!hasRows(type))
      return item.member("value").refuse("names " + quote(type.name) +
                                         " of type " + describe(type) +
                                         ", which has no rows");
    if (Node index = item.member("index"); index.exists()) {
      MOE_RT_TRY(use(index, sent.index.emplace()));
      const Argument &indexType = value(*sent.index).type;
      if (!isI32(indexType))
        return index.refuse("names " + quote(indexType.name) + " of type " +
                            describe(indexType) + ", expected i32");
    }
    exchange.values.push_back(sent);
  }
  MOE_RT_TRY(use(node.member("counts"), exchange.counts));
  MOE_RT_TRY(checkCounts(node.member("counts"), exchange.counts));
  if (Node expected = node.member("expected"); expected.exists()) {
    MOE_RT_TRY(use(expected, exchange.expected.emplace()));
    MOE_RT_TRY(checkCounts(expected, *exchange.expected));
  } else {
    ++received;
  }
  for (size_t i = 0; i < count; ++i) {
    size_t &index = exchange.values[i].result;
    MOE_RT_TRY(make(results.element(i), index));
    const Value &result = value(index);
    const Argument &from = value(exchange.values[i].source).type;
    // The others' rows may arrive at any time: memory of the caller will not
    // do.
    if (result.kind != Value::Kind::made)
      return results.element(i).refuse("names " + quote(result.type.name) +
                                       ", which is an output of the layer");
    bool fits = hasRows(result.type) && sameType(result.type, from) &&
                result.type.shape.back() == from.shape.back();
    if (fits && !exchange.expected)
      fits = result.rows == Rows::received && result.type.shape.size() == 2 &&
             result.exchange == received - 1;
    if (fits && exchange.expected)
      fits = result.rows == Rows::home;
    if (!fits)
      return results.element(i).refuse(
          "names " + quote(result.type.name) + " of type " +
          describe(result.type) + ", expected rows of " + quote(from.name) +
          " of type " + describe(from) + ", which are " +
          (exchange.expected ? "home" : "received"));
  }
  if (Node counts = node.member("received"); counts.exists()) {
    MOE_RT_TRY(make(counts, exchange.received.emplace()));
    MOE_RT_TRY(checkCounts(counts, *exchange.received));
    if (value(*exchange.received).kind != Value::Kind::made)
      return counts.refuse("names an output of the layer");
  }
  return nullptr;
}

moe_rt_status_t Parser::parseGather(const Node &node, bool isOwn,
                                    Gather &gather) {
  MOE_RT_TRY(node.object());
  MOE_RT_TRY(use(node.member("source"), gather.source));
  MOE_RT_TRY(make(node.member("result"), gather.result));
  const Value &from = value(gather.source), &to = value(gather.result);
  auto isDynamic = [](const Value &value, Rows rows) {
    const std::vector<int64_t> &shape = value.type.shape;
    return value.rows == rows && shape[0] == dynamicExtent &&
           std::count(shape.begin(), shape.end(), dynamicExtent) == 1;
  };
  Rows before = isOwn ? Rows::all : Rows::home;
  Rows after = isOwn ? Rows::home : Rows::all;
  if (!sameType(from.type, to.type) || from.type.shape != to.type.shape ||
      !isDynamic(from, before) || !isDynamic(to, after) ||
      (!isOwn && to.kind != Value::Kind::made))
    return node.refuse(
        "makes " + quote(to.type.name) + " of type " + describe(to.type) +
        " of " + quote(from.type.name) + " of type " + describe(from.type) +
        ", expected the same types with rows as the first extent, from " +
        (isOwn ? "all ranks to home" : "home to all ranks"));
  return nullptr;
}

moe_rt_status_t Parser::parseStep(const Node &node) {
  MOE_RT_TRY(node.object());
  Step step = {};
  Node exchange = node.member("exchange"), gather = node.member("gather"),
       own = node.member("own"), call = node.member("call");
  int kinds =
      exchange.exists() + gather.exists() + own.exists() + call.exists();
  if (kinds != 1)
    return node.refuse("has " + std::to_string(kinds) +
                       " of call, exchange, gather and own, expected one");
  if (call.exists()) {
    step.kind = Step::Kind::call;
    MOE_RT_TRY(parseCall(node, step.call));
  } else if (exchange.exists()) {
    step.kind = Step::Kind::exchange;
    MOE_RT_TRY(parseExchange(exchange, step.exchange));
  } else {
    step.kind = own.exists() ? Step::Kind::own : Step::Kind::gather;
    MOE_RT_TRY(
        parseGather(own.exists() ? own : gather, own.exists(), step.gather));
  }
  out.steps.push_back(std::move(step));
  return nullptr;
}

moe_rt_status_t Parser::parse(const Node &node) {
  MOE_RT_TRY(node.object());
  MOE_RT_TRY(node.member("name").string(out.signature.name));
  MOE_RT_TRY(
      node.member("experts").integer(1, maxParallelExperts, out.experts));
  MOE_RT_TRY(node.member("slots").integer(1, out.experts, out.slots));
  MOE_RT_TRY(node.member("replicas")
                 .integer(1, maxTargets / out.experts, out.replicas));
  MOE_RT_TRY(parseSignature(node, out.signature));
  MOE_RT_TRY(checkRoles(node.member("arguments")));
  MOE_RT_TRY(parseForward(node.member("forward")));
  MOE_RT_TRY(parseValues(node.member("values")));
  Node steps = node.member("steps");
  size_t count = 0;
  MOE_RT_TRY(steps.array(count, maxSteps));
  for (size_t i = 0; i < count; ++i)
    MOE_RT_TRY(parseStep(steps.element(i)));
  for (size_t i = 0; i < out.values.size(); ++i)
    if (out.values[i].kind == Value::Kind::output && !isMade[i])
      return steps.refuse("do not make output " +
                          quote(out.values[i].type.name));
    else if (out.values[i].isKept && !isMade[i])
      return steps.refuse("do not make " + quote(out.values[i].type.name) +
                          ", which is saved");
  out.received = received;
  findRoundTrips(out);
  return nullptr;
}

moe_rt_status_t
moe::rt::parseParallel(const Node &node,
                       const std::map<std::string, size_t> &names,
                       Variant &variant) {
  if (!node.exists())
    return nullptr;
  size_t count = 0;
  MOE_RT_TRY(node.array(count, maxArguments));
  std::vector<bool> isPart(variant.functions.size());
  for (size_t i = 0; i < count; ++i) {
    auto layer = std::make_shared<ParallelFunction>();
    MOE_RT_TRY(Parser(variant, names, *layer).parse(node.element(i)));
    const std::string &name = layer->signature.name;
    bool isKnown = names.count(name) > 0;
    for (const auto &other : variant.parallel)
      isKnown |= other->signature.name == name;
    if (isKnown)
      return node.element(i).refuse("repeats the name " + quote(name));
    for (const Step &step : layer->steps)
      if (step.kind == Step::Kind::call)
        isPart[step.call.function] = true;
    variant.parallel.push_back(std::move(layer));
  }
  std::vector<size_t> &callable = variant.callable;
  callable.erase(std::remove_if(callable.begin(), callable.end(),
                                [&](size_t index) { return isPart[index]; }),
                 callable.end());
  return nullptr;
}
