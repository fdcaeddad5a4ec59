//===- ApproximateMath.h - Functions with fastmath<afn> ---------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What a function or quotient with `fastmath<afn>` is on a device: a few
// instructions without a branch, within 2^-16 of the result or better.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_TARGET_NVPTX_APPROXIMATEMATH_H
#define MOE_LIB_TARGET_NVPTX_APPROXIMATEMATH_H

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/IR/PatternMatch.h"

namespace mlir::moe {

/// True if `op` has the flag `afn`.
bool isApproximate(Operation *op);

/// Gives the flag `afn` to the functions and quotients that patterns make of
/// one that has it.
class ApproximateListener : public RewriterBase::Listener {
public:
  void notifyOperationInserted(Operation *op,
                               OpBuilder::InsertPoint previous) override;
};

/// Adds patterns for functions and quotients with the flag `afn`.
void populateApproximateMathPatterns(RewritePatternSet &patterns);

} // namespace mlir::moe

#endif // MOE_LIB_TARGET_NVPTX_APPROXIMATEMATH_H
