//===- FusedToGPU.cpp - moe.fused -----------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Combine/CombineEpilogue.h"
#include "Limits.h"
#include "Router/RouterKernel.h"

#include "mlir/IR/Matchers.h"

using namespace mlir;
using namespace mlir::moe;

int64_t mlir::moe::clearedCounters(Value value) {
  auto type = dyn_cast<RankedTensorType>(value.getType());
  DenseIntElementsAttr elements;
  if (!type || type.getRank() != 1 || !type.getElementType().isInteger(32) ||
      !matchPattern(value, m_Constant(&elements)) || !elements.isSplat() ||
      !elements.getSplatValue<APInt>().isZero())
    return 0;
  return elements.getNumElements();
}

Lowered mlir::moe::lowerToGPU(FusedOp op, DeviceLowering &lowering,
                              std::string &why) {
  if (std::optional<Router> router = Router::match(op))
    return lowerToGPU(op, *router, lowering, why);
  if (std::optional<CombineEpilogue> combine = CombineEpilogue::match(op))
    return lowerToGPU(*combine, lowering, why);
  return unsupported(why, "no kernel fuses these operations");
}
