//===- op_barrier.cpp - Barriers, fences and register budgets -------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// PTX ISA 9.7.13.1 "barrier", 9.7.13.2 "bar.warp.sync", 9.7.13.3
// "barrier.cluster", 9.7.13.4 "membar/fence" and 9.7.19.5 "setmaxnreg".
//
//===----------------------------------------------------------------------===//

#include "isa/ops.h"

using namespace moe::gpu;
using syntax::Operand;

//===----------------------------------------------------------------------===//
// Barriers of a thread block
//===----------------------------------------------------------------------===//

/// The arrival of all live threads of a warp counts as that of the whole warp.
void Block::arriveAtBarrier(Warp &warp, uint32_t index) {
  Warp::BarrierArrival arrival = warp.barriers[index];
  warp.barriers[index] = Warp::BarrierArrival();
  Barrier &barrier = barriers[index];
  ++machine->effects;
  uint64_t bit = uint64_t(1) << warp.index;
  if (!barrier.active) {
    barrier.active = true;
    barrier.index = index;
    barrier.expected = arrival.expected;
  }
  if (barrier.expected != arrival.expected)
    undefined("barrier ", index, " is used with ", arrival.expected,
              " threads while warps wait with ", barrier.expected,
              " (0 is all)");
  if (barrier.warps & bit)
    undefined("warp ", warp.index, " arrives twice at barrier ", index,
              " before it completes");
  barrier.warps |= bit;
  if (arrival.waits)
    barrier.waiting |= bit;
  barrier.arrived += 32;
  barrier.threads += static_cast<uint32_t>(__builtin_popcount(arrival.arrived));
  barrier.holds += static_cast<uint32_t>(__builtin_popcount(arrival.holds));
  if (barrier.expected != 0 && barrier.arrived > barrier.expected)
    undefined("more threads arrive at barrier ", index, " than the ",
              barrier.expected, " that it is for");
  warp.release(barrier.clock);
  // Release the threads of a .arrive, which waited for the rest of their warp.
  for (uint32_t lanes = arrival.waits ? 0 : arrival.arrived; lanes;
       lanes &= lanes - 1)
    machine->makeReady(warp.threads[__builtin_ctz(lanes)]);
  if (complete(barrier))
    release(barrier);
}

namespace {

// flags: 0 it waits, 1 BarrierReduction, 2 aligned, 3 negated predicate.
// a: the barrier, b: the threads or 0, c: the predicate of .red.

Step barrier(Thread &thread, const Instruction &i) {
  Machine &machine = thread.machine();
  Warp &warp = *thread.warp;
  uint32_t index = thread.get<uint32_t>(i.a);
  uint32_t expected = i.b ? thread.get<uint32_t>(i.b) : 0;
  if (index >= 16)
    undefined("barrier ", index, " does not exist");
  if (i.b && (expected == 0 || expected % 32 != 0))
    undefined("a barrier of ", expected,
              " threads, which is no multiple of the warp size");
  Warp::BarrierArrival &arrival = warp.barriers[index];
  if (arrival.arrived == 0) {
    arrival.at = &i;
    arrival.expected = expected;
    arrival.waits = i.flags[0];
  } else if (i.flags[2] && arrival.at != &i) {
    undefined("an aligned barrier, but lanes ", Hex{arrival.arrived},
              " of the warp are at ", machine.where(thread, *arrival.at));
  } else if (arrival.expected != expected ||
             arrival.waits != (i.flags[0] != 0)) {
    undefined("threads of one warp use barrier ", index, " differently");
  }
  uint32_t bit = 1u << thread.lane;
  arrival.arrived |= bit;
  if (i.flags[1] && (thread.get<uint32_t>(i.c) != 0) != (i.flags[3] != 0))
    arrival.holds |= bit;
  // A warp arrives as a unit: even at .arrive, its threads wait for each other.
  thread.waitOffset = index;
  machine.wait(thread, i, State::Barrier);
  if (arrival.arrived == warp.live())
    thread.block->arriveAtBarrier(warp, index);
  return Step::Stop;
}

void nothingTogether(Warp &, const Instruction &, uint32_t) {}

Step warpSync(Thread &thread, const Instruction &i) {
  return thread.warp->arrive(thread, i, thread.get<uint32_t>(i.a),
                             nothingTogether);
}

//===----------------------------------------------------------------------===//
// Barriers of a cluster
//===----------------------------------------------------------------------===//

Step clusterArriveOne(Thread &thread) {
  Cluster &cluster = *thread.block->cluster;
  if (thread.clusterArrived)
    undefined("barrier.cluster.arrive twice without a wait");
  thread.clusterArrived = true;
  thread.clusterPhase = cluster.phase;
  thread.warp->release(cluster.barrierClock);
  ++cluster.arrived;
  ++thread.machine().effects;
  cluster.completeIfAll();
  return Step::Go;
}

void clusterArriveAll(Warp &warp, const Instruction &, uint32_t members) {
  for (; members; members &= members - 1)
    clusterArriveOne(warp.threads[__builtin_ctz(members)]);
}

// flags[0]: aligned.
Step clusterArrive(Thread &thread, const Instruction &i) {
  if (i.flags[0])
    return thread.warp->arrive(thread, i, thread.warp->live(),
                               clusterArriveAll);
  return clusterArriveOne(thread);
}

Step clusterWait(Thread &thread, const Instruction &i) {
  Cluster &cluster = *thread.block->cluster;
  if (!thread.clusterArrived)
    undefined("barrier.cluster.wait without an arrival");
  if (cluster.phase == thread.clusterPhase)
    return thread.machine().wait(thread, i, State::Cluster);
  thread.clusterArrived = false;
  thread.warp->acquire(cluster.barrierClock);
  return Step::Go;
}

//===----------------------------------------------------------------------===//
// Fences
//===----------------------------------------------------------------------===//

// flags[3]: Order.
Step fence(Thread &thread, const Instruction &i) {
  // Execution is sequentially consistent: a fence concerns only race detection.
  Warp &warp = *thread.warp;
  Clock &order = thread.block->cluster->strongClock;
  warp.acquire(order);
  if (i.flags[3] & DeviceScope) {
    if (i.flags[3] & AcquireOrder)
      warp.clock.join(warp.read);
    if (i.flags[3] & ReleaseOrder)
      warp.clock.fence();
  }
  warp.release(order);
  return Step::Go;
}

// flags: 0 of shared memory, 1 of global memory.
Step fenceProxy(Thread &thread, const Instruction &i) {
  if (i.flags[0]) {
    ++thread.proxyFences;
    thread.warp->fence();
  }
  if (i.flags[1])
    thread.warp->fenceGlobal(thread.lane);
  return Step::Go;
}

Step fenceInit(Thread &thread, const Instruction &) {
  ++thread.initFences;
  return Step::Go;
}

Step nothing(Thread &, const Instruction &) { return Step::Go; }

//===----------------------------------------------------------------------===//
// setmaxnreg
//===----------------------------------------------------------------------===//

// offset: registers for each thread; flags[0]: .inc.

void setRegisters(Warp &warp, const Instruction &i, uint32_t) {
  Block &block = *warp.block;
  uint32_t wanted = static_cast<uint32_t>(i.offset);
  uint32_t &have = block.registersPerThread[warp.index];
  const char *name = i.flags[0] ? "inc" : "dec";
  if (i.flags[0] ? wanted < have : wanted > have)
    undefined("setmaxnreg.", name, " to ", wanted, " registers from ", have);
  if (i.flags[0])
    block.freeRegisters -= 32 * (wanted - have);
  else
    block.freeRegisters += 32 * (have - wanted);
  have = wanted;
  ++block.machine->effects;
}

Step setmaxnreg(Thread &thread, const Instruction &i) {
  Warp &warp = *thread.warp;
  Block &block = *thread.block;
  uint32_t wanted = static_cast<uint32_t>(i.offset);
  uint32_t have = block.registersPerThread[warp.index];
  if (i.flags[0] && wanted > have &&
      int64_t(32) * (wanted - have) > block.freeRegisters)
    return thread.machine().wait(thread, i, State::Registers);
  return warp.arrive(thread, i, warp.exists, setRegisters);
}

} // namespace

//===----------------------------------------------------------------------===//
// Decoding
//===----------------------------------------------------------------------===//

static void decodeClusterBarrier(Decoder &d) {
  bool aligned = d.has(".aligned");
  d.out.flags[0] = aligned;
  d.ordering();
  d.expectOperands(0, 0);
  if (d.has(".arrive")) {
    d.out.run = clusterArrive;
    return;
  }
  d.need(".wait");
  d.out.run = clusterWait;
}

static void decodeBarrier(Decoder &d) {
  bool isBar = d.name() == "bar";
  if (isBar && d.has(".warp")) {
    d.need(".sync");
    d.expectOperands(1, 1);
    d.out.a = d.source(0, Type::B32);
    d.out.run = warpSync;
    return;
  }
  if (d.has(".cluster"))
    return decodeClusterBarrier(d);
  d.has(".cta");
  // "bar" is "barrier.cta" with .aligned.
  d.out.flags[2] = d.has(".aligned") || isBar;
  d.has(".all");
  bool red = d.has(".red");
  bool arrive = d.has(".arrive");
  if (!red && !arrive)
    d.need(".sync");
  d.out.flags[0] = !arrive;
  size_t at = 0;
  if (red) {
    BarrierReduction reduction = d.has(".and")  ? BarrierReduction::And
                                 : d.has(".or") ? BarrierReduction::Or
                                                : BarrierReduction::Count;
    d.out.flags[1] = static_cast<uint8_t>(reduction);
    if (reduction == BarrierReduction::Count) {
      d.need(".popc");
      d.need(".u32");
      d.out.d = d.destination(0, Type::U32);
    } else {
      d.need(".pred");
      d.out.d = d.predicate(d.operand(0));
    }
    at = 1;
    d.out.c = d.predicate(d.operand(d.operands() - 1), &d.out.flags[3]);
  }
  d.expectOperands(at + 1 + red, at + 2 + red);
  d.out.a = d.source(at, Type::U32);
  if (d.operands() == at + 2 + red)
    d.out.b = d.source(at + 1, Type::U32);
  else if (arrive)
    d.error("an arrival needs the number of threads");
  d.out.run = barrier;
}

static void decodeFence(Decoder &d) {
  if (d.has(".mbarrier_init")) {
    d.need(".release");
    d.need(".cluster");
    d.out.run = fenceInit;
    return;
  }
  if (std::optional<std::string_view> proxy = d.startingWith(".proxy")) {
    if (*proxy == "") {
      bool async = d.has(".async");
      if (async) {
        Space space = d.space();
        d.out.flags[0] = space != Space::Global;
        d.out.flags[1] = space == Space::Global || space == Space::Generic;
      } else {
        // .alias and .tensormap need no action: memory is always coherent here.
        d.has(".alias");
        while (d.startingWith(".tensormap"))
          ;
        d.ordering();
      }
      d.out.run = async ? fenceProxy : nothing;
    }
    return;
  }
  d.out.flags[3] = d.ordering();
  d.startingWith(".sync_restrict");
  d.expectOperands(0, 0);
  d.out.run = fence;
}

static void decodeMembar(Decoder &d) {
  if (d.startingWith(".proxy")) {
    d.has(".alias");
    d.out.run = nothing;
    return;
  }
  bool block = d.has(".cta");
  if (!block && !d.has(".gl"))
    d.need(".sys");
  d.out.flags[3] = StrongOrder | AcquireOrder | ReleaseOrder;
  if (!block)
    d.out.flags[3] |= DeviceScope;
  d.out.run = fence;
}

static void decodeSetmaxnreg(Decoder &d) {
  d.out.flags[0] = d.has(".inc");
  if (!d.out.flags[0])
    d.need(".dec");
  d.need(".sync");
  d.need(".aligned");
  d.need(".u32");
  d.expectOperands(1, 1);
  int64_t count = d.immediate(0);
  if (count < 24 || count > 256 || count % 8 != 0)
    d.error("the number of registers must be a multiple of 8 from 24 to 256");
  if (!d.function.source.entry || (d.function.source.maxThreads[0] == 0 &&
                                   d.function.source.requiredThreads[0] == 0 &&
                                   d.function.source.maxRegisters == 0))
    d.error("setmaxnreg without launch bounds is ignored by ptxas");
  d.out.offset = count;
  d.out.run = setmaxnreg;
}

static constexpr DecodeEntry entries[] = {
    {"bar", decodeBarrier},           {"barrier", decodeBarrier},
    {"fence", decodeFence},           {"membar", decodeMembar},
    {"setmaxnreg", decodeSetmaxnreg},
};
const DecodeTable moe::gpu::barrierInstructions = tableOf(entries);
