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
/// Operations that linalg has no loops for, or that are on whole tensors, as
/// those that it has; those with contradicting extents are errors.
void addTensorsToLinalg(OpPassManager &pm);
/// Prepares a layer as it was written: one function with outputs, in
/// chunks of tokens where the plan says so.
void addEntry(OpPassManager &pm);
/// Tensors to buffers.
void addBufferization(OpPassManager &pm);
/// Nothing but operations of these dialects is left.
void addVerification(OpPassManager &pm, ArrayRef<StringRef> dialects);
/// The same of those that loops over buffers consist of.
void addBufferVerification(OpPassManager &pm);

} // namespace mlir::moe

#endif // MOE_LIB_PIPELINES_STAGES_H
