//===- Jamba.cpp - Jamba --------------------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Families.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::importer;

LayerDescription mlir::moe::importer::describeJamba(const Config &config,
                                                    int64_t layer) {
  LayerDescription d = describeDecoder(config, layer);
  d.experts = config.experts({"num_experts", "num_local_experts"});
  d.expert.width = config.extent("intermediate_size");
  d.expert.activation = readActivation(config);
  d.expert.layouts = linearsOrFused("feed_forward.experts.");
  d.router.weight = {"feed_forward.router.weight"};
  d.router.roundWeights = true;

  int64_t period = config.integer("expert_layer_period", 1, INT32_MAX, 2);
  int64_t offset = config.integer("expert_layer_offset", 0, INT32_MAX, 1);
  // With a single expert, layers have an ordinary feed-forward network.
  d.moeLayers = selectLayers(d.layers, [&](int64_t index) {
    return d.experts > 1 && index % period == offset;
  });
  return d;
}
