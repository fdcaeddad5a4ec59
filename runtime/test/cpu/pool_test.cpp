//===- pool_test.cpp - The pool of threads --------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "cpu/threads/pool.h"
#include "testing.h"

#include <array>
#include <chrono>
#include <cstring>
#include <ctime>
#include <sched.h>
#include <set>
#include <sys/resource.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

using namespace moe::rt;
using namespace moe::test;

namespace {

/// A pool of a machine that has as many cores.
struct Pool : private Cores, ThreadPool {
  explicit Pool(int64_t threads) : Cores(threads), ThreadPool(threads, *this) {}
};

/// Runs `task(i)` for each i below `count`.
template <typename Task>
void parallelFor(Pool &pool, int64_t count, Task task) {
  pool.parallelFor(
      count,
      [](void *context, int64_t index) {
        (*static_cast<Task *>(context))(index);
      },
      &task);
}

/// How often each of `count` tasks ran. Not atomic: two runs of one task, or a
/// region that ends too early, are a race that a sanitizer sees.
std::vector<int> runsOf(Pool &pool, int64_t count) {
  std::vector<int> runs(static_cast<size_t>(count));
  parallelFor(pool, count, [&](int64_t i) { ++runs[static_cast<size_t>(i)]; });
  return runs;
}

std::vector<int> once(int64_t count) {
  return std::vector<int>(static_cast<size_t>(count), 1);
}

TEST(PoolTest, RunsEveryTaskOnce) {
  for (int64_t threads : {1, 2, 3, 8}) {
    Pool pool(threads);
    for (int64_t count : {0, 1, 2, 3, 7, 64, 1000})
      for (int repeat = 0; repeat < 20; ++repeat)
        ASSERT_EQ(runsOf(pool, count), once(count)) << threads;
  }
}

TEST(PoolTest, StartsThreadsWhenTheyAreNeeded) {
  Pool pool(3);
  runsOf(pool, 1);
  EXPECT_EQ(pool.threadCount(), 0u);
  runsOf(pool, 2);
  EXPECT_EQ(pool.threadCount(), 2u);
  Pool alone(1);
  runsOf(alone, 100);
  EXPECT_EQ(alone.threadCount(), 0u);
}

TEST(PoolTest, TasksRunAtTheSameTime) {
  Pool pool(4);
  std::atomic<int> arrived{0};
  // Each waits for all the others.
  parallelFor(pool, 4, [&](int64_t) {
    ++arrived;
    while (arrived < 4)
      std::this_thread::yield();
  });
  EXPECT_EQ(arrived, 4);
}

TEST(PoolTest, WakesThreadsThatSleep) {
  Pool pool(2);
  for (int i = 0; i < 20; ++i) {
    std::atomic<int> arrived{0};
    parallelFor(pool, 2, [&](int64_t) {
      ++arrived;
      while (arrived < 2)
        std::this_thread::yield();
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

#if defined(__linux__)
/// The core of each thread of a region of two.
std::array<int, 2> coresOf(Pool &pool) {
  std::array<int, 2> cores = {-1, -1};
  std::atomic<int> arrived{0};
  parallelFor(pool, 2, [&](int64_t i) {
    ++arrived;
    while (arrived < 2)
      std::this_thread::yield();
    cores[static_cast<size_t>(i)] = sched_getcpu();
  });
  return cores;
}

TEST(PoolTest, AThreadLeavesTheCoreOfAnother) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
  if (CPU_COUNT(&before) < 2)
    GTEST_SKIP() << "needs two cores";
  Pool pool(2);
  pid_t caller = gettid(), worker = 0;
  std::atomic<int> arrived{0};
  parallelFor(pool, 2, [&](int64_t) {
    ++arrived;
    while (arrived < 2)
      std::this_thread::yield();
    if (gettid() != caller)
      worker = gettid();
  });
  // The caller stays where it is; the worker is put there and may leave.
  cpu_set_t here;
  CPU_ZERO(&here);
  CPU_SET(sched_getcpu(), &here);
  ASSERT_EQ(sched_setaffinity(0, sizeof(here), &here), 0);
  for (int i = 0; i < 20; ++i) {
    // Moves rest for as long.
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    ASSERT_EQ(sched_setaffinity(worker, sizeof(here), &here), 0);
    ASSERT_EQ(sched_setaffinity(worker, sizeof(before), &before), 0);
    std::array<int, 2> cores = coresOf(pool);
    EXPECT_NE(cores[0], cores[1]) << i;
    cpu_set_t after;
    ASSERT_EQ(sched_getaffinity(worker, sizeof(after), &after), 0);
    EXPECT_TRUE(CPU_EQUAL(&before, &after)) << "is bound";
  }
  // Where there is but this core, both work there.
  ASSERT_EQ(sched_setaffinity(worker, sizeof(here), &here), 0);
  std::array<int, 2> cores = coresOf(pool);
  EXPECT_EQ(cores[0], cores[1]);
  ASSERT_EQ(sched_setaffinity(0, sizeof(before), &before), 0);
}
#endif

/// The exit status of `body` in a child process; -1 if it did not exit.
template <typename Body> int inChild(Body body) {
  pid_t child = fork();
  if (child == 0)
    _exit(body());
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#if !defined(__SANITIZE_THREAD__)
TEST(PoolTest, AChildOfForkHasAPoolOfItsOwn) {
  std::shared_ptr<ThreadPool> pool = ThreadPool::get(0);
  pool->parallelFor(9, [](void *, int64_t) {}, nullptr);
  EXPECT_EQ(inChild([&] { return ThreadPool::get(0) != pool ? 0 : 1; }), 0);
}
#endif

TEST(PoolTest, ContextsShareThreads) {
  std::shared_ptr<ThreadPool> pool = ThreadPool::get(0);
  EXPECT_EQ(ThreadPool::get(0), pool);
  EXPECT_NE(ThreadPool::get(2), pool);
  Context first, second;
  // This, and that of each context.
  EXPECT_EQ(pool.use_count(), 3);
}

TEST(PoolTest, CoresAreClaimed) {
  Cores cores(4);
  EXPECT_EQ(cores.claim(3), 3);
  EXPECT_TRUE(cores.hasOneFor(2, 3));
  EXPECT_EQ(cores.claim(2), 1) << "one is left";
  EXPECT_TRUE(cores.hasOneFor(2, 3));
  EXPECT_EQ(cores.claim(1), 1) << "a caller runs in any case";
  EXPECT_FALSE(cores.hasOneFor(2, 3));
  EXPECT_TRUE(cores.hasOneFor(1, 3));
  cores.release(1);
  EXPECT_TRUE(cores.hasOneFor(2, 3));
  cores.release(1);
  cores.release(3);
  EXPECT_EQ(cores.claim(2), 2);
  EXPECT_EQ(cores.claim(2), 2) << "side by side";
  cores.release(2);
  cores.release(2);
  EXPECT_EQ(cores.claim(9), 9) << "as the caller says, if it is alone";
  EXPECT_TRUE(cores.hasOneFor(8, 9));
}

TEST(PoolTest, NestedRegions) {
  Pool pool(4);
  std::vector<std::vector<int>> runs(8);
  parallelFor(pool, 8, [&](int64_t i) {
    runs[static_cast<size_t>(i)] = runsOf(pool, 50);
  });
  for (const std::vector<int> &inner : runs)
    EXPECT_EQ(inner, once(50));
}

TEST(PoolTest, RegionsOfSeveralThreads) {
  Pool pool(3);
  std::atomic<int> failures{0};
  std::vector<std::thread> hosts;
  for (int i = 0; i < 4; ++i)
    hosts.emplace_back([&] {
      for (int64_t count = 0; count < 2000; ++count)
        failures += runsOf(pool, count % 9) != once(count % 9);
    });
  for (std::thread &host : hosts)
    host.join();
  EXPECT_EQ(failures, 0);
}

TEST(PoolTest, ManyShortRegions) {
  // Workers that are late for a region must not harm it or the next.
  Pool pool(8);
  int64_t total = 0;
  for (int i = 0; i < 50000; ++i) {
    std::atomic<int64_t> sum{0};
    parallelFor(pool, 2, [&](int64_t j) { sum += j + 1; });
    total += sum;
  }
  EXPECT_EQ(total, 150000);
}

double processorSeconds() {
  timespec time;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) +
         static_cast<double>(time.tv_nsec) * 1e-9;
}

TEST(PoolTest, BurnsNothingWhenIdle) {
  Pool pool(4);
  runsOf(pool, 100);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  double before = processorSeconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_LT(processorSeconds() - before, 0.02);
}

TEST(PoolTest, TasksHaveTheirStack) {
  Pool pool(3);
  parallelFor(pool, 64, [](int64_t) {
    volatile char buffer[256 << 10];
    for (size_t i = 0; i < sizeof(buffer); i += 4096)
      buffer[i] = 1;
  });
}

#if !defined(__SANITIZE_THREAD__)
TEST(PoolTest, SurvivesFork) {
  Pool *pool = new Pool(4);
  runsOf(*pool, 100);
  EXPECT_EQ(inChild([&] {
              bool good = runsOf(*pool, 100) == once(100);
              delete pool; // joins nobody
              // One that starts here has threads.
              Pool own(2);
              good &= runsOf(own, 100) == once(100);
              return good && own.threadCount() == 1 ? 0 : 1;
            }),
            0);
  EXPECT_EQ(runsOf(*pool, 100), once(100));
  delete pool;
}
#endif

#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
TEST(PoolTest, ManagesWithoutThreads) {
  EXPECT_EQ(inChild([] {
              // No address space for stacks, but for a few that the C
              // library still has.
              rlimit limit;
              getrlimit(RLIMIT_AS, &limit);
              limit.rlim_cur = 1 << 20;
              if (setrlimit(RLIMIT_AS, &limit) != 0)
                return 2;
              Pool pool(1000);
              static int runs[100];
              parallelFor(pool, 100, [](int64_t i) { ++runs[i]; });
              for (int count : runs)
                if (count != 1)
                  return 3;
              return pool.threadCount() < 999 ? 0 : 4;
            }),
            0);
}
#endif

#if defined(__linux__)
TEST(PoolTest, UsableCoresFollowTheAffinity) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
  CgroupFiles none = {"", ""};
  EXPECT_EQ(usableCores(none), CPU_COUNT(&before));
  EXPECT_GE(usableCores(), 1);
  EXPECT_LE(usableCores(), CPU_COUNT(&before));
  EXPECT_EQ(inChild([&] {
              cpu_set_t one;
              CPU_ZERO(&one);
              for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++i)
                if (CPU_ISSET(i, &before))
                  CPU_SET(i, &one);
              sched_setaffinity(0, sizeof(one), &one);
              return static_cast<int>(usableCores());
            }),
            1);
}

TEST(PoolTest, UsableCoresFollowTheCgroup) {
  TemporaryDirectory directory;
  CgroupFiles files = {directory / "groups", directory / "mounts"};
  writeFile(files.groups, "0::/\n");
  writeFile(files.mounts,
            "1 0 0:1 / " + directory.path + " rw - cgroup2 cgroup2 rw\n");
  writeFile(directory / "cpu.max", "5000 100000\n");
  EXPECT_EQ(usableCores(files), 1);
  writeFile(directory / "cpu.max", "100000000 100000\n");
  EXPECT_EQ(usableCores(files), usableCores({"", ""}));
}
#endif

} // namespace
