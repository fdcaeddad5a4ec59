//===- PlanSettings.h - Settings of capacity plans --------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_TRANSFORMS_CAPACITY_PLANSETTINGS_H
#define MOE_LIB_DIALECT_MOE_TRANSFORMS_CAPACITY_PLANSETTINGS_H

#include "moe/Analysis/CapacityPlan.h"

#include "llvm/ADT/StringRef.h"

namespace mlir::moe {

/// The model of the routing, and the rates and kernel variants of a target.
struct PlanSettings {
  Imbalance model;
  PlanTarget target;
};

/// The options that moe-plan-capacity and moe-print-plan share, unparsed.
struct PlanSettingsOptions {
  StringRef imbalance, gpu, flops, bandwidth, machine;
  ArrayRef<std::string> variants;
  bool byMeanRows;
  /// Rates of the machine, unless `gpu` names one; by default those of
  /// `machine` or, without it, of this CPU.
  std::optional<MachineRates> rates;
};
llvm::Expected<PlanSettings>
parsePlanSettings(const PlanSettingsOptions &options);

/// A function and the inputs of its plan.
struct PlannedFunction {
  func::FuncOp function;
  FunctionCost cost;
  SmallVector<RowDistribution> rows; // one for each dispatch
  int64_t min, max;                  // the range of T
};

/// True if `function` gets a plan: it is public, has a body and is not exported
/// yet.
bool isPlanned(func::FuncOp function);

/// Analyzes a function for the range of `moe.tokens`. Fails after a diagnostic.
FailureOr<PlannedFunction> analyzeForPlan(func::FuncOp function,
                                          const PlanSettings &settings);

} // namespace mlir::moe

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_CAPACITY_PLANSETTINGS_H
