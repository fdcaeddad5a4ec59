//===- op_memory.cpp - Loads and stores -----------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// PTX ISA 9.7.9: ld, st, ldu, and the cache control instructions.
//
//===----------------------------------------------------------------------===//

#include "isa/ops.h"

using namespace moe::gpu;

namespace {

// flags: 0 and 1 as set by setAddress, 2 bytes of an element, 3 Order,
// 4 sign-extend, 5 bytes of the registers of the result.

Space spaceOf(const Instruction &i) { return static_cast<Space>(i.flags[1]); }

template <typename T> Step load(Thread &thread, const Instruction &i) {
  const uint8_t *from = thread.access(spaceOf(i), thread.effective(i),
                                      sizeof(T), Access::Read, i, i.flags[3]);
  T value;
  std::memcpy(&value, from, sizeof(T));
  thread.set<T>(i.d, value);
  return Step::Go;
}

/// Loads of vectors and of elements smaller than their register.
Step loadAny(Thread &thread, const Instruction &i) {
  uint32_t bytes = i.flags[2], registerBytes = i.flags[5];
  const uint8_t *from =
      thread.access(spaceOf(i), thread.effective(i), bytes * i.count,
                    Access::Read, i, i.flags[3]);
  // A result may overwrite the address register: read all elements first.
  uint8_t copy[64];
  std::memcpy(copy, from, bytes * i.count);
  for (uint32_t k = 0; k < i.count; ++k) {
    if (i.list[k] == 0)
      continue; // the sink _
    uint8_t value[16] = {};
    std::memcpy(value, copy + k * bytes, bytes);
    if (i.flags[4] && value[bytes - 1] & 0x80)
      std::memset(value + bytes, 0xFF, sizeof(value) - bytes);
    std::memcpy(thread.frame + i.list[k], value, registerBytes);
  }
  return Step::Go;
}

template <typename T> Step store(Thread &thread, const Instruction &i) {
  uint8_t *to = thread.access(spaceOf(i), thread.effective(i), sizeof(T),
                              Access::Write, i, i.flags[3]);
  T value = thread.get<T>(i.b);
  std::memcpy(to, &value, sizeof(T));
  return Step::Go;
}

Step storeAny(Thread &thread, const Instruction &i) {
  uint32_t bytes = i.flags[2];
  uint8_t *to = thread.access(spaceOf(i), thread.effective(i), bytes * i.count,
                              Access::Write, i, i.flags[3]);
  for (uint32_t k = 0; k < i.count; ++k)
    std::memcpy(to + k * bytes, thread.frame + i.list[k], bytes);
  return Step::Go;
}

Step nothing(Thread &, const Instruction &) { return Step::Go; }

Step zeroResult(Thread &thread, const Instruction &i) {
  thread.set<uint64_t>(i.d, 0);
  return Step::Go;
}

} // namespace

/// Decodes the common part of ld and st. Returns the number of elements.
static uint32_t decodeAccess(Decoder &d, Type &type) {
  d.out.flags[3] = d.ordering();
  d.ignoreCacheHints();
  uint32_t count = 1;
  for (uint32_t n : {2, 4, 8})
    if (d.has(n == 2 ? ".v2" : n == 4 ? ".v4" : ".v8"))
      count = n;
  d.has(".unified");
  type = d.type();
  if (type == Type::Pred)
    d.error("not supported for this type");
  d.out.flags[2] = static_cast<uint8_t>(bitsOf(type) / 8);
  return count;
}

static void decodeLoad(Decoder &d) {
  Space space = d.space();
  Type type;
  uint32_t count = decodeAccess(d, type);
  d.expectOperands(2, 4); // a cache policy or a prefetch size may follow
  d.setAddress(d.address(1, space));
  d.out.site = d.newSite();
  d.out.flags[4] = isSigned(type);
  std::vector<uint32_t> list = d.destinations(0, type, Decoder::AtLeast);
  if (list.size() != count)
    d.error("expected ", count, " results");
  const syntax::Operand &first =
      d.isVector(0) ? d.operand(0).parts[0] : d.operand(0);
  int registerBits = d.registerBits(first);
  if (d.isVector(0))
    for (const syntax::Operand &part : d.operand(0).parts)
      registerBits = std::max(registerBits, d.registerBits(part));
  d.out.flags[5] = static_cast<uint8_t>(std::max(registerBits, 16) / 8);
  if (count == 1 && registerBits == bitsOf(type) && bitsOf(type) <= 64) {
    d.out.d = list[0];
    d.out.run = bitsOf(type) == 16   ? load<uint16_t>
                : bitsOf(type) == 32 ? load<uint32_t>
                                     : load<uint64_t>;
    return;
  }
  d.out.count = count;
  d.out.list = d.keep(std::move(list));
  d.out.run = loadAny;
}

static void decodeStore(Decoder &d) {
  if (d.has(".async"))
    d.error("not supported");
  Space space = d.space();
  Type type;
  uint32_t count = decodeAccess(d, type);
  d.expectOperands(2, 3);
  d.setAddress(d.address(size_t(0), space));
  d.out.site = d.newSite();
  std::vector<uint32_t> list = d.sources(1, type, Decoder::AtLeast);
  if (list.size() != count)
    d.error("expected ", count, " values");
  if (count == 1 && bitsOf(type) <= 64) {
    d.out.b = list[0];
    d.out.run = bitsOf(type) == 8    ? store<uint8_t>
                : bitsOf(type) == 16 ? store<uint16_t>
                : bitsOf(type) == 32 ? store<uint32_t>
                                     : store<uint64_t>;
    return;
  }
  d.out.count = count;
  d.out.list = d.keep(std::move(list));
  d.out.run = storeAny;
}

/// prefetch, discard, applypriority: decoded, but without effect.
static void decodeHint(Decoder &d) {
  d.space();
  d.has(".tensormap");
  d.ignoreCacheHints();
  d.has(".L1");
  d.has(".L2");
  d.expectOperands(1, 2);
  d.address(size_t(0), Space::Generic);
  d.out.run = nothing;
}

static void decodePolicy(Decoder &d) {
  d.has(".fractional");
  d.has(".range");
  d.has(".cvt");
  d.ignoreCacheHints();
  d.space();
  d.need(".b64");
  d.out.d = d.destination(0, Type::B64);
  d.out.run = zeroResult;
}

static constexpr DecodeEntry entries[] = {
    {"ld", decodeLoad},
    {"ldu", decodeLoad},
    {"st", decodeStore},
    {"prefetch", decodeHint},
    {"prefetchu", decodeHint},
    {"discard", decodeHint},
    {"applypriority", decodeHint},
    {"createpolicy", decodePolicy},
};
const DecodeTable moe::gpu::memoryInstructions = tableOf(entries);
