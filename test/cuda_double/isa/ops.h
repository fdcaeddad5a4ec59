//===- ops.h - Helpers to define instructions -------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CUDA_DOUBLE_OPS_H
#define MOE_CUDA_DOUBLE_OPS_H

#include "machine/machine.h"
#include "ptx/decoder.h"

namespace moe::gpu {

// An operation is a class with a static function `run`; these are instructions
// whose operands have one type.

template <typename T, typename Op>
Step unary(Thread &thread, const Instruction &i) {
  thread.set<T>(i.d, Op::run(thread.get<T>(i.a)));
  return Step::Go;
}

template <typename T, typename Op>
Step binary(Thread &thread, const Instruction &i) {
  thread.set<T>(i.d, Op::run(thread.get<T>(i.a), thread.get<T>(i.b)));
  return Step::Go;
}

template <typename T, typename Op>
Step ternary(Thread &thread, const Instruction &i) {
  thread.set<T>(
      i.d, Op::run(thread.get<T>(i.a), thread.get<T>(i.b), thread.get<T>(i.c)));
  return Step::Go;
}

/// Decodes d, a and, if present, b and c, all of one type.
inline void decodeSame(Decoder &d, Type type, size_t sources) {
  d.expectOperands(1 + sources, 1 + sources);
  d.out.d = d.destination(0, type);
  d.out.a = d.source(1, type);
  if (sources > 1)
    d.out.b = d.source(2, type);
  if (sources > 2)
    d.out.c = d.source(3, type);
}

/// The handler for a signed or unsigned type of 16, 32 or 64 bits; nullptr for
/// any other type.
template <template <typename, typename> class Shape, typename Op>
Handler integerHandler(Type type) {
  switch (type) {
  case Type::U16:
  case Type::B16:
    return Shape<uint16_t, Op>::run;
  case Type::S16:
    return Shape<int16_t, Op>::run;
  case Type::U32:
  case Type::B32:
    return Shape<uint32_t, Op>::run;
  case Type::S32:
    return Shape<int32_t, Op>::run;
  case Type::U64:
  case Type::B64:
    return Shape<uint64_t, Op>::run;
  case Type::S64:
    return Shape<int64_t, Op>::run;
  default:
    return nullptr;
  }
}
template <typename T, typename Op> struct Unary {
  static constexpr Handler run = unary<T, Op>;
};
template <typename T, typename Op> struct Binary {
  static constexpr Handler run = binary<T, Op>;
};
template <typename T, typename Op> struct Ternary {
  static constexpr Handler run = ternary<T, Op>;
};

// Decoders of opcodes that several types share, one for each kind of type.
void decodeIntegerArithmetic(Decoder &d, Type type);
void decodeFloatArithmetic(Decoder &d, Type type);
void decodeHalfArithmetic(Decoder &d, Type type);

// Decoders of f32 instructions with .approx or .full (op_approximate.cpp).
void decodeApproximation(Decoder &d);
void decodeApproximateDivision(Decoder &d, bool full);

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_OPS_H
