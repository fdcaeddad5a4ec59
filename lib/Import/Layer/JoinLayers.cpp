//===- JoinLayers.cpp - Several layers in one module ----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "JoinLayers.h"

#include "moe/Dialect/MoE/IR/MoEABI.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/Support/raw_ostream.h"

using namespace mlir;
using namespace mlir::moe;

static constexpr StringLiteral sourceAttrName = "moe.source";

/// Removes the sources of the arguments; returns them by the arguments' names.
static DictionaryAttr takeSources(func::FuncOp function) {
  SmallVector<NamedAttribute> sources;
  for (unsigned i = 0; i < function.getNumArguments(); ++i)
    if (auto source = function.getArgAttrOfType<ArrayAttr>(i, sourceAttrName)) {
      sources.emplace_back(function.getArgAttrOfType<StringAttr>(i, "moe.name"),
                           source);
      function.removeArgAttr(i, sourceAttrName);
    }
  return DictionaryAttr::get(function.getContext(), sources);
}

static void setSources(func::FuncOp function, DictionaryAttr sources) {
  for (unsigned i = 0; i < function.getNumArguments(); ++i) {
    auto name = function.getArgAttrOfType<StringAttr>(i, "moe.name");
    if (Attribute source = name ? sources.get(name) : Attribute())
      function.setArgAttr(i, sourceAttrName, source);
  }
}

llvm::Expected<OwningOpRef<ModuleOp>> mlir::moe::importer::joinLayers(
    MLIRContext &context, ArrayRef<int64_t> indices,
    llvm::function_ref<llvm::Expected<OwningOpRef<ModuleOp>>(int64_t)> import) {
  OwningOpRef<ModuleOp> joined = ModuleOp::create(UnknownLoc::get(&context));
  Builder builder(&context);
  llvm::StringMap<StringAttr> known; // a function by its text
  SmallVector<NamedAttribute> same;
  for (int64_t index : indices) {
    llvm::Expected<OwningOpRef<ModuleOp>> module = import(index);
    if (!module)
      return module.takeError();
    if (joined->getLoc() == UnknownLoc::get(&context))
      joined->getOperation()->setLoc((*module)->getLoc());
    auto function = cast<func::FuncOp>((*module)->lookupSymbol("layer"));
    DictionaryAttr sources = takeSources(function);
    std::string text;
    llvm::raw_string_ostream(text) << function;
    StringAttr name = builder.getStringAttr("layer_" + Twine(index));
    auto [entry, isNew] = known.try_emplace(text, name);
    if (!isNew) {
      same.emplace_back(name,
                        builder.getDictionaryAttr(
                            {{builder.getStringAttr("code"),
                              FlatSymbolRefAttr::get(entry->second)},
                             {builder.getStringAttr("sources"), sources}}));
      continue;
    }
    setSources(function, sources);
    function.setSymNameAttr(name);
    function->remove();
    joined->push_back(function);
  }
  if (!same.empty())
    (*joined)->setAttr(layersAttrName, builder.getDictionaryAttr(same));
  return joined;
}
