//===- Mixtral.cpp - Mixtral, MiniMax, Phi-3.5-MoE, LFM2 and Jamba -------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Family.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::importer;

/// All were first published with the names of Mixtral's code.
static Family sparseBlock() {
  Family f;
  f.experts = {"num_local_experts", "num_experts"};
  f.width = "intermediate_size";
  f.expertLayouts = {
      linears("block_sparse_moe.experts.{e}.", "w1", "w3", "w2"),
      halves("mlp.experts.gate_up_proj", "mlp.experts.down_proj"),
      linears("mlp.experts.{e}.", "w1", "w3", "w2")};
  f.router.weight = {"block_sparse_moe.gate.weight", "mlp.gate.weight"};
  return f;
}

static Family mixtral() {
  Family f = sparseBlock();
  f.router.normalize = Router::Normalize{};
  return f;
}

static Family minimaxM2() {
  Family f = mixtral();
  f.router.score = Score::Sigmoid;
  f.router.selectionBias = {"block_sparse_moe.e_score_correction_bias",
                            "mlp.e_score_correction_bias",
                            "mlp.gate.e_score_correction_bias"};
  return f;
}

/// MiniMax-M2 with the experts of gpt-oss and a shared one.
static Family minimaxM3() {
  Family f = minimaxM2();
  f.sparse.words = "mlp_layer_types";
  f.sparse.period = "moe_layer_freq";
  f.activation = clampedSwiGLU();
  f.routerKeys.scale = "routed_scaling_factor";
  f.shared.width = "shared_intermediate_size";
  f.shared.layouts = {linears("block_sparse_moe.shared_experts."),
                      halves("mlp.shared_experts.gate_up_proj.weight",
                             "mlp.shared_experts.down_proj.weight")};
  return f;
}

/// SparseMixer scores each of two choices separately, over the experts whose
/// logit is near the best remaining one.
static void readSparseMixer(const Config &config, int64_t,
                            LayerDescription &d) {
  double jitter = config.real("router_jitter_noise", 0.01);
  if (jitter < 0.0)
    config.fail("expected 'router_jitter_noise' of at least 0, got " +
                std::to_string(jitter));
  d.router.margin = 2.0 * jitter;
  if (d.router.topK != 2)
    config.fail("expected 'num_experts_per_tok' to be 2, the only top-k of "
                "this router, got " +
                std::to_string(d.router.topK));
}

static Family phimoe() {
  Family f = sparseBlock();
  f.router.weight.back() = "mlp.router.weight";
  f.router.order = Order::ScoreEachChoice;
  f.router.roundScores = true;
  f.refine = readSparseMixer;
  return f;
}

static Family lfm2() {
  Family f;
  f.sparse.first = "num_dense_layers";
  f.sparse.firstAbsent = 2;
  f.activation.name = {}; // SiLU
  f.expertLayouts = {linears("feed_forward.experts.{e}.", "w1", "w3", "w2"),
                     halves("feed_forward.experts.gate_up_proj",
                            "feed_forward.experts.down_proj")};
  f.router.weight = {"feed_forward.gate.weight"};
  f.router.score = Score::Sigmoid;
  f.router.roundScores = true;
  f.router.selectionBias = {"feed_forward.expert_bias"};
  f.router.normalize =
      Router::Normalize{NormalizeKind::Sum, /*p=*/2.0, /*epsilon=*/1e-6};
  f.routerKeys.normalize = "norm_topk_prob";
  f.routerKeys.normalizeAbsent = true;
  f.routerKeys.scale = "routed_scaling_factor";
  f.routerKeys.selectionBias = "use_expert_bias";
  return f;
}

/// With a single expert, layers have an ordinary feed-forward network.
static void requireExperts(const Config &, int64_t, LayerDescription &d) {
  if (d.experts <= 1)
    d.moeLayers.clear();
}

static Family jamba() {
  Family f;
  f.width = "intermediate_size";
  f.sparse.period = "expert_layer_period";
  f.sparse.periodAbsent = 2;
  f.sparse.offset = "expert_layer_offset";
  f.sparse.offsetAbsent = 1;
  f.expertLayouts = linearsOrFused("feed_forward.experts.");
  f.router.weight = {"feed_forward.router.weight"};
  f.router.roundWeights = true;
  f.refine = requireExperts;
  return f;
}

void mlir::moe::importer::addMixtral(FamilyTable &table) {
  table.add("mixtral", mixtral());
  table.add("minimax", mixtral());
  table.add("minimax_m2", minimaxM2());
  table.add("minimax_m3_vl_text", minimaxM3());
  table.wrap("minimax_m3_vl", "minimax_m3_vl_text");
  table.add("phimoe", phimoe());
  table.add("lfm2_moe", lfm2());
  table.add("jamba", jamba());
}
