//===- Dbrx.cpp - DBRX ---------------------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Family.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::importer;

/// Null disables normalization; without the key transformers uses p = 1.
static void readNorm(const Config &config, int64_t, LayerDescription &d) {
  Key key = "ffn_config.moe_normalize_expert_weights";
  if (config.isNull(key.names.front()))
    return;
  double p = config.real(key, 1.0);
  if (!(p > 0.0))
    config.fail("expected " + config.quote(key) + " above 0, got " +
                std::to_string(p));
  d.router.normalize = Router::Normalize{NormalizeKind::Norm, p};
}

void mlir::moe::importer::addDbrx(FamilyTable &table) {
  Family f;
  f.hidden = "d_model";
  f.layers = "n_layers";
  f.experts = "ffn_config.moe_num_experts";
  f.topK = "ffn_config.moe_top_k";
  f.width = "ffn_config.ffn_hidden_size";
  f.activation.name = "ffn_config.ffn_act_fn.name";
  f.prefixes = {"transformer.blocks.{n}.", "blocks.{n}."};

  MLPLayout layout;
  layout.gate = "ffn.experts.mlp.w1";
  layout.up = "ffn.experts.mlp.v1";
  layout.down = "ffn.experts.mlp.w2";
  layout.downInOut = true;
  layout.flattened = true;
  f.expertLayouts = {layout};
  f.router.weight = {"ffn.router.layer.weight"};
  f.router.roundScores = true;
  f.refine = readNorm;
  table.add("dbrx", f);
}
