//===- Stages.h - Stages shared by pipelines --------------------*- C++ -*-===//
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
/// Lowers operations on whole tensors, and those without loops in linalg, to
/// linalg operations with loops; contradicting extents are errors.
void addTensorsToLinalg(OpPassManager &pm);
/// Prepares a layer as it was written: one function with outputs, in
/// chunks of tokens where the plan says so, or by default.
void addEntry(OpPassManager &pm, bool defaultChunk = false);
/// Lowers tensors to buffers.
void addBufferization(OpPassManager &pm);
/// Verifies that only operations of these dialects are left.
void addVerification(OpPassManager &pm, ArrayRef<StringRef> dialects);
/// Verifies that only loops over buffers are left.
void addBufferVerification(OpPassManager &pm);

} // namespace mlir::moe

#endif // MOE_LIB_PIPELINES_STAGES_H
