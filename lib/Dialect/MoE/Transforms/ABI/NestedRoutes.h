//===- NestedRoutes.h - Routes of rows that a dispatch made -----*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// In a hierarchical layer a dispatch takes the grouped rows of another one.
// Their order depends on all tokens of a call, so the caller sees such a route
// by token: that of each of its choices, one after the other.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_TRANSFORMS_ABI_NESTEDROUTES_H
#define MOE_LIB_DIALECT_MOE_TRANSFORMS_ABI_NESTEDROUTES_H

#include "moe/Dialect/MoE/IR/MoE.h"

namespace mlir::moe {

/// Returns the dispatch whose grouped rows `dispatch` takes; null if it takes
/// others.
DispatchOp getOuterDispatch(DispatchOp dispatch);

/// Returns the type `[T, K·N]` of ids or weights `[R, N]` of the grouped rows
/// of `outer` by token.
RankedTensorType getTypeByToken(RankedTensorType type, DispatchOp outer);

/// Returns ids or weights `[R, N]` of the grouped rows of `outer` by token. A
/// choice that has no row has zeros.
Value orderByToken(OpBuilder &builder, Value values, DispatchOp outer);

/// Returns ids or weights by token as those of the grouped rows of `outer`.
Value orderByRow(OpBuilder &builder, Value values, DispatchOp outer);

} // namespace mlir::moe

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_ABI_NESTEDROUTES_H
