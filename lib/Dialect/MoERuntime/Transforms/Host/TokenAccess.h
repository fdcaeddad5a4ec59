//===- TokenAccess.h - What each token reads and writes ---------*- C++ -*-===//
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

/// Memory that an operation reads or writes. With `dim`, a token touches its own
/// part along that dimension of `root` alone; without, anything.
struct TokenAccess {
  Value root;
  std::optional<unsigned> dim;
  bool writes;
};

/// A number of tokens: a dimension of a buffer, or, below 0, a value.
using TokenExtent = std::pair<Value, int64_t>;

/// An operation on buffers that works token by token.
struct TokenWork {
  SmallVector<TokenAccess> accesses;
  SmallVector<TokenExtent> extents; // all of them the number of tokens
  SmallVector<Operation *> allocs;  // inside, of memory from before
};

/// Whether a token may touch what another token's part of the other work touches,
/// one of them writing.
bool conflict(ArrayRef<TokenAccess> a, ArrayRef<TokenAccess> b);

/// Add work on the same tokens; false if it may be on others.
bool append(TokenWork &work, TokenWork more);

/// What `op` does for each token, if it does all token by token: an operation of
/// linalg whose first loop goes over tokens, a small product, or a loop over such
/// operations.
std::optional<TokenWork> tokenWorkOf(Operation *op);

/// The dimension of the tokens of an operand of such an operation.
std::optional<unsigned> tokenDim(OpOperand &operand);

/// Whether an operation can as well be done earlier, where its operands are.
bool isMovable(Operation *op);

} // namespace mlir::moe

#endif // MOE_LIB_DIALECT_MOERUNTIME_TRANSFORMS_HOST_TOKENACCESS_H
