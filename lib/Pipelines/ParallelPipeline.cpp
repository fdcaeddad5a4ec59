//===- ParallelPipeline.cpp - Experts on many ranks -----------------------===//
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

void mlir::moe::buildParallelPipeline(OpPassManager &pm,
                                      const ParallelPipelineOptions &options,
                                      const TrainingPipelineOptions *training) {
  addFirstPasses(pm);
  // Local work on the slots of a rank, and exchanges between ...
  MoEParallelizeOptions parallelize;
  parallelize.slots = options.slots;
  parallelize.ranks = options.ranks;
  parallelize.replicas = options.replicas;
  parallelize.reduce = options.reduce;
  parallelize.scope = options.scope;
  pm.addPass(createMoEParallelize(parallelize));
  addCleanup(pm);
  if (training)
    buildTrainingPipeline(pm, *training);
  // ... where the functions are cut.
  pm.addPass(createMoESplitAtExchanges());
  addCleanup(pm);
}
