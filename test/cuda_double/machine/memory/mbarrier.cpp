//===- mbarrier.cpp - mbarrier objects ------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "mbarrier.h"
#include "machine/machine.h"
#include "ptx/decoder.h"

using namespace moe::gpu;

BarrierState BarrierState::unpack(uint64_t bits) {
  BarrierState state;
  state.expected = bits & maxBarrierCount;
  state.pending = bits >> 20 & maxBarrierCount;
  // Sign-extend the 21 bits of the tx-count.
  state.bytes =
      static_cast<int32_t>(static_cast<uint32_t>(bits >> 40) << 11) >> 11;
  state.parity = bits >> 63;
  return state;
}

uint64_t BarrierState::pack() const {
  return uint64_t(expected) | uint64_t(pending) << 20 |
         (uint64_t(static_cast<uint32_t>(bytes)) & 0x1FFFFF) << 40 |
         uint64_t(parity) << 63;
}

BarrierState moe::gpu::readBarrier(Block &block, uint32_t offset) {
  if (!block.shared.isBarrier(offset))
    undefined("there is no mbarrier object in shared memory at offset ",
              offset);
  uint64_t bits;
  std::memcpy(&bits, block.shared.data(offset), 8);
  return BarrierState::unpack(bits);
}

void moe::gpu::writeBarrier(Block &block, uint32_t offset,
                            const BarrierState &state) {
  uint64_t bits = state.pack();
  std::memcpy(block.shared.data(offset), &bits, 8);
  ++block.machine->effects;
}

bool moe::gpu::barrierParity(Block &block, uint32_t offset) {
  // Bit 63 is the parity. The object exists, since a thread waits for it.
  return *block.shared.data(offset + 7) >> 7;
}

std::string moe::gpu::describeBarrier(Block &block, uint32_t offset) {
  if (!block.shared.isBarrier(offset))
    return "which is gone";
  BarrierState state = readBarrier(block, offset);
  return text("its phase has parity ", state.parity, ", ", state.pending,
              " of ", state.expected, " arrivals and ", state.bytes,
              " bytes pending");
}

Clock &moe::gpu::barrierClock(Block &block, uint32_t offset) {
  auto [entry, added] = block.mbarriers.try_emplace(offset);
  if (added)
    entry->second.clock = Clock(block.agents() * block.cluster->blocks.size());
  return entry->second.clock;
}

void moe::gpu::initBarrier(Thread &thread, Block &block, uint32_t offset,
                           uint32_t count) {
  if (count < 1 || count > maxBarrierCount)
    undefined("mbarrier.init with a count of ", count);
  if (block.shared.isBarrier(offset))
    undefined("mbarrier.init of an object that is valid: mbarrier.inval is "
              "missing");
  block.shared.initBarrier(thread, offset);
  BarrierState state;
  state.expected = state.pending = count;
  writeBarrier(block, offset, state);
  Warp &warp = *thread.warp;
  uint32_t time = std::min(warp.clock[warp.agent], Epoch::maxTime);
  warp.release(barrierClock(block, offset));
  block.mbarriers[offset].initialised = Epoch::of(warp.agent, time);
}

void moe::gpu::checkInitialised(const Thread &thread, Block &block,
                                uint32_t offset) {
  readBarrier(block, offset);
  Epoch initialised = block.mbarriers[offset].initialised;
  if (!block.machine->settings.allowRaces &&
      initialised.agent() != thread.warp->agent &&
      !initialised.before(thread.warp->clock))
    undefined("data race: the mbarrier object at offset ", offset,
              " was initialised by another warp, and nothing orders that and "
              "its use");
}

uint64_t moe::gpu::arriveAtMbarrier(Block &block, uint32_t offset,
                                    uint32_t arrivals, int64_t expectBytes,
                                    bool mayComplete) {
  BarrierState state = readBarrier(block, offset);
  uint64_t before = state.pack();
  int64_t bytes = state.bytes + expectBytes;
  if (bytes > maxBarrierCount || bytes < -int64_t(maxBarrierCount))
    undefined("the tx-count of the mbarrier at offset ", offset, " becomes ",
              bytes);
  if (arrivals > state.pending)
    undefined("more arrivals at the mbarrier at offset ", offset,
              " than its phase expects (", state.expected, ")");
  state.bytes = static_cast<int32_t>(bytes);
  state.pending -= arrivals;
  if (state.pending == 0 && state.bytes == 0) {
    if (!mayComplete)
      undefined("an arrival with .noComplete completes the phase");
    state.pending = state.expected;
    state.parity = !state.parity;
  }
  writeBarrier(block, offset, state);
  return before;
}

//===----------------------------------------------------------------------===//
// Instructions
//===----------------------------------------------------------------------===//

/// Resolves the operand [a] of an instruction.
static SharedLocation locate(Thread &thread, const Instruction &i) {
  uint64_t address = thread.effective(i);
  auto space = static_cast<Space>(i.flags[1]);
  if (space == Space::Generic) {
    address -= windows().shared;
    if (address >= GenericWindows::sharedBytes)
      fail(CUDA_ERROR_INVALID_ADDRESS_SPACE,
           "the mbarrier is not in shared memory");
  }
  if (address % 8 != 0)
    fail(CUDA_ERROR_MISALIGNED_ADDRESS, "the mbarrier at ", Hex{address},
         " is not aligned to 8 bytes");
  SharedLocation result =
      thread.machine().sharedLocation(address, 8, *thread.block);
  if (result.block != thread.block && space == Space::Shared)
    fail(CUDA_ERROR_INVALID_ADDRESS_SPACE,
         "the mbarrier is in another block, but the space is .shared::cta");
  if (result.block != thread.block)
    result.block->noteVisit(thread.warp->agent,
                            thread.warp->clock[thread.warp->agent]);
  return result;
}

/// Resolves the operand [a] of an instruction that needs an initialised object.
static SharedLocation object(Thread &thread, const Instruction &i) {
  SharedLocation at = locate(thread, i);
  checkInitialised(thread, *at.block, at.offset);
  return at;
}

static Step runInit(Thread &thread, const Instruction &i) {
  SharedLocation at = locate(thread, i);
  initBarrier(thread, *at.block, at.offset, thread.get<uint32_t>(i.b));
  return Step::Go;
}

static Step runInval(Thread &thread, const Instruction &i) {
  SharedLocation at = object(thread, i);
  at.block->shared.invalidateBarrier(at.offset);
  at.block->mbarriers.erase(at.offset);
  return Step::Go;
}

enum ArriveFlags : uint8_t { ExpectTx = 1, NoComplete = 2, Drop = 4 };

static Step runArrive(Thread &thread, const Instruction &i) {
  SharedLocation at = object(thread, i);
  uint8_t flags = i.flags[2];
  uint32_t count = i.b ? thread.get<uint32_t>(i.b) : 1;
  uint32_t arrivals = flags & ExpectTx ? 1 : count;
  if (arrivals < 1 || arrivals > maxBarrierCount)
    undefined("an arrival with a count of ", arrivals);
  Clock &clock = barrierClock(*at.block, at.offset);
  thread.warp->release(clock);
  if (flags & Drop) {
    BarrierState state = readBarrier(*at.block, at.offset);
    if (state.expected < arrivals)
      undefined("arrive_drop of more than the mbarrier expects");
    state.expected -= arrivals;
    writeBarrier(*at.block, at.offset, state);
  }
  uint64_t before = arriveAtMbarrier(*at.block, at.offset, arrivals,
                                     flags & ExpectTx ? int64_t(count) : 0,
                                     !(flags & NoComplete));
  if (i.d)
    thread.set<uint64_t>(i.d, before);
  return Step::Go;
}

/// expect_tx and complete_tx, which change the tx-count without an arrival.
static Step runBytes(Thread &thread, const Instruction &i) {
  SharedLocation at = object(thread, i);
  int64_t bytes = thread.get<uint32_t>(i.b);
  arriveAtMbarrier(*at.block, at.offset, 0, i.flags[2] ? -bytes : bytes);
  return Step::Go;
}

enum WaitFlags : uint8_t { Parity = 1, MayBlock = 2 };

static Step runWait(Thread &thread, const Instruction &i) {
  SharedLocation at = object(thread, i);
  if (at.block != thread.block)
    undefined("waits for an mbarrier of another block");
  bool parity = i.flags[2] & Parity
                    ? thread.get<uint32_t>(i.b) & 1
                    : BarrierState::unpack(thread.get<uint64_t>(i.b)).parity;
  bool done = barrierParity(*at.block, at.offset) != parity;
  if (done) {
    thread.warp->acquire(barrierClock(*at.block, at.offset));
    thread.failedWait = nullptr;
    thread.set<uint32_t>(i.d, 1);
    return Step::Go;
  }
  // The first try_wait returns false, as the ISA allows, to detect kernels
  // that do not loop.
  if (i.flags[2] & MayBlock && thread.failedWait == &i) {
    thread.waitBlock = at.block;
    thread.waitOffset = at.offset;
    thread.waitParity = parity;
    return thread.machine().wait(thread, i, State::Mbarrier);
  }
  thread.failedWait = &i;
  thread.set<uint32_t>(i.d, 0);
  return thread.machine().yield();
}

static Step runPendingCount(Thread &thread, const Instruction &i) {
  thread.set<uint32_t>(i.d,
                       BarrierState::unpack(thread.get<uint64_t>(i.a)).pending);
  return Step::Go;
}

static void decodeMbarrier(Decoder &d) {
  d.ordering();
  Space space = Space::Generic;
  size_t address = 0;
  auto finishAddress = [&] {
    space = d.space();
    d.need(".b64");
    d.setAddress(d.address(address, space));
  };
  if (d.has(".init")) {
    finishAddress();
    d.expectOperands(2, 2);
    d.out.b = d.source(1, Type::U32);
    d.out.run = runInit;
  } else if (d.has(".inval")) {
    finishAddress();
    d.expectOperands(1, 1);
    d.out.run = runInval;
  } else if (d.has(".pending_count")) {
    d.need(".b64");
    d.expectOperands(2, 2);
    d.out.d = d.destination(0, Type::U32);
    d.out.a = d.source(1, Type::B64);
    d.out.run = runPendingCount;
  } else if (bool drop = d.has(".arrive_drop"); drop || d.has(".arrive")) {
    uint8_t &flags = d.out.flags[2];
    flags |= drop ? Drop : 0;
    flags |= d.has(".expect_tx") ? ExpectTx : 0;
    flags |= d.has(".noComplete") ? NoComplete : 0;
    // An arrival at a remote mbarrier returns no state.
    bool result = d.operand(0).kind != syntax::Operand::Kind::Address;
    if (result) {
      d.out.d = d.destination(0, Type::B64);
      address = 1;
    }
    finishAddress();
    d.expectOperands(address + 1, address + 2);
    if (d.operands() == address + 2)
      d.out.b = d.source(address + 1, Type::U32);
    else if (flags & ExpectTx)
      d.error("expect_tx without a count");
    d.out.run = runArrive;
  } else if (bool complete = d.has(".complete_tx");
             complete || d.has(".expect_tx")) {
    d.out.flags[2] = complete;
    finishAddress();
    d.expectOperands(2, 2);
    d.out.b = d.source(1, Type::U32);
    d.out.run = runBytes;
  } else if (bool blocks = d.has(".try_wait"); blocks || d.has(".test_wait")) {
    bool parity = d.has(".parity");
    d.out.flags[2] = (parity ? Parity : 0) | (blocks ? MayBlock : 0);
    address = 1;
    finishAddress();
    d.expectOperands(3, blocks ? 4 : 3);
    d.out.d = d.predicate(d.operand(0));
    d.out.b = d.source(2, parity ? Type::U32 : Type::B64);
    d.out.run = runWait;
  } else {
    d.error("unknown operation on an mbarrier");
  }
}

static constexpr DecodeEntry entries[] = {{"mbarrier", decodeMbarrier}};
const DecodeTable moe::gpu::mbarrierInstructions = tableOf(entries);
