//===- op_move.cpp - Moves, selections and address conversions ------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// PTX ISA 9.7.6 "Comparison and Selection Instructions", 9.7.7 "Half Precision
// Comparison Instructions", and of 9.7.9 the moves and address conversions.
//
//===----------------------------------------------------------------------===//

#include "isa/numeric.h"
#include "isa/ops.h"

#include <chrono>

using namespace moe::gpu;
using syntax::Operand;

namespace {

template <typename T> Step move(Thread &thread, const Instruction &i) {
  thread.set<T>(i.d, thread.get<T>(i.a));
  return Step::Go;
}

Step move128(Thread &thread, const Instruction &i) {
  std::memmove(thread.frame + i.d, thread.frame + i.a, 16);
  return Step::Go;
}

/// mov from a vector to a register. list: elements of i.offset bits, the lowest
/// first.
Step pack(Thread &thread, const Instruction &i) {
  uint32_t words[4] = {0, 0, 0, 0};
  int width = static_cast<int>(i.offset);
  for (uint32_t k = 0; k < i.count; ++k) {
    if (width == 64) {
      std::memcpy(&words[2 * k], thread.frame + i.list[k], 8);
    } else {
      uint32_t part = thread.get<uint32_t>(i.list[k]);
      if (width < 32)
        part &= (1u << width) - 1;
      uint32_t bit = static_cast<uint32_t>(width) * k;
      words[bit / 32] |= part << (bit % 32);
    }
  }
  // flags[0]: words of the result.
  std::memcpy(thread.frame + i.d, words, i.flags[0] * 4u);
  return Step::Go;
}

Step unpack(Thread &thread, const Instruction &i) {
  uint32_t words[4] = {0, 0, 0, 0};
  std::memcpy(words, thread.frame + i.a, i.flags[0] * 4u);
  int width = static_cast<int>(i.offset);
  for (uint32_t k = 0; k < i.count; ++k) {
    if (i.list[k] == 0)
      continue; // the sink _
    if (width == 64) {
      std::memcpy(thread.frame + i.list[k], &words[2 * k], 8);
      continue;
    }
    uint32_t bit = static_cast<uint32_t>(width) * k;
    uint32_t part = words[bit / 32] >> (bit % 32);
    if (width == 32)
      thread.set<uint32_t>(i.list[k], part);
    else
      thread.set<uint16_t>(
          i.list[k], static_cast<uint16_t>(width == 8 ? part & 0xFF : part));
  }
  return Step::Go;
}

Step loadAddress(Thread &thread, const Instruction &i) {
  uint64_t base = i.a ? thread.get<uint64_t>(i.a) : 0;
  uint64_t address = base + static_cast<uint64_t>(i.offset);
  if (i.flags[0] == 64)
    thread.set<uint64_t>(i.d, address);
  else
    thread.set<uint32_t>(i.d, static_cast<uint32_t>(address));
  return Step::Go;
}

/// %clock counts executed instructions; flags[0]: the bits of the register.
Step readClock(Thread &thread, const Instruction &i) {
  uint64_t value = thread.machine().executed;
  if (i.offset)
    value = static_cast<uint64_t>(
        std::chrono::steady_clock::now().time_since_epoch().count());
  if (i.flags[0] == 64)
    thread.set<uint64_t>(i.d, value);
  else
    thread.set<uint32_t>(i.d, static_cast<uint32_t>(value));
  return Step::Go;
}

uint64_t windowOf(Space space) {
  switch (space) {
  case Space::Shared:
  case Space::SharedCluster:
    return windows().shared;
  case Space::Local:
    return windows().local;
  case Space::Param:
    return windows().param;
  default:
    return 0;
  }
}

/// cvta. offset: the addend. Shared memory addresses may have 32 bits.
Step convertAddress(Thread &thread, const Instruction &i) {
  uint64_t address =
      i.flags[0] ? thread.get<uint32_t>(i.a) : thread.get<uint64_t>(i.a);
  address += static_cast<uint64_t>(i.offset);
  if (i.flags[1])
    thread.set<uint32_t>(i.d, static_cast<uint32_t>(address));
  else
    thread.set<uint64_t>(i.d, address);
  return Step::Go;
}

Step isSpace(Thread &thread, const Instruction &i) {
  uint64_t address = thread.get<uint64_t>(i.a);
  const GenericWindows &window = windows();
  bool shared = address - window.shared < GenericWindows::sharedBytes;
  bool result = false;
  switch (static_cast<Space>(i.flags[0])) {
  case Space::SharedCluster:
    result = shared;
    break;
  case Space::Shared:
    result = shared && (address - window.shared) >> 24 == thread.block->rank;
    break;
  case Space::Local:
    result = address - window.local < GenericWindows::localBytes;
    break;
  case Space::Param:
    result = address - window.param < GenericWindows::paramBytes;
    break;
  default:
    result = !shared && thread.machine().memory.find(address) != nullptr;
  }
  thread.set<uint32_t>(i.d, result);
  return Step::Go;
}

/// mapa: maps the shared memory address `a` to the CTA of rank `b`.
Step mapa(Thread &thread, const Instruction &i) {
  uint64_t base = i.flags[1] ? windows().shared : 0;
  uint64_t address =
      i.flags[0] ? thread.get<uint32_t>(i.a) : thread.get<uint64_t>(i.a);
  address += static_cast<uint64_t>(i.offset) - base;
  uint32_t rank = thread.get<uint32_t>(i.b);
  if (rank >= thread.block->cluster->blocks.size())
    undefined("mapa to rank ", rank, " of a cluster of ",
              thread.block->cluster->blocks.size());
  address = base + ((address & 0xFFFFFF) | uint64_t(rank) << 24);
  if (i.flags[2])
    thread.set<uint32_t>(i.d, static_cast<uint32_t>(address));
  else
    thread.set<uint64_t>(i.d, address);
  return Step::Go;
}

Step getRank(Thread &thread, const Instruction &i) {
  uint64_t address =
      i.flags[0] ? thread.get<uint32_t>(i.a) : thread.get<uint64_t>(i.a);
  if (i.flags[1])
    address -= windows().shared;
  thread.set<uint32_t>(i.d, static_cast<uint32_t>(address >> 24));
  return Step::Go;
}

template <typename T> Step selp(Thread &thread, const Instruction &i) {
  bool which = thread.get<uint32_t>(i.c) != 0;
  thread.set<T>(i.d, thread.get<T>(which ? i.a : i.b));
  return Step::Go;
}

template <typename T> Step slct(Thread &thread, const Instruction &i) {
  bool first =
      i.flags[0] ? thread.get<float>(i.c) >= 0 : thread.get<int32_t>(i.c) >= 0;
  thread.set<T>(i.d, thread.get<T>(first ? i.a : i.b));
  return Step::Go;
}

} // namespace

//===----------------------------------------------------------------------===//
// mov and addresses
//===----------------------------------------------------------------------===//

static void decodeVectorMove(Decoder &d, Type type, bool packs) {
  size_t vector = packs ? 1 : 0;
  size_t count = d.operand(vector).parts.size();
  int width = bitsOf(type) / static_cast<int>(count);
  static constexpr Type parts[] = {Type::B8, Type::B16, Type::B32, Type::B64};
  Type part = Type::None;
  for (Type candidate : parts)
    if (bitsOf(candidate) == width)
      part = candidate;
  if (part == Type::None || bitsOf(type) < 16)
    d.error("malformed vector");
  auto mode = width == 8 ? Decoder::AtLeast : Decoder::Exact;
  std::vector<uint32_t> list =
      packs ? d.sources(1, part, mode) : d.destinations(0, part, mode);
  d.out.count = static_cast<uint32_t>(list.size());
  d.out.list = d.keep(std::move(list));
  d.out.offset = width;
  d.out.flags[0] = static_cast<uint8_t>(std::max(1, bitsOf(type) / 32));
  if (packs) {
    d.out.d = d.destination(0, type);
    d.out.run = pack;
  } else {
    d.out.a = d.source(1, type);
    d.out.run = unpack;
  }
}

static bool decodeClock(Decoder &d, std::string_view name) {
  bool wide = name == "%clock64" || name == "%globaltimer";
  bool time = name.substr(0, 12) == "%globaltimer";
  if (!wide && !time && name != "%clock" && name != "%clock_hi")
    return false;
  d.out.d = d.destination(0, wide ? Type::U64 : Type::U32);
  d.out.flags[0] = wide ? 64 : 32;
  d.out.offset = time;
  d.out.run = readClock;
  return true;
}

static void decodeMov(Decoder &d) {
  Type type = d.type();
  d.expectOperands(2, 2);
  if (d.isVector(0) || d.isVector(1))
    return decodeVectorMove(d, type, d.isVector(1));
  const Operand &source = d.operand(1);
  if (source.kind == Operand::Kind::Name) {
    if (decodeClock(d, source.name))
      return;
    Decoder::Address address;
    if (source.name[0] != '%' &&
        !d.function.findRegister(source.name, d.statement.scope) &&
        d.function.findVariable(source.name, d.statement.scope, address)) {
      d.out.a = address.base;
      d.out.offset = address.offset + source.offset;
      d.out.d = d.destination(0, type);
      d.out.flags[0] = static_cast<uint8_t>(bitsOf(type));
      d.out.run = loadAddress;
      return;
    }
  }
  // Only setp and selp accept negated predicates.
  d.out.d = d.destination(0, type);
  bool special = source.kind == Operand::Kind::Name && source.name[0] == '%';
  d.out.a = d.source(1, type, special ? Decoder::AtLeast : Decoder::Exact);
  if (special && d.registerBits(source) > bitsOf(type))
    d.error("'", source.name, "' has more bits");
  switch (bitsOf(type)) {
  case 16:
    d.out.run = move<uint16_t>;
    break;
  case 64:
    d.out.run = move<uint64_t>;
    break;
  case 128:
    d.out.run = move128;
    break;
  default:
    d.out.run = move<uint32_t>;
  }
}

static void decodeCvta(Decoder &d) {
  bool to = d.has(".to");
  Space space = d.space();
  Type type = d.type();
  if (bitsOf(type) != 64)
    d.error("only addresses of 64 bits are generic");
  d.expectOperands(2, 2);
  d.out.d = d.destination(0, type);
  int64_t window = static_cast<int64_t>(windowOf(space));
  d.out.offset = to ? -window : window;
  d.out.run = convertAddress;
  const Operand &source = d.operand(1);
  Decoder::Address address;
  if (!to && source.kind == Operand::Kind::Name &&
      !d.function.findRegister(source.name, d.statement.scope) &&
      d.function.findVariable(source.name, d.statement.scope, address)) {
    d.out.a = address.base ? address.base : d.constant(0, 64);
    d.out.offset += address.offset + source.offset;
    return;
  }
  d.out.a = d.source(1, type);
}

static void decodeIsspacep(Decoder &d) {
  d.out.flags[0] = static_cast<uint8_t>(d.space());
  d.expectOperands(2, 2);
  d.out.d = d.predicate(d.operand(0));
  d.out.a = d.source(1, Type::B64);
  d.out.run = isSpace;
}

static void decodeMapa(Decoder &d) {
  Space space = d.space();
  Type type = d.type();
  d.expectOperands(3, 3);
  d.out.d = d.destination(0, type);
  d.out.b = d.source(2, Type::U32);
  d.out.flags[0] = d.out.flags[2] = bitsOf(type) == 32;
  d.out.flags[1] = space == Space::Generic;
  Decoder::Address address;
  const Operand &source = d.operand(1);
  if (source.kind == Operand::Kind::Name &&
      d.function.findVariable(source.name, d.statement.scope, address)) {
    d.out.a = address.base;
    d.out.flags[0] = 0;
    d.out.offset = address.offset + source.offset;
  } else {
    d.out.a = d.source(1, type);
  }
  d.out.run = mapa;
}

static void decodeGetctarank(Decoder &d) {
  Space space = d.space();
  Type type = d.type();
  d.expectOperands(2, 2);
  d.out.d = d.destination(0, Type::U32);
  d.out.a = d.source(1, type);
  d.out.flags[0] = bitsOf(type) == 32;
  d.out.flags[1] = space == Space::Generic;
  d.out.run = getRank;
}

static void decodeSelp(Decoder &d) {
  Type type = d.type();
  d.expectOperands(4, 4);
  d.out.d = d.destination(0, type);
  d.out.a = d.source(1, type);
  d.out.b = d.source(2, type);
  d.out.c = d.predicate(d.operand(3));
  switch (bitsOf(type)) {
  case 16:
    d.out.run = selp<uint16_t>;
    break;
  case 32:
    d.out.run = selp<uint32_t>;
    break;
  case 64:
    d.out.run = selp<uint64_t>;
    break;
  default:
    d.error("not supported for this type");
  }
}

static void decodeSlct(Decoder &d) {
  d.has(".ftz");
  Type type = d.type(), by = d.type();
  d.expectOperands(4, 4);
  d.out.d = d.destination(0, type);
  d.out.a = d.source(1, type);
  d.out.b = d.source(2, type);
  d.out.c = d.source(3, by);
  d.out.flags[0] = by == Type::F32;
  d.out.run = bitsOf(type) == 64   ? slct<uint64_t>
              : bitsOf(type) == 32 ? slct<uint32_t>
                                   : slct<uint16_t>;
}

static constexpr DecodeEntry entries[] = {
    {"mov", decodeMov},
    {"cvta", decodeCvta},
    {"isspacep", decodeIsspacep},
    {"mapa", decodeMapa},
    {"getctarank", decodeGetctarank},
    {"selp", decodeSelp},
    {"slct", decodeSlct},
};
const DecodeTable moe::gpu::moveInstructions = tableOf(entries);
