//===- MoEDiscardableAttributes.cpp - moe.* attributes of any operation ---===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The tables list every attribute of this dialect on operations of others. Any
// other name is an error, as a misspelt one would be ignored.
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/IR/MoEABI.h"

#include "mlir/Interfaces/FunctionInterfaces.h"
#include "llvm/ADT/StringExtras.h"

using namespace mlir;
using namespace mlir::moe;

static bool isString(Attribute attribute) { return isa<StringAttr>(attribute); }

static bool isArrayOfStrings(Attribute attribute) {
  auto array = dyn_cast<ArrayAttr>(attribute);
  return array && llvm::all_of(array, isString);
}

static bool isInteger(Attribute attribute) {
  return isa<IntegerAttr>(attribute);
}
static bool isUnit(Attribute attribute) { return isa<UnitAttr>(attribute); }

static bool isSignature(Attribute attribute) {
  return isa<SignatureAttr>(attribute);
}

/// True for {name = {code = @function, sources = {argument = ["tensor"]}}}.
static bool isLayers(Attribute attribute) {
  auto layers = dyn_cast<DictionaryAttr>(attribute);
  return layers && llvm::all_of(layers, [](NamedAttribute layer) {
           auto entry = dyn_cast<DictionaryAttr>(layer.getValue());
           auto sources =
               entry ? entry.getAs<DictionaryAttr>("sources") : nullptr;
           return sources && entry.size() == 2 &&
                  entry.getAs<FlatSymbolRefAttr>("code") &&
                  llvm::all_of(sources, [](NamedAttribute source) {
                    return isArrayOfStrings(source.getValue());
                  });
         });
}

/// True for [{name = "gate", kernels = ["f32_6x2x16"]}].
static bool isStages(Attribute attribute) {
  auto stages = dyn_cast<ArrayAttr>(attribute);
  return stages && llvm::all_of(stages, [](Attribute each) {
           auto stage = dyn_cast<DictionaryAttr>(each);
           auto kernels = stage ? stage.getAs<ArrayAttr>("kernels") : nullptr;
           return kernels && stage.size() == 2 &&
                  stage.getAs<StringAttr>("name") && isArrayOfStrings(kernels);
         });
}

/// True for [@up, @down].
static bool isKernelNames(Attribute attribute) {
  auto names = dyn_cast<ArrayAttr>(attribute);
  return names && llvm::all_of(names, llvm::IsaPred<FlatSymbolRefAttr>);
}

/// True for [{name = "layer", signature = #moe.signature<...>, ...}].
static bool isPrograms(Attribute attribute) {
  auto programs = dyn_cast<ArrayAttr>(attribute);
  return programs && llvm::all_of(programs, [](Attribute each) {
           auto program = dyn_cast<DictionaryAttr>(each);
           return program && program.getAs<StringAttr>("name") &&
                  program.getAs<SignatureAttr>("signature") &&
                  program.getAs<ArrayAttr>("steps");
         });
}

static bool isParallel(Attribute attribute) {
  return isa<ParallelAttr>(attribute);
}
static bool isSaved(Attribute attribute) {
  auto string = dyn_cast<StringAttr>(attribute);
  return string && string.getValue() == savedRole;
}
static bool isSymbol(Attribute attribute) {
  return isa<FlatSymbolRefAttr>(attribute);
}
static bool isFormat(Attribute attribute) { return isa<FormatAttr>(attribute); }
static bool isActivations(Attribute attribute) {
  auto string = dyn_cast<StringAttr>(attribute);
  return string && llvm::is_contained({"exact", "int8"}, string.getValue());
}

static bool isMulticast(Attribute attribute) {
  auto string = dyn_cast<StringAttr>(attribute);
  return string &&
         llvm::is_contained({"none", "weights", "rows"}, string.getValue());
}

namespace {
struct Known {
  StringLiteral name;
  /// Verifies the value, which `kind` describes; null if the passes that read
  /// the attribute verify it.
  bool (*accepts)(Attribute) = nullptr;
  StringLiteral kind = "";
};
} // namespace

static constexpr Known ofArguments[] = {
    {"moe.name", isString, "a string"},
    {"moe.role", isString, "a string"},
    {"moe.source", isArrayOfStrings, "an array of strings"},
    {"moe.source_format", isString, "a string"},
    {"moe.convert", isUnit, "without a value"},
    {"moe.experts", isInteger, "an integer"},
    {accumulatesAttrName, isString, "a string"},
};

static constexpr Known ofResults[] = {{"moe.name", isString, "a string"},
                                      {"moe.role", isSaved, "\"saved\""}};

static constexpr Known ofOperations[] = {
    // Layers
    {tokensAttrName},
    {activationsAttrName, isActivations, "\"exact\" or \"int8\""},
    {weightFormatAttrName, isFormat, "a #moe.format"},
    {planAttrName},
    {parallelAttrName, isParallel, "a #moe.parallel"},
    {forwardAttrName, isSymbol, "a symbol"},
    {programsAttrName, isPrograms,
     "[{name = \"layer\", signature = #moe.signature<>, steps = []}]"},
    {accumulatesAttrName, isArrayOfStrings, "an array of strings"},
    {signatureAttrName, isSignature, "a #moe.signature"},
    {independentTokensAttrName},
    {preparesAttrName},
    {layersAttrName, isLayers,
     "{name = {code = @function, sources = {argument = [\"tensor\"]}}}"},
    // Stages and tasks
    {stagesAttrName, isStages, "[{name = \"stage\", kernels = [\"kernel\"]}]"},
    {"moe.stage", isString, "a string"},
    // Kernels and GPU modules
    {"moe.kernel"},
    {liveTokensAttrName},
    {sharedBytesAttrName},
    {"moe.work"},
    {primariesAttrName, isKernelNames, "an array of symbols"},
    {imagesAttrName},
    {kernelsAttrName},
    // Grouped matmuls
    {tilesAttrName},
    {"moe.multicast", isMulticast, "\"none\", \"weights\" or \"rows\""},
};

/// Verifies an attribute of `subject`, as the diagnostic calls it.
static LogicalResult verify(ArrayRef<Known> table, NamedAttribute attribute,
                            const Twine &subject,
                            function_ref<InFlightDiagnostic()> emitError) {
  StringRef name = attribute.getName();
  const Known *known = llvm::find_if(
      table, [&](const Known &each) { return each.name == name; });
  if (known == table.end())
    return emitError() << "expected one of "
                       << llvm::join(llvm::map_range(table,
                                                     [](const Known &each) {
                                                       return each.name;
                                                     }),
                                     ", ")
                       << " as the moe attribute of " << subject << ", got "
                       << name;
  if (known->accepts && !known->accepts(attribute.getValue()))
    return emitError() << "expected " << name << " of " << subject << " to be "
                       << known->kind << ", got " << attribute.getValue();
  return success();
}

LogicalResult MoEDialect::verifyOperationAttribute(Operation *op,
                                                   NamedAttribute attribute) {
  return verify(ofOperations, attribute, "an operation",
                [&] { return op->emitError(); });
}

LogicalResult MoEDialect::verifyRegionArgAttribute(Operation *op,
                                                   unsigned region,
                                                   unsigned index,
                                                   NamedAttribute attribute) {
  return verify(ofArguments, attribute, "argument " + Twine(index), [&] {
    Region &body = op->getRegion(region);
    // A declaration has no block.
    return body.empty() ? op->emitError()
                        : mlir::emitError(body.getArgument(index).getLoc());
  });
}

LogicalResult
MoEDialect::verifyRegionResultAttribute(Operation *op, unsigned, unsigned index,
                                        NamedAttribute attribute) {
  return verify(ofResults, attribute, "result " + Twine(index),
                [&] { return op->emitError(); });
}
