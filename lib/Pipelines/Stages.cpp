//===- Stages.cpp - Stages shared by pipelines ----------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Stages.h"

#include "moe/Dialect/MoE/Transforms/Passes.h"
#include "moe/Pipelines/Pipelines.h"
#include "moe/Transforms/Passes.h"

#include "mlir/Conversion/AffineToStandard/AffineToStandard.h"
#include "mlir/Dialect/Bufferization/Transforms/Passes.h"
#include "mlir/Dialect/Linalg/Passes.h"
#include "mlir/Transforms/Passes.h"

using namespace mlir;

void mlir::moe::addCleanup(OpPassManager &pm) {
  pm.addPass(createCanonicalizerPass());
  pm.addPass(createCSEPass());
}

void mlir::moe::addTensorsToLinalg(OpPassManager &pm) {
  pm.addPass(createMoEVerifyShapes());
  pm.addPass(createConvertElementwiseToLinalgPass());
  pm.addPass(createMoETensorsToLinalg());
  pm.addPass(createLowerAffinePass());
}

void mlir::moe::addFirstPasses(OpPassManager &pm) {
  // Operations of others first; then gates, while a softmax is one operation.
  pm.addPass(createMoERaiseOperations());
  pm.addPass(createMoERaiseGate());
  // Then, before a pass folds operations with contradicting extents.
  addTensorsToLinalg(pm);
  // Calls are inlined, so that their buffers are part of the workspace.
  pm.addPass(createInlinerPass());
  addCleanup(pm);
}

void mlir::moe::addEntry(OpPassManager &pm, bool defaultChunk) {
  addFirstPasses(pm);
  // Inlining and cleanup may have made more extents static.
  pm.addPass(createMoEVerifyShapes());
  // Results become outputs of the caller while the layer is still tensors, so
  // that bufferization can compute right into them.
  pm.addPass(createMoEExport());
  MoEChunkTokensOptions chunks;
  chunks.defaultChunk = defaultChunk;
  pm.addPass(createMoEChunkTokens(chunks));
}

void mlir::moe::addBufferization(OpPassManager &pm) {
  pm.addPass(createMoEPlaceResults());
  pm.addPass(createMoECarryInPlace());
  // Without the elimination of empty tensors: with several outputs it lets one
  // result live in the memory of another, which is then overwritten.
  bufferization::OneShotBufferizePassOptions options;
  options.bufferizeFunctionBoundaries = true;
  options.functionBoundaryTypeConversion =
      bufferization::LayoutMapOption::IdentityLayoutMap;
  pm.addPass(bufferization::createOneShotBufferizePass(options));
  addCleanup(pm);
}

void mlir::moe::addVerification(OpPassManager &pm,
                                ArrayRef<StringRef> dialects) {
  MoEVerifyLoweredOptions options;
  options.dialects.assign(dialects.begin(), dialects.end());
  pm.addPass(createMoEVerifyLowered(options));
}

void mlir::moe::addBufferVerification(OpPassManager &pm) {
  addVerification(pm, {"arith", "cf", "func", "gpu", "index", "llvm", "math",
                       "memref", "moe_rt", "nvvm", "scf", "ub", "vector",
                       "x86vector"});
}
