//===- Granite.cpp - Granite, JetMoE and Command A MoE -------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Family.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::importer;

static Family granite() {
  Family f;
  f.experts = {"num_local_experts", "num_experts"};
  f.width = "intermediate_size";
  f.expertLayouts = {halves("block_sparse_moe.input_linear.weight",
                            "block_sparse_moe.output_linear.weight"),
                     halves("block_sparse_moe.experts.gate_up_proj",
                            "block_sparse_moe.experts.down_proj")};
  f.router.weight = {"block_sparse_moe.router.layer.weight",
                     "block_sparse_moe.router.weight"};
  f.router.order = Order::SelectThenScore;
  f.router.roundWeights = true;
  return f;
}

static Family graniteShared(int64_t widthAbsent) {
  Family f = granite();
  f.shared.width = "shared_intermediate_size";
  f.shared.widthAbsent = widthAbsent;
  f.shared.layouts = {halves("shared_mlp.input_linear.weight",
                             "shared_mlp.output_linear.weight")};
  return f;
}

/// Granite's router and experts under other names, and a bias on the sum.
static Family jetMoe() {
  Family f = granite();
  f.activation.name = "activation_function";
  f.expertLayouts = {
      halves("mlp.input_linear.weight", "mlp.output_linear.weight")};
  f.router.weight = {"mlp.router.layer.weight"};
  f.outputBias = "mlp.bias";
  return f;
}

/// Scores the chosen logits with a softmax or a sigmoid, which is normalised.
static void readSelection(const Config &config, int64_t, LayerDescription &d) {
  if (d.router.score == Score::Softmax) {
    d.router.roundWeights = true;
    d.router.normalize.reset();
  } else {
    d.router.roundScores = true;
  }
  StringRef strategy =
      config.text("shared_expert_combination_strategy", "average");
  if (strategy != "average" && strategy != "sum")
    config.fail("expected 'shared_expert_combination_strategy' to be average "
                "or sum, got '" +
                strategy + "'");
  if (d.shared && strategy == "average")
    d.outputScale = 0.5;
}

static Family cohere2() {
  Family f;
  f.width = "intermediate_size";
  f.sparse.words = "mlp_layer_types";
  f.sparse.first = "first_k_dense_replace";
  f.expertLayouts = linearsOrFused("mlp.experts.");
  f.router.weight = {"mlp.gate.weight"};
  f.router.order = Order::SelectThenScore;
  f.router.normalize = Router::Normalize{};
  f.routerKeys.score = "expert_selection_fn";
  f.routerKeys.scoreAbsent = "softmax";
  f.routerKeys.normalize = "norm_topk_prob";
  f.routerKeys.normalizeAbsent = true;
  f.shared.count = "num_shared_experts";
  f.shared.countAbsent = 0;
  f.shared.layouts = {linears("mlp.shared_experts.")};
  f.refine = readSelection;
  return f;
}

void mlir::moe::importer::addGranite(FamilyTable &table) {
  table.add("granitemoe", granite());
  table.add("granitemoeshared", graniteShared(0));
  table.add("granitemoe_swa", graniteShared(0));
  table.add("granitemoehybrid", graniteShared(1024));
  table.add("jetmoe", jetMoe());
  table.add("cohere2_moe", cohere2());
}
