//===- op_atomic.cpp - Atomic operations ----------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// PTX ISA 9.7.13.5 "atom" and 9.7.13.6 "red".
//
//===----------------------------------------------------------------------===//

#include "isa/numeric.h"
#include "isa/ops.h"

using namespace moe::gpu;

namespace {

// flags: 0 and 1 as set by setAddress, 3 Order. list: the results, then the
// operands; count: elements.

template <typename T, typename Op>
Step atomic(Thread &thread, const Instruction &i) {
  uint8_t *at =
      thread.access(static_cast<Space>(i.flags[1]), thread.effective(i),
                    sizeof(T) * i.count, Access::Atomic, i, i.flags[3]);
  for (uint32_t k = 0; k < i.count; ++k) {
    T before;
    std::memcpy(&before, at + k * sizeof(T), sizeof(T));
    uint32_t b = i.list[i.count + k];
    T after = Op::run(before, thread.get<T>(b),
                      thread.get<T>(i.c)); // c: only of cas
    // An atomic that does not change memory, as in a spin loop, is no progress.
    if (std::memcmp(&before, &after, sizeof(T)) != 0)
      ++thread.machine().effects;
    std::memcpy(at + k * sizeof(T), &after, sizeof(T));
    if (i.list[k])
      thread.set<T>(i.list[k], before);
  }
  return Step::Go;
}

struct Add {
  template <typename T> static T run(T a, T b, T) {
    return static_cast<T>(a + b);
  }
};
struct FlushedAdd {
  // atom.add.f32 on global memory flushes subnormal results.
  static float run(float a, float b, float) {
    return flush(flush(a) + flush(b));
  }
};
struct And {
  template <typename T> static T run(T a, T b, T) { return a & b; }
};
struct Or {
  template <typename T> static T run(T a, T b, T) { return a | b; }
};
struct Xor {
  template <typename T> static T run(T a, T b, T) { return a ^ b; }
};
struct Exchange {
  template <typename T> static T run(T, T b, T) { return b; }
};
struct CompareAndSwap {
  template <typename T> static T run(T a, T b, T c) { return a == b ? c : a; }
};
struct Increment {
  static uint32_t run(uint32_t a, uint32_t b, uint32_t) {
    return a >= b ? 0 : a + 1;
  }
};
struct Decrement {
  static uint32_t run(uint32_t a, uint32_t b, uint32_t) {
    return a == 0 || a > b ? b : a - 1;
  }
};
struct Min {
  template <typename T> static T run(T a, T b, T) { return b < a ? b : a; }
};
struct Max {
  template <typename T> static T run(T a, T b, T) { return a < b ? b : a; }
};

/// An operation on f16 or bf16, scalar (16 bits) or packed (32 bits).
enum class HalfOp { Add, Min, Max };
template <typename T, HalfOp op, bool bfloat> struct Half {
  static T run(T a, T b, T) {
    const Format &format = bfloat ? formatBF16 : formatF16;
    T result = 0;
    for (size_t k = 0; k < sizeof(T) / 2; ++k) {
      double x = decode(format, a >> (16 * k) & 0xFFFF);
      double y = decode(format, b >> (16 * k) & 0xFFFF);
      double z = op == HalfOp::Add   ? addToOdd(x, y)
                 : op == HalfOp::Min ? std::fmin(x, y)
                                     : std::fmax(x, y);
      result |= static_cast<T>(encode(format, z) << (16 * k));
    }
    return result;
  }
};

template <typename Op> Handler bitwise(Type type) {
  switch (bitsOf(type)) {
  case 16:
    return atomic<uint16_t, Op>;
  case 32:
    return atomic<uint32_t, Op>;
  case 64:
    return atomic<uint64_t, Op>;
  default:
    return nullptr;
  }
}

template <typename Op> Handler ordered(Type type) {
  switch (type) {
  case Type::U32:
    return atomic<uint32_t, Op>;
  case Type::S32:
    return atomic<int32_t, Op>;
  case Type::U64:
    return atomic<uint64_t, Op>;
  case Type::S64:
    return atomic<int64_t, Op>;
  default:
    return nullptr;
  }
}

template <HalfOp op> Handler half(Type type) {
  switch (type) {
  case Type::F16:
    return atomic<uint16_t, Half<uint16_t, op, false>>;
  case Type::F16x2:
    return atomic<uint32_t, Half<uint32_t, op, false>>;
  case Type::BF16:
    return atomic<uint16_t, Half<uint16_t, op, true>>;
  case Type::BF16x2:
    return atomic<uint32_t, Half<uint32_t, op, true>>;
  default:
    return nullptr;
  }
}

Handler addition(Type type, bool shared) {
  if (Handler run = ordered<Add>(type))
    return run;
  if (type == Type::F32)
    return shared ? atomic<float, Add> : atomic<float, FlushedAdd>;
  if (type == Type::F64)
    return atomic<double, Add>;
  return half<HalfOp::Add>(type);
}

} // namespace

static void decodeAtomic(Decoder &d) {
  if (d.has(".async"))
    d.error("not supported");
  bool results = d.name() == "atom";
  d.out.flags[3] = d.ordering();
  Space space = d.space();
  d.ignoreCacheHints();
  d.has(".noftz");
  uint32_t count = 1;
  for (uint32_t n : {2, 4, 8})
    if (d.has(n == 2 ? ".v2" : n == 4 ? ".v4" : ".v8"))
      count = n;
  bool cas = d.has(".cas");
  static constexpr std::string_view names[] = {
      ".add", ".and", ".or", ".xor", ".exch", ".inc", ".dec", ".min", ".max"};
  std::string_view op;
  for (std::string_view name : names)
    if (op.empty() && d.has(name))
      op = name;
  Type type = d.type();
  Handler run = nullptr;
  if (cas)
    run = bitwise<CompareAndSwap>(type);
  else if (op == ".add")
    run = addition(type, space == Space::Shared);
  else if (op == ".and")
    run = bitwise<And>(type);
  else if (op == ".or")
    run = bitwise<Or>(type);
  else if (op == ".xor")
    run = bitwise<Xor>(type);
  else if (op == ".exch")
    run = bitwise<Exchange>(type);
  else if (op == ".inc" && type == Type::U32)
    run = atomic<uint32_t, Increment>;
  else if (op == ".dec" && type == Type::U32)
    run = atomic<uint32_t, Decrement>;
  else if (op == ".min")
    run = isFloat(type) ? half<HalfOp::Min>(type) : ordered<Min>(type);
  else if (op == ".max")
    run = isFloat(type) ? half<HalfOp::Max>(type) : ordered<Max>(type);
  if (!run)
    d.error("not supported for this type");
  d.out.run = run;

  size_t at = results ? 1 : 0;
  size_t least = at + 2 + cas;
  d.expectOperands(least, least + 1); // a cache policy may follow
  d.setAddress(d.address(at, space));
  d.out.site = d.newSite();
  std::vector<uint32_t> list(count, 0);
  if (results)
    list = d.destinations(0, type);
  std::vector<uint32_t> values = d.sources(at + 1, type);
  if (list.size() != count || values.size() != count)
    d.error("expected ", count, " elements");
  list.insert(list.end(), values.begin(), values.end());
  d.out.count = count;
  d.out.list = d.keep(std::move(list));
  if (cas)
    d.out.c = d.source(at + 2, type);
}

static constexpr DecodeEntry entries[] = {{"atom", decodeAtomic},
                                          {"red", decodeAtomic}};
const DecodeTable moe::gpu::atomicInstructions = tableOf(entries);
