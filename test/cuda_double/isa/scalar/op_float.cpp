//===- op_float.cpp - Arithmetic of f32 and f64 ---------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// PTX ISA 9.7.3 "Floating-Point Instructions". op_approximate.cpp has those of
// f32 with .approx and .full; of f64 they are exact results rounded to nearest.
//
//===----------------------------------------------------------------------===//

#include "isa/numeric.h"
#include "isa/ops.h"

#include <cfenv>

using namespace moe::gpu;

namespace {

enum FloatFlags : uint8_t { Ftz = 1, Sat = 2, PropagateNan = 4, XorSign = 8 };

// flags[0]: FloatFlags; flags[1]: Rounding.

inline float flushed(float value) { return flush(value); }
inline double flushed(double value) { return value; } // f64 has no .ftz

template <typename T> T finished(T value, uint8_t flags) {
  if (flags & Ftz)
    value = flushed(value);
  // .sat converts NaN to zero.
  if (flags & Sat)
    value = value > 0 ? std::min<T>(value, 1) : T(0);
  return value;
}

/// Sets the host's rounding mode for the lifetime of the object.
class RoundingScope {
public:
  explicit RoundingScope(uint8_t rounding) {
    static constexpr int modes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD,
                                    FE_UPWARD};
    std::fesetround(modes[rounding]);
  }
  ~RoundingScope() { std::fesetround(FE_TONEAREST); }
};

struct Add {
  template <typename T> static T run(T a, T b) { return a + b; }
};
struct Sub {
  template <typename T> static T run(T a, T b) { return a - b; }
};
struct Mul {
  template <typename T> static T run(T a, T b) { return a * b; }
};
struct Div {
  template <typename T> static T run(T a, T b) { return a / b; }
};
struct Fma {
  template <typename T> static T run(T a, T b, T c) {
    return std::fma(a, b, c);
  }
};

/// -0 is less than +0; the result is NaN only if both are, or for .NaN if any
/// is.
template <typename T> T least(T a, T b, bool propagate) {
  if (std::isnan(a) || std::isnan(b)) {
    if (propagate || (std::isnan(a) && std::isnan(b)))
      return std::numeric_limits<T>::quiet_NaN();
    return std::isnan(a) ? b : a;
  }
  if (a == b)
    return std::signbit(a) ? a : b;
  return a < b ? a : b;
}

/// The variant with rounding modes, .ftz and .sat.
template <typename T, typename Op>
Step binaryModified(Thread &thread, const Instruction &i) {
  volatile T a = thread.get<T>(i.a), b = thread.get<T>(i.b);
  uint8_t flags = i.flags[0];
  if (flags & Ftz) {
    a = flushed(T(a));
    b = flushed(T(b));
  }
  volatile T result;
  if (i.flags[1] == static_cast<uint8_t>(Rounding::Nearest)) {
    result = Op::run(T(a), T(b));
  } else {
    RoundingScope scope(i.flags[1]);
    result = Op::run(T(a), T(b));
  }
  thread.set<T>(i.d, finished<T>(result, flags));
  return Step::Go;
}

template <typename T> Step fmaModified(Thread &thread, const Instruction &i) {
  volatile T a = thread.get<T>(i.a), b = thread.get<T>(i.b),
             c = thread.get<T>(i.c);
  uint8_t flags = i.flags[0];
  if (flags & Ftz) {
    a = flushed(T(a));
    b = flushed(T(b));
    c = flushed(T(c));
  }
  volatile T result;
  if (i.flags[1] == static_cast<uint8_t>(Rounding::Nearest)) {
    result = Fma::run(T(a), T(b), T(c));
  } else {
    RoundingScope scope(i.flags[1]);
    result = Fma::run(T(a), T(b), T(c));
  }
  thread.set<T>(i.d, finished<T>(result, flags));
  return Step::Go;
}

template <typename T, bool max>
Step minMax(Thread &thread, const Instruction &i) {
  T a = thread.get<T>(i.a), b = thread.get<T>(i.b);
  uint8_t flags = i.flags[0];
  if (flags & Ftz) {
    a = flushed(a);
    b = flushed(b);
  }
  bool negative = std::signbit(a) != std::signbit(b);
  if (flags & XorSign) {
    a = std::fabs(a);
    b = std::fabs(b);
  }
  bool propagate = flags & PropagateNan;
  T result = max ? -least<T>(-a, -b, propagate) : least<T>(a, b, propagate);
  if (flags & XorSign && negative)
    result = -result;
  thread.set<T>(i.d, result);
  return Step::Go;
}

// neg and abs also change the sign bit of a NaN.
template <typename T, bool negate>
Step sign(Thread &thread, const Instruction &i) {
  T a = thread.get<T>(i.a);
  if (i.flags[0] & Ftz)
    a = flushed(a);
  thread.set<T>(i.d, negate ? -a : std::fabs(a));
  return Step::Go;
}

struct Rcp {
  template <typename T> static T run(T a) { return 1 / a; }
};
struct Sqrt {
  template <typename T> static T run(T a) { return std::sqrt(a); }
};
struct Rsqrt {
  template <typename T> static T run(T a) {
    return static_cast<T>(1 / std::sqrt(static_cast<double>(a)));
  }
};
// Approximations computed in f64 by the C library.
template <double (*function)(double)> struct InDouble {
  template <typename T> static T run(T a) {
    return static_cast<T>(function(static_cast<double>(a)));
  }
};
using Ex2 = InDouble<std::exp2>;
using Lg2 = InDouble<std::log2>;
using Sin = InDouble<std::sin>;
using Cos = InDouble<std::cos>;
using Tanh = InDouble<std::tanh>;

template <typename T, typename Op>
Step function(Thread &thread, const Instruction &i) {
  volatile T a = thread.get<T>(i.a);
  if (i.flags[0] & Ftz)
    a = flushed(T(a));
  volatile T result;
  if (i.flags[1] == static_cast<uint8_t>(Rounding::Nearest)) {
    result = Op::run(T(a));
  } else {
    RoundingScope scope(i.flags[1]);
    result = Op::run(T(a));
  }
  thread.set<T>(i.d, finished<T>(result, i.flags[0]));
  return Step::Go;
}

template <typename T> Step copysign(Thread &thread, const Instruction &i) {
  // The sign is that of a, the magnitude that of b.
  thread.set<T>(i.d, std::copysign(thread.get<T>(i.b), thread.get<T>(i.a)));
  return Step::Go;
}

enum class Property : uint8_t {
  Finite,
  Infinite,
  Number,
  NotANumber,
  Normal,
  Subnormal
};

template <typename T> Step testp(Thread &thread, const Instruction &i) {
  T a = thread.get<T>(i.a);
  bool result = false;
  switch (static_cast<Property>(i.flags[0])) {
  case Property::Finite:
    result = std::isfinite(a);
    break;
  case Property::Infinite:
    result = std::isinf(a);
    break;
  case Property::Number:
    result = !std::isnan(a);
    break;
  case Property::NotANumber:
    result = std::isnan(a);
    break;
  case Property::Normal:
    result = std::isnormal(a);
    break;
  case Property::Subnormal:
    result = std::fpclassify(a) == FP_SUBNORMAL;
    break;
  }
  thread.set<uint32_t>(i.d, result);
  return Step::Go;
}

template <typename Op> Handler select(Type type, bool plain) {
  if (type == Type::F32)
    return plain ? binary<float, Op> : binaryModified<float, Op>;
  return plain ? binary<double, Op> : binaryModified<double, Op>;
}

} // namespace

/// Decodes rounding, .ftz and .sat. Returns whether none but .rn is given.
static bool decodeModifiers(Decoder &d) {
  static constexpr std::string_view roundings[] = {".rn", ".rz", ".rm", ".rp"};
  for (uint8_t k = 0; k < 4; ++k)
    if (d.has(roundings[k]))
      d.out.flags[1] = k;
  d.out.flags[0] = (d.has(".ftz") ? Ftz : 0) | (d.has(".sat") ? Sat : 0);
  return d.out.flags[0] == 0 && d.out.flags[1] == 0;
}

void moe::gpu::decodeFloatArithmetic(Decoder &d, Type type) {
  std::string_view name = d.name();
  if (name == "div" && type == Type::F32) {
    bool full = d.has(".full");
    if (full || d.has(".approx"))
      return decodeApproximateDivision(d, full);
  }
  bool plain = decodeModifiers(d);
  bool single = type == Type::F32;
  if (name == "add") {
    d.out.run = select<Add>(type, plain);
    decodeSame(d, type, 2);
  } else if (name == "sub") {
    d.out.run = select<Sub>(type, plain);
    decodeSame(d, type, 2);
  } else if (name == "mul") {
    d.out.run = select<Mul>(type, plain);
    decodeSame(d, type, 2);
  } else if (name == "div") {
    d.out.run = select<Div>(type, plain);
    decodeSame(d, type, 2);
  } else if (name == "fma" || name == "mad") {
    if (single)
      d.out.run = plain ? ternary<float, Fma> : fmaModified<float>;
    else
      d.out.run = plain ? ternary<double, Fma> : fmaModified<double>;
    decodeSame(d, type, 3);
  } else if (name == "min" || name == "max") {
    d.out.flags[0] |= d.has(".NaN") ? PropagateNan : 0;
    if (d.has(".xorsign")) {
      d.need(".abs");
      d.out.flags[0] |= XorSign;
    }
    if (name == "max")
      d.out.run = single ? minMax<float, true> : minMax<double, true>;
    else
      d.out.run = single ? minMax<float, false> : minMax<double, false>;
    decodeSame(d, type, 2);
  } else if (name == "abs" || name == "neg") {
    if (name == "neg")
      d.out.run = single ? sign<float, true> : sign<double, true>;
    else
      d.out.run = single ? sign<float, false> : sign<double, false>;
    decodeSame(d, type, 1);
  } else {
    d.error("not supported for this type");
  }
}

template <typename Op> static void decodeFunction(Decoder &d) {
  Type type = d.type();
  if (type == Type::F16 || type == Type::BF16 || type == Type::F16x2 ||
      type == Type::BF16x2)
    return decodeHalfArithmetic(d, type);
  if (type != Type::F32 && type != Type::F64)
    d.error("not supported for this type");
  if (d.has(".approx") && type == Type::F32)
    return decodeApproximation(d);
  decodeModifiers(d);
  d.out.run = type == Type::F32 ? function<float, Op> : function<double, Op>;
  decodeSame(d, type, 1);
}

static void decodeCopysign(Decoder &d) {
  Type type = d.type();
  d.out.run = type == Type::F32 ? copysign<float> : copysign<double>;
  decodeSame(d, type, 2);
}

static void decodeTestp(Decoder &d) {
  static constexpr std::string_view names[] = {".finite", ".infinite",
                                               ".number", ".notanumber",
                                               ".normal", ".subnormal"};
  bool found = false;
  for (uint8_t k = 0; k < 6 && !found; ++k)
    if ((found = d.has(names[k])))
      d.out.flags[0] = k;
  if (!found)
    d.error("expected a property");
  Type type = d.type();
  d.out.run = type == Type::F32 ? testp<float> : testp<double>;
  d.expectOperands(2, 2);
  d.out.d = d.predicate(d.operand(0));
  d.out.a = d.source(1, type);
}

static constexpr DecodeEntry entries[] = {
    {"rcp", decodeFunction<Rcp>},     {"sqrt", decodeFunction<Sqrt>},
    {"rsqrt", decodeFunction<Rsqrt>}, {"ex2", decodeFunction<Ex2>},
    {"lg2", decodeFunction<Lg2>},     {"sin", decodeFunction<Sin>},
    {"cos", decodeFunction<Cos>},     {"tanh", decodeFunction<Tanh>},
    {"copysign", decodeCopysign},     {"testp", decodeTestp},
};
const DecodeTable moe::gpu::floatInstructions = tableOf(entries);
