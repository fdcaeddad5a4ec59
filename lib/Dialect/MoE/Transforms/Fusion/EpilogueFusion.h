//===- EpilogueFusion.h - Elementwise operations after products -*- C++ -*-===//
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

/// Something that an elementwise operation reads: `map` goes from (e, r, n),
/// the expert, the row and the column of an element, to the dimensions of
/// `value`.
struct EpilogueInput {
  Value value;
  AffineMap map;
};

/// Make the elementwise operations of all names in `region`, on tensors,
/// generic ones, which read constants that tensors are filled with and elements
/// that tensors repeat themselves.
void generalizeElementwise(RewriterBase &rewriter, Region &region);

/// True if `op` computes each element of its only result `[R, N]` from one of
/// each input, and from nothing else, by what an epilogue may contain.
bool isElementwiseOnMatrix(linalg::GenericOp op);

/// The operands of such an operation, indexed by the element (e, r, n) of a
/// matmul.
SmallVector<EpilogueInput> epilogueInputs(linalg::GenericOp op);

/// The products among `inputs`, those of `consumer` in order, that one grouped
/// product can compute: they read the same rows in the same way, and nobody but
/// `consumer` uses what they compute.
SmallVector<GroupedMatmulOp> fusibleProducts(linalg::GenericOp consumer,
                                             ArrayRef<EpilogueInput> inputs);

/// Make the elementwise operation `consumer` on `inputs` the epilogue of the
/// `products` among them. The insertion point of `b` is where the result, with
/// the destination `init`, is to be computed.
GroupedMatmulOp fuseIntoEpilogue(OpBuilder &b, linalg::GenericOp consumer,
                                 ArrayRef<EpilogueInput> inputs,
                                 ArrayRef<GroupedMatmulOp> products,
                                 Value init);

} // namespace mlir::moe

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_FUSION_EPILOGUEFUSION_H
