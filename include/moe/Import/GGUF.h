//===- GGUF.h - MoE layers of GGUF files ------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Imports a layer of a .gguf file as a module with one function `@layer`, like
// that of HuggingFace.h: what llama.cpp's `build_moe_ffn` computes, with the
// shared experts, from the tensors `blk.N.ffn_*` and the keys of the metadata.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_IMPORT_GGUF_H
#define MOE_IMPORT_GGUF_H

#include "moe/Import/Checkpoint.h"

#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/OwningOpRef.h"

namespace mlir::moe {

struct GGUFOptions {
  /// Index of the block, from 0.
  int64_t layer = 0;
  /// All blocks with experts instead, as HuggingFaceOptions::allLayers.
  bool allLayers = false;
  /// "f32", "f16" or "bf16": the type of rows and results, and of weights after
  /// they are decoded or converted. By default f32, as in ggml.
  std::string dtype;
};

/// Imports a layer of the file at `path`, or of any part of a split one. Loads
/// the dialects that it uses into `context`.
llvm::Expected<OwningOpRef<ModuleOp>>
importGGUFLayer(MLIRContext &context, llvm::StringRef path,
                const GGUFOptions &options);

/// Returns the values of `general.architecture` that can be imported, sorted.
std::vector<llvm::StringRef> getGGUFArchitectures();

} // namespace mlir::moe

#endif // MOE_IMPORT_GGUF_H
