//===- op_half.cpp - Arithmetic of f16, bf16 and pairs of them ------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// PTX ISA 9.7.4 "Half Precision Floating-Point Instructions". Every result is
// the exact one rounded once.
//
//===----------------------------------------------------------------------===//

#include "isa/numeric.h"
#include "isa/ops.h"

using namespace moe::gpu;

namespace {

enum HalfFlags : uint8_t {
  Ftz = 1,
  Sat = 2,
  Relu = 4,
  PropagateNan = 8,
  XorSign = 16,
  Pair = 32,
  Bfloat = 64,
};

// flags[0]: HalfFlags.

const Format &formatOf(uint8_t flags) {
  return flags & Bfloat ? formatBF16 : formatF16;
}

double decodeHalf(uint16_t bits, uint8_t flags) {
  const Format &format = formatOf(flags);
  double value = decode(format, bits);
  bool subnormal = !(bits & format.infinity());
  return flags & Ftz && subnormal ? std::copysign(0.0, value) : value;
}

uint16_t encodeHalf(double value, uint8_t flags) {
  const Format &format = formatOf(flags);
  if (flags & Sat)
    value = value > 0 ? std::min(value, 1.0) : 0.0;
  if (flags & Relu)
    value = value > 0 || std::isnan(value) ? value : 0.0;
  uint32_t bits = encode(format, value);
  if (flags & Ftz && !(bits & format.infinity()))
    bits &= format.sign();
  return static_cast<uint16_t>(bits);
}

struct Add {
  static double run(double a, double b, double, uint8_t) {
    return addToOdd(a, b);
  }
};
struct Sub {
  static double run(double a, double b, double, uint8_t) {
    return addToOdd(a, -b);
  }
};
struct Mul {
  static double run(double a, double b, double, uint8_t) { return a * b; }
};
struct Fma {
  static double run(double a, double b, double c, uint8_t) {
    return fmaToOdd(a, b, c);
  }
};
struct Min {
  static double run(double a, double b, double, uint8_t flags) {
    if (std::isnan(a) || std::isnan(b)) {
      if (flags & PropagateNan || (std::isnan(a) && std::isnan(b)))
        return NAN;
      return std::isnan(a) ? b : a;
    }
    bool negative = std::signbit(a) != std::signbit(b);
    if (flags & XorSign) {
      a = std::fabs(a);
      b = std::fabs(b);
    }
    double least = a == b ? (std::signbit(a) ? a : b) : std::min(a, b);
    return flags & XorSign && negative ? -least : least;
  }
};
struct Max {
  static double run(double a, double b, double, uint8_t flags) {
    if (flags & XorSign) {
      bool negative = std::signbit(a) != std::signbit(b);
      double most = run(std::fabs(a), std::fabs(b), 0,
                        flags & static_cast<uint8_t>(~XorSign));
      return negative ? -most : most;
    }
    return -Min::run(-a, -b, 0, flags);
  }
};
struct Ex2 {
  static double run(double a, double, double, uint8_t) { return std::exp2(a); }
};
struct Tanh {
  static double run(double a, double, double, uint8_t) { return std::tanh(a); }
};

/// Applies Op to each element. An absent operand is slot 0, with any bits.
template <typename Op> Step elementwise(Thread &thread, const Instruction &i) {
  uint8_t flags = i.flags[0];
  auto element = [&](int k) {
    auto part = [&](uint32_t slot) {
      return decodeHalf(
          static_cast<uint16_t>(thread.get<uint32_t>(slot) >> (16 * k)), flags);
    };
    return encodeHalf(Op::run(part(i.a), part(i.b), part(i.c), flags), flags);
  };
  if (flags & Pair) {
    uint32_t high = element(1), low = element(0);
    thread.set<uint32_t>(i.d, high << 16 | low);
  } else {
    thread.set<uint16_t>(i.d, element(0));
  }
  return Step::Go;
}

/// neg and abs of f16 and bf16, scalar and packed.
template <bool negate> Step sign(Thread &thread, const Instruction &i) {
  uint32_t signs = i.flags[0] & Pair ? 0x80008000 : 0x8000;
  uint32_t a = thread.get<uint32_t>(i.a);
  if (i.flags[0] & Ftz) {
    uint32_t exponent = formatOf(i.flags[0]).infinity();
    if (!(a & exponent))
      a &= 0xFFFF8000;
    if (!(a >> 16 & exponent))
      a &= 0x8000FFFF;
  }
  uint32_t result = negate ? a ^ signs : a & ~signs;
  if (i.flags[0] & Pair)
    thread.set<uint32_t>(i.d, result);
  else
    thread.set<uint16_t>(i.d, static_cast<uint16_t>(result));
  return Step::Go;
}

} // namespace

void moe::gpu::decodeHalfArithmetic(Decoder &d, Type type) {
  static constexpr struct {
    std::string_view name;
    size_t sources;
    Handler run;
  } operations[] = {
      {"add", 2, elementwise<Add>}, {"sub", 2, elementwise<Sub>},
      {"mul", 2, elementwise<Mul>}, {"fma", 3, elementwise<Fma>},
      {"min", 2, elementwise<Min>}, {"max", 2, elementwise<Max>},
      {"ex2", 1, elementwise<Ex2>}, {"tanh", 1, elementwise<Tanh>},
      {"abs", 1, sign<false>},      {"neg", 1, sign<true>},
  };
  for (const auto &operation : operations) {
    if (operation.name != d.name())
      continue;
    uint8_t &flags = d.out.flags[0];
    flags |= d.has(".ftz") ? Ftz : 0;
    flags |= d.has(".sat") ? Sat : 0;
    flags |= d.has(".relu") ? Relu : 0;
    flags |= d.has(".NaN") ? PropagateNan : 0;
    if (d.has(".xorsign")) {
      d.need(".abs");
      flags |= XorSign;
    }
    bool pair = type == Type::F16x2 || type == Type::BF16x2;
    bool bfloat = type == Type::BF16 || type == Type::BF16x2;
    flags |= pair ? Pair : 0;
    flags |= bfloat ? Bfloat : 0;
    d.has(".rn");
    d.has(".approx");
    d.out.run = operation.run;
    decodeSame(d, type, operation.sources);
    return;
  }
  d.error("not supported for this type");
}
