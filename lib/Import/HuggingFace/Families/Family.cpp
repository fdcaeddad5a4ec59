//===- Family.cpp - Describe a layer from the data of its family ----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Family.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringSwitch.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::importer;

//===----------------------------------------------------------------------===//
// Which layers have experts
//===----------------------------------------------------------------------===//

SmallVector<int64_t>
mlir::moe::importer::selectLayers(int64_t layers,
                                  llvm::function_ref<bool(int64_t)> holds) {
  return llvm::to_vector(
      llvm::make_filter_range(llvm::seq<int64_t>(0, layers), holds));
}

/// Fails unless a list has an element for each layer.
static bool checkLength(const Config &config, const Key &key, size_t length,
                        int64_t layers) {
  if (static_cast<int64_t>(length) == layers)
    return true;
  config.fail("expected " + config.quote(key) +
              " to have an element for each "
              "of " +
              Twine(layers) + " layers, got " + Twine(length));
  return false;
}

static SmallVector<int64_t>
readMoELayers(const LayerRule &rule, const Config &config, int64_t layers) {
  if (config.has(rule.words)) {
    SmallVector<StringRef> words = config.texts(rule.words);
    if (config.failed() ||
        !checkLength(config, rule.words, words.size(), layers))
      return {};
    return selectLayers(layers,
                        [&](int64_t i) { return words[i] == rule.word; });
  }
  if (config.has(rule.list)) {
    SmallVector<int64_t> list = config.integers(rule.list, 0, layers - 1);
    llvm::sort(list);
    return list;
  }

  int64_t first = config.integer(rule.first, 0, INT32_MAX, rule.firstAbsent);
  int64_t last = config.integer(rule.last, INT32_MIN, INT32_MAX, -1);
  if (last < 0)
    last = layers - 1;
  SmallVector<int64_t> flags;
  int64_t period = 1;
  if (config.isArray(rule.period)) {
    flags = config.integers(rule.period, 0, 1);
    if (config.failed() ||
        !checkLength(config, rule.period, flags.size(), layers))
      return {};
  } else {
    period = config.integer(rule.period, 1, INT32_MAX, rule.periodAbsent);
  }
  int64_t offset = config.integer(
      rule.offset, 0, INT32_MAX,
      rule.offsetAbsent < 0 ? period + rule.offsetAbsent : rule.offsetAbsent);
  SmallVector<int64_t> dense = config.has(rule.dense)
                                   ? config.integers(rule.dense, 0, layers - 1)
                                   : rule.denseAbsent;
  llvm::sort(dense);
  return selectLayers(layers, [&](int64_t i) {
    return i >= first && i <= last && i % period == offset &&
           (flags.empty() || flags[i]) &&
           !std::binary_search(dense.begin(), dense.end(), i);
  });
}

//===----------------------------------------------------------------------===//
// Experts
//===----------------------------------------------------------------------===//

Activation mlir::moe::importer::readActivation(const Config &config,
                                               const Key &key,
                                               StringRef absent) {
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
  Activation activation;
  activation.kind = kind.value_or(Activation::SiLU);
  return activation;
}

ActivationRule mlir::moe::importer::clampedSwiGLU() {
  ActivationRule rule;
  rule.name = {};
  rule.preset.kind = Activation::ClampedSwiGLU;
  rule.preset.alpha = 1.702;
  rule.preset.limit = 7.0;
  rule.preset.offset = 1.0;
  rule.alpha = "swiglu_alpha";
  rule.limit = "swiglu_limit";
  return rule;
}

static Activation activationOf(const ActivationRule &rule,
                               const Config &config) {
  if (!rule.name.empty())
    return readActivation(config, rule.name, rule.absent);
  Activation activation = rule.preset;
  activation.alpha = config.real(rule.alpha, activation.alpha);
  auto readLimit = [&](const Key &key, double &limit) {
    limit = config.real(key, limit);
    bool isCap = activation.kind == Activation::SoftCappedSwiGLU;
    if (isCap ? limit <= 0.0 : limit < 0.0)
      config.fail("expected " + config.quote(key) +
                  (isCap ? " above" : " of at least") + " 0, got " +
                  std::to_string(limit));
  };
  readLimit(rule.limit, activation.limit);
  if (!rule.limitUp.empty())
    readLimit(rule.limitUp, activation.limitUp);
  return activation;
}

static std::optional<MLP> readShared(const SharedRule &rule,
                                     const Config &config, const MLP &expert) {
  if (rule.layouts.empty())
    return std::nullopt;
  bool isNone =
      llvm::any_of(rule.count.names,
                   [&](StringRef name) { return config.isNull(name); }) &&
      !config.has(rule.count);
  int64_t count = 1;
  if (isNone)
    count = 0;
  else if (!rule.count.empty())
    count = config.integer(rule.count, 0, 1024, rule.countAbsent);
  int64_t width = rule.width.empty() ? expert.width
                                     : config.integer(rule.width, 0, 1 << 20,
                                                      rule.widthAbsent);
  if (count * width == 0)
    return std::nullopt;
  MLP shared{width * count, expert.activation, rule.layouts};
  if (rule.plainActivation)
    shared.activation = readActivation(config);
  if (config.flag(rule.biases, false))
    for (MLPLayout &layout : shared.layouts) {
      auto bias = [](StringRef weight) {
        return weight.empty() ? std::string()
                              : (weight.rsplit('.').first + ".bias").str();
      };
      layout.gateBias = bias(layout.gate);
      layout.upBias = bias(layout.up);
      layout.downBias = bias(layout.down);
    }
  return shared;
}

//===----------------------------------------------------------------------===//
// Router
//===----------------------------------------------------------------------===//

static Score readScore(const RouterRule &rule, const Config &config) {
  StringRef name = config.text(rule.score, rule.scoreAbsent);
  auto score = llvm::StringSwitch<std::optional<Score>>(name)
                   .Case("softmax", Score::Softmax)
                   .Case("sigmoid", Score::Sigmoid)
                   .Case("sqrtsoftplus", Score::SqrtSoftplus)
                   .Default(std::nullopt);
  if (!score)
    config.fail("expected " + config.quote(rule.score) +
                " to be softmax, sigmoid or sqrtsoftplus, got '" + name + "'");
  return score.value_or(Score::Sigmoid);
}

static void readRouter(const RouterRule &rule, const Config &config,
                       Router &router) {
  if (!rule.score.empty())
    router.score = readScore(rule, config);
  if (router.groups) {
    auto count = [&](const Key &key) {
      return config.integer(key, 1, 1 << 16, rule.groupsAbsent);
    };
    router.groups->count = count(rule.groups);
    // A single group limits nothing.
    if (router.groups->count > 1)
      router.groups->keep = count(rule.keptGroups);
    else
      router.groups.reset();
  }
  if (!rule.normalize.empty() &&
      !config.flag(rule.normalize, rule.normalizeAbsent))
    router.normalize.reset();
  if (router.normalize)
    router.normalize->epsilon =
        config.real(rule.epsilon, router.normalize->epsilon);
  router.scale = config.real(rule.scale, rule.scaleAbsent);
  router.logitScale = config.real(rule.logitScale, router.logitScale);
  router.softCap = std::max(0.0, config.real(rule.softCap, 0.0));
  if (!config.flag(rule.selectionBias, rule.biased))
    router.selectionBias.clear();
}

/// Reads an integer, or the element of a list with one a layer.
static int64_t readTopK(const Key &key, const Config &config, int64_t layers,
                        int64_t layer) {
  if (!config.isArray(key))
    return config.experts(key);
  SmallVector<int64_t> list = config.integers(key, 1, 1 << 16);
  if (config.failed() || !checkLength(config, key, list.size(), layers) ||
      layer < 0 || layer >= layers)
    return 1;
  return list[layer];
}

//===----------------------------------------------------------------------===//
// Layer
//===----------------------------------------------------------------------===//

LayerDescription mlir::moe::importer::describeLayer(const Family &family,
                                                    const Config &config,
                                                    int64_t layer) {
  LayerDescription d;
  d.hidden = config.extent(family.hidden);
  if (!family.layers.empty())
    d.layers = config.layers(family.layers);
  d.moeLayers = readMoELayers(family.sparse, config, d.layers);
  for (const std::string &prefix : family.prefixes) {
    auto [before, after] = StringRef(prefix).split("{n}");
    d.prefixes.push_back((before + Twine(layer) + after).str());
  }
  d.experts = config.experts(family.experts);
  d.expert.width = config.extent(family.width);
  d.expert.activation = activationOf(family.activation, config);
  d.expert.layouts = family.expertLayouts;
  d.router = family.router;
  d.router.topK =
      family.topK.empty() ? 1 : readTopK(family.topK, config, d.layers, layer);
  readRouter(family.routerKeys, config, d.router);
  d.shared = readShared(family.shared, config, d.expert);
  if (d.shared)
    d.sharedGate = family.shared.gate;
  if (config.has(family.latentWidth)) {
    d.latent = family.latent;
    d.latent.width = config.extent(family.latentWidth);
  }
  d.outputBias = family.outputBias;
  d.outputNorm = family.outputNorm;
  d.outputNorm.epsilon =
      config.real(family.outputNormEpsilon, d.outputNorm.epsilon);

  for (const Family::Fixed &fixed : family.fixed) {
    StringRef actual = config.text(fixed.key, fixed.value);
    if (actual != fixed.value)
      config.fail("expected " + config.quote(fixed.key) + " to be '" +
                  fixed.value + "', got '" + actual + "'");
  }
  if (family.refine)
    family.refine(config, layer, d);
  return d;
}

//===----------------------------------------------------------------------===//
// Layouts
//===----------------------------------------------------------------------===//

MLPLayout mlir::moe::importer::linears(StringRef module, StringRef gate,
                                       StringRef up, StringRef down) {
  MLPLayout layout;
  layout.gating = Gating::Separate;
  layout.gate = (module + gate + ".weight").str();
  layout.up = (module + up + ".weight").str();
  layout.down = (module + down + ".weight").str();
  return layout;
}

MLPLayout mlir::moe::importer::ungated(StringRef up, StringRef down) {
  MLPLayout layout;
  layout.gating = Gating::None;
  layout.up = up.str();
  layout.down = down.str();
  return layout;
}

MLPLayout mlir::moe::importer::halves(StringRef up, StringRef down) {
  MLPLayout layout;
  layout.gating = Gating::Halves;
  layout.up = up.str();
  layout.down = down.str();
  return layout;
}

MLPLayout mlir::moe::importer::inOut(MLPLayout layout) {
  layout.upInOut = layout.downInOut = true;
  return layout;
}

SmallVector<MLPLayout, 2>
mlir::moe::importer::linearsOrFused(StringRef module) {
  return {
      linears((module + "{e}.").str()),
      halves((module + "gate_up_proj").str(), (module + "down_proj").str())};
}
