//===- LayerBuilder.h - IR of a layer ---------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_IMPORT_HUGGINGFACE_LAYERBUILDER_H
#define MOE_LIB_IMPORT_HUGGINGFACE_LAYERBUILDER_H

#include "LayerWeights.h"

namespace mlir::moe::hf {

/// Builds a module with the function `@layer`; its dialects must be loaded.
OwningOpRef<ModuleOp> buildLayer(Location loc, const LayerDescription &layer,
                                 const LayerWeights &weights);

} // namespace mlir::moe::hf

#endif // MOE_LIB_IMPORT_HUGGINGFACE_LAYERBUILDER_H
