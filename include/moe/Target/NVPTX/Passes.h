//===- Passes.h - Passes of the NVPTX target --------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_TARGET_NVPTX_PASSES_H
#define MOE_TARGET_NVPTX_PASSES_H

#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/Pass.h"

namespace mlir::moe {

#define GEN_PASS_DECL
#include "moe/Target/NVPTX/Passes.h.inc"

#define GEN_PASS_REGISTRATION
#include "moe/Target/NVPTX/Passes.h.inc"

} // namespace mlir::moe

#endif // MOE_TARGET_NVPTX_PASSES_H
