//===- thread_communicator.cpp - Ranks that are threads -------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe_rt/group.h"
#include "support/buffer.h"

#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <string>
#include <vector>

using namespace moe::rt;

namespace {

struct Collective;

/// What one rank does in a collective; the request of the communicator.
struct Part {
  enum class Kind { counts, exchange, gather };

  Kind kind = Kind::counts;
  const char *send = nullptr;
  char *receive = nullptr;
  uint64_t rowBytes = 0;
  std::vector<int64_t> sendRows, sendBegins, receiveRows, receiveBegins;
  bool isCopied = false;
  Collective *collective = nullptr;
};

/// A collective of all ranks. Each copies what is for it; all buffers are free
/// when all have.
struct Collective {
  uint64_t number;
  std::vector<Part> parts;
  size_t posted = 0, copied = 0, ended = 0;
  bool isChecked = false;
};

class Meeting;

/// One rank of it.
struct Member {
  Meeting *meeting;
  size_t rank;
};

/// What the threads share.
class Meeting {
public:
  explicit Meeting(size_t ranks) : ranks(ranks), next(ranks) {
    for (size_t r = 0; r < ranks; ++r)
      members.push_back({this, r});
  }
  ~Meeting();

  int32_t post(size_t rank, Part part, void **request);
  int32_t test(size_t rank, Part &part);
  void fail(const std::string &why);

  void *allocate(uint64_t bytes);
  void release(void *memory, uint64_t bytes);

  const size_t ranks;
  std::vector<Member> members;
  std::mutex mutex;
  std::string reason; // of the failure

private:
  bool check(Collective &collective);
  void copy(size_t rank, const Collective &collective) const;

  bool failed = false;
  std::vector<uint64_t> next; // the number of each rank's next collective
  std::map<uint64_t, Collective> collectives;
  std::map<void *, uint64_t> memory;
};

} // namespace

static size_t alignmentOf(uint64_t bytes) {
  return bytes < hugePage ? bufferAlignment : hugePage;
}

Meeting::~Meeting() {
  // What a failure has left.
  for (auto &[address, bytes] : memory)
    defaultAllocator.release(nullptr, address, bytes);
}

void *Meeting::allocate(uint64_t bytes) {
  void *address = defaultAllocator.allocate(nullptr, bytes, alignmentOf(bytes));
  if (!address)
    return nullptr;
  std::lock_guard<std::mutex> lock(mutex);
  memory[address] = bytes;
  return address;
}

void Meeting::release(void *address, uint64_t bytes) {
  {
    std::lock_guard<std::mutex> lock(mutex);
    memory.erase(address);
  }
  defaultAllocator.release(nullptr, address, bytes);
}

void Meeting::fail(const std::string &why) {
  std::lock_guard<std::mutex> lock(mutex);
  if (!failed)
    reason = why;
  failed = true;
}

int32_t Meeting::post(size_t rank, Part part, void **request) {
  std::lock_guard<std::mutex> lock(mutex);
  if (failed)
    return -1;
  uint64_t number = next[rank]++;
  Collective &collective = collectives[number];
  collective.number = number;
  collective.parts.resize(ranks);
  part.collective = &collective;
  collective.parts[rank] = std::move(part);
  ++collective.posted;
  *request = &collective.parts[rank];
  return 0;
}

/// Whether all ranks do the same, and expect what the others send.
bool Meeting::check(Collective &collective) {
  if (collective.isChecked)
    return true;
  collective.isChecked = true;
  const Part &first = collective.parts[0];
  for (size_t r = 0; r < ranks; ++r) {
    const Part &part = collective.parts[r];
    if (part.kind != first.kind || part.rowBytes != first.rowBytes) {
      reason = "ranks 0 and " + std::to_string(r) +
               " have started different collectives";
      return false;
    }
    for (size_t s = 0; s < ranks; ++s)
      if (part.sendRows[s] != collective.parts[s].receiveRows[r]) {
        reason = "rank " + std::to_string(r) + " sends " +
                 std::to_string(part.sendRows[s]) + " rows to rank " +
                 std::to_string(s) + ", which expects " +
                 std::to_string(collective.parts[s].receiveRows[r]);
        return false;
      }
  }
  return true;
}

void Meeting::copy(size_t rank, const Collective &collective) const {
  const Part &mine = collective.parts[rank];
  for (size_t r = 0; r < ranks; ++r) {
    const Part &other = collective.parts[r];
    if (uint64_t bytes =
            static_cast<uint64_t>(mine.receiveRows[r]) * mine.rowBytes)
      std::memcpy(mine.receive + static_cast<uint64_t>(mine.receiveBegins[r]) *
                                     mine.rowBytes,
                  other.send + static_cast<uint64_t>(other.sendBegins[rank]) *
                                   mine.rowBytes,
                  bytes);
  }
}

int32_t Meeting::test(size_t rank, Part &part) {
  Collective &collective = *part.collective;
  std::unique_lock<std::mutex> lock(mutex);
  if (failed)
    return -1;
  if (collective.posted < ranks)
    return 0;
  if (!check(collective)) {
    failed = true;
    return -1;
  }
  if (!part.isCopied) {
    lock.unlock();
    copy(rank, collective);
    lock.lock();
    part.isCopied = true;
    ++collective.copied;
    if (failed)
      return -1;
  }
  if (collective.copied < ranks)
    return 0;
  if (++collective.ended == ranks)
    collectives.erase(collective.number);
  return 1;
}

//===----------------------------------------------------------------------===//
// The communicator
//===----------------------------------------------------------------------===//

static Member &memberOf(void *user) { return *static_cast<Member *>(user); }

static int32_t start(void *user, Part part, void **request) {
  const Member &member = memberOf(user);
  return member.meeting->post(member.rank, std::move(part), request);
}

static std::vector<int64_t> listOf(const int64_t *values, size_t count) {
  return std::vector<int64_t>(values, values + count);
}

static std::vector<int64_t> beginsOf(const std::vector<int64_t> &rows) {
  std::vector<int64_t> begins;
  int64_t begin = 0;
  for (int64_t count : rows) {
    begins.push_back(begin);
    begin += count;
  }
  return begins;
}

static int32_t startCounts(void *user, const int64_t *send, int64_t *receive,
                           int32_t each, void *, void **request) {
  std::vector<int64_t> one(memberOf(user).meeting->ranks, 1);
  std::vector<int64_t> begins = beginsOf(one);
  return start(user,
               {Part::Kind::counts, reinterpret_cast<const char *>(send),
                reinterpret_cast<char *>(receive),
                sizeof(int64_t) * static_cast<uint64_t>(each), one, begins, one,
                begins, false, nullptr},
               request);
}

static int32_t startExchange(void *user, const void *send,
                             const int64_t *sendRows, const int64_t *sendBegins,
                             void *receive, const int64_t *receiveRows,
                             const int64_t *receiveBegins, uint64_t rowBytes,
                             void *, void **request) {
  size_t ranks = memberOf(user).meeting->ranks;
  return start(user,
               {Part::Kind::exchange, static_cast<const char *>(send),
                static_cast<char *>(receive), rowBytes, listOf(sendRows, ranks),
                listOf(sendBegins, ranks), listOf(receiveRows, ranks),
                listOf(receiveBegins, ranks), false, nullptr},
               request);
}

static int32_t startGather(void *user, const void *send, void *receive,
                           const int64_t *rows, uint64_t rowBytes, void *,
                           void **request) {
  const Member &member = memberOf(user);
  size_t ranks = member.meeting->ranks;
  std::vector<int64_t> all = listOf(rows, ranks);
  return start(user,
               {Part::Kind::gather, static_cast<const char *>(send),
                static_cast<char *>(receive), rowBytes,
                std::vector<int64_t>(ranks, rows[member.rank]),
                std::vector<int64_t>(ranks, 0), all, beginsOf(all), false,
                nullptr},
               request);
}

static int32_t testRequest(void *user, void *request) {
  const Member &member = memberOf(user);
  return member.meeting->test(member.rank, *static_cast<Part *>(request));
}

static void abortAll(void *user) {
  const Member &member = memberOf(user);
  member.meeting->fail("rank " + std::to_string(member.rank) + " has given up");
}

static const char *messageOf(void *user) {
  Meeting &meeting = *memberOf(user).meeting;
  std::lock_guard<std::mutex> lock(meeting.mutex);
  return meeting.reason.empty() ? nullptr : meeting.reason.c_str();
}

extern "C" {

moe_rt_status_t moe_rt_thread_communicators_create(int32_t count,
                                                   moe_rt_communicator_t *out) {
  if (count < 1 || !out)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "moe_rt_thread_communicators_create: count is %d and out "
                     "is %p, expected at least 1 and an array",
                     count, static_cast<void *>(out));
  auto *meeting = new (std::nothrow) Meeting(static_cast<size_t>(count));
  if (!meeting)
    return makeError(MOE_RT_RESOURCE_EXHAUSTED,
                     "cannot allocate the communicators");
  for (int32_t r = 0; r < count; ++r)
    out[r] = {sizeof(moe_rt_communicator_t),
              &meeting->members[static_cast<size_t>(r)],
              r,
              count,
              count,
              MOE_RT_COMMUNICATOR_PEER_MEMORY | MOE_RT_COMMUNICATOR_POLLED,
              {kDLCPU, 0},
              [](void *user, uint64_t bytes) {
                return memberOf(user).meeting->allocate(bytes);
              },
              [](void *user, void *memory, uint64_t bytes) {
                memberOf(user).meeting->release(memory, bytes);
              },
              startCounts,
              startExchange,
              startGather,
              [](void *, int32_t, void *memory) { return memory; },
              testRequest,
              abortAll,
              messageOf};
  return nullptr;
}

void moe_rt_thread_communicators_destroy(moe_rt_communicator_t *communicators) {
  if (communicators)
    delete memberOf(communicators->user).meeting;
}

} // extern "C"
