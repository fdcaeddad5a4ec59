//===- CPUPipeline.cpp - The pipeline of CPU kernels ----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Stages.h"
#include "moe/Conversion/Passes.h"
#include "moe/Dialect/MoE/Transforms/Passes.h"
#include "moe/Dialect/MoERuntime/Transforms/Passes.h"
#include "moe/Pipelines/Pipelines.h"
#include "moe/Transforms/Passes.h"

#include "mlir/Conversion/AffineToStandard/AffineToStandard.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Linalg/Passes.h"

using namespace mlir;
using namespace mlir::moe;

/// Options of a pass that depends on the CPU.
template <typename PassOptions>
static PassOptions forProcessor(const CPUPipelineOptions &cpu) {
  PassOptions options;
  options.vectorBits = cpu.vectorBits;
  options.vectorRegisters = cpu.vectorRegisters;
  options.bf16Dot = cpu.bf16Dot;
  options.int8Dot = cpu.int8Dot;
  options.bytePermute = cpu.bytePermute;
  options.prefetchedPages = cpu.prefetchedPages;
  return options;
}

void mlir::moe::buildFusionPipeline(OpPassManager &pm,
                                    const FusionPipelineOptions &options) {
  addTensorsToLinalg(pm);
  // All matmuls become grouped matmuls ...
  pm.addPass(createMoEExpertToGrouped());
  pm.addPass(createMoEDenseToGrouped());
  addCleanup(pm);
  // ... of quantized operands, with their scales ...
  pm.addPass(createMoEFuseScales(MoEFuseScalesOptions{options.keepFormats}));
  // ... of the columns that are used, with elementwise epilogues ...
  pm.addPass(createMoEFuseColumns());
  pm.addPass(createMoEFuseEpilogue());
  // ... that gather the rows of the tokens.
  pm.addPass(createMoEFuseGather());
  // The combine becomes a gather-sum with the final weights.
  pm.addPass(createMoEDecomposeCombine());
  addCleanup(pm);
}

void mlir::moe::buildCPUToBuffersPipeline(OpPassManager &pm,
                                          const CPUPipelineOptions &options) {
  // Memory that chunks save costs no speed.
  addEntry(pm, /*defaultChunk=*/true);
  pm.addPass(createMoEMeasureQuantization());
  // Quantised weights are decoded where they are packed.
  FusionPipelineOptions fusion;
  fusion.keepFormats = true;
  buildFusionPipeline(pm, fusion);

  // Packed weights replace the weights. The functions that pack them are entry
  // points of the artifact, too. Rows of packed formats become integers where
  // the layer asks for it.
  pm.addPass(
      createMoEPackWeights(forProcessor<MoEPackWeightsOptions>(options)));
  // What no matmul packs is rounded and decoded once, too.
  pm.addPass(createMoEDecodeWeights());
  pm.addPass(createMoEQuantizeActivations(
      forProcessor<MoEQuantizeActivationsOptions>(options)));
  pm.addPass(createMoEExport());

  // Loops will tell which of these operations they compute.
  pm.addPass(createMoENameStages());

  // Lower the gate, the routing and unfused operations to linalg.
  pm.addPass(createConvertMoERoutingToLinalg());
  addCleanup(pm);
  addBufferization(pm);
  pm.addPass(createMoECompactLaunches());

  // Loops over tokens become tasks on blocks of tokens, router and gate in one
  // task; grouped matmuls become kernels and tasks.
  pm.addPass(createMemRefCopyToLinalg());
  pm.addPass(createMoELinalgToTasks());
  pm.addPass(createMoEVectorizeRows());
  pm.addPass(
      createConvertMoEToCPU(forProcessor<ConvertMoEToCPUOptions>(options)));
  pm.addNestedPass<func::FuncOp>(createConvertLinalgToLoopsPass());
  pm.addPass(createLowerAffinePass());
  addCleanup(pm);
  pm.addPass(createMoEAllocsToArena());
  pm.addPass(createMoEForallToParallel());
  addCleanup(pm);
  pm.addPass(createMoEMarkStages());
  addBufferVerification(pm);
}

void mlir::moe::buildCPUPipeline(OpPassManager &pm,
                                 const CPUPipelineOptions &options) {
  buildCPUToBuffersPipeline(pm, options);
  buildLowerToLLVMPipeline(pm, options.f16Conversions);
}
