//===- parallel_layer_test.cpp - Layers over several ranks ----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "parallel/parallel_testing.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>

using namespace moe::test;

namespace {

/// Lets ranks read one another's memory as other processes do.
void hidePeers(moe_rt_communicator_t &communicator) {
  communicator.features &= ~MOE_RT_COMMUNICATOR_PEER_MEMORY;
  communicator.peer = nullptr;
}

/// How rows travel: by messages, or in memory that is that of the threads or
/// of segments; or all tokens to all ranks.
enum class Way { messages, threads, segments, gathered };
constexpr Way allWays[] = {Way::messages, Way::threads, Way::segments,
                           Way::gathered};

/// Run a problem on ranks, with tokens in the order of ranks.
std::vector<float> runOn(int32_t ranks, Problem &problem, int64_t slots,
                         std::vector<int32_t> *table,
                         const std::vector<int64_t> &begins, Way way,
                         uint64_t memoryLimit = 0, int64_t *rounds = nullptr) {
  std::vector<float> result;
  std::vector<std::vector<float>> parts(static_cast<size_t>(ranks));
  runRanks(ranks, [&](int32_t r, moe_rt_communicator_t communicator) {
    if (way == Way::segments)
      hidePeers(communicator);
    const auto wanted = way == Way::messages   ? MOE_RT_WAY_ALL_TO_ALL
                        : way == Way::gathered ? MOE_RT_WAY_ALL_GATHER
                                               : MOE_RT_WAY_PEER;
    moe_rt_group_options_t options = {sizeof(options), 20, memoryLimit, 0,
                                      wanted,          0};
    Rank rank(&communicator, &options);
    ASSERT_EQ(rank.created.code, MOE_RT_OK) << rank.created.message;
    EXPECT_EQ(moe_rt_group_way(rank.group),
              ranks == 1 ? MOE_RT_WAY_ALL_TO_ALL : wanted);
    LayerOptions layer;
    layer.slots = slots;
    ASSERT_OK(rank.load(layer));
    ASSERT_OK(rank.create(problem, table));
    // The second call finds memory that has been used.
    for (int i = 0; i < 2; ++i)
      ASSERT_OK(rank.call(problem, begins[static_cast<size_t>(r)],
                          begins[static_cast<size_t>(r) + 1],
                          parts[static_cast<size_t>(r)]));
    if (rounds && r == 0) {
      moe_rt_exchange_statistics_t statistics;
      ASSERT_OK(moe_rt_layer_exchange_statistics(rank.layer, &statistics));
      *rounds = statistics.rounds;
    }
  });
  for (const std::vector<float> &part : parts)
    result.insert(result.end(), part.begin(), part.end());
  return result;
}

void expectSameBits(const std::vector<float> &a, const std::vector<float> &b) {
  ASSERT_EQ(a.size(), b.size());
  EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin(), [](float x, float y) {
    return std::memcmp(&x, &y, sizeof(x)) == 0;
  }));
}

TEST(ParallelLayer, HasTheBitsOfOneRank) {
  for (unsigned seed = 0; seed < 12; ++seed) {
    Problem problem(seed, 41);
    if (seed % 4 == 1) // to one rank
      for (size_t i = 0; i < problem.ids.data.size(); ++i)
        problem.ids.data[i] = i % K == 0 ? 0 : -1;
    if (seed % 4 == 2) // some
      for (size_t i = 0; i < problem.ids.data.size(); i += 1 + seed % 3)
        problem.ids.data[i] = -1;
    if (seed == 7) // none
      std::fill(problem.ids.data.begin(), problem.ids.data.end(), -1);
    std::vector<float> one =
        runOn(1, problem, E, nullptr, {0, 41}, Way::messages);
    expectSameBits(one, problem.expected());
    for (int32_t ranks = 2; ranks <= 8; ++ranks) {
      int64_t slots = std::min<int64_t>(E, (E + ranks - 1) / ranks + seed % 2);
      std::vector<int32_t> table = tableOf(ranks, slots, seed % 2);
      bool isGiven = seed % 3 != 2;
      for (Way way : allWays)
        expectSameBits(runOn(ranks, problem, slots, isGiven ? &table : nullptr,
                             splitTokens(41, ranks, seed), way),
                       one);
    }
  }
}

TEST(ParallelLayer, RunsWithoutTokens) {
  Problem problem(1, 0);
  Problem some(2, 9);
  for (Way way : allWays) {
    EXPECT_TRUE(runOn(3, problem, 4, nullptr, {0, 0, 0, 0}, way).empty());
    EXPECT_TRUE(runOn(1, problem, E, nullptr, {0, 0}, way).empty());
    expectSameBits(runOn(3, some, 4, nullptr, {0, 0, 9, 9}, way),
                   some.expected());
  }
}

TEST(ParallelLayer, RunsInRounds) {
  Problem problem(3, 60);
  std::vector<float> expected = problem.expected();
  std::vector<int64_t> begins = {0, 13, 13, 60};
  std::vector<int32_t> table = tableOf(3, 4, true);
  for (Way way : {Way::messages, Way::threads, Way::segments}) {
    int64_t rounds = 0, most = 0;
    for (uint64_t limit : {100000, 30000, 20000, 13000, 10000, 9000}) {
      expectSameBits(runOn(3, problem, 4, &table, begins, way, limit, &rounds),
                     expected);
      EXPECT_GE(rounds, most) << limit;
      most = rounds;
    }
    EXPECT_GT(most, 4);
  }
  // Not even one token of each rank at a time.
  for (auto way : {MOE_RT_WAY_AUTOMATIC, MOE_RT_WAY_ALL_GATHER})
    runRanks(2, [&](int32_t r, const moe_rt_communicator_t &communicator) {
      moe_rt_group_options_t options = {
          sizeof(options), 20, r == 0 ? uint64_t(2000) : 0, 0, way, 0};
      Rank rank(&communicator, &options);
      ASSERT_OK(rank.load({}));
      ASSERT_OK(rank.create(problem, nullptr));
      std::vector<float> y;
      EXPECT_ERROR(rank.call(problem, 30 * r, 30 * r + 30, y),
                   r == 0 ? MOE_RT_RESOURCE_EXHAUSTED : MOE_RT_INVALID_ARGUMENT,
                   r == 0 ? "rank 0: layer 'layer': a call with 30 tokens here "
                            "and 60 on all ranks needs more memory than the "
                            "group's limit of 2000 bytes"
                          : "rank 0 failed with code 8, RESOURCE_EXHAUSTED");
      // The group can be used.
      EXPECT_OK(moe_rt_group_status(rank.group));
      EXPECT_OK(rank.call(problem, 0, 0, y));
    });
}

TEST(ParallelLayer, GathersAllTokens) {
  Problem problem(5, 20);
  std::vector<float> sums = problem.x.data;
  for (size_t i = H; i < sums.size(); ++i)
    sums[i] = problem.x.data[i] + sums[i - H];
  for (int32_t ranks : {1, 2, 5, -5}) {
    moe_rt_group_options_t options = {sizeof(options),
                                      20,
                                      0,
                                      0,
                                      ranks < 0 ? MOE_RT_WAY_ALL_TO_ALL
                                                : MOE_RT_WAY_PEER,
                                      0};
    ranks = std::abs(ranks);
    std::vector<int64_t> begins = splitTokens(20, ranks, 1);
    runRanks(ranks, [&](int32_t r, const moe_rt_communicator_t &communicator) {
      Rank rank(&communicator, &options);
      ASSERT_OK(rank.load({}));
      ASSERT_OK(moe_rt_layer_create_parallel(rank.module, "sums", rank.group,
                                             nullptr, nullptr, 0, &rank.layer));
      size_t i = static_cast<size_t>(r);
      std::vector<int64_t> shape = {begins[i + 1] - begins[i], H};
      DLTensor x = problem.x.dl();
      x.shape = shape.data();
      x.byte_offset = static_cast<uint64_t>(begins[i] * H * 4);
      Array<float> y = f32(shape);
      DLTensor out = y.dl();
      for (int k = 0; k < 2; ++k)
        ASSERT_OK(moe_rt_layer_call(rank.layer, &x, 1, &out, 1, nullptr, 0));
      EXPECT_TRUE(
          std::equal(y.data.begin(), y.data.end(), &sums[0] + begins[i] * H));
    });
  }
}

TEST(ParallelLayer, TakesOtherWeights) {
  Problem first(4, 21), second(5, 21);
  second.x = first.x;
  second.ids = first.ids;
  second.w = first.w;
  std::vector<int64_t> begins = {0, 9, 9, 21};
  runRanks(3, [&](int32_t r, const moe_rt_communicator_t &communicator) {
    Rank rank(&communicator);
    LayerOptions options;
    options.slots = 4;
    ASSERT_OK(rank.load(options));
    std::vector<int32_t> table = {3, 4, -1, 7, 0, 1, 2, 6, 5, -1, -1, 0};
    ASSERT_OK(rank.create(first, &table));
    struct Reader {
      Problem *problem;
      bool fails;
    };
    auto read = [](void *user, size_t weight, int64_t begin, int64_t count,
                   void *data, uint64_t bytes) -> int32_t {
      auto &self = *static_cast<Reader *>(user);
      Array<float> *arrays[] = {&self.problem->up, &self.problem->bias,
                                &self.problem->scale};
      uint64_t each = bytes / static_cast<uint64_t>(count);
      std::memcpy(data,
                  reinterpret_cast<char *>(arrays[weight]->data.data()) +
                      static_cast<uint64_t>(begin) * each,
                  bytes);
      return self.fails ? 7 : 0;
    };
    auto expectResultOf = [&](Problem &problem) {
      auto at = static_cast<size_t>(r);
      std::vector<float> y, expected = problem.expected();
      ASSERT_OK(rank.call(problem, begins[at], begins[at + 1], y));
      EXPECT_TRUE(
          std::equal(y.begin(), y.end(), expected.begin() + begins[at] * H));
    };
    expectResultOf(first);
    Reader other = {&second, false}, same = {&first, false},
           fails = {&second, true};
    ASSERT_OK(
        moe_rt_layer_update_parallel_from_source(rank.layer, read, &other));
    expectResultOf(second);
    // An error leaves none, until others come.
    EXPECT_ERROR(
        moe_rt_layer_update_parallel_from_source(rank.layer, read, &fails),
        MOE_RT_NOT_FOUND, "failed with code 7");
    ASSERT_OK(
        moe_rt_layer_update_parallel_from_source(rank.layer, read, &same));
    expectResultOf(first);
    EXPECT_ERROR(moe_rt_layer_update(rank.layer, nullptr, 0),
                 MOE_RT_UNIMPLEMENTED, "is over several ranks");
  });
}

TEST(ParallelLayer, NeitherCallsNorMovesWithoutWeights) {
  Problem problem(4, 20), other(5, 20);
  runRanks(2, [&](int32_t r, const moe_rt_communicator_t &communicator) {
    Rank rank(&communicator);
    ASSERT_OK(rank.load({}));
    std::vector<int32_t> table = {0, 1, 2, 3, -1, -1, -1, -1,
                                  4, 5, 6, 7, -1, -1, -1, -1};
    ASSERT_OK(rank.create(problem, &table));
    struct Reader {
      Problem *problem;
      int32_t code;
    };
    auto read = [](void *user, size_t weight, int64_t begin, int64_t count,
                   void *data, uint64_t bytes) -> int32_t {
      auto &self = *static_cast<Reader *>(user);
      Array<float> *arrays[] = {&self.problem->up, &self.problem->bias,
                                &self.problem->scale};
      uint64_t each = bytes / static_cast<uint64_t>(count);
      std::memcpy(data,
                  reinterpret_cast<char *>(arrays[weight]->data.data()) +
                      static_cast<uint64_t>(begin) * each,
                  bytes);
      return self.code;
    };
    // Rank 1 has read some of its weights.
    Reader fails = {&other, 7}, again = {&problem, 0};
    if (r == 1) {
      EXPECT_ERROR(
          moe_rt_layer_update_parallel_from_source(rank.layer, read, &fails),
          MOE_RT_NOT_FOUND, "failed with code 7");
    }
    std::vector<float> y;
    auto expectNone = [&](moe_rt_status_t status) {
      EXPECT_ERROR(
          status, r == 1 ? MOE_RT_FAILED_PRECONDITION : MOE_RT_INVALID_ARGUMENT,
          r == 1 ? "layer 'layer' has no weights, as an update failed"
                 : "rank 1 failed with code 9");
    };
    expectNone(rank.call(problem, 10 * r, 10 * r + 10, y));
    std::vector<int32_t> wanted = {4, 1, 2, 3, -1, -1, -1, -1,
                                   0, 5, 6, 7, -1, -1, -1, -1};
    std::vector<int64_t> shape = {2, E};
    DLTensor given = tableTensor(wanted, shape);
    expectNone(moe_rt_layer_move(rank.layer, &given));
    if (r == 1)
      ASSERT_OK(
          moe_rt_layer_update_parallel_from_source(rank.layer, read, &again));
    ASSERT_OK(moe_rt_layer_move(rank.layer, &given));
    ASSERT_OK(rank.call(problem, 10 * r, 10 * r + 10, y));
    EXPECT_TRUE(std::equal(y.begin(), y.end(),
                           problem.expected().begin() + 10 * r * H));
  });
}

TEST(ParallelLayer, ReadsOwnExpertsOnly) {
  Problem problem(9, 10);
  struct Reader {
    Problem *problem;
    std::mutex mutex;
    std::vector<std::string> reads;
  };
  runRanks(3, [&](int32_t r, const moe_rt_communicator_t &communicator) {
    Rank rank(&communicator);
    LayerOptions options;
    options.slots = 4;
    ASSERT_OK(rank.load(options));
    std::vector<int32_t> table = {3, 4, -1, 7, 0, 1, 2, 6, 5, -1, -1, 0};
    std::vector<int64_t> shape = {3, 4};
    DLTensor given = tableTensor(table, shape);
    Reader reader = {&problem, {}, {}};
    auto read = [](void *user, size_t weight, int64_t first, int64_t count,
                   void *data, uint64_t bytes) -> int32_t {
      auto &self = *static_cast<Reader *>(user);
      Array<float> *arrays[] = {&self.problem->up, &self.problem->bias,
                                &self.problem->scale};
      size_t stride = arrays[weight]->data.size() /
                      static_cast<size_t>(arrays[weight]->shape[0]);
      EXPECT_EQ(bytes, static_cast<uint64_t>(count) * stride * 4);
      std::memcpy(data,
                  &arrays[weight]->data[static_cast<size_t>(first) * stride],
                  bytes);
      std::lock_guard<std::mutex> lock(self.mutex);
      self.reads.push_back(std::to_string(weight) + ":" +
                           std::to_string(first) + "+" + std::to_string(count));
      return 0;
    };
    ASSERT_OK(moe_rt_layer_create_parallel_from_source(
        rank.module, "layer", rank.group, &given, read, &reader, &rank.layer));
    const std::vector<std::string> expected[] = {
        {"0:3+2", "0:7+1", "1:3+2", "1:7+1", "2:0+1"},
        {"0:0+3", "0:6+1", "1:0+3", "1:6+1", "2:0+1"},
        {"0:5+1", "0:0+1", "1:5+1", "1:0+1", "2:0+1"}};
    EXPECT_EQ(reader.reads, expected[r]);
    EXPECT_EQ(moe_rt_layer_weight_bytes(rank.layer),
              static_cast<uint64_t>(4 * (4 * H * H + 4 * H + 1)));
    std::vector<float> y;
    ASSERT_OK(rank.call(problem, r * 3, r * 3 + 3, y));
    EXPECT_TRUE(
        std::equal(y.begin(), y.end(), problem.expected().begin() + r * 3 * H));
  });
}

TEST(ParallelLayer, ReadsNeighboursInPlace) {
  Problem problem(9, 10);
  runRanks(2, [&](int32_t r, const moe_rt_communicator_t &communicator) {
    Rank rank(&communicator);
    LayerOptions options;
    options.slots = 4;
    ASSERT_OK(rank.load(options));
    ASSERT_OK(rank.create(problem, nullptr));
    EXPECT_EQ(moe_rt_layer_weight_bytes(rank.layer), 0u);
    std::vector<float> y;
    ASSERT_OK(rank.call(problem, r * 5, r * 5 + 5, y));
    EXPECT_TRUE(
        std::equal(y.begin(), y.end(), problem.expected().begin() + r * 5 * H));
  });
}

TEST(ParallelLayer, ReadsACheckpoint) {
  Problem problem(9, 10);
  TemporaryDirectory directory;
  std::string header, data;
  auto add = [&](const char *name, const Array<float> &array) {
    std::string shape;
    for (int64_t extent : array.shape)
      shape += (shape.empty() ? "" : ",") + std::to_string(extent);
    size_t begin = data.size();
    data.append(reinterpret_cast<const char *>(array.data.data()),
                array.data.size() * sizeof(float));
    header += (header.empty() ? "{\"" : ",\"") + std::string(name) +
              "\":{\"dtype\":\"F32\",\"shape\":[" + shape +
              "],\"data_offsets\":[" + std::to_string(begin) + "," +
              std::to_string(data.size()) + "]}";
  };
  add("bias", problem.bias);
  add("scale", problem.scale);
  add("up", problem.up);
  header += "}";
  while (header.size() % 8 != 0)
    header += ' ';
  std::string file;
  for (int i = 0; i < 8; ++i)
    file += static_cast<char>(header.size() >> (8 * i));
  writeFile(directory / "model.safetensors", file + header + data);
  runRanks(2, [&](int32_t r, const moe_rt_communicator_t &communicator) {
    for (bool areNeighbours : {false, true}) {
      Rank rank(&communicator);
      LayerOptions options;
      options.slots = 4;
      ASSERT_OK(rank.load(options));
      std::vector<int32_t> table = tableOf(2, 4, false);
      std::vector<int64_t> shape = {2, 4};
      DLTensor given = tableTensor(table, shape);
      moe_rt_checkpoint_t *checkpoint = nullptr;
      ASSERT_OK(moe_rt_checkpoint_open(
          (directory / "model.safetensors").c_str(), &checkpoint));
      ASSERT_OK(moe_rt_layer_create_parallel_from_checkpoint(
          rank.module, "layer", rank.group, areNeighbours ? nullptr : &given,
          checkpoint, &rank.layer));
      moe_rt_checkpoint_close(checkpoint);
      EXPECT_EQ(moe_rt_layer_weight_bytes(rank.layer),
                areNeighbours ? 0u
                              : static_cast<uint64_t>(4 * (4 * H * H + 4 * H)));
      std::vector<float> y;
      ASSERT_OK(rank.call(problem, r * 5, r * 5 + 5, y));
      EXPECT_TRUE(std::equal(y.begin(), y.end(),
                             problem.expected().begin() + r * 5 * H));
    }
  });
}

TEST(ParallelLayer, DescribesItself) {
  Context context;
  moe_rt_module_t *module = nullptr;
  LayerOptions options;
  options.slots = 3;
  options.replicas = 2;
  ASSERT_OK(
      createParallelModule(context, parallelMetadata(options), 3, &module));
  EXPECT_EQ(moe_rt_module_function_count(module), 0u) << "parts are not seen";
  ASSERT_EQ(moe_rt_module_parallel_count(module), 2u);
  EXPECT_STREQ(moe_rt_module_parallel_name(module, 0), "layer");
  EXPECT_EQ(moe_rt_module_parallel_name(module, 2), nullptr);
  moe_rt_parallel_info_t info;
  ASSERT_OK(moe_rt_parallel_info(module, "layer", &info));
  EXPECT_EQ(info.experts, E);
  EXPECT_EQ(info.slots, 3);
  EXPECT_EQ(info.replicas, 2);
  EXPECT_EQ(info.min_tokens, 0);
  EXPECT_EQ(info.max_tokens, 1000);
  EXPECT_ERROR(moe_rt_parallel_info(module, "other", &info), MOE_RT_NOT_FOUND,
               "no layer 'other' for several ranks; it has: 'layer', 'sums'");
  EXPECT_ERROR(moe_rt_parallel_info(module, nullptr, &info),
               MOE_RT_INVALID_ARGUMENT, "the module has 2 for several ranks");
  size_t count;
  ASSERT_OK(
      moe_rt_function_tensor_count(module, "layer", MOE_RT_WEIGHT, &count));
  EXPECT_EQ(count, 3u);
  moe_rt_tensor_info_t tensor;
  ASSERT_OK(
      moe_rt_function_tensor_info(module, "layer", MOE_RT_WEIGHT, 0, &tensor));
  EXPECT_STREQ(tensor.name, "up");
  EXPECT_EQ(tensor.shape[0], E) << "of all experts";
  moe_rt_layer_t *layer = nullptr;
  EXPECT_ERROR(moe_rt_layer_create(module, "layer", nullptr, 0, &layer),
               MOE_RT_INVALID_ARGUMENT, "'layer' is a layer for several ranks");
  moe_rt_module_destroy(module);
}

TEST(ParallelLayer, IsOneRankWithoutCommunicator) {
  Problem problem(4, 12);
  Rank rank(nullptr);
  ASSERT_OK(rank.load({}));
  ASSERT_OK(rank.create(problem, nullptr));
  std::vector<float> y;
  ASSERT_OK(moe_rt_layer_enable_profile(rank.layer, 1));
  ASSERT_OK(rank.call(problem, 0, 12, y));
  expectSameBits(y, problem.expected());
  uint64_t bytes = 0, more = 0;
  ASSERT_OK(moe_rt_layer_workspace_bytes(rank.layer, 12, &bytes));
  ASSERT_OK(moe_rt_layer_workspace_bytes(rank.layer, 24, &more));
  EXPECT_GT(bytes, 12u * K * H * 4);
  EXPECT_GT(more, bytes);
  EXPECT_ERROR(moe_rt_layer_workspace_bytes(rank.layer, 1001, &bytes),
               MOE_RT_OUT_OF_RANGE, "T is 1001, expected 0 to 1000");
  // A profile has the steps.
  ASSERT_EQ(moe_rt_layer_stage_count(rank.layer), 6u);
  moe_rt_stage_profile_t stage;
  for (size_t i = 0; i < 6; ++i) {
    ASSERT_OK(moe_rt_layer_profile(rank.layer, i, &stage));
    EXPECT_GT(stage.calls, 0) << stage.name;
  }
  EXPECT_STREQ(stage.name, "agreement");
  EXPECT_EQ(moe_rt_layer_dispatch_count(rank.layer), 0u);
  DLTensor weights[] = {problem.up.dl(), problem.bias.dl(), problem.scale.dl()};
  EXPECT_ERROR(moe_rt_layer_update(rank.layer, weights, 3),
               MOE_RT_UNIMPLEMENTED, "layer 'layer' is over several ranks");
  const float *errors = nullptr;
  size_t count = 7;
  ASSERT_OK(moe_rt_layer_quantization_errors(rank.layer, 0, &errors, &count));
  EXPECT_EQ(count, 0u);
  EXPECT_OK(moe_rt_layer_poll(rank.layer));
  EXPECT_EQ(moe_rt_group_size(rank.group), 1);
}

TEST(ParallelLayer, PrefersItsOwnExpertsAndItsNode) {
  Problem problem(6, 8);
  for (size_t i = 0; i < problem.ids.data.size(); ++i)
    problem.ids.data[i] = static_cast<int32_t>(i % K);
  runRanks(
      4,
      [&](int32_t r, const moe_rt_communicator_t &communicator) {
        Rank rank(&communicator);
        LayerOptions options;
        options.slots = 4;
        ASSERT_OK(rank.load(options));
        std::vector<int32_t> table = {0, 1, 2, 3, 4, 5, 6, 7,
                                      0, 1, 2, 3, 4, 5, 6, 7};
        ASSERT_OK(rank.create(problem, &table));
        std::vector<float> y;
        ASSERT_OK(rank.call(problem, r, r + 1, y));
        moe_rt_exchange_statistics_t statistics;
        ASSERT_OK(moe_rt_layer_exchange_statistics(rank.layer, &statistics));
        // All experts are on ranks 0 and 2: a token travels once.
        bool isHome = r % 2 == 0;
        EXPECT_EQ(statistics.rows_sent, 1);
        EXPECT_EQ(statistics.rows_received, isHome ? 2 : 0);
        uint64_t out = (H + K) * 4, home = K * H * 4;
        EXPECT_EQ(statistics.bytes_sent, isHome ? home : out);
        EXPECT_EQ(statistics.bytes_received, isHome ? out : home);
        EXPECT_TRUE(
            std::equal(y.begin(), y.end(), problem.expected().begin() + r * H));
      },
      [](moe_rt_communicator_t *communicators) {
        for (int i = 0; i < 4; ++i)
          communicators[i].node_size = 2;
      });
}

} // namespace
