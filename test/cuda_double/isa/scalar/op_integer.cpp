//===- op_integer.cpp - Integer arithmetic --------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// PTX ISA 9.7.1 "Integer Arithmetic Instructions" and 9.7.2 "Extended-Precision
// Integer Arithmetic Instructions".
//
//===----------------------------------------------------------------------===//

#include "isa/ops.h"

#include <limits>
#include <type_traits>

using namespace moe::gpu;

namespace {

__extension__ typedef __int128 Int128;
__extension__ typedef unsigned __int128 UInt128;

template <typename T> using Unsigned = std::make_unsigned_t<T>;
/// The integer type of twice the width and the same signedness.
template <typename T>
using Wide = std::conditional_t<
    sizeof(T) == 8, std::conditional_t<std::is_signed_v<T>, Int128, UInt128>,
    std::conditional_t<
        sizeof(T) == 4,
        std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>,
        std::conditional_t<std::is_signed_v<T>, int32_t, uint32_t>>>;

// PTX arithmetic wraps: compute unsigned, and in 64 bits, since 16-bit operands
// would be promoted to int.
template <typename T> uint64_t bits(T value) {
  return static_cast<uint64_t>(value);
}

struct Add {
  template <typename T> static T run(T a, T b) {
    return static_cast<T>(bits(a) + bits(b));
  }
};
struct Sub {
  template <typename T> static T run(T a, T b) {
    return static_cast<T>(bits(a) - bits(b));
  }
};
struct AddSaturated {
  static int32_t run(int32_t a, int32_t b) {
    int64_t sum = int64_t(a) + b;
    return static_cast<int32_t>(
        std::min<int64_t>(std::max<int64_t>(sum, INT32_MIN), INT32_MAX));
  }
};
struct SubSaturated {
  static int32_t run(int32_t a, int32_t b) {
    int64_t sum = int64_t(a) - b;
    return static_cast<int32_t>(
        std::min<int64_t>(std::max<int64_t>(sum, INT32_MIN), INT32_MAX));
  }
};
struct MulLow {
  template <typename T> static T run(T a, T b) {
    return static_cast<T>(bits(a) * bits(b));
  }
};
struct MulHigh {
  template <typename T> static T run(T a, T b) {
    return static_cast<T>((Wide<T>(a) * Wide<T>(b)) >> (8 * sizeof(T)));
  }
};
struct MadLow {
  template <typename T> static T run(T a, T b, T c) {
    return static_cast<T>(bits(a) * bits(b) + bits(c));
  }
};
struct MadHigh {
  template <typename T> static T run(T a, T b, T c) {
    return static_cast<T>(bits(MulHigh::run(a, b)) + bits(c));
  }
};
template <typename T> T divisor(T b) {
  if (b == 0)
    undefined("divides by zero");
  return b;
}
struct Div {
  template <typename T> static T run(T a, T b) {
    divisor(b);
    if (std::is_signed_v<T> && b == T(-1))
      return static_cast<T>(-bits(a)); // avoids the overflow of INT_MIN / -1
    return static_cast<T>(a / b);
  }
};
struct Rem {
  template <typename T> static T run(T a, T b) {
    divisor(b);
    if (std::is_signed_v<T> && b == T(-1))
      return 0;
    return static_cast<T>(a % b);
  }
};
struct Min {
  template <typename T> static T run(T a, T b) { return b < a ? b : a; }
};
struct Max {
  template <typename T> static T run(T a, T b) { return a < b ? b : a; }
};
struct MinRelu {
  template <typename T> static T run(T a, T b) {
    return std::max<T>(Min::run(a, b), 0);
  }
};
struct MaxRelu {
  template <typename T> static T run(T a, T b) {
    return std::max<T>(Max::run(a, b), 0);
  }
};
struct Abs {
  template <typename T> static T run(T a) {
    return a < 0 ? static_cast<T>(-bits(a)) : a;
  }
};
struct Neg {
  template <typename T> static T run(T a) { return static_cast<T>(-bits(a)); }
};
struct Sad {
  template <typename T> static T run(T a, T b, T c) {
    uint64_t distance = a < b ? bits(b) - bits(a) : bits(a) - bits(b);
    return static_cast<T>(bits(c) + distance);
  }
};

/// Sign- or zero-extends the lower 24 bits.
template <typename T> T lower24(T value) {
  return static_cast<T>(static_cast<Unsigned<T>>(value) << 8) >> 8;
}
struct Mul24Low {
  template <typename T> static T run(T a, T b) {
    return static_cast<T>(Wide<T>(lower24(a)) * lower24(b));
  }
};
struct Mul24High {
  template <typename T> static T run(T a, T b) {
    return static_cast<T>((Wide<T>(lower24(a)) * lower24(b)) >> 16);
  }
};
struct Mad24Low {
  template <typename T> static T run(T a, T b, T c) {
    return static_cast<T>(bits(Mul24Low::run(a, b)) + bits(c));
  }
};
struct Mad24High {
  template <typename T> static T run(T a, T b, T c) {
    return static_cast<T>(bits(Mul24High::run(a, b)) + bits(c));
  }
};

template <typename T> Step mulWide(Thread &thread, const Instruction &i) {
  thread.set<Wide<T>>(i.d, Wide<T>(thread.get<T>(i.a)) *
                               Wide<T>(thread.get<T>(i.b)));
  return Step::Go;
}
template <typename T> Step madWide(Thread &thread, const Instruction &i) {
  using W = Wide<T>;
  W product = W(thread.get<T>(i.a)) * W(thread.get<T>(i.b));
  thread.set<W>(i.d, static_cast<W>(bits(product) + bits(thread.get<W>(i.c))));
  return Step::Go;
}

//===----------------------------------------------------------------------===//
// Carries
//===----------------------------------------------------------------------===//

enum CarryFlags : uint8_t { CarryIn = 1, CarryOut = 2, Subtract = 4 };

/// flags[0]: CarryFlags. CC.CF is the borrow of a subtraction.
template <typename T> Step addCarry(Thread &thread, const Instruction &i) {
  UInt128 a = thread.get<T>(i.a), b = thread.get<T>(i.b);
  UInt128 carry = i.flags[0] & CarryIn ? thread.carry : 0;
  UInt128 sum = i.flags[0] & Subtract ? a - b - carry : a + b + carry;
  thread.set<T>(i.d, static_cast<T>(sum));
  if (i.flags[0] & CarryOut)
    thread.carry = sum >> (8 * sizeof(T)) & 1;
  return Step::Go;
}

/// flags[1]: .hi.
template <typename T> Step madCarry(Thread &thread, const Instruction &i) {
  T a = thread.get<T>(i.a), b = thread.get<T>(i.b);
  using U = Unsigned<T>;
  U product =
      static_cast<U>(i.flags[1] ? MulHigh::run(a, b) : MulLow::run(a, b));
  UInt128 sum = UInt128(product) + thread.get<U>(i.c) +
                (i.flags[0] & CarryIn ? thread.carry : 0);
  thread.set<U>(i.d, static_cast<U>(sum));
  if (i.flags[0] & CarryOut)
    thread.carry = sum >> (8 * sizeof(T)) & 1;
  return Step::Go;
}

/// Applies Op to the two 16-bit halves of a register.
template <typename T, typename Op>
Step pairwise(Thread &thread, const Instruction &i) {
  uint32_t a = thread.get<uint32_t>(i.a), b = thread.get<uint32_t>(i.b);
  uint32_t result = 0;
  for (int k = 0; k < 32; k += 16)
    result |= uint32_t(static_cast<uint16_t>(
                  Op::run(static_cast<T>(a >> k), static_cast<T>(b >> k))))
              << k;
  thread.set<uint32_t>(i.d, result);
  return Step::Go;
}

} // namespace

static bool decodeCarry(Decoder &d, std::string_view name, Type type) {
  bool in = name == "addc" || name == "subc" || name == "madc";
  bool out = d.has(".cc");
  if (!in && !out)
    return false;
  bool wide = bitsOf(type) == 64;
  d.out.flags[0] = (in ? CarryIn : 0) | (out ? CarryOut : 0);
  if (name == "mad" || name == "madc") {
    d.out.flags[1] = d.has(".hi");
    d.has(".lo");
    if (isSigned(type))
      d.out.run = wide ? madCarry<int64_t> : madCarry<int32_t>;
    else
      d.out.run = wide ? madCarry<uint64_t> : madCarry<uint32_t>;
    decodeSame(d, type, 3);
    return true;
  }
  if (name == "sub" || name == "subc")
    d.out.flags[0] |= Subtract;
  d.out.run = wide ? addCarry<uint64_t> : addCarry<uint32_t>;
  decodeSame(d, type, 2);
  return true;
}

static void decodeMul(Decoder &d, Type type) {
  bool mad = d.name() == "mad";
  size_t sources = mad ? 3 : 2;
  if (d.has(".wide")) {
    Type wide;
    switch (type) {
    case Type::U16:
      d.out.run = mad ? madWide<uint16_t> : mulWide<uint16_t>;
      wide = Type::U32;
      break;
    case Type::S16:
      d.out.run = mad ? madWide<int16_t> : mulWide<int16_t>;
      wide = Type::S32;
      break;
    case Type::U32:
      d.out.run = mad ? madWide<uint32_t> : mulWide<uint32_t>;
      wide = Type::U64;
      break;
    case Type::S32:
      d.out.run = mad ? madWide<int32_t> : mulWide<int32_t>;
      wide = Type::S64;
      break;
    default:
      d.error("no .wide for this type");
    }
    d.expectOperands(1 + sources, 1 + sources);
    d.out.d = d.destination(0, wide);
    d.out.a = d.source(1, type);
    d.out.b = d.source(2, type);
    if (mad)
      d.out.c = d.source(3, wide);
    return;
  }
  bool high = d.has(".hi");
  if (!high)
    d.need(".lo");
  if (mad)
    d.out.run = high ? integerHandler<Ternary, MadHigh>(type)
                     : integerHandler<Ternary, MadLow>(type);
  else
    d.out.run = high ? integerHandler<Binary, MulHigh>(type)
                     : integerHandler<Binary, MulLow>(type);
  decodeSame(d, type, sources);
}

static void decodePairs(Decoder &d, Type type) {
  bool hasSign = type == Type::S16x2, relu = d.has(".relu");
  if (d.name() == "add" && !relu)
    d.out.run = pairwise<uint16_t, Add>;
  else if (d.name() == "min")
    d.out.run = relu      ? pairwise<int16_t, MinRelu>
                : hasSign ? pairwise<int16_t, Min>
                          : pairwise<uint16_t, Min>;
  else if (d.name() == "max")
    d.out.run = relu      ? pairwise<int16_t, MaxRelu>
                : hasSign ? pairwise<int16_t, Max>
                          : pairwise<uint16_t, Max>;
  else
    d.error("not supported for this type");
  decodeSame(d, Type::B32, 2);
}

void moe::gpu::decodeIntegerArithmetic(Decoder &d, Type type) {
  std::string_view name = d.name();
  if (type == Type::U16x2 || type == Type::S16x2)
    return decodePairs(d, type);
  if (decodeCarry(d, name, type))
    return;
  if (name == "mul" || name == "mad")
    return decodeMul(d, type);
  size_t sources = 2;
  Handler run = nullptr;
  bool saturate = d.has(".sat");
  if (saturate && (type != Type::S32 || (name != "add" && name != "sub")))
    d.error(".sat is not supported here");
  bool relu = d.has(".relu");
  if (relu && (type != Type::S32 || (name != "min" && name != "max")))
    d.error(".relu is not supported here");
  if (name == "add")
    run = saturate ? binary<int32_t, AddSaturated>
                   : integerHandler<Binary, Add>(type);
  else if (name == "sub")
    run = saturate ? binary<int32_t, SubSaturated>
                   : integerHandler<Binary, Sub>(type);
  else if (name == "div")
    run = integerHandler<Binary, Div>(type);
  else if (name == "rem")
    run = integerHandler<Binary, Rem>(type);
  else if (name == "min")
    run = relu ? binary<int32_t, MinRelu> : integerHandler<Binary, Min>(type);
  else if (name == "max")
    run = relu ? binary<int32_t, MaxRelu> : integerHandler<Binary, Max>(type);
  else if (name == "sad")
    run = integerHandler<Ternary, Sad>(type), sources = 3;
  else if (name == "abs")
    run = integerHandler<Unary, Abs>(type), sources = 1;
  else if (name == "neg")
    run = integerHandler<Unary, Neg>(type), sources = 1;
  if (!run)
    d.error("not supported for this type");
  d.out.run = run;
  decodeSame(d, type, sources);
}

static void decode24(Decoder &d) {
  Type type = d.type();
  bool mad = d.name() == "mad24";
  bool high = d.has(".hi");
  if (!high)
    d.need(".lo");
  bool withSign = type == Type::S32;
  if (!withSign && type != Type::U32)
    d.error("not supported for this type");
  if (mad && high)
    d.out.run =
        withSign ? ternary<int32_t, Mad24High> : ternary<uint32_t, Mad24High>;
  else if (mad)
    d.out.run =
        withSign ? ternary<int32_t, Mad24Low> : ternary<uint32_t, Mad24Low>;
  else if (high)
    d.out.run =
        withSign ? binary<int32_t, Mul24High> : binary<uint32_t, Mul24High>;
  else
    d.out.run =
        withSign ? binary<int32_t, Mul24Low> : binary<uint32_t, Mul24Low>;
  decodeSame(d, type, mad ? 3 : 2);
}

/// dp4a and dp2a. flags: a signed, b signed, elements of a, first byte of b.
static Step runDot(Thread &thread, const Instruction &i) {
  uint32_t a = thread.get<uint32_t>(i.a), b = thread.get<uint32_t>(i.b);
  uint32_t sum = thread.get<uint32_t>(i.c);
  int elements = i.flags[2], width = 32 / elements;
  for (int k = 0; k < elements; ++k) {
    uint32_t x = a >> (width * k) & ((1u << width) - 1);
    uint32_t y = b >> (8 * (k + i.flags[3])) & 0xFF;
    if (i.flags[0])
      x = static_cast<uint32_t>(static_cast<int32_t>(x << (32 - width)) >>
                                (32 - width));
    if (i.flags[1])
      y = static_cast<uint32_t>(static_cast<int8_t>(y));
    sum += x * y;
  }
  thread.set<uint32_t>(i.d, sum);
  return Step::Go;
}

static void decodeDot(Decoder &d) {
  bool four = d.name() == "dp4a";
  if (!four) {
    d.out.flags[3] = d.has(".hi") ? 2 : 0;
    d.has(".lo");
  }
  Type a = d.type(), b = d.type();
  d.out.flags[0] = isSigned(a);
  d.out.flags[1] = isSigned(b);
  d.out.flags[2] = four ? 4 : 2;
  decodeSame(d, Type::B32, 3);
  d.out.run = runDot;
}

/// Decodes an opcode that integers and floats share.
static void decodeArithmetic(Decoder &d) {
  Type type = d.type();
  switch (type) {
  case Type::F32:
  case Type::F64:
    return decodeFloatArithmetic(d, type);
  case Type::F16:
  case Type::BF16:
  case Type::F16x2:
  case Type::BF16x2:
    return decodeHalfArithmetic(d, type);
  default:
    return decodeIntegerArithmetic(d, type);
  }
}

static constexpr DecodeEntry entries[] = {
    {"add", decodeArithmetic},  {"sub", decodeArithmetic},
    {"mul", decodeArithmetic},  {"mad", decodeArithmetic},
    {"fma", decodeArithmetic},  {"div", decodeArithmetic},
    {"rem", decodeArithmetic},  {"min", decodeArithmetic},
    {"max", decodeArithmetic},  {"abs", decodeArithmetic},
    {"neg", decodeArithmetic},  {"sad", decodeArithmetic},
    {"addc", decodeArithmetic}, {"subc", decodeArithmetic},
    {"madc", decodeArithmetic}, {"mul24", decode24},
    {"mad24", decode24},        {"dp4a", decodeDot},
    {"dp2a", decodeDot},
};
const DecodeTable moe::gpu::integerInstructions = tableOf(entries);
