//===- Qwen.cpp - Qwen2-MoE, Qwen3-MoE and OLMoE --------------------------===//
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

/// Describes softmax, the best K, and renormalization if configured.
static LayerDescription describeSoftmaxTopK(const Config &config, int64_t layer,
                                            const Key &width) {
  LayerDescription d = describeDecoder(config, layer);
  d.experts = config.experts({"num_experts", "num_local_experts"});
  d.expert.width = config.extent(width);
  d.expert.activation = readActivation(config);
  d.expert.layouts = linearsOrFused("mlp.experts.");
  d.router.weight = {"mlp.gate.weight"};
  if (config.flag("norm_topk_prob", false))
    d.router.normalize = Router::Normalize{};
  d.router.roundWeights = true;
  return d;
}

LayerDescription mlir::moe::importer::describeOlmoe(const Config &config,
                                                    int64_t layer) {
  return describeSoftmaxTopK(config, layer, "intermediate_size");
}

LayerDescription mlir::moe::importer::describeQwen3Moe(const Config &config,
                                                       int64_t layer) {
  LayerDescription d =
      describeSoftmaxTopK(config, layer, "moe_intermediate_size");
  int64_t step = config.integer("decoder_sparse_step", 1, INT32_MAX, 1);
  SmallVector<int64_t> dense =
      config.integers("mlp_only_layers", 0, d.layers - 1);
  llvm::sort(dense);
  d.moeLayers = selectLayers(d.layers, [&](int64_t index) {
    return (index + 1) % step == 0 &&
           !std::binary_search(dense.begin(), dense.end(), index);
  });
  return d;
}

LayerDescription mlir::moe::importer::describeQwen2Moe(const Config &config,
                                                       int64_t layer) {
  LayerDescription d = describeQwen3Moe(config, layer);
  d.shared = MLP{config.extent("shared_expert_intermediate_size"),
                 d.expert.activation,
                 {linears("mlp.shared_expert.")}};
  d.sharedGate = "mlp.shared_expert_gate.weight";
  return d;
}
