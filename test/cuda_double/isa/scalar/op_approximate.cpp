//===- op_approximate.cpp - Approximate functions of f32 ------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// PTX ISA 9.7.3: instructions with .approx and .full. The ISA bounds their
// error and no more. So results here are off by a part of that bound which
// depends on the bits of the operands: the same operands give the same result,
// and code that counts on more than the ISA promises gets wrong ones.
//
//===----------------------------------------------------------------------===//

#include "isa/numeric.h"
#include "isa/ops.h"

using namespace moe::gpu;

namespace {

enum ApproximateFlags : uint8_t { Ftz = 1 };

/// A number in [-1, 1] that the operands determine.
double offsetOf(float a, float b = 0) {
  uint32_t bits[2];
  std::memcpy(&bits[0], &a, sizeof(a));
  std::memcpy(&bits[1], &b, sizeof(b));
  uint32_t hash = bits[0] * 0x9E3779B1u ^ bits[1] * 0x85EBCA77u;
  hash = (hash ^ hash >> 15) * 0x2C1B3C6Du;
  hash = (hash ^ hash >> 12) * 0x297A2D39u;
  hash ^= hash >> 15;
  return hash / 2147483647.5 - 1;
}

/// Infinities, zeros and NaN are what the tables of the ISA say.
double withRelativeError(double exact, double error) {
  return std::isfinite(exact) ? exact * (1 + error) : exact;
}

// Errors, together with the rounding to f32, are at most the bounds in
// comments.
struct Rcp { // 1 ulp
  static double run(double a, double offset) {
    return withRelativeError(1 / a, 0x1p-25 * offset);
  }
};
struct Sqrt { // 2^-23 of the result
  static double run(double a, double offset) {
    return withRelativeError(std::sqrt(a), 0x1p-24 * offset);
  }
};
struct Rsqrt { // 2^-22.9 of the result
  static double run(double a, double offset) {
    return withRelativeError(1 / std::sqrt(a), 0x1p-24 * offset);
  }
};
struct Ex2 { // 2 ulp
  static double run(double a, double offset) {
    return withRelativeError(std::exp2(a), 0x1p-24 * 1.5 * offset);
  }
};
struct Lg2 { // 2^-22 in (0.5, 2), otherwise 2^-22 of the result
  static double run(double a, double offset) {
    double exact = std::log2(a), error = 0x1p-23 * offset;
    return a > 0.5 && a < 2 ? exact + error : withRelativeError(exact, error);
  }
};
struct Sin { // 2^-20.5 in [-2 pi, 2 pi]
  static double run(double a, double offset) {
    return std::sin(a) + 0x1p-21 * offset;
  }
};
struct Cos { // 2^-20.5 in [-2 pi, 2 pi]
  static double run(double a, double offset) {
    return std::cos(a) + 0x1p-21 * offset;
  }
};
struct Tanh { // 2^-11 of the result
  static double run(double a, double offset) {
    return withRelativeError(std::tanh(a), 0x1p-11 * 0.999 * offset);
  }
};

template <typename Op> Step approximate(Thread &thread, const Instruction &i) {
  bool ftz = i.flags[0] & Ftz;
  float a = thread.get<float>(i.a);
  if (ftz)
    a = flush(a);
  float result = static_cast<float>(Op::run(a, offsetOf(a)));
  thread.set<float>(i.d, ftz ? flush(result) : result);
  return Step::Go;
}

/// A quotient within 2 ulp. With .approx it is 0 for divisors beyond 2^126.
template <bool full> Step divide(Thread &thread, const Instruction &i) {
  bool ftz = i.flags[0] & Ftz;
  float a = thread.get<float>(i.a), b = thread.get<float>(i.b);
  if (ftz) {
    a = flush(a);
    b = flush(b);
  }
  double exact = static_cast<double>(a) / b;
  if (!full && std::fabs(b) > 0x1p126f && std::isfinite(b))
    exact = std::isinf(a) ? std::numeric_limits<double>::quiet_NaN()
                          : std::copysign(0.0, exact);
  float result = static_cast<float>(
      withRelativeError(exact, 0x1p-24 * 1.5 * offsetOf(a, b)));
  thread.set<float>(i.d, ftz ? flush(result) : result);
  return Step::Go;
}

} // namespace

void moe::gpu::decodeApproximation(Decoder &d) {
  static constexpr struct {
    std::string_view name;
    Handler run;
  } functions[] = {
      {"rcp", approximate<Rcp>},     {"sqrt", approximate<Sqrt>},
      {"rsqrt", approximate<Rsqrt>}, {"ex2", approximate<Ex2>},
      {"lg2", approximate<Lg2>},     {"sin", approximate<Sin>},
      {"cos", approximate<Cos>},     {"tanh", approximate<Tanh>},
  };
  d.out.flags[0] = d.has(".ftz") ? Ftz : 0;
  for (const auto &function : functions)
    if (function.name == d.name()) {
      d.out.run = function.run;
      return decodeSame(d, Type::F32, 1);
    }
  d.error("not supported for this type");
}

void moe::gpu::decodeApproximateDivision(Decoder &d, bool full) {
  d.out.flags[0] = d.has(".ftz") ? Ftz : 0;
  d.out.run = full ? divide<true> : divide<false>;
  decodeSame(d, Type::F32, 2);
}
