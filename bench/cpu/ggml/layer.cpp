// A MoE layer in ggml, behind a C interface for participants/ggml.py.
//
// The graph is that of llama.cpp's build_moe_ffn (src/llama-graph.cpp) with
// gate and up in one tensor; weights are in the buffer type that llama.cpp
// would choose, which may reorder them for its kernels. The router is f32, as
// in every GGUF file, and so are x and y.

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpp.h"
#include "ggml-cpu.h"
#include "ggml.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#define MOE_BENCH_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

/// Enough for the nodes of a layer: one view and one sum for each choice.
constexpr size_t kMaxNodes = 512;

struct Shape {
  int64_t hidden, intermediate, experts, topK, shared;
  int32_t renormalise, type;
};

/// Weights in the layout of bench.common.data.Weights.
struct Pointers {
  void *router, *gateUp, *down;
  void *sharedGate, *sharedUp, *sharedDown;
};

struct Weights {
  ggml_context_ptr context;
  std::vector<ggml_backend_buffer_ptr> buffers;
  ggml_tensor *router = nullptr, *gateUp = nullptr, *down = nullptr;
  ggml_tensor *sharedGate = nullptr, *sharedUp = nullptr, *sharedDown = nullptr;
  /// Tensors that the buffer type reordered.
  int reordered = 0;
};

/// One layer for one number of tokens.
struct Graph {
  ggml_context_ptr context;
  ggml_cgraph *nodes = nullptr;
  /// The input and its views, whose data are those of the call.
  std::vector<ggml_tensor *> inputs;
  ggml_tensor *result = nullptr;
  ggml_cplan plan = {};
};

struct ThreadpoolDeleter {
  void operator()(ggml_threadpool *pool) const { ggml_threadpool_free(pool); }
};

struct Network {
  Shape shape = {};
  int threads = 1;
  std::unique_ptr<ggml_threadpool, ThreadpoolDeleter> pool;
  std::vector<Weights> layers;
  std::vector<Graph> graphs;
  /// Memory of the tensors between the weights, the same for all layers.
  ggml_gallocr_ptr allocator;
  std::vector<uint8_t> work;
};

ggml_context_ptr makeContext() {
  size_t bytes = kMaxNodes * ggml_tensor_overhead() +
                 ggml_graph_overhead_custom(kMaxNodes, /*grads=*/false);
  return ggml_context_ptr(
      ggml_init({bytes, /*mem_buffer=*/nullptr, /*no_alloc=*/true}));
}

/// Returns the matmul that a model uses `weight` in.
ggml_tensor *makeProbe(ggml_context *context, ggml_tensor *weight,
                       int64_t topK) {
  constexpr int64_t tokens = 512;
  if (ggml_n_dims(weight) < 3)
    return ggml_mul_mat(
        context, weight,
        ggml_new_tensor_2d(context, GGML_TYPE_F32, weight->ne[0], tokens));
  ggml_tensor *rows =
      ggml_new_tensor_3d(context, GGML_TYPE_F32, weight->ne[0], topK, tokens);
  ggml_tensor *ids = ggml_new_tensor_2d(context, GGML_TYPE_I32, topK, tokens);
  return ggml_mul_mat_id(context, weight, rows, ids);
}

/// Returns the first of the CPU's buffer types beside the usual one that
/// supports the matmul of `weight`, as select_weight_buft of llama.cpp does.
ggml_backend_buffer_type_t findBufferType(ggml_tensor *weight, int64_t topK) {
  ggml_backend_reg_t registry = ggml_backend_cpu_reg();
  ggml_backend_dev_t device = ggml_backend_reg_dev_get(registry, 0);
  auto getTypes = reinterpret_cast<ggml_backend_dev_get_extra_bufts_t>(
      ggml_backend_reg_get_proc_address(registry,
                                        "ggml_backend_dev_get_extra_bufts"));
  ggml_backend_buffer_type_t *types = getTypes ? getTypes(device) : nullptr;
  for (; types && *types; ++types) {
    ggml_context_ptr context = makeContext();
    ggml_tensor *probe = makeProbe(context.get(), weight, topK);
    ggml_backend_buffer_ptr empty(ggml_backend_buft_alloc_buffer(*types, 0));
    weight->buffer = empty.get();
    bool supported = ggml_backend_dev_supports_op(device, probe);
    weight->buffer = nullptr;
    if (supported)
      return *types;
  }
  return nullptr;
}

/// Adds a weight with the data at `data`: a view of them if ggml computes with
/// them as they are.
ggml_tensor *addWeight(Weights &weights, ggml_type type, int64_t columns,
                       int64_t rows, int64_t experts, void *data,
                       int64_t topK) {
  ggml_tensor *weight =
      experts ? ggml_new_tensor_3d(weights.context.get(), type, columns, rows,
                                   experts)
              : ggml_new_tensor_2d(weights.context.get(), type, columns, rows);
  size_t bytes = ggml_nbytes(weight);
  ggml_backend_buffer_type_t bufferType = findBufferType(weight, topK);
  ggml_backend_buffer_ptr buffer(
      bufferType ? ggml_backend_buft_alloc_buffer(
                       bufferType,
                       ggml_backend_buft_get_alloc_size(bufferType, weight))
                 : ggml_backend_cpu_buffer_from_ptr(data, bytes));
  if (!buffer)
    return nullptr;
  ggml_backend_buffer_set_usage(buffer.get(),
                                GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
  if (ggml_backend_tensor_alloc(buffer.get(), weight,
                                ggml_backend_buffer_get_base(buffer.get())) !=
      GGML_STATUS_SUCCESS)
    return nullptr;
  if (bufferType) {
    ggml_backend_tensor_set(weight, data, 0, bytes);
    ++weights.reordered;
  }
  weights.buffers.push_back(std::move(buffer));
  return weight;
}

/// Returns the weights `[1, K, T]` of the chosen experts, and their ids.
ggml_tensor *addRouter(ggml_context *context, const Shape &shape,
                       ggml_tensor *logits, ggml_tensor *&ids) {
  int64_t tokens = logits->ne[1];
  ggml_tensor *scores = ggml_soft_max(context, logits);
  ids = ggml_argsort_top_k(context, scores, shape.topK);
  ggml_tensor *chosen = ggml_get_rows(
      context, ggml_reshape_3d(context, scores, 1, shape.experts, tokens), ids);
  if (!shape.renormalise)
    return chosen;
  // The bound is llama.cpp's, against a division by zero.
  constexpr float least = 6.103515625e-5f;
  chosen = ggml_reshape_2d(context, chosen, shape.topK, tokens);
  ggml_tensor *sum = ggml_clamp(context, ggml_sum_rows(context, chosen), least,
                                std::numeric_limits<float>::infinity());
  return ggml_reshape_3d(context, ggml_div(context, chosen, sum), 1, shape.topK,
                         tokens);
}

/// Builds the graph in the order in which llama.cpp computes it.
Graph makeGraph(const Shape &shape, const Weights &weights, int64_t tokens) {
  Graph graph;
  graph.context = makeContext();
  ggml_context *context = graph.context.get();
  graph.nodes = ggml_new_graph_custom(context, kMaxNodes, /*grads=*/false);
  ggml_tensor *x =
      ggml_new_tensor_2d(context, GGML_TYPE_F32, shape.hidden, tokens);
  ggml_set_input(x);
  ggml_tensor *rows = ggml_reshape_3d(context, x, shape.hidden, 1, tokens);
  graph.inputs = {x, rows};

  ggml_tensor *ids = nullptr;
  ggml_tensor *scores =
      addRouter(context, shape, ggml_mul_mat(context, weights.router, x), ids);
  ggml_build_forward_expand(graph.nodes, scores);

  ggml_tensor *gateUp = ggml_mul_mat_id(context, weights.gateUp, rows, ids);
  auto half = [&](int64_t first) {
    return ggml_view_3d(context, gateUp, shape.intermediate, shape.topK, tokens,
                        gateUp->nb[1], gateUp->nb[2], first * gateUp->nb[0]);
  };
  ggml_tensor *hidden =
      ggml_swiglu_split(context, half(0), half(shape.intermediate));
  ggml_tensor *choices = ggml_mul(
      context, ggml_mul_mat_id(context, weights.down, hidden, ids), scores);
  ggml_build_forward_expand(graph.nodes, choices);

  auto choice = [&](int64_t k) {
    return ggml_view_2d(context, choices, shape.hidden, tokens, choices->nb[2],
                        k * choices->nb[1]);
  };
  ggml_tensor *sum = choice(0);
  for (int64_t k = 1; k < shape.topK; ++k)
    sum = ggml_add(context, sum, choice(k));
  if (shape.topK == 1)
    sum = ggml_cont(context, sum);
  if (shape.shared) {
    ggml_tensor *gated =
        ggml_swiglu_split(context, ggml_mul_mat(context, weights.sharedGate, x),
                          ggml_mul_mat(context, weights.sharedUp, x));
    sum = ggml_add(context, sum,
                   ggml_mul_mat(context, weights.sharedDown, gated));
  }
  ggml_set_output(sum);
  ggml_build_forward_expand(graph.nodes, sum);
  graph.result = sum;
  return graph;
}

} // namespace

/// Returns the ggml_type of a name, -1 if there is none.
MOE_BENCH_EXPORT int moe_bench_type(const char *name) {
  for (int type = 0; type < GGML_TYPE_COUNT; ++type)
    if (const char *known = ggml_type_name(static_cast<ggml_type>(type)))
      if (!std::strcmp(known, name))
        return type;
  return -1;
}

/// Quantises `rows` rows of f32; returns the bytes written.
MOE_BENCH_EXPORT size_t moe_bench_quantise(int type, const float *from,
                                           void *to, int64_t rows,
                                           int64_t columns) {
  return ggml_quantize_chunk(static_cast<ggml_type>(type), from, to,
                             /*start=*/0, rows, columns, /*imatrix=*/nullptr);
}

/// Returns numbers in f32, as ggml itself decodes them.
MOE_BENCH_EXPORT void moe_bench_decode(int type, const void *from, float *to,
                                       int64_t count) {
  ggml_get_type_traits(static_cast<ggml_type>(type))->to_float(from, to, count);
}

MOE_BENCH_EXPORT void *moe_bench_open(const Shape *shape, int threads) {
  ggml_log_set(
      [](ggml_log_level level, const char *text, void *) {
        if (level == GGML_LOG_LEVEL_WARN || level == GGML_LOG_LEVEL_ERROR)
          std::fputs(text, stderr);
      },
      /*user_data=*/nullptr);
  ggml_cpu_init();
  auto network = std::make_unique<Network>();
  network->shape = *shape;
  network->threads = threads;
  ggml_threadpool_params params = ggml_threadpool_params_default(threads);
  network->pool.reset(ggml_threadpool_new(&params));
  network->allocator.reset(ggml_gallocr_new(ggml_backend_cpu_buffer_type()));
  return network.release();
}

MOE_BENCH_EXPORT void moe_bench_close(void *opaque) {
  delete static_cast<Network *>(opaque);
}

/// Adds a layer, which may keep views of its weights; returns the number of
/// tensors that were reordered, -1 without the memory for that.
MOE_BENCH_EXPORT int moe_bench_add_layer(void *opaque, const Pointers *from) {
  auto &network = *static_cast<Network *>(opaque);
  const Shape &shape = network.shape;
  auto type = static_cast<ggml_type>(shape.type);
  Weights weights;
  weights.context = makeContext();
  bool complete = true;
  auto add = [&](ggml_type type, int64_t columns, int64_t rows, int64_t experts,
                 void *data) {
    ggml_tensor *weight =
        addWeight(weights, type, columns, rows, experts, data, shape.topK);
    complete &= weight != nullptr;
    return weight;
  };
  weights.router =
      add(GGML_TYPE_F32, shape.hidden, shape.experts, 0, from->router);
  weights.gateUp = add(type, shape.hidden, 2 * shape.intermediate,
                       shape.experts, from->gateUp);
  weights.down =
      add(type, shape.intermediate, shape.hidden, shape.experts, from->down);
  if (shape.shared) {
    weights.sharedGate =
        add(type, shape.hidden, shape.shared, 0, from->sharedGate);
    weights.sharedUp = add(type, shape.hidden, shape.shared, 0, from->sharedUp);
    weights.sharedDown =
        add(type, shape.shared, shape.hidden, 0, from->sharedDown);
  }
  if (!complete)
    return -1;
  network.layers.push_back(std::move(weights));
  return network.layers.back().reordered;
}

/// Prepares calls with `tokens` tokens; returns the bytes that they allocated,
/// -1 without the memory.
MOE_BENCH_EXPORT int64_t moe_bench_load(void *opaque, int64_t tokens) {
  auto &network = *static_cast<Network *>(opaque);
  network.graphs.clear();
  size_t work = 0;
  for (const Weights &weights : network.layers) {
    Graph graph = makeGraph(network.shape, weights, tokens);
    if (!ggml_gallocr_alloc_graph(network.allocator.get(), graph.nodes))
      return -1;
    graph.plan =
        ggml_graph_plan(graph.nodes, network.threads, network.pool.get());
    work = std::max(work, graph.plan.work_size);
    network.graphs.push_back(std::move(graph));
  }
  network.work.resize(work);
  for (Graph &graph : network.graphs)
    graph.plan.work_data = network.work.data();
  return work + ggml_gallocr_get_buffer_size(network.allocator.get(), 0);
}

/// Computes a layer on `x`; returns 0, or ggml's status.
MOE_BENCH_EXPORT int moe_bench_run(void *opaque, int layer, float *x) {
  auto &network = *static_cast<Network *>(opaque);
  Graph &graph = network.graphs[layer];
  for (ggml_tensor *input : graph.inputs)
    input->data = x;
  return ggml_graph_compute(graph.nodes, &graph.plan);
}

/// Copies the result of the last call, which was of `layer`.
MOE_BENCH_EXPORT void moe_bench_output(void *opaque, int layer, float *y) {
  const Graph &graph = static_cast<Network *>(opaque)->graphs[layer];
  std::memcpy(y, graph.result->data, ggml_nbytes(graph.result));
}
