//===- DefaultChunk.h - Chunks of tokens that cost no speed -----*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_ANALYSIS_DEFAULTCHUNK_H
#define MOE_ANALYSIS_DEFAULTCHUNK_H

#include "mlir/Dialect/Func/IR/FuncOps.h"

namespace mlir::moe {

/// Returns the tokens of a chunk with which a call of many tokens on a CPU
/// needs little memory and is not slower: an expert gets 80 rows on average, so
/// that its weights are read for many rows, or the rows of a chunk take 30 MiB
/// if that is more. 0 if that is not below `maxTokens`, the most of a call, and
/// without a dispatch to experts whose rows are known. Whether tokens depend on
/// one another is not checked.
int64_t getDefaultChunk(func::FuncOp function, int64_t maxTokens);

} // namespace mlir::moe

#endif // MOE_ANALYSIS_DEFAULTCHUNK_H
