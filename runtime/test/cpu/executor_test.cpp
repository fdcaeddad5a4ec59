//===- executor_test.cpp - What all executors promise ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "cpu/threads/pool.h"
#include "moe_rt/openmp.h"
#include "testing.h"

#include <chrono>
#include <dlfcn.h>
#include <mutex>
#include <numeric>
#include <set>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

using namespace moe::rt;
using namespace moe::test;

namespace {

// GCC's runtime, which the machines that build this have.
constexpr char libgomp[] = "libgomp.so.1";

/// A runtime's functions for a host that uses it.
struct OpenMP {
  explicit OpenMP(const char *name)
      : name(name), library(dlopen(name, RTLD_NOW | RTLD_LOCAL)) {}

  const char *name;
  void *library;

  template <typename Fn> Fn *find(const char *symbol) const {
    return reinterpret_cast<Fn *>(dlsym(library, symbol));
  }
  void setThreads(int count) const {
    find<void(int)>("omp_set_num_threads")(count);
  }
};

enum class Kind { Pool, GCC, LLVM };

const OpenMP &openMP(Kind kind = Kind::GCC) {
  static const OpenMP gcc(libgomp), llvm(FAKE_OPENMP);
  return kind == Kind::GCC ? gcc : llvm;
}

/// An executor of two threads, on a machine that has no more to give.
class ExecutorTest : public ::testing::TestWithParam<Kind> {
protected:
  void SetUp() override {
    taken = std::max<int64_t>(0, usableCores() - 2);
    // As regions do, of which each has one core at least.
    for (int64_t i = 0; i < taken; ++i)
      Cores::ofProcess()->claim(1);
    if (GetParam() == Kind::Pool) {
      pool = ThreadPool::get(2);
      executor = pool->executor();
      return;
    }
    const OpenMP &openmp = openMP(GetParam());
    if (!openmp.library)
      GTEST_SKIP() << "there is no " << openmp.name;
    if (usableCores() < 2)
      GTEST_SKIP() << "there is one core";
    setUpThread();
    ASSERT_OK(moe_rt_openmp_executor(openmp.name, &executor));
  }
  void TearDown() override {
    Cores::ofProcess()->release(taken);
    if (GetParam() != Kind::Pool && openMP(GetParam()).library)
      openMP(GetParam()).setThreads(1);
  }

  /// What a thread of the host does before its first region.
  static void setUpThread() {
    if (GetParam() != Kind::Pool)
      openMP(GetParam()).setThreads(2);
  }
  /// Runs `task(i)` for each i below `count`.
  template <typename Task> void run(int64_t count, Task task) const {
    executor.parallel_for(
        executor.user, count,
        [](void *context, int64_t index) {
          (*static_cast<Task *>(context))(index);
        },
        &task);
  }
  /// How often each task ran. Not atomic: two runs of one task are a race.
  std::vector<int> runsOf(int64_t count) const {
    std::vector<int> runs(static_cast<size_t>(count));
    run(count, [&](int64_t i) { ++runs[static_cast<size_t>(i)]; });
    return runs;
  }
  static std::vector<int> once(int64_t count) {
    return std::vector<int>(static_cast<size_t>(count), 1);
  }
  moe_rt_context_options_t options() const {
    return {sizeof(moe_rt_context_options_t), {}, 0, &executor, {}};
  }

  int64_t taken = 0;
  std::shared_ptr<ThreadPool> pool;
  moe_rt_executor_t executor;
};

INSTANTIATE_TEST_SUITE_P(, ExecutorTest,
                         ::testing::Values(Kind::Pool, Kind::GCC, Kind::LLVM),
                         [](const auto &info) {
                           return info.param == Kind::Pool  ? "Pool"
                                  : info.param == Kind::GCC ? "GCC"
                                                            : "LLVM";
                         });

TEST_P(ExecutorTest, RunsEveryTaskOnce) {
  for (int64_t count : {0, 1, 2, 3, 7, 64, 1000})
    for (int repeat = 0; repeat < 20; ++repeat)
      ASSERT_EQ(runsOf(count), once(count));
}

TEST_P(ExecutorTest, TwoTasksRunAtTheSameTime) {
  std::atomic<int> arrived{0};
  std::mutex mutex;
  std::set<std::thread::id> threads;
  // Each waits for the other.
  run(2, [&](int64_t) {
    ++arrived;
    while (arrived < 2)
      std::this_thread::yield();
    std::lock_guard<std::mutex> lock(mutex);
    threads.insert(std::this_thread::get_id());
  });
  EXPECT_EQ(threads.size(), 2u);
  EXPECT_EQ(threads.count(std::this_thread::get_id()), 1u);
}

TEST_P(ExecutorTest, NestedRegionsArePartOfTheirTask) {
  std::vector<std::vector<int>> runs(8);
  std::atomic<int> elsewhere{0};
  run(8, [&](int64_t i) {
    runs[static_cast<size_t>(i)] = runsOf(50);
    std::thread::id self = std::this_thread::get_id();
    run(5, [&](int64_t) { elsewhere += std::this_thread::get_id() != self; });
  });
  for (const std::vector<int> &inner : runs)
    EXPECT_EQ(inner, once(50));
  EXPECT_EQ(elsewhere, 0);
}

TEST_P(ExecutorTest, NestedRegionsLetNobodyRest) {
  std::thread::id caller = std::this_thread::get_id();
  std::atomic<int> arrived{0}, tasksOfHelper{0};
  auto wait = [](auto done) {
    auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!done() && std::chrono::steady_clock::now() < end)
      std::this_thread::yield();
    return done();
  };
  bool isFirst = true, helperGoesOn = false;
  run(100, [&](int64_t) {
    if (std::this_thread::get_id() != caller) {
      if (tasksOfHelper++ == 0) {
        ++arrived;
        wait([&] { return arrived == 2; });
      }
    } else if (std::exchange(isFirst, false)) {
      // Within its region the caller waits for the helper's next task.
      run(2, [&](int64_t i) {
        arrived += i == 0;
        helperGoesOn = wait([&] { return tasksOfHelper > 1; });
      });
    }
  });
  EXPECT_TRUE(helperGoesOn);
}

TEST_P(ExecutorTest, RegionsOfSeveralThreads) {
  std::atomic<int> failures{0};
  std::vector<std::thread> hosts;
  for (int i = 0; i < 4; ++i)
    hosts.emplace_back([&] {
      setUpThread();
      for (int64_t count = 0; count < 100; ++count)
        failures += runsOf(count % 9) != once(count % 9);
    });
  for (std::thread &host : hosts)
    host.join();
  EXPECT_EQ(failures, 0);
}

TEST_P(ExecutorTest, AThreadRestsForAnotherCaller) {
  std::atomic<int> arrived{0};
  std::atomic<bool> began{false}, inside{false}, leave{false};
  std::thread::id caller = std::this_thread::get_id();
  std::thread other([&] {
    setUpThread();
    while (!began)
      std::this_thread::yield();
    std::thread::id self = std::this_thread::get_id();
    std::atomic<int> elsewhere{0};
    run(2, [&](int64_t) {
      elsewhere += std::this_thread::get_id() != self;
      inside = true;
      while (!leave)
        std::this_thread::yield();
    });
    EXPECT_EQ(elsewhere, 0);
  });
  int tasksOfCaller = 0, tasksOfHelper = 0;
  run(20, [&](int64_t) {
    bool isCaller = std::this_thread::get_id() == caller;
    int &tasks = isCaller ? tasksOfCaller : tasksOfHelper;
    if (tasks++ > 0) {
      // Time for the helper to draw one, too.
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      return;
    }
    // The first task of each thread: from here on there are two callers.
    ++arrived;
    while (arrived < 2)
      std::this_thread::yield();
    began = true;
    while (!inside)
      std::this_thread::yield();
  });
  leave = true;
  other.join();
  EXPECT_EQ(tasksOfHelper, 1);
  EXPECT_EQ(tasksOfCaller, 19);
  // And it is there again.
  EXPECT_EQ(runsOf(100), once(100));
}

TEST_P(ExecutorTest, PreparesWeights) {
  std::string bytes = makeArtifact(readFile(FIXTURE),
                                   metadataOf({packFunction, packedFunction}));
  moe_rt_context_options_t with = options(),
                           alone = {sizeof(alone), {}, 1, nullptr, {}};
  Array<float> gate = f32({3, 4}), up = f32({3, 4}), bias = f32({4}, 1);
  std::iota(gate.data.begin(), gate.data.end(), 0.1f);
  std::iota(up.data.begin(), up.data.end(), -5.3f);
  std::vector<float> results[2];
  for (int i : {0, 1}) {
    Context context(i ? &with : &alone);
    moe_rt_module_t *module = nullptr;
    ASSERT_OK(moe_rt_module_load_memory(context, bytes.data(), bytes.size(),
                                        &module));
    DLTensor weights[] = {gate.dl(), up.dl(), bias.dl()};
    moe_rt_layer_t *layer = nullptr;
    ASSERT_OK(moe_rt_layer_create(module, nullptr, weights, 3, &layer));
    Array<float> x = f32({2, 4}, 0.3f), y = f32({2, 4});
    DLTensor in = x.dl(), out = y.dl();
    EXPECT_OK(moe_rt_layer_call(layer, &in, 1, &out, 1, nullptr, 0));
    results[i] = y.data;
    moe_rt_layer_destroy(layer);
    // What a task fails with arrives.
    auto fail = [](void *, size_t, int64_t, int64_t, void *,
                   uint64_t) -> int32_t { return 7; };
    EXPECT_ERROR(
        moe_rt_layer_create_from_source(module, nullptr, fail, nullptr, &layer),
        MOE_RT_NOT_FOUND, "the source failed with code 7");
    moe_rt_module_destroy(module);
  }
  EXPECT_EQ(results[0], results[1]);
}

#if !defined(__SANITIZE_THREAD__)
TEST_P(ExecutorTest, SurvivesFork) {
  EXPECT_EQ(runsOf(100), once(100));
  pid_t child = fork();
  if (child == 0)
    _exit(runsOf(100) == once(100) ? 0 : 1);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  EXPECT_EQ(runsOf(100), once(100));
}
#endif

//===----------------------------------------------------------------------===//
// OpenMP
//===----------------------------------------------------------------------===//

TEST(OpenMPTest, WhatHasNone) {
  moe_rt_executor_t executor = {};
  EXPECT_ERROR(moe_rt_openmp_executor("libnone.so", &executor),
               MOE_RT_NOT_FOUND, "no library 'libnone.so' is loaded");
  ASSERT_NE(dlopen(FIXTURE, RTLD_NOW), nullptr);
  EXPECT_ERROR(moe_rt_openmp_executor(FIXTURE, &executor), MOE_RT_NOT_FOUND,
               "' uses no OpenMP runtime that has GOMP_parallel or");
  EXPECT_ERROR(moe_rt_openmp_executor(nullptr, &executor), MOE_RT_NOT_FOUND,
               "the program uses no OpenMP runtime");
  EXPECT_ERROR(moe_rt_openmp_executor(libgomp, nullptr),
               MOE_RT_INVALID_ARGUMENT, "'out' is NULL");
  EXPECT_EQ(executor.parallel_for, nullptr);
}

TEST(OpenMPTest, InsideOfItsRegions) {
  if (!openMP().library)
    GTEST_SKIP() << "there is no " << libgomp;
  moe_rt_executor_t executor;
  ASSERT_OK(moe_rt_openmp_executor(libgomp, &executor));
  struct Shared {
    moe_rt_executor_t executor;
    std::atomic<int> threads{0}, tasks{0}, elsewhere{0};
  } shared = {executor, {}, {}, {}};
  auto body = [](void *data) {
    auto *shared = static_cast<Shared *>(data);
    ++shared->threads;
    struct Task {
      Shared *shared;
      std::thread::id self;
    } task = {shared, std::this_thread::get_id()};
    shared->executor.parallel_for(
        shared->executor.user, 10,
        [](void *context, int64_t) {
          auto *task = static_cast<Task *>(context);
          ++task->shared->tasks;
          task->shared->elsewhere += std::this_thread::get_id() != task->self;
        },
        &task);
  };
  openMP().find<void(void (*)(void *), void *, unsigned, unsigned)>(
      "GOMP_parallel")(body, &shared, 3, 0);
  EXPECT_EQ(shared.threads, 3);
  EXPECT_EQ(shared.tasks, 30);
  EXPECT_EQ(shared.elsewhere, 0);
}

TEST(OpenMPTest, FollowsTheNumberOfThreads) {
  if (!openMP().library)
    GTEST_SKIP() << "there is no " << libgomp;
  moe_rt_executor_t executor;
  ASSERT_OK(moe_rt_openmp_executor(libgomp, &executor));
  EXPECT_EQ(executor.concurrency, usableCores());
  openMP().setThreads(1);
  std::atomic<int> elsewhere{0};
  struct Task {
    std::atomic<int> *elsewhere;
    std::thread::id self;
  } task = {&elsewhere, std::this_thread::get_id()};
  executor.parallel_for(
      executor.user, 100,
      [](void *context, int64_t) {
        auto *task = static_cast<Task *>(context);
        *task->elsewhere += std::this_thread::get_id() != task->self;
      },
      &task);
  EXPECT_EQ(elsewhere, 0);
}

} // namespace
