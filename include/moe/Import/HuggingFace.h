//===- HuggingFace.h - MoE layers of Hugging Face models --------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Imports a layer from the directory of a model (config.json, and
// model.safetensors or shards with their index) as a module with one function:
//
//   func.func @layer(%x: tensor<?xHxT> {moe.role = "input", moe.name = "x"},
//                    %router: tensor<ExHxT> {moe.role = "weight",
//                                            moe.name = "router",
//                                            moe.source = [...]}, ...)
//       -> tensor<?xHxT>
//
// It computes the mixture of experts as transformers does in inference, without
// the residual and the preceding norm. If experts have a capacity (Switch), the
// tokens of a call are one sequence.
//
// Weights keep the layout of the checkpoint. `moe.source` names the tensors of
// an argument: one with the same elements in the same order, or several that
// are stacked along a new leading dimension. Matmuls accumulate in f32; the
// result of each linear layer is rounded to the data type T of the experts'
// weights.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_IMPORT_HUGGINGFACE_H
#define MOE_IMPORT_HUGGINGFACE_H

#include "moe/Import/Checkpoint.h"

#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/OwningOpRef.h"

#include <string>
#include <vector>

namespace mlir::moe {

struct HuggingFaceOptions {
  /// Index of the layer, from 0. In an encoder-decoder model the layers of the
  /// decoder follow those of the encoder.
  int64_t layer = 0;
  /// All layers with experts instead, one function each: `layer_N`. Those whose
  /// code is the same are functions of the artifact only (moe.layers).
  bool allLayers = false;
  /// "f32", "f16" or "bf16"; by default the type of the experts' weights or,
  /// without weights, of the configuration. Weights are never converted, so
  /// with weights it must be their type.
  std::string dtype;
};

/// Imports a layer of the model in `directory`, or of the one with this
/// config.json. Without weights beside it, shapes follow from the
/// configuration, and sources have the names of published checkpoints of the
/// family. Loads the dialects that it uses into `context`.
llvm::Expected<OwningOpRef<ModuleOp>>
importHuggingFaceLayer(MLIRContext &context, llvm::StringRef directory,
                       const HuggingFaceOptions &options);

/// Imports from the text of a config.json; `checkpoint` may be null.
llvm::Expected<OwningOpRef<ModuleOp>>
importHuggingFaceLayer(MLIRContext &context, llvm::StringRef configText,
                       CheckpointReader *checkpoint,
                       const HuggingFaceOptions &options);

/// Returns the values of `model_type` that can be imported, sorted.
std::vector<llvm::StringRef> getHuggingFaceFamilies();

} // namespace mlir::moe

#endif // MOE_IMPORT_HUGGINGFACE_H
