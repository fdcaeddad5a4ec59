//===- Qwen.cpp - Softmax scores, then top-k: Qwen, OLMoE and others -----===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Family.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::importer;

/// Softmax, the best K, and renormalization if configured.
static Family softmaxTopK(bool normalizeAbsent) {
  Family f;
  f.expertLayouts = linearsOrFused("mlp.experts.");
  f.router.weight = {"mlp.gate.weight"};
  f.router.roundWeights = true;
  f.router.normalize = Router::Normalize{};
  f.routerKeys.normalize = "norm_topk_prob";
  f.routerKeys.normalizeAbsent = normalizeAbsent;
  return f;
}

static Family olmoe() {
  Family f = softmaxTopK(/*normalizeAbsent=*/false);
  f.width = "intermediate_size";
  return f;
}

static Family qwen3(bool normalizeAbsent) {
  Family f = softmaxTopK(normalizeAbsent);
  f.sparse.period = "decoder_sparse_step";
  f.sparse.offsetAbsent = -1;
  f.sparse.dense = "mlp_only_layers";
  return f;
}

static Family withSharedExpert(Family f) {
  f.shared.width = "shared_expert_intermediate_size";
  f.shared.layouts = {linears("mlp.shared_expert.")};
  return f;
}

static Family qwen2(Family f) {
  f = withSharedExpert(f);
  f.shared.gate = "mlp.shared_expert_gate.weight";
  return f;
}

static Family alwaysNormalized(Family f) {
  f.routerKeys.normalize = {};
  return f;
}

/// Published with the tensors of transformers 5; fp8 releases have linear
/// layers.
static Family fusedFirst(Family f) {
  std::swap(f.expertLayouts[0], f.expertLayouts[1]);
  return f;
}

/// Published with transposed tensors of the same names.
static Family qwen3VL() {
  Family f = alwaysNormalized(qwen3(true));
  MLPLayout fused = f.expertLayouts[1];
  f.expertLayouts = {inOut(fused), fused};
  return f;
}

static void addQwen3Omni(FamilyTable &table) {
  table.add("qwen3_omni_moe_text", qwen3(/*normalizeAbsent=*/true));
  table.add("qwen3_omni_moe_talker_text", qwen2(softmaxTopK(false)));
  StringRef published = "thinker.model.layers.{n}.";
  table.wrap("qwen3_omni_moe", "qwen3_omni_moe_text",
             {"thinker_config.text_config"},
             {published, "thinker.model.language_model.layers.{n}."});
  table.wrap(
      "qwen3_omni_moe_thinker", "qwen3_omni_moe_text", {"text_config"},
      {published, "model.language_model.layers.{n}.", "model.layers.{n}."});
}

/// A router of sigmoid scores in f32; a shared expert without a gate.
static Family flint() {
  Family f = withSharedExpert(qwen3(/*normalizeAbsent=*/true));
  f.sparse.denseAbsent = {0, 1};
  f.router.score = Score::Sigmoid;
  f.router.f32Logits = true;
  f.router.roundWeights = false;
  return f;
}

static Family laraMini() {
  Family f = withSharedExpert(fusedFirst(softmaxTopK(true)));
  f.router.f32Logits = true;
  return f;
}

static Family mellum() {
  Family f = softmaxTopK(/*normalizeAbsent=*/true);
  f.sparse.words = "mlp_layer_types";
  return f;
}

static Family hunyuan() {
  Family f = alwaysNormalized(softmaxTopK(true));
  f.topK = {"moe_topk", "num_experts_per_tok"};
  f.width = "intermediate_size";
  f.router.weight = {"mlp.gate.wg.weight"};
  f.router.f32Logits = true;
  f.router.roundWeights = false;
  f.shared.layouts = {linears("mlp.shared_mlp.")};
  return f;
}

static Family ernie() {
  Family f = alwaysNormalized(softmaxTopK(true));
  f.experts = {"moe_num_experts", "num_experts"};
  f.topK = {"moe_k", "num_experts_per_tok"};
  f.sparse.first = "moe_layer_start_index";
  f.sparse.firstAbsent = 1;
  f.sparse.last = "moe_layer_end_index";
  f.sparse.period = "moe_layer_interval";
  f.sparse.offsetAbsent = -1;
  f.router.f32Logits = true;
  f.router.selectionBias = {"mlp.moe_statics.e_score_correction_bias",
                            "mlp.gate.moe_statics.e_score_correction_bias"};
  f.router.selectionBiasIsRow = true;
  f.router.normalize->epsilon = 1e-12;
  f.router.normalize->guard = NormalizeGuard::Clamp;
  f.routerKeys.epsilon = "moe_norm_min";
  f.shared.count = "moe_num_shared_experts";
  f.shared.biases = "use_bias";
  f.shared.layouts = {linears("mlp.shared_experts.")};
  return f;
}

void mlir::moe::importer::addQwen(FamilyTable &table) {
  table.add("olmoe", olmoe());
  table.add("flex_olmo", olmoe());
  table.add("qwen2_moe", qwen2(qwen3(/*normalizeAbsent=*/false)));
  table.add("qwen3_moe", qwen3(/*normalizeAbsent=*/false));
  table.add("qwen3_next", qwen2(qwen3(/*normalizeAbsent=*/true)));
  table.add("qwen3_5_moe_text",
            qwen2(fusedFirst(alwaysNormalized(softmaxTopK(true)))));
  table.wrap("qwen3_5_moe", "qwen3_5_moe_text");
  table.add("qwen4_exp_text", qwen2(softmaxTopK(/*normalizeAbsent=*/true)));
  table.wrap("qwen4_exp", "qwen4_exp_text");
  table.add("qwen3_vl_moe_text", qwen3VL());
  table.wrap("qwen3_vl_moe", "qwen3_vl_moe_text");
  addQwen3Omni(table);
  table.add("flint", flint());
  table.add("lara_mini", laraMini());
  table.add("mellum", mellum());
  table.add("hunyuan_v1_moe", hunyuan());
  table.add("ernie4_5_moe", ernie());
}
