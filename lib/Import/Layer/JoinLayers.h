//===- JoinLayers.h - Several layers in one module --------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_IMPORT_LAYER_JOINLAYERS_H
#define MOE_LIB_IMPORT_LAYER_JOINLAYERS_H

#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/OwningOpRef.h"

#include "llvm/Support/Error.h"

namespace mlir::moe::importer {

/// Imports the layers `indices` with `import` and joins them: a function
/// `layer_N` for each that computes something else than those before it. The
/// others, which differ in the tensors that they read alone, are recorded in
/// the attribute moe.layers of the module.
llvm::Expected<OwningOpRef<ModuleOp>> joinLayers(
    MLIRContext &context, ArrayRef<int64_t> indices,
    llvm::function_ref<llvm::Expected<OwningOpRef<ModuleOp>>(int64_t)> import);

} // namespace mlir::moe::importer

#endif // MOE_LIB_IMPORT_LAYER_JOINLAYERS_H
