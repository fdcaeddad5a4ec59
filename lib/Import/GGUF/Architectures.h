//===- Architectures.h - Gates that metadata leaves open --------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_IMPORT_GGUF_ARCHITECTURES_H
#define MOE_LIB_IMPORT_GGUF_ARCHITECTURES_H

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringRef.h"

namespace mlir::moe::importer {

/// `expert_gating_func` of the metadata.
enum class GatingFunction : int64_t {
  Softmax = 1,
  Sigmoid = 2,
  SoftmaxOfChosen = 3,
  SqrtSoftplus = 4
};

/// What the code of an architecture decides where the metadata has no key for
/// it (llama.cpp's src/models).
struct Architecture {
  llvm::StringLiteral name; // general.architecture
  /// Weights are divided by their sum.
  bool normalizes = false;
  GatingFunction gating = GatingFunction::Softmax;
  /// gpt-oss: (clamp(up, ±7) + 1) · g · σ(1.702 · g) with g = min(gate, 7).
  bool clampedSwiGLU = false;
  /// Llama 4: the weight scales the input of the expert, and experts are chosen
  /// by logits.
  bool scalesInput = false;
};

/// Returns all architectures, in alphabetical order.
llvm::ArrayRef<Architecture> getArchitectures();

} // namespace mlir::moe::importer

#endif // MOE_LIB_IMPORT_GGUF_ARCHITECTURES_H
