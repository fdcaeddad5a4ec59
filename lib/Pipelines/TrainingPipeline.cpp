//===- TrainingPipeline.cpp - Backward functions --------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Stages.h"
#include "moe/Dialect/MoE/Transforms/Passes.h"
#include "moe/Pipelines/Pipelines.h"

using namespace mlir;
using namespace mlir::moe;

void mlir::moe::buildTrainingPipeline(OpPassManager &pm,
                                      const TrainingPipelineOptions &options) {
  addFirstPasses(pm);
  // Fused operations have the products and the routing that a backward pass
  // has kernels for.
  buildFusionPipeline(pm, FusionPipelineOptions());
  MoEDifferentiateOptions differentiate;
  llvm::append_range(differentiate.arguments, options.arguments);
  llvm::append_range(differentiate.f32Gradients, options.f32Gradients);
  llvm::append_range(differentiate.accumulate, options.accumulate);
  differentiate.recompute = options.recompute;
  pm.addPass(createMoEDifferentiate(std::move(differentiate)));
  addCleanup(pm);
}
