//===- Family.h - What the layers of a family are called --------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Most families differ in the keys of their config.json, the names of their
// tensors and the settings of one gate. A Family holds these as data; one
// function makes the description of a layer from it.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_IMPORT_HUGGINGFACE_FAMILIES_FAMILY_H
#define MOE_LIB_IMPORT_HUGGINGFACE_FAMILIES_FAMILY_H

#include "../../Layer/LayerDescription.h"
#include "../Config.h"

#include <vector>

namespace mlir::moe::importer {

//===----------------------------------------------------------------------===//
// Parts of a family. A key that is empty is not read.
//===----------------------------------------------------------------------===//

/// Which layers have experts: those for which every rule that is given holds.
/// `words` and `list`, where a configuration has them, replace the others.
struct LayerRule {
  Key words; // a list with a word for each layer
  StringRef word = "sparse";
  Key list; // the indices of the layers with experts

  Key first; // the first layer with experts
  int64_t firstAbsent = 0;
  Key last; // the last one; negative: of the model
  /// index % period == offset, or a list with a flag for each layer.
  Key period;
  int64_t periodAbsent = 1;
  Key offset;
  int64_t offsetAbsent = 0; // negative: counts from the end of the period
  Key dense;                // the indices of the layers without experts
  SmallVector<int64_t> denseAbsent;
};

/// How a configuration names the function between the matmuls.
struct ActivationRule {
  Key name = "hidden_act"; // empty: always `preset`
  StringRef absent = "silu";
  Activation preset;
  Key alpha, limit, limitUp; // of the preset, whose values are the defaults
};

/// What a configuration decides about a router. Router in LayerDescription
/// holds the rest.
struct RouterRule {
  Key score; // softmax, sigmoid or sqrtsoftplus
  StringRef scoreAbsent = "sigmoid";
  Key groups = "n_group", keptGroups = "topk_group";
  std::optional<int64_t> groupsAbsent; // none: the key is required
  Key normalize; // whether `normalize` of the router holds
  bool normalizeAbsent = false;
  Key epsilon; // of `normalize`
  Key scale;
  double scaleAbsent = 1.0;
  Key logitScale;     // multiplies the logits
  Key softCap;        // of the logits; 0: none
  Key selectionBias;  // whether the router has one
  bool biased = true; // without that key
};

/// An expert for all tokens, or several that form one network.
struct SharedRule {
  Key count; // times the width; null: none
  std::optional<int64_t> countAbsent;
  Key width; // empty: that of the experts
  std::optional<int64_t> widthAbsent;
  Key biases; // whether its linear layers have biases
  SmallVector<MLPLayout, 2> layouts;
  std::string gate; // LayerDescription::sharedGate
  /// The function that `hidden_act` names rather than that of the experts.
  bool plainActivation = false;
};

//===----------------------------------------------------------------------===//
// Family
//===----------------------------------------------------------------------===//

struct Family {
  /// The object with the keys: the first that the configuration has, and ""
  /// is its top level. "a.b" is an object in an object.
  SmallVector<StringRef, 2> sections = {""};
  /// What precedes the names of tensors, by likelihood; "{n}" is the index of
  /// the layer.
  SmallVector<std::string, 4> prefixes = {"model.layers.{n}.", "layers.{n}."};

  Key hidden = "hidden_size";
  Key layers = "num_hidden_layers"; // empty: `refine` counts them
  Key experts = {"num_experts", "num_local_experts"};
  /// An integer, or a list with one for each layer; empty: always 1.
  Key topK = "num_experts_per_tok";
  Key width = "moe_intermediate_size";

  LayerRule sparse;
  ActivationRule activation;
  SmallVector<MLPLayout, 2> expertLayouts;
  Router router;
  RouterRule routerKeys;
  SharedRule shared;
  Latent latent; // its width is read from `latentWidth`
  Key latentWidth;
  std::string outputBias;
  Key outputNormEpsilon; // with `outputNorm`
  RMSNorm outputNorm;

  /// Keys that have this value if they are there.
  struct Fixed {
    Key key;
    StringRef value;
  };
  SmallVector<Fixed, 2> fixed;
  /// Adds what the fields above cannot say.
  void (*refine)(const Config &config, int64_t layer,
                 LayerDescription &d) = nullptr;
};

/// Describes layer `layer` from the section of a configuration; with a negative
/// index, what does not depend on the layer.
LayerDescription describeLayer(const Family &family, const Config &config,
                               int64_t layer);

/// All families by their model_type.
class FamilyTable {
public:
  FamilyTable();

  void add(StringRef modelType, Family family);
  /// Adds a model that has `base` in one of `sections`, with names of its own.
  /// "" last: the keys may also be at the top level.
  void wrap(StringRef modelType, StringRef base,
            ArrayRef<StringRef> sections = StringRef("text_config"),
            ArrayRef<StringRef> prefixes = {});

  const Family *find(StringRef modelType) const;
  /// Returns the family `base` inside a model that is not in the table.
  Family wrapped(StringRef base, StringRef section) const;
  /// Returns their names in alphabetical order.
  std::vector<StringRef> names() const;

private:
  std::vector<std::pair<StringRef, Family>> families;
};

/// The table; made once.
const FamilyTable &getFamilyTable();

void addDbrx(FamilyTable &table), addDeepSeek(FamilyTable &table),
    addGptOss(FamilyTable &table), addGranite(FamilyTable &table),
    addLlama4(FamilyTable &table), addMixtral(FamilyTable &table),
    addQwen(FamilyTable &table), addSigmoid(FamilyTable &table),
    addSwitch(FamilyTable &table);

//===----------------------------------------------------------------------===//
// Helpers of families
//===----------------------------------------------------------------------===//

/// Returns the indices below `layers` for which `holds`.
SmallVector<int64_t> selectLayers(int64_t layers,
                                  llvm::function_ref<bool(int64_t)> holds);

/// Returns the function that `hidden_act`, or another key, names.
Activation readActivation(const Config &config, const Key &key = "hidden_act",
                          StringRef absent = "silu");

/// The function of gpt-oss: releases before `swiglu_alpha` hard-coded its
/// value.
ActivationRule clampedSwiGLU();

/// Returns three nn.Linear, for one network or, with "{e}" in `module`, for
/// each expert.
MLPLayout linears(StringRef module, StringRef gate = "gate_proj",
                  StringRef up = "up_proj", StringRef down = "down_proj");
/// Returns two nn.Linear without a gate.
MLPLayout ungated(StringRef up, StringRef down);
/// Returns gate and up in one tensor, [2I, H], and down.
MLPLayout halves(StringRef up, StringRef down);
/// Returns a layout whose matrices are [in, out].
MLPLayout inOut(MLPLayout layout);
/// Returns linears() for each expert, or the two tensors `experts.gate_up_proj`
/// [E, 2I, H] and `experts.down_proj` of transformers 5. `module` ends in
/// "experts.".
SmallVector<MLPLayout, 2> linearsOrFused(StringRef module);

} // namespace mlir::moe::importer

#endif // MOE_LIB_IMPORT_HUGGINGFACE_FAMILIES_FAMILY_H
