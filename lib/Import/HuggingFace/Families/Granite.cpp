//===- Granite.cpp - Granite 3 MoE ----------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Families.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::importer;

LayerDescription mlir::moe::importer::describeGraniteMoe(const Config &config,
                                                         int64_t layer) {
  LayerDescription d = describeDecoder(config, layer);
  d.experts = config.experts({"num_local_experts", "num_experts"});
  d.expert.width = config.extent("intermediate_size");
  d.expert.activation = readActivation(config);
  d.expert.layouts = {halves("block_sparse_moe.input_linear.weight",
                             "block_sparse_moe.output_linear.weight"),
                      halves("block_sparse_moe.experts.gate_up_proj",
                             "block_sparse_moe.experts.down_proj")};
  d.router.weight = {"block_sparse_moe.router.layer.weight",
                     "block_sparse_moe.router.weight"};
  d.router.order = Order::SelectThenScore;
  d.router.roundWeights = true;
  return d;
}

LayerDescription
mlir::moe::importer::describeGraniteMoeShared(const Config &config,
                                              int64_t layer) {
  LayerDescription d = describeGraniteMoe(config, layer);
  int64_t width = config.integer("shared_intermediate_size", 0, 1 << 20, 0);
  if (width > 0)
    d.shared = MLP{width,
                   d.expert.activation,
                   {halves("shared_mlp.input_linear.weight",
                           "shared_mlp.output_linear.weight")}};
  return d;
}
