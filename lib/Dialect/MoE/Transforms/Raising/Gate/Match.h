//===- Match.h - Recognise ordinary operations --------------- -*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_GATE_MATCH_H
#define MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_GATE_MATCH_H

#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

namespace mlir::moe::raising {

//===----------------------------------------------------------------------===//
// Scalars in the body of a linalg.generic
//===----------------------------------------------------------------------===//

/// Returns the value that `scalar` widens to another float type, or is.
Value skipWidening(Value scalar);
/// Returns the value that `scalar` rounds, once, or is: what a body yields.
Value skipRounding(Value scalar);
std::optional<double> constantOf(Value scalar);
/// If `scalar` is a binary operation with one constant operand, in either
/// order if it commutes, returns the other operand.
template <typename Op> Value matchWithConstant(Value scalar, double &constant) {
  auto op = skipRounding(scalar).getDefiningOp<Op>();
  if (!op || !op.getType().isF32())
    return {};
  for (bool swapped : {false, true}) {
    if (swapped && !op->template hasTrait<OpTrait::IsCommutative>())
      continue;
    Value other = op->getOperand(swapped ? 1 : 0);
    if (std::optional<double> found =
            constantOf(op->getOperand(swapped ? 0 : 1))) {
      constant = *found;
      return other;
    }
  }
  return {};
}

//===----------------------------------------------------------------------===//
// Tensors
//===----------------------------------------------------------------------===//

/// A linalg.generic with one result, loops that are all parallel, and the
/// identity map of the result.
struct Elementwise {
  linalg::GenericOp op;

  Value yielded() { return op.getBody()->getTerminator()->getOperand(0); }
  /// Returns the tensor whose elements `scalar` is, perhaps widened; null if it
  /// is not an input.
  Value inputOf(Value scalar);
  /// The same, if the map of the input is that of the dimensions `dims`.
  Value inputOf(Value scalar, ArrayRef<unsigned> dims);
};
std::optional<Elementwise> matchElementwise(Value tensor);

/// Returns the tensor that `tensor` widens to another float type, or is.
Value skipTensorWidening(Value tensor);
/// Returns the tensor of f32 that `tensor` rounds to `type`, or `tensor`.
Value skipTensorRounding(Value tensor, Type type);
/// Returns the tensor that `tensor` extends to wider integers, or is.
Value skipExtensions(Value tensor);

/// A reduction over the last dimension of a tensor.
enum class Reduction { Sum, Max };
/// Returns the tensor whose last dimension `tensor` reduces; null if it does
/// not. The reduction starts from 0 or −inf and accumulates in f32.
Value matchReduction(Value tensor, Reduction kind);

/// Returns the scores that an elementwise function or a softmax over the last
/// dimension was applied to, and sets the function; null if it is none.
Value matchScore(Value tensor, Score &score);

/// Returns the ids `[T, K]` that `tensor` extends to wider integers, or is;
/// those of one choice may be a vector.
Value skipViewsOfIds(Value tensor);
/// True if `tensor` holds source[t, ids[t, k]] for each t and k; a vector for
/// one choice.
bool isGatherOf(Value tensor, Value source, Value ids);

//===----------------------------------------------------------------------===//
// Gates
//===----------------------------------------------------------------------===//

/// True for a top-k of the logits, perhaps with a bias and groups, whose
/// weights may still be divided and scaled.
bool isTopK(GateOp gate);
/// True if, moreover, the weights are the selected logits.
bool hasPlainWeights(GateOp gate);

} // namespace mlir::moe::raising

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_GATE_MATCH_H
