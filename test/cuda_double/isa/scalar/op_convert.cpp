//===- op_convert.cpp - Conversions ---------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// PTX ISA 9.7.9.21 "cvt".
//
//===----------------------------------------------------------------------===//

#include "isa/numeric.h"
#include "isa/ops.h"

#include <limits>

using namespace moe::gpu;

namespace {

enum ConvertFlags : uint8_t {
  Ftz = 1,
  Sat = 2,
  SatFinite = 4,
  Relu = 8,
  ToInteger = 16, // .rni, .rzi, .rmi or .rpi between floats
};

// flags: 0 the type of the result, 1 that of the source, 2 Rounding,
// 3 ConvertFlags, 4 the bits of the result's register.

const Format *formatOf(Type type) {
  switch (type) {
  case Type::F16:
  case Type::F16x2:
    return &formatF16;
  case Type::BF16:
  case Type::BF16x2:
    return &formatBF16;
  case Type::TF32:
    return &formatTF32;
  case Type::F32:
    return &formatF32;
  case Type::E4M3:
  case Type::E4M3x2:
    return &formatE4M3;
  case Type::E5M2:
  case Type::E5M2x2:
    return &formatE5M2;
  default:
    return nullptr;
  }
}

/// Converts the bits of a float type to double.
double toDouble(Type type, uint64_t bits, uint8_t flags) {
  if (type == Type::F64)
    return bitCast<double>(bits);
  if (type == Type::F32) {
    float value = bitCast<float>(static_cast<uint32_t>(bits));
    return flags & Ftz ? flush(value) : value;
  }
  return decode(*formatOf(type), static_cast<uint32_t>(bits));
}

/// Rounds a double to a float type and returns its bits.
uint64_t fromDouble(Type type, double value, Rounding rounding, uint8_t flags) {
  if (flags & Sat)
    value = value > 0 ? std::min(value, 1.0) : 0.0;
  if (flags & Relu && value <= 0)
    value = 0;
  if (type == Type::F64)
    return bitCast<uint64_t>(value);
  uint32_t bits = encode(*formatOf(type), value, rounding, flags & SatFinite);
  if (type == Type::TF32)
    // tf32 is in the upper 19 bits of the register.
    return uint64_t(bits) << 13;
  if (flags & Ftz && type == Type::F32)
    bits = bitCast<uint32_t>(flush(bitCast<float>(bits)));
  return bits;
}

/// Rounds to an integer and clamps to the range of its type.
uint64_t toInteger(Type type, double value, Rounding rounding) {
  if (std::isnan(value))
    return 0;
  value = roundToInteger(value, rounding);
  int bits = bitsOf(type);
  if (isSigned(type)) {
    double limit = std::ldexp(1.0, bits - 1);
    if (value >= limit)
      return (uint64_t(1) << (bits - 1)) - 1;
    if (value <= -limit)
      return ~uint64_t(0) << (bits - 1);
    return static_cast<uint64_t>(static_cast<int64_t>(value));
  }
  if (value <= 0)
    return 0;
  if (value >= std::ldexp(1.0, bits))
    return bits == 64 ? ~uint64_t(0) : (uint64_t(1) << bits) - 1;
  return static_cast<uint64_t>(value);
}

uint64_t readSource(Thread &thread, uint32_t slot, Type type) {
  switch (bitsOf(type)) {
  case 8:
    return isSigned(type) ? static_cast<uint64_t>(thread.get<int8_t>(slot))
                          : thread.get<uint8_t>(slot);
  case 16:
    return isSigned(type) ? static_cast<uint64_t>(thread.get<int16_t>(slot))
                          : thread.get<uint16_t>(slot);
  case 32:
    return isSigned(type) ? static_cast<uint64_t>(thread.get<int32_t>(slot))
                          : thread.get<uint32_t>(slot);
  default:
    return thread.get<uint64_t>(slot);
  }
}

/// Writes an integer of `type`, extended to the width of the register.
void writeInteger(Thread &thread, const Instruction &i, Type type,
                  uint64_t value) {
  int unused = 64 - bitsOf(type);
  value <<= unused;
  value = isSigned(type)
              ? static_cast<uint64_t>(static_cast<int64_t>(value) >> unused)
              : value >> unused;
  if (i.flags[4] == 64)
    thread.set<uint64_t>(i.d, value);
  else if (i.flags[4] == 32)
    thread.set<uint32_t>(i.d, static_cast<uint32_t>(value));
  else
    thread.set<uint16_t>(i.d, static_cast<uint16_t>(value));
}

void writeFloat(Thread &thread, const Instruction &i, Type type,
                uint64_t bits) {
  switch (bitsOf(type)) {
  case 64:
    thread.set<uint64_t>(i.d, bits);
    break;
  case 32:
    thread.set<uint32_t>(i.d, static_cast<uint32_t>(bits));
    break;
  default:
    thread.set<uint16_t>(i.d, static_cast<uint16_t>(bits));
  }
}

/// .sat between integers: clamps to the range of the result.
uint64_t clampInteger(Type to, Type from, uint64_t value) {
  int bits = bitsOf(to);
  bool negative = isSigned(from) && static_cast<int64_t>(value) < 0;
  if (isSigned(to)) {
    uint64_t most = (uint64_t(1) << (bits - 1)) - 1;
    if (negative)
      return static_cast<int64_t>(value) < -int64_t(most) - 1 ? ~most : value;
    return std::min(value, most);
  }
  if (negative)
    return 0;
  return bits == 64 ? value : std::min(value, (uint64_t(1) << bits) - 1);
}

Step convert(Thread &thread, const Instruction &i) {
  auto to = static_cast<Type>(i.flags[0]), from = static_cast<Type>(i.flags[1]);
  auto rounding = static_cast<Rounding>(i.flags[2]);
  uint8_t flags = i.flags[3];
  uint64_t bits = readSource(thread, i.a, from);
  if (isFloat(from)) {
    double value = toDouble(from, bits, flags);
    if (!isFloat(to)) {
      writeInteger(thread, i, to, toInteger(to, value, rounding));
      return Step::Go;
    }
    if (flags & ToInteger)
      value = roundToInteger(value, rounding);
    writeFloat(thread, i, to, fromDouble(to, value, rounding, flags));
    return Step::Go;
  }
  if (isFloat(to)) {
    double value;
    if (to == Type::F64 && rounding == Rounding::Nearest)
      value = isSigned(from) ? static_cast<double>(static_cast<int64_t>(bits))
                             : static_cast<double>(bits);
    else
      value = isSigned(from) ? integerToOdd(static_cast<int64_t>(bits))
                             : integerToOdd(bits);
    writeFloat(thread, i, to, fromDouble(to, value, rounding, flags));
    return Step::Go;
  }
  if (flags & Sat)
    bits = clampInteger(to, from, bits);
  writeInteger(thread, i, to, bits);
  return Step::Go;
}

/// The fast path between 32-bit and 64-bit integers, as for addresses.
template <typename To, typename From>
Step convertInteger(Thread &thread, const Instruction &i) {
  thread.set<To>(i.d, static_cast<To>(thread.get<From>(i.a)));
  return Step::Go;
}

/// Packs two numbers into a pair: a in the upper half, b in the lower.
Step convertToPair(Thread &thread, const Instruction &i) {
  auto to = static_cast<Type>(i.flags[0]), from = static_cast<Type>(i.flags[1]);
  auto rounding = static_cast<Rounding>(i.flags[2]);
  uint8_t flags = i.flags[3];
  auto element = [&](uint32_t slot) {
    return static_cast<uint32_t>(
        fromDouble(to, toDouble(from, thread.get<uint32_t>(slot), flags),
                   rounding, flags));
  };
  uint32_t high = element(i.a), low = element(i.b);
  int width = bitsOf(to) / 2;
  writeFloat(thread, i, to, uint64_t(high) << width | low);
  return Step::Go;
}

/// Converts a pair into a pair of another format.
Step convertPair(Thread &thread, const Instruction &i) {
  auto to = static_cast<Type>(i.flags[0]), from = static_cast<Type>(i.flags[1]);
  auto rounding = static_cast<Rounding>(i.flags[2]);
  uint8_t flags = i.flags[3];
  int source = bitsOf(from) / 2, result = bitsOf(to) / 2;
  uint64_t bits = readSource(thread, i.a, from), packed = 0;
  for (int k = 0; k < 2; ++k) {
    uint32_t part = bits >> (source * k) & ((1u << source) - 1);
    double value = decode(*formatOf(from), part);
    packed |= fromDouble(to, value, rounding, flags) << (result * k);
  }
  writeFloat(thread, i, to, packed);
  return Step::Go;
}

bool isPair(Type type) {
  return type == Type::F16x2 || type == Type::BF16x2 || type == Type::E4M3x2 ||
         type == Type::E5M2x2;
}

} // namespace

static void decodeRounding(Decoder &d) {
  static constexpr struct {
    std::string_view name;
    Rounding rounding;
    bool toInteger;
  } roundings[] = {
      {".rni", Rounding::Nearest, true},      {".rzi", Rounding::Zero, true},
      {".rmi", Rounding::Down, true},         {".rpi", Rounding::Up, true},
      {".rna", Rounding::NearestAway, false}, {".rn", Rounding::Nearest, false},
      {".rz", Rounding::Zero, false},         {".rm", Rounding::Down, false},
      {".rp", Rounding::Up, false},
  };
  for (const auto &entry : roundings)
    if (d.has(entry.name)) {
      d.out.flags[2] = static_cast<uint8_t>(entry.rounding);
      d.out.flags[3] |= entry.toInteger ? ToInteger : 0;
    }
}

static Handler integerConversion(Type to, Type from, int registerBits) {
  if (bitsOf(to) != registerBits)
    return nullptr;
  if (bitsOf(to) == 64 && from == Type::U32)
    return convertInteger<uint64_t, uint32_t>;
  if (bitsOf(to) == 64 && from == Type::S32)
    return convertInteger<int64_t, int32_t>;
  if (bitsOf(to) == 32 && bitsOf(from) == 64)
    return convertInteger<uint32_t, uint64_t>;
  return nullptr;
}

static void decodeConvert(Decoder &d) {
  decodeRounding(d);
  uint8_t &flags = d.out.flags[3];
  flags |= d.has(".ftz") ? Ftz : 0;
  flags |= d.has(".sat") ? Sat : 0;
  flags |= d.has(".satfinite") ? SatFinite : 0;
  flags |= d.has(".relu") ? Relu : 0;
  Type to = d.type(), from = d.type();
  d.out.flags[0] = static_cast<uint8_t>(to);
  d.out.flags[1] = static_cast<uint8_t>(from);
  if (isPair(to) && isPair(from)) {
    d.expectOperands(2, 2);
    d.out.run = convertPair;
  } else if (isPair(to)) {
    if (from != Type::F32)
      d.error("not supported for this type");
    d.expectOperands(3, 3);
    d.out.b = d.source(2, from);
    d.out.run = convertToPair;
  } else {
    d.expectOperands(2, 2);
    if (bitsOf(to) == 0 || to == Type::Pred || isPair(from))
      d.error("not supported for this type");
    bool rounds = isFloat(from) && !isFloat(to);
    if (rounds && !(flags & ToInteger))
      d.error("float to integer without a rounding to integer");
  }
  bool toInteger = !isFloat(to);
  d.out.d = d.destination(0, to, toInteger ? Decoder::AtLeast : Decoder::Exact);
  d.out.a =
      d.source(1, from, isFloat(from) ? Decoder::Exact : Decoder::AtLeast);
  int registerBits = d.registerBits(d.operand(0));
  d.out.flags[4] = static_cast<uint8_t>(registerBits);
  if (d.out.run)
    return;
  d.out.run = convert;
  if (toInteger && !isFloat(from) && !(flags & Sat))
    if (Handler fast = integerConversion(to, from, registerBits))
      d.out.run = fast;
}

static constexpr DecodeEntry entries[] = {{"cvt", decodeConvert}};
const DecodeTable moe::gpu::convertInstructions = tableOf(entries);
