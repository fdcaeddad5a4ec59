//===- faulty_engine.h - An engine that is late or fails --------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_TEST_PARALLEL_FAULTY_ENGINE_H
#define MOE_RT_TEST_PARALLEL_FAULTY_ENGINE_H

#include "parallel/parallel_testing.h"

#include <list>
#include <map>
#include <random>

namespace moe::test {

/// What an engine does wrong, in its collective with number `at`.
enum class Failure {
  none,
  start,  // refuses to start it
  test,   // fails while it is pending
  silent, // never starts it, and says nothing
  counts, // adds one to the rows that rank 0 announces
};

/// The communicator of one rank, around another. It starts collectives late,
/// ends them in any order, fills what they receive with 0xff before, and
/// fails where it is told to. It keeps to what moe_rt/group.h promises, and
/// finds out whether its user does.
class FaultyEngine {
public:
  FaultyEngine(const moe_rt_communicator_t &inner, unsigned seed,
               Failure failure = Failure::none, int64_t at = -1)
      : inner(inner), generator(seed), failure(failure), failsAt(at) {}
  ~FaultyEngine();

  moe_rt_communicator_t communicator();

  /// Collectives so far.
  int64_t started() const { return number; }
  bool hasFailed() const { return failed; }
  int maxDelay = 20; // tests until something happens

private:
  struct Operation {
    std::function<int32_t(void **)> start;
    int delay, extra;
    bool isStarted = false, isDone = false, isSilent = false, fails = false;
    void *request = nullptr;
    int64_t *corrupt = nullptr;
  };

  int32_t add(Operation operation, void **request);
  int32_t test(Operation &operation);
  void poison(void *memory, uint64_t bytes);
  int draw() {
    return std::uniform_int_distribution<int>(0, maxDelay)(generator);
  }

  moe_rt_communicator_t inner;
  std::mt19937 generator;
  Failure failure;
  int64_t failsAt, number = 0;
  bool failed = false;
  std::list<Operation> operations; // those that are pending, in order
  std::map<void *, uint64_t> live; // buffers
};

/// Expects the error of a rank whose group has died of `failure`, in the
/// collective with number `at`.
void expectGroupIsDead(const Result &result, Failure failure, int64_t at);

} // namespace moe::test

#endif // MOE_RT_TEST_PARALLEL_FAULTY_ENGINE_H
