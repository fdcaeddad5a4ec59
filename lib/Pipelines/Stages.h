//===- Stages.h - What pipelines have in common -----------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_PIPELINES_STAGES_H
#define MOE_LIB_PIPELINES_STAGES_H

#include "mlir/Pass/PassManager.h"

namespace mlir::moe {

void addCleanup(OpPassManager &pm);
/// What is done to a layer as it was written: one function with outputs, in
/// chunks of tokens where the plan says so.
void addEntry(OpPassManager &pm);
/// Tensors to buffers.
void addBufferization(OpPassManager &pm);

} // namespace mlir::moe

#endif // MOE_LIB_PIPELINES_STAGES_H
