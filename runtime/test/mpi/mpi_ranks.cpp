//===- mpi_ranks.cpp - A rank of a group on MPI ---------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A program for mpirun. It loads the library of the MPI that it is run by:
//
//   mpirun -n 4 moe_rt_mpi_ranks LIBRARY CASE
//
// test_mpi.py reads what the ranks print, and what they write to the folder
// MOE_RT_REPORTS.
//
//===----------------------------------------------------------------------===//

#include "parallel/parallel_testing.h"

#include "moe_rt/mpi.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <dlfcn.h>
#include <thread>
#include <unistd.h>

using namespace moe::test;

namespace {

using Clock = std::chrono::steady_clock;

double secondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// The functions of moe_rt/mpi.h.
struct Library {
  explicit Library(const char *path) {
    void *handle = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (!handle) {
      std::printf("%s\n", dlerror());
      std::exit(2);
    }
    create = reinterpret_cast<decltype(create)>(
        dlsym(handle, "moe_mpi_communicator_create"));
    destroy = reinterpret_cast<decltype(destroy)>(
        dlsym(handle, "moe_mpi_communicator_destroy"));
    finalize =
        reinterpret_cast<decltype(finalize)>(dlsym(handle, "moe_mpi_finalize"));
  }

  decltype(&moe_mpi_communicator_create) create;
  decltype(&moe_mpi_communicator_destroy) destroy;
  decltype(&moe_mpi_finalize) finalize;
};

/// Write what a call has returned to a file of this rank: some launchers
/// forward nothing once a rank has died.
void report(const Rank &rank, moe_rt_status_t status, double seconds) {
  Result result(status);
  const char *folder = std::getenv("MOE_RT_REPORTS");
  std::string path = std::string(folder ? folder : ".") + "/rank" +
                     std::to_string(moe_rt_group_rank(rank.group));
  if (std::FILE *file = std::fopen(path.c_str(), "a")) {
    std::fprintf(file, "code %d after %.2f s: %s\n",
                 static_cast<int>(result.code), seconds,
                 result.message.c_str());
    std::fclose(file);
  }
}

LayerOptions optionsFor(int32_t ranks) {
  LayerOptions options;
  options.slots = std::min<int64_t>(E, (E + ranks - 1) / ranks + 1);
  return options;
}

/// Random problems, whose results are compared with those of one rank.
int checkResults(const moe_rt_communicator_t &communicator) {
  int32_t r = communicator.rank, ranks = communicator.size;
  int cases = 0, wrong = 0;
  for (unsigned seed = 0; seed < 8; ++seed)
    for (uint64_t limit : {0, 30000}) {
      moe_rt_group_options_t options = {sizeof(options),
                                        30,
                                        limit,
                                        0,
                                        seed % 2 ? MOE_RT_WAY_PEER
                                                 : MOE_RT_WAY_ALL_TO_ALL,
                                        0};
      Rank rank(&communicator, &options);
      LayerOptions layer = optionsFor(ranks);
      Problem problem(seed, 60);
      if (seed % 4 == 1)
        for (size_t i = 0; i < problem.ids.data.size(); ++i)
          problem.ids.data[i] = i % K == 0 ? 0 : -1;
      std::vector<int32_t> table = tableOf(ranks, layer.slots, seed % 2);
      Result loaded(rank.load(layer));
      Result created(rank.create(problem, &table));
      std::vector<int64_t> begins = splitTokens(60, ranks, seed);
      size_t i = static_cast<size_t>(r);
      std::vector<float> expected = problem.expected();
      for (int k = 0; k < 3; ++k) {
        std::vector<float> y;
        Result called(rank.call(problem, begins[i], begins[i + 1], y));
        ++cases;
        if (called.code != MOE_RT_OK ||
            std::memcmp(y.data(), expected.data() + begins[i] * H,
                        y.size() * sizeof(float)) != 0) {
          ++wrong;
          std::printf("rank %d: %s%s%s\n", r, loaded.message.c_str(),
                      created.message.c_str(), called.message.c_str());
        }
      }
    }
  std::printf("rank %d of %d, node of %d: %d of %d right\n", r, ranks,
              communicator.node_size, cases - wrong, cases);
  return wrong != 0;
}

/// A rank dies, or comes late, between two calls.
int fail(const moe_rt_communicator_t &communicator, bool dies) {
  int32_t r = communicator.rank;
  moe_rt_group_options_t options = {sizeof(options), 2, 0, 0, 0, 0};
  Rank rank(&communicator, &options);
  Problem problem(1, 60);
  Result loaded(rank.load(optionsFor(communicator.size)));
  Result created(rank.create(problem, nullptr));
  std::vector<float> y;
  Result first(rank.call(problem, r, r + 1, y));
  if (first.code != MOE_RT_OK)
    std::printf("rank %d: %s\n", r, first.message.c_str());
  if (r == communicator.size - 1) {
    if (dies)
      std::raise(SIGKILL);
    std::this_thread::sleep_for(std::chrono::seconds(4));
  }
  Clock::time_point begin = Clock::now();
  moe_rt_status_t status = rank.call(problem, r, r + 1, y);
  report(rank, status, secondsSince(begin));
  begin = Clock::now();
  status = rank.call(problem, r, r + 1, y);
  report(rank, status, secondsSince(begin));
  // MPI_Finalize would wait for the rank.
  std::fflush(stdout);
  // A launcher may end the job when a rank goes.
  std::this_thread::sleep_for(std::chrono::seconds(6));
  _exit(0);
}

/// Ranks that do not agree go on.
int disagree(const moe_rt_communicator_t &communicator) {
  int32_t r = communicator.rank;
  Rank rank(&communicator);
  Problem problem(1, 60);
  LayerOptions options = optionsFor(communicator.size);
  options.maxTokens = r == 1 ? 999 : 1000;
  Result loaded(rank.load(options));
  report(rank, rank.create(problem, nullptr), 0);
  loaded = Result(rank.load(optionsFor(communicator.size)));
  report(rank, rank.create(problem, nullptr), 0);
  Problem bad(1, 60);
  bad.ids.data[0] = r == 1 ? 99 : 0;
  std::vector<float> y;
  report(rank, rank.call(bad, 0, 1, y), 0);
  report(rank, rank.call(problem, r, r + 1, y), 0);
  return 0;
}

/// The time of a call with `tokens` tokens on each rank.
double timeCalls(Rank &rank, Problem &problem, int64_t tokens) {
  std::vector<double> times;
  std::vector<float> y;
  for (int i = 0; i < 2000; ++i) {
    Clock::time_point begin = Clock::now();
    if (Result(rank.call(problem, 0, tokens, y)).code != MOE_RT_OK)
      return -1;
    times.push_back(secondsSince(begin));
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

int measure(const moe_rt_communicator_t &communicator) {
  Rank rank(&communicator);
  Problem problem(1, 60), none(1, 60);
  std::fill(none.ids.data.begin(), none.ids.data.end(), -1);
  Result loaded(rank.load(optionsFor(communicator.size)));
  Result created(rank.create(problem, nullptr));
  double times[] = {timeCalls(rank, problem, 0), timeCalls(rank, none, 8),
                    timeCalls(rank, problem, 8)};
  if (communicator.rank == 0)
    std::printf("%d ranks: %.1f us without tokens, %.1f us without rows, "
                "%.1f us with 8 tokens\n",
                communicator.size, 1e6 * times[0], 1e6 * times[1],
                1e6 * times[2]);
  return times[0] < 0 || times[1] < 0 || times[2] < 0;
}

} // namespace

int main(int argc, char **argv) {
  if (argc != 3) {
    std::printf("usage: %s LIBRARY results|disagree|kill|late|time\n", argv[0]);
    return 2;
  }
  Library library(argv[1]);
  std::string name = argv[2];
  moe_rt_communicator_t communicator;
  if (int32_t code = library.create(nullptr, &communicator)) {
    std::printf("MPI error %d\n", code);
    return 2;
  }
  int result = 2;
  if (name == "results")
    result = checkResults(communicator);
  else if (name == "disagree")
    result = disagree(communicator);
  else if (name == "kill" || name == "late")
    result = fail(communicator, name == "kill");
  else if (name == "time")
    result = measure(communicator);
  library.destroy(&communicator);
  library.finalize();
  return result;
}
