//===- round_trips.cpp - Steps from leaving rows to their return ---------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "artifact/round_trips.h"
#include "support/dtype.h"

#include <algorithm>

using namespace moe;
using namespace moe::rt;

/// Call `visit` with each value that a step uses.
template <typename Visit>
static void forEachUse(const Step &step, Visit visit) {
  for (size_t input : step.call.inputs)
    visit(input);
  if (step.kind == Step::Kind::gather || step.kind == Step::Kind::own)
    visit(step.gather.source);
  if (step.kind != Step::Kind::exchange)
    return;
  for (const Sent &sent : step.exchange.values) {
    visit(sent.source);
    if (sent.index)
      visit(*sent.index);
  }
  visit(step.exchange.counts);
  if (step.exchange.expected)
    visit(*step.exchange.expected);
}

/// True for a call on tokens of this rank that reads no value of `inside`.
static bool isBeside(const ParallelFunction &function, const Step &step,
                     const std::vector<bool> &inside) {
  auto isHome = [&](size_t index) {
    return function.values[index].rows == Rows::home;
  };
  auto isInside = [&](size_t index) { return inside[index]; };
  const PartCall &call = step.call;
  return step.kind == Step::Kind::call && !call.outputs.empty() &&
         std::all_of(call.outputs.begin(), call.outputs.end(), isHome) &&
         std::none_of(call.inputs.begin(), call.inputs.end(), isInside);
}

/// True if rows that leave in step `first` come home in step `last`, and what
/// is made between is used nowhere else.
static bool isRoundTrip(const ParallelFunction &function, size_t first,
                        size_t last, RoundTrip &trip) {
  auto value = [&](size_t index) -> const Value & {
    return function.values[index];
  };
  const Exchange &sends = function.steps[first].exchange;
  const Exchange &returns = function.steps[last].exchange;
  trip.first = first;
  trip.last = last;
  size_t candidates = 0;
  for (size_t i = 0; i < sends.values.size(); ++i)
    if (!sends.values[i].index &&
        sameDType(value(sends.values[i].source).type.dtype, {kDLInt, 32, 1})) {
      trip.slots = i;
      ++candidates;
    }
  if (candidates != 1)
    return false;
  // The rows that go home are listed by choice, or by token.
  trip.sumsTokens = !returns.values.empty();
  for (const Sent &sent : returns.values) {
    bool byToken = false;
    if (sent.index) {
      const std::vector<int64_t> &shape = value(*sent.index).type.shape;
      byToken = !shape.empty() && shape.back() == 1;
    }
    trip.sumsTokens &= byToken;
  }
  // What the steps between make, they make again in each round.
  std::vector<bool> inside(function.values.size());
  for (const Sent &sent : sends.values) {
    if (value(sent.result).isKept)
      return false;
    inside[sent.result] = true;
  }
  if (sends.received) {
    if (value(*sends.received).isKept)
      return false;
    inside[*sends.received] = true;
  }
  trip.besideEnd = first + 1;
  while (trip.besideEnd < last &&
         isBeside(function, function.steps[trip.besideEnd], inside))
    ++trip.besideEnd;
  for (size_t i = trip.besideEnd; i < last; ++i) {
    if (function.steps[i].kind != Step::Kind::call)
      return false;
    for (size_t output : function.steps[i].call.outputs) {
      if (value(output).kind != Value::Kind::made || value(output).isKept ||
          value(output).rows == Rows::home || value(output).rows == Rows::all)
        return false;
      inside[output] = true;
    }
  }
  if (!inside[returns.counts] || inside[*returns.expected])
    return false;
  for (const Sent &sent : returns.values)
    if (!inside[sent.source] || (sent.index && !inside[*sent.index]))
      return false;
  bool staysInside = true;
  for (size_t i = last + 1; i < function.steps.size(); ++i)
    forEachUse(function.steps[i],
               [&](size_t used) { staysInside &= !inside[used]; });
  return staysInside;
}

void moe::rt::findRoundTrips(ParallelFunction &function) {
  constexpr size_t none = SIZE_MAX;
  size_t first = none;
  for (size_t i = 0; i < function.steps.size(); ++i) {
    if (function.steps[i].kind != Step::Kind::exchange)
      continue;
    RoundTrip trip;
    if (!function.steps[i].exchange.expected)
      first = i;
    else if (first != none && isRoundTrip(function, first, i, trip)) {
      function.roundTrips.push_back(trip);
      first = none;
    }
  }
}
