//===- ScoreFormula.h - Scores of a gate ------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CONVERSION_UTILS_SCOREFORMULA_H
#define MOE_CONVERSION_UTILS_SCOREFORMULA_H

#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/IR/ImplicitLocOpBuilder.h"

namespace mlir::moe {

/// Returns the score of one f32 logit. That of a softmax is of the whole row:
/// `x` is returned as it is.
Value scoreOf(ImplicitLocOpBuilder &b, Value x, Score score);

} // namespace mlir::moe

#endif // MOE_CONVERSION_UTILS_SCOREFORMULA_H
