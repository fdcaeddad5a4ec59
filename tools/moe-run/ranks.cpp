//===- ranks.cpp - Ranks that run a layer together ------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ranks.h"
#include "program.h"

#include "moe_rt/mpi.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <numeric>
#include <thread>
#include <unistd.h>

using namespace moe;
using namespace moe::run;
using moe::io::Error;
using moe::io::Expected;
using moe::io::Tensor;

static constexpr char mpiLibrary[] = "libmoe_mpi.so";

//===----------------------------------------------------------------------===//
// Ranks
//===----------------------------------------------------------------------===//

Error Ranks::failed() {
  dead = true;
  const char *message = engine.message ? engine.message(engine.user) : nullptr;
  return Error{"the engine failed" +
               (message ? ": " + std::string(message) : std::string())};
}

Expected<void> Ranks::wait(void *request) {
  using namespace std::chrono;
  auto begin = steady_clock::now();
  for (;;) {
    int32_t state = engine.test(engine.user, request);
    if (state < 0)
      return failed();
    if (state > 0)
      return {};
    double waited = duration<double>(steady_clock::now() - begin).count();
    if (waited > deadline) {
      dead = true;
      if (engine.abort)
        engine.abort(engine.user);
      return Error{"waited " + std::to_string(waited) +
                   " s for the other ranks, one of which did not come"};
    }
    std::this_thread::sleep_for(microseconds(waited < 1e-3 ? 1 : 100));
  }
}

Expected<std::vector<int64_t>> Ranks::tell(Expected<void> own, int64_t number) {
  // Sent and received: whether it can go on, and the number.
  uint64_t words = 2 * size(), bytes = 2 * words * sizeof(int64_t);
  void *memory = engine.allocate(engine.user, bytes);
  if (!memory)
    return Error{"the engine cannot allocate " + std::to_string(bytes) +
                 " bytes"};
  auto *send = static_cast<int64_t *>(memory), *receive = send + words;
  for (size_t r = 0; r < size(); ++r) {
    send[2 * r] = own ? 1 : 0;
    send[2 * r + 1] = number;
  }
  void *request = nullptr;
  if (engine.counts(engine.user, send, receive, 2, nullptr, &request) < 0)
    return failed();
  if (Expected<void> waited = wait(request); !waited)
    return own ? waited.takeError() : own.takeError();
  std::vector<int64_t> numbers;
  std::string others;
  for (size_t r = 0; r < size(); ++r) {
    if (!receive[2 * r])
      others += (others.empty() ? "" : ", ") + std::to_string(r);
    numbers.push_back(receive[2 * r + 1]);
  }
  engine.release(engine.user, memory, bytes);
  if (!own)
    return own.takeError();
  ofOthers = !others.empty();
  if (ofOthers)
    return Error{"cannot go on without rank " + others};
  return numbers;
}

Expected<void> Ranks::agree(Expected<void> own) {
  Expected<std::vector<int64_t>> told = tell(std::move(own), 0);
  if (!told)
    return told.takeError();
  return {};
}

Expected<void> moe::run::agree(Ranks *ranks, Expected<void> own) {
  return ranks ? ranks->agree(std::move(own)) : std::move(own);
}

Expected<Tensor> Ranks::collect(const Tensor &own,
                                const std::vector<int64_t> &tokens) {
  std::vector<int64_t> shape = own.shape();
  shape[0] = rank() == 0
                 ? std::accumulate(tokens.begin(), tokens.end(), int64_t(0))
                 : 0;
  Expected<Tensor> whole = Tensor::create(own.view().dtype, shape);
  Expected<void> allocated;
  if (!whole)
    allocated = whole.takeError();
  if (Expected<void> agreed = agree(std::move(allocated)); !agreed)
    return agreed.takeError();
  uint64_t rowBytes = 0;
  std::vector<int64_t> sendRows(size()), receiveRows(size()), begins(size()),
      zeros(size());
  sendRows[0] = own.shape()[0];
  if (sendRows[0] > 0)
    rowBytes = own.bytes() / static_cast<uint64_t>(sendRows[0]);
  else if (whole->shape()[0] > 0)
    rowBytes = whole->bytes() / static_cast<uint64_t>(whole->shape()[0]);
  // All agree on the bytes of a row, also those without one.
  Expected<std::vector<int64_t>> told =
      tell({}, static_cast<int64_t>(rowBytes));
  if (!told)
    return told.takeError();
  rowBytes =
      static_cast<uint64_t>(*std::max_element(told->begin(), told->end()));
  if (rank() == 0) {
    receiveRows = tokens;
    std::partial_sum(tokens.begin(), tokens.end() - 1, begins.begin() + 1);
  }
  if (rowBytes == 0)
    return whole;
  // Rows travel in buffers of the engine.
  auto allocate = [&](uint64_t bytes) {
    return bytes ? engine.allocate(engine.user, bytes) : nullptr;
  };
  void *sent = allocate(own.bytes()), *received = allocate(whole->bytes());
  bool isMissing = (own.bytes() && !sent) || (whole->bytes() && !received);
  Expected<void> hasBuffers;
  if (isMissing)
    hasBuffers = Error{"the engine cannot allocate memory for an output"};
  if (Expected<void> agreed = agree(std::move(hasBuffers)); !agreed)
    return agreed.takeError();
  if (sent)
    std::memcpy(sent, own.data(), own.bytes());
  void *request = nullptr;
  if (engine.exchange(engine.user, sent, sendRows.data(), zeros.data(),
                      received, receiveRows.data(), begins.data(), rowBytes,
                      nullptr, &request) < 0)
    return failed();
  if (Expected<void> waited = wait(request); !waited)
    return waited.takeError();
  if (received)
    std::memcpy(whole->data(), received, whole->bytes());
  if (sent)
    engine.release(engine.user, sent, own.bytes());
  if (received)
    engine.release(engine.user, received, whole->bytes());
  return whole;
}

//===----------------------------------------------------------------------===//
// Engines
//===----------------------------------------------------------------------===//

static int report(const Error &error) {
  std::fprintf(stderr, "moe-run: error: %s\n", error.message.c_str());
  return 2;
}

/// The number of ranks that a launcher of MPI has started; 0 if unknown.
static long startedRanks() {
  for (const char *name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"})
    if (const char *text = std::getenv(name))
      return std::strtol(text, nullptr, 10);
  return 0;
}

/// Opens the library of MPI's ranks: the file that is named, or that of an
/// installation, or what the loader finds.
static Expected<void *> openEngine(const std::string &file) {
  std::string path = file.empty() ? mpiLibrary : file;
  std::string beside = executableDirectory() + "../lib/" + mpiLibrary;
  if (file.empty() && access(beside.c_str(), F_OK) == 0)
    path = beside;
  // Global: parts of some MPIs look for its symbols.
  if (void *library = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL))
    return library;
  const char *reason = dlerror();
  return Error{
      "--ep: cannot open " + std::string(mpiLibrary) +
      ", which ranks of MPI need: " + std::string(reason ? reason : path) +
      "; build it with mpicc, then name it by --ep=FILE or "
      "LD_LIBRARY_PATH"};
}

static int runOnMpi(const Options &options,
                    const std::function<int(const Options &, Ranks *)> &body) {
  Expected<void *> library =
      openEngine(options.engine == "mpi" ? "" : options.engine);
  if (!library)
    return report(library.takeError());
  auto create = reinterpret_cast<decltype(&moe_mpi_communicator_create)>(
      dlsym(*library, "moe_mpi_communicator_create"));
  auto destroy = reinterpret_cast<decltype(&moe_mpi_communicator_destroy)>(
      dlsym(*library, "moe_mpi_communicator_destroy"));
  auto finalize = reinterpret_cast<decltype(&moe_mpi_finalize)>(
      dlsym(*library, "moe_mpi_finalize"));
  if (!create || !destroy || !finalize)
    return report(Error{"--ep: " + options.engine +
                        " has no moe_mpi_communicator_create, _destroy and "
                        "moe_mpi_finalize"});
  moe_rt_communicator_t communicator = {};
  if (int32_t code = create(nullptr, &communicator))
    return report(
        Error{"--ep: MPI cannot be initialised, code " + std::to_string(code)});
  long started = startedRanks();
  if (started > 1 && communicator.size == 1)
    return report(Error{"--ep: the launcher has started " +
                        std::to_string(started) +
                        " ranks and MPI knows of one: " + mpiLibrary +
                        " is built for, or has found, another MPI"});
  Ranks ranks(communicator, options.deadline);
  int status = body(options, &ranks);
  if (ranks.isDead()) {
    // MPI_Finalize would wait for the ranks that did not come.
    std::fflush(nullptr);
    _exit(status);
  }
  destroy(&communicator);
  finalize();
  return status;
}

static int
runOnThreads(const Options &options, int64_t count,
             const std::function<int(const Options &, Ranks *)> &body) {
  std::vector<moe_rt_communicator_t> communicators(static_cast<size_t>(count));
  if (moe_rt_status_t status = moe_rt_thread_communicators_create(
          static_cast<int32_t>(count), communicators.data()))
    return report(takeStatus(status));
  // Each rank has its share of the cores.
  Options each = options;
  int64_t cores = options.threads;
  if (cores == 0)
    cores = io::countCores();
  each.threads = std::max<int64_t>(1, cores / count);
  std::vector<int> statuses(communicators.size());
  std::vector<std::thread> threads;
  for (size_t r = 0; r < communicators.size(); ++r)
    threads.emplace_back([&, r] {
      Ranks ranks(communicators[r], options.deadline);
      statuses[r] = body(each, &ranks);
    });
  for (std::thread &thread : threads)
    thread.join();
  moe_rt_thread_communicators_destroy(communicators.data());
  return *std::max_element(statuses.begin(), statuses.end());
}

int moe::run::runRanks(
    const Options &options,
    const std::function<int(const Options &, Ranks *)> &body) {
  if (options.engine.empty())
    return body(options, nullptr);
  if (options.threadRanks > 0)
    return runOnThreads(options, options.threadRanks, body);
  return runOnMpi(options, body);
}
