//===- ExchangeUtils.h - Rows that travel between ranks ---------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOE_TRANSFORMS_PARALLEL_EXCHANGEUTILS_H
#define MOE_DIALECT_MOE_TRANSFORMS_PARALLEL_EXCHANGEUTILS_H

#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/IR/ImplicitLocOpBuilder.h"

namespace mlir::moe {

/// Returns the rows of `matrix` `[T, K]` in the order of `tokens` `[T, K]`, as
/// `[T, K, K]`: those that leave beside the tokens of a moe.partition.
Value listByTokens(ImplicitLocOpBuilder &b, Value matrix, Value tokens);

/// Brings home grouped rows, one for each choice of received tokens, in the
/// order of a moe.collect, of which `returns` go to each rank; `expect` come
/// from each.
Value returnRows(ImplicitLocOpBuilder &b, Value rows, Value order,
                 Value returns, Value expect);

} // namespace mlir::moe

#endif // MOE_DIALECT_MOE_TRANSFORMS_PARALLEL_EXCHANGEUTILS_H
