//===- DeviceWork.cpp - Classify host and device operations ---------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "DeviceWork.h"
#include "moe/Dialect/MoERuntime/IR/MoERuntime.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"
#include "mlir/Interfaces/ViewLikeInterface.h"

using namespace mlir;
using namespace mlir::moe;

bool mlir::moe::isHostWork(Operation *op) {
  if (isa<moe_rt::LaunchOp, memref::AllocOp, memref::DeallocOp, func::ReturnOp,
          ViewLikeOpInterface>(op) ||
      op->hasTrait<OpTrait::IsTerminator>())
    return true;
  if (op->getNumRegions() == 0)
    return isMemoryEffectFree(op);
  bool host = true;
  for (Region &region : op->getRegions())
    for (Block &block : region)
      for (Operation &inner : block)
        host = host && isHostWork(&inner);
  return host;
}

bool mlir::moe::isPreparation(Operation *op) {
  return isa<memref::AllocOp>(op) ||
         (isMemoryEffectFree(op) && !op->hasTrait<OpTrait::IsTerminator>());
}

bool mlir::moe::isHostControl(Operation *op) {
  return isa<scf::ForOp, scf::WhileOp, scf::IfOp, scf::IndexSwitchOp>(op) &&
         op->walk([](moe_rt::LaunchOp) {
             return WalkResult::interrupt();
           }).wasInterrupted();
}

bool mlir::moe::isParallelKernel(Operation *op,
                                 llvm::function_ref<bool(Value)> isOnDevice) {
  auto loop = dyn_cast<scf::ParallelOp>(op);
  return loop && loop.getInitVals().empty() &&
         llvm::none_of(op->getOperands(), isOnDevice);
}

bool mlir::moe::usesAny(Operation *op,
                        llvm::function_ref<bool(Value)> matches) {
  return op
      ->walk([&](Operation *nested) {
        return llvm::any_of(nested->getOperands(), matches)
                   ? WalkResult::interrupt()
                   : WalkResult::advance();
      })
      .wasInterrupted();
}
