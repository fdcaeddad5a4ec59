//===- FusedToGPU.cpp - moe.fused -----------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Combine/CombineEpilogue.h"
#include "Limits.h"
#include "Router/RouterKernel.h"

#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/Matchers.h"

using namespace mlir;
using namespace mlir::moe;

bool mlir::moe::areClearedCounters(Value value) {
  auto type = dyn_cast<RankedTensorType>(value.getType());
  if (!type || type.getRank() != 1 || !type.getElementType().isInteger(32))
    return false;
  if (auto splat = value.getDefiningOp<tensor::SplatOp>())
    return matchPattern(splat.getInput(), m_Zero());
  DenseIntElementsAttr elements;
  return matchPattern(value, m_Constant(&elements)) && elements.isSplat() &&
         elements.getSplatValue<APInt>().isZero();
}

Lowered mlir::moe::lowerToGPU(FusedOp op, DeviceLowering &lowering,
                              std::string &why) {
  if (std::optional<Router> router = Router::match(op))
    return lowerToGPU(op, *router, lowering, why);
  if (std::optional<CombineEpilogue> combine = CombineEpilogue::match(op)) {
    combine->tokens =
        lowering.tokensOfPositions.lookup(combine->combine.getPositions());
    return lowerToGPU(*combine, lowering, why);
  }
  return unsupported(why, "no kernel fuses these operations");
}
