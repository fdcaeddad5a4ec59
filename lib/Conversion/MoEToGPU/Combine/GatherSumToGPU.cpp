//===- GatherSumToGPU.cpp - moe.gather_sum --------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A block computes one token, a thread 16 bytes of its row at a time.
//
//===----------------------------------------------------------------------===//

#include "GatherSumEmitter.h"
#include "Lowering.h"

using namespace mlir;
using namespace mlir::moe;

static LLVM::LLVMFuncOp buildKernel(GatherSumOp op, DeviceLowering &lowering) {
  GPUBuilder b(op.getLoc(), op.getContext());
  Type element = op.getResult().getType().getElementType();
  int64_t columns = op.getResult().getType().getDimSize(1);
  int64_t vectors = columns / GatherSumEmitter::widthOf(element, columns);
  bool weighted = bool(op.getWeights()), dropped = bool(op.getDropped());
  KernelShape shape;
  shape.threads = std::clamp<int64_t>(llvm::alignTo(vectors, 32), 32, 256);
  auto kernel = createKernel(b, lowering.kernels, "gather_sum", shape,
                             3 + weighted + dropped, b.getI32Type());
  unsigned next = 0;
  GatherSumEmitter::Arrays arrays;
  arrays.rows = kernel.getArgument(next++);
  arrays.positions = kernel.getArgument(next++);
  if (weighted)
    arrays.weights = kernel.getArgument(next++);
  if (dropped)
    arrays.dropped = kernel.getArgument(next++);
  arrays.out = kernel.getArgument(next++);
  arrays.numRows = kernel.getArgument(next++);
  GatherSumEmitter sum(b, element, columns, op.getTopK(), arrays);
  Value token = b.block();
  b.loop(b.thread(), b.i32(vectors), b.i32(shape.threads),
         [&](Value vector) { sum.emit(token, vector); });
  return kernel;
}

Value mlir::moe::launchGatherSum(GatherSumOp op, Value tokens,
                                 DeviceLowering &lowering) {
  LLVM::LLVMFuncOp kernel = buildKernel(op, lowering);
  ImplicitLocOpBuilder b(op.getLoc(), lowering.rewriter);
  SmallVector<Value> inputs{op.getRows(), op.getPositions()};
  for (Value optional : {op.getWeights(), op.getDropped()})
    if (optional)
      inputs.push_back(optional);
  Value rows = arith::IndexCastOp::create(b, b.getI32Type(),
                                          extentOf(b, op.getRows(), 0));
  return launch(lowering, op.getLoc(), kernel, tokens, inputs, op.getInit(),
                rows)
      .front();
}

Lowered mlir::moe::lowerToGPU(GatherSumOp op, DeviceLowering &lowering,
                              std::string &why) {
  if (ShapedType::isDynamic(op.getResult().getType().getDimSize(1))) {
    why = "a dynamic number of columns";
    return failure();
  }
  ImplicitLocOpBuilder b(op.getLoc(), lowering.rewriter);
  Value tokens = extentOf(b, op.getInit(), 0);
  return SmallVector<Value>{launchGatherSum(op, tokens, lowering)};
}
