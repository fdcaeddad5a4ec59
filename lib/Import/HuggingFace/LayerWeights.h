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

#ifndef MOE_LIB_IMPORT_HUGGINGFACE_LAYERWEIGHTS_H
#define MOE_LIB_IMPORT_HUGGINGFACE_LAYERWEIGHTS_H

#include "LayerDescription.h"

#include "moe/Import/HuggingFace.h"

namespace mlir::moe::hf {

/// An argument of the layer and its source tensors.
struct Weight {
  std::string name;
  std::string dtype;
  SmallVector<int64_t> shape;
  std::vector<std::string> source;
  /// Source tensors of another type are converted when read, as in
  /// transformers.
  bool convert = false;
};

struct MLPWeights {
  MLPLayout layout;
  std::optional<Weight> gate, upBias, downBias;
  Weight up, down;
};

struct LayerWeights {
  std::string dtype; // of the experts and of the layer
  Weight router;
  std::optional<Weight> routerBias, selectionBias;
  MLPWeights expert;
  std::optional<MLPWeights> shared;
  std::optional<Weight> sharedGate;
};

/// Finds every tensor in `checkpoint`, if given; `dtype` may then be empty.
llvm::Expected<LayerWeights> findWeights(const LayerDescription &layer,
                                         CheckpointReader *checkpoint,
                                         llvm::StringRef dtype);

} // namespace mlir::moe::hf

#endif // MOE_LIB_IMPORT_HUGGINGFACE_LAYERWEIGHTS_H
