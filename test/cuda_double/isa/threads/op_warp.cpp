//===- op_warp.cpp - Warp-level shuffle, vote, match and reduce -----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// PTX ISA 9.7.9.6 "shfl.sync", 9.7.13.9 "vote.sync", 9.7.13.10 "match.sync",
// 9.7.13.11 "activemask", 9.7.13.12 "redux.sync" and 9.7.13.14 "elect.sync".
//
//===----------------------------------------------------------------------===//

#include "isa/ops.h"

using namespace moe::gpu;
using syntax::Operand;

namespace {

/// For each lane of a mask.
template <typename Body> void forLanes(uint32_t mask, Body body) {
  for (; mask; mask &= mask - 1)
    body(static_cast<uint32_t>(__builtin_ctz(mask)));
}

// In all of these instructions, e is the slot of the member mask.
template <Warp::Collective execute>
Step collective(Thread &thread, const Instruction &i) {
  return thread.warp->arrive(thread, i, thread.get<uint32_t>(i.e), execute);
}

//===----------------------------------------------------------------------===//
// shfl
//===----------------------------------------------------------------------===//

enum class Shuffle : uint8_t { Up, Down, Butterfly, Index };

// flags: 0 Shuffle; count: the slot of the predicate, or 0.

void shuffle(Warp &warp, const Instruction &i, uint32_t members) {
  uint32_t values[32] = {};
  forLanes(members, [&](uint32_t lane) {
    values[lane] = warp.threads[lane].get<uint32_t>(i.a);
  });
  forLanes(members, [&](uint32_t l) {
    Thread &thread = warp.threads[l];
    int lane = static_cast<int>(l);
    int b = thread.get<uint32_t>(i.b) & 31;
    uint32_t c = thread.get<uint32_t>(i.c);
    int segment = c >> 8 & 31, clamp = c & 31;
    int least = lane & segment, most = least | (clamp & ~segment);
    int from = lane;
    bool inside = false;
    switch (static_cast<Shuffle>(i.flags[0])) {
    case Shuffle::Up:
      from = lane - b;
      inside = from >= most;
      break;
    case Shuffle::Down:
      from = lane + b;
      inside = from <= most;
      break;
    case Shuffle::Butterfly:
      from = lane ^ b;
      inside = from <= most;
      break;
    case Shuffle::Index:
      from = least | (b & ~segment);
      inside = from <= most;
      break;
    }
    if (!inside)
      from = lane;
    // The value of a lane outside the member mask is undefined.
    bool member = members >> from & 1;
    thread.set<uint32_t>(i.d, member ? values[from] : 0xFFFFFFFF);
    if (i.count)
      thread.set<uint32_t>(i.count, inside);
  });
}

//===----------------------------------------------------------------------===//
// vote, match, redux, elect
//===----------------------------------------------------------------------===//

enum class Vote : uint8_t { All, Any, Uniform, Ballot };

// flags: 0 Vote, 1 negated predicate.
void vote(Warp &warp, const Instruction &i, uint32_t members) {
  uint32_t holds = 0;
  forLanes(members, [&](uint32_t lane) {
    bool value = warp.threads[lane].get<uint32_t>(i.a) != 0;
    holds |= uint32_t(value != (i.flags[1] != 0)) << lane;
  });
  uint32_t result = holds;
  switch (static_cast<Vote>(i.flags[0])) {
  case Vote::All:
    result = holds == members;
    break;
  case Vote::Any:
    result = holds != 0;
    break;
  case Vote::Uniform:
    result = holds == 0 || holds == members;
    break;
  case Vote::Ballot:
    break;
  }
  forLanes(members, [&](uint32_t lane) {
    warp.threads[lane].set<uint32_t>(i.d, result);
  });
}

// flags: 0 .all, 1 .b64; b: the slot of the predicate, or 0.
void match(Warp &warp, const Instruction &i, uint32_t members) {
  uint64_t values[32] = {};
  forLanes(members, [&](uint32_t lane) {
    const Thread &thread = warp.threads[lane];
    values[lane] =
        i.flags[1] ? thread.get<uint64_t>(i.a) : thread.get<uint32_t>(i.a);
  });
  forLanes(members, [&](uint32_t lane) {
    uint32_t same = 0;
    forLanes(members, [&](uint32_t other) {
      same |= uint32_t(values[other] == values[lane]) << other;
    });
    if (i.flags[0] && same != members)
      same = 0;
    Thread &thread = warp.threads[lane];
    thread.set<uint32_t>(i.d, same);
    if (i.b)
      thread.set<uint32_t>(i.b, same != 0);
  });
}

enum class Reduction : uint8_t { Add, Min, Max, And, Or, Xor };

// flags: 0 Reduction, 1 signed.
void reduce(Warp &warp, const Instruction &i, uint32_t members) {
  bool first = true;
  uint32_t result = 0;
  forLanes(members, [&](uint32_t lane) {
    uint32_t value = warp.threads[lane].get<uint32_t>(i.a);
    // Flipping the sign bit maps signed order to unsigned order.
    uint32_t bias = i.flags[1] ? 0x80000000 : 0;
    if (first) {
      result = value;
      first = false;
      return;
    }
    bool less = (value ^ bias) < (result ^ bias);
    switch (static_cast<Reduction>(i.flags[0])) {
    case Reduction::Add:
      result += value;
      break;
    case Reduction::Min:
      result = less ? value : result;
      break;
    case Reduction::Max:
      result = less ? result : value;
      break;
    case Reduction::And:
      result &= value;
      break;
    case Reduction::Or:
      result |= value;
      break;
    case Reduction::Xor:
      result ^= value;
      break;
    }
  });
  forLanes(members, [&](uint32_t lane) {
    warp.threads[lane].set<uint32_t>(i.d, result);
  });
}

/// The ISA allows any leader, if it is a function of the mask. Hardware elects
/// the lowest lane, and CUTLASS relies on it.
void elect(Warp &warp, const Instruction &i, uint32_t members) {
  uint32_t leader = static_cast<uint32_t>(__builtin_ctz(members));
  forLanes(members, [&](uint32_t lane) {
    Thread &thread = warp.threads[lane];
    if (i.d)
      thread.set<uint32_t>(i.d, leader);
    thread.set<uint32_t>(i.b, lane == leader);
  });
}

/// Threads are scheduled independently: only the executing one is active.
Step activemask(Thread &thread, const Instruction &i) {
  thread.set<uint32_t>(i.d, 1u << thread.lane);
  return Step::Go;
}

} // namespace

//===----------------------------------------------------------------------===//
// Decoding
//===----------------------------------------------------------------------===//

/// Decodes the result and the predicate of d|p.
static void decodePair(Decoder &d, uint32_t &result, uint32_t &predicate) {
  const Operand &operand = d.operand(0);
  if (operand.kind != Operand::Kind::Pair) {
    result = d.destination(0, Type::B32);
    return;
  }
  result = d.destination(operand.parts[0], Type::B32);
  if (operand.parts[1].kind != Operand::Kind::Sink)
    predicate = d.predicate(operand.parts[1]);
}

static void decodeShfl(Decoder &d) {
  d.need(".sync");
  static constexpr std::string_view modes[] = {".up", ".down", ".bfly", ".idx"};
  bool found = false;
  for (uint8_t k = 0; k < 4 && !found; ++k)
    if ((found = d.has(modes[k])))
      d.out.flags[0] = k;
  if (!found)
    d.error("expected a mode");
  d.need(".b32");
  d.expectOperands(5, 5);
  decodePair(d, d.out.d, d.out.count);
  d.out.a = d.source(1, Type::B32);
  d.out.b = d.source(2, Type::B32);
  d.out.c = d.source(3, Type::B32);
  d.out.e = d.source(4, Type::B32);
  d.out.run = collective<shuffle>;
}

static void decodeVote(Decoder &d) {
  d.need(".sync");
  Vote kind = d.has(".all")   ? Vote::All
              : d.has(".any") ? Vote::Any
              : d.has(".uni") ? Vote::Uniform
                              : Vote::Ballot;
  d.out.flags[0] = static_cast<uint8_t>(kind);
  d.expectOperands(3, 3);
  if (kind == Vote::Ballot) {
    d.need(".ballot");
    d.need(".b32");
    d.out.d = d.destination(0, Type::B32);
  } else {
    d.need(".pred");
    d.out.d = d.predicate(d.operand(0));
  }
  d.out.a = d.predicate(d.operand(1), &d.out.flags[1]);
  d.out.e = d.source(2, Type::B32);
  d.out.run = collective<vote>;
}

static void decodeMatch(Decoder &d) {
  d.out.flags[0] = d.has(".all");
  if (!d.out.flags[0])
    d.need(".any");
  d.need(".sync");
  Type type = d.type();
  d.out.flags[1] = bitsOf(type) == 64;
  d.expectOperands(3, 3);
  decodePair(d, d.out.d, d.out.b);
  d.out.a = d.source(1, type);
  d.out.e = d.source(2, Type::B32);
  d.out.run = collective<match>;
}

static void decodeRedux(Decoder &d) {
  d.need(".sync");
  static constexpr std::string_view names[] = {".add", ".min", ".max",
                                               ".and", ".or",  ".xor"};
  bool found = false;
  for (uint8_t k = 0; k < 6 && !found; ++k)
    if ((found = d.has(names[k])))
      d.out.flags[0] = k;
  Type type = d.type();
  if (!found || bitsOf(type) != 32 || isFloat(type))
    d.error("not supported");
  d.out.flags[1] = isSigned(type);
  d.expectOperands(3, 3);
  d.out.d = d.destination(0, type);
  d.out.a = d.source(1, type);
  d.out.e = d.source(2, Type::B32);
  d.out.run = collective<reduce>;
}

static void decodeElect(Decoder &d) {
  d.need(".sync");
  d.expectOperands(2, 2);
  decodePair(d, d.out.d, d.out.b);
  if (!d.out.b)
    d.error("expected a predicate");
  d.out.e = d.source(1, Type::B32);
  d.out.run = collective<elect>;
}

static void decodeActivemask(Decoder &d) {
  d.need(".b32");
  d.expectOperands(1, 1);
  d.out.d = d.destination(0, Type::B32);
  d.out.run = activemask;
}

static constexpr DecodeEntry entries[] = {
    {"shfl", decodeShfl},   {"vote", decodeVote},
    {"match", decodeMatch}, {"redux", decodeRedux},
    {"elect", decodeElect}, {"activemask", decodeActivemask},
};
const DecodeTable moe::gpu::warpInstructions = tableOf(entries);
