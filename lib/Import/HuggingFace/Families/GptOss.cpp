//===- GptOss.cpp - Softmax over the chosen logits -----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Family.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::importer;

static void addPrivacyFilter(FamilyTable &table, Family f) {
  // gpt-oss with a router in f32, and gate and up one after the other.
  f.expertLayouts.front().gating = Gating::Halves;
  f.router.f32Logits = true;
  f.router.roundScores = false;
  table.add("openai_privacy_filter", f);
}

static void addAria(FamilyTable &table) {
  Family f;
  f.experts = "moe_num_experts";
  f.topK = {"moe_topk", "num_experts_per_tok"};
  f.width = "intermediate_size";
  f.activation.name = {}; // SiLU, whatever `hidden_act` says
  f.expertLayouts = {
      inOut(halves("mlp.experts.fc1.weight", "mlp.experts.fc2.weight")),
      inOut(halves("mlp.experts.gate_up_proj", "mlp.experts.down_proj"))};
  f.router.weight = {"mlp.router.weight"};
  f.router.order = Order::SelectThenScore;
  f.router.roundScores = true;
  f.shared.count = "moe_num_shared_experts";
  f.shared.biases = "mlp_bias";
  f.shared.plainActivation = true;
  f.shared.layouts = {linears("mlp.shared_experts.")};
  table.add("aria_text", f);
  table.wrap("aria", "aria_text");
}

void mlir::moe::importer::addGptOss(FamilyTable &table) {
  Family f;
  f.experts = {"num_local_experts", "num_experts"};
  f.width = "intermediate_size";
  f.activation = clampedSwiGLU();

  MLPLayout layout;
  layout.gating = Gating::Interleaved;
  layout.up = "mlp.experts.gate_up_proj";
  layout.upBias = "mlp.experts.gate_up_proj_bias";
  layout.down = "mlp.experts.down_proj";
  layout.downBias = "mlp.experts.down_proj_bias";
  f.expertLayouts = {inOut(layout)};
  f.router.weight = {"mlp.router.weight"};
  f.router.bias = "mlp.router.bias";
  f.router.order = Order::SelectThenScore;
  f.router.roundScores = true;
  table.add("gpt_oss", f);
  addPrivacyFilter(table, f);
  addAria(table);
}
