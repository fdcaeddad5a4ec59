//===- WeightPreparation.cpp - Prepare weights once -----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/Transforms/ABI/WeightPreparation.h"

using namespace mlir;
using namespace mlir::moe;

WeightPreparation::WeightPreparation(func::FuncOp function)
    : function(function) {
  if (SignatureAttr signature = getSignature(function);
      signature && signature.getArguments())
    llvm::append_range(arguments, signature.getArguments());
}

ArgumentAttr WeightPreparation::weightOf(Value value) {
  auto argument = dyn_cast<BlockArgument>(value);
  if (!argument || argument.getOwner() != &function.getBody().front() ||
      argument.getArgNumber() >= arguments.size())
    return {};
  auto described = cast<ArgumentAttr>(arguments[argument.getArgNumber()]);
  return described.getRole() == ArgumentRole::Weight ? described
                                                     : ArgumentAttr();
}

RankedTensorType WeightPreparation::withDynamicExperts(RankedTensorType type,
                                                       bool hasExperts) {
  SmallVector<int64_t> shape(type.getShape());
  if (!hasExperts)
    shape.insert(shape.begin(), 1);
  shape[0] = ShapedType::kDynamic;
  return RankedTensorType::get(shape, type.getElementType());
}

func::FuncOp WeightPreparation::buildFunction(Location loc, StringRef result,
                                              RankedTensorType type,
                                              ArrayRef<Source> sources,
                                              Body build) {
  ImplicitLocOpBuilder b(loc, function.getContext());
  SmallVector<Type> types = llvm::map_to_vector(sources, [](Source source) {
    auto type = cast<RankedTensorType>(source.weight.getType());
    return Type(withDynamicExperts(type, source.hasExperts));
  });
  b.setInsertionPointAfter(function);
  auto module = function->getParentOfType<ModuleOp>();
  std::string name = (function.getName() + "__prepare" + Twine(numAdded)).str();
  while (module.lookupSymbol(name))
    name += '_';
  auto preparation = func::FuncOp::create(
      b, name, b.getFunctionType(types, withDynamicExperts(type)));
  preparation->setAttr(preparesAttrName,
                       FlatSymbolRefAttr::get(function.getSymNameAttr()));
  preparation->setAttr(tokensAttrName,
                       b.getI64ArrayAttr({0, type.getDimSize(0)}));
  preparation.setResultAttr(0, "moe.name", b.getStringAttr(result));
  for (auto [index, source] : llvm::enumerate(sources))
    preparation.setArgAttr(index, "moe.name",
                           weightOf(source.weight).getName());
  b.setInsertionPointToStart(preparation.addEntryBlock());
  func::ReturnOp::create(b, build(b, preparation.getArguments()));
  return preparation;
}

BlockArgument WeightPreparation::add(Location loc, StringRef prefix,
                                     RankedTensorType type,
                                     ArrayRef<Source> sources, Body build,
                                     StringAttr measures) {
  Builder b(function.getContext());
  SmallVector<Source> passed;
  SmallVector<Attribute> names;
  SmallVector<unsigned> positions; // of the sources among the passed ones
  for (const Source &source : sources) {
    auto *known = llvm::find_if(passed, [&](const Source &each) {
      return each.weight == source.weight;
    });
    positions.push_back(known - passed.begin());
    if (known != passed.end())
      continue;
    passed.push_back(source);
    names.push_back(weightOf(source.weight).getName());
  }
  auto buildFromPassed = [&](ImplicitLocOpBuilder &b, ValueRange values) {
    return build(b, llvm::map_to_vector(positions, [&](unsigned position) {
                   return Value(values[position]);
                 }));
  };
  std::string name = (prefix + Twine(numAdded)).str();
  for (bool taken = true; taken; name += taken ? "_" : "")
    taken = llvm::any_of(arguments, [&](Attribute argument) {
      return cast<ArgumentAttr>(argument).getName() == name;
    });
  func::FuncOp preparation =
      buildFunction(loc, name, type, passed, buildFromPassed);
  arguments.push_back(ArgumentAttr::get(
      b.getContext(), b.getStringAttr(name), ArgumentRole::Prepared, type,
      /*numExperts=*/0, /*source=*/{}, /*source_format=*/{}, /*convert=*/false,
      /*retained=*/true, /*alignment=*/0,
      b.getStringAttr(preparation.getName()), b.getArrayAttr(names), measures));
  unsigned index = function.getNumArguments();
  (void)function.insertArgument(index, type, {}, function.getLoc());
  function.setArgAttr(index, "bufferization.writable", b.getBoolAttr(false));
  ++numAdded;
  return function.getArgument(index);
}

bool WeightPreparation::findSources(ValueRange fields, bool hasExperts,
                                    SmallVectorImpl<Source> &sources) {
  auto quantize = fields.front().getDefiningOp<QuantizeOp>();
  SmallVector<Value> weights(fields);
  if (quantize && ValueRange(quantize.getFields()) == fields)
    weights = {quantize.getSource()};
  for (Value weight : weights) {
    if (!weightOf(weight))
      return false;
    sources.push_back({cast<BlockArgument>(weight), hasExperts});
  }
  return true;
}

SmallVector<Value> WeightPreparation::buildFields(ImplicitLocOpBuilder &b,
                                                  ValueRange fields,
                                                  ValueRange sources) {
  auto quantize = fields.front().getDefiningOp<QuantizeOp>();
  if (!quantize)
    return llvm::to_vector(sources);
  return llvm::to_vector_of<Value>(QuantizeOp::create(b, sources.front(),
                                                      quantize.getTransposed(),
                                                      quantize.getFormat())
                                       .getFields());
}

void WeightPreparation::finish() {
  if (!isExported(function))
    return;
  for (auto [index, argument] : llvm::enumerate(arguments))
    if (ArgumentAttr weight = weightOf(function.getArgument(index));
        weight && function.getArgument(index).use_empty())
      argument = weight.withRetained(false);
  setSignature(function, getSignature(function).withArguments(arguments));
}
