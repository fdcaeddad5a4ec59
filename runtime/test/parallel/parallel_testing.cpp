//===- parallel_testing.cpp - Layers over threads -------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "parallel/parallel_testing.h"

#include "moe_rt/abi.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <numeric>
#include <random>
#include <thread>

using namespace moe::test;

const moe_rt_context_options_t moe::test::oneThread = {
    sizeof(moe_rt_context_options_t), {}, 1, nullptr, {}};

static thread_local Fault fault = Fault::none;

void moe::test::setFault(Fault value) { fault = value; }

static thread_local std::function<void()> onCompute;

void moe::test::setOnCompute(std::function<void()> visit) {
  onCompute = std::move(visit);
}

//===----------------------------------------------------------------------===//
// The parts
//===----------------------------------------------------------------------===//

namespace {

/// A memref descriptor.
struct Memref {
  explicit Memref(void *descriptor)
      : words(static_cast<int64_t *>(descriptor)) {}

  template <typename T> T *data() const {
    return reinterpret_cast<T *>(words[1]);
  }
  int64_t size(size_t i) const { return words[3 + i]; }

  int64_t *words;
};

} // namespace

static int64_t noWorkspace(int64_t) { return 0; }

/// The rows of choices, as floats of the code: it writes them there first.
static int64_t rowsWorkspace(int64_t rows) {
  return rows * K * H * static_cast<int64_t>(sizeof(float));
}

/// ids, placement -> index, slots, counts, positions, expected
template <int64_t slots>
static int32_t partition(void **args, const moe_rt_tasks_t *) {
  Memref ids(args[0]), placement(args[1]), index(args[2]), local(args[3]),
      counts(args[4]), positions(args[5]), expected(args[6]);
  int64_t tokens = ids.size(0), replicas = placement.size(1);
  std::fill_n(counts.data<int32_t>(), E, 0);
  std::fill_n(expected.data<int32_t>(), E, 0);
  auto target = [&](int64_t t, int64_t k) {
    int32_t id = ids.data<int32_t>()[t * K + k];
    if (id < 0)
      return -1;
    const int32_t *targets = placement.data<int32_t>() + id * replicas;
    int64_t count = 0;
    while (count < replicas && targets[count] >= 0)
      ++count;
    return targets[t % count];
  };
  int32_t sent = 0, home = 0;
  for (int32_t rank = 0; rank < E; ++rank)
    for (int64_t t = 0; t < tokens; ++t) {
      bool goes = false;
      int32_t chosen[K];
      for (int64_t k = 0; k < K; ++k) {
        int32_t slot = target(t, k);
        chosen[k] = slot >= 0 && slot / slots == rank
                        ? static_cast<int32_t>(slot % slots)
                        : -1;
        goes |= chosen[k] >= 0;
        if (slot < 0)
          positions.data<int32_t>()[t * K + k] = -1;
        else if (chosen[k] >= 0) {
          positions.data<int32_t>()[t * K + k] = home++;
          ++expected.data<int32_t>()[rank];
        }
      }
      if (!goes)
        continue;
      index.data<int32_t>()[sent] = static_cast<int32_t>(t);
      std::copy_n(chosen, K, local.data<int32_t>() + sent * K);
      ++sent;
      ++counts.data<int32_t>()[rank];
    }
  if (fault == Fault::counts)
    counts.data<int32_t>()[0] = static_cast<int32_t>(tokens) + 1;
  if (fault == Fault::index)
    index.data<int32_t>()[0] = static_cast<int32_t>(tokens);
  if (fault == Fault::expected)
    ++expected.data<int32_t>()[0];
  return 0;
}

/// x, slots, received, up, bias -> rows, index, counts
template <int64_t slots>
static int32_t computeExperts(void **args, const moe_rt_tasks_t *) {
  Memref x(args[0]), local(args[1]), received(args[2]), up(args[3]),
      bias(args[4]), rows(args[5]), index(args[6]), counts(args[7]),
      workspace(args[8]);
  if (fault == Fault::code)
    return 7;
  int64_t count = x.size(0);
  if (workspace.size(0) < rowsWorkspace(count))
    return 8;
  if (onCompute)
    onCompute();
  // Rows in the order of slots, then those in the order of tokens are found.
  auto *made = workspace.data<float>();
  int64_t next = 0;
  std::vector<int32_t> rowOf(static_cast<size_t>(count * K), -1);
  for (int32_t slot = 0; slot < slots; ++slot)
    for (int64_t i = 0; i < count * K; ++i) {
      if (local.data<int32_t>()[i] != slot)
        continue;
      const float *token = x.data<float>() + i / K * H;
      for (int64_t j = 0; j < H; ++j) {
        float sum = 0;
        for (int64_t k = 0; k < H; ++k)
          sum += up.data<float>()[(slot * H + j) * H + k] * token[k];
        made[next * H + j] =
            std::max(sum, 0.f) + bias.data<float>()[slot * H + j];
      }
      rowOf[static_cast<size_t>(i)] = static_cast<int32_t>(next++);
    }
  std::copy_n(made, next * H, rows.data<float>());
  std::fill_n(counts.data<int32_t>(), E, 0);
  int64_t token = 0, listed = 0;
  for (int64_t rank = 0; rank < E; ++rank)
    for (int64_t n = received.data<int32_t>()[rank]; n > 0; --n, ++token)
      for (int64_t k = 0; k < K; ++k)
        if (int32_t row = rowOf[static_cast<size_t>(token * K + k)]; row >= 0) {
          index.data<int32_t>()[listed++] = row;
          ++counts.data<int32_t>()[rank];
        }
  if (fault == Fault::returns && listed > 0)
    for (int64_t rank = 0; rank < E; ++rank)
      if (counts.data<int32_t>()[rank] > 0) {
        --counts.data<int32_t>()[rank];
        break;
      }
  return 0;
}

/// rows, positions, w, scale -> y
static int32_t combine(void **args, const moe_rt_tasks_t *) {
  Memref rows(args[0]), positions(args[1]), w(args[2]), scale(args[3]),
      y(args[4]);
  for (int64_t t = 0; t < y.size(0); ++t)
    for (int64_t j = 0; j < H; ++j) {
      float sum = 0;
      for (int64_t k = 0; k < K; ++k)
        if (int32_t row = positions.data<int32_t>()[t * K + k]; row >= 0)
          sum += w.data<float>()[t * K + k] * rows.data<float>()[row * H + j];
      y.data<float>()[t * H + j] = scale.data<float>()[0] * sum;
    }
  return 0;
}

/// x of all tokens -> the sum of the tokens up to each
static int32_t addUp(void **args, const moe_rt_tasks_t *) {
  Memref x(args[0]), y(args[1]);
  for (int64_t t = 0; t < x.size(0); ++t)
    for (int64_t j = 0; j < H; ++j)
      y.data<float>()[t * H + j] =
          x.data<float>()[t * H + j] +
          (t > 0 ? y.data<float>()[(t - 1) * H + j] : 0);
  return 0;
}

template <int64_t slots> static void *resolveFor(const std::string &symbol) {
  if (symbol == "partition")
    return reinterpret_cast<void *>(partition<slots>);
  if (symbol == "experts")
    return reinterpret_cast<void *>(computeExperts<slots>);
  if (symbol == "combine")
    return reinterpret_cast<void *>(combine);
  if (symbol == "add_up")
    return reinterpret_cast<void *>(addUp);
  if (symbol == "rows_workspace")
    return reinterpret_cast<void *>(rowsWorkspace);
  if (symbol == "no_workspace")
    return reinterpret_cast<void *>(noWorkspace);
  return nullptr;
}

static void *resolve(void *user, const char *symbol) {
  using Resolver = void *(*)(const std::string &);
  static constexpr Resolver resolvers[] = {
      resolveFor<1>, resolveFor<2>, resolveFor<3>, resolveFor<4>,
      resolveFor<5>, resolveFor<6>, resolveFor<7>, resolveFor<8>};
  return resolvers[*static_cast<const int64_t *>(user) - 1](symbol);
}

//===----------------------------------------------------------------------===//
// Metadata
//===----------------------------------------------------------------------===//

/// Replace what stands between signs of dollar by numbers.
static std::string fill(std::string text, const LayerOptions &options) {
  const std::pair<const char *, std::string> names[] = {
      {"$E", std::to_string(E)},
      {"$K", std::to_string(K)},
      {"$H", std::to_string(H)},
      {"$L", std::to_string(options.slots)},
      {"$R", std::to_string(options.replicas)},
      {"$T", std::to_string(options.maxTokens)},
      {"$N", options.name}};
  for (const auto &[name, value] : names)
    for (size_t at; (at = text.find(name)) != std::string::npos;)
      text.replace(at, 2, value);
  return text;
}

std::string moe::test::parallelOf(const LayerOptions &options) {
  return fill(R"([
    {"name": "$N", "experts": $E, "slots": $L, "replicas": $R,
     "tokens": {"min": 0, "max": $T},
     "arguments": [
       {"name": "x", "role": "input", "dtype": "f32", "shape": [-1, $H]},
       {"name": "ids", "role": "input", "dtype": "i32", "shape": [-1, $K],
        "num_experts": $E},
       {"name": "w", "role": "input", "dtype": "f32", "shape": [-1, $K]},
       {"name": "up", "role": "weight", "dtype": "f32", "shape": [$E, $H, $H]},
       {"name": "bias", "role": "weight", "dtype": "f32", "shape": [$E, $H]},
       {"name": "scale", "role": "weight", "dtype": "f32", "shape": [1]},
       {"name": "y", "role": "output", "dtype": "f32", "shape": [-1, $H]}],
     "values": [
       {"name": "index", "dtype": "i32", "shape": [-1, $K], "rows": "home"},
       {"name": "slots", "dtype": "i32", "shape": [-1, $K, $K], "rows": "home"},
       {"name": "counts", "dtype": "i32", "shape": [$E]},
       {"name": "positions", "dtype": "i32", "shape": [-1, $K], "rows": "home"},
       {"name": "expected", "dtype": "i32", "shape": [$E]},
       {"name": "rx", "dtype": "f32", "shape": [-1, $H], "rows": "received"},
       {"name": "rslots", "dtype": "i32", "shape": [-1, $K],
        "rows": "received"},
       {"name": "received", "dtype": "i32", "shape": [$E]},
       {"name": "made", "dtype": "f32", "shape": [-1, $K, $H],
        "rows": "received"},
       {"name": "order", "dtype": "i32", "shape": [-1, $K],
        "rows": "received"},
       {"name": "returns", "dtype": "i32", "shape": [$E]},
       {"name": "back", "dtype": "f32", "shape": [-1, $K, $H],
        "rows": "home"}],
     "steps": [
       {"call": "$N.part0", "inputs": ["ids", "placement"],
        "outputs": ["index", "slots", "counts", "positions", "expected"]},
       {"exchange": {"sources": [{"value": "x", "index": "index"},
                                 {"value": "slots"}],
                     "counts": "counts", "results": ["rx", "rslots"],
                     "received": "received"}},
       {"call": "$N.part1", "inputs": ["rx", "rslots", "received"],
        "outputs": ["made", "order", "returns"]},
       {"exchange": {"sources": [{"value": "made", "index": "order"}],
                     "counts": "returns", "results": ["back"],
                     "expected": "expected"}},
       {"call": "$N.part2", "inputs": ["back", "positions", "w"],
        "outputs": ["y"]}]},
    {"name": "sums", "experts": $E, "slots": $L, "replicas": $R,
     "tokens": {"min": 0, "max": $T},
     "arguments": [
       {"name": "x", "role": "input", "dtype": "f32", "shape": [-1, $H]},
       {"name": "y", "role": "output", "dtype": "f32", "shape": [-1, $H]}],
     "values": [
       {"name": "xs", "dtype": "f32", "shape": [-1, $H], "rows": "all"},
       {"name": "ys", "dtype": "f32", "shape": [-1, $H], "rows": "all"}],
     "steps": [{"gather": {"source": "x", "result": "xs"}},
               {"call": "sums.part0", "inputs": ["xs"], "outputs": ["ys"]},
               {"own": {"source": "ys", "result": "y"}}]}])",
              options);
}

std::string moe::test::parallelMetadata(const LayerOptions &options) {
  std::string parallel =
      options.parallel.empty() ? parallelOf(options) : options.parallel;
  return fill(R"({"format": 2, "variants": [{"target": {"triple": ")" +
                  std::string(hostTriple) + R"(", "features": []},
   "functions": [
    {"name": "$N.part0", "entry": "partition", "workspace": "no_workspace",
     "tokens": {"min": 0, "max": $T},
     "arguments": [
       {"name": "ids", "role": "input", "dtype": "i32", "shape": [-1, $K]},
       {"name": "targets", "role": "input", "dtype": "i32",
        "shape": [$E, $R], "alignment": 64},
       {"name": "a", "role": "output", "dtype": "i32", "shape": [-1, $K]},
       {"name": "b", "role": "output", "dtype": "i32", "shape": [-1, $K, $K],
        "alignment": 256},
       {"name": "c", "role": "output", "dtype": "i32", "shape": [$E]},
       {"name": "d", "role": "output", "dtype": "i32", "shape": [-1, $K]},
       {"name": "e", "role": "output", "dtype": "i32", "shape": [$E]}]},
    {"name": "$N.part1", "entry": "experts", "workspace": "rows_workspace",
     "tokens": {"min": 0, "max": 100000},
     "arguments": [
       {"name": "a", "role": "input", "dtype": "f32", "shape": [-1, $H]},
       {"name": "b", "role": "input", "dtype": "i32", "shape": [-1, $K]},
       {"name": "c", "role": "input", "dtype": "i32", "shape": [$E]},
       {"name": "up", "role": "weight", "dtype": "f32", "shape": [$L, $H, $H]},
       {"name": "bias", "role": "weight", "dtype": "f32", "shape": [$L, $H]},
       {"name": "d", "role": "output", "dtype": "f32", "shape": [-1, $K, $H]},
       {"name": "e", "role": "output", "dtype": "i32", "shape": [-1, $K]},
       {"name": "f", "role": "output", "dtype": "i32", "shape": [$E]}]},
    {"name": "$N.part2", "entry": "combine", "workspace": "no_workspace",
     "tokens": {"min": 0, "max": $T},
     "arguments": [
       {"name": "a", "role": "input", "dtype": "f32", "shape": [-1, $K, $H]},
       {"name": "b", "role": "input", "dtype": "i32", "shape": [-1, $K]},
       {"name": "c", "role": "input", "dtype": "f32", "shape": [-1, $K]},
       {"name": "scale", "role": "weight", "dtype": "f32", "shape": [1]},
       {"name": "y", "role": "output", "dtype": "f32", "shape": [-1, $H]}]},
    {"name": "sums.part0", "entry": "add_up", "workspace": "no_workspace",
     "tokens": {"min": 0, "max": 100000},
     "arguments": [
       {"name": "a", "role": "input", "dtype": "f32", "shape": [-1, $H]},
       {"name": "b", "role": "output", "dtype": "f32", "shape": [-1, $H]}]}],
   "parallel": )" +
                  parallel + "}]}",
              options);
}

moe_rt_status_t moe::test::createParallelModule(moe_rt_context_t *context,
                                                const std::string &metadata,
                                                int64_t slots,
                                                moe_rt_module_t **out) {
  return moe_rt_module_create(context, metadata.data(), metadata.size(),
                              resolve, &slots, out);
}

//===----------------------------------------------------------------------===//
// Problems
//===----------------------------------------------------------------------===//

Problem::Problem(unsigned seed, int64_t tokens)
    : tokens(tokens), x(f32({tokens, H})), w(f32({tokens, K})),
      ids(i32({tokens, K})) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  for (Array<float> *array : {&up, &bias, &x, &w})
    for (float &each : array->data)
      each = normal(generator);
  scale.data[0] = 1.5f;
  std::vector<int32_t> experts(E);
  for (int64_t t = 0; t < tokens; ++t) {
    std::iota(experts.begin(), experts.end(), 0);
    std::shuffle(experts.begin(), experts.end(), generator);
    std::copy_n(experts.begin(), K, ids.data.begin() + t * K);
  }
}

std::vector<float> Problem::expected() const {
  std::vector<float> y(static_cast<size_t>(tokens * H));
  auto at = [](const std::vector<float> &data, int64_t index) {
    return data[static_cast<size_t>(index)];
  };
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t j = 0; j < H; ++j) {
      float total = 0;
      for (int64_t k = 0; k < K; ++k) {
        int64_t e = ids.data[static_cast<size_t>(t * K + k)];
        if (e < 0)
          continue;
        float sum = 0;
        for (int64_t i = 0; i < H; ++i)
          sum += at(up.data, (e * H + j) * H + i) * at(x.data, t * H + i);
        total += at(w.data, t * K + k) *
                 (std::max(sum, 0.f) + at(bias.data, e * H + j));
      }
      y[static_cast<size_t>(t * H + j)] = scale.data[0] * total;
    }
  return y;
}

std::vector<int32_t> moe::test::tableOf(int64_t ranks, int64_t slots,
                                        bool hasReplicas) {
  std::vector<int32_t> table(static_cast<size_t>(ranks * slots), -1);
  auto at = [&](int64_t rank, int64_t slot) -> int32_t & {
    return table[static_cast<size_t>(rank * slots + slot)];
  };
  // Not neighbours, and not from the first slot on.
  for (int64_t e = 0; e < E; ++e)
    at(e % ranks, slots - 1 - e / ranks) = static_cast<int32_t>(e);
  if (hasReplicas)
    for (int64_t r = 0; r < ranks; ++r)
      for (int32_t e = 0; e < E && at(r, 0) < 0; ++e)
        if (e % ranks != r)
          at(r, 0) = e;
  return table;
}

std::vector<int64_t> moe::test::splitTokens(int64_t tokens, int64_t ranks,
                                            unsigned seed) {
  std::mt19937 generator(seed);
  std::vector<int64_t> begins = {0, tokens};
  for (int64_t r = 1; r < ranks; ++r)
    begins.push_back(
        std::uniform_int_distribution<int64_t>(0, tokens)(generator));
  std::sort(begins.begin(), begins.end());
  return begins;
}

//===----------------------------------------------------------------------===//
// Ranks
//===----------------------------------------------------------------------===//

void moe::test::runRanks(
    int32_t ranks,
    const std::function<void(int32_t, const moe_rt_communicator_t &)> &body,
    const std::function<void(moe_rt_communicator_t *)> &change) {
  std::vector<moe_rt_communicator_t> given(static_cast<size_t>(ranks));
  ASSERT_OK(moe_rt_thread_communicators_create(ranks, given.data()));
  std::vector<moe_rt_communicator_t> used = given;
  if (change)
    change(used.data());
  std::vector<std::thread> threads;
  for (int32_t r = 0; r < ranks; ++r)
    threads.emplace_back([&, r] { body(r, used[static_cast<size_t>(r)]); });
  for (std::thread &thread : threads)
    thread.join();
  moe_rt_thread_communicators_destroy(given.data());
}

Rank::Rank(const moe_rt_communicator_t *communicator,
           const moe_rt_group_options_t *options)
    : context(&oneThread),
      created(moe_rt_group_create(context, communicator, options, &group)) {}

Rank::~Rank() {
  moe_rt_layer_destroy(layer);
  moe_rt_module_destroy(module);
  moe_rt_group_destroy(group);
}

moe_rt_status_t Rank::load(const LayerOptions &given) {
  options = given;
  moe_rt_module_destroy(module);
  module = nullptr;
  return createParallelModule(context, parallelMetadata(options), options.slots,
                              &module);
}

moe_rt_status_t Rank::create(Problem &problem, std::vector<int32_t> *table) {
  DLTensor weights[] = {problem.up.dl(), problem.bias.dl(), problem.scale.dl()};
  std::vector<int64_t> shape = {moe_rt_group_size(group), options.slots};
  DLTensor given = {};
  if (table)
    given = tableTensor(*table, shape);
  return moe_rt_layer_create_parallel(module, options.name.c_str(), group,
                                      table ? &given : nullptr, weights, 3,
                                      &layer);
}

moe_rt_status_t Rank::call(Problem &problem, int64_t begin, int64_t end,
                           std::vector<float> &out) {
  auto part = [&](auto &array, int64_t width, std::vector<int64_t> &shape) {
    DLTensor tensor = array.dl();
    shape = {end - begin, width};
    tensor.shape = shape.data();
    tensor.byte_offset = static_cast<uint64_t>(begin * width * 4);
    return tensor;
  };
  std::vector<int64_t> shapes[4] = {{}, {}, {}, {end - begin, H}};
  DLTensor inputs[] = {part(problem.x, H, shapes[0]),
                       part(problem.ids, K, shapes[1]),
                       part(problem.w, K, shapes[2])};
  out.assign(static_cast<size_t>((end - begin) * H), -1);
  DLTensor y = {out.data(),       {kDLCPU, 0}, 2, {kDLFloat, 32, 1},
                shapes[3].data(), nullptr,     0};
  return moe_rt_layer_call(layer, inputs, 3, &y, 1, nullptr, 0);
}
