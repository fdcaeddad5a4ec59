//===- Patterns.h - Steps of a gate that fold into it -------- -*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_GATE_PATTERNS_H
#define MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_GATE_PATTERNS_H

#include "mlir/IR/PatternMatch.h"

namespace mlir::moe::raising {

/// Takes the number of tokens from the logits.
void populateFoldExtentPatterns(RewritePatternSet &patterns);
/// Folds conversions and a score function before the selection.
void populateFoldScorePatterns(RewritePatternSet &patterns);
/// Folds a bias that only the selection sees, and weights that are gathered.
void populateFoldSelectionPatterns(RewritePatternSet &patterns);
/// Folds a mask on all but the best groups of experts.
void populateFoldGroupsPatterns(RewritePatternSet &patterns);
/// Folds a score function of the selected logits.
void populateFoldSelectedScorePatterns(RewritePatternSet &patterns);
/// Moves what is done with the weights of one choice before their last
/// dimension is dropped.
void populateFoldSingleChoicePatterns(RewritePatternSet &patterns);
/// Folds the division by the sum of the weights, and a constant factor.
void populateFoldNormalizePatterns(RewritePatternSet &patterns);

} // namespace mlir::moe::raising

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_GATE_PATTERNS_H
