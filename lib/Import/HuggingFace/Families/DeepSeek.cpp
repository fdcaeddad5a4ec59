//===- DeepSeek.cpp - DeepSeek-V2 and V3, GLM-4.5 and Kimi K2 -------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Families.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::importer;

/// Describes what all families here share: a router in f32, dense layers first,
/// and shared experts, which form one network of their total width.
static LayerDescription describeDeepseek(const Config &config, int64_t layer,
                                         int64_t denseFirst) {
  LayerDescription d = describeDecoder(config, layer);
  d.experts =
      config.experts({"n_routed_experts", "num_local_experts", "num_experts"});
  d.expert.width = config.extent("moe_intermediate_size");
  d.expert.activation = readActivation(config);
  d.expert.layouts = linearsOrFused("mlp.experts.");
  d.router.weight = {"mlp.gate.weight"};
  d.router.f32Logits = true;
  d.router.scale = config.real("routed_scaling_factor", 1.0);

  int64_t first =
      config.integer("first_k_dense_replace", 0, INT32_MAX, denseFirst);
  int64_t every = config.integer("moe_layer_freq", 1, INT32_MAX, 1);
  d.moeLayers = selectLayers(d.layers, [&](int64_t index) {
    return index >= first && index % every == 0;
  });

  int64_t sharedExperts = config.isNull("n_shared_experts")
                              ? 0
                              : config.integer("n_shared_experts", 0, 1024);
  if (sharedExperts > 0)
    d.shared = MLP{d.expert.width * sharedExperts,
                   d.expert.activation,
                   {linears("mlp.shared_experts.")}};
  if (config.flag("mlp_bias", false))
    config.fail("'mlp_bias' is true, and feed-forward networks with biases are "
                "not supported in this family");
  return d;
}

/// Rejects any value of `key` but `value`.
static void expectText(const Config &config, const char *key,
                       llvm::StringRef value) {
  llvm::StringRef actual = config.text(key, value);
  if (actual != value)
    config.fail("expected " + config.quote(key) + " to be '" + value +
                "', got '" + actual + "'");
}

static Router::Groups readGroups(const Config &config, GroupScore score) {
  return {config.experts("n_group"), config.experts("topk_group"), score};
}

LayerDescription mlir::moe::importer::describeDeepseekV2(const Config &config,
                                                         int64_t layer) {
  LayerDescription d = describeDeepseek(config, layer, /*denseFirst=*/0);
  expectText(config, "scoring_func", "softmax");
  llvm::StringRef method = config.text("topk_method", "greedy");
  if (method == "group_limited_greedy")
    d.router.groups = readGroups(config, GroupScore::Max);
  else if (method != "greedy")
    config.fail("expected 'topk_method' to be greedy or group_limited_greedy, "
                "got '" +
                method + "'");
  // The published code normalises instead of scaling; transformers never does.
  if (config.flag("norm_topk_prob", false))
    config.fail("expected 'norm_topk_prob' to be false, got true: the code of "
                "this family and transformers disagree on what it means");
  return d;
}

/// Describes what DeepSeek-V3 and GLM-4.5 share: sigmoid scores, a bias for the
/// selection only, and groups scored by their two best experts.
static LayerDescription describeBiasedSigmoid(const Config &config,
                                              int64_t layer, int64_t denseFirst,
                                              bool hasGroups) {
  LayerDescription d = describeDeepseek(config, layer, denseFirst);
  expectText(config, "scoring_func", "sigmoid");
  expectText(config, "topk_method", "noaux_tc");
  d.router.score = Score::Sigmoid;
  d.router.selectionBias = "mlp.gate.e_score_correction_bias";
  // A single group limits nothing.
  if (hasGroups && config.experts("n_group") > 1)
    d.router.groups = readGroups(config, GroupScore::Top2Sum);
  if (config.flag("norm_topk_prob", true))
    d.router.normalize =
        Router::Normalize{NormalizeKind::Sum, /*p=*/2.0, /*epsilon=*/1e-20};
  return d;
}

LayerDescription mlir::moe::importer::describeDeepseekV3(const Config &config,
                                                         int64_t layer) {
  return describeBiasedSigmoid(config, layer, /*denseFirst=*/3,
                               /*hasGroups=*/true);
}

LayerDescription mlir::moe::importer::describeGlm4Moe(const Config &config,
                                                      int64_t layer) {
  return describeBiasedSigmoid(config, layer, /*denseFirst=*/1,
                               config.has("n_group"));
}
