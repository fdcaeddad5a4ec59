//===- InitAll.h - Register everything of this project ----------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What a compiler that embeds this project calls, in the manner of
// mlir/InitAllDialects.h. Each also registers what the pipelines need of
// upstream, so that a context with these, and nothing else, parses a layer and
// runs every pipeline; to register more, or the same again, does no harm.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_INITALL_H
#define MOE_INITALL_H

#include "moe/Conversion/Passes.h"
#include "moe/Dialect/MoE/IR/MoE.h"
#include "moe/Dialect/MoE/Transforms/Passes.h"
#include "moe/Dialect/MoERuntime/IR/MoERuntime.h"
#include "moe/Dialect/MoERuntime/Transforms/Passes.h"
#include "moe/Pipelines/Pipelines.h"
#include "moe/Target/NVPTX/Passes.h"
#include "moe/Transforms/Passes.h"

namespace mlir::moe {

/// The dialects moe and moe_rt, those that layers are written in besides, and
/// those that pipelines lower to.
void registerAllDialects(DialectRegistry &registry);

/// External models of interfaces on operations, moe's own and upstream's;
/// conversions of dialects to the LLVM dialect, translations to LLVM IR.
void registerAllExtensions(DialectRegistry &registry);

/// All passes here, and those of upstream that a pipeline given as text may
/// name to clean up: canonicalize, cse, inline and the like.
void registerAllPasses();

void registerAllPipelines();

} // namespace mlir::moe

#endif // MOE_INITALL_H
