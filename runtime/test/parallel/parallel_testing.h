//===- parallel_testing.h - Layers over threads -----------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A layer whose parts are functions of this program, and ranks that are
// threads.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_TEST_PARALLEL_TESTING_H
#define MOE_RT_TEST_PARALLEL_TESTING_H

#include "testing.h"

#include "moe_rt/group.h"

#include <functional>

namespace moe::test {

/// Of the layer "layer": y[t] is the sum over k of w[t, k] * e(x[t]), where e
/// is the expert ids[t, k]: max(0, up[e] x) + bias[e].
inline constexpr int64_t E = 8, K = 3, H = 5;

/// Metadata with "layer" for `slots` experts on a rank and `replicas` copies.
/// It has 5 choices of the name of the layer, its greatest T and so on.
struct LayerOptions {
  int64_t slots = E;
  int64_t replicas = E;
  std::string name = "layer";
  int64_t maxTokens = 1000;
  /// Text of "parallel" instead of the layer's.
  std::string parallel = {};
};
/// The value of "parallel" for the layer.
std::string parallelOf(const LayerOptions &options);
std::string parallelMetadata(const LayerOptions &options);

/// A module of it.
moe_rt_status_t createParallelModule(moe_rt_context_t *context,
                                     const std::string &metadata, int64_t slots,
                                     moe_rt_module_t **out);

/// What the parts of the layer do wrong.
enum class Fault { none, counts, index, expected, returns, code };
/// On which rank, by its thread.
void setFault(Fault fault);

/// Is called before the experts compute on a rank, by its thread.
void setOnCompute(std::function<void()> visit);

/// Weights and tokens of a call.
struct Problem {
  Problem(unsigned seed, int64_t tokens);

  /// The result, by the formula above.
  std::vector<float> expected() const;

  int64_t tokens;
  Array<float> up = f32({E, H, H}), bias = f32({E, H}), scale = f32({1});
  Array<float> x, w;
  Array<int32_t> ids;
};

/// A table of the placement: expert e is on rank e mod N, and copies of the
/// first experts fill what is left on the last ranks.
std::vector<int32_t> tableOf(int64_t ranks, int64_t slots, bool hasReplicas);
inline DLTensor tableTensor(std::vector<int32_t> &table,
                            std::vector<int64_t> &shape) {
  return {table.data(), {kDLCPU, 0}, 2, {kDLInt, 32, 1},
          shape.data(), nullptr,     0};
}

/// The tokens of each rank: their first ones, and the number of all at the end.
std::vector<int64_t> splitTokens(int64_t tokens, int64_t ranks, unsigned seed);

/// Runs `body` as each rank on a thread of its own, with communicators that
/// `change` may have replaced.
void runRanks(int32_t ranks,
              const std::function<void(int32_t rank,
                                       const moe_rt_communicator_t &)> &body,
              const std::function<void(moe_rt_communicator_t *)> &change = {});

/// One rank: its context, group, module and layer, destroyed at the end.
struct Rank {
  Rank(const moe_rt_communicator_t *communicator,
       const moe_rt_group_options_t *options = nullptr);
  ~Rank();

  moe_rt_status_t load(const LayerOptions &options);
  moe_rt_status_t create(Problem &problem, std::vector<int32_t> *table);
  /// Call the layer with tokens [begin, end) of a problem.
  moe_rt_status_t call(Problem &problem, int64_t begin, int64_t end,
                       std::vector<float> &out);

  Context context;
  moe_rt_group_t *group = nullptr;
  moe_rt_module_t *module = nullptr;
  moe_rt_layer_t *layer = nullptr;
  Result created;
  LayerOptions options;
};

/// The options of a context with one thread.
extern const moe_rt_context_options_t oneThread;

} // namespace moe::test

#endif // MOE_RT_TEST_PARALLEL_TESTING_H
