//===- ScalarGradient.h - Derivatives of scalar operations ------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_TRANSFORMS_TRAINING_SCALARGRADIENT_H
#define MOE_LIB_DIALECT_MOE_TRANSFORMS_TRAINING_SCALARGRADIENT_H

#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/IR/IRMapping.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

namespace mlir::moe {

/// Reverse mode over the operations of arith and math in a block, such as the
/// epilogue of a matmul or the body of a linalg.generic. Gradients are f32.
class ScalarGradient {
public:
  /// `forward` has the values of the operations of the block, and of what they
  /// use, where the gradients are built.
  ScalarGradient(ImplicitLocOpBuilder &b, IRMapping &forward)
      : b(b), forward(forward) {}

  /// Adds to the gradient of a value of the block; null adds nothing.
  void add(Value value, Value gradient);
  /// Returns the gradient of a value; null if it is zero.
  Value of(Value value) const { return gradients.lookup(value); }

  /// Propagates the gradients that were added to values of `block` to those of
  /// `arguments`: arguments of the block, or results of operations that are
  /// inputs. Emits an error at an operation without a rule.
  LogicalResult run(Block &block, ArrayRef<Value> arguments);

private:
  LogicalResult propagate(Operation *op);
  /// The value where the gradients are built, in f32 if it is a float.
  Value get(Value value);
  Value constant(double value);
  bool isActive(Value value) const { return active.contains(value); }

  ImplicitLocOpBuilder &b;
  IRMapping &forward;
  llvm::DenseSet<Value> active;
  llvm::DenseMap<Value, Value> gradients;
};

} // namespace mlir::moe

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_TRAINING_SCALARGRADIENT_H
