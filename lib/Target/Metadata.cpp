//===- Metadata.cpp - The metadata of an artifact -------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/IR/MoEABI.h"
#include "moe/Target/Target.h"
#include "moe_rt/artifact.h"

#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "llvm/Support/JSON.h"
#include "llvm/Support/raw_ostream.h"

using namespace mlir;
using namespace mlir::moe;

/// Converts attributes as `moe-export` records them to JSON.
static llvm::json::Value toJSON(Attribute attribute) {
  if (auto string = dyn_cast<StringAttr>(attribute))
    return string.getValue();
  if (auto flag = dyn_cast<BoolAttr>(attribute))
    return flag.getValue();
  if (auto integer = dyn_cast<IntegerAttr>(attribute))
    return integer.getInt();
  if (auto array = dyn_cast<ArrayAttr>(attribute)) {
    llvm::json::Array values;
    for (Attribute element : array)
      values.push_back(toJSON(element));
    return values;
  }
  llvm::json::Object object;
  if (auto dictionary = dyn_cast<DictionaryAttr>(attribute))
    for (NamedAttribute entry : dictionary)
      object[entry.getName().strref()] = toJSON(entry.getValue());
  return object;
}

static llvm::json::Value toJSON(ArgumentAttr argument) {
  llvm::json::Array shape;
  for (int64_t extent : argument.getType().getShape())
    shape.push_back(ShapedType::isDynamic(extent) ? -1 : extent);
  llvm::json::Object object{
      {"name", argument.getName().getValue()},
      {"role", stringifyArgumentRole(argument.getRole())},
      {"dtype", getDTypeName(argument.getType().getElementType())},
      {"shape", std::move(shape)}};
  if (argument.getNumExperts() > 0)
    object["num_experts"] = argument.getNumExperts();
  if (argument.getSource())
    object["source"] = toJSON(Attribute(argument.getSource()));
  if (argument.getSourceFormat())
    object["source_format"] = argument.getSourceFormat().getValue();
  if (argument.getConvert())
    object["convert"] = true;
  if (!argument.getRetained())
    object["retained"] = false;
  if (argument.getAlignment() > 0)
    object["alignment"] = argument.getAlignment();
  if (argument.getPrepare()) {
    object["prepare"] = argument.getPrepare().getValue();
    object["sources"] = toJSON(Attribute(argument.getSources()));
    if (argument.getMeasures())
      object["measures"] = argument.getMeasures().getValue();
  }
  return object;
}

static llvm::json::Value toJSON(DispatchReportAttr dispatch) {
  llvm::json::Object object{{"num_experts", dispatch.getNumExperts()},
                            {"top_k", dispatch.getTopK()},
                            {"offsets", dispatch.getOffsets().getValue()}};
  if (dispatch.getCounters())
    object["counters"] = dispatch.getCounters().getValue();
  return object;
}

template <typename AttrT>
static llvm::json::Array toJSONArray(ArrayAttr array) {
  llvm::json::Array values;
  if (array)
    for (auto element : array.getAsRange<AttrT>())
      values.push_back(toJSON(element));
  return values;
}

/// Describes a function whose code is that of `code` and which reads other
/// tensors: as many for the same arguments.
static llvm::Expected<llvm::json::Value>
describeLayer(StringRef name, const llvm::json::Object &code,
              DictionaryAttr sources) {
  llvm::json::Object described = code;
  described["name"] = name;
  size_t used = 0;
  for (llvm::json::Value &value : *described.getArray("arguments")) {
    llvm::json::Object &argument = *value.getAsObject();
    const llvm::json::Array *old = argument.getArray("source");
    StringRef argumentName = *argument.getString("name");
    auto source = sources.getAs<ArrayAttr>(argumentName);
    if (bool(old) != bool(source) || (old && old->size() != source.size()))
      return llvm::createStringError(
          "moe.layers: expected '" + name + "' to have " +
          llvm::Twine(old ? old->size() : 0) + " sources of '" + argumentName +
          "', as its code has, got " + llvm::Twine(source ? source.size() : 0));
    if (source) {
      argument["source"] = toJSON(source);
      ++used;
    }
  }
  if (used != sources.size())
    return llvm::createStringError("moe.layers: '" + name +
                                   "' has sources of arguments that its code "
                                   "does not have");
  return described;
}

/// Adds the layers of moe.layers to the functions that have their code.
static llvm::Error addLayers(ModuleOp module, llvm::json::Array &functions) {
  auto layers = module->getAttrOfType<DictionaryAttr>(layersAttrName);
  if (!layers)
    return llvm::Error::success();
  for (NamedAttribute layer : layers) {
    auto entry = cast<DictionaryAttr>(layer.getValue());
    StringRef code = entry.getAs<FlatSymbolRefAttr>("code").getValue();
    auto findFunction = [&](StringRef name) {
      return llvm::find_if(functions, [&](const llvm::json::Value &each) {
        return each.getAsObject()->getString("name") == name;
      });
    };
    auto found = findFunction(code);
    if (found == functions.end())
      return llvm::createStringError("moe.layers names a function '" + code +
                                     "' that the module does not have");
    if (findFunction(layer.getName()) != functions.end())
      return llvm::createStringError("moe.layers: the module has a function '" +
                                     layer.getName().getValue() +
                                     "' of its own");
    llvm::Expected<llvm::json::Value> described =
        describeLayer(layer.getName(), *found->getAsObject(),
                      entry.getAs<DictionaryAttr>("sources"));
    if (!described)
      return described.takeError();
    functions.push_back(std::move(*described));
  }
  return llvm::Error::success();
}

/// Describes how the runtime runs the parts of a layer that was split at its
/// exchanges.
static llvm::json::Value describeProgram(DictionaryAttr program) {
  llvm::json::Object described;
  for (NamedAttribute entry : program) {
    StringRef name = entry.getName();
    if (auto signature = dyn_cast<SignatureAttr>(entry.getValue())) {
      described["arguments"] =
          toJSONArray<ArgumentAttr>(signature.getArguments());
    } else if (name == "tokens") {
      auto range = cast<ArrayAttr>(entry.getValue());
      described["tokens"] = llvm::json::Object{{"min", toJSON(range[0])},
                                               {"max", toJSON(range[1])}};
    } else {
      described[name] = toJSON(entry.getValue());
    }
  }
  return described;
}

/// Describes one variant: its functions and the target of their code.
static llvm::Expected<llvm::json::Value> describe(const Variant &variant) {
  ModuleOp module = variant.module;
  llvm::json::Array functions;
  for (auto function : module.getOps<LLVM::LLVMFuncOp>()) {
    SignatureAttr signature = getSignature(function);
    auto tokens = function->getAttrOfType<ArrayAttr>(tokensAttrName);
    std::string name = function.getName().str();
    std::string entry = (entryPrefix + name).str();
    if (!signature || !tokens || tokens.size() != 2 ||
        !module.lookupSymbol(entry))
      continue;
    llvm::json::Object described{
        {"name", name},
        {"entry", entry + variant.symbolSuffix},
        {"workspace", (workspacePrefix + name).str() + variant.symbolSuffix},
        {"tokens", llvm::json::Object{{"min", toJSON(tokens[0])},
                                      {"max", toJSON(tokens[1])}}},
        {"arguments", toJSONArray<ArgumentAttr>(signature.getArguments())},
        {"dispatches",
         toJSONArray<DispatchReportAttr>(signature.getDispatches())},
    };
    if (auto prepared =
            function->getAttrOfType<FlatSymbolRefAttr>(preparesAttrName))
      described["prepares"] = prepared.getValue();
    // Results that are added to what the caller's memory has.
    if (auto sums = function->getAttrOfType<ArrayAttr>(accumulatesAttrName))
      described["accumulates"] = toJSON(sums);
    if (auto stages = function->getAttrOfType<ArrayAttr>(stagesAttrName))
      described["stages"] = toJSON(stages);
    if (!variant.target.device.empty() &&
        function->hasAttr(independentTokensAttrName))
      described["live_tokens"] = true;
    functions.push_back(std::move(described));
  }
  if (functions.empty())
    return llvm::createStringError(
        llvm::inconvertibleErrorCode(),
        "expected at least one public function to export, got none");
  if (llvm::Error error = addLayers(module, functions))
    return error;
  llvm::json::Object target{
      {"triple", variant.target.triple},
      {"cpu", variant.target.cpu},
      {"features", llvm::json::Array(variant.target.features)}};
  if (!variant.target.device.empty())
    target["device"] =
        llvm::json::Object{{"kind", "cuda"}, {"arch", variant.target.device}};
  llvm::json::Object described{{"target", std::move(target)},
                               {"functions", std::move(functions)}};
  if (auto programs = module->getAttrOfType<ArrayAttr>(programsAttrName)) {
    llvm::json::Array layers;
    for (auto program : programs.getAsRange<DictionaryAttr>())
      layers.push_back(describeProgram(program));
    described["parallel"] = std::move(layers);
  }
  if (auto images = module->getAttrOfType<ArrayAttr>(imagesAttrName)) {
    described["images"] = toJSON(images);
    for (llvm::json::Value &image : *described.getArray("images")) {
      llvm::json::Value &symbol = (*image.getAsObject())["symbol"];
      symbol = symbol.getAsString()->str() + variant.symbolSuffix;
    }
    described["kernels"] = toJSON(module->getAttr(kernelsAttrName));
  }
  return described;
}

llvm::Expected<std::string>
mlir::moe::buildMetadata(llvm::ArrayRef<Variant> variants,
                         llvm::ArrayRef<std::string> warnings) {
  llvm::json::Array described;
  for (const Variant &variant : variants) {
    auto value = describe(variant);
    if (!value)
      return value.takeError();
    described.push_back(std::move(*value));
  }
  llvm::json::Object metadata{
      {"format", MOE_ARTIFACT_FORMAT_VERSION},
      {"producer", "moe-compile " MOE_VERSION},
      {"variants", std::move(described)},
  };
  if (!warnings.empty())
    metadata["warnings"] = llvm::json::Array(warnings);
  std::string text;
  llvm::raw_string_ostream(text) << llvm::json::Value(std::move(metadata));
  return text;
}
