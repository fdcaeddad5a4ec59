//===- Passes.h - Capacity and memory planning ------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOE_TRANSFORMS_CAPACITY_PASSES_H
#define MOE_DIALECT_MOE_TRANSFORMS_CAPACITY_PASSES_H

#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/Pass.h"
#include "mlir/Pass/PassManager.h"

namespace mlir::moe {

struct MachineRates;

#define GEN_PASS_DECL
#include "moe/Dialect/MoE/Transforms/Capacity/Passes.h.inc"

/// Creates the pass with the rates of the machine and the pipeline that creates
/// the workspace.
std::unique_ptr<Pass> createMoEPlanCapacity(MoEPlanCapacityOptions options,
                                            const MachineRates &rates,
                                            const OpPassManager &lowering);
/// As above, but prints to `os` instead of stdout.
std::unique_ptr<Pass> createMoEPrintPlan(MoEPrintPlanOptions options,
                                         const MachineRates &rates,
                                         const OpPassManager &lowering,
                                         llvm::raw_ostream &os);

#define GEN_PASS_REGISTRATION
#include "moe/Dialect/MoE/Transforms/Capacity/Passes.h.inc"

} // namespace mlir::moe

#endif // MOE_DIALECT_MOE_TRANSFORMS_CAPACITY_PASSES_H
