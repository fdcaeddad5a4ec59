//===- global_access.cpp - Accesses to global memory ----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Their order, and what is said where it is missing.
//
//===----------------------------------------------------------------------===//

#include "machine.h"

#include <algorithm>

using namespace moe::gpu;

/// Names an agent of the machine.
std::string Machine::accessorName(uint32_t cluster, Epoch epoch) const {
  const Launch &launch = *launches[globalRaces.launchOf(cluster)];
  const LaunchConfig &config = launch.config;
  uint32_t number = cluster - launch.firstCluster;
  uint32_t warps =
      (config.block[0] * config.block[1] * config.block[2] + 31) / 32;
  uint32_t each = Block::agentsOf(warps), in = epoch.agent() % each;
  std::string name = in < warps ? text("warp ", in)
                     : in < 2 * warps
                         ? text("a bulk copy of warp ", in - warps)
                         : text("a bulk store of warp ", in - 2 * warps);
  name += config.clusterSize() > 1
              ? text(" of block ", epoch.agent() / each, " of cluster ", number)
              : text(" of block ", number);
  if (launches.size() > 1)
    name += text(" of kernel '", config.function->name, "', launch ",
                 launch.number);
  return name;
}

void Machine::noteGlobal(const Warp &warp, uint32_t lane, Epoch by,
                         GlobalShadow &shadow, uint64_t offset, uint64_t bytes,
                         Access kind, uint8_t order, bool async,
                         const uint8_t *storage) {
  bool reads = kind == Access::Read || kind == Access::Copy;
  Launch &launch = *warp.block->cluster->launch;
  (kind == Access::Read   ? launch.bytesRead
   : kind == Access::Copy ? launch.bytesCopied
                          : launch.bytesWritten) += bytes;
  if ((kind == Access::Read || kind == Access::Atomic) &&
      !settings.allowUninitialised)
    if (uint64_t first = shadow.firstUnwritten(offset, bytes);
        first != offset + bytes)
      undefined("reads byte ", first,
                " of an allocation in global memory, "
                "which nobody wrote");
  if (!reads)
    shadow.markWritten(offset, bytes);
  if (!detectRaces || by.time() >= Epoch::maxTime)
    return;
  const Cluster &cluster = *warp.block->cluster;
  GlobalAccess access = {cluster,
                         warp.clock,
                         cluster.number,
                         by.agent(),
                         by.time(),
                         lane,
                         (order & StrongOrder) != 0,
                         async};
  access.equal = settings.allowEqual && storage && kind == Access::Write;
  auto conflict = reads ? globalRaces.read(shadow, offset, bytes, access)
                        : globalRaces.write(shadow, offset, bytes, access);
  if (!conflict)
    return;
  std::string message = describe(*conflict, access, reads);
  if (!access.equal || !conflict->otherWrites)
    undefined(message);
  expectEqual(storage, bytes, std::move(message));
}

std::string Machine::describe(const GlobalRaces::Conflict &conflict,
                              const GlobalAccess &access, bool reads) const {
  const GlobalRecord &other = conflict.other;
  std::string theirs = accessorName(other.cluster, other.epoch);
  if (conflict.unseen)
    return text("reads byte ", conflict.word * 4,
                " of an allocation through the asynchronous proxy, but ",
                theirs,
                " wrote it through the generic proxy, and there is no "
                "fence.proxy.async in between");
  std::string mine =
      accessorName(access.cluster, Epoch::of(access.agent, access.time));
  if (other.cluster == access.cluster && other.epoch.agent() == access.agent) {
    theirs = text("lane ", uint32_t(other.lane), " of its warp");
    mine = text("lane ", access.lane);
  }
  const char *hint = globalRaces.launchOf(other.cluster) !=
                             globalRaces.launchOf(access.cluster)
                         ? ": griddepcontrol.wait has to come before"
                         : "";
  return text("data race: ", mine, reads ? " reads" : " writes", " byte ",
              conflict.word * 4, " of an allocation in global memory, which ",
              theirs, conflict.otherWrites ? " writes" : " reads",
              " too, and nothing orders the two", hint);
}

bool moe::gpu::wasFenced(const Cluster &cluster, GlobalRecord write) {
  uint32_t each = cluster.blocks.front()->agents();
  const Block &block = *cluster.blocks[write.epoch.agent() / each];
  const Warp &warp = block.warps[write.epoch.agent() % each];
  return write.epoch.time() <= warp.proxyFences[write.lane];
}

void Machine::noteBulk(const Warp &warp, Epoch by, uint64_t address,
                       uint64_t bytes, Access kind, bool reduction) {
  if (const DeviceMemory::Allocation *allocation = memory.find(address))
    noteGlobal(warp, 0, by, *allocation->shadow, address - allocation->address,
               bytes, kind, static_cast<uint8_t>(reduction ? StrongOrder : 0),
               true);
}

/// A strong access to global memory, with the scope of the device.
void Thread::synchronise(uint64_t address, Access kind, uint8_t order) {
  GlobalRaces &races = block->machine->globalRaces;
  uint32_t self = block->cluster->number;
  if (kind != Access::Write)
    races.learn(address, order & AcquireOrder ? warp->clock : warp->read, self);
  if (kind == Access::Read)
    return;
  // Another cluster does not distinguish between the lanes.
  warp->clock.raiseProxied(
      warp->agent,
      *std::max_element(warp->proxyFences, warp->proxyFences + 32));
  races.publish(address, warp->clock, self, order & ReleaseOrder,
                kind == Access::Atomic);
  warp->clock.tick(warp->agent);
}

/// Gives up the time slice of a thread that polls without any effect.
void Thread::notePoll(uint64_t address, Access kind) {
  Machine &machine = *block->machine;
  if (kind == Access::Write || address != polled ||
      machine.effects != pollEffects) {
    polled = kind == Access::Write ? 0 : address;
    pollEffects = machine.effects;
    polls = 0;
    return;
  }
  if (++polls > 64)
    machine.interrupt();
}
