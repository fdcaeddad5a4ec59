//===- group.cpp - Ranks that run layers together -------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "parallel/group.h"
#include "layer/profile.h"

#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <sched.h>
#include <time.h>

using namespace moe::rt;

static constexpr double defaultDeadline = 60;
static constexpr int32_t mostChunks = 1024;
/// While so much of a wait is over, a rank polls: most waits end by then.
static constexpr int64_t pollNanoseconds = 200 * 1000;
static constexpr int64_t firstNap = 2 * 1000, lastNap = 100 * 1000;

//===----------------------------------------------------------------------===//
// SharedBuffer
//===----------------------------------------------------------------------===//

moe_rt_status_t SharedBuffer::grow(uint64_t wanted, const char *what) {
  if (wanted <= size)
    return nullptr;
  release();
  void *found = segments ? segments->allocate(wanted)
                         : communicator.allocate(communicator.user, wanted);
  if (!found)
    return makeError(MOE_RT_RESOURCE_EXHAUSTED,
                     "%s cannot allocate %" PRIu64 " bytes for the %s",
                     segments ? "shared memory" : "the communicator", wanted,
                     what);
  memory = static_cast<char *>(found);
  size = wanted;
  if (reinterpret_cast<uintptr_t>(found) % bufferAlignment == 0)
    return nullptr;
  release();
  return makeError(MOE_RT_INVALID_ARGUMENT,
                   "the communicator returned %p for the %s, expected memory "
                   "aligned to %zu bytes",
                   found, what, bufferAlignment);
}

void SharedBuffer::release() {
  if (memory && segments)
    segments->release(memory);
  else if (memory)
    communicator.release(communicator.user, memory, size);
  memory = nullptr;
  size = 0;
}

//===----------------------------------------------------------------------===//
// Waiting
//===----------------------------------------------------------------------===//

/// Test what is pending; return whether anything is still, and nothing has
/// failed.
bool moe_rt_group_s::testPending() {
  bool goesOn = false;
  for (Pending &each : pending) {
    if (each.state == 0)
      each.state = communicator.test(communicator.user, each.request);
    if (each.state < 0)
      return false;
    goesOn |= each.state == 0;
  }
  return goesOn;
}

bool moe_rt_group_s::hasFailed() const {
  return std::any_of(pending.begin(), pending.end(),
                     [](const Pending &each) { return each.state < 0; });
}

void moe_rt_group_s::beginPolling() {
  if (!pending.empty() &&
      (communicator.features & MOE_RT_COMMUNICATOR_POLLED) != 0)
    poller.begin();
}

void moe_rt_group_s::endPolling() { poller.end(); }

moe_rt_status_t moe_rt_group_s::wait(std::optional<int64_t> label) {
  auto isWaitedFor = [&](const Pending &each) {
    return !label || each.label == *label;
  };
  if (std::none_of(pending.begin(), pending.end(), isWaitedFor))
    return nullptr;
  const int64_t begin = readClock();
  int64_t nap = firstNap;
  for (;;) {
    // All go on, whichever is waited for.
    (void)testPending();
    for (size_t i = 0; i < pending.size();) {
      if (pending[i].state < 0)
        return failEngine();
      if (pending[i].state > 0)
        pending.erase(pending.begin() + static_cast<ptrdiff_t>(i));
      else
        ++i;
    }
    if (std::none_of(pending.begin(), pending.end(), isWaitedFor))
      return nullptr;
    int64_t waited = readClock() - begin;
    if (waited > deadline) {
      char text[160];
      std::snprintf(text, sizeof(text),
                    "rank %zu of %zu has waited %.3g s for the other ranks, "
                    "one of which did not come",
                    rank(), size(), 1e-9 * static_cast<double>(waited));
      return kill(MOE_RT_DEADLINE_EXCEEDED, text);
    }
    if (waited < pollNanoseconds) {
      sched_yield();
      continue;
    }
    timespec time = {0, static_cast<long>(std::min(nap, deadline))};
    nanosleep(&time, nullptr);
    nap = std::min(nap * 2, lastNap);
  }
}

moe_rt_status_t moe_rt_group_s::kill(moe_rt_code_t code,
                                     const std::string &why) {
  if (!isDead()) {
    deathCode = code;
    deathMessage = why;
    if (communicator.abort)
      communicator.abort(communicator.user);
  }
  return makeError(code, "%s; the group is dead", why.c_str());
}

bool moe_rt_group_s::hasEngineFailed() const {
  return communicator.message && communicator.message(communicator.user);
}

moe_rt_status_t moe_rt_group_s::failEngine() {
  const char *message =
      communicator.message ? communicator.message(communicator.user) : nullptr;
  return kill(MOE_RT_UNAVAILABLE,
              "rank " + std::to_string(rank()) + " of " +
                  std::to_string(size()) + ": the engine failed" +
                  (message ? ": " + std::string(message) : std::string()));
}

moe_rt_status_t moe_rt_group_s::checkAlive() const {
  if (!isDead())
    return nullptr;
  return makeError(deathCode, "the group is dead: %s", deathMessage.c_str());
}

//===----------------------------------------------------------------------===//
// Agreement
//===----------------------------------------------------------------------===//

static const char *describe(int64_t action) {
  switch (static_cast<Action>(action)) {
  case Action::createGroup:
    return "creates a group";
  case Action::createLayer:
    return "creates a layer";
  case Action::call:
    return "calls a layer";
  case Action::grow:
    return "allocates for a call";
  case Action::moveExperts:
    return "moves the experts of a layer";
  case Action::keepSaved:
    return "keeps what a call has saved";
  case Action::shareMemory:
    return "shares memory";
  }
  return "does something that is not known here";
}

/// Compare what the ranks have said; with `failure`, this one cannot.
moe_rt_status_t moe_rt_group_s::compare(const std::vector<Common> &common,
                                        moe_rt_status_t failure) const {
  const Words &first = heard(0);
  for (size_t r = 1; r < size(); ++r) {
    const Words &words = heard(r);
    if (words.action != first.action)
      return makeError(MOE_RT_INVALID_ARGUMENT,
                       "rank %zu %s while rank 0 %s, expected the same of all "
                       "ranks",
                       r, describe(words.action), describe(first.action));
    if (words.number != first.number)
      return makeError(MOE_RT_INVALID_ARGUMENT,
                       "rank %zu is at agreement %" PRId64
                       " of the group, rank 0 at %" PRId64,
                       r, words.number, first.number);
  }
  if (failure)
    return makeError(moe_rt_status_code(failure), "rank %zu: %s", rank(),
                     moe_rt_status_message(failure));
  for (size_t r = 0; r < size(); ++r) {
    if (heard(r).status == MOE_RT_OK)
      continue;
    auto code = static_cast<moe_rt_code_t>(heard(r).status);
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "rank %zu failed with code %d, %s", r,
                     static_cast<int>(code), moe_rt_code_name(code));
  }
  for (const Common &item : common)
    for (size_t r = 1; r < size(); ++r) {
      int64_t mine = heard(r).values[item.value];
      int64_t expected = first.values[item.value];
      if (mine == expected)
        continue;
      std::string name[2];
      if (item.isLayer)
        for (size_t i = 0; i < 2; ++i) {
          auto layer = static_cast<size_t>(i ? expected : mine);
          if (layer < layerNames.size())
            name[i] = " ('" + layerNames[layer] + "')";
        }
      return makeError(MOE_RT_INVALID_ARGUMENT,
                       "rank %zu has %s %" PRId64 "%s, rank 0 has %" PRId64
                       "%s, expected the same on all ranks",
                       r, item.name, mine, name[0].c_str(), expected,
                       name[1].c_str());
    }
  return nullptr;
}

moe_rt_status_t moe_rt_group_s::agree(Words own, moe_rt_status_t failure,
                                      const std::vector<Common> &common,
                                      const int64_t *counts) {
  moe_rt_status_t status = checkAlive();
  if (!status) {
    own.number = agreements++;
    own.status = moe_rt_status_code(failure);
    stride = readsPeers() ? mostStride : Words::count;
    for (size_t r = 0; r < size(); ++r) {
      *wordsAt(r) = own;
      if (counts)
        wordsAt(r)->values[4] = counts[r];
    }
    if (size() == 1) {
      *wordsAt(1) = *wordsAt(0);
    } else {
      status = start([&](void **request) {
        return communicator.counts(communicator.user, &wordsAt(0)->action,
                                   &wordsAt(size())->action, stride, nullptr,
                                   request);
      });
      if (!status)
        status = wait();
    }
  }
  if (!status)
    status = compare(common, failure);
  moe_rt_status_free(failure);
  return status;
}

//===----------------------------------------------------------------------===//
// The group
//===----------------------------------------------------------------------===//

moe_rt_status_t moe_rt_group_s::initialise() {
  const uint64_t bytes = 2 * size() * mostStride * sizeof(int64_t);
  MOE_RT_TRY(words.grow(bytes, "words of agreements"));
  // Where rows lie is told in some agreements only.
  std::memset(words.data(), 0, bytes);
  return nullptr;
}

moe_rt_group_s::~moe_rt_group_s() {
  // What other ranks may still reach is the engine's.
  for (SharedBuffer *buffer :
       {&home, &gathered, &packed, &received, &words, &places})
    if (!isDead() || buffer->isApart())
      buffer->release();
  if (ownsCommunicator)
    moe_rt_thread_communicators_destroy(&communicator);
}

static moe_rt_status_t
checkCommunicator(const moe_rt_communicator_t &communicator) {
  if (communicator.struct_size != sizeof(moe_rt_communicator_t))
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "communicator: struct_size is %zu, expected %zu",
                     communicator.struct_size, sizeof(moe_rt_communicator_t));
  if (communicator.size < 1 || communicator.rank < 0 ||
      communicator.rank >= communicator.size)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "communicator: rank is %d of %d, expected 0 to size - 1",
                     communicator.rank, communicator.size);
  if (communicator.node_size < 1)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "communicator: node_size is %d, expected at least 1",
                     communicator.node_size);
  if ((communicator.features & MOE_RT_COMMUNICATOR_PEER_MEMORY) != 0 &&
      !communicator.peer)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "communicator: peer is NULL, expected a function, as the "
                     "features have PEER_MEMORY");
  if (!communicator.allocate || !communicator.release || !communicator.counts ||
      !communicator.exchange || !communicator.gather || !communicator.test)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "communicator: a function is NULL, expected allocate, "
                     "release, counts, exchange, gather and test");
  DLDeviceType type = communicator.device.device_type;
  if (type != 0 && type != kDLCPU)
    return makeError(MOE_RT_UNIMPLEMENTED,
                     "communicator: buffers are on device type %d, groups are "
                     "for the CPU (%d) only",
                     static_cast<int>(type), static_cast<int>(kDLCPU));
  return nullptr;
}

static moe_rt_status_t checkOptions(const moe_rt_group_options_t &options) {
  if (options.struct_size != sizeof(moe_rt_group_options_t))
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "group options: struct_size is %zu, expected %zu",
                     options.struct_size, sizeof(moe_rt_group_options_t));
  // Nanoseconds of a deadline are an int64_t.
  if (!(options.deadline_seconds >= 0 && options.deadline_seconds <= 1e9))
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "group options: deadline_seconds is %g, expected 0 to 1e9",
                     options.deadline_seconds);
  if (options.chunks < 0 || options.chunks > mostChunks)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "group options: chunks is %d, expected 0 to %d",
                     options.chunks, mostChunks);
  if (options.way < MOE_RT_WAY_AUTOMATIC || options.way > MOE_RT_WAY_ALL_GATHER)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "group options: way is %d, expected %d to %d", options.way,
                     MOE_RT_WAY_AUTOMATIC, MOE_RT_WAY_ALL_GATHER);
  if (options.tokens < MOE_RT_TOKENS_SHARDED ||
      options.tokens > MOE_RT_TOKENS_REPLICATED)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "group options: tokens is %d, expected %d or %d",
                     options.tokens, MOE_RT_TOKENS_SHARDED,
                     MOE_RT_TOKENS_REPLICATED);
  if (options.way >= MOE_RT_WAY_PEER && options.chunks > 1)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "group options: chunks is %d, expected 0 or 1 for way %d",
                     options.chunks, options.way);
  return nullptr;
}

extern "C" {

moe_rt_status_t moe_rt_group_create(moe_rt_context_t *context,
                                    const moe_rt_communicator_t *communicator,
                                    const moe_rt_group_options_t *options,
                                    moe_rt_group_t **out) {
  if (!context || !out)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "moe_rt_group_create: an argument is NULL");
  moe_rt_group_options_t given = {sizeof(given), 0, 0, 0, 0, 0};
  if (options) {
    MOE_RT_TRY(checkOptions(*options));
    given = *options;
  }
  if (!context->device->hostExecutor())
    return makeError(MOE_RT_UNIMPLEMENTED,
                     "groups are for contexts on the CPU only");
  moe_rt_communicator_t used;
  if (communicator) {
    MOE_RT_TRY(checkCommunicator(*communicator));
    used = *communicator;
  } else {
    MOE_RT_TRY(moe_rt_thread_communicators_create(1, &used));
  }
  std::unique_ptr<moe_rt_group_t> group(new (std::nothrow)
                                            moe_rt_group_t(context, used));
  if (!group) {
    if (!communicator)
      moe_rt_thread_communicators_destroy(&used);
    return makeError(MOE_RT_RESOURCE_EXHAUSTED, "cannot allocate the group");
  }
  group->ownsCommunicator = !communicator;
  if (given.deadline_seconds == 0)
    given.deadline_seconds = defaultDeadline;
  group->deadline = static_cast<int64_t>(given.deadline_seconds * 1e9);
  group->memoryLimit = given.memory_limit;
  group->chunks = std::max(given.chunks, 1);
  MOE_RT_TRY(group->initialise());
  const bool maySharePeers =
      given.way == MOE_RT_WAY_AUTOMATIC || given.way == MOE_RT_WAY_PEER;
  MOE_RT_TRY(group->agree(
      {static_cast<int64_t>(Action::createGroup),
       0,
       0,
       {MOE_RT_ABI_VERSION, communicator ? communicator->node_size : 1,
        group->chunks, given.way,
        int64_t(given.memory_limit > 0) | int64_t(given.tokens) << 1,
        maySharePeers ? used.features & MOE_RT_COMMUNICATOR_PEER_MEMORY : 0}},
      nullptr,
      {{0, "version"},
       {1, "node_size"},
       {2, "chunks"},
       {3, "way"},
       {5, "the feature PEER_MEMORY"}}));
  // Rows to read take the memory of all tokens, in rounds, too.
  bool isLimited = false;
  for (size_t r = 0; r < group->size(); ++r) {
    const int64_t its = group->heard(r).values[4];
    if (its >> 1 != group->heard(0).values[4] >> 1)
      return makeError(MOE_RT_INVALID_ARGUMENT,
                       "rank %zu has option tokens %" PRId64
                       ", rank 0 has %" PRId64
                       ", expected the same on all ranks",
                       r, its >> 1, group->heard(0).values[4] >> 1);
    isLimited |= (its & 1) != 0;
  }
  group->isReplicated = given.tokens == MOE_RT_TOKENS_REPLICATED;
  const bool isAutomatic =
      given.way == MOE_RT_WAY_AUTOMATIC && group->chunks == 1 && !isLimited;
  if (given.way == MOE_RT_WAY_AUTOMATIC && !isAutomatic)
    given.way = MOE_RT_WAY_ALL_TO_ALL;
  MOE_RT_TRY(group->chooseWay(given.way));
  group->mayGather =
      isAutomatic && group->size() > 1 && group->way == MOE_RT_WAY_ALL_TO_ALL;
  *out = group.release();
  return nullptr;
}

void moe_rt_group_destroy(moe_rt_group_t *group) { delete group; }

int32_t moe_rt_group_rank(const moe_rt_group_t *group) {
  return group ? group->communicator.rank : 0;
}

int32_t moe_rt_group_size(const moe_rt_group_t *group) {
  return group ? group->communicator.size : 0;
}

int32_t moe_rt_group_way(const moe_rt_group_t *group) {
  return group ? group->way : MOE_RT_WAY_AUTOMATIC;
}

moe_rt_status_t moe_rt_group_status(moe_rt_group_t *group) {
  if (!group)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "moe_rt_group_status: 'group' is NULL");
  std::lock_guard<std::mutex> lock(group->mutex);
  return group->checkAlive();
}

} // extern "C"
