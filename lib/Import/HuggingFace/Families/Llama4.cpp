//===- Llama4.cpp - Llama 4 ----------------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Family.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::importer;

void mlir::moe::importer::addLlama4(FamilyTable &table) {
  Family f;
  f.experts = "num_local_experts";
  f.width = "intermediate_size";
  f.sparse.list = "moe_layers";
  f.sparse.period = "interleave_moe_layer_step";
  f.sparse.offsetAbsent = -1;
  f.expertLayouts = {inOut(halves("feed_forward.experts.gate_up_proj",
                                  "feed_forward.experts.down_proj"))};
  f.shared.layouts = {linears("feed_forward.shared_expert.")};
  f.router.weight = {"feed_forward.router.weight"};
  f.router.score = Score::Sigmoid;
  f.router.order = Order::SelectThenScore;
  f.router.roundScores = true;
  f.router.scaleInput = true;
  table.add("llama4_text", f);
  table.wrap("llama4", "llama4_text");
}
