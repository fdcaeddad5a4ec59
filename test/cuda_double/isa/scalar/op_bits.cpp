//===- op_bits.cpp - Bits: logic, shifts and fields -----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// PTX ISA 9.7.8 "Logic and Shift Instructions" and the bit fields of 9.7.1.
//
//===----------------------------------------------------------------------===//

#include "isa/ops.h"

#include <type_traits>

using namespace moe::gpu;

namespace {

struct And {
  template <typename T> static T run(T a, T b) { return a & b; }
};
struct Or {
  template <typename T> static T run(T a, T b) { return a | b; }
};
struct Xor {
  template <typename T> static T run(T a, T b) { return a ^ b; }
};
struct Not {
  template <typename T> static T run(T a) { return static_cast<T>(~a); }
};
struct PredicateNot {
  static uint32_t run(uint32_t a) { return !a; }
};
struct CNot {
  template <typename T> static T run(T a) { return a == 0; }
};
struct Popc {
  template <typename T> static int run(T a) { return __builtin_popcountll(a); }
};
struct Clz {
  template <typename T> static int run(T a) {
    return a == 0 ? 8 * int(sizeof(T))
                  : __builtin_clzll(a) - 64 + 8 * int(sizeof(T));
  }
};
struct Brev {
  template <typename T> static T run(T a) {
    T result = 0;
    for (size_t k = 0; k < 8 * sizeof(T); ++k)
      result = static_cast<T>(result << 1 | (a >> k & 1));
    return result;
  }
};

// Shift amounts beyond the width give zero, or the sign for shr.s.
template <typename T> Step shl(Thread &thread, const Instruction &i) {
  uint32_t by = thread.get<uint32_t>(i.b);
  T a = thread.get<T>(i.a);
  thread.set<T>(i.d, by >= 8 * sizeof(T) ? T(0) : static_cast<T>(a << by));
  return Step::Go;
}
template <typename T> Step shr(Thread &thread, const Instruction &i) {
  uint32_t by = thread.get<uint32_t>(i.b);
  T a = thread.get<T>(i.a);
  if (by >= 8 * sizeof(T))
    thread.set<T>(i.d, std::is_signed_v<T> && a < 0 ? T(-1) : T(0));
  else
    thread.set<T>(i.d, static_cast<T>(a >> by));
  return Step::Go;
}

/// popc and clz: the result has 32 bits.
template <typename T, typename Op>
Step count(Thread &thread, const Instruction &i) {
  thread.set<uint32_t>(i.d, static_cast<uint32_t>(Op::run(thread.get<T>(i.a))));
  return Step::Go;
}

/// The index of the highest non-sign bit; flags[0]: .shiftamt.
template <typename T> Step bfind(Thread &thread, const Instruction &i) {
  using U = std::make_unsigned_t<T>;
  T a = thread.get<T>(i.a);
  U bits = static_cast<U>(std::is_signed_v<T> && a < 0 ? ~a : a);
  int width = 8 * sizeof(T);
  int position = bits == 0 ? -1 : width - 1 - Clz::run(bits);
  if (i.flags[0] && position >= 0)
    position = width - 1 - position;
  thread.set<int32_t>(i.d, position);
  return Step::Go;
}

template <typename T> Step bfe(Thread &thread, const Instruction &i) {
  T a = thread.get<T>(i.a);
  uint32_t from = thread.get<uint32_t>(i.b) & 0xFF;
  uint32_t length = thread.get<uint32_t>(i.c) & 0xFF;
  constexpr uint32_t width = 8 * sizeof(T);
  using U = std::make_unsigned_t<T>;
  U field = from >= width ? U(0) : static_cast<U>(static_cast<U>(a) >> from);
  U mask = length >= width ? ~U(0) : static_cast<U>((U(1) << length) - 1);
  U result = field & mask;
  if (std::is_signed_v<T> && length != 0) {
    // The sign bit is that of the field, or of the operand if it ends first.
    uint32_t top = std::min(from + length - 1, width - 1);
    if (static_cast<U>(a) >> top & 1) {
      uint32_t have = from >= width ? 0 : std::min(length, width - from);
      result |= have >= width ? U(0) : static_cast<U>(~U(0) << have);
    }
  }
  thread.set<U>(i.d, result);
  return Step::Go;
}

template <typename T> Step bfi(Thread &thread, const Instruction &i) {
  T a = thread.get<T>(i.a), b = thread.get<T>(i.b);
  uint32_t at = thread.get<uint32_t>(i.c) & 0xFF;
  uint32_t length = thread.get<uint32_t>(i.e) & 0xFF;
  constexpr uint32_t width = 8 * sizeof(T);
  T mask = 0;
  if (at < width && length != 0)
    mask = static_cast<T>(
        (length >= width ? ~T(0) : static_cast<T>((T(1) << length) - 1)) << at);
  T moved = at < width ? static_cast<T>(a << at) : T(0);
  thread.set<T>(i.d, static_cast<T>((b & ~mask) | (moved & mask)));
  return Step::Go;
}

/// A mask of `b` bits from bit `a` up; flags[0]: .wrap, else .clamp.
Step bmsk(Thread &thread, const Instruction &i) {
  uint32_t at = thread.get<uint32_t>(i.a), width = thread.get<uint32_t>(i.b);
  if (i.flags[0]) {
    at &= 31;
    width &= 31;
  }
  uint64_t mask = width >= 32 ? ~uint64_t(0) : (uint64_t(1) << width) - 1;
  thread.set<uint32_t>(i.d, at >= 32 ? 0 : static_cast<uint32_t>(mask << at));
  return Step::Go;
}

/// Sign- or zero-extends from bit b - 1; flags: .wrap, signed.
Step szext(Thread &thread, const Instruction &i) {
  uint32_t a = thread.get<uint32_t>(i.a), width = thread.get<uint32_t>(i.b);
  if (i.flags[0])
    width &= 31;
  uint32_t result = a;
  if (width == 0) {
    result = 0;
  } else if (width < 32) {
    result = a & ((1u << width) - 1);
    if (i.flags[1] && a >> (width - 1) & 1)
      result |= ~0u << width;
  }
  thread.set<uint32_t>(i.d, result);
  return Step::Go;
}

/// flags: .r, .wrap.
Step shf(Thread &thread, const Instruction &i) {
  uint64_t both =
      uint64_t(thread.get<uint32_t>(i.b)) << 32 | thread.get<uint32_t>(i.a);
  uint32_t by = thread.get<uint32_t>(i.c);
  by = i.flags[1] ? by & 31 : std::min(by, 32u);
  thread.set<uint32_t>(
      i.d, static_cast<uint32_t>(i.flags[0] ? both >> by : both << by >> 32));
  return Step::Go;
}

Step lop3(Thread &thread, const Instruction &i) {
  uint32_t a = thread.get<uint32_t>(i.a), b = thread.get<uint32_t>(i.b),
           c = thread.get<uint32_t>(i.c), result = 0;
  for (int k = 0; k < 8; ++k)
    if (i.offset >> k & 1)
      result |= (k & 4 ? a : ~a) & (k & 2 ? b : ~b) & (k & 1 ? c : ~c);
  thread.set<uint32_t>(i.d, result);
  return Step::Go;
}

enum class Permute : uint8_t { Default, F4e, B4e, Rc8, Ecl, Ecr, Rc16 };

Step prmt(Thread &thread, const Instruction &i) {
  uint64_t bytes =
      uint64_t(thread.get<uint32_t>(i.b)) << 32 | thread.get<uint32_t>(i.a);
  uint32_t c = thread.get<uint32_t>(i.c), result = 0;
  auto mode = static_cast<Permute>(i.flags[0]);
  uint32_t s = c & 3;
  for (uint32_t k = 0; k < 4; ++k) {
    uint32_t select = 0;
    switch (mode) {
    case Permute::Default:
      select = c >> (4 * k) & 15;
      break;
    case Permute::F4e:
      select = s + k;
      break;
    case Permute::B4e:
      select = (s - k) & 7;
      break;
    case Permute::Rc8:
      select = s;
      break;
    case Permute::Ecl:
      select = std::max(k, s);
      break;
    case Permute::Ecr:
      select = std::min(k, s);
      break;
    case Permute::Rc16:
      select = (s & 1) * 2 + (k & 1);
      break;
    }
    uint32_t byte = bytes >> (8 * (select & 7)) & 0xFF;
    if (select & 8)
      byte = byte & 0x80 ? 0xFF : 0;
    result |= byte << (8 * k);
  }
  thread.set<uint32_t>(i.d, result);
  return Step::Go;
}

template <typename Op> Handler logic(Type type) {
  switch (bitsOf(type)) {
  case 16:
    return binary<uint16_t, Op>;
  case 1:
  case 32:
    return binary<uint32_t, Op>;
  case 64:
    return binary<uint64_t, Op>;
  default:
    return nullptr;
  }
}

} // namespace

static void decodeLogic(Decoder &d) {
  Type type = d.type();
  if (d.name() == "and")
    d.out.run = logic<And>(type);
  else if (d.name() == "or")
    d.out.run = logic<Or>(type);
  else
    d.out.run = logic<Xor>(type);
  if (!d.out.run)
    d.error("not supported for this type");
  decodeSame(d, type, 2);
}

static void decodeNot(Decoder &d) {
  Type type = d.type();
  if (type == Type::Pred)
    d.out.run = unary<uint32_t, PredicateNot>;
  else if (d.name() == "not")
    d.out.run = integerHandler<Unary, Not>(type);
  else
    d.out.run = integerHandler<Unary, CNot>(type);
  if (!d.out.run)
    d.error("not supported for this type");
  decodeSame(d, type, 1);
}

static void decodeShift(Decoder &d) {
  Type type = d.type();
  bool left = d.name() == "shl";
  switch (type) {
  case Type::B16:
  case Type::U16:
    d.out.run = left ? shl<uint16_t> : shr<uint16_t>;
    break;
  case Type::S16:
    d.out.run = left ? shl<uint16_t> : shr<int16_t>;
    break;
  case Type::B32:
  case Type::U32:
    d.out.run = left ? shl<uint32_t> : shr<uint32_t>;
    break;
  case Type::S32:
    d.out.run = left ? shl<uint32_t> : shr<int32_t>;
    break;
  case Type::B64:
  case Type::U64:
    d.out.run = left ? shl<uint64_t> : shr<uint64_t>;
    break;
  case Type::S64:
    d.out.run = left ? shl<uint64_t> : shr<int64_t>;
    break;
  default:
    d.error("not supported for this type");
  }
  d.expectOperands(3, 3);
  d.out.d = d.destination(0, type);
  d.out.a = d.source(1, type);
  d.out.b = d.source(2, Type::U32);
}

static void decodeCount(Decoder &d) {
  Type type = d.type();
  bool wide = bitsOf(type) == 64;
  if (d.name() == "popc")
    d.out.run = wide ? count<uint64_t, Popc> : count<uint32_t, Popc>;
  else
    d.out.run = wide ? count<uint64_t, Clz> : count<uint32_t, Clz>;
  d.expectOperands(2, 2);
  d.out.d = d.destination(0, Type::U32);
  d.out.a = d.source(1, type);
}

static void decodeBfind(Decoder &d) {
  d.out.flags[0] = d.has(".shiftamt");
  Type type = d.type();
  bool wide = bitsOf(type) == 64;
  if (isSigned(type))
    d.out.run = wide ? bfind<int64_t> : bfind<int32_t>;
  else
    d.out.run = wide ? bfind<uint64_t> : bfind<uint32_t>;
  d.expectOperands(2, 2);
  d.out.d = d.destination(0, Type::U32);
  d.out.a = d.source(1, type);
}

static void decodeBrev(Decoder &d) {
  Type type = d.type();
  d.out.run =
      bitsOf(type) == 64 ? unary<uint64_t, Brev> : unary<uint32_t, Brev>;
  decodeSame(d, type, 1);
}

static void decodeField(Decoder &d) {
  Type type = d.type();
  bool wide = bitsOf(type) == 64;
  bool insert = d.name() == "bfi";
  size_t count = insert ? 5 : 4;
  d.expectOperands(count, count);
  d.out.d = d.destination(0, type);
  d.out.a = d.source(1, type);
  if (insert) {
    d.out.b = d.source(2, type);
    d.out.c = d.source(3, Type::U32);
    d.out.e = d.source(4, Type::U32);
    d.out.run = wide ? bfi<uint64_t> : bfi<uint32_t>;
    return;
  }
  d.out.b = d.source(2, Type::U32);
  d.out.c = d.source(3, Type::U32);
  if (isSigned(type))
    d.out.run = wide ? bfe<int64_t> : bfe<int32_t>;
  else
    d.out.run = wide ? bfe<uint64_t> : bfe<uint32_t>;
}

static bool wraps(Decoder &d) {
  if (d.has(".wrap"))
    return true;
  d.need(".clamp");
  return false;
}

static void decodeMask(Decoder &d) {
  d.out.flags[0] = wraps(d);
  Type type = d.type();
  d.out.flags[1] = isSigned(type);
  d.out.run = d.name() == "bmsk" ? bmsk : szext;
  decodeSame(d, type, 2);
}

static void decodeShf(Decoder &d) {
  d.out.flags[0] = d.has(".r");
  if (!d.out.flags[0])
    d.need(".l");
  d.out.flags[1] = wraps(d);
  d.out.run = shf;
  decodeSame(d, d.type(), 3);
}

static void decodeLop3(Decoder &d) {
  d.need(".b32");
  d.expectOperands(5, 5);
  d.out.d = d.destination(0, Type::B32);
  d.out.a = d.source(1, Type::B32);
  d.out.b = d.source(2, Type::B32);
  d.out.c = d.source(3, Type::B32);
  d.out.offset = d.immediate(4);
  d.out.run = lop3;
}

static void decodePrmt(Decoder &d) {
  d.need(".b32");
  static constexpr std::string_view modes[] = {"",     ".f4e", ".b4e", ".rc8",
                                               ".ecl", ".ecr", ".rc16"};
  for (uint8_t k = 1; k < 7; ++k)
    if (d.has(modes[k]))
      d.out.flags[0] = k;
  d.out.run = prmt;
  decodeSame(d, Type::B32, 3);
}

static constexpr DecodeEntry entries[] = {
    {"and", decodeLogic},   {"or", decodeLogic},   {"xor", decodeLogic},
    {"not", decodeNot},     {"cnot", decodeNot},   {"shl", decodeShift},
    {"shr", decodeShift},   {"popc", decodeCount}, {"clz", decodeCount},
    {"bfind", decodeBfind}, {"brev", decodeBrev},  {"bfe", decodeField},
    {"bfi", decodeField},   {"bmsk", decodeMask},  {"szext", decodeMask},
    {"shf", decodeShf},     {"lop3", decodeLop3},  {"prmt", decodePrmt},
};
const DecodeTable moe::gpu::bitInstructions = tableOf(entries);
