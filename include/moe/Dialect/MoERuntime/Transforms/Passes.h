//===- Passes.h - Passes for host tasks and device launches -----*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOERUNTIME_TRANSFORMS_PASSES_H
#define MOE_DIALECT_MOERUNTIME_TRANSFORMS_PASSES_H

#include "moe/Dialect/MoERuntime/IR/MoERuntime.h"

#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/Pass.h"

namespace mlir::moe {

#define GEN_PASS_DECL
#include "moe/Dialect/MoERuntime/Transforms/Passes.h.inc"

#define GEN_PASS_REGISTRATION
#include "moe/Dialect/MoERuntime/Transforms/Passes.h.inc"

} // namespace mlir::moe

#endif // MOE_DIALECT_MOERUNTIME_TRANSFORMS_PASSES_H
