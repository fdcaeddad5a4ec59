//===- TokenIndependence.h - Check that tokens are independent --*- C++ -*-===//
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

/// Finds a dependence between the tokens of a function at the tensor level,
/// every dynamic extent of which is T. None if each token is computed as it
/// would be alone: a call may then run in chunks of tokens, with the same bits.
/// Skips the operations in `ignored`.
std::optional<TokenDependence>
findTokenDependence(func::FuncOp function,
                    const llvm::DenseSet<Operation *> &ignored = {});

} // namespace mlir::moe

#endif // MOE_ANALYSIS_TOKENINDEPENDENCE_H
