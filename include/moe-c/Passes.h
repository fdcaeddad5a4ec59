//===- Passes.h - Create and register passes ---------------------*- C -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// For each pass, with its default options, mlirCreate<Group><Pass> creates it
// and mlirRegister<Group><Pass> registers it; mlirRegister<Group>Passes
// registers all of a group. The groups are MoEFusion, MoECapacity, MoEABI,
// MoERaising, MoERuntime, MoEConversion, MoECommon and MoENVPTX, as in
// docs/passes.md: mlirCreateMoEFusionMoEFuseGather is `moe-fuse-gather`.
//
// Pipelines, and passes with options, are given as text:
//
//   moeRegisterAllPasses();
//   mlirOpPassManagerAddPipeline(pm, "moe-fuse{keep-formats=true}", ...);
//
//===----------------------------------------------------------------------===//

#ifndef MOE_C_PASSES_H
#define MOE_C_PASSES_H

#include "moe/Conversion/Passes.capi.h.inc"
#include "moe/Dialect/MoE/Transforms/ABI/Passes.capi.h.inc"
#include "moe/Dialect/MoE/Transforms/Capacity/Passes.capi.h.inc"
#include "moe/Dialect/MoE/Transforms/Fusion/Passes.capi.h.inc"
#include "moe/Dialect/MoE/Transforms/Parallel/Passes.capi.h.inc"
#include "moe/Dialect/MoE/Transforms/Raising/Passes.capi.h.inc"
#include "moe/Dialect/MoE/Transforms/Training/Passes.capi.h.inc"
#include "moe/Dialect/MoERuntime/Transforms/Passes.capi.h.inc"
#include "moe/Target/NVPTX/Passes.capi.h.inc"
#include "moe/Transforms/Passes.capi.h.inc"

#endif // MOE_C_PASSES_H
