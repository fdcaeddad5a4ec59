//===- Llama4.cpp - Llama 4 -----------------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Families.h"

#include "llvm/ADT/STLExtras.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::importer;

LayerDescription mlir::moe::importer::describeLlama4Text(const Config &config,
                                                         int64_t layer) {
  LayerDescription d = describeDecoder(config, layer);
  d.experts = config.experts("num_local_experts");
  d.expert.width = config.extent("intermediate_size");
  d.expert.activation = readActivation(config);
  MLPLayout layout = halves("feed_forward.experts.gate_up_proj",
                            "feed_forward.experts.down_proj");
  layout.upInOut = layout.downInOut = true;
  d.expert.layouts = {layout};
  d.shared = MLP{d.expert.width,
                 d.expert.activation,
                 {linears("feed_forward.shared_expert.")}};

  d.router.weight = {"feed_forward.router.weight"};
  d.router.score = Score::Sigmoid;
  d.router.order = Order::SelectThenScore;
  d.router.roundScores = true;
  d.router.scaleInput = true;

  if (config.has("moe_layers")) {
    d.moeLayers = config.integers("moe_layers", 0, d.layers - 1);
    llvm::sort(d.moeLayers);
  } else {
    int64_t step = config.integer("interleave_moe_layer_step", 1, INT32_MAX, 1);
    d.moeLayers = selectLayers(
        d.layers, [&](int64_t index) { return (index + 1) % step == 0; });
  }
  return d;
}

/// In the multimodal model the language model is a section.
LayerDescription mlir::moe::importer::describeLlama4(const Config &config,
                                                     int64_t layer) {
  LayerDescription d = describeLlama4Text(config.section("text_config"), layer);
  std::string index = std::to_string(layer);
  d.prefixes = {"language_model.model.layers." + index + ".",
                "model.language_model.layers." + index + ".",
                "language_model.layers." + index + "."};
  return d;
}
