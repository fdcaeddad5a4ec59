//===- thread.cpp - Frames, memory accesses, collectives and barriers -----===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "machine.h"

#include <algorithm>

using namespace moe::gpu;

//===----------------------------------------------------------------------===//
// Frames
//===----------------------------------------------------------------------===//

uint64_t Machine::specialValue(const Thread &thread,
                               const SpecialUse &use) const {
  const Block &block = *thread.block;
  const Cluster &cluster = *block.cluster;
  const LaunchConfig &config = thread.launch().config;
  const SharedLayout &layout = thread.launch().layout;
  const uint32_t *size = config.cluster;
  auto axis = [&](Special first) {
    return static_cast<int>(use.which) - static_cast<int>(first);
  };
  switch (use.which) {
  case Special::TidX:
  case Special::TidY:
  case Special::TidZ:
    return thread.tid[axis(Special::TidX)];
  case Special::NtidX:
  case Special::NtidY:
  case Special::NtidZ:
    return config.block[axis(Special::NtidX)];
  case Special::CtaidX:
  case Special::CtaidY:
  case Special::CtaidZ:
    return block.id[axis(Special::CtaidX)];
  case Special::NctaidX:
  case Special::NctaidY:
  case Special::NctaidZ:
    return config.grid[axis(Special::NctaidX)];
  case Special::LaneId:
    return thread.lane;
  case Special::WarpId:
    return thread.index / 32;
  case Special::NwarpId:
    return block.warps.size();
  case Special::SmId:
    return block.multiprocessor;
  case Special::NsmId:
    return static_cast<uint64_t>(settings.multiprocessors);
  case Special::GridId:
    return thread.launch().number;
  case Special::IsExplicitCluster:
    return config.explicitCluster;
  case Special::ClusterIdX:
  case Special::ClusterIdY:
  case Special::ClusterIdZ:
    return cluster.id[axis(Special::ClusterIdX)];
  case Special::NclusterIdX:
  case Special::NclusterIdY:
  case Special::NclusterIdZ: {
    int i = axis(Special::NclusterIdX);
    return config.grid[i] / size[i];
  }
  case Special::ClusterCtaidX:
  case Special::ClusterCtaidY:
  case Special::ClusterCtaidZ: {
    int i = axis(Special::ClusterCtaidX);
    return block.id[i] % size[i];
  }
  case Special::ClusterNctaidX:
  case Special::ClusterNctaidY:
  case Special::ClusterNctaidZ:
    return size[axis(Special::ClusterNctaidX)];
  case Special::ClusterCtarank:
    return block.rank;
  case Special::ClusterNctarank:
    return uint64_t(size[0]) * size[1] * size[2];
  case Special::LanemaskEq:
    return 1u << thread.lane;
  case Special::LanemaskLe:
    return (2u << thread.lane) - 1;
  case Special::LanemaskLt:
    return (1u << thread.lane) - 1;
  case Special::LanemaskGe:
    return ~((1u << thread.lane) - 1);
  case Special::LanemaskGt:
    return ~((2u << thread.lane) - 1);
  case Special::DynamicSmemSize:
    return config.dynamicShared;
  case Special::TotalSmemSize:
    return layout.dynamicAt + config.dynamicShared;
  case Special::LocalBase:
    return thread.localBase;
  case Special::SharedAddress:
    return block.sharedAddress(layout.offsets.at(use.index));
  }
  return 0;
}

void Machine::initFrame(Thread &thread) {
  const Function &function = *thread.function;
  std::copy(function.tail.begin(), function.tail.end(),
            thread.frame + function.registerEnd);
  for (const SpecialUse &use : function.specials)
    thread.set<uint64_t>(use.slot, specialValue(thread, use));
}

Step Machine::call(Thread &thread, const Instruction &i) {
  const CallSite &site = *static_cast<const CallSite *>(i.data);
  const Function &callee = *site.callee;
  if (thread.callers.size() >= 256)
    undefined("calls nest more than 256 deep");
  if (thread.warp->wgmma.inFlightCount != 0)
    undefined("calls a function while a wgmma of its warp is under way");
  Thread::Caller caller = {thread.function,  thread.pc, thread.frame,
                           thread.localBase, &site,     nullptr};
  caller.words.reset(new uint32_t[callee.slots()]);
  std::fill_n(caller.words.get(), callee.slots(), 0xFFFFFFFF);
  uint32_t base = thread.localBase + thread.function->localBytes;
  if (thread.local.size() < base + callee.localBytes)
    thread.local.resize(base + callee.localBytes, 0xFF);
  for (const CallSite::Copy &copy : site.arguments)
    std::memcpy(&thread.local[base + copy.callee],
                &thread.local[thread.localBase + copy.caller], copy.size);
  thread.function = &callee;
  thread.pc = callee.code.data();
  thread.frame = caller.words.get();
  thread.localBase = base;
  thread.callers.push_back(std::move(caller));
  initFrame(thread);
  return Step::Go;
}

Step Machine::back(Thread &thread) {
  if (thread.callers.empty()) {
    exit(thread);
    return Step::Stop;
  }
  Thread::Caller caller = std::move(thread.callers.back());
  thread.callers.pop_back();
  for (const CallSite::Copy &copy : caller.site->results)
    std::memcpy(&thread.local[caller.localBase + copy.caller],
                &thread.local[thread.localBase + copy.callee], copy.size);
  thread.function = caller.function;
  thread.pc = caller.pc;
  thread.frame = caller.frame;
  thread.localBase = caller.localBase;
  return Step::Go;
}

void Machine::exit(Thread &thread) {
  Warp &warp = *thread.warp;
  if (warp.wgmma.inFlightCount != 0)
    undefined("exits while a wgmma of its warp is under way");
  if (thread.bulkQueue && thread.bulkQueue->readsPending())
    undefined("exits while its bulk copies still read shared memory: "
              "cp.async.bulk.wait_group.read is missing");
  uint32_t bit = 1u << thread.lane;
  for (const Warp::Group &group : warp.groups)
    if (group.members & bit)
      undefined("exits, but other threads wait for it at ",
                where(thread, *group.at));
  thread.state = State::Exited;
  warp.exited |= bit;
  warp.ready &= ~bit;
  --thread.block->liveThreads;
  ++effects;
  thread.block->noteExit(thread);
  Block &block = *thread.block;
  if (warp.live() == 0)
    block.end.join(warp.clock);
  if (block.liveThreads != 0)
    return;
  block.finished = true;
  for (const AsyncCopy &copy : pending)
    if (copy.from == &block || copy.to == &block || copy.barrier == &block)
      undefined("its block ends while a bulk copy of it is under way, issued "
                "in ",
                where(*copy.issuer, *copy.at));
  block.checkVisits();
  block.cluster->launch->waitedFor &= block.end.launches;
  trigger(block, block.end.launches);
}

//===----------------------------------------------------------------------===//
// Memory
//===----------------------------------------------------------------------===//

const Launch::Site &Machine::globalSite(const Thread &thread, uint64_t address,
                                        uint64_t bytes, const Instruction &i) {
  Launch::Site &site = thread.block->cluster->launch->sites[i.site];
  if (address >= site.begin && address + bytes <= site.end)
    return site;
  const DeviceMemory::Allocation *allocation = memory.find(address);
  if (!allocation ||
      bytes > allocation->bytes - (address - allocation->address))
    fail(CUDA_ERROR_ILLEGAL_ADDRESS, "accesses ", bytes,
         " bytes of global memory at ", Hex{address}, ": ",
         memory.describe(address));
  site = {allocation->address, allocation->address + allocation->bytes,
          allocation->storage, allocation->shadow.get()};
  return site;
}

void Block::noteVisit(uint32_t agent, uint32_t time) {
  if (visits.empty())
    visits.resize(agents() * cluster->blocks.size());
  visits[agent] = std::max(visits[agent], time);
}

/// Faults if the block ends while others may still access its shared memory.
void Block::checkVisits() const {
  if (machine->settings.allowRaces)
    return;
  for (uint32_t agent = 0; agent < visits.size(); ++agent)
    if (visits[agent] > end[agent])
      undefined("its block ends, and nothing orders that behind an access of ",
                agentName(agent), " to its shared memory");
}

std::string Block::agentName(uint32_t agent) const {
  auto count = static_cast<uint32_t>(warps.size());
  uint32_t each = agents(), in = agent % each;
  std::string name = in < count       ? text("warp ", in)
                     : in < 2 * count ? text("a bulk copy of warp ", in - count)
                     : in < 3 * count
                         ? text("a bulk store of warp ", in - 2 * count)
                         : text("a wgmma of warpgroup ", in - 3 * count);
  return cluster->blocks.size() > 1
             ? text(name, " of block ", agent / each, " of the cluster")
             : name;
}

SharedLocation Machine::sharedLocation(uint64_t address, uint32_t bytes,
                                       const Block &accessor) const {
  uint64_t rank = address >> 24;
  uint64_t offset = (address & 0xFFFFFF) - settings.sharedReserved();
  const auto &blocks = accessor.cluster->blocks;
  if (rank >= blocks.size())
    fail(CUDA_ERROR_ILLEGAL_ADDRESS, "shared memory address ", Hex{address},
         " is of block ", rank, " of a cluster of ", blocks.size());
  Block &block = *blocks[rank];
  if (block.finished)
    undefined("accesses the shared memory of block ", rank,
              " of its cluster, which has ended");
  if (offset + bytes > block.shared.size() || offset > block.shared.size())
    fail(CUDA_ERROR_ILLEGAL_ADDRESS, "accesses ", bytes, " bytes at offset ",
         static_cast<int64_t>(offset), " (address ", Hex{address}, ") of ",
         block.shared.size(), " bytes of shared memory");
  return {&block, static_cast<uint32_t>(offset)};
}

uint64_t Block::sharedAddress(uint32_t offset) const {
  return (uint64_t(rank) << 24) + machine->settings.sharedReserved() + offset;
}

static const char *nameOf(Space space) {
  switch (space) {
  case Space::Shared:
  case Space::SharedCluster:
    return "shared";
  case Space::Local:
    return "local";
  case Space::Param:
    return "parameter";
  default:
    return "global";
  }
}

uint8_t *Thread::access(Space space, uint64_t address, uint32_t bytes,
                        Access kind, const Instruction &i, uint8_t order) {
  if (space == Space::Generic) {
    const GenericWindows &window = windows();
    space = Space::Global;
    if (address - window.shared < GenericWindows::sharedBytes) {
      space = Space::SharedCluster;
      address -= window.shared;
    } else if (address - window.local < GenericWindows::localBytes) {
      space = Space::Local;
      address -= window.local;
    } else if (address - window.param < GenericWindows::paramBytes) {
      space = Space::Param;
      address -= window.param;
    }
  }
  if (address & (bytes - 1))
    fail(CUDA_ERROR_MISALIGNED_ADDRESS, "accesses ", bytes, " bytes of ",
         nameOf(space), " memory at ", Hex{address},
         ", which is not a multiple of that");
  Machine &machine = *block->machine;
  machine.effects += kind == Access::Write;
  if (kind == Access::Atomic)
    order |= StrongOrder;
  bool strong = order & StrongOrder;
  if (strong) {
    Clock &all = block->cluster->strongClock;
    warp->acquire(all);
    warp->release(all);
  }
  switch (space) {
  case Space::Shared:
  case Space::SharedCluster: {
    SharedLocation location = machine.sharedLocation(address, bytes, *block);
    if (space == Space::Shared && location.block != block)
      fail(CUDA_ERROR_INVALID_ADDRESS_SPACE, "address ", Hex{address},
           " is of another block of the cluster, but the access is to "
           ".shared::cta");
    SharedMemory &shared = location.block->shared;
    if (location.block != block)
      location.block->noteVisit(warp->agent, warp->clock[warp->agent]);
    if (kind != Access::Write)
      shared.read(*this, location.offset, bytes, strong);
    if (kind != Access::Read)
      shared.write(*this, location.offset, bytes, strong);
    return shared.data(location.offset);
  }
  case Space::Local:
    if (address + bytes > local.size() || address > local.size())
      fail(CUDA_ERROR_ILLEGAL_ADDRESS, "accesses ", bytes,
           " bytes of local memory at ", address, " of ", local.size());
    return &local[address];
  case Space::Param: {
    const std::vector<uint8_t> &parameters = launch().config.parameters;
    if (kind != Access::Read)
      fail(CUDA_ERROR_ILLEGAL_ADDRESS, "writes a parameter of the kernel");
    if (address + bytes > parameters.size() || address > parameters.size())
      fail(CUDA_ERROR_ILLEGAL_ADDRESS, "accesses ", bytes,
           " bytes of the parameters at ", address, " of ", parameters.size());
    return const_cast<uint8_t *>(&parameters[address]);
  }
  case Space::Const:
    if (kind != Access::Read)
      fail(CUDA_ERROR_ILLEGAL_ADDRESS, "writes constant memory");
    break;
  default:
    break;
  }
  const Launch::Site &site = machine.globalSite(*this, address, bytes, i);
  uint64_t offset = address - site.begin;
  Epoch now = Epoch::of(warp->agent,
                        std::min(warp->clock[warp->agent], Epoch::maxTime));
  machine.noteGlobal(*warp, lane, now, *site.shadow, offset, bytes, kind, order,
                     false, site.storage + offset);
  if (strong) {
    notePoll(address, kind);
    if (order & DeviceScope)
      synchronise(address, kind, order);
  }
  return site.storage + offset;
}

//===----------------------------------------------------------------------===//
// Collective instructions
//===----------------------------------------------------------------------===//

Step Warp::arrive(Thread &thread, const Instruction &i, uint32_t members,
                  Collective execute) {
  Machine &machine = thread.machine();
  uint32_t bit = 1u << thread.lane;
  members &= exists;
  if (!(members & bit))
    undefined("the member mask ", Hex{members}, " does not name lane ",
              uint32_t(thread.lane), ", which executes the instruction");
  if (members & exited)
    undefined("the member mask ", Hex{members}, " names lanes ",
              Hex{members & exited}, ", which have exited");
  Group *mine = nullptr;
  for (Group &group : groups) {
    if (group.at == &i && group.members == members && !(group.arrived & bit)) {
      mine = &group;
      continue;
    }
    // Two lanes wait for each other at different instructions: a deadlock.
    if ((group.members & bit) && (group.arrived & members))
      undefined("lanes ", Hex{group.arrived}, " wait for lane ",
                uint32_t(thread.lane), " with mask ", Hex{group.members},
                " at ", machine.where(thread, *group.at),
                ", but it waits for them here with mask ", Hex{members});
  }
  if (!mine) {
    groups.push_back({&i, members, 0});
    mine = &groups.back();
  }
  mine->arrived |= bit;
  if (mine->arrived != members)
    return machine.wait(thread, i, State::Collective);
  groups.erase(groups.begin() + (mine - groups.data()));
  orderLanes();
  execute(*this, i, members);
  orderLanes();
  for (uint32_t others = members & ~bit; others; others &= others - 1)
    machine.makeReady(threads[__builtin_ctz(others)]);
  return Step::Go;
}

Epoch Warp::startBulk(Clock &after, uint32_t by) {
  uint32_t time = std::min(++bulkTime, Epoch::maxTime);
  after = clock;
  after.set(by, time);
  return Epoch::of(by, time);
}

//===----------------------------------------------------------------------===//
// Barriers of blocks and clusters
//===----------------------------------------------------------------------===//

bool Block::complete(const Barrier &barrier) const {
  if (!barrier.active)
    return false;
  if (barrier.expected != 0)
    return barrier.arrived == barrier.expected;
  for (const Warp &warp : warps)
    if (warp.live() && !(barrier.warps >> warp.index & 1))
      return false;
  return true;
}

void Block::release(Barrier &barrier) {
  ++machine->effects;
  for (Warp &warp : warps) {
    if (!(barrier.waiting >> warp.index & 1))
      continue;
    warp.acquire(barrier.clock);
    for (uint32_t lanes = warp.live(); lanes; lanes &= lanes - 1) {
      Thread &thread = warp.threads[__builtin_ctz(lanes)];
      if (thread.state != State::Barrier || thread.waitOffset != barrier.index)
        continue;
      switch (static_cast<BarrierReduction>(thread.at->flags[1])) {
      case BarrierReduction::None:
        break;
      case BarrierReduction::And:
        thread.set<uint32_t>(thread.at->d, barrier.holds == barrier.threads);
        break;
      case BarrierReduction::Or:
        thread.set<uint32_t>(thread.at->d, barrier.holds != 0);
        break;
      case BarrierReduction::Count:
        thread.set<uint32_t>(thread.at->d, barrier.holds);
        break;
      }
      machine->makeReady(thread);
    }
  }
  uint32_t index = barrier.index;
  Clock clock = barrier.clock;
  barrier = Barrier();
  barrier.index = index;
  barrier.clock = clock;
}

void Block::noteExit(Thread &thread) {
  Warp &warp = *thread.warp;
  // A warp arrives when all its live threads have arrived.
  for (uint32_t i = 0; i < 16; ++i) {
    Warp::BarrierArrival &arrival = warp.barriers[i];
    if (arrival.arrived && arrival.arrived == warp.live())
      arriveAtBarrier(warp, i);
    if (barriers[i].active && complete(barriers[i]))
      release(barriers[i]);
  }
  cluster->noteExit(thread);
}

uint32_t Cluster::liveThreads() const {
  uint32_t count = 0;
  for (const auto &block : blocks)
    count += block->liveThreads;
  return count;
}

void Cluster::completeIfAll() {
  if (arrived == 0 || arrived != liveThreads())
    return;
  arrived = 0;
  ++phase;
  ++blocks[0]->machine->effects;
}

void Cluster::noteExit(Thread &thread) {
  // Withdraw its arrival at a phase that is not complete.
  if (thread.clusterArrived && thread.clusterPhase == phase)
    --arrived;
  completeIfAll();
}
