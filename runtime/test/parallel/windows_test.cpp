//===- windows_test.cpp - Memory that other ranks read --------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "parallel/parallel_testing.h"
#include "parallel/windows/segments.h"

#include <cstring>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace moe::rt;
using namespace moe::test;

namespace {

constexpr uint64_t bytes = 64 << 10;

void meet(Segments &reader, Segments &owner) {
  Segments::Words words;
  std::string why;
  ASSERT_TRUE(owner.describe(words));
  ASSERT_TRUE(reader.meet(1, words, why)) << why;
}

TEST(Segments, AreNoOthersWithTheirNumbers) {
  Segments reader(2);
  Window window;
  {
    Segments first(2);
    meet(reader, first);
    void *memory = first.allocate(bytes);
    window = first.share(memory);
    first.release(memory);
  }
  // Another one of this process gets the same numbers.
  Segments other(2);
  Segments::Words words;
  ASSERT_TRUE(other.describe(words));
  void *memory = other.allocate(bytes);
  EXPECT_EQ(other.share(memory).segment, window.segment);
  EXPECT_EQ(reader.open(1, window, bytes), nullptr);
  other.release(memory);
}

TEST(Segments, LeaveNoMemoryWhereTheyAreMapped) {
  Segments reader(2), owner(2);
  meet(reader, owner);
  void *memory = owner.allocate(bytes);
  std::memset(memory, 1, bytes);
  const char *seen = reader.open(1, owner.share(memory), bytes);
  ASSERT_NE(seen, nullptr);
  EXPECT_EQ(seen[bytes - 1], 1);
  owner.release(memory);
  EXPECT_EQ(seen[bytes - 1], 0) << "pages are still there";
}

TEST(Segments, StayWhereACopyOfTheProcessReleasesThem) {
  Segments owner(2);
  void *memory = owner.allocate(bytes);
  std::memset(memory, 1, bytes);
  pid_t child = fork();
  if (child == 0) {
    owner.release(memory);
    _exit(0);
  }
  int status = -1;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(static_cast<char *>(memory)[bytes - 1], 1);
  owner.release(memory);
}

TEST(Segments, AreNoneWhereFilesHaveALimit) {
  Segments owner(2);
  Segments::Words words;
  ASSERT_TRUE(owner.describe(words));
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit limit = {bytes - 1, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  EXPECT_EQ(owner.allocate(bytes), nullptr);
  EXPECT_FALSE(Segments(2).describe(words));
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  void *memory = owner.allocate(bytes);
  EXPECT_NE(memory, nullptr);
  owner.release(memory);
}

/// What rank 1 tells of the places of its rows, of which there are two values.
enum class Lie { begin, before, wraps, offset, index, files, segment };

struct Liar {
  moe_rt_communicator_t inner;
  Lie lie;

  /// Let another index lie where this one does.
  static void overwrite(int64_t segment, int64_t offset) {
    std::string path = "/proc/self/fd/" + std::to_string(segment & INT32_MAX);
    int file = open(path.c_str(), O_RDWR);
    ASSERT_GE(file, 0);
    int32_t rows[] = {INT32_MAX, -5};
    EXPECT_EQ(pwrite(file, rows, sizeof(rows), offset),
              static_cast<ssize_t>(sizeof(rows)));
    close(file);
  }

  void change(int64_t *words) const {
    // source segment and offset, those of the index, the first row
    switch (lie) {
    case Lie::begin:
      words[4] = 1 << 20;
      break;
    case Lie::before: // ends where the segment begins
      words[3] = 0;
      words[4] = -20;
      break;
    case Lie::wraps: // times the bytes of an index it is nothing
      words[4] = INT64_MIN / 2;
      break;
    case Lie::offset:
      words[3] = 1 << 30;
      break;
    case Lie::index:
      overwrite(words[2], words[3]);
      break;
    case Lie::files: // the same, of another segment
      words[0] = words[2] ^ int64_t(1) << 40;
      break;
    case Lie::segment:
      words[0] ^= int64_t(1) << 40;
      break;
    }
  }

  moe_rt_communicator_t communicator() {
    moe_rt_communicator_t result = inner;
    result.user = this;
    result.features = 0;
    result.peer = nullptr;
#define SELF static_cast<Liar *>(user)
    result.allocate = [](void *user, uint64_t size) {
      return SELF->inner.allocate(SELF->inner.user, size);
    };
    result.release = [](void *user, void *memory, uint64_t size) {
      SELF->inner.release(SELF->inner.user, memory, size);
    };
    result.counts = [](void *user, const int64_t *send, int64_t *receive,
                       int32_t each, void *stream, void **request) {
      if (SELF->inner.rank == 1 && each == 10)
        for (int32_t r = 0; r < SELF->inner.size; ++r)
          SELF->change(const_cast<int64_t *>(send) + r * each);
      return SELF->inner.counts(SELF->inner.user, send, receive, each, stream,
                                request);
    };
    result.test = [](void *user, void *request) {
      return SELF->inner.test(SELF->inner.user, request);
    };
    result.abort = [](void *user) { SELF->inner.abort(SELF->inner.user); };
    result.message = [](void *user) {
      return SELF->inner.message(SELF->inner.user);
    };
#undef SELF
    return result;
  }
};

TEST(Windows, AreReadWhereTheyAreOnly) {
  Problem problem(3, 40);
  for (Lie lie : {Lie::begin, Lie::before, Lie::wraps, Lie::offset, Lie::index,
                  Lie::files, Lie::segment})
    runRanks(2, [&](int32_t r, const moe_rt_communicator_t &communicator) {
      Liar liar = {communicator, lie};
      moe_rt_communicator_t lies = liar.communicator();
      moe_rt_group_options_t options = {sizeof(options), 5, 0, 0,
                                        MOE_RT_WAY_PEER, 0};
      Rank rank(&lies, &options);
      ASSERT_EQ(rank.created.code, MOE_RT_OK) << rank.created.message;
      ASSERT_OK(rank.load({}));
      ASSERT_OK(rank.create(problem, nullptr));
      std::vector<float> y;
      EXPECT_ERROR(rank.call(problem, 20 * r, 20 * r + 20, y),
                   MOE_RT_UNAVAILABLE,
                   r == 0 ? "rank 0 cannot read the memory of rank 1"
                          : "rank 0 has given up");
    });
}

} // namespace
