//===- Contraction.h - Products of tensors ------------------ -*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_CONTRACTION_H
#define MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_CONTRACTION_H

#include "mlir/IR/Operation.h"

#include <optional>

namespace mlir::moe::raising {

/// result[out] = Σ lhs[..] · rhs[..], from zero: each dimension of the operands
/// and of the result is one of the loops.
struct Contraction {
  Value lhs, rhs;
  SmallVector<unsigned> lhsLoops, rhsLoops, outLoops;

  Value operand(unsigned i) const { return i == 0 ? lhs : rhs; }
  ArrayRef<unsigned> loops(unsigned i) const {
    return i == 0 ? lhsLoops : rhsLoops;
  }
};

/// Reads a stablehlo.dot_general, or a contraction of linalg whose result
/// starts at zero.
std::optional<Contraction> readContraction(Operation *op);

} // namespace mlir::moe::raising

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_CONTRACTION_H
