//===- op_compare.cpp - Comparisons ---------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// setp and set of PTX ISA 9.7.6 and 9.7.7.
//
//===----------------------------------------------------------------------===//

#include "isa/numeric.h"
#include "isa/ops.h"

using namespace moe::gpu;
using syntax::Operand;

namespace {

enum class Compare : uint8_t {
  Eq,
  Ne,
  Lt,
  Le,
  Gt,
  Ge,
  // Unordered: true if an operand is NaN.
  Equ,
  Neu,
  Ltu,
  Leu,
  Gtu,
  Geu,
  Num,
  Nan,
};

enum class Combine : uint8_t { None, And, Or, Xor };

// flags: 0 Compare, 1 Combine, 2 negated c, 3 ftz, 4 the type of the result of
// `set`, 5 the type of the operands.

template <typename T> bool compare(Compare op, T a, T b) {
  bool unordered = a != a || b != b;
  switch (op) {
  case Compare::Eq:
    return a == b;
  case Compare::Ne:
    return !unordered && a != b;
  case Compare::Lt:
    return a < b;
  case Compare::Le:
    return a <= b;
  case Compare::Gt:
    return a > b;
  case Compare::Ge:
    return a >= b;
  case Compare::Equ:
    return unordered || a == b;
  case Compare::Neu:
    return unordered || a != b;
  case Compare::Ltu:
    return unordered || a < b;
  case Compare::Leu:
    return unordered || a <= b;
  case Compare::Gtu:
    return unordered || a > b;
  case Compare::Geu:
    return unordered || a >= b;
  case Compare::Num:
    return !unordered;
  case Compare::Nan:
    return unordered;
  }
  return false;
}

bool combine(Thread &thread, const Instruction &i, bool value) {
  bool c = (thread.get<uint32_t>(i.c) != 0) != (i.flags[2] != 0);
  switch (static_cast<Combine>(i.flags[1])) {
  case Combine::None:
    return value;
  case Combine::And:
    return value && c;
  case Combine::Or:
    return value || c;
  case Combine::Xor:
    return value != c;
  }
  return value;
}

/// The fast path: integers, one result, no combined predicate.
template <typename T, Compare op>
Step setpFast(Thread &thread, const Instruction &i) {
  thread.set<uint32_t>(i.d,
                       compare<T>(op, thread.get<T>(i.a), thread.get<T>(i.b)));
  return Step::Go;
}

/// The comparisons of a packed pair, or of a scalar.
struct Values {
  bool first, second;
};

template <typename T>
Values compareScalar(Thread &thread, const Instruction &i) {
  auto op = static_cast<Compare>(i.flags[0]);
  T a = thread.get<T>(i.a), b = thread.get<T>(i.b);
  bool value = compare<T>(op, a, b);
  return {value, !value};
}

Values compareF32(Thread &thread, const Instruction &i) {
  auto op = static_cast<Compare>(i.flags[0]);
  float a = thread.get<float>(i.a), b = thread.get<float>(i.b);
  if (i.flags[3]) {
    a = flush(a);
    b = flush(b);
  }
  bool value = compare<float>(op, a, b);
  return {value, !value};
}

Values compareHalf(Thread &thread, const Instruction &i) {
  auto op = static_cast<Compare>(i.flags[0]);
  auto type = static_cast<Type>(i.flags[5]);
  const Format &format =
      type == Type::BF16 || type == Type::BF16x2 ? formatBF16 : formatF16;
  auto element = [&](uint32_t slot, int k) {
    uint32_t bits = thread.get<uint32_t>(slot) >> (16 * k) & 0xFFFF;
    double value = decode(format, bits);
    bool subnormal = !(bits & format.infinity());
    return i.flags[3] && subnormal ? 0.0 : value;
  };
  bool first = compare<double>(op, element(i.a, 0), element(i.b, 0));
  if (type == Type::F16 || type == Type::BF16)
    return {first, !first};
  return {first, compare<double>(op, element(i.a, 1), element(i.b, 1))};
}

template <Values (*values)(Thread &, const Instruction &)>
Step setp(Thread &thread, const Instruction &i) {
  Values result = values(thread, i);
  bool first = combine(thread, i, result.first);
  bool second = combine(thread, i, result.second);
  if (i.d)
    thread.set<uint32_t>(i.d, first);
  if (i.e)
    thread.set<uint32_t>(i.e, second);
  return Step::Go;
}

template <Values (*values)(Thread &, const Instruction &)>
Step set(Thread &thread, const Instruction &i) {
  Values result = values(thread, i);
  bool first = combine(thread, i, result.first);
  bool second = combine(thread, i, result.second);
  switch (static_cast<Type>(i.flags[4])) {
  case Type::F32:
    thread.set<float>(i.d, first);
    break;
  case Type::F16:
    thread.set<uint16_t>(i.d, first ? 0x3C00 : 0);
    break;
  case Type::BF16:
    thread.set<uint16_t>(i.d, first ? 0x3F80 : 0);
    break;
  case Type::F16x2:
    thread.set<uint32_t>(i.d,
                         (first ? 0x3C00u : 0) | (second ? 0x3C000000u : 0));
    break;
  case Type::BF16x2:
    thread.set<uint32_t>(i.d,
                         (first ? 0x3F80u : 0) | (second ? 0x3F800000u : 0));
    break;
  case Type::U16:
  case Type::S16:
    thread.set<uint16_t>(i.d, first ? 0xFFFF : 0);
    break;
  default:
    thread.set<uint32_t>(i.d, first ? 0xFFFFFFFF : 0);
  }
  return Step::Go;
}

struct Handlers {
  Handler setp, set;
};
template <Values (*values)(Thread &, const Instruction &)>
constexpr Handlers handlers() {
  return {setp<values>, set<values>};
}

Handlers handlersOf(Type type) {
  switch (type) {
  case Type::U16:
  case Type::B16:
    return handlers<compareScalar<uint16_t>>();
  case Type::S16:
    return handlers<compareScalar<int16_t>>();
  case Type::U32:
  case Type::B32:
    return handlers<compareScalar<uint32_t>>();
  case Type::S32:
    return handlers<compareScalar<int32_t>>();
  case Type::U64:
  case Type::B64:
    return handlers<compareScalar<uint64_t>>();
  case Type::S64:
    return handlers<compareScalar<int64_t>>();
  case Type::F32:
    return handlers<compareF32>();
  case Type::F64:
    return handlers<compareScalar<double>>();
  case Type::F16:
  case Type::BF16:
  case Type::F16x2:
  case Type::BF16x2:
    return handlers<compareHalf>();
  default:
    return {nullptr, nullptr};
  }
}

template <typename T> Handler fastHandler(Compare op) {
  switch (op) {
  case Compare::Eq:
    return setpFast<T, Compare::Eq>;
  case Compare::Ne:
    return setpFast<T, Compare::Ne>;
  case Compare::Lt:
    return setpFast<T, Compare::Lt>;
  case Compare::Le:
    return setpFast<T, Compare::Le>;
  case Compare::Gt:
    return setpFast<T, Compare::Gt>;
  case Compare::Ge:
    return setpFast<T, Compare::Ge>;
  default:
    return nullptr;
  }
}

} // namespace

static Compare decodeCompare(Decoder &d) {
  static constexpr std::string_view names[] = {
      ".eq",  ".ne",  ".lt",  ".le",  ".gt",  ".ge",  ".equ",
      ".neu", ".ltu", ".leu", ".gtu", ".geu", ".num", ".nan"};
  // lo, ls, hi and hs are the unsigned comparisons.
  static constexpr struct {
    std::string_view name;
    Compare op;
  } unsignedNames[] = {{".lo", Compare::Lt},
                       {".ls", Compare::Le},
                       {".hi", Compare::Gt},
                       {".hs", Compare::Ge}};
  for (uint8_t k = 0; k < 14; ++k)
    if (d.has(names[k]))
      return static_cast<Compare>(k);
  for (const auto &entry : unsignedNames)
    if (d.has(entry.name))
      return entry.op;
  d.error("expected a comparison");
}

static void decodeSetp(Decoder &d) {
  bool predicates = d.name() == "setp";
  Compare op = decodeCompare(d);
  d.out.flags[0] = static_cast<uint8_t>(op);
  Combine combination = d.has(".and")   ? Combine::And
                        : d.has(".or")  ? Combine::Or
                        : d.has(".xor") ? Combine::Xor
                                        : Combine::None;
  d.out.flags[1] = static_cast<uint8_t>(combination);
  d.out.flags[3] = d.has(".ftz");
  size_t count = combination == Combine::None ? 3 : 4;
  d.expectOperands(count, count);
  const Operand &result = d.operand(0);
  if (predicates) {
    bool pair = result.kind == Operand::Kind::Pair;
    const Operand &first = pair ? result.parts[0] : result;
    if (first.kind != Operand::Kind::Sink)
      d.out.d = d.predicate(first);
    if (pair && result.parts[1].kind != Operand::Kind::Sink)
      d.out.e = d.predicate(result.parts[1]);
  } else {
    Type type = d.type();
    d.out.flags[4] = static_cast<uint8_t>(type);
    d.out.d = d.destination(0, type);
  }
  Type type = d.type();
  d.out.flags[5] = static_cast<uint8_t>(type);
  d.out.a = d.source(1, type);
  d.out.b = d.source(2, type);
  if (count == 4)
    d.out.c = d.predicate(d.operand(3), &d.out.flags[2]);
  Handlers general = handlersOf(type);
  d.out.run = predicates ? general.setp : general.set;
  if (!d.out.run)
    d.error("not supported for this type");
  if (!predicates || count == 4 || d.out.e || !d.out.d)
    return;
  Handler fast = nullptr;
  if (type == Type::S32)
    fast = fastHandler<int32_t>(op);
  else if (type == Type::U32 || type == Type::B32)
    fast = fastHandler<uint32_t>(op);
  else if (type == Type::S64)
    fast = fastHandler<int64_t>(op);
  else if (type == Type::U64 || type == Type::B64)
    fast = fastHandler<uint64_t>(op);
  if (fast)
    d.out.run = fast;
}

static constexpr DecodeEntry entries[] = {{"setp", decodeSetp},
                                          {"set", decodeSetp}};
const DecodeTable moe::gpu::compareInstructions = tableOf(entries);
