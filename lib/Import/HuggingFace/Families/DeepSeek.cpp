//===- DeepSeek.cpp - DeepSeek-V2 and V3, GLM and those like them --------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Family.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::importer;

/// What all families here share: a router in f32, dense layers first, and
/// shared experts, which form one network of their total width.
static Family deepseek(int64_t denseFirst) {
  Family f;
  f.experts = {"n_routed_experts", "num_local_experts", "num_experts"};
  f.sparse.first = "first_k_dense_replace";
  f.sparse.firstAbsent = denseFirst;
  f.expertLayouts = linearsOrFused("mlp.experts.");
  f.router.weight = {"mlp.gate.weight"};
  f.router.f32Logits = true;
  f.routerKeys.groupsAbsent = 1;
  f.routerKeys.scale = "routed_scaling_factor";
  f.shared.count = "n_shared_experts";
  f.shared.layouts = {linears("mlp.shared_experts.")};
  return f;
}

static Router::Normalize sum(double epsilon) {
  return {NormalizeKind::Sum, /*p=*/2.0, epsilon};
}

//===----------------------------------------------------------------------===//
// Softmax scores
//===----------------------------------------------------------------------===//

static void readMethod(const Config &config, int64_t, LayerDescription &d) {
  StringRef method = config.text("topk_method", "greedy");
  if (method == "greedy")
    d.router.groups.reset();
  else if (method != "group_limited_greedy")
    config.fail("expected 'topk_method' to be greedy or group_limited_greedy, "
                "got '" +
                method + "'");
  else if (!config.has("n_group"))
    config.fail("missing key 'n_group'");
  // The published code normalises instead of scaling; transformers never does.
  if (config.flag("norm_topk_prob", false))
    config.fail("expected 'norm_topk_prob' to be false, got true: the code of "
                "this family and transformers disagree on what it means");
}

static Family deepseekV2() {
  Family f = deepseek(/*denseFirst=*/0);
  f.sparse.period = "moe_layer_freq";
  // transformers fills dropped groups with 0, which is also the weight of an
  // expert that is selected from them: never selecting them gives the same
  // result.
  f.router.groups = Router::Groups{1, 1, GroupScore::Max};
  f.shared.biases = "mlp_bias";
  f.fixed = {{"scoring_func", "softmax"}};
  f.refine = readMethod;
  return f;
}

static Family deepseekOcr(int64_t denseFirst, const Key &first) {
  Family f = deepseekV2();
  f.sparse = {};
  f.sparse.words = "mlp_layer_types";
  f.sparse.first = first;
  f.sparse.firstAbsent = denseFirst;
  return f;
}

static Family mistral4() {
  Family f = deepseek(/*denseFirst=*/0);
  std::swap(f.expertLayouts[0], f.expertLayouts[1]);
  f.router.groups = Router::Groups{1, 1, GroupScore::Top2Sum, GroupFill::Zero};
  f.router.normalize = sum(1e-20);
  f.router.f32Logits = false;
  f.router.roundScores = true;
  f.routerKeys.normalize = "norm_topk_prob";
  f.routerKeys.normalizeAbsent = true;
  return f;
}

/// Published with the names of Mistral's own code.
static Family mistralLarge4() {
  Family f = deepseek(/*denseFirst=*/1);
  f.experts = {"num_experts", "n_routed_experts", "num_local_experts"};
  f.sparse.words = "mlp_layer_types";
  f.prefixes = {"layers.{n}.", "model.layers.{n}."};
  f.expertLayouts = linearsOrFused("mlp.experts.");
  f.expertLayouts.insert(f.expertLayouts.begin(),
                         linears("experts.{e}.", "w1", "w3", "w2"));
  f.router.weight = {"gate.weight", "mlp.gate.weight"};
  f.router.groups = Router::Groups{1, 1, GroupScore::Top2Sum, GroupFill::Zero};
  f.router.normalize = sum(1e-20);
  // The text model alone is saved with a mixture of both.
  f.shared.layouts = {linears("shared_experts.", "w1", "w3", "w2"),
                      linears("mlp.shared_experts."),
                      linears("shared_experts.")};
  return f;
}

//===----------------------------------------------------------------------===//
// Sigmoid scores
//===----------------------------------------------------------------------===//

/// Sigmoid scores, a bias for the selection only, and groups scored by their
/// two best experts.
static Family biasedSigmoid(int64_t denseFirst) {
  Family f = deepseek(denseFirst);
  f.router.score = Score::Sigmoid;
  f.router.selectionBias = {"mlp.gate.e_score_correction_bias"};
  f.router.groups = Router::Groups{1, 1, GroupScore::Top2Sum};
  f.router.normalize = sum(1e-20);
  f.routerKeys.normalize = "norm_topk_prob";
  f.routerKeys.normalizeAbsent = true;
  return f;
}

/// The first `denseFirst` layers have no experts unless `mlp_layer_types` says
/// otherwise; `first` is the key for their number, if there is one.
static Family byLayerTypes(Family f, int64_t denseFirst,
                           const Key &first = {}) {
  f.sparse = {};
  f.sparse.words = "mlp_layer_types";
  f.sparse.first = first;
  f.sparse.firstAbsent = denseFirst;
  return f;
}

static Family deepseekV3() {
  Family f = biasedSigmoid(/*denseFirst=*/3);
  f.sparse.period = "moe_layer_freq";
  f.routerKeys.groupsAbsent.reset();
  f.fixed = {{"scoring_func", "sigmoid"}, {"topk_method", "noaux_tc"}};
  return f;
}

static Family glm4() {
  Family f = biasedSigmoid(/*denseFirst=*/1);
  f.sparse.period = "moe_layer_freq";
  f.fixed = {{"scoring_func", "sigmoid"}, {"topk_method", "noaux_tc"}};
  return f;
}

/// min(gate, limit) and clamp(up, ±limit) before SwiGLU.
static Family withLimit(Family f) {
  f.activation.name = {};
  f.activation.preset.kind = Activation::ClampedSwiGLU;
  f.activation.preset.limit = 10.0;
  f.activation.limit = "swiglu_limit";
  return f;
}

/// Hy4: experts with a limit, published as tensors of all, and a shared one
/// without.
static Family hunyuanV4() {
  Family f = withLimit(byLayerTypes(biasedSigmoid(1), 1));
  std::swap(f.expertLayouts[0], f.expertLayouts[1]);
  f.shared.plainActivation = true;
  // transformers saves the gate under the name of the gate of attention.
  f.shared.layouts.push_back(linears("mlp.shared_experts.", "linear_gate"));
  return f;
}

static Family dots1() {
  Family f = biasedSigmoid(/*denseFirst=*/0);
  f.routerKeys.normalizeAbsent = false;
  return f;
}

static Family dots3() {
  Family f = byLayerTypes(biasedSigmoid(1), 1, "first_k_dense_replace");
  f.sparse.period = "moe_layer_freq";
  f.shared.width = {"moe_shared_expert_intermediate_size",
                    "shared_experts_intermediate_size"};
  return f;
}

static Family axk1() {
  Family f = byLayerTypes(biasedSigmoid(1), 1, "first_k_dense_replace");
  f.sparse.period = "moe_layer_freq";
  f.routerKeys.groupsAbsent.reset();
  f.router.selectionBiasIsOptional = true;
  // A weight of the layer in published checkpoints.
  f.outputNorm.weight = {"post_mlp_layernorm.weight",
                         "mlp.post_mlp_layernorm.weight"};
  f.outputNorm.epsilon = 1e-6;
  f.outputNormEpsilon = "rms_norm_eps";
  return f;
}

static Family axk2() {
  Family f = byLayerTypes(biasedSigmoid(1), 1, "first_k_dense_replace");
  f.sparse.period = "moe_layer_freq";
  f.router.groups->fill = GroupFill::Zero;
  return f;
}

/// The scale multiplies the sum of the experts there, which is the same.
static Family beam() {
  Family f = byLayerTypes(biasedSigmoid(3), 3);
  f.experts = {"num_experts", "num_local_experts"};
  f.shared = {};
  return f;
}

static Family exaone() {
  Family f = byLayerTypes(biasedSigmoid(1), 1, "first_k_dense_replace");
  f.experts = {"num_experts", "num_local_experts"};
  f.router.selectionBias.insert(f.router.selectionBias.begin(),
                                "mlp.e_score_correction_bias");
  f.shared.count = "num_shared_experts";
  return f;
}

static Family mimo() {
  Family f = byLayerTypes(biasedSigmoid(1), 1);
  f.shared = {};
  return f;
}

static Family solar() {
  Family f = biasedSigmoid(/*denseFirst=*/0);
  f.sparse = {};
  return f;
}

/// Keys of Kimi-Linear and Ling 3, whose own names win.
static Family renamed(Family f) {
  f.experts = {"num_experts", "num_local_experts"};
  f.topK = {"num_experts_per_token", "num_experts_per_tok"};
  f.routerKeys.normalize = {"moe_renormalize", "norm_topk_prob"};
  f.routerKeys.groups = {"num_expert_group", "n_group"};
  f.shared.count = {"num_shared_experts", "n_shared_experts"};
  return f;
}

static Family kimiLinear() {
  Family f =
      renamed(byLayerTypes(biasedSigmoid(1), 1, "first_k_dense_replace"));
  f.expertLayouts.insert(
      f.expertLayouts.begin(),
      linears("block_sparse_moe.experts.{e}.", "w1", "w3", "w2"));
  f.router.weight = {"block_sparse_moe.gate.weight", "mlp.gate.weight"};
  f.router.selectionBias = {"block_sparse_moe.gate.e_score_correction_bias",
                            "mlp.gate.e_score_correction_bias"};
  f.shared.layouts = {linears("block_sparse_moe.shared_experts."),
                      linears("mlp.shared_experts.")};
  return f;
}

static Family bailing() {
  Family f =
      renamed(byLayerTypes(biasedSigmoid(2), 2, "first_k_dense_replace"));
  f.router.selectionBias.insert(f.router.selectionBias.begin(),
                                "mlp.gate.expert_bias");
  return f;
}

//===----------------------------------------------------------------------===//
// DeepSeek-V4
//===----------------------------------------------------------------------===//

/// Layers that are not "moe" are "hash_moe": a table has the experts of each
/// token, and scores only weigh them.
static void readHashLayer(const Config &config, int64_t layer,
                          LayerDescription &d) {
  bool isHash =
      layer >= 0 && layer < d.layers && !llvm::is_contained(d.moeLayers, layer);
  d.moeLayers = llvm::to_vector(llvm::seq<int64_t>(0, d.layers));
  if (!isHash)
    return;
  d.router.expertsOfTokens = {"ffn.gate.tid2eid", "mlp.gate.tid2eid"};
  d.router.vocabulary = config.integer("vocab_size", 1, 1 << 24);
  d.router.selectionBias.clear();
}

static Family deepseekV4() {
  Family f = withLimit(deepseek(/*denseFirst=*/0));
  f.width = {"moe_intermediate_size", "intermediate_size"};
  f.sparse = {};
  f.sparse.words = "mlp_layer_types";
  f.sparse.word = "moe";
  f.sparse.first = "num_hash_layers";
  f.sparse.firstAbsent = 3;
  f.prefixes = {"layers.{n}.", "model.layers.{n}."};
  f.expertLayouts.insert(f.expertLayouts.begin(),
                         linears("ffn.experts.{e}.", "w1", "w3", "w2"));
  f.router.weight = {"ffn.gate.weight", "mlp.gate.weight"};
  f.router.selectionBias = {"ffn.gate.bias",
                            "mlp.gate.e_score_correction_bias"};
  f.router.f32Logits = false;
  f.router.roundScores = true;
  f.router.normalize = sum(1e-20);
  f.routerKeys.score = "scoring_func";
  f.routerKeys.scoreAbsent = "sqrtsoftplus";
  f.shared.count = {};
  f.shared.biases = "mlp_bias";
  f.shared.layouts = {linears("ffn.shared_experts.", "w1", "w3", "w2"),
                      linears("mlp.shared_experts.")};
  f.refine = readHashLayer;
  return f;
}

//===----------------------------------------------------------------------===//
// Nemotron-H
//===----------------------------------------------------------------------===//

/// A string or a list has a letter or a word for each layer.
static void readPattern(const Config &config, int64_t, LayerDescription &d) {
  Key types = {"layers_block_type", "layer_types"};
  if (config.has(types)) {
    SmallVector<StringRef> words = config.texts(types);
    d.layers = words.size();
    d.moeLayers =
        selectLayers(d.layers, [&](int64_t i) { return words[i] == "moe"; });
  } else {
    StringRef pattern = config.text("hybrid_override_pattern", "");
    d.layers = pattern.size();
    d.moeLayers =
        selectLayers(d.layers, [&](int64_t i) { return pattern[i] == 'E'; });
  }
  if (d.layers > 1 << 16 || d.layers == 0)
    config.fail("expected 'hybrid_override_pattern' or " + config.quote(types) +
                " to name between 1 and 65536 layers, got " + Twine(d.layers));
  if (d.latent.width && config.flag("mlp_bias", false)) {
    d.latent.downBias = "mixer.fc1_latent_proj.bias";
    d.latent.upBias = "mixer.fc2_latent_proj.bias";
  }
}

static Family nemotronH() {
  Family f = biasedSigmoid(/*denseFirst=*/0);
  f.layers = {};
  f.sparse = {};
  f.prefixes = {"backbone.layers.{n}.", "model.layers.{n}."};
  f.activation.name = "mlp_hidden_act";
  f.activation.absent = "relu2";
  f.expertLayouts = {
      ungated("mixer.experts.{e}.up_proj.weight",
              "mixer.experts.{e}.down_proj.weight"),
      ungated("mixer.experts.up_proj", "mixer.experts.down_proj")};
  f.router.weight = {"mixer.gate.weight"};
  f.router.selectionBias = {"mixer.gate.e_score_correction_bias"};
  f.shared = {};
  f.shared.width = "moe_shared_expert_intermediate_size";
  f.shared.biases = "mlp_bias";
  f.shared.layouts = {ungated("mixer.shared_experts.up_proj.weight",
                              "mixer.shared_experts.down_proj.weight")};
  f.latentWidth = "moe_latent_size";
  f.latent.down = "mixer.fc1_latent_proj.weight";
  f.latent.up = "mixer.fc2_latent_proj.weight";
  f.refine = readPattern;
  return f;
}

//===----------------------------------------------------------------------===//
// Table
//===----------------------------------------------------------------------===//

void mlir::moe::importer::addDeepSeek(FamilyTable &table) {
  StringRef language = "model.language_model.layers.{n}.",
            plain = "model.layers.{n}.";
  table.add("deepseek_v2", deepseekV2());
  table.add("deepseek_ocr2_text", deepseekOcr(0, {}));
  table.wrap("deepseek_ocr2", "deepseek_ocr2_text", {"text_config"},
             {plain, language, "language_model.layers.{n}."});
  table.add("unlimited_ocr_text", deepseekOcr(1, "first_k_dense_replace"));
  table.wrap("unlimited_ocr", "unlimited_ocr_text",
             {"text_config", "language_config"}, {plain, language});
  table.add("mistral4", mistral4());
  table.add("mistral_large4_text", mistralLarge4());
  table.wrap("mistral_large4", "mistral_large4_text", {"text_config"},
             {"layers.{n}.", language});

  table.add("deepseek_v3", deepseekV3());
  table.add("kimi_k2", deepseekV3());
  {
    Family f = byLayerTypes(deepseekV3(), 3, "first_k_dense_replace");
    table.add("deepseek_v32", f);
  }
  table.add("deepseek_v4", deepseekV4());
  table.add("glm4_moe", glm4());
  table.add("glm4_moe_lite", byLayerTypes(glm4(), 1));
  table.add("glm4v_moe_text", glm4());
  table.wrap("glm4v_moe", "glm4v_moe_text", {"text_config"}, {language});
  table.add("glm_moe_dsa", byLayerTypes(glm4(), 3, "first_k_dense_replace"));
  table.add("glm5_next_text", withLimit(byLayerTypes(biasedSigmoid(3), 3)));
  table.wrap("glm5_next", "glm5_next_text", {"text_config", ""},
             {language, plain});
  table.add("hy_v4", hunyuanV4());
  table.add("hy_v4_vl_text", hunyuanV4());
  table.wrap("hy_v4_vl", "hy_v4_vl_text", {"text_config"}, {plain, language});
  table.add("dots1", dots1());
  table.add("dots3_note_text", dots3());
  table.wrap("dots3_note", "dots3_note_text", {"text_config", ""},
             {plain, language});
  table.add("axk1", axk1());
  table.add("axk2", axk2());
  table.add("beam", beam());
  table.add("exaone_moe", exaone());
  table.add("mimo_v2_flash", mimo());
  table.add("solar_open", solar());
  table.add("kimi_linear", kimiLinear());
  table.add("bailing_hybrid", bailing());
  table.add("nemotron_h", nemotronH());
}
