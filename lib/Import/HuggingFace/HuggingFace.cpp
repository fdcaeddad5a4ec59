//===- HuggingFace.cpp - MoE layers of Hugging Face models ----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Import/HuggingFace.h"

#include "../Layer/Checkpoint.h"
#include "../Layer/JoinLayers.h"
#include "../Layer/LayerBuilder.h"
#include "Families/Family.h"
#include "QuantizationConfig.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::importer;

using llvm::createStringError;

static constexpr StringLiteral configName = "config.json";

//===----------------------------------------------------------------------===//
// Checkpoints
//===----------------------------------------------------------------------===//

/// Opens the weights in `directory`; null if there are none.
static llvm::Expected<std::unique_ptr<CheckpointReader>>
openCheckpoint(StringRef directory) {
  auto exists = [&](StringRef name) {
    SmallString<128> path(directory);
    llvm::sys::path::append(path, name);
    return llvm::sys::fs::exists(path);
  };
  if (!exists("model.safetensors") && !exists("model.safetensors.index.json"))
    return nullptr;
  auto checkpoint = ::moe::io::Checkpoint::open(directory.str());
  if (!checkpoint)
    return createStringError(checkpoint.error());
  return std::make_unique<RuntimeCheckpoint>(std::move(*checkpoint));
}

//===----------------------------------------------------------------------===//
// Configuration
//===----------------------------------------------------------------------===//

/// Returns the object at a path such as "thinker_config.text_config"; "" is the
/// configuration itself.
static Config sectionAt(Config config, StringRef path) {
  while (!path.empty()) {
    auto [name, rest] = path.split('.');
    config = config.section(name);
    path = rest;
  }
  return config;
}

/// Finds the family of a configuration: that of its model_type, or, in a model
/// that wraps one, that of a language model in it. Empty, with an error, if
/// none is known.
static std::optional<Family> findFamily(const Config &config) {
  if (!config.has("model_type"))
    config.fail("missing key 'model_type'");
  StringRef modelType = config.text("model_type", "");
  const FamilyTable &table = getFamilyTable();
  if (const Family *family = table.find(modelType))
    return *family;
  for (StringRef section : {"text_config", "language_config", "llm_config"}) {
    if (!config.has(Key{section}))
      continue;
    StringRef inner = config.section(section).text("model_type", "");
    if (table.find(inner))
      return table.wrapped(inner, section);
  }
  config.fail("model_type '" + modelType +
              "' is not among the supported families (blocks of others need "
              "PyTorch: moe.from_torch(block)): " +
              llvm::join(table.names(), ", "));
  return std::nullopt;
}

/// Returns the object with the keys of a family.
static Config findSection(const Config &config, const Family &family) {
  for (StringRef section : family.sections)
    if (section.empty() || config.has(Key{section}))
      return sectionAt(config, section);
  return sectionAt(config, family.sections.front());
}

/// Formats a list as ranges, "0, 2 to 5, 9"; a long list is truncated.
static std::string listRanges(ArrayRef<int64_t> ascending) {
  std::string text;
  unsigned ranges = 0;
  for (size_t i = 0; i < ascending.size();) {
    if (++ranges > 8)
      return text + ", ..., " + std::to_string(ascending.back());
    size_t end = i + 1;
    while (end < ascending.size() && ascending[end] == ascending[end - 1] + 1)
      ++end;
    text += (text.empty() ? "" : ", ") + std::to_string(ascending[i]);
    if (end - i > 1)
      text +=
          (end - i > 2 ? " to " : ", ") + std::to_string(ascending[end - 1]);
    i = end;
  }
  return text;
}

static void checkLayer(const Config &config, const LayerDescription &d,
                       int64_t layer) {
  std::string which = d.moeLayers.empty()
                          ? std::string("no layer of this model has")
                          : "layers with experts: " + listRanges(d.moeLayers);
  if (layer < 0 || layer >= d.layers)
    config.fail("layer " + Twine(layer) + " is out of range: the model has " +
                Twine(d.layers) + " layers; " + which);
  else if (!llvm::is_contained(d.moeLayers, layer))
    config.fail("layer " + Twine(layer) + " has no experts; " + which);
}

/// Checks values of a configuration against each other.
static void checkNumbers(const Config &config, const LayerDescription &d) {
  if (d.router.topK > d.experts)
    config.fail("expected at most as many experts per token as there are "
                "experts, " +
                Twine(d.experts) + ", got " + Twine(d.router.topK));
  if (!d.router.groups)
    return;
  const Router::Groups &groups = *d.router.groups;
  if (d.experts % groups.count != 0) {
    config.fail("expected 'n_group' to divide the number of experts, " +
                Twine(d.experts) + ", got " + Twine(groups.count));
    return;
  }
  int64_t size = d.experts / groups.count;
  if (groups.keep > groups.count)
    config.fail("expected 'topk_group' of at most 'n_group', " +
                Twine(groups.count) + ", got " + Twine(groups.keep));
  if (groups.score == GroupScore::Top2Sum && size < 2)
    config.fail("expected groups of at least 2 experts, got " + Twine(size));
  if (d.router.topK > groups.keep * size)
    config.fail("expected at most as many experts per token as the groups "
                "that are kept have, " +
                Twine(groups.keep * size) + ", got " + Twine(d.router.topK));
}

/// Returns the data type of the configuration, which may be in the section of
/// the language model; f32 by default, as in transformers.
static std::string readDType(const Config &config, const Config &section) {
  Key key = {"torch_dtype", "dtype"};
  std::string text = config.text(key, "").str();
  if (text.empty())
    text = section.text(key, "").str();
  StringRef name = text;
  name.consume_front("torch.");
  if (name.empty() || name == "float32")
    return "f32";
  if (name == "bfloat16")
    return "bf16";
  if (name == "float16")
    return "f16";
  config.fail("expected " + config.quote(key) +
              " to be float32, float16 or bfloat16, got '" + name + "'");
  return "f32";
}

//===----------------------------------------------------------------------===//
// Import
//===----------------------------------------------------------------------===//

llvm::Expected<OwningOpRef<ModuleOp>>
mlir::moe::importHuggingFaceLayer(MLIRContext &context, StringRef configText,
                                  CheckpointReader *checkpoint,
                                  const HuggingFaceOptions &options) {
  if (!options.dtype.empty() && options.dtype != "f32" &&
      options.dtype != "f16" && options.dtype != "bf16")
    return createStringError("expected a data type f32, f16 or bf16, got '" +
                             options.dtype + "'");
  llvm::Expected<llvm::json::Value> json = parseConfig(configText);
  if (!json)
    return createStringError("config.json: " +
                             llvm::toString(json.takeError()));
  std::string error;
  Config config(*json->getAsObject(), error);
  auto failure = [&] { return createStringError("config.json: " + error); };

  std::optional<Family> family = findFamily(config);
  if (!family)
    return failure();
  Config section = findSection(config, *family);
  QuantizationConfig quantization = readQuantizationConfig(config, section);
  std::string dtype = options.dtype, configured = readDType(config, section);
  if (dtype.empty() && !checkpoint)
    dtype = configured;
  std::string modelType = config.text("model_type", "").str();

  auto importOne = [&](int64_t index) -> llvm::Expected<OwningOpRef<ModuleOp>> {
    LayerDescription layer = describeLayer(*family, section, index);
    if (!config.failed())
      checkNumbers(config, layer);
    if (!config.failed())
      checkLayer(config, layer, index);
    if (config.failed())
      return failure();
    llvm::Expected<LayerWeights> weights =
        findWeights(layer, checkpoint, dtype, configured, quantization);
    if (!weights)
      return weights.takeError();
    return buildModule(context, modelType + " layer " + std::to_string(index),
                       layer, *weights);
  };
  if (!options.allLayers)
    return importOne(options.layer);
  SmallVector<int64_t> indices =
      describeLayer(*family, section, /*layer=*/-1).moeLayers;
  if (!config.failed() && indices.empty())
    config.fail("no layer of this model has experts");
  if (config.failed())
    return failure();
  return joinLayers(context, indices, importOne);
}

llvm::Expected<OwningOpRef<ModuleOp>>
mlir::moe::importHuggingFaceLayer(MLIRContext &context, StringRef location,
                                  const HuggingFaceOptions &options) {
  SmallString<128> directory(location);
  if (llvm::sys::fs::exists(location) &&
      !llvm::sys::fs::is_directory(location)) {
    if (llvm::sys::path::filename(location) != configName)
      return createStringError(
          location + ": expected the directory of a checkpoint or its " +
          configName);
    llvm::sys::path::remove_filename(directory);
    if (directory.empty())
      directory = ".";
  }
  SmallString<128> path(directory);
  llvm::sys::path::append(path, configName);
  auto text = llvm::MemoryBuffer::getFile(path, /*IsText=*/true);
  if (std::error_code code = text.getError())
    return createStringError(path + ": " + code.message());
  llvm::Expected<std::unique_ptr<CheckpointReader>> checkpoint =
      openCheckpoint(directory);
  if (!checkpoint)
    return checkpoint.takeError();
  auto module = importHuggingFaceLayer(context, (*text)->getBuffer(),
                                       checkpoint->get(), options);
  if (!module)
    return createStringError(directory + ": " +
                             llvm::toString(module.takeError()));
  return module;
}

std::vector<StringRef> mlir::moe::getHuggingFaceFamilies() {
  return getFamilyTable().names();
}
