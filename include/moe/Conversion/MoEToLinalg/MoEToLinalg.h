//===- MoEToLinalg.h - Reference lowering -----------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CONVERSION_MOETOLINALG_MOETOLINALG_H
#define MOE_CONVERSION_MOETOLINALG_MOETOLINALG_H

#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/Pass/Pass.h"

namespace mlir {
class DialectRegistry;
class RewritePatternSet;

namespace moe {

#define GEN_PASS_DECL_CONVERTMOEROUTINGTOLINALG
#define GEN_PASS_DECL_CONVERTMOETOLINALG
#include "moe/Conversion/Passes.h.inc"

/// Patterns that lower what is done for each token and expert: moe.gate,
/// moe.dispatch, moe.route, moe.expert and moe.quantize.
void populateMoEToLinalgPatterns(RewritePatternSet &patterns);

/// A pattern for a moe.grouped_matmul of quantized operands.
void populateQuantizedToLinalgPatterns(RewritePatternSet &patterns);

/// Patterns for moe.combine and for what fusion makes: moe.grouped_matmul,
/// moe.gather_sum and moe.pack on tensors.
void populateGroupedToLinalgPatterns(RewritePatternSet &patterns);

/// Build the moe.gather_sum that adds the rows of a moe.combine with their
/// final weights, at the insertion point, as a value of its type. The operation
/// is left as it is.
Value decomposeCombine(CombineOp op, OpBuilder &builder);

/// Attach linalg's AggregatedOpInterface to the moe operations: the same
/// lowering, for `transform.structured.decompose_interface` and for other
/// compilers.
void registerAggregatedOpInterfaceExternalModels(DialectRegistry &registry);

} // namespace moe
} // namespace mlir

#endif // MOE_CONVERSION_MOETOLINALG_MOETOLINALG_H
