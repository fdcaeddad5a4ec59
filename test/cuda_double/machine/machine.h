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
#include "machine/memory/global_races.h"
#include "machine/memory/race.h"
#include "machine/memory/shared_memory.h"
#include "ptx/program.h"
#include "settings.h"

#include <cstring>

namespace moe::gpu {

struct Warp;
struct Block;
struct Cluster;
struct Launch;
class Machine;

enum class State : uint8_t {
  Ready,
  Collective, // a .sync or .aligned instruction, for the other lanes
  Barrier,    // bar.sync
  Cluster,    // barrier.cluster.wait
  Mbarrier,   // mbarrier.try_wait
  Registers,  // setmaxnreg.inc
  Warpgroup,  // wgmma.wait_group, for the issue of the other warps
  Launch,     // griddepcontrol.wait
  Exited,
};

/// Copy: a read that is not of a value.
enum class Access : uint8_t { Read, Write, Atomic, Copy };

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

  // Strong reads of one address since anything changed: a thread that polls.
  uint64_t polled = 0, pollEffects = 0;
  uint32_t polls = 0;

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
  const Launch &launch() const;
  /// Returns base + offset of an operand that Decoder::setAddress encoded.
  uint64_t effective(const Instruction &i) const {
    uint64_t base = i.flags[0] ? get<uint32_t>(i.a)
                    : i.a      ? get<uint64_t>(i.a)
                               : 0;
    uint64_t address = base + static_cast<uint64_t>(i.offset);
    return i.flags[0] ? static_cast<uint32_t>(address) : address;
  }
  /// Checks an access, records it for race detection, and returns the bytes.
  /// `order` is a set of Order.
  uint8_t *access(Space space, uint64_t address, uint32_t bytes, Access kind,
                  const Instruction &i, uint8_t order = 0);

private:
  void synchronise(uint64_t address, Access kind, uint8_t order);
  void notePoll(uint64_t address, Access kind);
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
  uint32_t bulkWriter = 0;   // the agent of the writes of its bulk copies
  uint32_t bulkTime = 0;
  uint32_t orderedTime = 0; // of its last accesses that all its lanes see
  // For each lane the time of its last proxy fence for global memory.
  uint32_t proxyFences[32] = {};
  uint32_t exists = 0; // lanes
  uint32_t exited = 0;
  uint32_t ready = 0;
  uint32_t polling = 0; // lanes that wait for a condition of poll()
  Clock clock;
  Clock fenced; // what happens before a proxy fence of this warp
  Clock read;   // what strong reads of global memory saw, until a fence

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
    orderLanes();
  }
  /// Orders the accesses of the lanes so far before their later ones.
  void orderLanes() { orderedTime = clock.tick(agent); }
  void acquire(const Clock &object) { clock.join(object); }
  /// fence.proxy.async of a thread: orders all writes that happen before it
  /// with the asynchronous operations that the warp issues after it. Writes of
  /// this warp since its last release are excluded: the fence orders only those
  /// of the executing thread, which counts its fences.
  void fence() {
    fenced.join(clock);
    fenced.set(agent, orderedTime);
  }
  /// The same for global memory.
  void fenceGlobal(uint32_t lane) {
    clock.fenceProxies(agent, orderedTime);
    proxyFences[lane] = clock.tick(agent);
  }
  /// Starts the reads, or the writes, of a bulk copy; acquiring `after` orders
  /// with their end.
  Epoch startBulk(Clock &after, uint32_t by);
};

struct Block {
  Machine *machine = nullptr;
  Cluster *cluster = nullptr;
  uint32_t id[3] = {0, 0, 0};
  uint32_t rank = 0; // in the cluster
  uint32_t multiprocessor = 0;
  uint32_t liveThreads = 0;
  bool finished = false;
  bool triggered = false; // griddepcontrol.launch_dependents
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

  /// Accesses to its shared memory that it has to outlive: for each agent of
  /// the cluster the last time. The clock is that of its end.
  std::vector<uint32_t> visits;
  Clock end;
  void noteVisit(uint32_t agent, uint32_t time);
  void checkVisits() const;

  /// The number of agents of the race detector in one block.
  uint32_t agents() const { return agentsOf(warps.size()); }
  static uint32_t agentsOf(size_t warps) {
    return static_cast<uint32_t>(3 * warps + (warps + 3) / 4);
  }
  /// Names an agent of its cluster.
  std::string agentName(uint32_t agent) const;
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
  Launch *launch = nullptr;
  uint32_t number = 0; // in the machine
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
  // Programmatic dependent launch: it may begin before the launch before it in
  // the stream has ended.
  bool programmatic = false;
  uint32_t dynamicShared = 0;
  std::vector<uint8_t> parameters;

  uint32_t clusterSize() const { return cluster[0] * cluster[1] * cluster[2]; }
  uint64_t blocks() const { return uint64_t(grid[0]) * grid[1] * grid[2]; }
};

/// A launch while it runs.
struct Launch {
  LaunchConfig config;
  SharedLayout layout;
  uint64_t number = 0;                          // of the driver
  uint32_t index = 0;                           // in the machine
  uint32_t firstCluster = 0;                    // its number in the machine
  std::vector<uint32_t> order;                  // of clusters
  size_t started = 0, resident = 0, atOnce = 1; // clusters
  uint64_t untriggered =
      0; // blocks that neither ended nor let dependents begin
  // The launches of the machine that every block that ended has waited for.
  uint64_t waitedFor = ~uint64_t(0);
  // Those that every block had waited for when it let dependents begin.
  uint64_t handedOn = ~uint64_t(0);
  // Bytes of global memory that its threads read and wrote, atomic operations
  // among the latter, and that asynchronous copies read.
  uint64_t bytesRead = 0, bytesWritten = 0, bytesCopied = 0;
  bool complete() const { return started == order.size() && resident == 0; }

  struct Site {
    uint64_t begin = 1, end = 0; // of the last accessed allocation
    uint8_t *storage = nullptr;
    GlobalShadow *shadow = nullptr;
  };
  std::vector<Site> sites; // of the accesses to global memory
};

/// Executes one launch, and those behind it that may begin before it has ended.
class Machine {
public:
  /// `number` is that of the first launch.
  Machine(const Settings &settings, DeviceMemory &memory,
          std::vector<LaunchConfig> configs, uint64_t number);
  ~Machine();

  /// Throws a Fault whose message names the thread and the line.
  void run();

  const Settings &settings;
  DeviceMemory &memory;
  std::vector<std::unique_ptr<Launch>> launches;
  Random random;
  GlobalRaces globalRaces;

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
  /// Checks the bounds of an access to global memory.
  const Launch::Site &globalSite(const Thread &thread, uint64_t address,
                                 uint64_t bytes, const Instruction &i);
  /// Checks and records an access to global memory by a thread, or by a bulk
  /// copy as the epoch `by`.
  void noteGlobal(const Warp &warp, uint32_t lane, Epoch by,
                  GlobalShadow &shadow, uint64_t offset, uint64_t bytes,
                  Access kind, uint8_t order, bool async,
                  const uint8_t *storage = nullptr);
  void noteBulk(const Warp &warp, Epoch by, uint64_t address, uint64_t bytes,
                Access kind, bool reduction);
  static uint32_t initialRegisters(const LaunchConfig &config);
  /// Returns whether the launch before has ended; then `clock` knows of it.
  bool dependenciesEnded(const Launch &launch, Clock &clock) const;
  void trigger(Block &block, uint64_t waitedFor);
  void startCopy(AsyncCopy copy);

  /// Ends the time slice of the thread whose instruction executes.
  Step yield() {
    yielded = true;
    return Step::Stop;
  }
  /// Ends it behind the instruction, which continues.
  void interrupt() { interrupted = true; }
  /// Faults with a message behind the instruction unless it writes to `at` what
  /// is there.
  void expectEqual(const uint8_t *at, uint64_t bytes, std::string message) {
    equalWrites.push_back({at, {at, at + bytes}, std::move(message)});
    interrupt();
  }

private:
  enum class Slice { Continues, Ended, Waits };
  void addLaunch(LaunchConfig config, uint64_t number);
  bool mayStart(const Launch &launch) const;
  bool startClusters();
  void startCluster(Launch &launch, uint32_t number);
  std::string accessorName(uint32_t cluster, Epoch epoch) const;
  std::string describe(const GlobalRaces::Conflict &conflict,
                       const GlobalAccess &access, bool reads) const;
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
  uint64_t limit;
  bool detectRaces = false; // in global memory
  const Instruction *currentInstruction = nullptr;
  const Thread *currentThread = nullptr;
  bool busy = false; // a thread used its whole time slice in this pass
  struct EqualWrite {
    const uint8_t *at;
    std::vector<uint8_t> before;
    std::string message;
  };
  std::vector<EqualWrite> equalWrites;
  void checkEqualWrites();
  bool yielded = false;
  bool interrupted = false;
};

/// Notes that an instruction accesses registers of a wgmma. Faults if one that
/// is under way uses them.
void noteTouch(const Thread &thread, const Instruction &i);

/// Marks the registers of wgmma, and the instructions that access them.
void markProducts(Function &function);

inline Machine &Thread::machine() const { return *block->machine; }
inline const Launch &Thread::launch() const { return *block->cluster->launch; }

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_MACHINE_H
