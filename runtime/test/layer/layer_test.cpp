//===- layer_test.cpp - Calling a layer -----------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Calls of functions that are in this process, as a JIT's are.
//
//===----------------------------------------------------------------------===//

#include "testing.h"

#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <thread>

using namespace moe::test;

namespace {

struct Memref {
  void *allocated, *aligned;
  int64_t offset;
  int64_t dims[8];
};

using Entry = int32_t (*)(void **, const moe_rt_executor_t *);
using Workspace = int64_t (*)(int64_t);

/// A module of one function of this process.
class Jit {
public:
  Jit(const std::string &arguments, Entry entry, Workspace workspace,
      const moe_rt_context_options_t *options = nullptr,
      const std::string &tokens = R"({"min": 0, "max": 1000})")
      : context(options), entry(entry), workspace(workspace) {
    std::string text = metadataFor(
        R"("name": "f", "entry": "entry", "workspace": "workspace",
           "tokens": )" +
        tokens + ", \"arguments\": [" + arguments + "]");
    EXPECT_OK(moe_rt_module_create(context, text.data(), text.size(), resolve,
                                   this, &module));
  }
  ~Jit() {
    moe_rt_layer_destroy(layer);
    moe_rt_module_destroy(module);
  }

  void create(const std::vector<DLTensor> &weights = {}) {
    ASSERT_OK(moe_rt_layer_create(module, "f", weights.data(), weights.size(),
                                  &layer));
  }
  moe_rt_status_t call(std::vector<DLTensor> inputs,
                       std::vector<DLTensor> outputs, void *memory = nullptr,
                       uint64_t bytes = 0) {
    return moe_rt_layer_call(layer, inputs.data(), inputs.size(),
                             outputs.data(), outputs.size(), memory, bytes);
  }

  Context context;
  moe_rt_module_t *module = nullptr;
  moe_rt_layer_t *layer = nullptr;

private:
  static void *resolve(void *user, const char *symbol) {
    auto *jit = static_cast<Jit *>(user);
    return std::string(symbol) == "entry"
               ? reinterpret_cast<void *>(jit->entry)
               : reinterpret_cast<void *>(jit->workspace);
  }

  Entry entry;
  Workspace workspace;
};

int64_t noWorkspace(int64_t) { return 0; }

const char *const copyArguments =
    R"({"name": "x", "role": "input", "dtype": "f32", "shape": [-1, 4]},
       {"name": "y", "role": "output", "dtype": "f32", "shape": [-1, 4]})";

int32_t copyEntry(void **args, const moe_rt_executor_t *) {
  auto *x = static_cast<Memref *>(args[0]), *y = static_cast<Memref *>(args[1]);
  std::memcpy(y->aligned, x->aligned,
              static_cast<size_t>(x->dims[0] * x->dims[1]) * sizeof(float));
  return 0;
}

/// An executor of a host; counts its regions in `user`.
void serialFor(void *user, int64_t count, moe_rt_task_fn task, void *context) {
  ++*static_cast<int *>(user);
  for (int64_t i = 0; i < count; ++i)
    task(context, i);
}

TEST(LayerTest, PassesDescriptors) {
  static int64_t seen[5][9];
  static void *pointers[5];
  Entry entry = [](void **args, const moe_rt_executor_t *) -> int32_t {
    static const int words[] = {6, 4, 0, 2, 2};
    for (int i = 0; i < 5; ++i) {
      auto *memref = static_cast<Memref *>(args[i]);
      pointers[i] = memref->aligned;
      EXPECT_EQ(memref->allocated, memref->aligned);
      EXPECT_EQ(memref->offset, 0);
      std::memcpy(seen[i], memref->dims,
                  static_cast<size_t>(words[i]) * sizeof(int64_t));
    }
    return 0;
  };
  Jit jit(
      R"({"name": "a", "role": "input", "dtype": "f32", "shape": [2, -1, 3]},
             {"name": "b", "role": "output", "dtype": "f32", "shape": [-1, 5]},
             {"name": "c", "role": "weight", "dtype": "f32", "shape": []},
             {"name": "d", "role": "weight", "dtype": "i32", "shape": [6]})",
      entry, [](int64_t tokens) { return 100 * tokens; });
  Array<float> a = f32({2, 7, 3}), b = f32({7, 5}), c = f32({});
  Array<int32_t> d = i32({6});
  jit.create({c.dl(), d.dl()});
  ASSERT_OK(jit.call({a.dl()}, {b.dl()}));
  EXPECT_EQ(std::vector<int64_t>(seen[0], seen[0] + 6),
            (std::vector<int64_t>{2, 7, 3, 21, 3, 1}));
  EXPECT_EQ(std::vector<int64_t>(seen[1], seen[1] + 4),
            (std::vector<int64_t>{7, 5, 5, 1}));
  EXPECT_EQ(std::vector<int64_t>(seen[3], seen[3] + 2),
            (std::vector<int64_t>{6, 1}));
  EXPECT_EQ(std::vector<int64_t>(seen[4], seen[4] + 2),
            (std::vector<int64_t>{700, 1}));
  EXPECT_EQ(pointers[0], a.data.data());
  EXPECT_EQ(pointers[2], c.data.data());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(pointers[4]) % 64, 0u);
}

TEST(LayerTest, NoTokens) {
  static int calls;
  calls = 0;
  Entry entry = [](void **, const moe_rt_executor_t *) { return ++calls, 0; };
  Jit jit(copyArguments, entry, noWorkspace);
  jit.create();
  Array<float> x = f32({0, 4}), y = f32({0, 4});
  DLTensor in = x.dl(), out = y.dl();
  in.data = out.data = nullptr;
  EXPECT_OK(jit.call({in}, {out}));
  EXPECT_EQ(calls, 0) << "there was nothing to compute";

  // An output that does not depend on T is still due.
  Jit sum(R"({"name": "x", "role": "input", "dtype": "f32", "shape": [-1]},
             {"name": "y", "role": "output", "dtype": "f32", "shape": []})",
          entry, noWorkspace);
  sum.create();
  Array<float> none = f32({0}), total = f32({});
  EXPECT_OK(sum.call({none.dl()}, {total.dl()}));
  EXPECT_EQ(calls, 1);
}

TEST(LayerTest, TokenRange) {
  Jit jit(copyArguments, copyEntry, noWorkspace, nullptr,
          R"({"min": 2, "max": 3})");
  jit.create();
  for (int64_t tokens : {0, 1, 2, 3, 4}) {
    Array<float> x = f32({tokens, 4}), y = f32({tokens, 4});
    Result result(jit.call({x.dl()}, {y.dl()}));
    EXPECT_EQ(result.code,
              tokens == 2 || tokens == 3 ? MOE_RT_OK : MOE_RT_OUT_OF_RANGE);
    uint64_t bytes;
    EXPECT_EQ(
        Result(moe_rt_layer_workspace_bytes(jit.layer, tokens, &bytes)).code,
        result.code);
  }
  uint64_t bytes;
  EXPECT_ERROR(moe_rt_layer_workspace_bytes(jit.layer, -1, &bytes),
               MOE_RT_OUT_OF_RANGE, "T is -1, expected 2 to 3");
}

TEST(LayerTest, TokensFromOutputs) {
  Jit jit(
      R"({"name": "s", "role": "input", "dtype": "f32", "shape": [4]},
             {"name": "y", "role": "output", "dtype": "f32", "shape": [-1, 4]},
             {"name": "z", "role": "output", "dtype": "f32", "shape": [-1]})",
      [](void **args, const moe_rt_executor_t *) -> int32_t {
        EXPECT_EQ(static_cast<Memref *>(args[1])->dims[0], 6);
        return 0;
      },
      noWorkspace);
  jit.create();
  Array<float> s = f32({4}), y = f32({6, 4}), z = f32({6}), bad = f32({5});
  EXPECT_OK(jit.call({s.dl()}, {y.dl(), z.dl()}));
  EXPECT_ERROR(jit.call({s.dl()}, {y.dl(), bad.dl()}), MOE_RT_INVALID_ARGUMENT,
               "output 'z': extent 0 is 5, expected T = 6 as in 'y'");
  EXPECT_ERROR(jit.call({s.dl()}, {y.dl(), y.dl()}), MOE_RT_INVALID_ARGUMENT,
               "output 'z' has rank 2");
  z.data.resize(100);
  DLTensor inside = z.dl();
  inside.data = y.data.data() + 23;
  EXPECT_ERROR(jit.call({s.dl()}, {y.dl(), inside}), MOE_RT_INVALID_ARGUMENT,
               "output 'z' overlaps output 'y'");
}

TEST(LayerTest, StaticFunction) {
  Jit jit(R"({"name": "x", "role": "input", "dtype": "f32", "shape": [2, 4]},
             {"name": "y", "role": "output", "dtype": "f32", "shape": [2, 4]})",
          copyEntry, [](int64_t tokens) { return tokens; });
  jit.create();
  Array<float> x = f32({2, 4}, 3), y = f32({2, 4});
  EXPECT_OK(jit.call({x.dl()}, {y.dl()}));
  EXPECT_EQ(y.data, x.data);
}

TEST(LayerTest, HugeTokensDoNotOverflow) {
  Jit jit(
      R"({"name": "y", "role": "output", "dtype": "i8", "shape": [-1, -1]})",
      copyEntry, noWorkspace, nullptr,
      R"({"min": 0, "max": 9223372036854775807})");
  jit.create();
  for (int64_t tokens : {INT64_MAX, int64_t(1) << 32, int64_t(3037000500)}) {
    int64_t shape[] = {tokens, tokens};
    char byte;
    DLTensor out = {&byte, {kDLCPU, 0}, 2, {kDLInt, 8, 1}, shape, nullptr, 0};
    EXPECT_ERROR(jit.call({}, {out}), MOE_RT_INVALID_ARGUMENT,
                 "output 'y' has more than 2^63-1");
  }
}

TEST(LayerTest, BooleansAndIds) {
  Jit jit(
      R"({"name": "m", "role": "input", "dtype": "i1", "shape": [-1]},
             {"name": "i", "role": "input", "dtype": "i64", "shape": [-1],
              "num_experts": 1000},
             {"name": "y", "role": "output", "dtype": "i8", "shape": [-1]})",
      [](void **, const moe_rt_executor_t *) { return 0; }, noWorkspace);
  jit.create();
  Array<uint8_t> m({3}, {kDLUInt, 8, 1}, 1);
  Array<int64_t> i({3}, {kDLInt, 64, 1}, 999);
  Array<int8_t> y({3}, {kDLInt, 8, 1});
  EXPECT_OK(jit.call({m.dl(), i.dl()}, {y.dl()}));
  m.dtype = {6, 8, 1}; // DLPack's own bool
  EXPECT_OK(jit.call({m.dl(), i.dl()}, {y.dl()}));
  m.dtype = {kDLInt, 8, 1};
  EXPECT_ERROR(jit.call({m.dl(), i.dl()}, {y.dl()}), MOE_RT_INVALID_ARGUMENT,
               "input 'm' has type i8, expected bool or u8");
  m.dtype = {kDLUInt, 8, 1};
  m.data[2] = 2;
  EXPECT_ERROR(jit.call({m.dl(), i.dl()}, {y.dl()}), MOE_RT_INVALID_ARGUMENT,
               "input 'm': element 2 is 2, expected 0 or 1");
  m.data[2] = 0;
  // Its low 32 bits are a valid id.
  i.data[1] = (int64_t(1) << 32) + 5;
  EXPECT_ERROR(jit.call({m.dl(), i.dl()}, {y.dl()}), MOE_RT_INVALID_ARGUMENT,
               "input 'i': element 1 is 4294967301");
}

TEST(LayerTest, Workspace) {
  Workspace size = [](int64_t tokens) { return 64 * tokens; };
  Entry entry = [](void **args, const moe_rt_executor_t *executor) -> int32_t {
    auto *memory = static_cast<Memref *>(args[2]);
    std::memset(memory->aligned, 1, static_cast<size_t>(memory->dims[0]));
    return copyEntry(args, executor);
  };
  Jit jit(copyArguments, entry, size);
  jit.create();
  Array<float> x = f32({3, 4}, 3), y = f32({3, 4});
  uint64_t bytes;
  ASSERT_OK(moe_rt_layer_workspace_bytes(jit.layer, 3, &bytes));
  EXPECT_EQ(bytes, 192u);
  alignas(64) char memory[256];
  EXPECT_ERROR(jit.call({x.dl()}, {y.dl()}, memory, 191),
               MOE_RT_RESOURCE_EXHAUSTED,
               "workspace has 191 bytes, expected at least 192 for T = 3");
  EXPECT_ERROR(jit.call({x.dl()}, {y.dl()}, memory + 16, 192),
               MOE_RT_INVALID_ARGUMENT, "expected alignment to 64 bytes");
  EXPECT_EQ(y.data[0], 0);
  memory[192] = 77;
  EXPECT_OK(jit.call({x.dl()}, {y.dl()}, memory, sizeof(memory)));
  EXPECT_EQ(memory[191], 1);
  EXPECT_EQ(memory[192], 77) << "more was used than was asked for";
  EXPECT_EQ(y.data[0], 3);
}

TEST(LayerTest, WorkspaceOfNonsense) {
  Jit jit(copyArguments, copyEntry, [](int64_t) { return int64_t(-1); });
  jit.create();
  Array<float> x = f32({3, 4}), y = f32({3, 4});
  EXPECT_ERROR(jit.call({x.dl()}, {y.dl()}), MOE_RT_INTERNAL,
               "asks for a workspace of -1 bytes");
  uint64_t bytes;
  EXPECT_ERROR(moe_rt_layer_workspace_bytes(jit.layer, 3, &bytes),
               MOE_RT_INTERNAL, "-1 bytes");
  Jit huge(copyArguments, copyEntry, [](int64_t) { return INT64_MAX; });
  huge.create();
  EXPECT_ERROR(huge.call({x.dl()}, {y.dl()}), MOE_RT_RESOURCE_EXHAUSTED,
               "cannot allocate 9223372036854775807 bytes for the workspace");
}

TEST(LayerTest, FailureOfTheCode) {
  Jit jit(
      copyArguments, [](void **, const moe_rt_executor_t *) { return 7; },
      noWorkspace);
  jit.create();
  Array<float> x = f32({3, 4}), y = f32({3, 4});
  EXPECT_ERROR(jit.call({x.dl()}, {y.dl()}), MOE_RT_INTERNAL,
               "function 'f' failed with code 7");
}

TEST(LayerTest, AllocatorFailures) {
  CountingAllocator allocator;
  moe_rt_context_options_t options = allocator.options();
  Jit jit(
      copyArguments, copyEntry, [](int64_t) { return int64_t(64); }, &options);
  jit.create();
  Array<float> x = f32({3, 4}, 5), y = f32({3, 4});
  ASSERT_OK(jit.call({x.dl()}, {y.dl()}));
  EXPECT_EQ(allocator.live, 1u); // the workspace is kept
  moe_rt_context_trim(jit.context);
  EXPECT_EQ(allocator.live, 0u);
  size_t needed = allocator.allocations;
  EXPECT_EQ(needed, 2u); // the arguments and the workspace
  y = f32({3, 4});
  for (size_t i = 0; i < needed; ++i) {
    allocator.failAt = allocator.allocations + i;
    EXPECT_ERROR(jit.call({x.dl()}, {y.dl()}), MOE_RT_RESOURCE_EXHAUSTED,
                 "cannot allocate");
    EXPECT_EQ(allocator.live, 0u);
    EXPECT_EQ(y.data[0], 0);
  }
  allocator.misalign = 8;
  for (int i = 0; i < 2; ++i) { // what is refused is not kept
    EXPECT_ERROR(jit.call({x.dl()}, {y.dl()}), MOE_RT_INVALID_ARGUMENT,
                 "the allocator returned");
    EXPECT_EQ(allocator.live, 0u);
  }
  allocator.misalign = 0;
  EXPECT_OK(jit.call({x.dl()}, {y.dl()}));
}

TEST(LayerTest, WorkspacesAreKept) {
  CountingAllocator allocator;
  moe_rt_context_options_t options = allocator.options();
  static std::vector<void *> seen;
  seen.clear();
  Jit jit(
      copyArguments,
      [](void **arguments, const moe_rt_executor_t *executor) {
        seen.push_back(*static_cast<void **>(arguments[2]));
        return copyEntry(arguments, executor);
      },
      [](int64_t tokens) { return tokens * 64; }, &options);
  jit.create();
  auto call = [&](int64_t tokens) {
    Array<float> x = f32({tokens, 4}, 5), y = f32({tokens, 4});
    ASSERT_OK(jit.call({x.dl()}, {y.dl()}));
  };
  call(8);
  call(3);
  EXPECT_EQ(seen[0], seen[1]) << "large enough";
  EXPECT_EQ(allocator.live, 1u);
  call(9);
  EXPECT_EQ(allocator.live, 1u) << "a larger one takes the place";
  EXPECT_EQ(allocator.allocations, 3u + 2u); // arguments, and two workspaces
  moe_rt_context_trim(jit.context);
  moe_rt_context_trim(nullptr);
  EXPECT_EQ(allocator.live, 0u);
  call(9);
  EXPECT_EQ(allocator.live, 1u);
}

TEST(LayerTest, IdleWorkspacesMakeRoom) {
  CountingAllocator allocator;
  moe_rt_context_options_t options = allocator.options();
  // A call within a call, so that two workspaces are in use at once.
  static Jit *inner;
  inner = nullptr;
  Jit jit(
      copyArguments,
      [](void **arguments, const moe_rt_executor_t *executor) {
        if (Jit *nested = std::exchange(inner, nullptr)) {
          Array<float> x = f32({8, 4}, 5), y = f32({8, 4});
          EXPECT_OK(nested->call({x.dl()}, {y.dl()}));
        }
        return copyEntry(arguments, executor);
      },
      [](int64_t tokens) { return tokens * 64; }, &options);
  jit.create();
  inner = &jit;
  Array<float> x = f32({8, 4}, 5), y = f32({8, 4});
  ASSERT_OK(jit.call({x.dl()}, {y.dl()}));
  EXPECT_EQ(allocator.live, 2u);
  // A larger one replaces one of them; what fails is had without the other.
  Array<float> u = f32({9, 4}, 5), v = f32({9, 4});
  allocator.failAt = allocator.allocations + 1;
  EXPECT_OK(jit.call({u.dl()}, {v.dl()}));
  EXPECT_EQ(allocator.live, 1u);
  // Where nothing lies idle the failure stands.
  Array<float> w = f32({10, 4}, 5), z = f32({10, 4});
  allocator.failAt = allocator.allocations + 1;
  EXPECT_ERROR(jit.call({w.dl()}, {z.dl()}), MOE_RT_RESOURCE_EXHAUSTED,
               "cannot allocate");
  EXPECT_EQ(allocator.live, 0u);
}

TEST(LayerTest, ContextOptions) {
  CountingAllocator allocator;
  moe_rt_context_options_t options = allocator.options();
  moe_rt_context_t *context = nullptr;
  options.struct_size = 8;
  EXPECT_ERROR(moe_rt_context_create(&options, &context),
               MOE_RT_INVALID_ARGUMENT, "struct_size is 8, expected 56");
  options = allocator.options();
  options.allocator.release = nullptr;
  EXPECT_ERROR(moe_rt_context_create(&options, &context),
               MOE_RT_INVALID_ARGUMENT, "has 'allocate' but no 'release'");
  EXPECT_ERROR(moe_rt_context_create(nullptr, nullptr), MOE_RT_INVALID_ARGUMENT,
               "NULL");
  options = {sizeof(options), {}, 0, nullptr, {}};
  EXPECT_OK(moe_rt_context_create(&options, &context));
  moe_rt_context_destroy(context);
  for (int64_t threads : {int64_t(-1), int64_t(4097), INT64_MAX}) {
    options.num_threads = threads;
    EXPECT_ERROR(
        moe_rt_context_create(&options, &context), MOE_RT_INVALID_ARGUMENT,
        "num_threads is " + std::to_string(threads) + ", expected 0 to 4096");
  }
  moe_rt_executor_t executor = {nullptr, 2, serialFor};
  options = {sizeof(options), {}, 2, &executor, {}};
  EXPECT_ERROR(moe_rt_context_create(&options, &context),
               MOE_RT_INVALID_ARGUMENT,
               "num_threads is 2 beside an executor, expected 0");
  options.num_threads = 0;
  executor.concurrency = 0;
  EXPECT_ERROR(moe_rt_context_create(&options, &context),
               MOE_RT_INVALID_ARGUMENT, "executor has concurrency 0");
  executor = {nullptr, 2, nullptr};
  EXPECT_ERROR(moe_rt_context_create(&options, &context),
               MOE_RT_INVALID_ARGUMENT, "executor has no 'parallel_for'");
  moe_rt_context_destroy(nullptr);
}

/// Writes the number of each row, one task a row, and the executor's
/// concurrency in its first element.
int32_t parallelEntry(void **args, const moe_rt_executor_t *executor) {
  auto *y = static_cast<Memref *>(args[1]);
  auto task = [](void *context, int64_t row) {
    auto *rows = static_cast<Memref *>(context);
    for (int64_t i = 0; i < 4; ++i)
      static_cast<float *>(rows->aligned)[4 * row + i] =
          static_cast<float>(row);
  };
  executor->parallel_for(executor->user, y->dims[0], task, y);
  static_cast<float *>(y->aligned)[0] =
      static_cast<float>(executor->concurrency);
  return 0;
}

TEST(LayerTest, PassesTheExecutor) {
  Array<float> x = f32({100, 4}), y = f32({100, 4}), expected = f32({100, 4});
  for (size_t i = 0; i < expected.data.size(); ++i)
    expected.data[i] = static_cast<float>(i / 4);
  for (int64_t threads : {1, 3}) {
    moe_rt_context_options_t options = {
        sizeof(options), {}, threads, nullptr, {}};
    Jit jit(copyArguments, parallelEntry, noWorkspace, &options);
    jit.create();
    ASSERT_OK(jit.call({x.dl()}, {y.dl()}));
    expected.data[0] = static_cast<float>(threads);
    EXPECT_EQ(y.data, expected.data);
  }
  // The host's own, of which the runtime keeps a copy.
  int regions = 0;
  auto executor = std::make_unique<moe_rt_executor_t>();
  *executor = {&regions, 5, serialFor};
  moe_rt_context_options_t options = {
      sizeof(options), {}, 0, executor.get(), {}};
  Jit jit(copyArguments, parallelEntry, noWorkspace, &options);
  executor.reset();
  jit.create();
  ASSERT_OK(jit.call({x.dl()}, {y.dl()}));
  expected.data[0] = 5;
  EXPECT_EQ(y.data, expected.data);
  EXPECT_EQ(regions, 1);
}

TEST(LayerTest, UnknownSymbols) {
  Context context;
  moe_rt_module_t *module = nullptr;
  std::string text = metadataFor(doubleFunction);
  auto none = [](void *, const char *) -> void * { return nullptr; };
  EXPECT_ERROR(moe_rt_module_create(context, text.data(), text.size(), none,
                                    nullptr, &module),
               MOE_RT_NOT_FOUND, "'moe_entry_double'");
  EXPECT_ERROR(moe_rt_module_create(context, text.data(), text.size(), nullptr,
                                    nullptr, &module),
               MOE_RT_INVALID_ARGUMENT, "NULL");
}

TEST(LayerTest, ConcurrentCalls) {
  Jit jit(copyArguments, copyEntry, [](int64_t tokens) { return 64 * tokens; });
  jit.create();
  std::atomic<int> failures{0};
  auto work = [&](int seed) {
    for (int i = 0; i < 500; ++i) {
      int64_t tokens = (seed * 31 + i) % 17;
      Array<float> x = f32({tokens, 4}, static_cast<float>(seed)),
                   y = f32({tokens, 4});
      DLTensor in = x.dl(), out = y.dl();
      moe_rt_status_t status =
          moe_rt_layer_call(jit.layer, &in, 1, &out, 1, nullptr, 0);
      failures += status != nullptr || x.data != y.data;
      moe_rt_status_free(status);
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i)
    threads.emplace_back(work, i);
  for (std::thread &thread : threads)
    thread.join();
  EXPECT_EQ(failures, 0);
}

TEST(StatusTest, Names) {
  EXPECT_STREQ(moe_rt_code_name(MOE_RT_DATA_LOSS), "DATA_LOSS");
  EXPECT_STREQ(moe_rt_code_name(MOE_RT_DEADLINE_EXCEEDED), "DEADLINE_EXCEEDED");
  EXPECT_STREQ(moe_rt_code_name(MOE_RT_UNAVAILABLE), "UNAVAILABLE");
  EXPECT_STREQ(moe_rt_code_name(static_cast<moe_rt_code_t>(1)), "UNKNOWN");
  EXPECT_EQ(moe_rt_status_code(nullptr), MOE_RT_OK);
  EXPECT_STREQ(moe_rt_status_message(nullptr), "");
  moe_rt_status_free(nullptr);
  EXPECT_STREQ(moe_rt_version(), "0.1.0");
  EXPECT_EQ(moe_rt_abi_version(), MOE_RT_ABI_VERSION);
}

} // namespace
