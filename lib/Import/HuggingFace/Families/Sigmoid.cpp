//===- Sigmoid.cpp - Other routers with sigmoid scores -------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Family.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::importer;

static Family sigmoid(double epsilon) {
  Family f;
  f.expertLayouts = linearsOrFused("mlp.experts.");
  f.router.weight = {"mlp.gate.weight"};
  f.router.score = Score::Sigmoid;
  f.router.normalize =
      Router::Normalize{NormalizeKind::Sum, /*p=*/2.0, epsilon};
  return f;
}

static Family afmoe() {
  Family f = sigmoid(/*epsilon=*/1e-20);
  f.sparse.first = "num_dense_layers";
  f.sparse.firstAbsent = 1;
  f.router.weight = {"mlp.router.gate.weight"};
  f.router.selectionBias = {"mlp.expert_bias"};
  f.routerKeys.scale = "route_scale";
  f.shared.count = "num_shared_experts";
  f.shared.layouts = {linears("mlp.shared_experts.")};
  return f;
}

static Family hunyuanV3() {
  Family f = sigmoid(/*epsilon=*/1e-20);
  f.sparse.words = "mlp_layer_types";
  f.sparse.firstAbsent = 1;
  f.router.weight = {"mlp.router.gate.weight", "mlp.gate.weight"};
  f.router.selectionBias = {"mlp.expert_bias", "mlp.e_score_correction_bias"};
  f.router.f32Logits = true;
  f.routerKeys.scale = "router_scaling_factor";
  f.shared.count = "num_shared_experts";
  f.shared.biases = "mlp_bias";
  f.shared.layouts = {linears("mlp.shared_mlp."),
                      linears("mlp.shared_experts.")};
  return f;
}

/// The scale multiplies the sum of the experts there, which is the same.
static Family laguna() {
  Family f = sigmoid(/*epsilon=*/0.0);
  f.sparse.words = "mlp_layer_types";
  f.sparse.firstAbsent = 1;
  f.router.selectionBias = {"mlp.experts.e_score_correction_bias",
                            "mlp.gate.e_score_correction_bias"};
  f.router.roundWeights = true;
  f.routerKeys.scale = "moe_routed_scaling_factor";
  f.routerKeys.softCap = "moe_router_logit_softcapping";
  f.shared.width = "shared_expert_intermediate_size";
  f.shared.layouts = {linears("mlp.shared_expert."),
                      linears("mlp.shared_experts.")};
  return f;
}

/// Sigmoid of the logits that were chosen with their bias.
static Family kolibri() {
  Family f = sigmoid(/*epsilon=*/0.0);
  f.router.order = Order::SelectThenScore;
  f.router.selectionBias = {"moe.router.expert_bias",
                            "mlp.gate.e_score_correction_bias"};
  f.router.f32Logits = true;
  f.routerKeys.normalize = "norm_topk_prob";
  f.shared.width = "shared_expert_intermediate_size";
  f.shared.layouts = {linears("mlp.shared_experts.")};
  return f;
}

static Family inkling2() {
  Family f = sigmoid(/*epsilon=*/1e-20);
  f.experts = {"n_routed_experts", "num_local_experts"};
  f.width = {"moe_intermediate_size", "intermediate_size"};
  f.prefixes.push_back("model.llm.layers.{n}.");
  f.activation.name = {};
  f.activation.preset.kind = Activation::SoftCappedSwiGLU;
  f.activation.preset.limit = 4.0;
  f.activation.preset.limitUp = 25.0;
  f.activation.limit = "mlp_gate_softcap";
  f.activation.limitUp = "mlp_up_softcap";
  MLPLayout interleaved =
      halves("mlp.experts.w13_weight", "mlp.experts.w2_weight");
  interleaved.gating = Gating::Interleaved;
  f.expertLayouts[0] = interleaved;
  f.router.selectionBias = {"mlp.gate.bias",
                            "mlp.gate.e_score_correction_bias"};
  f.router.f32Logits = true;
  f.routerKeys.score = "scoring_func";
  f.routerKeys.scale = {"route_scale", "routed_scaling_factor"};
  f.routerKeys.scaleAbsent = 8.0;
  return f;
}

void mlir::moe::importer::addSigmoid(FamilyTable &table) {
  table.add("afmoe", afmoe());
  table.add("hy_v3", hunyuanV3());
  table.add("laguna", laguna());
  table.add("kolibri1", kolibri());
  for (auto [wrapper, text] :
       {std::pair<StringRef, StringRef>{"inkling2", "inkling2_text"},
        {"inkling2_loop", "inkling2_loop_text"}}) {
    table.add(text, inkling2());
    table.wrap(wrapper, text, {"text_config"},
               {"model.llm.layers.{n}.", "model.language_model.layers.{n}."});
  }
}
