//===- GGUF.cpp - MoE layers of GGUF files --------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Import/GGUF.h"

#include "../Layer/Checkpoint.h"
#include "../Layer/JoinLayers.h"
#include "../Layer/LayerBuilder.h"
#include "Architectures.h"
#include "moe/Dialect/MoE/IR/MoEABI.h"

#include "mlir/Interfaces/FunctionInterfaces.h"
#include "llvm/ADT/StringExtras.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::importer;

using llvm::createStringError;

namespace {
/// Reads the keys of one architecture. The first error is kept, and later reads
/// return values that are safe to compute with.
class Keys {
public:
  Keys(const ::moe::io::GgufMetadata &metadata, StringRef architecture)
      : metadata(metadata), prefix(architecture.str() + ".") {}

  bool has(StringRef key) const { return metadata.contains(full(key)); }
  int64_t integer(StringRef key, int64_t least, int64_t most,
                  std::optional<int64_t> absent = std::nullopt) {
    if (absent && !has(key))
      return *absent;
    auto value = metadata.integer(full(key));
    if (!value)
      return fail(value.error()), least;
    if (*value < least || *value > most)
      return fail("expected '" + full(key) + "' between " + Twine(least) +
                  " and " + Twine(most) + ", got " + Twine(*value)),
             least;
    return *value;
  }
  double real(StringRef key, double absent) {
    if (!has(key))
      return absent;
    auto value = metadata.real(full(key));
    if (!value)
      return fail(value.error()), absent;
    return *value;
  }
  bool flag(StringRef key, bool absent) {
    if (!has(key))
      return absent;
    auto value = metadata.boolean(full(key));
    if (!value)
      return fail(value.error()), absent;
    return *value;
  }

  void fail(const Twine &message) {
    if (error.empty())
      error = message.str();
  }
  std::string error;

private:
  std::string full(StringRef key) const { return prefix + key.str(); }

  const ::moe::io::GgufMetadata &metadata;
  std::string prefix;
};

/// Describes one layer from the tensors and the keys of a file.
class Describer {
public:
  Describer(RuntimeCheckpoint &checkpoint, const Architecture &architecture,
            Keys &keys, int64_t index)
      : checkpoint(checkpoint), architecture(architecture), keys(keys),
        prefix("blk." + std::to_string(index) + ".") {}

  LayerDescription run();

private:
  bool has(StringRef tensor) {
    return checkpoint.contains(prefix + tensor.str());
  }
  /// Returns extent `dim` of a tensor; 1, with an error, if it has none.
  int64_t extentOf(StringRef tensor, size_t dim);
  /// Returns a name if there is such a tensor; otherwise empty.
  std::string ifPresent(StringRef tensor) {
    return has(tensor) ? tensor.str() : "";
  }
  MLP describeMLP(StringRef kind, bool ofExperts);
  Router describeRouter();

  RuntimeCheckpoint &checkpoint;
  const Architecture &architecture;
  Keys &keys;
  std::string prefix;
};
} // namespace

// Keeps all sizes within 63 bits.
static constexpr int64_t maxExtent = 1 << 20;
static constexpr int64_t maxExperts = 1 << 16;

int64_t Describer::extentOf(StringRef tensor, size_t dim) {
  std::string name = prefix + tensor.str();
  auto found = checkpoint.lookup(name);
  if (!found) {
    keys.fail(llvm::toString(found.takeError()));
    return 1;
  }
  if (found->shape.size() <= dim || found->shape[dim] < 1 ||
      found->shape[dim] > maxExtent) {
    keys.fail("tensor '" + name + "' has no extent " + Twine(dim) +
              " between 1 and " + Twine(maxExtent));
    return 1;
  }
  return found->shape[dim];
}

/// Describes the experts ("exps") or the shared expert ("shexp").
MLP Describer::describeMLP(StringRef kind, bool ofExperts) {
  auto name = [&](StringRef matrix, StringRef end) {
    return ("ffn_" + matrix + "_" + kind + end).str();
  };
  MLP mlp;
  MLPLayout layout;
  layout.down = name("down", ".weight");
  layout.downBias = ifPresent(name("down", ".bias"));
  size_t rows = ofExperts ? 1 : 0;
  if (has(name("gate_up", ".weight"))) {
    layout.gating = Gating::Halves;
    layout.up = name("gate_up", ".weight");
    layout.upBias = ifPresent(name("gate_up", ".bias"));
    mlp.width = extentOf(layout.up, rows) / 2;
  } else {
    layout.up = name("up", ".weight");
    layout.upBias = ifPresent(name("up", ".bias"));
    mlp.width = extentOf(layout.up, rows);
    layout.gating =
        has(name("gate", ".weight")) ? Gating::Separate : Gating::None;
    if (layout.gating == Gating::Separate) {
      layout.gate = name("gate", ".weight");
      layout.gateBias = ifPresent(name("gate", ".bias"));
    }
  }
  if (architecture.clampedSwiGLU)
    mlp.activation = {Activation::ClampedSwiGLU, /*alpha=*/1.702,
                      /*limit=*/7.0, /*limitUp=*/0.0, /*offset=*/1.0};
  mlp.layouts = {layout};
  return mlp;
}

Router Describer::describeRouter() {
  Router router;
  router.weight = {"ffn_gate_inp.weight"};
  router.bias = ifPresent("ffn_gate_inp.bias");
  if (has("exp_probs_b.bias"))
    router.selectionBias = {"exp_probs_b.bias"};
  router.topK = keys.integer("expert_used_count", 1, maxExperts);
  auto gating = GatingFunction(
      keys.integer("expert_gating_func", 0, 4, int64_t(architecture.gating)));
  switch (gating) {
  case GatingFunction::Softmax:
    break;
  case GatingFunction::Sigmoid:
    router.score = Score::Sigmoid;
    break;
  case GatingFunction::SoftmaxOfChosen:
    router.order = Order::SelectThenScore;
    break;
  case GatingFunction::SqrtSoftplus:
    router.score = Score::SqrtSoftplus;
    break;
  default: // 0: the file does not say
    router.score = architecture.gating == GatingFunction::Sigmoid
                       ? Score::Sigmoid
                       : Score::Softmax;
  }
  if (architecture.scalesInput) {
    router.order = Order::SelectThenScore;
    router.scaleInput = true;
  }
  // ggml keeps the sum from zero by the smallest normal f16.
  if (keys.flag("expert_weights_norm", architecture.normalizes))
    router.normalize = {NormalizeKind::Sum, 2.0, 6.103515625e-5,
                        NormalizeGuard::Clamp};
  router.scale = keys.real("expert_weights_scale", 1.0);
  if (router.scale == 0.0)
    router.scale = 1.0; // as absent
  int64_t groups = keys.integer("expert_group_count", 0, maxExperts, 0);
  if (groups > 1)
    router.groups = {groups, keys.integer("expert_group_used_count", 1, groups),
                     GroupScore::Top2Sum};
  router.f32Logits = true;
  return router;
}

LayerDescription Describer::run() {
  LayerDescription d;
  d.hidden = keys.integer("embedding_length", 1, maxExtent);
  d.experts = keys.integer("expert_count", 1, maxExperts);
  d.prefixes = {prefix};
  d.convertExperts = true;
  // Factors and steps beside the known ones would be ignored otherwise.
  for (StringRef suffix :
       {"ffn_gate_exps.scale", "ffn_up_exps.scale", "ffn_down_exps.scale",
        "ffn_gate_tid2eid.weight", "ffn_latent_down.weight",
        "ffn_gate_chexps.weight", "ffn_up_chexps.weight"})
    if (has(suffix))
      keys.fail("tensor '" + prefix + suffix +
                "' is of a layer that cannot be imported");
  d.expert = describeMLP("exps", /*ofExperts=*/true);
  d.router = describeRouter();
  if (has("ffn_up_shexp.weight") || has("ffn_gate_up_shexp.weight")) {
    d.shared = describeMLP("shexp", /*ofExperts=*/false);
    d.sharedGate = ifPresent("ffn_gate_inp_shexp.weight");
    d.sharedGateIsVector = true;
  }
  if (d.router.topK > d.experts)
    keys.fail("expected at most " + Twine(d.experts) +
              " experts per token, got " + Twine(d.router.topK));
  if (d.router.groups) {
    int64_t size = d.experts / d.router.groups->count;
    if (d.experts % d.router.groups->count != 0 || size < 2)
      keys.fail("expected 'expert_group_count' to divide " + Twine(d.experts) +
                " experts into groups of at least 2, got " +
                Twine(d.router.groups->count));
    else if (d.router.topK > d.router.groups->keep * size)
      keys.fail("expected at most as many experts per token as the groups "
                "that are kept have, " +
                Twine(d.router.groups->keep * size) + ", got " +
                Twine(d.router.topK));
  }
  return d;
}

static bool hasExperts(RuntimeCheckpoint &checkpoint, int64_t layer) {
  std::string prefix = "blk." + std::to_string(layer) + ".";
  return checkpoint.contains(prefix + "ffn_up_exps.weight") ||
         checkpoint.contains(prefix + "ffn_gate_up_exps.weight");
}

/// Returns an error that lists the blocks with experts unless `layer` is one.
static llvm::Error checkLayer(RuntimeCheckpoint &checkpoint, int64_t layer,
                              int64_t layers) {
  std::string with;
  for (int64_t i = 0; i < layers; ++i) {
    if (!hasExperts(checkpoint, i))
      continue;
    if (i == layer)
      return llvm::Error::success();
    if (with.empty())
      with = "; the first with experts is " + std::to_string(i);
  }
  return createStringError("layer " + Twine(layer) + " of " + Twine(layers) +
                           " has no experts" + with);
}

/// Rounds rows to 8 bits, as those who made the file expect of an engine, if
/// the layer has quantised weights.
static void setActivations(ModuleOp module) {
  for (auto function : module.getOps<FunctionOpInterface>()) {
    bool isQuantized =
        function->walk([](DequantizeOp) { return WalkResult::interrupt(); })
            .wasInterrupted();
    if (isQuantized)
      function->setAttr(activationsAttrName,
                        StringAttr::get(module.getContext(), "int8"));
  }
}

static llvm::Expected<OwningOpRef<ModuleOp>>
importLayer(MLIRContext &context, RuntimeCheckpoint &checkpoint,
            const GGUFOptions &options) {
  const ::moe::io::GgufMetadata &metadata = checkpoint.get().metadata();
  if (!metadata.contains("general.architecture"))
    return createStringError(
        "expected a .gguf file of a model, with a key 'general.architecture'");
  auto name = metadata.string("general.architecture");
  if (!name)
    return createStringError(name.error());
  auto known = llvm::find_if(
      getArchitectures(), [&](const auto &each) { return each.name == *name; });
  if (known == getArchitectures().end())
    return createStringError("architecture '" + *name +
                             "' is not among those that can be imported: " +
                             llvm::join(getGGUFArchitectures(), ", "));
  Keys keys(metadata, *name);
  int64_t layers = keys.integer("block_count", 1, 1 << 16);
  if (!keys.error.empty())
    return createStringError(keys.error);
  auto importOne = [&](int64_t index) -> llvm::Expected<OwningOpRef<ModuleOp>> {
    LayerDescription layer = Describer(checkpoint, *known, keys, index).run();
    if (!keys.error.empty())
      return createStringError(keys.error);
    llvm::Expected<LayerWeights> weights =
        findWeights(layer, &checkpoint, options.dtype, "f32", {});
    if (!weights)
      return weights.takeError();
    llvm::Expected<OwningOpRef<ModuleOp>> module = buildModule(
        context, *name + " layer " + std::to_string(index), layer, *weights);
    if (module)
      setActivations(**module);
    return module;
  };
  if (!options.allLayers) {
    if (llvm::Error error = checkLayer(checkpoint, options.layer, layers))
      return error;
    return importOne(options.layer);
  }
  SmallVector<int64_t> indices;
  for (int64_t index = 0; index < layers; ++index)
    if (hasExperts(checkpoint, index))
      indices.push_back(index);
  if (indices.empty())
    return createStringError("no layer has experts");
  return joinLayers(context, indices, importOne);
}

llvm::Expected<OwningOpRef<ModuleOp>>
mlir::moe::importGGUFLayer(MLIRContext &context, StringRef path,
                           const GGUFOptions &options) {
  if (!options.dtype.empty() && options.dtype != "f32" &&
      options.dtype != "f16" && options.dtype != "bf16")
    return createStringError("expected a data type f32, f16 or bf16, got '" +
                             options.dtype + "'");
  // Checkpoints can be in other formats; an error has to be about this one.
  auto file = ::moe::io::MappedFile::open(path.str());
  if (!file)
    return createStringError(file.error());
  if (!::moe::io::GgufFile::hasMagic(file->data(), file->size()))
    return createStringError(
        path + ": not a GGUF file: it does not start with 'GGUF'");
  auto opened = ::moe::io::Checkpoint::open(path.str());
  if (!opened)
    return createStringError(opened.error());
  RuntimeCheckpoint checkpoint(std::move(*opened));
  auto module = importLayer(context, checkpoint, options);
  if (!module)
    return createStringError(path + ": " + llvm::toString(module.takeError()));
  return module;
}

std::vector<StringRef> mlir::moe::getGGUFArchitectures() {
  std::vector<StringRef> names;
  for (const Architecture &architecture : getArchitectures())
    names.push_back(architecture.name);
  return names;
}
