//===- Families.h - The families that can be imported -----------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Each function describes one layer of a model from its config.json, as the
// model's code in transformers 5 computes it in inference. Keys that some
// releases lack have the default of transformers; others are required.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_IMPORT_HUGGINGFACE_FAMILIES_FAMILIES_H
#define MOE_LIB_IMPORT_HUGGINGFACE_FAMILIES_FAMILIES_H

#include "../../Layer/LayerDescription.h"
#include "../Config.h"

namespace mlir::moe::importer {

using DescribeFn = LayerDescription(const Config &config, int64_t layer);

struct Family {
  llvm::StringLiteral modelType;
  DescribeFn *describe;
};

/// All families, in alphabetical order.
ArrayRef<Family> getFamilies();

DescribeFn describeDbrx, describeDeepseekV2, describeDeepseekV3, describeGptOss,
    describeGlm4Moe, describeGraniteMoe, describeGraniteMoeShared,
    describeJamba, describeLlama4, describeLlama4Text, describeMixtral,
    describeOlmoe, describePhimoe, describeQwen2Moe, describeQwen3Moe,
    describeSwitchTransformers;

//===----------------------------------------------------------------------===//
// Helpers of families
//===----------------------------------------------------------------------===//

/// Describes a decoder with blocks `model.layers.N`: sizes and prefixes. Every
/// layer has experts unless the family sets moeLayers.
LayerDescription describeDecoder(const Config &config, int64_t layer);

/// Returns the indices below `layers` for which `holds`.
SmallVector<int64_t> selectLayers(int64_t layers,
                                  llvm::function_ref<bool(int64_t)> holds);

/// Returns the function that `hidden_act`, or another key, names.
Activation readActivation(const Config &config, const Key &key = "hidden_act",
                          llvm::StringRef absent = "silu");

/// Returns three nn.Linear, for one network or, with "{e}" in `module`, for
/// each expert.
MLPLayout linears(llvm::StringRef module, llvm::StringRef gate = "gate_proj",
                  llvm::StringRef up = "up_proj",
                  llvm::StringRef down = "down_proj");
/// Returns gate and up in one tensor, [2I, H], and down.
MLPLayout halves(llvm::StringRef up, llvm::StringRef down);
/// Returns linears() for each expert, or the two tensors `experts.gate_up_proj`
/// [E, 2I, H] and `experts.down_proj` of transformers 5. `module` ends in
/// "experts.".
SmallVector<MLPLayout, 2> linearsOrFused(llvm::StringRef module);

} // namespace mlir::moe::importer

#endif // MOE_LIB_IMPORT_HUGGINGFACE_FAMILIES_FAMILIES_H
