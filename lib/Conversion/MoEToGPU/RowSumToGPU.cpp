//===- RowSumToGPU.cpp - Sums of rows -------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A linalg.generic that sums the rows of a matrix of f32, as the dot products
// of a backward function. As a loop, a thread would read a row, and the threads
// of a warp rows that are apart: here a warp sums a row, 16 bytes of a lane at
// a time, in an order that depends on nothing but the number of columns.
//
//===----------------------------------------------------------------------===//

#include "Builder/KernelArguments.h"
#include "Lowering.h"
#include "moe/Analysis/KernelModel.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/IR/Matchers.h"

using namespace mlir;
using namespace mlir::moe;

static constexpr int64_t warpsInBlock = 8;

/// Returns the matrix whose rows `op` sums from 0 on; null if it does something
/// else.
static Value findSummedRows(linalg::GenericOp op) {
  if (!op.hasPureTensorSemantics() || op.getNumDpsInputs() != 1 ||
      op.getNumDpsInits() != 1)
    return {};
  Value rows = op.getDpsInputs().front();
  auto type = dyn_cast<RankedTensorType>(rows.getType());
  auto result = cast<RankedTensorType>(op.getResult(0).getType());
  MLIRContext *context = op.getContext();
  auto maps = op.getIndexingMapsArray();
  if (!type || type.getRank() != 2 || !type.getElementType().isF32() ||
      type.isDynamicDim(1) || type.getDimSize(1) % 4 != 0 ||
      type.getDimSize(0) != result.getDimSize(0) ||
      !result.getElementType().isF32() || !maps[0].isIdentity() ||
      maps[1] != AffineMap::get(2, 0, getAffineDimExpr(0, context)) ||
      op.getIteratorTypesArray()[1] != utils::IteratorType::reduction)
    return {};
  auto fill = op.getDpsInits().front().getDefiningOp<linalg::FillOp>();
  if (!fill || !matchPattern(fill.getInputs().front(), m_AnyZeroFloat()))
    return {};
  Block &body = *op.getBlock();
  auto yield = cast<linalg::YieldOp>(body.getTerminator());
  auto sum = yield.getValues().front().getDefiningOp<arith::AddFOp>();
  bool isSum = sum && llvm::hasNItems(body.begin(), body.end(), 2) &&
               llvm::is_contained(sum->getOperands(), body.getArgument(0)) &&
               llvm::is_contained(sum->getOperands(), body.getArgument(1));
  return isSum ? rows : Value();
}

bool mlir::moe::lowerRowSum(linalg::GenericOp op, DeviceLowering &lowering) {
  Value rows = findSummedRows(op);
  if (!rows)
    return false;
  HostBuilder host(op.getLoc(), lowering.rewriter);
  Value count = host.extent(rows, 0);
  Value sums = host.empty({host.mixedExtent(rows, 0)}, host.getF32Type());
  int64_t columns = cast<RankedTensorType>(rows.getType()).getDimSize(1);

  GPUBuilder b(op.getLoc(), op.getContext());
  Value in, out, total;
  KernelArguments arguments;
  arguments.input(rows, in);
  arguments.output(sums, out);
  arguments.scalar(count, total);
  KernelShape shape;
  shape.threads = warpsInBlock * GPUBuilder::warpSize;
  LLVM::LLVMFuncOp kernel =
      arguments.createKernel(b, lowering.kernels, "row_sum", shape);
  MemoryWork work;
  work.bytesPerRow = double(columns + 1) * 4;
  kernel->setAttr(workAttrName, work.toAttr(op.getContext()));

  constexpr int64_t width = 4; // elements of 16 bytes
  Type f32 = b.getF32Type();
  Value row = b.warpOfGrid(warpsInBlock);
  b.ifThen(b.less(row, total), [&] {
    Value start = b.at(in, f32, b.mul(row, columns)), lane = b.lane();
    Value sum =
        b.loop(lane, b.i32(columns / width), b.i32(GPUBuilder::warpSize),
               {b.f32(0.0)},
               [&](Value vector, ValueRange carried) {
                 Value loaded = b.load(VectorType::get(width, f32),
                                       b.at(start, f32, b.shiftLeft(vector, 2)),
                                       width * 4);
                 Value next = carried.front();
                 for (int64_t i = 0; i < width; ++i)
                   next = arith::AddFOp::create(
                       b, next, vector::ExtractOp::create(b, loaded, i));
                 return SmallVector<Value>{next};
               })
            .front();
    sum = b.sumWarp(sum);
    b.ifThen(b.equal(lane, 0), [&] { b.storeAt(sum, out, row); });
  });
  arguments.launch(lowering.rewriter, kernel,
                   host.ceilDiv(count, warpsInBlock));
  op.getResult(0).replaceAllUsesWith(sums);
  op.erase();
  return true;
}
