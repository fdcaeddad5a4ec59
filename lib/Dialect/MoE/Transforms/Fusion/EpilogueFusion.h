//===- EpilogueFusion.h - Fuse operations into epilogues --------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_TRANSFORMS_FUSION_EPILOGUEFUSION_H
#define MOE_LIB_DIALECT_MOE_TRANSFORMS_FUSION_EPILOGUEFUSION_H

#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/IR/PatternMatch.h"

namespace mlir::moe {

/// An operand of an elementwise operation. `map` goes from (e, r, n), the
/// expert, the row and the column of an element, to the dimensions of `value`.
struct EpilogueInput {
  Value value;
  AffineMap map;
};

/// Generalizes the elementwise operations on tensors in `region` to
/// linalg.generic, and folds fills and broadcasts into their operands.
void generalizeElementwise(RewriterBase &rewriter, Region &region);

/// True if `op` computes each element of its only result `[R, N]` from one
/// element of each input, by operations that an epilogue may contain.
bool isElementwiseOnMatrix(linalg::GenericOp op);

/// Returns the operands of an elementwise operation on a matrix, with maps from
/// the element (e, r, n) of a matmul.
SmallVector<EpilogueInput> epilogueInputs(linalg::GenericOp op);

/// Returns the matmuls among `inputs`, the operands of `consumer` in order,
/// that one grouped matmul can compute: they multiply the same rows, and only
/// `consumer` uses their results.
SmallVector<GroupedMatmulOp> fusibleMatmuls(linalg::GenericOp consumer,
                                            ArrayRef<EpilogueInput> inputs);

/// Fuses the elementwise operation `consumer` on `inputs` into the epilogue of
/// the `matmuls` among them. The result is built at the insertion point of `b`,
/// with the destination `init`.
GroupedMatmulOp fuseIntoEpilogue(OpBuilder &b, linalg::GenericOp consumer,
                                 ArrayRef<EpilogueInput> inputs,
                                 ArrayRef<GroupedMatmulOp> matmuls, Value init);

} // namespace mlir::moe

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_FUSION_EPILOGUEFUSION_H
