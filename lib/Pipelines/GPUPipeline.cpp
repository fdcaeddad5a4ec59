//===- GPUPipeline.cpp - The pipeline of NVIDIA GPUs ----------------------===//
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
#include "moe/Target/NVPTX/Passes.h"
#include "moe/Transforms/Passes.h"

#include "mlir/Conversion/AffineToStandard/AffineToStandard.h"
#include "mlir/Conversion/ArithToLLVM/ArithToLLVM.h"
#include "mlir/Conversion/GPUToNVVM/GPUToNVVMPass.h"
#include "mlir/Conversion/IndexToLLVM/IndexToLLVM.h"
#include "mlir/Conversion/MathToLLVM/MathToLLVM.h"
#include "mlir/Conversion/NVVMToLLVM/NVVMToLLVM.h"
#include "mlir/Conversion/ReconcileUnrealizedCasts/ReconcileUnrealizedCasts.h"
#include "mlir/Conversion/SCFToControlFlow/SCFToControlFlow.h"
#include "mlir/Conversion/UBToLLVM/UBToLLVM.h"
#include "mlir/Conversion/VectorToLLVM/ConvertVectorToLLVMPass.h"
#include "mlir/Dialect/Arith/Transforms/Passes.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/GPU/IR/GPUDialect.h"
#include "mlir/Dialect/Linalg/Passes.h"
#include "mlir/Dialect/Math/Transforms/Passes.h"
#include "mlir/Dialect/MemRef/Transforms/Passes.h"

using namespace mlir;
using namespace mlir::moe;

/// Adds a pass on the functions of the host only: kernels are cleaned up once,
/// after the last one is built.
static void addHostPass(OpPassManager &pm, std::unique_ptr<Pass> pass) {
  pm.addNestedPass<func::FuncOp>(std::move(pass));
}
static void addHostCleanup(OpPassManager &pm) {
  addCleanup(pm.nest<func::FuncOp>());
}

void mlir::moe::buildGPUToBuffersPipeline(OpPassManager &pm,
                                          const GPUPipelineOptions &options) {
  std::string arch = options.arch;
  addEntry(pm);
  pm.addPass(createMoEMeasureQuantization());
  buildFusionPipeline(pm, FusionPipelineOptions());
  // Weights in formats that no kernel reads are decoded when a layer is
  // created. The functions that do it are entry points of the artifact, too.
  pm.addPass(createMoEDecodeWeights());
  pm.addPass(createMoEExport());

  // Gate, routing, grouped matmuls and combination become kernels ...
  pm.addPass(createMoEFuseRouter());
  pm.addPass(
      createMoETileForGPU(MoETileForGPUOptions{arch, options.gatherFence}));
  pm.addPass(createMoEFuseCombine());
  pm.addPass(createConvertMoEToGPU(ConvertMoEToGPUOptions{arch}));
  // ... and operations without a kernel are lowered to linalg.
  addHostPass(pm, createConvertMoEToLinalg());
  addHostCleanup(pm);
  addBufferization(pm);
  pm.addPass(createMoECompactLaunches());
  // The remaining loops become kernels, too.
  pm.addPass(createMoEConstantsToDevice());
  addHostPass(pm, createMemRefCopyToLinalg());
  addHostPass(pm, createMoEParallelizeCounts());
  addHostPass(pm, createConvertLinalgToParallelLoopsPass());
  addHostPass(pm, createLowerAffinePass());
  addHostCleanup(pm);
  // Before kernels are outlined: their buffers are part of the arena.
  pm.addPass(createMoEScalarsToDevice());
  pm.addPass(createMoEAllocsToArena());
  addHostCleanup(pm);
  pm.addPass(createMoEOutlineKernels());
  addCleanup(pm);
  pm.addPass(createMoEOverlapLaunches());
  addBufferVerification(pm);
}

/// Lowers kernels to the LLVM dialect.
static void addKernelLowering(OpPassManager &pm) {
  OpPassManager &kernels = pm.nest<gpu::GPUModuleOp>();
  kernels.addPass(math::createMathExtendToSupportedTypes());
  kernels.addPass(createMoEExpandSmallFloats());
  kernels.addPass(createMoEExpandDeviceMath());
  kernels.addPass(createConvertMathToLLVMPass());
  kernels.addPass(createLowerAffinePass());
  kernels.addPass(memref::createExpandStridedMetadataPass());
  kernels.addPass(createLowerAffinePass());
  arith::ArithExpandOpsPassOptions expand;
  kernels.addPass(arith::createArithExpandOpsPass(expand));
  kernels.addPass(createSCFToControlFlowPass());
  kernels.addPass(createConvertGpuOpsToNVVMOps());
  kernels.addPass(createConvertVectorToLLVMPass());
  kernels.addPass(createArithToLLVMConversionPass());
  kernels.addPass(createConvertIndexToLLVMPass());
  kernels.addPass(createUBToLLVMConversionPass());
  kernels.addPass(createConvertNVVMToLLVMPass());
  kernels.addPass(createReconcileUnrealizedCastsPass());
  addCleanup(kernels);
}

void mlir::moe::buildGPUPipeline(OpPassManager &pm,
                                 const GPUPipelineOptions &options) {
  buildGPUToBuffersPipeline(pm, options);
  pm.addPass(createMoELaunchesToCalls());
  addKernelLowering(pm);
  pm.addPass(createMoESerializeKernels());
  // The host may be any CPU.
  buildLowerToLLVMPipeline(pm, /*f16Conversions=*/false);
}
