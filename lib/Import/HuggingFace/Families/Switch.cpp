//===- Switch.cpp - Switch Transformers -----------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Families.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::importer;

/// True if block `index` of `blocks` is one of the `sparse` blocks with
/// experts.
static bool isSparse(int64_t index, int64_t blocks, int64_t sparse) {
  int64_t step = sparse > 0 ? blocks / sparse : blocks;
  return step > 0 && (index % step == 1 || step == 1);
}

/// The capacity of an expert is per sequence; the tokens of a call count as one
/// sequence. A dropped token yields 0 (the residual connection keeps it).
LayerDescription
mlir::moe::importer::describeSwitchTransformers(const Config &config,
                                                int64_t layer) {
  LayerDescription d;
  d.hidden = config.extent("d_model");
  int64_t encoder = config.layers("num_layers");
  int64_t decoder = config.integer("num_decoder_layers", 0, 1 << 16, encoder);
  int64_t sparseEncoder =
      config.integer("num_sparse_encoder_layers", 0, 1 << 16, 3);
  int64_t sparseDecoder =
      config.integer("num_sparse_decoder_layers", 0, 1 << 16, 3);
  d.layers = encoder + decoder;
  d.moeLayers = selectLayers(d.layers, [&](int64_t index) {
    return index < encoder ? isSparse(index, encoder, sparseEncoder)
                           : isSparse(index - encoder, decoder, sparseDecoder);
  });
  // Blocks of the decoder have cross-attention at layer.1.
  d.prefixes = {layer < encoder
                    ? "encoder.block." + std::to_string(layer) + ".layer.1."
                    : "decoder.block." + std::to_string(layer - encoder) +
                          ".layer.2."};

  d.experts = config.experts("num_experts");
  d.expert.width = config.extent("d_ff");
  d.expert.activation = readActivation(config, "dense_act_fn", "relu");
  MLPLayout layout;
  layout.gating = Gating::None;
  layout.up = "mlp.experts.expert_{e}.wi.weight";
  layout.down = "mlp.experts.expert_{e}.wo.weight";
  d.expert.layouts = {layout};
  d.capacity = config.integer("expert_capacity", 1, INT32_MAX);

  d.router.weight = {"mlp.router.classifier.weight"};
  if (config.flag("router_bias", false))
    d.router.bias = "mlp.router.classifier.bias";
  d.router.topK = 1;
  llvm::StringRef type = config.text("router_dtype", "float32");
  if (type != "float32")
    config.fail("expected 'router_dtype' to be 'float32', got '" + type + "'");
  d.router.f32Logits = true;
  d.router.roundScores = true;
  return d;
}
