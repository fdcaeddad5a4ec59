//===- ReferencePipeline.cpp - The reference lowering to loops ------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Stages.h"
#include "moe/Conversion/Passes.h"
#include "moe/Dialect/MoE/Transforms/Passes.h"
#include "moe/Pipelines/Pipelines.h"
#include "moe/Transforms/Passes.h"

#include "mlir/Conversion/AffineToStandard/AffineToStandard.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Linalg/Passes.h"

using namespace mlir;

void mlir::moe::buildReferenceTensorPipeline(OpPassManager &pm) {
  addEntry(pm);
  pm.addPass(createConvertMoEToLinalg());
  addCleanup(pm);
}

void mlir::moe::buildReferenceBufferPipeline(OpPassManager &pm) {
  addBufferization(pm);

  pm.addPass(createMemRefCopyToLinalg());
  pm.addNestedPass<func::FuncOp>(createConvertLinalgToLoopsPass());
  // Sizes become plain arithmetic, from which bounds are computed.
  pm.addPass(createLowerAffinePass());
  addCleanup(pm);
  pm.addPass(createMoEAllocsToArena());
  addCleanup(pm);
  addBufferVerification(pm);
}

void mlir::moe::buildReferencePipeline(OpPassManager &pm,
                                       const LoweringOptions &options) {
  buildReferenceTensorPipeline(pm);
  buildReferenceBufferPipeline(pm);
  buildLowerToLLVMPipeline(pm, options.f16Conversions);
}
