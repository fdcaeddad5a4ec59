//===- TokenAccess.h - Memory accesses by token -----------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOERUNTIME_TRANSFORMS_HOST_TOKENACCESS_H
#define MOE_LIB_DIALECT_MOERUNTIME_TRANSFORMS_HOST_TOKENACCESS_H

#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"

#include <optional>

namespace mlir::moe {

/// Memory that an operation reads or writes. With `dim`, each token accesses
/// only its own slice along that dimension of `root`; without, any element.
struct TokenAccess {
  Value root;
  std::optional<unsigned> dim;
  bool writes;
};

/// A token count: the given dimension of a buffer, or the value itself if the
/// dimension is negative.
using TokenExtent = std::pair<Value, int64_t>;

/// An operation on buffers that works token by token.
struct TokenWork {
  SmallVector<TokenAccess> accesses;
  SmallVector<TokenExtent> extents; // equal to the number of tokens
  SmallVector<Operation *> allocs;  // nested, of sizes known outside
};

/// True if one token may write what another token accesses.
bool conflict(ArrayRef<TokenAccess> a, ArrayRef<TokenAccess> b);

/// Adds work on the same tokens; returns false if it may be on other tokens.
bool append(TokenWork &work, TokenWork more);

/// Returns the accesses of `op` if it works token by token: a linalg operation
/// whose first loop is over tokens, a small matmul, or a loop over such
/// operations.
std::optional<TokenWork> tokenWorkOf(Operation *op);

/// Returns the token dimension of an operand of such an operation.
std::optional<unsigned> tokenDim(OpOperand &operand);

/// True if an operation can move up to the definitions of its operands.
bool isMovable(Operation *op);

} // namespace mlir::moe

#endif // MOE_LIB_DIALECT_MOERUNTIME_TRANSFORMS_HOST_TOKENACCESS_H
