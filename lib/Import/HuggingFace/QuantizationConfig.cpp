//===- QuantizationConfig.cpp - Read quantization_config ------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "QuantizationConfig.h"

using namespace mlir::moe;
using namespace mlir::moe::importer;

static constexpr int64_t maxExtent = 1 << 20;

/// Reads the groups of compressed-tensors; the first decides.
static void readGroups(const Config &config, QuantizationConfig &result) {
  if (!config.has("group_0"))
    return;
  Config group = config.section("group_0");
  if (!group.has("weights"))
    return;
  Config weights = group.section("weights");
  result.bits = weights.integer("num_bits", 1, 64, 0);
  // -1 where a scale is that of a row.
  int64_t size = weights.integer("group_size", -1, maxExtent, 0);
  if (size > 0) {
    result.blockRows = 1;
    result.blockColumns = size;
  }
  if (weights.has("block_structure")) {
    auto block = weights.integers("block_structure", 1, maxExtent);
    if (block.size() == 2) {
      result.blockRows = block[0];
      result.blockColumns = block[1];
    }
  }
}

QuantizationConfig
mlir::moe::importer::readQuantizationConfig(const Config &config,
                                            const Config &language) {
  QuantizationConfig result;
  Key key = "quantization_config";
  if (!config.has(key) && !language.has(key))
    return result;
  Config section = (config.has(key) ? config : language).section(key.names[0]);
  if (section.has("weight_block_size")) {
    auto block = section.integers("weight_block_size", 1, maxExtent);
    if (block.size() != 2)
      section.fail("expected " + section.quote("weight_block_size") +
                   " to have 2 extents, got " + llvm::Twine(block.size()));
    else
      std::tie(result.blockRows, result.blockColumns) =
          std::tie(block[0], block[1]);
  }
  if (section.has("config_groups"))
    readGroups(section.section("config_groups"), result);
  return result;
}
