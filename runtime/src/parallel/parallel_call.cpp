//===- parallel_call.cpp - Call a layer over several ranks ----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "parallel/parallel_call.h"
#include "support/checked.h"

#include <algorithm>
#include <cinttypes>
#include <cstring>
#include <numeric>

using namespace moe;
using namespace moe::rt;

ParallelCall::ParallelCall(ParallelLayer &layer)
    : layer(layer), function(layer.function), group(layer.group),
      memory(function, layer.layer.module->variant, group.readsPeers()),
      bound(function.signature.arguments.size()), tokensOf(group.size()),
      received(function.received), sends(group.size()), comes(group.size()),
      timer(layer.itsProfile) {}

moe_rt_status_t ParallelCall::agree(const Words &own, moe_rt_status_t failure,
                                    const std::vector<Common> &common,
                                    const int64_t *counts) {
  beginStage(function.steps.size());
  moe_rt_status_t status = group.agree(own, failure, common, counts);
  isCommon = status != nullptr;
  return status;
}

void ParallelCall::beginStage(size_t step) {
  if (timer.isRunning())
    timer.begin(static_cast<int64_t>(step));
}

/// Whether a step is an exchange by which tokens leave: what comes is not known
/// before.
bool ParallelCall::isLeaving(size_t step) const {
  return step < function.steps.size() &&
         function.steps[step].kind == Step::Kind::exchange &&
         !function.steps[step].exchange.expected;
}

const RoundTrip *ParallelCall::roundTripAt(size_t step) const {
  for (const RoundTrip &trip : function.roundTrips)
    if (trip.first == step)
      return &trip;
  return nullptr;
}

int64_t ParallelCall::extentOf(const Value &value) const {
  if (value.kind == Value::Kind::saved)
    return saved->values[value.argument].extent;
  switch (value.rows) {
  case Rows::none:
    break;
  case Rows::home:
    return tokens;
  case Rows::received:
    return received[value.exchange];
  case Rows::all:
    return allTokens;
  }
  return 0;
}

char *ParallelCall::addressOf(size_t index) const {
  const Value &value = function.values[index];
  switch (value.kind) {
  case Value::Kind::input:
  case Value::Kind::output:
    return bound[value.argument].data;
  case Value::Kind::placement:
    return reinterpret_cast<char *>(const_cast<int32_t *>(layer.targets()));
  case Value::Kind::saved:
    return saved->values[value.argument].memory.data();
  case Value::Kind::made:
    break;
  }
  const SharedBuffer &buffer = value.rows == Rows::received ? group.received
                               : value.rows == Rows::all    ? group.gathered
                                                            : group.home;
  uint64_t begin = value.rows == Rows::received ? receivedBegin : 0;
  return memory.base(buffer.data() + begin) + memory.offsetOf(index);
}

const int32_t *ParallelCall::idsOf(size_t value) const {
  return reinterpret_cast<const int32_t *>(addressOf(value));
}

//===----------------------------------------------------------------------===//
// Before the ranks meet
//===----------------------------------------------------------------------===//

moe_rt_status_t ParallelCall::bind(const CallArguments &arguments) {
  MOE_RT_TRY(layer.checkWeights());
  const Function &signature = function.signature;
  const Device &device = *group.context->device;
  TokenCount count;
  auto check = [&](const std::vector<size_t> &indices,
                   const DLTensor *tensors) -> moe_rt_status_t {
    for (size_t i = 0; i < indices.size(); ++i)
      MOE_RT_TRY(checkTensor(signature.arguments[indices[i]], tensors[i],
                             device, count, bound[indices[i]]));
    return nullptr;
  };
  MOE_RT_TRY(check(signature.inputs, arguments.inputs));
  MOE_RT_TRY(check(signature.outputs, arguments.outputs));
  wholeTokens = tokens = count.known() ? count.value : signature.maxTokens;
  MOE_RT_TRY(checkTokens(signature, tokens));
  if (group.isReplicated)
    MOE_RT_TRY(takeSlice());
  MOE_RT_TRY(checkSaved());
  for (size_t index : signature.inputs)
    MOE_RT_TRY(checkElements(signature.arguments[index], bound[index]));
  // Parts check each output against what they read; this one is written when
  // the inputs may still be needed.
  for (size_t i = 0; i < signature.outputs.size(); ++i) {
    size_t output = signature.outputs[i];
    auto checkApart = [&](size_t other) -> moe_rt_status_t {
      if (!overlaps(bound[output], bound[other]))
        return nullptr;
      return makeError(MOE_RT_INVALID_ARGUMENT,
                       "output '%s' overlaps %s '%s', expected separate memory",
                       signature.arguments[output].name.c_str(),
                       signature.arguments[other].roleName(),
                       signature.arguments[other].name.c_str());
    };
    for (size_t input : signature.inputs)
      MOE_RT_TRY(checkApart(input));
    for (size_t k = 0; k < i; ++k)
      MOE_RT_TRY(checkApart(signature.outputs[k]));
  }
  if (group.isReplicated && tokens > 0)
    shiftToSlice();
  return nullptr;
}

static moe_rt_status_t growWorkspace(Buffer &workspace, uint64_t bytes) {
  if (workspace.bytes() >= bytes)
    return nullptr;
  return workspace.allocate(bytes, "workspace",
                            bytes < hugePage ? bufferAlignment : hugePage);
}

moe_rt_status_t ParallelCall::allocateHome() {
  MOE_RT_TRY(group.home.grow(memory.layoutHome(tokens), "values of a call"));
  if (group.readsPeers())
    MOE_RT_TRY(group.reservePlaces(mostShared()));
  MOE_RT_TRY(
      group.packed.grow(replicatedBytes(function, group, wholeTokens, tokens),
                        "results of all ranks"));
  return growWorkspace(group.workspace,
                       std::max(memory.workspace(Rows::home, tokens),
                                memory.workspace(Rows::none, 0)));
}

//===----------------------------------------------------------------------===//
// The meeting
//===----------------------------------------------------------------------===//

/// What is packed for an exchange that tokens leave by: two blocks, if it may
/// be in chunks. Those of two chunks are the largest.
static uint64_t packedFor(const moe_rt_group_t &group, const CallMemory &memory,
                          const Exchange &exchange, uint64_t rows,
                          int64_t tokens) {
  uint64_t bytes = memory.packedBytes(exchange, rows, tokens), blocks = 0;
  bool isKnown =
      group.chunks <= 1 ||
      checkedMul(memory.packedBytes(exchange, rows / 2 + group.size(), tokens),
                 uint64_t(2), blocks);
  return isKnown ? std::max(bytes, blocks) : UINT64_MAX;
}

/// Likewise, of what is received; lays out one block for all rows.
static uint64_t receivedFor(const moe_rt_group_t &group, CallMemory &memory,
                            int64_t rows) {
  uint64_t blocks = 0;
  bool isKnown = group.chunks <= 1 ||
                 checkedMul(memory.layoutReceived(
                                rows / 2 + static_cast<int64_t>(group.size())),
                            uint64_t(2), blocks);
  uint64_t bytes = memory.layoutReceived(rows);
  return isKnown ? std::max(bytes, blocks) : UINT64_MAX;
}

uint64_t ParallelCall::packedBytes(size_t step, uint64_t rows) const {
  const Exchange &exchange = function.steps[step].exchange;
  return std::max(replicatedBytes(function, group, wholeTokens, tokens),
                  gathersTokens(step)
                      ? gatheredBytes(function, group, memory, exchange, tokens)
                      : packedFor(group, memory, exchange, rows, tokens));
}

// Words::values of a call.
enum { layerWord, tokensWord, readyWord, stepWord, countWord, savedWord };

/// Meet the other ranks before a step: each is told how many rows come to it.
moe_rt_status_t ParallelCall::meet(size_t step, moe_rt_status_t failure) {
  bool leaves = isLeaving(step) && !failure;
  int64_t ready = layer.readyRows;
  std::vector<int64_t> announced = sends;
  if (gathersTokens(step))
    announced.assign(group.size(), tokens);
  if (!failure) {
    uint64_t packedRows = static_cast<uint64_t>(
        leaves ? std::accumulate(sends.begin(), sends.end(), int64_t(0)) : 0);
    if (!fits(ready, packedRows, step) || !hasMemory(ready))
      ready = 0;
    else if (leaves)
      failure =
          group.packed.grow(packedBytes(step, packedRows), "rows to send");
    if (ready > 0 && leaves && !failure)
      failure = tellInMeeting(step);
  }
  Words own = {static_cast<int64_t>(Action::call), 0, 0, {}};
  own.values[layerWord] = static_cast<int64_t>(layer.number);
  own.values[tokensWord] = group.isReplicated ? wholeTokens : tokens;
  own.values[readyWord] = ready;
  own.values[stepWord] = static_cast<int64_t>(step);
  own.values[savedWord] = function.forward && saved ? saved->number : 0;
  std::vector<Common> common = {{layerWord, "layer", true},
                                {stepWord, "step"},
                                {savedWord, "saved values of call"}};
  if (group.isReplicated)
    common.push_back({tokensWord, "tokens"});
  MOE_RT_TRY(agree(own, failure, common, leaves ? announced.data() : nullptr));
  allTokens = 0;
  for (size_t r = 0; r < group.size(); ++r) {
    tokensOf[r] = group.heard(r).values[tokensWord];
    if (group.isReplicated)
      tokensOf[r] = beginOfSlice(wholeTokens, r + 1, group.size()) -
                    beginOfSlice(wholeTokens, r, group.size());
    allTokens = saturatingAdd(allTokens, tokensOf[r]);
    comes[r] = group.heard(r).values[countWord];
    if (tokensOf[r] < 0 ||
        (isLeaving(step) && (comes[r] < 0 || comes[r] > tokensOf[r])))
      return group.kill(MOE_RT_INTERNAL,
                        "rank " + std::to_string(group.rank()) + ": rank " +
                            std::to_string(r) + " announces " +
                            std::to_string(comes[r]) + " rows of its " +
                            std::to_string(tokensOf[r]) + " tokens");
  }
  return nullptr;
}

/// Whether a call stays within the limit of memory with so many received rows.
bool ParallelCall::fits(int64_t rows, uint64_t packedRows, size_t step) {
  if (rows > memory.maxReceived())
    return false;
  if (group.memoryLimit == 0)
    return true;
  uint64_t bytes[] = {memory.layoutHome(tokens),
                      memory.layoutGathered(allTokens),
                      isLeaving(step) ? packedBytes(step, packedRows) : 0,
                      receivedFor(group, memory, rows),
                      std::max({memory.workspace(Rows::none, 0),
                                memory.workspace(Rows::home, tokens),
                                memory.workspace(Rows::received, rows),
                                memory.workspace(Rows::all, allTokens)})};
  uint64_t sum = 0;
  for (uint64_t each : bytes)
    if (!checkedAdd(sum, each, sum))
      return false;
  return sum <= group.memoryLimit;
}

/// Whether the group has what a call with so many received rows needs. Memory
/// that could not grow, for this layer or another one, is gone.
bool ParallelCall::hasMemory(int64_t rows) {
  return group.gathered.bytes() >= memory.layoutGathered(rows) &&
         group.received.bytes() >= receivedFor(group, memory, rows) &&
         group.workspace.bytes() >=
             std::max(memory.workspace(Rows::received, rows),
                      memory.workspace(Rows::all, rows));
}

/// Allocate what a call with so many received rows needs.
moe_rt_status_t ParallelCall::reserveRows(int64_t rows, uint64_t packedRows,
                                          size_t step) {
  if (isLeaving(step))
    MOE_RT_TRY(
        group.packed.grow(packedBytes(step, packedRows), "rows to send"));
  MOE_RT_TRY(
      group.received.grow(receivedFor(group, memory, rows), "received rows"));
  return growWorkspace(group.workspace,
                       std::max(memory.workspace(Rows::received, rows),
                                memory.workspace(Rows::all, allTokens)));
}

/// The most rows of one of `parts` rounds or chunks.
int64_t ParallelCall::sumOfParts(const std::vector<int64_t> &rows,
                                 int64_t parts) {
  int64_t sum = 0;
  for (int64_t each : rows)
    sum += each / parts + (each % parts != 0);
  return sum;
}

/// The error of a call that may receive too many rows, and cannot run in
/// rounds.
moe_rt_status_t ParallelCall::refuseRows() const {
  const char *name = function.signature.name.c_str();
  if (allTokens > memory.maxReceived())
    return makeError(MOE_RT_OUT_OF_RANGE,
                     "layer '%s': a rank may receive %" PRId64
                     " rows, the code takes %" PRId64,
                     name, allTokens, memory.maxReceived());
  return makeError(MOE_RT_RESOURCE_EXHAUSTED,
                   "layer '%s': a call with %" PRId64
                   " tokens here and %" PRId64
                   " on all ranks needs more memory than the group's limit of "
                   "%" PRIu64 " bytes",
                   name, tokens, allTokens, group.memoryLimit);
}

/// Allocate what depends on the other ranks. If a rank may not have enough
/// memory, all agree once more: on rounds, each with some of the rows.
moe_rt_status_t ParallelCall::reserve(size_t step, int64_t &rounds) {
  rounds = 1;
  int64_t least = INT64_MAX;
  for (size_t r = 0; r < group.size(); ++r)
    least = std::min(least, group.heard(r).values[readyWord]);
  if (least < allTokens) {
    // What was told may lie elsewhere afterwards.
    hasTold = false;
    copiedStep = SIZE_MAX;
  } else {
    (void)memory.layoutGathered(allTokens);
    (void)memory.layoutReceived(layer.readyRows);
    return nullptr;
  }
  // What is gathered stays until the end of the call.
  moe_rt_status_t status = group.gathered.grow(memory.layoutGathered(allTokens),
                                               "rows of all ranks");
  bool leaves = isLeaving(step);
  uint64_t rows = static_cast<uint64_t>(
      leaves ? std::accumulate(sends.begin(), sends.end(), int64_t(0)) : 0);
  int64_t reserved = 0;
  if (!status) {
    // As many rows as there can be, so that the next call is ready.
    moe_rt_status_t all = fits(allTokens, rows, step)
                              ? reserveRows(allTokens, rows, step)
                              : refuseRows();
    if (!all) {
      layer.readyRows = std::max(layer.readyRows, allTokens);
      reserved = allTokens;
    } else if (!leaves) {
      // Exchanges that follow decide for themselves.
      moe_rt_status_free(all);
    } else if (function.roundTrips.size() < function.received) {
      status = all;
    } else {
      // The fewest rounds that fit: more rounds never need more.
      const RoundTrip *trip = roundTripAt(step);
      int64_t most = 1;
      for (const std::vector<int64_t> *counts : {&sends, &comes})
        for (int64_t count : *counts)
          most = std::max(most, count);
      auto fitsIn = [&](int64_t count) {
        return fits(sumOfParts(comes, count),
                    static_cast<uint64_t>(sumOfParts(sends, count)), step);
      };
      if (!trip || !fitsIn(most) || gathersTokens(step)) {
        status = all;
      } else {
        moe_rt_status_free(all);
        int64_t low = 1, high = most;
        while (low < high) {
          int64_t middle = low + (high - low) / 2;
          if (fitsIn(middle))
            high = middle;
          else
            low = middle + 1;
        }
        rounds = low;
      }
    }
  }
  Words own = {static_cast<int64_t>(Action::grow), 0, 0, {rounds}};
  MOE_RT_TRY(agree(own, status, {}));
  for (size_t r = 0; r < group.size(); ++r)
    rounds = std::max(rounds, group.heard(r).values[0]);
  if (reserved > 0 || !leaves) {
    (void)memory.layoutReceived(reserved);
    return nullptr;
  }
  moe_rt_status_t failed =
      reserveRows(sumOfParts(comes, rounds),
                  static_cast<uint64_t>(sumOfParts(sends, rounds)), step);
  if (!failed)
    return nullptr;
  std::string message = moe_rt_status_message(failed);
  moe_rt_code_t code = moe_rt_status_code(failed);
  moe_rt_status_free(failed);
  return group.kill(code, message);
}

//===----------------------------------------------------------------------===//
// Steps
//===----------------------------------------------------------------------===//

moe_rt_status_t ParallelCall::callPart(size_t step) {
  current = step;
  beginStage(step);
  const PartCall &call = function.steps[step].call;
  moe_rt_layer_t &part = layer.part(call);
  std::vector<DLTensor> tensors;
  std::vector<std::vector<int64_t>> shapes;
  tensors.reserve(call.inputs.size() + call.outputs.size());
  shapes.reserve(tensors.capacity());
  int64_t extent = -1;
  for (const std::vector<size_t> *values : {&call.inputs, &call.outputs})
    for (size_t index : *values) {
      const Value &value = function.values[index];
      shapes.push_back(value.type.shape);
      for (int64_t &each : shapes.back())
        if (each == dynamicExtent)
          each = extent = extentOf(value);
      MOE_RT_TRY(checkExtent(value));
      tensors.push_back({addressOf(index),
                         {kDLCPU, 0},
                         static_cast<int32_t>(shapes.back().size()),
                         value.type.dtype,
                         shapes.back().data(),
                         nullptr,
                         0});
    }
  // A size that is no size, or that does not grow with T, is found here.
  uint64_t required = 0;
  MOE_RT_TRY(codeWorkspace(
      part.function, extent < 0 ? part.function.maxTokens : extent, required));
  bool hasWorkspace = required <= group.workspace.bytes();
  return part.onDevice->call({tensors.data(),
                              tensors.data() + call.inputs.size(),
                              hasWorkspace ? group.workspace.data() : nullptr,
                              hasWorkspace ? group.workspace.bytes() : 0});
}

/// The steps from one on that the ranks have met for.
moe_rt_status_t ParallelCall::finish(size_t first) {
  int64_t rounds = 1;
  MOE_RT_TRY(reserve(first, rounds));
  bool hasMet = true;
  for (size_t i = first; i < function.steps.size(); ++i) {
    current = i;
    const Step &step = function.steps[i];
    if (isLeaving(i)) {
      if (!hasMet) {
        moe_rt_status_t status = checkSend(i);
        if (const RoundTrip *trip = roundTripAt(i); trip && !status)
          status = checkSlots(*trip);
        MOE_RT_TRY(meet(i, status));
        MOE_RT_TRY(reserve(i, rounds));
      }
      hasMet = false;
      if (const RoundTrip *trip = roundTripAt(i)) {
        int64_t chunks = rounds == 1 ? chunksOf(*trip) : 1;
        MOE_RT_TRY(chunks > 1 ? runChunks(*trip, chunks)
                              : runRoundTrip(*trip, rounds));
        i = trip->last;
        continue;
      }
      Traffic traffic(group.size());
      ++layer.exchanged.rounds;
      MOE_RT_TRY(receive(i, traffic, 0, 1));
      continue;
    }
    hasMet = false;
    switch (step.kind) {
    case Step::Kind::call:
      MOE_RT_TRY(callPart(i));
      break;
    case Step::Kind::exchange:
      MOE_RT_TRY(comeHome(i));
      break;
    case Step::Kind::gather:
      MOE_RT_TRY(gather(i));
      break;
    case Step::Kind::own:
      takeOwn(i);
      break;
    }
  }
  return nullptr;
}

moe_rt_status_t ParallelCall::refuse(moe_rt_status_t failure) {
  return meet(0, failure);
}

moe_rt_status_t ParallelCall::run(const CallArguments &arguments) {
  layer.exchanged = {};
  layer.exchanged.way =
      group.readsPeers() ? MOE_RT_WAY_PEER : MOE_RT_WAY_ALL_TO_ALL;
  for (const RoundTrip &trip : function.roundTrips)
    if (gathersTokens(trip.first))
      layer.exchanged.way = MOE_RT_WAY_ALL_GATHER;
  saved = arguments.saved;
  allTokens = layer.readyRows; // until it is known
  moe_rt_status_t status = bind(arguments);
  if (!status)
    status = allocateHome();
  // Nothing is lost by an error until the ranks have met.
  size_t first = 0;
  const std::vector<Step> &steps = function.steps;
  while (!status && first < steps.size() &&
         steps[first].kind == Step::Kind::call &&
         memory.rowsOf(first) != Rows::all)
    status = callPart(first++);
  if (!status && isLeaving(first)) {
    status = checkSend(first);
    if (const RoundTrip *trip = roundTripAt(first); trip && !status)
      status = checkSlots(*trip);
  }
  MOE_RT_TRY(meet(first, status));
  MOE_RT_TRY(memory.checkAll(allTokens));
  status = finish(first);
  bool othersWait = group.isReplicated && status;
  if (!status)
    status = gatherOutputs();
  if (!status)
    timer.end();
  if (!status)
    status = keep();
  for (size_t i = current; i < steps.size(); ++i)
    othersWait |= steps[i].isCollective();
  if (isCommon || group.isDead())
    return status;
  // A rank without its values cannot call the backward layer: no rank has any.
  if (saved && !function.forward && !(status && othersWait))
    return agree({static_cast<int64_t>(Action::keepSaved), 0, 0, {}}, status,
                 {});
  if (!status || !othersWait)
    return status;
  // The others wait for rows that will not come.
  std::string message = "rank " + std::to_string(group.rank()) + ": " +
                        moe_rt_status_message(status);
  moe_rt_code_t code = moe_rt_status_code(status);
  moe_rt_status_free(status);
  return group.kill(code, message);
}

uint64_t ParallelCall::workspace(const ParallelLayer &layer, int64_t tokens) {
  const ParallelFunction &function = layer.function;
  const moe_rt_group_t &group = layer.group;
  CallMemory memory(function, layer.layer.module->variant, group.readsPeers());
  int64_t all;
  const int64_t whole = tokens;
  if (group.isReplicated) {
    all = whole;
    tokens = beginOfSlice(whole, 1, group.size());
  } else if (!checkedMul(static_cast<int64_t>(group.size()), tokens, all))
    all = INT64_MAX;
  uint64_t packed = replicatedBytes(function, group, whole, tokens), sent;
  // A token may go to all ranks.
  if (!checkedMul(static_cast<uint64_t>(tokens), uint64_t(group.size()), sent))
    sent = UINT64_MAX;
  for (const Step &step : function.steps)
    if (step.kind == Step::Kind::exchange && !step.exchange.expected) {
      packed = std::max(packed,
                        packedFor(group, memory, step.exchange, sent, tokens));
      if (layer.gathersTokens)
        packed = std::max(packed, gatheredBytes(function, group, memory,
                                                step.exchange, tokens));
    }
  uint64_t sum = 0;
  for (uint64_t bytes :
       {memory.layoutHome(tokens), memory.layoutGathered(all), packed,
        receivedFor(group, memory, std::min(all, memory.maxReceived())),
        std::max({memory.workspace(Rows::none, 0),
                  memory.workspace(Rows::home, tokens),
                  memory.workspace(Rows::received,
                                   std::min(all, memory.maxReceived())),
                  memory.workspace(Rows::all, all)})})
    if (!checkedAdd(sum, bytes, sum))
      sum = UINT64_MAX;
  return group.memoryLimit > 0 ? std::min(sum, group.memoryLimit) : sum;
}
