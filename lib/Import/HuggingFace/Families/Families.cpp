//===- Families.cpp - The families that can be imported -------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Families.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringSwitch.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::importer;

static constexpr Family families[] = {
    {"dbrx", describeDbrx},
    {"deepseek_v2", describeDeepseekV2},
    {"deepseek_v3", describeDeepseekV3},
    // The gate, names and keys of DeepSeek-V3, with one group.
    {"glm4_moe", describeGlm4Moe},
    {"gpt_oss", describeGptOss},
    {"granitemoe", describeGraniteMoe},
    {"granitemoeshared", describeGraniteMoeShared},
    {"jamba", describeJamba},
    // DeepSeek-V3's code with other sizes.
    {"kimi_k2", describeDeepseekV3},
    {"llama4", describeLlama4},
    {"llama4_text", describeLlama4Text},
    {"mixtral", describeMixtral},
    {"olmoe", describeOlmoe},
    {"phimoe", describePhimoe},
    {"qwen2_moe", describeQwen2Moe},
    {"qwen3_moe", describeQwen3Moe},
    {"switch_transformers", describeSwitchTransformers},
};

ArrayRef<Family> mlir::moe::importer::getFamilies() { return families; }

LayerDescription mlir::moe::importer::describeDecoder(const Config &config,
                                                      int64_t layer) {
  LayerDescription d;
  d.hidden = config.extent("hidden_size");
  d.layers = config.layers("num_hidden_layers");
  d.moeLayers = selectLayers(d.layers, [](int64_t) { return true; });
  d.router.topK = config.experts("num_experts_per_tok");
  // A model saved without its language-model head has the second prefix.
  std::string index = std::to_string(layer);
  d.prefixes = {"model.layers." + index + ".", "layers." + index + "."};
  return d;
}

SmallVector<int64_t>
mlir::moe::importer::selectLayers(int64_t layers,
                                  llvm::function_ref<bool(int64_t)> holds) {
  return llvm::to_vector(
      llvm::make_filter_range(llvm::seq<int64_t>(0, layers), holds));
}

Activation mlir::moe::importer::readActivation(const Config &config,
                                               const Key &key,
                                               llvm::StringRef absent) {
  StringRef name = config.text(key, absent);
  auto kind = llvm::StringSwitch<std::optional<Activation::Kind>>(name)
                  .Cases({"silu", "swish"}, Activation::SiLU)
                  .Cases({"gelu", "gelu_python"}, Activation::GELU)
                  .Cases({"gelu_new", "gelu_fast"}, Activation::GELUTanh)
                  .Cases({"gelu_pytorch_tanh", "gelu_python_tanh"},
                         Activation::GELUTanh)
                  .Case("quick_gelu", Activation::QuickGELU)
                  .Case("relu", Activation::ReLU)
                  .Case("relu2", Activation::ReLU2)
                  .Default(std::nullopt);
  if (!kind)
    config.fail("expected " + config.quote(key) +
                " to be silu, gelu, gelu_new, gelu_pytorch_tanh, quick_gelu, "
                "relu or relu2, got '" +
                name + "'");
  return {kind.value_or(Activation::SiLU)};
}

//===----------------------------------------------------------------------===//
// Layouts
//===----------------------------------------------------------------------===//

MLPLayout mlir::moe::importer::linears(llvm::StringRef module,
                                       llvm::StringRef gate, llvm::StringRef up,
                                       llvm::StringRef down) {
  MLPLayout layout;
  layout.gating = Gating::Separate;
  layout.gate = (module + gate + ".weight").str();
  layout.up = (module + up + ".weight").str();
  layout.down = (module + down + ".weight").str();
  return layout;
}

MLPLayout mlir::moe::importer::halves(llvm::StringRef up,
                                      llvm::StringRef down) {
  MLPLayout layout;
  layout.gating = Gating::Halves;
  layout.up = up.str();
  layout.down = down.str();
  return layout;
}

SmallVector<MLPLayout, 2>
mlir::moe::importer::linearsOrFused(llvm::StringRef module) {
  return {
      linears((module + "{e}.").str()),
      halves((module + "gate_up_proj").str(), (module + "down_proj").str())};
}
