//===- LayerBuilder.h - IR of a layer ---------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_IMPORT_LAYER_LAYERBUILDER_H
#define MOE_LIB_IMPORT_LAYER_LAYERBUILDER_H

#include "LayerWeights.h"

namespace mlir::moe::importer {

/// Builds a module with the function of a layer, at a location called `name`.
/// Loads the dialects that it uses into `context`.
llvm::Expected<OwningOpRef<ModuleOp>> buildModule(MLIRContext &context,
                                                  llvm::StringRef name,
                                                  const LayerDescription &layer,
                                                  const LayerWeights &weights);

} // namespace mlir::moe::importer

#endif // MOE_LIB_IMPORT_LAYER_LAYERBUILDER_H
