//===- Mixtral.cpp - Mixtral and Phi-3.5-MoE ------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Families.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::importer;

/// Both were first published with the names of Mixtral's code.
static LayerDescription describeSparseBlock(const Config &config,
                                            int64_t layer) {
  LayerDescription d = describeDecoder(config, layer);
  d.experts = config.experts({"num_local_experts", "num_experts"});
  d.expert.width = config.extent("intermediate_size");
  d.expert.activation = readActivation(config);
  d.expert.layouts = {
      linears("block_sparse_moe.experts.{e}.", "w1", "w3", "w2"),
      halves("mlp.experts.gate_up_proj", "mlp.experts.down_proj"),
      linears("mlp.experts.{e}.", "w1", "w3", "w2")};
  d.router.weight = {"block_sparse_moe.gate.weight"};
  return d;
}

LayerDescription mlir::moe::importer::describeMixtral(const Config &config,
                                                      int64_t layer) {
  LayerDescription d = describeSparseBlock(config, layer);
  d.router.weight.push_back("mlp.gate.weight");
  d.router.normalize = Router::Normalize{};
  return d;
}

/// SparseMixer scores each of two choices separately, over the experts whose
/// logit is near the best remaining one.
LayerDescription mlir::moe::importer::describePhimoe(const Config &config,
                                                     int64_t layer) {
  LayerDescription d = describeSparseBlock(config, layer);
  d.router.weight.push_back("mlp.router.weight");
  d.router.order = Order::ScoreEachChoice;
  double jitter = config.real("router_jitter_noise", 0.01);
  if (jitter < 0.0)
    config.fail("expected 'router_jitter_noise' of at least 0, got " +
                std::to_string(jitter));
  d.router.margin = 2.0 * jitter;
  d.router.roundScores = true;
  if (d.router.topK != 2)
    config.fail("expected 'num_experts_per_tok' to be 2, the only top-k of "
                "this router, got " +
                std::to_string(d.router.topK));
  return d;
}
