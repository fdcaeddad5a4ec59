//===- Registration.cpp - Pipelines by name -------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Pipelines/Pipelines.h"

#include "mlir/Pass/PassRegistry.h"

using namespace mlir;

void mlir::moe::registerPipelines() {
  PassPipelineRegistration<CPUPipelineOptions>(
      "moe-cpu",
      "Lower moe operations to the LLVM dialect as kernels for a processor",
      buildCPUPipeline);
  PassPipelineRegistration<CPUPipelineOptions>(
      "moe-cpu-to-buffers",
      "Lower moe operations to kernels over buffers in one workspace",
      buildCPUToBuffersPipeline);
  PassPipelineRegistration<GPUPipelineOptions>(
      "moe-gpu",
      "Lower moe operations to the LLVM dialect and kernels for an NVIDIA GPU",
      buildGPUPipeline);
  PassPipelineRegistration<GPUPipelineOptions>(
      "moe-gpu-to-buffers",
      "Lower moe operations to launches of kernels over buffers in one "
      "workspace",
      buildGPUToBuffersPipeline);
  PassPipelineRegistration<FusionPipelineOptions>(
      "moe-fuse", "Fuse moe operations into grouped matmuls",
      buildFusionPipeline);
  PassPipelineRegistration<TrainingPipelineOptions>(
      "moe-training",
      "Fuse moe operations and add the backward function of each layer",
      buildTrainingPipeline);
  PassPipelineRegistration<ParallelPipelineOptions>(
      "moe-expert-parallel",
      "Spread the experts of each layer over ranks and cut it at its exchanges",
      [](OpPassManager &pm, const ParallelPipelineOptions &options) {
        buildParallelPipeline(pm, options);
      });
  PassPipelineRegistration<LoweringOptions>(
      "moe-reference",
      "Lower moe operations to the LLVM dialect along the reference path",
      buildReferencePipeline);
  PassPipelineRegistration<>(
      "moe-reference-to-buffers",
      "Lower moe operations to loops over buffers in one workspace",
      [](OpPassManager &pm) {
        buildReferenceTensorPipeline(pm);
        buildReferenceBufferPipeline(pm);
      });
  PassPipelineRegistration<LoweringOptions>(
      "moe-lower-to-llvm",
      "Lower loops over buffers to the LLVM dialect, with entry points",
      [](OpPassManager &pm, const LoweringOptions &options) {
        buildLowerToLLVMPipeline(pm, options.f16Conversions);
      });
}
