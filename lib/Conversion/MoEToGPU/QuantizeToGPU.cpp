//===- QuantizeToGPU.cpp - moe.quantize -----------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A warp quantizes one block of a row, which stays in its registers. Each lane
// loads four adjacent columns at a time, or one if rows are not aligned for
// vectors.
//
//===----------------------------------------------------------------------===//

#include "Builder/KernelArguments.h"
#include "Limits.h"
#include "Lowering.h"
#include "moe/Analysis/KernelModel.h"

#include "mlir/Dialect/Math/IR/Math.h"

using namespace mlir;
using namespace mlir::moe;

static constexpr int64_t numWarps = 8;
/// Columns that a warp holds in its registers.
static constexpr int64_t maxColumns = 1024;
/// The largest finite value of f8E4M3FN.
static constexpr double maxValue = 448.0;

/// Blocks of a row.
static int64_t numBlocksOf(QuantizeOp op) {
  return cast<RankedTensorType>(op.getScales().getType()).getDimSize(1);
}

namespace {
class QuantizeKernel {
public:
  /// `results` are destinations that the launch replaces.
  QuantizeKernel(QuantizeOp op, Value blockCount,
                 MutableArrayRef<Value> results, DeviceLowering &lowering)
      : op(op), lowering(lowering), b(op.getLoc(), op.getContext()),
        element(op.getSource().getType().getElementType()), columns(op.getK()),
        blocks(numBlocksOf(op)),
        block(std::min(op.getScale().getBlockColumns(), columns)),
        width(columns % 4 == 0 && block % 4 == 0 ? 4 : 1) {
    arguments.input(op.getSource(), rows);
    arguments.output(results[0], quantized);
    arguments.output(results[1], scales);
    arguments.scalar(blockCount, this->blockCount);
  }

  /// Builds the kernel; each warp quantizes blocks of rows in a grid-stride
  /// loop.
  LLVM::LLVMFuncOp build();
  void launch(Value grid) {
    arguments.launch(lowering.rewriter, build(), grid);
  }

private:
  VectorType vectorOf(Type type) { return VectorType::get(width, type); }
  Value splat(Value scalar) {
    return vector::BroadcastOp::create(b, vectorOf(scalar.getType()), scalar);
  }
  void quantizeBlock(Value index);

  QuantizeOp op;
  DeviceLowering &lowering;
  GPUBuilder b;
  Type element;
  int64_t columns, blocks, block, width;
  KernelArguments arguments;
  Value rows, quantized, scales, blockCount;
};
} // namespace

/// Quantizes block `index` (i64) of all blocks, in row-major order.
void QuantizeKernel::quantizeBlock(Value index) {
  Type i64 = b.getI64Type(), f32 = b.getF32Type();
  Value row = b.div(index, blocks), blockOfRow = b.rem(index, blocks);
  Value first = b.mul(blockOfRow, block);
  Value lane = arith::ExtUIOp::create(b, i64, b.lane());
  Value begin = b.mul(row, columns);
  SmallVector<Value> offsets, inside, values;
  Value maximum = arith::ConstantOp::create(b, b.getZeroAttr(vectorOf(f32)));
  for (int64_t from = 0; from < block; from += GPUBuilder::warpSize * width) {
    Value within = b.add(b.mul(lane, width), from);
    Value column = b.add(first, within);
    Value valid = b.both(b.below(within, block), b.below(column, columns));
    // A lane without columns loads the first ones; they do not change the
    // maximum.
    Value offset = b.add(begin, b.select(valid, column, first));
    Value x = b.load(vectorOf(element), b.at(rows, element, offset),
                     width * element.getIntOrFloatBitWidth() / 8);
    x = b.toFloat(x, vectorOf(f32));
    maximum = arith::MaximumFOp::create(b, maximum, math::AbsFOp::create(b, x));
    offsets.push_back(offset);
    inside.push_back(valid);
    values.push_back(x);
  }
  Value own = vector::ExtractOp::create(b, maximum, int64_t(0));
  for (int64_t i = 1; i < width; ++i)
    own = arith::MaximumFOp::create(b, own,
                                    vector::ExtractOp::create(b, maximum, i));
  Value scale = arith::DivFOp::create(b, b.maxWarp(own), b.f32(maxValue));
  b.ifThen(b.equal(b.lane(), 0), [&] { b.storeAt(scale, scales, index); });
  Value isZero =
      arith::CmpFOp::create(b, arith::CmpFPredicate::OEQ, scale, b.f32(0.0));
  Value divisor = splat(b.select(isZero, b.f32(1.0), scale));
  Value high = splat(b.f32(maxValue)), low = splat(b.f32(-maxValue));
  for (auto [offset, valid, x] : llvm::zip(offsets, inside, values)) {
    Value y = arith::DivFOp::create(b, x, divisor);
    y = arith::MinimumFOp::create(b, y, high);
    y = arith::MaximumFOp::create(b, y, low);
    y = arith::TruncFOp::create(
        b, vectorOf(Float8E4M3FNType::get(b.getContext())), y);
    y = arith::BitcastOp::create(b, vectorOf(b.getI8Type()), y);
    b.ifThen(valid, [&, offset = offset] {
      b.store(y, b.at(quantized, b.getI8Type(), offset), width);
    });
  }
}

LLVM::LLVMFuncOp QuantizeKernel::build() {
  KernelShape shape;
  shape.threads = numWarps * GPUBuilder::warpSize;
  auto kernel = arguments.createKernel(b, lowering.kernels, "quantize", shape);
  // Rows that a kernel wrote are grouped ones, others those of tokens.
  MemoryWork work;
  double rowBytes =
      double(columns * (element.getIntOrFloatBitWidth() + 8)) / 8 +
      double(blocks) * 4;
  (op.getSource().getDefiningOp<moe_rt::LaunchOp>() ? work.bytesPerRow
                                                    : work.bytesPerToken) =
      rowBytes;
  kernel->setAttr(workAttrName, work.toAttr(op.getContext()));
  Value first = b.add(b.mul(b.block(), numWarps), b.warp());
  Value step = b.mul(b.numBlocks(), numWarps);
  b.loop(b.toI64(first), blockCount, b.toI64(step),
         [&](Value index) { quantizeBlock(index); });
  return kernel;
}

Lowered mlir::moe::lowerToGPU(QuantizeOp op, DeviceLowering &lowering,
                              std::string &why) {
  Type codes = op.getFormat().getCodes().getElement();
  if (!op.isRowwise() || !isa<Float8E4M3FNType>(codes) ||
      !op.getScale().getElement().isF32())
    return unsupported(why, "a format other than rows of f8E4M3FN with scales "
                            "of f32");
  int64_t blocks = numBlocksOf(op);
  if (std::min(op.getScale().getBlockColumns(), op.getK()) > maxColumns)
    return unsupported(why,
                       "blocks of more than " + Twine(maxColumns) + " columns");
  if (op.getK() == 0)
    return unsupported(why, "no columns");
  HostBuilder b(op.getLoc(), lowering.rewriter);
  Value blockCount = b.mul(b.extent(op.getSource(), 0), blocks);
  // At most one wave.
  Value maxGrid = b.mul(moe_rt::MultiprocessorsOp::create(b), b.index(8));
  Value grid = b.min(b.ceilDiv(blockCount, numWarps), maxGrid);
  SmallVector<Value> results;
  for (Value result : op->getResults()) {
    auto type = cast<RankedTensorType>(result.getType());
    results.push_back(b.empty(
        {b.mixedExtent(op.getSource(), 0), b.getIndexAttr(type.getDimSize(1))},
        type.getElementType()));
  }
  QuantizeKernel(op, blockCount, results, lowering).launch(grid);
  return results;
}
