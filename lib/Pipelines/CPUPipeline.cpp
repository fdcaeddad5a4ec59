//===- CPUPipeline.cpp - The fast path on a CPU ---------------------------===//
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
using namespace mlir::moe;

static void addCleanup(OpPassManager &pm) {
  pm.addPass(createCanonicalizerPass());
  pm.addPass(createCSEPass());
}

void mlir::moe::buildFusionPipeline(OpPassManager &pm) {
  // Every product becomes a grouped one ...
  pm.addPass(createMoEExpertToGrouped());
  pm.addPass(createMoEDenseToGrouped());
  addCleanup(pm);
  // ... of the columns that are used, with what follows as its epilogue ...
  pm.addPass(createMoEFuseColumns());
  pm.addPass(createMoEFuseEpilogue());
  // ... and what it reads gathered as it is read.
  pm.addPass(createMoEFuseGather());
  addCleanup(pm);
}

void mlir::moe::buildCPUToBuffersPipeline(OpPassManager &pm,
                                          const CPUPipelineOptions &options) {
  // What a layer calls becomes part of it, and so of its workspace.
  pm.addPass(createInlinerPass());
  addCleanup(pm);
  // Results become outputs of the caller while the layer is still tensors.
  pm.addPass(createMoEExport());
  pm.addPass(createMoEChunkTokens());
  buildFusionPipeline(pm);

  // Packed weights take the place of weights; the functions that pack them are
  // entries of the artifact, too.
  MoEPackWeightsOptions packing;
  packing.vectorBits = options.vectorBits;
  packing.vectorRegisters = options.vectorRegisters;
  packing.bf16Dot = options.bf16Dot;
  pm.addPass(createMoEPackWeights(packing));
  pm.addPass(createMoEExport());

  // Gate, routing and combination, and what was not fused, by way of linalg.
  ConvertMoEToLinalgOptions linalg;
  linalg.keepGrouped = true;
  pm.addPass(createConvertMoEToLinalg(linalg));
  addCleanup(pm);
  bufferization::OneShotBufferizePassOptions bufferize;
  bufferize.bufferizeFunctionBoundaries = true;
  bufferize.functionBoundaryTypeConversion =
      bufferization::LayoutMapOption::IdentityLayoutMap;
  pm.addPass(bufferization::createOneShotBufferizePass(bufferize));
  addCleanup(pm);

  // Products become kernels and tasks, all else loops in blocks of tokens.
  ConvertMoEToCPUOptions kernels;
  kernels.vectorBits = options.vectorBits;
  kernels.vectorRegisters = options.vectorRegisters;
  kernels.bf16Dot = options.bf16Dot;
  pm.addPass(createConvertMoEToCPU(kernels));
  pm.addPass(createMemRefCopyToLinalg());
  pm.addPass(createMoELinalgToTasks());
  pm.addNestedPass<func::FuncOp>(createConvertLinalgToLoopsPass());
  pm.addPass(createLowerAffinePass());
  addCleanup(pm);
  pm.addPass(createMoEAllocsToArena());
  pm.addPass(createMoEForallToParallel());
  addCleanup(pm);
}

void mlir::moe::buildCPUPipeline(OpPassManager &pm,
                                 const CPUPipelineOptions &options) {
  buildCPUToBuffersPipeline(pm, options);
  buildLowerToLLVMPipeline(pm);
}
