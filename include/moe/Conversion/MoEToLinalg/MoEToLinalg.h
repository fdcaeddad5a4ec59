//===- MoEToLinalg.h - Reference lowering -----------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CONVERSION_MOETOLINALG_MOETOLINALG_H
#define MOE_CONVERSION_MOETOLINALG_MOETOLINALG_H

#include "mlir/Pass/Pass.h"

namespace mlir {
class DialectRegistry;
class RewritePatternSet;

namespace moe {

#define GEN_PASS_DECL_CONVERTMOETOLINALG
#include "moe/Conversion/Passes.h.inc"

/// Patterns that lower every moe operation to linalg, scf and tensor.
void populateMoEToLinalgPatterns(RewritePatternSet &patterns);

/// Patterns for moe.combine and for what fusion makes: moe.grouped_matmul,
/// moe.gather_sum and moe.pack on tensors.
void populateGroupedToLinalgPatterns(RewritePatternSet &patterns);

/// Attach linalg's AggregatedOpInterface to the moe operations: the same
/// lowering, for `transform.structured.decompose_interface` and for other
/// compilers.
void registerAggregatedOpInterfaceExternalModels(DialectRegistry &registry);

} // namespace moe
} // namespace mlir

#endif // MOE_CONVERSION_MOETOLINALG_MOETOLINALG_H
