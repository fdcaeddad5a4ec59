//===- machine.h - Threads, warps, blocks, clusters, a launch ---*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The machine model of PTX ISA 3 with independent thread scheduling: each
// thread has its own program counter and registers and runs until it waits or
// its time slice ends. Undefined behaviour is a Fault.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CUDA_DOUBLE_MACHINE_H
#define MOE_CUDA_DOUBLE_MACHINE_H

#include "fault.h"
#include "machine/memory/async.h"
#include "machine/memory/device_memory.h"
#include "machine/memory/race.h"
#include "machine/memory/shared_memory.h"
#include "ptx/program.h"
#include "settings.h"

#include <cstring>

namespace moe::gpu {

struct Warp;
struct Block;
struct Cluster;
class Machine;

enum class State : uint8_t {
  Ready,
  Collective, // a .sync or .aligned instruction, for the other lanes
  Barrier,    // bar.sync
  Cluster,    // barrier.cluster.wait
  Mbarrier,   // mbarrier.try_wait
  Registers,  // setmaxnreg.inc
  Warpgroup,  // wgmma.wait_group, for the issue of the other warps
  Exited,
};

enum class Access : uint8_t { Read, Write, Atomic };

/// The reduction of barrier.red; flags[1] of a barrier instruction.
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
  uint16_t index = 0; // in the block
  uint32_t tid[3] = {0, 0, 0};
  const Instruction *at = nullptr; // the instruction at which it waits

  // Local memory and the call stack.
  struct Caller {
    const Function *function;
    const Instruction *pc;
    uint32_t *frame;
    uint32_t localBase;
    const CallSite *site;
    std::unique_ptr<uint32_t[]> words; // the callee's frame
  };
  std::vector<uint8_t> local;
  uint32_t localBase = 0;
  std::vector<Caller> callers;

  // The pending mbarrier.try_wait, and the last one that returned false.
  Block *waitBlock = nullptr;
  uint32_t waitOffset = 0;
  bool waitParity = false;
  const Instruction *failedWait = nullptr;

  // barrier.cluster: whether it arrived without a wait, and at which phase.
  bool clusterArrived = false;
  uint64_t clusterPhase = 0;

  // The numbers of fence.proxy.async and fence.mbarrier_init executed.
  uint32_t proxyFences = 0, initFences = 0;
  // Allocated at the first copy: most threads issue none.
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
  /// Returns base + offset of an operand that Decoder::setAddress encoded.
  uint64_t effective(const Instruction &i) const {
    uint64_t base = i.flags[0] ? get<uint32_t>(i.a)
                    : i.a      ? get<uint64_t>(i.a)
                               : 0;
    uint64_t address = base + static_cast<uint64_t>(i.offset);
    return i.flags[0] ? static_cast<uint32_t>(address) : address;
  }
  /// Checks an access, records it for race detection, and returns the bytes.
  uint8_t *access(Space space, uint64_t address, uint32_t bytes, Access kind,
                  const Instruction &i, bool strong = false);
};

/// A location in shared memory.
struct SharedLocation {
  Block *block;
  uint32_t offset;
};

struct Warp {
  Block *block = nullptr;
  Thread *threads = nullptr; // the thread of lane 0
  uint32_t index = 0;        // in the block
  uint32_t agent = 0;        // in the cluster, for race detection
  uint32_t bulkAgent = 0;    // the agent of the reads of its bulk copies
  uint32_t bulkTime = 0;
  uint32_t exists = 0; // lanes
  uint32_t exited = 0;
  uint32_t ready = 0;
  uint32_t polling = 0; // lanes that wait for a condition of poll()
  Clock clock;
  Clock fenced; // what happens before a proxy fence of this warp

  uint32_t live() const { return exists & ~exited; }

  /// The lanes that arrived at a collective instruction.
  struct Group {
    const Instruction *at;
    uint32_t members, arrived;
  };
  std::vector<Group> groups;

  /// Executes an instruction that all lanes of `members` must execute together
  /// (PTX ISA 9.7.13 ".sync" and ".aligned"): the last lane to arrive executes
  /// it for all.
  using Collective = void (*)(Warp &, const Instruction &, uint32_t members);
  Step arrive(Thread &thread, const Instruction &i, uint32_t members,
              Collective execute);

  /// For each barrier: the lanes that arrived, and at which instruction.
  struct BarrierArrival {
    uint32_t arrived = 0; // lanes
    uint32_t holds = 0;   // lanes whose predicate is true, for barrier.red
    const Instruction *at = nullptr;
    uint32_t expected = 0; // threads; 0 for all
    bool waits = false;    // .sync or .red, not .arrive
  };
  BarrierArrival barriers[16];

  WgmmaQueue wgmma;

  /// Release to, or acquire from, a synchronization object with this clock.
  void release(Clock &object) {
    object.join(clock);
    clock.tick(agent);
  }
  void acquire(const Clock &object) { clock.join(object); }
  /// fence.proxy.async of a thread: orders all writes that happen before it
  /// with the asynchronous operations that the warp issues after it. Writes of
  /// this warp since its last release are excluded: the fence orders only those
  /// of the executing thread, which counts its fences.
  void fence() {
    fenced.join(clock);
    fenced.set(agent, clock[agent] - 1);
  }
  /// Starts the reads of a bulk copy; acquiring `after` orders with their end.
  Epoch startBulkRead(Clock &after);
};

struct Block {
  Machine *machine = nullptr;
  Cluster *cluster = nullptr;
  uint32_t id[3] = {0, 0, 0};
  uint32_t rank = 0; // in the cluster
  uint32_t multiprocessor = 0;
  uint32_t liveThreads = 0;
  bool finished = false;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::vector<uint32_t> frames; // of all threads
  SharedMemory shared;
  std::vector<WarpgroupQueue> warpgroups;

  /// The state of bar.sync, bar.arrive and bar.red (9.7.13.1).
  struct Barrier {
    uint32_t expected = 0; // threads; 0 for all
    uint32_t arrived = 0;  // threads
    uint64_t warps = 0;    // mask of the warps that arrived
    uint64_t waiting = 0;  // mask of those that wait
    bool active = false;
    // barrier.red: the threads, and those whose predicate is true.
    uint32_t threads = 0, holds = 0;
    uint32_t index = 0;
    Clock clock;
  };
  Barrier barriers[16];

  /// setmaxnreg: the free registers of the block's allocation.
  int64_t freeRegisters = 0;
  std::vector<uint32_t> registersPerThread; // of each warp

  /// The state of each mbarrier object, by offset: the clock that its arrivals
  /// release, and the epoch of its mbarrier.init.
  struct Mbarrier {
    Clock clock;
    Epoch initialised;
  };
  std::map<uint32_t, Mbarrier> mbarriers;

  /// The number of agents of the race detector in one block.
  uint32_t agents() const {
    return static_cast<uint32_t>(2 * warps.size() + warpgroups.size());
  }
  uint32_t firstAgent() const { return rank * agents(); }

  /// The address of an offset in the .shared::cta and .shared::cluster windows.
  uint64_t sharedAddress(uint32_t offset) const;
  bool complete(const Barrier &barrier) const;
  void release(Barrier &barrier);
  /// Called when all live threads of a warp have arrived at barrier `index`.
  void arriveAtBarrier(Warp &warp, uint32_t index);
  void noteExit(Thread &thread);
};

struct Cluster {
  uint32_t id[3] = {0, 0, 0};
  std::vector<std::unique_ptr<Block>> blocks;
  uint32_t arrived = 0; // threads, at barrier.cluster
  uint64_t phase = 0;
  Clock barrierClock;
  Clock strongClock; // released and acquired by all strong operations
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

  /// Throws a Fault whose message names the thread and the line.
  void run();

  const Settings &settings;
  DeviceMemory &memory;
  const LaunchConfig config;
  SharedLayout layout;
  Random random;
  uint64_t launchNumber;

  /// Counts events that can end a wait or change the result of a read.
  uint64_t effects = 0;
  uint64_t executed = 0; // instructions
  std::vector<AsyncCopy> pending;

  SharedLocation sharedLocation(uint64_t address, uint32_t bytes,
                                const Block &accessor) const;
  void makeReady(Thread &thread);
  /// Suspends a thread in a waiting state.
  Step wait(Thread &thread, const Instruction &i, State state);
  void exit(Thread &thread);
  Step call(Thread &thread, const Instruction &i);
  Step back(Thread &thread);
  void initFrame(Thread &thread);
  /// Returns e.g. "block (1,0,0), thread (3,0,0), line 12: 'ld...'".
  std::string where(const Thread &thread, const Instruction &i) const;
  uint8_t *globalBytes(uint64_t address, uint32_t bytes, const Instruction &i);
  uint32_t initialRegisters() const;
  void startCopy(AsyncCopy copy);

  /// Ends the time slice of the thread whose instruction executes.
  Step yield() {
    yielded = true;
    return Step::Stop;
  }

private:
  enum class Slice { Continues, Ended, Waits };
  void startCluster(uint32_t number);
  void retire(Cluster &cluster);
  bool runPass();
  void runWarp(Warp &warp);
  Slice runThread(Thread &thread);
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
  bool busy = false; // a thread used its whole time slice in this pass
  bool yielded = false;
  struct Site {
    uint64_t begin = 1, end = 0; // of the last accessed allocation
    uint8_t *storage = nullptr;
  };
  std::vector<Site> sites;
};

/// Faults if an instruction accesses a register of a wgmma in flight.
void checkInFlight(const Thread &thread, const Instruction &i);

/// Marks each wgmma with a register that is written after its wgmma.fence.
void checkFences(Function &function);

inline Machine &Thread::machine() const { return *block->machine; }

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_MACHINE_H
