//===- GptOss.cpp - gpt-oss -----------------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Families.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::importer;

LayerDescription mlir::moe::importer::describeGptOss(const Config &config,
                                                     int64_t layer) {
  LayerDescription d = describeDecoder(config, layer);
  d.experts = config.experts({"num_local_experts", "num_experts"});
  d.expert.width = config.extent("intermediate_size");
  // Releases before swiglu_alpha hard-coded its value.
  d.expert.activation = {Activation::ClampedSwiGLU,
                         config.real("swiglu_alpha", 1.702),
                         config.real("swiglu_limit", 7.0)};
  if (d.expert.activation.limit < 0.0)
    config.fail("expected 'swiglu_limit' of at least 0, got " +
                std::to_string(d.expert.activation.limit));
  MLPLayout layout;
  layout.gating = Gating::Interleaved;
  layout.up = "mlp.experts.gate_up_proj";
  layout.upBias = "mlp.experts.gate_up_proj_bias";
  layout.down = "mlp.experts.down_proj";
  layout.downBias = "mlp.experts.down_proj_bias";
  layout.upInOut = layout.downInOut = true;
  d.expert.layouts = {layout};

  d.router.weight = {"mlp.router.weight"};
  d.router.bias = "mlp.router.bias";
  d.router.order = Order::SelectThenScore;
  d.router.roundScores = true;
  return d;
}
