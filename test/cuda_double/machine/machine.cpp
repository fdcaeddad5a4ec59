//===- machine.cpp - Schedule the threads of a launch ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "machine.h"
#include "machine/memory/mbarrier.h"

#include <algorithm>
#include <numeric>

using namespace moe::gpu;

// The most instructions that a thread executes in one time slice.
static constexpr uint64_t sliceInstructions = 4096;
// The number of passes without progress, after each of which mbarrier.try_wait
// times out, before a deadlock is reported. Kernels may count the time-outs.
static constexpr int idlePasses = 1000;

Machine::Machine(const Settings &settings, DeviceMemory &memory,
                 std::vector<LaunchConfig> configs, uint64_t number)
    : settings(settings), memory(memory), random(settings.seed + number),
      globalRaces(number), limit(settings.instructions) {
  for (LaunchConfig &config : configs)
    addLaunch(std::move(config), number++);
}

Machine::~Machine() = default;

void Machine::addLaunch(LaunchConfig config, uint64_t number) {
  auto launch = std::make_unique<Launch>();
  launch->number = number;
  launch->index = static_cast<uint32_t>(launches.size());
  launch->layout = config.module->layout(*config.function);
  // A kernel may rely on the alignment that it asks for, and on no higher one.
  if (!settings.hardwarePlacement)
    if (SharedLayout tight = config.module->layout(*config.function, true);
        tight.dynamicAt + config.dynamicShared <= settings.sharedOptIn())
      launch->layout = std::move(tight);
  launch->sites.resize(config.module->sites);
  launch->untriggered = config.blocks();
  uint32_t size = config.clusterSize();
  uint64_t clusters = config.blocks() / size;
  launch->order.resize(clusters);
  std::iota(launch->order.begin(), launch->order.end(), 0);
  if (settings.random())
    for (uint64_t i = clusters; i > 1; --i)
      std::swap(launch->order[i - 1],
                launch->order[random.below(static_cast<uint32_t>(i))]);
  // Nothing promises that blocks of a launch which is not cooperative run side
  // by side: at least one does, at most as many as there are multiprocessors.
  auto most = std::max<uint32_t>(
      1, static_cast<uint32_t>(settings.multiprocessors) / size);
  launch->atOnce = config.cooperative     ? clusters
                   : settings.immediate() ? most
                   : settings.random()    ? 1 + random.below(most)
                                          : 1;
  uint64_t first = 0;
  if (!launches.empty())
    first = launches.back()->firstCluster + launches.back()->order.size();
  launch->firstCluster = static_cast<uint32_t>(first);
  detectRaces = !settings.allowRaces && (launches.empty() || detectRaces) &&
                first + clusters <= GlobalRecord::maxClusters;
  globalRaces.addLaunch(launch->firstCluster);
  launch->config = std::move(config);
  launches.push_back(std::move(launch));
}

/// A dependent launch may start once all blocks of the one before have issued
/// griddepcontrol.launch_dependents or ended.
bool Machine::mayStart(const Launch &launch) const {
  if (launch.index == 0)
    return true;
  const Launch &before = *launches[launch.index - 1];
  return settings.immediate() ? before.complete() : before.untriggered == 0;
}

/// Returns whether anything runs or is yet to run.
bool Machine::startClusters() {
  for (auto &launch : launches) {
    if (!mayStart(*launch))
      break;
    while (launch->started < launch->order.size() &&
           launch->resident < launch->atOnce)
      startCluster(*launch, launch->order[launch->started++]);
  }
  return !resident.empty();
}

bool Machine::dependenciesEnded(const Launch &launch, Clock &clock) const {
  if (launch.index == 0)
    return true;
  const Launch &before = *launches[launch.index - 1];
  if (!before.complete())
    return false;
  clock.launches |= uint64_t(1) << before.index;
  if (before.index > 0)
    clock.launches |= before.waitedFor;
  return true;
}

void Machine::trigger(Block &block, uint64_t waitedFor) {
  if (block.triggered)
    return;
  block.triggered = true;
  block.cluster->launch->handedOn &= waitedFor;
  --block.cluster->launch->untriggered;
  ++effects;
}

void Machine::run() {
  int idle = 0;
  try {
    while (startClusters()) {
      bool progress = runPass();
      currentThread = nullptr;
      if (executed > limit)
        fail(CUDA_ERROR_LAUNCH_TIMEOUT, "kernel '",
             launches.front()->config.function->name,
             "' does not end: ", executed, " instructions");
      if (progress || landOne()) {
        idle = 0;
      } else if (!busy) {
        if (++idle > idlePasses)
          reportDeadlock();
        expireWaits();
      }
    }
  } catch (Fault &fault) {
    if (currentThread && currentInstruction)
      fault.message =
          where(*currentThread, *currentInstruction) + ": " + fault.message;
    throw;
  }
}

std::string Machine::where(const Thread &thread, const Instruction &i) const {
  const Block &block = *thread.block;
  const LaunchConfig &config = thread.launch().config;
  const syntax::Statement &statement =
      config.module->statement(*thread.function, i);
  std::string_view instruction = statement.text;
  // Truncate long register lists.
  if (instruction.size() > 120)
    instruction = instruction.substr(0, 117);
  return text("kernel '", config.function->name, "', block (", block.id[0], ",",
              block.id[1], ",", block.id[2], "), thread (", thread.tid[0], ",",
              thread.tid[1], ",", thread.tid[2], "), line ", statement.line,
              ": '", instruction,
              instruction.size() < statement.text.size() ? "...'" : "'");
}

//===----------------------------------------------------------------------===//
// Start and end of clusters
//===----------------------------------------------------------------------===//

void Machine::startCluster(Launch &launch, uint32_t number) {
  auto cluster = std::make_unique<Cluster>();
  const LaunchConfig &config = launch.config;
  const SharedLayout &layout = launch.layout;
  cluster->launch = &launch;
  cluster->number = launch.firstCluster + number;
  ++launch.resident;
  const uint32_t *size = config.cluster;
  uint32_t count[3];
  for (int i = 0; i < 3; ++i)
    count[i] = config.grid[i] / size[i];
  cluster->id[0] = number % count[0];
  cluster->id[1] = number / count[0] % count[1];
  cluster->id[2] = number / count[0] / count[1];

  uint32_t blocks = size[0] * size[1] * size[2];
  uint32_t threads = config.block[0] * config.block[1] * config.block[2];
  uint32_t warps = (threads + 31) / 32;
  uint32_t slots = (config.function->slots() + 3) / 4 * 4;
  uint32_t agents = blocks * Block::agentsOf(warps);
  bool races = !settings.allowRaces && agents <= Epoch::maxAgents;
  cluster->barrierClock = cluster->strongClock = Clock(agents);
  for (uint32_t rank = 0; rank < blocks; ++rank) {
    auto block = std::make_unique<Block>();
    block->machine = this;
    block->cluster = cluster.get();
    block->rank = rank;
    uint32_t in[3] = {rank % size[0], rank / size[0] % size[1],
                      rank / size[0] / size[1]};
    for (int i = 0; i < 3; ++i)
      block->id[i] = cluster->id[i] * size[i] + in[i];
    block->multiprocessor =
        static_cast<uint32_t>((resident.size() * blocks + rank) %
                              static_cast<uint32_t>(settings.multiprocessors));
    block->liveThreads = threads;
    block->threads = std::vector<Thread>(threads);
    block->warps = std::vector<Warp>(warps);
    block->warpgroups.resize((warps + 3) / 4);
    // Fill registers with a value that no kernel expects.
    block->frames.assign(size_t(threads) * slots, 0xFFFFFFFF);
    block->shared.reset(layout.dynamicAt + config.dynamicShared,
                        block->threads.data(), settings.allowUninitialised,
                        races);
    block->registersPerThread.assign(warps, initialRegisters(config));
    for (Block::Barrier &barrier : block->barriers)
      barrier.clock = Clock(agents);
    block->end = Clock(agents);
    for (uint32_t g = 0; g < block->warpgroups.size(); ++g)
      block->warpgroups[g].agent = block->firstAgent() + 3 * warps + g;
    for (uint32_t w = 0; w < warps; ++w) {
      Warp &warp = block->warps[w];
      warp.block = block.get();
      warp.threads = &block->threads[w * 32];
      warp.index = w;
      warp.agent = block->firstAgent() + w;
      warp.bulkAgent = warp.agent + warps;
      warp.bulkWriter = warp.agent + 2 * warps;
      uint32_t lanes = std::min(32u, threads - w * 32);
      warp.exists = warp.ready = lanes == 32 ? 0xFFFFFFFF : (1u << lanes) - 1;
      warp.clock = warp.fenced = warp.read = Clock(agents);
      if (launch.index > 0)
        warp.clock.launches = launches[launch.index - 1]->handedOn;
      warp.clock.tick(warp.agent);
    }
    for (uint32_t t = 0; t < threads; ++t) {
      Thread &thread = block->threads[t];
      thread.block = block.get();
      thread.warp = &block->warps[t / 32];
      thread.index = static_cast<uint16_t>(t);
      thread.lane = t % 32;
      thread.tid[0] = t % config.block[0];
      thread.tid[1] = t / config.block[0] % config.block[1];
      thread.tid[2] = t / config.block[0] / config.block[1];
      thread.function = config.function;
      thread.frame = &block->frames[size_t(t) * slots];
      thread.pc = config.function->code.data();
      thread.local.assign(config.function->localBytes, 0xFF);
      initFrame(thread);
    }
    cluster->blocks.push_back(std::move(block));
  }
  resident.push_back(std::move(cluster));
}

/// The registers of a thread at launch: as many as the launch bounds allow, as
/// ptxas assigns them to a kernel that has launch bounds.
uint32_t Machine::initialRegisters(const LaunchConfig &config) {
  const syntax::Function &source = *config.function->source;
  if (source.maxRegisters != 0)
    return source.maxRegisters;
  const uint32_t *bound =
      source.requiredThreads[0] ? source.requiredThreads : source.maxThreads;
  uint32_t threads = bound[0] ? bound[0] * bound[1] * bound[2] : 1024;
  uint32_t blocks = std::max(1u, source.minBlocks);
  return std::min(255u, 65536 / (threads * blocks) / 8 * 8);
}

/// Completes the bulk stores of a cluster whose threads have all exited.
void Machine::retire(Cluster &cluster) {
  for (auto &block : cluster.blocks)
    for (Thread &thread : block->threads)
      if (thread.bulkQueue)
        thread.bulkQueue->finishWrites();
  --cluster.launch->resident;
  ++effects;
}

//===----------------------------------------------------------------------===//
// Scheduling
//===----------------------------------------------------------------------===//

bool Machine::runPass() {
  uint64_t before = effects;
  busy = false;
  size_t first = settings.random() && resident.size() > 1
                     ? random.below(static_cast<uint32_t>(resident.size()))
                     : 0;
  for (size_t c = 0; c < resident.size(); ++c) {
    Cluster &cluster = *resident[(first + c) % resident.size()];
    for (auto &block : cluster.blocks) {
      if (block->finished)
        continue;
      size_t warps = block->warps.size();
      size_t start =
          settings.random() ? random.below(static_cast<uint32_t>(warps)) : 0;
      for (size_t w = 0; w < warps; ++w) {
        Warp &warp = block->warps[(start + w) % warps];
        if (warp.polling)
          poll(warp);
        if (warp.ready)
          runWarp(warp);
      }
      currentThread = nullptr;
    }
  }
  for (size_t c = 0; c < resident.size();) {
    if (resident[c]->liveThreads() != 0) {
      ++c;
      continue;
    }
    retire(*resident[c]);
    resident.erase(resident.begin() + static_cast<ptrdiff_t>(c));
  }
  if (settings.random())
    landRandomly();
  return effects != before;
}

/// Runs each thread of a warp until it waits or its time slice has ended.
void Machine::runWarp(Warp &warp) {
  uint32_t ended = 0; // lanes whose time slice has ended in this pass
  while (uint32_t choice = warp.ready & ~ended) {
    uint32_t lane = static_cast<uint32_t>(__builtin_ctz(choice));
    if (settings.random()) {
      // Select the first ready lane at or after a random lane.
      uint32_t from = random.below(32);
      if (uint32_t above = choice & ~((1u << from) - 1))
        lane = static_cast<uint32_t>(__builtin_ctz(above));
    }
    Thread &thread = warp.threads[lane];
    if (runThread(thread) == Slice::Ended)
      ended |= 1u << lane;
  }
}

Machine::Slice Machine::runThread(Thread &thread) {
  currentThread = &thread;
  yielded = interrupted = false;
  uint64_t slice = sliceInstructions;
  if (settings.random())
    slice = 1 + random.below(300);
  uint64_t left = !thread.function->productRegisters.empty()
                      ? runInstructions<true>(thread, slice)
                      : runInstructions<false>(thread, slice);
  executed += slice - left;
  if (!equalWrites.empty())
    checkEqualWrites();
  if (thread.state != State::Ready)
    return Slice::Waits;
  if (yielded || interrupted)
    return Slice::Ended;
  if (left != 0)
    return Slice::Continues;
  busy = true;
  return Slice::Ended;
}

void Machine::checkEqualWrites() {
  for (const EqualWrite &write : equalWrites)
    if (!std::equal(write.before.begin(), write.before.end(), write.at))
      undefined(write.message);
  equalWrites.clear();
}

template <bool checked>
uint64_t Machine::runInstructions(Thread &thread, uint64_t left) {
  do {
    const Instruction &i = *thread.pc++;
    --left;
    currentInstruction = &i;
    if (i.guard >= 0 && (thread.frame[i.guard] != 0) == i.guardNegated)
      continue;
    if (checked && i.products != ProductUse::None)
      noteTouch(thread, i);
    if (i.run(thread, i) == Step::Stop)
      break;
  } while (left != 0 && !interrupted);
  return left;
}

Step Machine::wait(Thread &thread, const Instruction &i, State state) {
  thread.state = state;
  thread.at = &i;
  uint32_t bit = 1u << thread.lane;
  thread.warp->ready &= ~bit;
  if (state == State::Mbarrier || state == State::Cluster ||
      state == State::Registers || state == State::Warpgroup ||
      state == State::Launch)
    thread.warp->polling |= bit;
  return Step::Stop;
}

void Machine::makeReady(Thread &thread) {
  uint32_t bit = 1u << thread.lane;
  thread.state = State::Ready;
  thread.warp->ready |= bit;
  thread.warp->polling &= ~bit;
}

/// Makes waiting threads ready if the condition they wait for may hold.
void Machine::poll(Warp &warp) {
  for (uint32_t lanes = warp.polling; lanes; lanes &= lanes - 1) {
    Thread &thread = warp.threads[__builtin_ctz(lanes)];
    if (thread.state == State::Mbarrier &&
        barrierParity(*thread.waitBlock, thread.waitOffset) ==
            thread.waitParity)
      continue;
    if (thread.state == State::Cluster &&
        thread.block->cluster->phase == thread.clusterPhase)
      continue;
    if (thread.state == State::Launch &&
        !launches[thread.launch().index - 1]->complete())
      continue;
    thread.pc = thread.at;
    makeReady(thread);
  }
}

/// Times out every mbarrier.try_wait. Called when no thread is ready.
void Machine::expireWaits() {
  for (auto &cluster : resident)
    for (auto &block : cluster->blocks)
      for (Warp &warp : block->warps)
        for (uint32_t lanes = warp.polling; lanes; lanes &= lanes - 1) {
          Thread &thread = warp.threads[__builtin_ctz(lanes)];
          if (thread.state != State::Mbarrier)
            continue;
          thread.failedWait = nullptr;
          thread.pc = thread.at;
          makeReady(thread);
        }
}

//===----------------------------------------------------------------------===//
// Asynchronous copies
//===----------------------------------------------------------------------===//

void Machine::startCopy(AsyncCopy copy) {
  ++effects;
  pending.push_back(std::move(copy));
  if (settings.immediate())
    land(pending.size() - 1);
}

void Machine::land(size_t index) {
  AsyncCopy copy = std::move(pending[index]);
  pending.erase(pending.begin() + static_cast<ptrdiff_t>(index));
  ++effects;
  const Thread *thread = currentThread;
  const Instruction *instruction = currentInstruction;
  currentThread = copy.issuer;
  currentInstruction = copy.at;
  copy.land();
  currentThread = thread;
  currentInstruction = instruction;
}

/// Completes one copy, when no thread is ready: the latest time that the ISA
/// allows. Takes the last issued copy that a thread waits for, so that copies
/// do not complete in the order of their issue.
bool Machine::landOne() {
  if (pending.empty())
    return false;
  auto awaited = [&](const AsyncCopy &copy) {
    for (auto &cluster : resident)
      for (auto &block : cluster->blocks)
        for (Warp &warp : block->warps)
          for (uint32_t lanes = warp.polling; lanes; lanes &= lanes - 1) {
            const Thread &thread = warp.threads[__builtin_ctz(lanes)];
            if (thread.state == State::Mbarrier &&
                thread.waitBlock == copy.barrier &&
                thread.waitOffset == copy.barrierOffset)
              return true;
          }
    return false;
  };
  size_t chosen = pending.size();
  for (size_t i = pending.size(); i-- > 0 && chosen == pending.size();)
    if (awaited(pending[i]))
      chosen = i;
  land(chosen == pending.size() ? chosen - 1 : chosen);
  return true;
}

void Machine::landRandomly() {
  for (size_t i = 0; i < pending.size();)
    if (random.below(4) == 0)
      land(i);
    else
      ++i;
}

//===----------------------------------------------------------------------===//
// Deadlock
//===----------------------------------------------------------------------===//

static const char *nameOf(State state) {
  switch (state) {
  case State::Ready:
    return "polls";
  case State::Collective:
    return "waits for other threads of the instruction";
  case State::Barrier:
    return "waits at a barrier";
  case State::Cluster:
    return "waits for its cluster";
  case State::Mbarrier:
    return "waits for an mbarrier";
  case State::Registers:
    return "waits for registers";
  case State::Warpgroup:
    return "waits for other warps to issue their wgmma";
  case State::Launch:
    return "waits for the launch before";
  case State::Exited:
    return "has exited";
  }
  return "";
}

void Machine::reportDeadlock() const {
  const Launch &first = *resident.front()->launch;
  std::string message =
      text("deadlock in kernel '", first.config.function->name,
           "': no thread can go on");
  if (!first.config.cooperative && first.started < first.order.size())
    message += text("; ", first.order.size() - first.started, " of ",
                    first.order.size(),
                    " clusters have not begun, and only those of a cooperative "
                    "launch are sure to run side by side");
  int lines = 0;
  for (auto &cluster : resident)
    for (auto &block : cluster->blocks)
      for (Warp &warp : block->warps) {
        // Print one line for all lanes that wait at the same instruction.
        uint32_t left = warp.live();
        while (left && lines < 64) {
          const Thread &first = warp.threads[__builtin_ctz(left)];
          const Instruction *at =
              first.state == State::Ready ? first.pc - 1 : first.at;
          uint32_t same = 0;
          for (uint32_t lanes = left; lanes; lanes &= lanes - 1) {
            uint32_t lane = static_cast<uint32_t>(__builtin_ctz(lanes));
            const Thread &thread = warp.threads[lane];
            const Instruction *its =
                thread.state == State::Ready ? thread.pc - 1 : thread.at;
            if (its == at && thread.state == first.state)
              same |= 1u << lane;
          }
          left &= ~same;
          message += text("\n  warp ", warp.index, ", lanes ", Hex{same}, " ",
                          nameOf(first.state), ": ", where(first, *at));
          if (first.state == State::Mbarrier)
            message += text(
                " (offset ", first.waitOffset, ", parity ", first.waitParity,
                ", ", describeBarrier(*first.waitBlock, first.waitOffset), ")");
          ++lines;
        }
      }
  throw Fault{CUDA_ERROR_LAUNCH_TIMEOUT, message};
}
