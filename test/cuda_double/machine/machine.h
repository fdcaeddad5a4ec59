//===- machine.h - Threads, warps, blocks, clusters, a launch ---*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The machine model of PTX ISA 3 with independent threads: each has its own
// program counter and registers and runs until it has to wait. What the ISA
// leaves undefined is a Fault.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CUDA_DOUBLE_MACHINE_H
#define MOE_CUDA_DOUBLE_MACHINE_H

#include "async.h"
#include "device_memory.h"
#include "fault.h"
#include "ptx/program.h"
#include "race.h"
#include "settings.h"
#include "shared_memory.h"

#include <cstring>

namespace moe::gpu {

struct Warp;
struct Block;
struct Cluster;
class Machine;

enum class State : uint8_t {
  Ready,
  Collective, // for the other threads that an instruction needs
  Barrier,    // bar.sync
  Cluster,    // barrier.cluster.wait
  Mbarrier,   // mbarrier.try_wait
  Registers,  // setmaxnreg.inc
  Warpgroup,  // wgmma.wait_group, for the other warps to issue theirs
  Exited,
};

enum class Access : uint8_t { Read, Write, Atomic };

/// flags[1] of an instruction at which threads wait for a barrier.
enum class BarrierReduction : uint8_t { None, And, Or, Count };

struct Thread {
  uint32_t *frame = nullptr;
  const Instruction *pc = nullptr;
  Warp *warp = nullptr;
  Block *block = nullptr;
  const Function *function = nullptr;
  State state = State::Ready;
  uint8_t lane = 0;
  uint8_t carry = 0;  // CC.CF
  uint16_t index = 0; // in its block
  uint32_t tid[3] = {0, 0, 0};
  const Instruction *at = nullptr; // where it waits

  // Local memory and the frames of callers.
  struct Caller {
    const Function *function;
    const Instruction *pc;
    uint32_t *frame;
    uint32_t localBase;
    const CallSite *site;
    std::unique_ptr<uint32_t[]> words; // of the callee's frame
  };
  std::vector<uint8_t> local;
  uint32_t localBase = 0;
  std::vector<Caller> callers;

  // The wait for an mbarrier, and the last one that failed.
  Block *waitBlock = nullptr;
  uint32_t waitOffset = 0;
  bool waitParity = false;
  const Instruction *failedWait = nullptr;

  // barrier.cluster: the phase that it arrived at and has not waited for.
  bool clusterArrived = false;
  uint64_t clusterPhase = 0;

  // fence.proxy.async and fence.mbarrier_init that it executed.
  uint32_t proxyFences = 0, initFences = 0;
  // Most threads copy nothing asynchronously.
  std::unique_ptr<CopyQueue> copyQueue; // cp.async
  std::unique_ptr<BulkQueue> bulkQueue; // cp.async.bulk with bulk groups
  CopyQueue &copies() {
    if (!copyQueue)
      copyQueue = std::make_unique<CopyQueue>();
    return *copyQueue;
  }
  BulkQueue &bulks() {
    if (!bulkQueue)
      bulkQueue = std::make_unique<BulkQueue>();
    return *bulkQueue;
  }

  template <typename T> T get(uint32_t slot) const {
    T value;
    std::memcpy(&value, frame + slot, sizeof(T));
    return value;
  }
  template <typename T> void set(uint32_t slot, T value) {
    std::memcpy(frame + slot, &value, sizeof(T));
  }

  Machine &machine() const;
  /// base + offset as a setAddress of the decoder describes it.
  uint64_t effective(const Instruction &i) const {
    uint64_t base = i.flags[0] ? get<uint32_t>(i.a)
                    : i.a      ? get<uint64_t>(i.a)
                               : 0;
    uint64_t address = base + static_cast<uint64_t>(i.offset);
    return i.flags[0] ? static_cast<uint32_t>(address) : address;
  }
  /// The bytes at an address of a space, after every check and note.
  uint8_t *access(Space space, uint64_t address, uint32_t bytes, Access kind,
                  const Instruction &i, bool strong = false);
};

/// A place in shared memory.
struct SharedPlace {
  Block *block;
  uint32_t offset;
};

struct Warp {
  Block *block = nullptr;
  Thread *threads = nullptr; // of lane 0
  uint32_t index = 0;        // in its block
  uint32_t agent = 0;        // in its cluster, for races
  uint32_t bulkAgent = 0;    // what bulk copies read on its behalf
  uint32_t bulkTime = 0;
  uint32_t exists = 0; // lanes
  uint32_t exited = 0;
  uint32_t ready = 0;
  uint32_t polling = 0; // wait for what the scheduler looks at
  Clock clock;
  Clock fenced; // what a proxy fence of this warp stands behind

  uint32_t live() const { return exists & ~exited; }

  /// Threads that arrived at a collective instruction.
  struct Group {
    const Instruction *at;
    uint32_t members, arrived;
  };
  std::vector<Group> groups;

  /// Carry out an instruction that all `members` have to execute together (PTX
  /// ISA 9.7.13 ".sync" and ".aligned"): the last to arrive does it for all.
  using Collective = void (*)(Warp &, const Instruction &, uint32_t members);
  Step arrive(Thread &thread, const Instruction &i, uint32_t members,
              Collective execute);

  /// Per barrier, the threads that arrived at it and where.
  struct BarrierArrival {
    uint32_t arrived = 0; // lanes
    uint32_t holds = 0;   // lanes whose predicate holds, for barrier.red
    const Instruction *at = nullptr;
    uint32_t expected = 0; // threads; 0 for all
    bool waits = false;    // .sync or .red, not .arrive
  };
  BarrierArrival barriers[16];

  WgmmaQueue wgmma;

  /// An operation with release or acquire semantics at `place`.
  void release(Clock &place) {
    place.join(clock);
    clock.tick(agent);
  }
  void acquire(const Clock &place) { clock.join(place); }
  /// fence.proxy.async of a thread: between all that its warp knows of, and
  /// what the warp starts from now on. (What the warp itself did since its last
  /// release only that thread is sure of, which counts its fences.)
  void fence() {
    fenced.join(clock);
    fenced.set(agent, clock[agent] - 1);
  }
  /// A bulk copy reads from now on; who joins `after` knows that it has ended.
  Epoch startBulkRead(Clock &after);
};

struct Block {
  Machine *machine = nullptr;
  Cluster *cluster = nullptr;
  uint32_t id[3] = {0, 0, 0};
  uint32_t rank = 0; // in its cluster
  uint32_t multiprocessor = 0;
  uint32_t liveThreads = 0;
  bool finished = false;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::vector<uint32_t> frames; // the words of all threads
  SharedMemory shared;
  std::vector<WarpgroupQueue> warpgroups;

  /// bar.sync and its relatives (9.7.13.1).
  struct Barrier {
    uint32_t expected = 0; // threads; 0 for all
    uint32_t arrived = 0;  // threads
    uint64_t warps = 0;    // that arrived
    uint64_t waiting = 0;  // of those, the ones that wait
    bool active = false;
    // barrier.red: the threads, and those whose predicate holds.
    uint32_t threads = 0, holds = 0;
    uint32_t index = 0;
    Clock clock;
  };
  Barrier barriers[16];

  /// setmaxnreg: what is left of the registers that the block started with.
  int64_t freeRegisters = 0;
  std::vector<uint32_t> registersPerThread; // of each warp

  /// Of each mbarrier object, by offset: what its arrivals make visible, and
  /// when it was made.
  struct Mbarrier {
    Clock clock;
    Epoch made;
  };
  std::map<uint32_t, Mbarrier> mbarriers;

  /// How many agents races are looked for among.
  uint32_t agents() const {
    return static_cast<uint32_t>(2 * warps.size() + warpgroups.size());
  }
  uint32_t firstAgent() const { return rank * agents(); }

  /// The address of an offset, as shared::cta and shared::cluster have it.
  uint64_t sharedAddress(uint32_t offset) const;
  bool complete(const Barrier &barrier) const;
  void release(Barrier &barrier);
  /// All live threads of a warp arrived at barrier `index`.
  void arriveAtBarrier(Warp &warp, uint32_t index);
  void noteExit(Thread &thread);
};

struct Cluster {
  uint32_t id[3] = {0, 0, 0};
  std::vector<std::unique_ptr<Block>> blocks;
  uint32_t arrived = 0; // threads, at barrier.cluster
  uint64_t phase = 0;
  Clock barrierClock;
  Clock strongClock; // of all strong operations
  uint32_t liveThreads() const;
  void completeIfAll();
  void noteExit(Thread &thread);
};

struct LaunchConfig {
  const Module *module = nullptr;
  const Function *function = nullptr;
  uint32_t grid[3] = {1, 1, 1}, block[3] = {1, 1, 1}, cluster[3] = {1, 1, 1};
  bool explicitCluster = false;
  bool cooperative = false;
  uint32_t dynamicShared = 0;
  std::vector<uint8_t> parameters;
};

/// Executes one launch.
class Machine {
public:
  Machine(const Settings &settings, DeviceMemory &memory,
          const LaunchConfig &config, uint64_t launchNumber);
  ~Machine();

  /// Throws Fault; its message says where.
  void run();

  const Settings &settings;
  DeviceMemory &memory;
  const LaunchConfig config;
  SharedLayout layout;
  Random random;
  uint64_t launchNumber;

  /// Counts what can end somebody's wait or change what somebody reads.
  uint64_t effects = 0;
  uint64_t executed = 0; // instructions
  std::vector<AsyncCopy> pending;

  SharedPlace sharedPlace(uint64_t address, uint32_t bytes,
                          const Block &accessor) const;
  void makeReady(Thread &thread);
  /// Set the state of a thread that has to wait.
  Step wait(Thread &thread, const Instruction &i, State state);
  void exit(Thread &thread);
  Step call(Thread &thread, const Instruction &i);
  Step back(Thread &thread);
  void initFrame(Thread &thread);
  /// "block (1,0,0), thread (3,0,0), line 12: 'ld...'".
  std::string where(const Thread &thread, const Instruction &i) const;
  uint8_t *globalBytes(uint64_t address, uint32_t bytes, const Instruction &i);
  uint32_t initialRegisters() const;
  void startCopy(AsyncCopy copy);

  /// The handler that runs wants the thread's turn to end.
  Step yield() {
    yielded = true;
    return Step::Stop;
  }

private:
  enum class Turn { Goes, Ended, Waits };
  void startCluster(uint32_t number);
  void retire(Cluster &cluster);
  bool runPass();
  void runWarp(Warp &warp);
  Turn runThread(Thread &thread);
  template <bool checked>
  uint64_t runInstructions(Thread &thread, uint64_t left);
  void poll(Warp &warp);
  void expireWaits();
  void land(size_t index);
  bool landOne();
  void landRandomly();
  uint64_t specialValue(const Thread &thread, const SpecialUse &use) const;
  [[noreturn]] void reportDeadlock() const;

  std::vector<std::unique_ptr<Cluster>> resident;
  std::vector<uint32_t> order; // of clusters
  size_t started = 0;
  uint64_t limit;
  const Instruction *currentInstruction = nullptr;
  const Thread *currentThread = nullptr;
  bool busy = false; // a thread used its whole turn in this pass
  bool yielded = false;
  struct Site {
    uint64_t begin = 1, end = 0; // of the allocation used last
    uint8_t *storage = nullptr;
  };
  std::vector<Site> sites;
};

/// Fault if an instruction touches a register of a wgmma in flight.
void checkInFlight(const Thread &thread, const Instruction &i);

/// Mark each wgmma that has a register written behind its wgmma.fence.
void checkFences(Function &function);

inline Machine &Thread::machine() const { return *block->machine; }

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_MACHINE_H
