//===- ParallelPipeline.cpp - Experts on many ranks -----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Stages.h"
#include "moe/Dialect/MoE/Transforms/Passes.h"
#include "moe/Pipelines/Pipelines.h"
#include "moe/Transforms/Passes.h"

#include "mlir/Transforms/Passes.h"

using namespace mlir;
using namespace mlir::moe;

void mlir::moe::buildParallelPipeline(OpPassManager &pm,
                                      const ParallelPipelineOptions &options) {
  // As every pipeline begins, but the function keeps its results.
  pm.addPass(createMoERaiseOperations());
  pm.addPass(createMoERaiseGate());
  pm.addPass(createMoEVerifyShapes());
  pm.addPass(createInlinerPass());
  addCleanup(pm);
  // Local work on the slots of a rank, and exchanges between ...
  MoEParallelizeOptions parallelize;
  parallelize.slots = options.slots;
  parallelize.ranks = options.ranks;
  parallelize.replicas = options.replicas;
  pm.addPass(createMoEParallelize(parallelize));
  addCleanup(pm);
  // ... where the functions are cut.
  pm.addPass(createMoESplitAtExchanges());
  addCleanup(pm);
}
