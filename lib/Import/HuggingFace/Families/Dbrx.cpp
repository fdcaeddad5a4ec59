//===- Dbrx.cpp - DBRX ----------------------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Families.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::importer;

LayerDescription mlir::moe::importer::describeDbrx(const Config &config,
                                                   int64_t layer) {
  Config ffn = config.section("ffn_config");
  LayerDescription d;
  d.hidden = config.extent("d_model");
  d.layers = config.layers("n_layers");
  d.moeLayers = selectLayers(d.layers, [](int64_t) { return true; });
  std::string index = std::to_string(layer);
  d.prefixes = {"transformer.blocks." + index + ".", "blocks." + index + "."};

  d.experts = ffn.experts("moe_num_experts");
  d.expert.width = ffn.extent("ffn_hidden_size");
  if (ffn.has("ffn_act_fn"))
    d.expert.activation = readActivation(ffn.section("ffn_act_fn"), "name");
  MLPLayout layout;
  layout.gating = Gating::Separate;
  layout.gate = "ffn.experts.mlp.w1";
  layout.up = "ffn.experts.mlp.v1";
  layout.down = "ffn.experts.mlp.w2";
  layout.downInOut = true;
  layout.flattened = true;
  d.expert.layouts = {layout};

  d.router.weight = {"ffn.router.layer.weight"};
  d.router.topK = ffn.experts("moe_top_k");
  d.router.roundScores = true;
  // Null disables normalization; without the key transformers uses p = 1.
  if (!ffn.isNull("moe_normalize_expert_weights")) {
    double p = ffn.real("moe_normalize_expert_weights", 1.0);
    if (!(p > 0.0))
      config.fail("expected 'ffn_config.moe_normalize_expert_weights' above 0, "
                  "got " +
                  std::to_string(p));
    d.router.normalize = Router::Normalize{NormalizeKind::Norm, p};
  }
  return d;
}
