//===- op_copy.cpp - cp.async ---------------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// PTX ISA 9.7.9.25.3 "Non-bulk copy".
//
//===----------------------------------------------------------------------===//

#include "bulk.h"
#include "isa/ops.h"
#include "machine/memory/mbarrier.h"

using namespace moe::gpu;
using syntax::Operand;

namespace {

/// Returns whether an asynchronous operation takes effect at its issue.
bool atOnce(Machine &machine) {
  return machine.settings.immediate() ||
         (machine.settings.random() && machine.random.below(2) == 0);
}

/// Resolves an address in shared memory of the executing CTA.
SharedLocation ownLocation(Thread &thread, uint64_t address, uint32_t bytes) {
  SharedLocation location =
      thread.machine().sharedLocation(address, bytes, *thread.block);
  if (location.block != thread.block)
    fail(CUDA_ERROR_INVALID_ADDRESS_SPACE, "address ", Hex{address},
         " is of another block of the cluster");
  return location;
}

// a, offset: the destination as set by setAddress; b, data: base and offset of
// the source; c: src-size, or 0; flags: 2 cp-size, 3 c is the predicate
// ignore-src.

Step copy(Thread &thread, const Instruction &i) {
  uint32_t bytes = i.flags[2], sourceBytes = bytes;
  if (i.c)
    sourceBytes = i.flags[3] ? (thread.get<uint32_t>(i.c) ? 0 : bytes)
                             : thread.get<uint32_t>(i.c);
  if (sourceBytes > bytes)
    undefined("the source has ", sourceBytes, " bytes, the copy ", bytes);
  uint64_t to = thread.effective(i);
  uint64_t from = thread.get<uint64_t>(i.b) +
                  static_cast<uint64_t>(*static_cast<const int64_t *>(i.data));
  if (to % bytes != 0 || from % bytes != 0)
    fail(CUDA_ERROR_MISALIGNED_ADDRESS, "copies ", bytes, " bytes from ",
         Hex{from}, " to ", Hex{to});
  SharedLocation location = ownLocation(thread, to, bytes);
  Machine &machine = thread.machine();
  if (sourceBytes != 0) {
    const Launch::Site &site = machine.globalSite(thread, from, sourceBytes, i);
    const Warp &warp = *thread.warp;
    Epoch now =
        Epoch::of(warp.agent, std::min(warp.clock[warp.agent], Epoch::maxTime));
    // What nobody wrote may be copied, as tiles are beyond their rows.
    machine.noteGlobal(warp, thread.lane, now, *site.shadow, from - site.begin,
                       sourceBytes, Access::Copy, 0, false);
  }
  ++machine.effects;
  thread.copies().issue(
      thread,
      {location.block, location.offset, from, bytes, sourceBytes, false},
      atOnce(machine));
  return Step::Go;
}

Step commit(Thread &thread, const Instruction &) {
  thread.copies().commit();
  return Step::Go;
}

Step waitGroup(Thread &thread, const Instruction &i) {
  thread.copies().wait(thread, static_cast<uint64_t>(i.offset));
  return Step::Go;
}

Step waitAll(Thread &thread, const Instruction &) {
  thread.copies().waitAll(thread);
  return Step::Go;
}

/// cp.async.mbarrier.arrive: an arrival when the copies issued so far have
/// completed; flags[2]: .noinc, which does not increment the pending count.
Step arriveAfter(Thread &thread, const Instruction &i) {
  Machine &machine = thread.machine();
  uint64_t address = thread.effective(i);
  if (static_cast<Space>(i.flags[1]) == Space::Generic)
    address -= windows().shared;
  SharedLocation location = ownLocation(thread, address, 8);
  checkInitialised(thread, *location.block, location.offset);
  BarrierState state = readBarrier(*location.block, location.offset);
  if (!i.flags[2]) {
    if (state.pending == maxBarrierCount)
      undefined("more pending arrivals than an mbarrier can count");
    ++state.pending;
    writeBarrier(*location.block, location.offset, state);
  }
  uint64_t count = thread.copies().issued();
  machine.startCopy({&thread, &i, nullptr, location.block, location.block,
                     location.offset, [&thread, location, count] {
                       thread.copies().finish(thread, count);
                       thread.warp->release(
                           barrierClock(*location.block, location.offset));
                       arriveAtMbarrier(*location.block, location.offset, 1, 0);
                     }});
  return Step::Go;
}

} // namespace

static void decodeCopy(Decoder &d) {
  bool all = d.has(".ca");
  if (!all)
    d.need(".cg");
  d.need(".global");
  Space to = d.space();
  d.ignoreCacheHints();
  if (to != Space::Shared)
    d.error("the destination must be in .shared");
  d.expectOperands(3, 5);
  int64_t bytes = d.immediate(2);
  if (bytes != 16 && (!all || (bytes != 4 && bytes != 8)))
    d.error("copies of ", bytes, " bytes are not possible");
  d.out.flags[2] = static_cast<uint8_t>(bytes);
  Decoder::Address from = d.address(1, Space::Global);
  d.out.b = from.base ? from.base : d.constant(0, 64);
  d.out.data = d.own(std::make_unique<int64_t>(from.offset));
  d.setAddress(d.address(size_t(0), to));
  d.out.site = d.newSite();
  if (d.operands() > 3) {
    const Operand &size = d.operand(3);
    bool wide = d.registerBits(size) == 64;
    if (d.registerBits(size) == 1) {
      d.out.flags[3] = 1;
      d.out.c = d.predicate(size);
    } else if (!wide) {
      d.out.c = d.source(size, Type::U32);
    }
  }
  d.out.run = copy;
}

static void decodeCp(Decoder &d) {
  if (d.has(".reduce")) {
    d.need(".async");
    d.need(".bulk");
    return decodeBulk(d, true);
  }
  d.need(".async");
  if (d.has(".bulk"))
    return decodeBulk(d, false);
  if (d.has(".commit_group")) {
    d.expectOperands(0, 0);
    d.out.run = commit;
  } else if (d.has(".wait_group")) {
    d.expectOperands(1, 1);
    d.out.offset = d.immediate(0);
    d.out.run = waitGroup;
  } else if (d.has(".wait_all")) {
    d.expectOperands(0, 0);
    d.out.run = waitAll;
  } else if (d.has(".mbarrier")) {
    d.need(".arrive");
    d.out.flags[2] = d.has(".noinc");
    Space space = d.space();
    d.need(".b64");
    d.expectOperands(1, 1);
    d.setAddress(d.address(size_t(0), space));
    d.out.run = arriveAfter;
  } else {
    decodeCopy(d);
  }
}

static constexpr DecodeEntry entries[] = {{"cp", decodeCp}};
const DecodeTable moe::gpu::copyInstructions = tableOf(entries);
