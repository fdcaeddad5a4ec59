//===- group.h - Ranks that run layers together -----------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_PARALLEL_GROUP_H
#define MOE_RT_SRC_PARALLEL_GROUP_H

#include "core/context.h"
#include "parallel/poller.h"
#include "parallel/windows/segments.h"
#include "support/buffer.h"

#include "moe_rt/group.h"

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace moe::rt {

/// What a rank is about to do, as it tells the others. All of it goes by one
/// kind of collective, so that ranks that do different things meet.
enum class Action : int64_t {
  createGroup = 1,
  createLayer,
  call,
  grow,
  moveExperts,
  keepSaved,
  shareMemory
};

/// What a rank tells each other rank before they do something together.
struct Words {
  static constexpr int32_t count = 9;

  int64_t action;
  int64_t status; // a moe_rt_code_t; anything but OK: it cannot
  int64_t number; // of the agreement in the group
  /// Depends on the action.
  int64_t values[6];
};
static_assert(sizeof(Words) == Words::count * sizeof(int64_t));

/// A word that has to be the same on all ranks.
struct Common {
  size_t value; // in Words::values
  const char *name;
  bool isLayer = false; // its number in the group
};

/// Memory of the communicator. It grows and is kept; after a failure it is the
/// engine's.
class SharedBuffer {
public:
  explicit SharedBuffer(const moe_rt_communicator_t &communicator)
      : communicator(communicator) {}

  /// Allocate from there, not from the communicator.
  void use(Segments *itsSegments) { segments = itsSegments; }
  /// Whether it can be released after a failure: what others read is theirs.
  bool isApart() const { return segments != nullptr; }

  moe_rt_status_t grow(uint64_t wanted, const char *what);
  void release();
  /// What `grow` aligns to `alignment`.
  char *data() const { return memory; }
  uint64_t bytes() const { return size; }

private:
  const moe_rt_communicator_t &communicator;
  Segments *segments = nullptr;
  char *memory = nullptr;
  uint64_t size = 0;
};

/// Where a value lies that another rank reads rows of, as it is told.
struct SharedRows {
  Window source, index; // no index: segment and offset are 0
  int64_t begin;        // of the rows for that rank, in the index or the source

  static constexpr int32_t words = 5;
};
static_assert(sizeof(SharedRows) == SharedRows::words * sizeof(int64_t));

} // namespace moe::rt

struct moe_rt_group_s {
  using Common = moe::rt::Common;
  using Words = moe::rt::Words;
  using SharedRows = moe::rt::SharedRows;
  using Window = moe::rt::Window;

  moe_rt_group_s(moe_rt_context_t *context,
                 const moe_rt_communicator_t &communicator)
      : context(context), communicator(communicator), home(this->communicator),
        gathered(this->communicator), packed(this->communicator),
        received(this->communicator), workspace(context->allocator),
        words(this->communicator), places(this->communicator) {}
  ~moe_rt_group_s();

  size_t size() const { return static_cast<size_t>(communicator.size); }
  size_t rank() const { return static_cast<size_t>(communicator.rank); }

  /// Allocate what agreements need.
  moe_rt_status_t initialise();
  /// Find whether the ranks can read the memory of one another, and whether
  /// they do.
  moe_rt_status_t chooseWay(int32_t wanted);
  /// Whether rows are read where they lie.
  bool readsPeers() const { return way == MOE_RT_WAY_PEER; }

  /// Start a collective with `start`, which is given the request.
  template <typename Start>
  moe_rt_status_t start(Start start, int64_t label = 0) {
    void *request = nullptr;
    if (hasFailed() || start(&request) < 0)
      return failEngine();
    pending.push_back({request, label, 0});
    return nullptr;
  }
  /// Whether the engine says that it has failed, as when a rank has given up.
  bool hasEngineFailed() const;
  /// End the group with what the engine says.
  moe_rt_status_t failEngine();
  /// Wait for all that has been started, or with a label.
  moe_rt_status_t wait(std::optional<int64_t> label = std::nullopt);
  /// Between these the caller computes; what is pending goes on.
  void beginPolling();
  void endPolling();

  /// Tell all ranks `own`, `counts[r]` of which, if it is given, is values[4]
  /// for rank r, and hear what they say (`heard`). If a rank cannot, does
  /// something else, or has another value of what is common, that is an error
  /// on all. A rank that cannot gets `failure` back, with its own code.
  moe_rt_status_t agree(Words own, moe_rt_status_t failure,
                        const std::vector<Common> &common,
                        const int64_t *counts = nullptr);
  const Words &heard(size_t rank) const { return *wordsAt(size() + rank); }
  /// Where rows are read where they lie, an agreement also tells where the
  /// first ones are, up to so many values: they need no collective of their
  /// own. To be filled in before it.
  static constexpr size_t mostCarried = 3;
  SharedRows *carriedTo(size_t rank) {
    stride = readsPeers() ? mostStride : Words::count;
    return reinterpret_cast<SharedRows *>(wordsAt(rank) + 1);
  }
  const SharedRows *carriedOf(size_t rank) const {
    return reinterpret_cast<const SharedRows *>(wordsAt(size() + rank) + 1);
  }

  // Reading rows of other ranks. Before the ranks meet, `reservePlaces` makes
  // room for so many values; then `toldTo` is filled in and told, and `heardOf`
  // is what the others have told.
  moe_rt_status_t reservePlaces(size_t values);
  SharedRows *toldTo(size_t rank, size_t values) const {
    return reinterpret_cast<SharedRows *>(places.data()) + rank * values;
  }
  const SharedRows *heardOf(size_t rank, size_t values) const {
    return toldTo(size() + rank, values);
  }
  moe_rt_status_t startTelling(size_t values);
  /// Let the others know that this rank has read all, and wait for them.
  moe_rt_status_t endReading();
  Window share(const void *address) const;
  /// The address here of memory of another rank; null is an error of the group.
  const char *open(size_t rank, const Window &window, uint64_t bytes);
  /// How many there were, the same on all ranks.
  int64_t agreementCount() const { return agreements; }

  /// The error of a dead group, or null.
  moe_rt_status_t checkAlive() const;
  /// End the group with an error, which it returns.
  moe_rt_status_t kill(moe_rt_code_t code, const std::string &why);
  bool isDead() const { return deathCode != MOE_RT_OK; }

  moe_rt_context_t *const context;
  moe_rt_communicator_t communicator;
  bool ownsCommunicator = false;
  int64_t deadline = 0; // nanoseconds
  uint64_t memoryLimit = 0;
  int64_t chunks = 1;                  // of a call, at most
  int32_t way = MOE_RT_WAY_ALL_TO_ALL; // that rows travel by
  /// Whether layers may take MOE_RT_WAY_ALL_GATHER in place of it.
  bool mayGather = false;
  bool isReplicated = false;           // all ranks have the same tokens
  std::mutex mutex;                    // of all below: one thing at a time
  std::vector<std::string> layerNames; // of all layers so far

  // Memory of calls: values of this rank's tokens, values of all tokens, rows
  // that are sent, those that are received, and what no collective uses.
  moe::rt::SharedBuffer home, gathered, packed, received;
  moe::rt::Buffer workspace;

private:
  /// A collective that is pending.
  struct Pending {
    void *request;
    int64_t label;
    int32_t state; // what `test` has returned
  };

  bool testPending();
  /// Whether a failure was seen while this rank computed.
  bool hasFailed() const;
  moe_rt_status_t compare(const std::vector<Common> &common,
                          moe_rt_status_t failure) const;

  /// The words for each rank, then those from each.
  Words *wordsAt(size_t index) const {
    return reinterpret_cast<Words *>(
        words.data() + index * static_cast<size_t>(stride) * sizeof(int64_t));
  }
  static constexpr int32_t mostStride =
      Words::count + static_cast<int32_t>(mostCarried) * SharedRows::words;

  moe::rt::SharedBuffer words, places;
  int32_t stride = Words::count; // of the words of the last agreement
  std::unique_ptr<moe::rt::Segments> segments;
  std::vector<Pending> pending;
  moe::rt::Poller poller{[this] { return testPending(); }};
  int64_t agreements = 0;
  moe_rt_code_t deathCode = MOE_RT_OK;
  std::string deathMessage;
};

#endif // MOE_RT_SRC_PARALLEL_GROUP_H
