//===- ReferencePipeline.cpp - The path that is obviously right -----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Conversion/Passes.h"
#include "moe/Dialect/MoE/Transforms/Passes.h"
#include "moe/Pipelines/Pipelines.h"

#include "mlir/Conversion/Passes.h"
#include "mlir/Dialect/Bufferization/Transforms/Passes.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Linalg/Passes.h"
#include "mlir/Transforms/Passes.h"

using namespace mlir;

static void addCleanup(OpPassManager &pm) {
  pm.addPass(createCanonicalizerPass());
  pm.addPass(createCSEPass());
}

void mlir::moe::buildReferenceTensorPipeline(OpPassManager &pm) {
  // What a layer calls becomes part of it, and so of its workspace.
  pm.addPass(createInlinerPass());
  addCleanup(pm);
  // Results become outputs of the caller while the layer is still tensors, so
  // that bufferization can compute right into them.
  pm.addPass(createMoEExport());
  pm.addPass(createMoEChunkTokens());
  pm.addPass(createConvertMoEToLinalg());
  addCleanup(pm);
}

void mlir::moe::buildReferenceBufferPipeline(OpPassManager &pm) {
  // Without the elimination of empty tensors: with several outputs it lets one
  // result live in the memory of another, which is then overwritten.
  bufferization::OneShotBufferizePassOptions bufferize;
  bufferize.bufferizeFunctionBoundaries = true;
  bufferize.functionBoundaryTypeConversion =
      bufferization::LayoutMapOption::IdentityLayoutMap;
  pm.addPass(bufferization::createOneShotBufferizePass(bufferize));
  addCleanup(pm);

  pm.addPass(createMemRefCopyToLinalg());
  pm.addNestedPass<func::FuncOp>(createConvertLinalgToLoopsPass());
  // Sizes become plain arithmetic, which bounds are read from.
  pm.addPass(createLowerAffinePass());
  addCleanup(pm);
  pm.addPass(createMoEAllocsToArena());
  addCleanup(pm);
}

void mlir::moe::buildReferencePipeline(OpPassManager &pm) {
  buildReferenceTensorPipeline(pm);
  buildReferenceBufferPipeline(pm);
  buildLowerToLLVMPipeline(pm);
}
