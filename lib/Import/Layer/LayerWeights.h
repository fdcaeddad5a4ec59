//===- LayerWeights.h - The weights of a layer ------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Finds the tensors of the arguments of a function: selects the naming that the
// checkpoint uses, and verifies that every tensor exists with the type and
// shape that the configuration requires.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_IMPORT_LAYER_LAYERWEIGHTS_H
#define MOE_LIB_IMPORT_LAYER_LAYERWEIGHTS_H

#include "LayerDescription.h"
#include "QuantizedWeights.h"

#include "moe/Import/HuggingFace.h"

namespace mlir::moe::importer {

/// An argument of the layer and its source tensors.
struct Weight {
  std::string name;
  std::string dtype;
  SmallVector<int64_t> shape;
  std::vector<std::string> source;
  /// Source tensors of another type are converted when read, as in
  /// transformers.
  bool convert = false;
  /// If the rows of the source tensors are blocks, what the file calls their
  /// format.
  std::string sourceFormat = {};
  /// If the tensors are quantised, the text of their #moe.format, and an
  /// argument for each of its operands; `dtype` and `shape` are then those of
  /// the decoded weight, which has no tensors of its own.
  std::string format = {};
  std::vector<Weight> fields = {};
};

struct MLPWeights {
  MLPLayout layout;
  std::optional<Weight> gate, gateBias, upBias, downBias;
  Weight up, down;
};

struct LayerWeights {
  std::string dtype; // of the experts and of the layer
  Weight router;
  std::optional<Weight> routerBias, selectionBias, expertsOfTokens;
  MLPWeights expert;
  std::optional<MLPWeights> shared;
  std::optional<Weight> sharedGate;
  std::optional<Weight> latentDown, latentDownBias, latentUp, latentUpBias;
  std::optional<Weight> outputBias, outputNorm;
};

/// Finds every tensor in `checkpoint`, if given; `dtype` may then be empty.
/// `configured` is the type of the model, which quantised experts leave open.
llvm::Expected<LayerWeights>
findWeights(const LayerDescription &layer, CheckpointReader *checkpoint,
            llvm::StringRef dtype, llvm::StringRef configured,
            const QuantizationConfig &quantization);

} // namespace mlir::moe::importer

#endif // MOE_LIB_IMPORT_LAYER_LAYERWEIGHTS_H
