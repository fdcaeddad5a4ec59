//===- ExpertParameters.h - Parameters of the experts of a rank -*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_TRANSFORMS_PARALLEL_EXPERTPARAMETERS_H
#define MOE_LIB_DIALECT_MOE_TRANSFORMS_PARALLEL_EXPERTPARAMETERS_H

#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "llvm/ADT/SetVector.h"

namespace mlir::moe {

/// Narrows the parameters of experts from all experts to the slots of a rank:
/// the arguments `[E, ...]` of a function that they are computed from, and the
/// operations between.
class ExpertParameters {
public:
  ExpertParameters(func::FuncOp function, int64_t experts, int64_t slots)
      : function(function), experts(experts), slots(slots) {}

  /// Narrows the parameters of `expert`, whose range must be all experts.
  LogicalResult take(ExpertOp expert);

  /// Fails if a narrowed value has a user that was not narrowed. Records the
  /// number of experts of narrowed arguments in `moe.experts`.
  LogicalResult finish();

private:
  LogicalResult narrow(Value value, Operation *user);
  LogicalResult narrowOperands(Operation *op);

  func::FuncOp function;
  int64_t experts, slots;
  llvm::SetVector<Value> narrowed;
  llvm::SetVector<Operation *> users;
};

} // namespace mlir::moe

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_PARALLEL_EXPERTPARAMETERS_H
