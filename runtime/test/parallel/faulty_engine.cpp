//===- faulty_engine.cpp - An engine that is late or fails ----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "parallel/faulty_engine.h"

#include <cstring>

using namespace moe::test;

static std::vector<int64_t> listOf(const int64_t *values, int32_t count) {
  return {values, values + count};
}

FaultyEngine::~FaultyEngine() {
  EXPECT_TRUE(failed || live.empty()) << "buffers are released";
}

void FaultyEngine::poison(void *memory, uint64_t bytes) {
  if (bytes > 0)
    std::memset(memory, 0xff, bytes);
}

int32_t FaultyEngine::add(Operation operation, void **request) {
  bool isNext = number++ == failsAt;
  EXPECT_FALSE(failed) << "nothing is started after a failure";
  if (isNext && failure == Failure::start) {
    failed = true;
    return -1;
  }
  operation.delay = draw();
  operation.extra = draw();
  operation.isSilent = isNext && failure == Failure::silent;
  operation.fails = isNext && failure == Failure::test;
  if (!isNext || failure != Failure::counts)
    operation.corrupt = nullptr;
  operations.push_back(std::move(operation));
  *request = &operations.back();
  return 0;
}

int32_t FaultyEngine::test(Operation &tested) {
  if (tested.fails) {
    failed = true;
    return -1;
  }
  // In order, as all ranks do.
  for (Operation &each : operations) {
    if (each.isSilent || each.fails)
      break;
    if (each.isStarted)
      continue;
    if (each.delay-- > 0)
      break;
    if (each.start(&each.request) < 0) {
      failed = true;
      return -1;
    }
    each.isStarted = true;
  }
  if (!tested.isStarted)
    return 0;
  if (!tested.isDone) {
    int32_t state = inner.test(inner.user, tested.request);
    failed |= state < 0;
    if (state <= 0)
      return state;
    tested.isDone = true;
    if (tested.corrupt)
      ++*tested.corrupt;
  }
  if (tested.extra-- > 0)
    return 0;
  operations.remove_if([&](const Operation &each) { return &each == &tested; });
  return 1;
}

moe_rt_communicator_t FaultyEngine::communicator() {
  moe_rt_communicator_t result = inner;
  result.user = this;
  result.allocate = [](void *user, uint64_t bytes) {
    auto &engine = *static_cast<FaultyEngine *>(user);
    void *memory = engine.inner.allocate(engine.inner.user, bytes);
    EXPECT_FALSE(engine.failed);
    engine.poison(memory, bytes);
    engine.live[memory] = bytes;
    return memory;
  };
  result.release = [](void *user, void *memory, uint64_t bytes) {
    auto &engine = *static_cast<FaultyEngine *>(user);
    EXPECT_FALSE(engine.failed) << "buffers stay after a failure";
    EXPECT_TRUE(engine.operations.empty()) << "a request is pending";
    auto found = engine.live.find(memory);
    ASSERT_NE(found, engine.live.end());
    EXPECT_EQ(found->second, bytes);
    engine.live.erase(found);
    engine.poison(memory, bytes);
    engine.inner.release(engine.inner.user, memory, bytes);
  };
  result.counts = [](void *user, const int64_t *send, int64_t *receive,
                     int32_t each, void *stream, void **request) {
    auto &engine = *static_cast<FaultyEngine *>(user);
    engine.poison(receive, static_cast<uint64_t>(engine.inner.size) *
                               static_cast<uint64_t>(each) * sizeof(int64_t));
    Operation operation = {};
    operation.start = [=, &engine](void **innerRequest) {
      return engine.inner.counts(engine.inner.user, send, receive, each, stream,
                                 innerRequest);
    };
    operation.corrupt = receive + each - 2;
    return engine.add(std::move(operation), request);
  };
  result.exchange = [](void *user, const void *send, const int64_t *sendRows,
                       const int64_t *sendBegins, void *receive,
                       const int64_t *receiveRows, const int64_t *receiveBegins,
                       uint64_t rowBytes, void *stream, void **request) {
    auto &engine = *static_cast<FaultyEngine *>(user);
    int32_t size = engine.inner.size;
    auto lists = std::make_shared<std::vector<std::vector<int64_t>>>();
    for (const int64_t *list :
         {sendRows, sendBegins, receiveRows, receiveBegins})
      lists->push_back(listOf(list, size));
    for (int32_t r = 0; r < size; ++r)
      engine.poison(static_cast<char *>(receive) +
                        static_cast<uint64_t>(receiveBegins[r]) * rowBytes,
                    static_cast<uint64_t>(receiveRows[r]) * rowBytes);
    Operation operation = {};
    operation.start = [=, &engine](void **innerRequest) {
      const auto &list = *lists;
      return engine.inner.exchange(
          engine.inner.user, send, list[0].data(), list[1].data(), receive,
          list[2].data(), list[3].data(), rowBytes, stream, innerRequest);
    };
    return engine.add(std::move(operation), request);
  };
  result.gather = [](void *user, const void *send, void *receive,
                     const int64_t *rows, uint64_t rowBytes, void *stream,
                     void **request) {
    auto &engine = *static_cast<FaultyEngine *>(user);
    std::vector<int64_t> list = listOf(rows, engine.inner.size);
    Operation operation = {};
    operation.start = [=, &engine](void **innerRequest) {
      return engine.inner.gather(engine.inner.user, send, receive, list.data(),
                                 rowBytes, stream, innerRequest);
    };
    return engine.add(std::move(operation), request);
  };
  result.test = [](void *user, void *request) {
    return static_cast<FaultyEngine *>(user)->test(
        *static_cast<Operation *>(request));
  };
  result.abort = [](void *user) {
    auto &engine = *static_cast<FaultyEngine *>(user);
    engine.failed = true;
    engine.inner.abort(engine.inner.user);
  };
  result.message = [](void *user) {
    auto &engine = *static_cast<FaultyEngine *>(user);
    return engine.inner.message(engine.inner.user);
  };
  return result;
}

void moe::test::expectGroupIsDead(const Result &result, Failure failure,
                                  int64_t at) {
  EXPECT_TRUE(
      result.code == MOE_RT_UNAVAILABLE ||
      (failure == Failure::silent && result.code == MOE_RT_DEADLINE_EXCEEDED))
      << at << ": " << result.message;
  EXPECT_NE(result.message.find("the group is dead"), std::string::npos)
      << result.message;
}
