//===- GatherSumToGPU.cpp - moe.gather_sum --------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A block has one token, a thread 16 bytes of its row at a time. Rows of several
// choices are on their way at once; they are added in order.
//
//===----------------------------------------------------------------------===//

#include "Lowering.h"

using namespace mlir;
using namespace mlir::moe;

namespace {
class GatherSumKernel {
public:
  GatherSumKernel(GatherSumOp op, DeviceLowering &lowering)
      : op(op), lowering(lowering), b(op.getLoc(), op.getContext()),
        element(op.getResult().getType().getElementType()),
        columns(op.getResult().getType().getDimSize(1)), topK(op.getTopK()) {
    int64_t most = 128 / element.getIntOrFloatBitWidth();
    while (columns % most != 0)
      most /= 2;
    width = most;
    vectors = columns / width;
    threads = std::clamp<int64_t>(llvm::alignTo(vectors, 32), 32, 256);
  }

  LLVM::LLVMFuncOp build();

private:
  Value loadVector(Value base, Value row, Value vector);
  Value splat(Value scalar);

  GatherSumOp op;
  DeviceLowering &lowering;
  GPUBuilder b;
  Type element;
  int64_t columns, topK, width, vectors, threads;
};
} // namespace

/// Part of a row, in f32.
Value GatherSumKernel::loadVector(Value base, Value row, Value vector) {
  Value offset = b.add(b.mul(b.toI64(row), columns),
                       b.toI64(b.mul(vector, width)));
  auto type = VectorType::get(width, element);
  Value loaded = b.load(type, b.at(base, element, offset),
                        width * element.getIntOrFloatBitWidth() / 8);
  return b.toFloat(loaded, VectorType::get(width, b.getF32Type()));
}

Value GatherSumKernel::splat(Value scalar) {
  return vector::BroadcastOp::create(
      b, VectorType::get(width, scalar.getType()), scalar);
}

LLVM::LLVMFuncOp GatherSumKernel::build() {
  bool weighted = bool(op.getWeights()), dropped = bool(op.getDropped());
  KernelShape shape;
  shape.threads = threads;
  auto kernel = createKernel(b, lowering.kernels, "gather_sum", shape,
                             3 + weighted + dropped, b.getI32Type());
  unsigned next = 0;
  Value rows = kernel.getArgument(next++);
  Value positions = kernel.getArgument(next++);
  Value weights = weighted ? kernel.getArgument(next++) : Value();
  Value other = dropped ? kernel.getArgument(next++) : Value();
  Value out = kernel.getArgument(next++);
  Value numRows = kernel.getArgument(next++);

  Value token = b.block();
  // A choice without a row reads one all the same, and does not use it: the first,
  // or where there is none the token's own of the result.
  Value none = b.equal(numRows, 0);
  rows = b.select(none, out, rows);
  Value unused = b.select(none, token, b.i32(0));
  Value first = b.mul(b.toI64(token), topK);
  auto f32 = VectorType::get(width, b.getF32Type());
  b.loop(b.thread(), b.i32(vectors), b.i32(threads), [&](Value vector) {
    Value sum = arith::ConstantOp::create(b, b.getZeroAttr(f32));
    constexpr int64_t atOnce = 8;
    for (int64_t start = 0; start < topK; start += atOnce) {
      SmallVector<Value> terms, isRow;
      for (int64_t k = start; k < std::min(topK, start + atOnce); ++k) {
        Value row = b.loadAt(b.getI32Type(), positions, b.add(first, k));
        // A number is below as an unsigned one only if it is not negative.
        isRow.push_back(b.below(row, numRows));
        Value term =
            loadVector(rows, b.select(isRow.back(), row, unused), vector);
        if (dropped)
          term = b.select(isRow.back(), term, loadVector(other, token, vector));
        terms.push_back(term);
      }
      for (auto [k, term] : llvm::enumerate(terms)) {
        if (weighted)
          term = arith::MulFOp::create(
              b, splat(b.loadAt(b.getF32Type(), weights,
                                b.add(first, start + int64_t(k)))),
              term);
        Value added = arith::AddFOp::create(b, sum, term);
        sum = dropped ? added : b.select(isRow[k], added, sum);
      }
    }
    Value result = b.toFloat(sum, VectorType::get(width, element));
    Value offset = b.add(b.mul(b.toI64(token), columns),
                         b.toI64(b.mul(vector, width)));
    b.store(result, b.at(out, element, offset),
            width * element.getIntOrFloatBitWidth() / 8);
  });
  return kernel;
}

Lowered mlir::moe::lowerToGPU(GatherSumOp op, DeviceLowering &lowering,
                              std::string &why) {
  if (ShapedType::isDynamic(op.getResult().getType().getDimSize(1))) {
    why = "a dynamic number of columns";
    return failure();
  }
  LLVM::LLVMFuncOp kernel = GatherSumKernel(op, lowering).build();
  ImplicitLocOpBuilder b(op.getLoc(), lowering.rewriter);
  SmallVector<Value> inputs{op.getRows(), op.getPositions()};
  for (Value optional : {op.getWeights(), op.getDropped()})
    if (optional)
      inputs.push_back(optional);
  Value rows = arith::IndexCastOp::create(b, b.getI32Type(),
                                          extentOf(b, op.getRows(), 0));
  return launch(lowering, op.getLoc(), kernel, extentOf(b, op.getInit(), 0),
                inputs, op.getInit(), rows);
}
