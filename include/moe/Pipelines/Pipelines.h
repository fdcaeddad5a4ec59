//===- Pipelines.h - Named pipelines ----------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_PIPELINES_PIPELINES_H
#define MOE_PIPELINES_PIPELINES_H

#include "mlir/Pass/PassManager.h"
#include "mlir/Pass/PassOptions.h"

namespace mlir::moe {

/// The reference path: moe operations on tensors to the LLVM dialect, by way of
/// plain linalg and loops. What every faster path is compared with.
void buildReferencePipeline(OpPassManager &pm);

/// Its first part: moe operations to linalg, scf and tensor.
void buildReferenceTensorPipeline(OpPassManager &pm);
/// Its second part: tensors to buffers in one workspace.
void buildReferenceBufferPipeline(OpPassManager &pm);
/// Its last part: loops over buffers to the LLVM dialect, with entry points.
void buildLowerToLLVMPipeline(OpPassManager &pm);

/// Make the pipelines available by name: `moe-reference`,
/// `moe-reference-to-buffers`, `moe-lower-to-llvm`.
void registerPipelines();

} // namespace mlir::moe

#endif // MOE_PIPELINES_PIPELINES_H
