//===- TokenIndependence.h - Whether tokens may run apart -------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_ANALYSIS_TOKENINDEPENDENCE_H
#define MOE_ANALYSIS_TOKENINDEPENDENCE_H

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "llvm/ADT/DenseSet.h"

#include <optional>
#include <string>

namespace mlir::moe {

/// Why the result of a token depends on which tokens are in the same call.
struct TokenDependence {
  Operation *op;
  std::string reason;
};

/// True if a function at the tensor level, every dynamic extent of which is T,
/// computes for each token what it would compute for it alone: then a call may
/// run in pieces of tokens, with the same bits. None if it does. The operations
/// of `ignored` take no part.
std::optional<TokenDependence>
findTokenDependence(func::FuncOp function,
                    const llvm::DenseSet<Operation *> &ignored = {});

} // namespace mlir::moe

#endif // MOE_ANALYSIS_TOKENINDEPENDENCE_H
