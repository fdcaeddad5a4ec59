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

#include "Builder/KernelArguments.h"
#include "GatherSumEmitter.h"
#include "Limits.h"
#include "Lowering.h"
#include "moe/Analysis/KernelModel.h"

using namespace mlir;
using namespace mlir::moe;

Value mlir::moe::launchGatherSum(GatherSumOp op, Value tokens,
                                 int64_t minTokens, DeviceLowering &lowering) {
  HostBuilder host(op.getLoc(), lowering.rewriter);
  Value rows = host.toI32(host.extent(op.getRows(), 0));
  Value result = op.getInit();
  GatherSumEmitter::Arrays arrays;
  KernelArguments arguments;
  arguments.input(op.getRows(), arrays.rows);
  arguments.input(op.getPositions(), arrays.positions);
  arguments.input(op.getWeights(), arrays.weights);
  arguments.input(op.getDropped(), arrays.dropped);
  arguments.output(result, arrays.out);
  arguments.scalar(rows, arrays.numRows);

  GPUBuilder b(op.getLoc(), op.getContext());
  Type element = op.getResult().getType().getElementType();
  int64_t columns = op.getResult().getType().getDimSize(1);
  int64_t vectors = columns / GatherSumEmitter::widthOf(element, columns);
  KernelShape shape;
  shape.threads = std::clamp<int64_t>(llvm::alignTo(vectors, 32), 32, 256);
  LLVM::LLVMFuncOp kernel =
      arguments.createKernel(b, lowering.kernels, "gather_sum", shape);
  MemoryWork work;
  work.bytesPerRow = work.bytesPerToken =
      double(columns) * element.getIntOrFloatBitWidth() / 8;
  work.minTokens = minTokens;
  kernel->setAttr(workAttrName, work.toAttr(op.getContext()));
  GatherSumEmitter sum(b, element, columns, op.getTopK(), arrays);
  Value token = b.block();
  b.loop(b.thread(), b.i32(vectors), b.i32(shape.threads),
         [&](Value vector) { sum.emit(token, vector); });
  arguments.launch(lowering.rewriter, kernel, tokens);
  return result;
}

Lowered mlir::moe::lowerToGPU(GatherSumOp op, DeviceLowering &lowering,
                              std::string &why) {
  if (ShapedType::isDynamic(op.getResult().getType().getDimSize(1)))
    return unsupported(why, "a dynamic number of columns");
  HostBuilder b(op.getLoc(), lowering.rewriter);
  Value tokens = b.extent(op.getInit(), 0);
  return SmallVector<Value>{
      launchGatherSum(op, tokens, /*minTokens=*/1, lowering)};
}
