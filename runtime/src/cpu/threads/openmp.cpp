//===- openmp.cpp - Run tasks on an OpenMP runtime's threads --------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The functions that compilers call for `#pragma omp parallel` are found in
// what is loaded; nothing here is compiled or linked with OpenMP.
//
//===----------------------------------------------------------------------===//

// RTLD_DEFAULT and dladdr.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "moe_rt/openmp.h"
#include "cpu/threads/pool.h"
#include "support/status.h"

#include <algorithm>
#include <dlfcn.h>
#include <mutex>
#include <new>
#include <pthread.h>
#include <type_traits>
#include <unistd.h>

// An OpenMP runtime is not instrumented: the thread sanitizer sees neither its
// fork nor its join, and is told of them.
#if defined(__SANITIZE_THREAD__)
extern "C" void __tsan_acquire(void *address);
extern "C" void __tsan_release(void *address);
#else
static void __tsan_acquire(void *) {}
static void __tsan_release(void *) {}
#endif

using namespace moe::rt;

namespace {

/// The interface of GCC's runtime, which LLVM's and Intel's have, too, on
/// Linux: run `body(data)` on all threads of a team, of the default size for 0.
using GompParallelFn = void (*)(void (*body)(void *), void *data,
                                unsigned threads, unsigned flags);

/// That of LLVM's and Intel's: run `body(&thread, &threadOfTeam, ...)`.
struct KmpLocation {
  int32_t reserved1, flags, reserved2, reserved3;
  const char *source;
};
using KmpBodyFn = void (*)(int32_t *thread, int32_t *threadOfTeam, ...);
using KmpForkFn = void (*)(KmpLocation *location, int32_t argumentCount,
                           KmpBodyFn body, ...);
constexpr int32_t kmpFlags = 2; // the caller follows this interface

/// What is found of a runtime.
struct OpenMP {
  GompParallelFn gompParallel = nullptr;
  KmpForkFn kmpFork = nullptr;
  int (*maxThreads)() = nullptr;
  int (*inParallel)() = nullptr;

  bool isComplete() const {
    return (gompParallel || kmpFork) && maxThreads && inParallel;
  }
  bool operator==(const OpenMP &other) const {
    return gompParallel == other.gompParallel && kmpFork == other.kmpFork;
  }
};

/// The threads of one runtime, for all contexts. Each thread that calls has a
/// team of its own there.
class OpenMPTeam {
public:
  OpenMPTeam(const OpenMP &runtime, Cores &cores)
      : runtime(runtime), cores(cores) {}

  void parallelFor(int64_t count, moe_rt_task_fn task, void *context);

  const OpenMP runtime;
  OpenMPTeam *next = nullptr; // in the list of all

private:
  struct Shared {
    Region region;
    const Cores &cores;
    const pthread_t caller = pthread_self();
    std::atomic<int64_t> helpers{0};

    void join() {
      __tsan_acquire(this);
      bool isCaller = pthread_equal(caller, pthread_self());
      region.run(isCaller ? 0 : ++helpers, cores);
      __tsan_release(this);
    }
  };

  void fork(Shared &shared);

  const int64_t limit = usableCores();
  const pid_t owner = getpid();
  Cores &cores;
};

} // namespace

/// Always of the default size: GCC's runtime ends threads that a team does not
/// want, and starts them again for the next.
void OpenMPTeam::fork(Shared &shared) {
  if (runtime.gompParallel)
    return runtime.gompParallel(
        [](void *data) { static_cast<Shared *>(data)->join(); }, &shared, 0, 0);
  static KmpLocation location = {0, kmpFlags, 0, 0, ";unknown;unknown;0;0;;"};
  // The arguments arrive as those of any function.
  auto body = [](int32_t *, int32_t *, void *data) {
    static_cast<Shared *>(data)->join();
  };
  void (*function)(int32_t *, int32_t *, void *) = body;
  runtime.kmpFork(&location, 1, reinterpret_cast<KmpBodyFn>(function),
                  static_cast<void *>(&shared));
}

void OpenMPTeam::parallelFor(int64_t count, moe_rt_task_fn task,
                             void *context) {
  // A runtime does not survive fork() once it has started threads.
  if (count <= 1 || Region::insideTask() || runtime.inParallel() ||
      getpid() != owner)
    return Region::runAlone(count, task, context);
  int64_t claimed =
      cores.claim(std::clamp<int64_t>(runtime.maxThreads(), 1, limit));
  if (claimed > 1) {
    Shared shared{{}, cores};
    shared.region.count = count;
    shared.region.task = task;
    shared.region.context = context;
    shared.region.claimed = claimed;
    __tsan_release(&shared);
    fork(shared);
    __tsan_acquire(&shared);
  } else {
    Region::runAlone(count, task, context);
  }
  cores.release(claimed);
}

/// Look for a runtime as the dynamic linker does for `library`: what the
/// program and its libraries have comes before what that library brings.
static OpenMP findRuntime(void *library) {
  OpenMP found;
  void *base = nullptr;
  auto find = [&](const char *symbol, auto &out) {
    void *address = dlsym(RTLD_DEFAULT, symbol);
    if (!address && library)
      address = dlsym(library, symbol);
    Dl_info info;
    if (!address || !dladdr(address, &info) || (base && base != info.dli_fbase))
      return;
    base = info.dli_fbase; // all of one runtime
    out = reinterpret_cast<std::decay_t<decltype(out)>>(address);
  };
  find("GOMP_parallel", found.gompParallel);
  if (!found.gompParallel)
    find("__kmpc_fork_call", found.kmpFork);
  find("omp_get_max_threads", found.maxThreads);
  find("omp_in_parallel", found.inParallel);
  return found;
}

/// The team of a runtime, the same for all who ask; nullptr without memory.
static OpenMPTeam *teamOf(const OpenMP &runtime) {
  // Never destroyed: executors may be used while the process ends.
  static auto &mutex = *new std::mutex;
  static OpenMPTeam *teams = nullptr;
  std::lock_guard<std::mutex> lock(mutex);
  for (OpenMPTeam *team = teams; team; team = team->next)
    if (team->runtime == runtime)
      return team;
  Cores *cores = Cores::ofProcess();
  auto *team = cores ? new (std::nothrow) OpenMPTeam(runtime, *cores) : nullptr;
  if (team) {
    team->next = teams;
    teams = team;
  }
  return team;
}

extern "C" moe_rt_status_t moe_rt_openmp_executor(const char *library,
                                                  moe_rt_executor_t *out) {
  if (!out)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "moe_rt_openmp_executor: 'out' is NULL");
  // Stays open, and with it the runtime.
  void *handle = nullptr;
  if (library && !(handle = dlopen(library, RTLD_LAZY | RTLD_NOLOAD)))
    return makeError(MOE_RT_NOT_FOUND, "no library '%s' is loaded", library);
  OpenMP runtime = findRuntime(handle);
  if (!runtime.isComplete())
    return makeError(MOE_RT_NOT_FOUND,
                     "%s%s%s no OpenMP runtime that has GOMP_parallel or "
                     "__kmpc_fork_call",
                     library ? "library '" : "the program",
                     library ? library : "", library ? "' uses" : " uses");
  OpenMPTeam *team = teamOf(runtime);
  if (!team)
    return makeError(MOE_RT_RESOURCE_EXHAUSTED, "cannot allocate the executor");
  *out = {team, usableCores(),
          [](void *user, int64_t count, moe_rt_task_fn task, void *context) {
            static_cast<OpenMPTeam *>(user)->parallelFor(count, task, context);
          }};
  return nullptr;
}
