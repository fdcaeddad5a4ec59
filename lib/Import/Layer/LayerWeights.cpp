//===- LayerWeights.cpp - The weights of a layer --------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "LayerWeights.h"

#include "Checkpoint.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::importer;

static constexpr llvm::StringLiteral expertMark = "{e}";

static bool isSupported(StringRef dtype) {
  return dtype == "f32" || dtype == "f16" || dtype == "bf16";
}

namespace {
/// Which types a tensor may have.
enum class Types {
  OfLayer,   // only that of the layer
  Converted, // any float, converted to that of the layer
  OrF32,     // f32 stays, other floats are converted
  AnyFloat,  // the argument has the type of the tensor
  Index,     // i64 or i32, as the tensor
};

class WeightFinder {
public:
  WeightFinder(const LayerDescription &layer, CheckpointReader *checkpoint,
               StringRef dtype, StringRef configured,
               const QuantizationConfig &quantization)
      : layer(layer), checkpoint(checkpoint), dtype(dtype),
        configured(configured), quantization(quantization) {}

  llvm::Expected<LayerWeights> run();

private:
  /// Keeps the first error.
  void fail(const Twine &message) {
    if (error.empty())
      error = message.str();
  }
  /// Describes the expected type of a tensor for an error.
  std::string expectedType(Types types, ArrayRef<int64_t> shape) const;
  /// Checks a tensor of a weight, and may set the type and the conversion.
  void check(Weight &weight, const std::string &tensor, ArrayRef<int64_t> shape,
             Types types);

  bool isQuantized(StringRef name) const {
    return checkpoint && importer::isQuantized(expand(name, 0), *checkpoint);
  }
  /// Sets the format and the fields of a weight from its quantised tensors.
  void findFields(Weight &weight, ArrayRef<std::string> tensors,
                  const MatrixShape &shape);
  std::string expand(StringRef name, int64_t expert) const;
  bool contains(StringRef name) const {
    return checkpoint->contains(expand(name, 0));
  }
  bool isPresent(StringRef name) const {
    return contains(name) || isQuantized(name);
  }
  /// Chooses the prefix and the layout of the experts whose tensors the
  /// checkpoint has.
  MLPLayout chooseLayout();
  /// True if the checkpoint has the experts in this layout.
  bool fits(const MLPLayout &layout) const;
  /// Chooses the first name that the checkpoint has, or the first of all.
  std::string chooseName(ArrayRef<std::string> names) const;
  void findDType(const MLPLayout &layout);

  Weight find(StringRef argument, StringRef name, ArrayRef<int64_t> shape,
              Types types = Types::OfLayer);
  Weight findOfExperts(StringRef argument, StringRef name,
                       ArrayRef<int64_t> shape, bool flattened, Types types);
  MLPWeights findMLP(const MLP &mlp, MLPLayout layout, StringRef argumentPrefix,
                     bool ofExperts);

  const LayerDescription &layer;
  CheckpointReader *checkpoint;
  std::string dtype;
  std::string configured;
  const QuantizationConfig &quantization;
  std::string prefix;
  std::string error;
};
} // namespace

//===----------------------------------------------------------------------===//
// One tensor
//===----------------------------------------------------------------------===//

/// Returns the full name of a tensor: with the prefix and, for a tensor of each
/// expert, with the index `expert`.
std::string WeightFinder::expand(StringRef name, int64_t expert) const {
  auto [before, after] = name.split(expertMark);
  if (before.size() == name.size())
    return prefix + name.str();
  return (prefix + before + Twine(expert) + after).str();
}

std::string WeightFinder::expectedType(Types types,
                                       ArrayRef<int64_t> shape) const {
  if (types == Types::Index)
    return typeName("i64 or i32", shape);
  bool any = types != Types::OfLayer || dtype.empty();
  return typeName(any ? StringRef("f32, f16 or bf16") : StringRef(dtype),
                  shape);
}

void WeightFinder::check(Weight &weight, const std::string &tensor,
                         ArrayRef<int64_t> shape, Types types) {
  if (!checkpoint || !error.empty())
    return;
  std::string quantized = describeQuantization(tensor, *checkpoint);
  if (!quantized.empty())
    return fail(quantized);
  if (!checkpoint->contains(tensor))
    return fail("the checkpoint has no tensor '" + tensor + "', expected " +
                expectedType(types, shape));
  llvm::Expected<CheckpointReader::Tensor> found = checkpoint->lookup(tensor);
  if (!found)
    return fail("tensor '" + tensor +
                "': " + llvm::toString(found.takeError()));
  bool sameType = found->dtype == dtype;
  bool isIndex = found->dtype == "i64" || found->dtype == "i32";
  bool typeFits =
      types == Types::Index
          ? isIndex
          : sameType || (types != Types::OfLayer && isSupported(found->dtype));
  if (!typeFits || ArrayRef<int64_t>(found->shape) != shape)
    return fail("expected tensor '" + tensor + "' to be " +
                expectedType(types, shape) + ", got " +
                typeName(found->dtype, found->shape));
  if (types == Types::AnyFloat || types == Types::Index ||
      (types == Types::OrF32 && found->dtype == "f32"))
    weight.dtype = found->dtype;
  else if (!sameType)
    weight.convert = true;
}

void WeightFinder::findFields(Weight &weight, ArrayRef<std::string> tensors,
                              const MatrixShape &shape) {
  std::optional<QuantizedMatrix> first;
  for (const std::string &tensor : tensors) {
    if (!error.empty())
      return;
    llvm::Expected<QuantizedMatrix> found =
        findQuantized(tensor, shape, *checkpoint, quantization);
    if (!found)
      return fail(llvm::toString(found.takeError()));
    if (!first) {
      first = *found;
      weight.format = found->format;
      for (const QuantizedField &field : found->fields) {
        Weight argument{
            weight.name + field.suffix, field.argumentType, field.shape, {}};
        argument.sourceFormat = field.blockFormat;
        if (tensors.size() > 1)
          argument.shape.insert(argument.shape.begin(), tensors.size());
        weight.fields.push_back(std::move(argument));
      }
    } else if (found->format != first->format ||
               found->fields.size() != first->fields.size()) {
      return fail("expected all experts in one format, got '" + tensors[0] +
                  "' and '" + tensor + "' in different ones");
    }
    for (auto [argument, field] : llvm::zip(weight.fields, found->fields))
      argument.source.push_back(field.tensor);
  }
}

//===----------------------------------------------------------------------===//
// Arguments
//===----------------------------------------------------------------------===//

Weight WeightFinder::find(StringRef argument, StringRef name,
                          ArrayRef<int64_t> shape, Types types) {
  std::string tensor = expand(name, 0);
  Weight weight{argument.str(), dtype, llvm::to_vector(shape), {tensor}};
  if (types == Types::AnyFloat)
    weight.dtype = "f32";
  else if (types == Types::Index)
    weight.dtype = "i64";
  if (shape.size() == 2 && isQuantized(name))
    findFields(weight, tensor, {std::nullopt, shape[0], shape[1]});
  else
    check(weight, tensor, shape, types);
  return weight;
}

/// Finds a weight with a leading dimension of experts; `shape` is that of one.
Weight WeightFinder::findOfExperts(StringRef argument, StringRef name,
                                   ArrayRef<int64_t> shape, bool flattened,
                                   Types types) {
  Weight weight{argument.str(), dtype, {layer.experts}, {}};
  llvm::append_range(weight.shape, shape);
  bool quantized = shape.size() == 2 && !flattened && isQuantized(name);
  if (name.contains(expertMark)) {
    for (int64_t e = 0; e < layer.experts; ++e)
      weight.source.push_back(expand(name, e));
    if (quantized)
      findFields(weight, weight.source, {std::nullopt, shape[0], shape[1]});
    else
      for (const std::string &tensor : weight.source)
        check(weight, tensor, shape, types);
    return weight;
  }
  SmallVector<int64_t> stored = weight.shape;
  if (flattened) {
    stored = llvm::to_vector(shape);
    stored.front() *= layer.experts;
  }
  weight.source = {expand(name, 0)};
  if (quantized)
    findFields(weight, weight.source, {layer.experts, shape[0], shape[1]});
  else
    check(weight, weight.source.front(), stored, types);
  return weight;
}

MLPWeights WeightFinder::findMLP(const MLP &mlp, MLPLayout layout,
                                 StringRef argumentPrefix, bool ofExperts) {
  int64_t hidden = ofExperts ? layer.expertHidden() : layer.hidden;
  // Quantised matrices are [out, in] in all formats.
  layout.upInOut &= !isQuantized(layout.up);
  layout.downInOut &= !isQuantized(layout.down);
  bool together =
      layout.gating == Gating::Halves || layout.gating == Gating::Interleaved;
  int64_t columns = together ? 2 * mlp.width : mlp.width;
  auto matrix = [](int64_t in, int64_t out, bool inOut) {
    return inOut ? SmallVector<int64_t>{in, out}
                 : SmallVector<int64_t>{out, in};
  };
  // Matrices of the experts determine the type of the layer.
  auto weight = [&](StringRef argument, StringRef name, ArrayRef<int64_t> shape,
                    bool isBias = false) {
    std::string full = (argumentPrefix + argument).str();
    bool isOfLayer = ofExperts && !isBias && !layer.convertExperts;
    Types types = isOfLayer ? Types::OfLayer : Types::Converted;
    return ofExperts ? findOfExperts(full, name, shape, layout.flattened, types)
                     : find(full, name, shape, types);
  };

  MLPWeights weights;
  weights.layout = layout;
  if (layout.gating == Gating::Separate)
    weights.gate = weight("gate_proj", layout.gate,
                          matrix(hidden, columns, layout.upInOut));
  if (!layout.gateBias.empty())
    weights.gateBias =
        weight("gate_proj_bias", layout.gateBias, {columns}, true);
  std::string up = together ? "gate_up_proj" : "up_proj";
  weights.up = weight(up, layout.up, matrix(hidden, columns, layout.upInOut));
  if (!layout.upBias.empty())
    weights.upBias = weight(up + "_bias", layout.upBias, {columns}, true);
  weights.down = weight("down_proj", layout.down,
                        matrix(mlp.width, hidden, layout.downInOut));
  if (!layout.downBias.empty())
    weights.downBias =
        weight("down_proj_bias", layout.downBias, {hidden}, true);
  return weights;
}

//===----------------------------------------------------------------------===//
// The layer
//===----------------------------------------------------------------------===//

/// Layouts that differ only in the order of extents have the same names: the
/// shape decides, and [out, in] is meant where both fit, as in transformers.
bool WeightFinder::fits(const MLPLayout &layout) const {
  if (isQuantized(layout.up))
    return true;
  if (!contains(layout.up))
    return false;
  bool isAmbiguous =
      llvm::any_of(layer.expert.layouts, [&](const MLPLayout &other) {
        return other.up == layout.up && other.upInOut != layout.upInOut;
      });
  if (!isAmbiguous)
    return true;
  llvm::Expected<CheckpointReader::Tensor> found =
      checkpoint->lookup(expand(layout.up, 0));
  if (!found) {
    llvm::consumeError(found.takeError());
    return true; // read again, and reported, as a weight
  }
  bool isInOut =
      found->shape.size() >= 2 &&
      found->shape[found->shape.size() - 2] == layer.expertHidden() &&
      found->shape.back() != layer.expertHidden();
  return isInOut == layout.upInOut;
}

std::string WeightFinder::chooseName(ArrayRef<std::string> names) const {
  if (checkpoint)
    for (const std::string &name : names)
      if (contains(name))
        return name;
  return names.front();
}

MLPLayout WeightFinder::chooseLayout() {
  const MLPLayout &published = layer.expert.layouts.front();
  prefix = layer.prefixes.front();
  if (!checkpoint)
    return published;
  std::string missing;
  for (const MLPLayout &layout : layer.expert.layouts)
    for (const std::string &candidate : layer.prefixes) {
      prefix = candidate;
      if (fits(layout))
        return layout;
      if (std::string found =
              describeQuantization(expand(layout.up, 0), *checkpoint);
          !found.empty())
        fail(found);
      missing += (missing.empty() ? "'" : ", '") + expand(layout.up, 0) + "'";
    }
  fail("the checkpoint has no experts for this layer: found none of the "
       "tensors " +
       missing);
  prefix = layer.prefixes.front();
  return published;
}

/// Sets the type of the layer to that of its experts.
void WeightFinder::findDType(const MLPLayout &layout) {
  if (!checkpoint || !error.empty())
    return;
  std::string name = expand(layout.up, 0);
  if (isQuantized(layout.up) || layer.convertExperts) {
    if (dtype.empty())
      dtype = configured;
    return;
  }
  llvm::Expected<CheckpointReader::Tensor> first = checkpoint->lookup(name);
  if (!first) {
    fail("tensor '" + name + "': " + llvm::toString(first.takeError()));
  } else if (std::string found = describeQuantization(name, *checkpoint);
             !found.empty()) {
    fail(found);
  } else if (!isSupported(first->dtype)) {
    fail("expected tensor '" + name + "' to be f32, f16 or bf16, got " +
         typeName(first->dtype, first->shape) +
         "; a quantised checkpoint has to be dequantised first");
  } else if (!dtype.empty() && dtype != first->dtype) {
    fail("the data type of a checkpoint cannot be changed: tensor '" + name +
         "' is " + first->dtype + ", and " + dtype + " was asked for");
  } else {
    dtype = first->dtype;
  }
}

llvm::Expected<LayerWeights> WeightFinder::run() {
  const Router &router = layer.router;
  LayerWeights weights;
  MLPLayout layout = chooseLayout();
  findDType(layout);
  weights.dtype = dtype;

  Types routerTypes = router.f32Logits ? Types::OrF32 : Types::Converted;
  weights.router = find("router", chooseName(router.weight),
                        {layer.experts, layer.hidden}, routerTypes);
  if (!router.bias.empty())
    weights.routerBias =
        find("router_bias", router.bias, {layer.experts}, routerTypes);
  if (!router.selectionBias.empty()) {
    std::string name = chooseName(router.selectionBias);
    SmallVector<int64_t> shape{layer.experts};
    if (router.selectionBiasIsRow)
      shape.insert(shape.begin(), 1);
    bool isAbsent = !checkpoint || !contains(name);
    if (!router.selectionBiasIsOptional || !isAbsent)
      weights.selectionBias =
          find("e_score_correction_bias", name, shape, Types::AnyFloat);
  }
  if (!router.expertsOfTokens.empty())
    weights.expertsOfTokens =
        find("experts_of_tokens", chooseName(router.expertsOfTokens),
             {router.vocabulary, router.topK}, Types::Index);

  weights.expert = findMLP(layer.expert, layout, "", /*ofExperts=*/true);
  if (layer.shared) {
    auto *present =
        llvm::find_if(layer.shared->layouts, [&](const MLPLayout &each) {
          return checkpoint && isPresent(each.up) &&
                 (each.gate.empty() || isPresent(each.gate));
        });
    weights.shared = findMLP(*layer.shared,
                             present == layer.shared->layouts.end()
                                 ? layer.shared->layouts.front()
                                 : *present,
                             "shared_", /*ofExperts=*/false);
  }
  if (!layer.sharedGate.empty())
    weights.sharedGate = layer.sharedGateIsVector
                             ? find("shared_gate", layer.sharedGate,
                                    {layer.hidden}, Types::Converted)
                             : find("shared_gate", layer.sharedGate,
                                    {1, layer.hidden}, Types::Converted);
  if (int64_t width = layer.latent.width) {
    const Latent &latent = layer.latent;
    weights.latentDown = find("latent_down_proj", latent.down,
                              {width, layer.hidden}, Types::Converted);
    weights.latentUp = find("latent_up_proj", latent.up, {layer.hidden, width},
                            Types::Converted);
    if (!latent.downBias.empty())
      weights.latentDownBias = find("latent_down_proj_bias", latent.downBias,
                                    {width}, Types::Converted);
    if (!latent.upBias.empty())
      weights.latentUpBias = find("latent_up_proj_bias", latent.upBias,
                                  {layer.hidden}, Types::Converted);
  }
  if (!layer.outputBias.empty())
    weights.outputBias =
        find("output_bias", layer.outputBias, {layer.hidden}, Types::Converted);
  if (!layer.outputNorm.weight.empty())
    weights.outputNorm =
        find("output_norm", chooseName(layer.outputNorm.weight), {layer.hidden},
             Types::Converted);
  if (!error.empty())
    return llvm::createStringError(error);
  return weights;
}

llvm::Expected<LayerWeights>
mlir::moe::importer::findWeights(const LayerDescription &layer,
                                 CheckpointReader *checkpoint, StringRef dtype,
                                 StringRef configured,
                                 const QuantizationConfig &quantization) {
  return WeightFinder(layer, checkpoint, dtype, configured, quantization).run();
}
