//===- Switch.cpp - Switch Transformers ----------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Family.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::importer;

/// True if block `index` of `blocks` is one of the `sparse` blocks with
/// experts.
static bool isSparse(int64_t index, int64_t blocks, int64_t sparse) {
  int64_t step = sparse > 0 ? blocks / sparse : blocks;
  return step > 0 && (index % step == 1 || step == 1);
}

/// Numbers the blocks of the encoder, then those of the decoder. The capacity
/// of an expert is per sequence; the tokens of a call count as one sequence. A
/// dropped token yields 0 (the residual connection keeps it).
static void describeSwitch(const Config &config, int64_t layer,
                           LayerDescription &d) {
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
  d.capacity = config.integer("expert_capacity", 1, INT32_MAX);
  if (config.flag("router_bias", false))
    d.router.bias = "mlp.router.classifier.bias";
}

void mlir::moe::importer::addSwitch(FamilyTable &table) {
  Family f;
  f.hidden = "d_model";
  f.layers = {};
  f.experts = "num_experts";
  f.topK = {};
  f.width = "d_ff";
  f.activation.name = "dense_act_fn";
  f.activation.absent = "relu";
  f.expertLayouts = {ungated("mlp.experts.expert_{e}.wi.weight",
                             "mlp.experts.expert_{e}.wo.weight")};
  f.router.weight = {"mlp.router.classifier.weight"};
  f.router.f32Logits = true;
  f.router.roundScores = true;
  f.fixed = {{"router_dtype", "float32"}};
  f.refine = describeSwitch;
  table.add("switch_transformers", f);
}
