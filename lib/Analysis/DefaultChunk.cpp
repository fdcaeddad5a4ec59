//===- DefaultChunk.cpp - Chunks of tokens that cost no speed -------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Analysis/DefaultChunk.h"
#include "moe/Dialect/MoE/IR/MoE.h"

#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace mlir::moe;

/// Rows of an expert with which a kernel is as fast as with many more.
static constexpr int64_t rowsPerExpert = 80;
/// Memory that a call may take without regard to speed.
static constexpr int64_t chunkBytes = 30 << 20;

/// Returns the bytes of a row of a tensor; 0 of other values.
static int64_t bytesOfRow(Value value) {
  auto type = dyn_cast<RankedTensorType>(value.getType());
  if (!type || type.getRank() != 2 || type.isDynamicDim(1) ||
      !type.getElementType().isIntOrFloat())
    return 0;
  return llvm::divideCeil(type.getElementTypeBitWidth(), 8) *
         type.getDimSize(1);
}

/// Returns the bytes that a row of an expert needs: of the result, and of the
/// widest tensor in the body, which is there while the result is computed.
static int64_t bytesOfRow(ExpertOp expert) {
  int64_t widest = 0;
  for (Operation &op : expert.getBody().front())
    for (Value result : op.getResults()) {
      auto type = dyn_cast<RankedTensorType>(result.getType());
      if (type && !type.hasStaticShape())
        widest = std::max(widest, bytesOfRow(result));
    }
  return bytesOfRow(expert.getResult()) + widest;
}

int64_t mlir::moe::getDefaultChunk(func::FuncOp function, int64_t maxTokens) {
  int64_t byRows = 0, tokenBytes = 0;
  function.walk([&](DispatchOp dispatch) {
    if (dispatch.getIds().getType().isDynamicDim(1))
      return;
    int64_t choices = std::max<int64_t>(dispatch.getTopK(), 1);
    byRows = std::max<int64_t>(
        byRows,
        llvm::divideCeil(rowsPerExpert * dispatch.getNumExperts(), choices));
    for (Operation *user : dispatch.getGrouped().getUsers())
      if (auto expert = dyn_cast<ExpertOp>(user))
        tokenBytes += choices * bytesOfRow(expert);
  });
  if (byRows == 0 || tokenBytes == 0)
    return 0;
  int64_t chunk = llvm::alignTo(std::max(byRows, chunkBytes / tokenBytes), 16);
  return chunk < maxTokens ? chunk : 0;
}
