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

/// Adds the patterns for moe.gate, moe.dispatch, moe.route, moe.expert and
/// moe.quantize.
void populateMoEToLinalgPatterns(RewritePatternSet &patterns);

/// Adds the pattern for a moe.grouped_matmul of quantized operands.
void populateQuantizedToLinalgPatterns(RewritePatternSet &patterns);

/// Adds the patterns for moe.combine and the operations that fusion creates on
/// tensors: moe.grouped_matmul, moe.grouped_contract, moe.gather_sum and
/// moe.pack.
void populateGroupedToLinalgPatterns(RewritePatternSet &patterns);

/// Builds the moe.gather_sum of the rows of a moe.combine with their final
/// weights at the insertion point; returns a value of its type. Does not
/// replace the operation.
Value decomposeCombine(CombineOp op, OpBuilder &builder);

/// Attaches linalg's AggregatedOpInterface to the moe operations, with the same
/// lowering, for `transform.structured.decompose_interface` and other
/// compilers.
void registerAggregatedOpInterfaceExternalModels(DialectRegistry &registry);

} // namespace moe
} // namespace mlir

#endif // MOE_CONVERSION_MOETOLINALG_MOETOLINALG_H
