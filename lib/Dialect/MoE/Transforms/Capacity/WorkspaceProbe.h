//===- WorkspaceProbe.h - Workspace and launches ----------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_TRANSFORMS_CAPACITY_WORKSPACEPROBE_H
#define MOE_LIB_DIALECT_MOE_TRANSFORMS_CAPACITY_WORKSPACEPROBE_H

#include "moe/Analysis/PlanReport.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/PassManager.h"

namespace mlir::moe {

/// Lowers copies of a module to find how much memory its functions take and
/// which kernels they launch.
class WorkspaceProbe {
public:
  using Lower = std::function<LogicalResult(ModuleOp)>;

  /// With `onDevice`, the bytes include the reports that the runtime keeps
  /// behind the workspace of the code.
  WorkspaceProbe(ModuleOp module, bool onDevice, Lower lower)
      : module(module), onDevice(onDevice), lower(std::move(lower)) {}
  ~WorkspaceProbe() { reset(); }
  WorkspaceProbe(const WorkspaceProbe &) = delete;
  WorkspaceProbe &operator=(const WorkspaceProbe &) = delete;

  /// Lowers a copy of the module in its current state. Fails after a
  /// diagnostic.
  LogicalResult refresh();
  /// Returns the bytes of the workspace for T tokens; nullopt above 64 bits.
  std::optional<int64_t> getBytes(func::FuncOp function, int64_t tokens);
  /// Returns what a call launches, in order; empty on a CPU. It refers to the
  /// lowered code, until `refresh` or the end of this object.
  std::vector<LaunchWork> getLaunches(func::FuncOp function,
                                      std::optional<GPUMachine> gpu);

private:
  void reset();

  ModuleOp module, copy;
  bool onDevice;
  Lower lower;
};

/// Parses the pipeline that creates the workspace. Fails after a diagnostic.
FailureOr<OpPassManager> parseLowering(ModuleOp module, StringRef pipeline);

} // namespace mlir::moe

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_CAPACITY_WORKSPACEPROBE_H
