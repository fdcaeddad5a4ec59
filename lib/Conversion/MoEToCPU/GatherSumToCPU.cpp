//===- GatherSumToCPU.cpp - moe.gather_sum --------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A task is a block of tokens. The accumulators of a few vectors of columns
// stay in registers while a loop adds the choices of a token, in order.
//
//===----------------------------------------------------------------------===//

#include "Lowering.h"

using namespace mlir;
using namespace mlir::moe;

namespace {
class GatherSumLowering {
public:
  GatherSumLowering(GatherSumOp op, const CPUDescription &cpu)
      : op(op), lanes(cpu.getLanes()),
        columns(cast<MemRefType>(op.getInit().getType()).getDimSize(1)),
        element(cast<MemRefType>(op.getInit().getType()).getElementType()),
        b(op.getLoc(), op) {}

  LogicalResult run();

private:
  void buildToken(Value token);
  void buildColumns(Value token, Value column, int64_t width, Value mask);
  Value load(Value rows, Value row, Value column, Value mask);

  GatherSumOp op;
  int64_t lanes, columns;
  Type element;
  CPUBuilder b;
};
} // namespace

/// Loads a vector of a row as f32.
Value GatherSumLowering::load(Value rows, Value row, Value column, Value mask) {
  Value loaded = b.loadFirst(lanes, rows, {row, column},
                             b.sub(b.index(columns), column), mask);
  if (element.isF32())
    return loaded;
  return arith::ExtFOp::create(b, VectorType::get(lanes, b.getF32Type()),
                               loaded);
}

/// Computes `width` vectors of columns of one token.
void GatherSumLowering::buildColumns(Value token, Value column, int64_t width,
                                     Value mask) {
  auto f32 = VectorType::get(lanes, b.getF32Type());
  Value zero = arith::ConstantOp::create(b, b.getZeroAttr(f32));
  Value rows = memref::DimOp::create(b, op.getRows(), 0);
  auto loop = scf::ForOp::create(b, b.index(0), b.index(op.getTopK()),
                                 b.index(1), SmallVector<Value>(width, zero));
  {
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(loop.getBody());
    Value k = loop.getInductionVar();
    ValueRange sums = loop.getRegionIterArgs();
    Value row = b.toIndex(
        memref::LoadOp::create(b, op.getPositions(), ValueRange{token, k}));
    Value isRow =
        arith::CmpIOp::create(b, arith::CmpIPredicate::ult, row, rows);
    auto addRow = [&](Value source, Value row) {
      SmallVector<Value> added;
      for (int64_t i = 0; i < width; ++i) {
        Value x = load(source, row, b.add(column, i * lanes), mask);
        if (op.getWeights()) {
          Value weight =
              memref::LoadOp::create(b, op.getWeights(), ValueRange{token, k});
          x = arith::MulFOp::create(
              b, vector::BroadcastOp::create(b, f32, weight), x);
        }
        added.push_back(arith::AddFOp::create(b, sums[i], x));
      }
      scf::YieldOp::create(b, added);
    };
    auto choice = scf::IfOp::create(b, TypeRange(sums), isRow,
                                    /*withElseRegion=*/true);
    b.setInsertionPointToStart(choice.thenBlock());
    addRow(op.getRows(), row);
    b.setInsertionPointToStart(choice.elseBlock());
    if (op.getDropped())
      addRow(op.getDropped(), token);
    else
      scf::YieldOp::create(b, sums);
    b.setInsertionPointAfter(choice);
    scf::YieldOp::create(b, choice.getResults());
  }
  for (int64_t i = 0; i < width; ++i) {
    Value sum = loop.getResult(i);
    if (!element.isF32())
      sum = arith::TruncFOp::create(b, VectorType::get(lanes, element), sum);
    b.storeFirst(sum, op.getInit(), {token, b.add(column, i * lanes)},
                 b.sub(b.index(columns), column), mask);
  }
}

void GatherSumLowering::buildToken(Value token) {
  constexpr int64_t width = 4;
  int64_t wide = columns / (width * lanes);
  b.forEach(b.index(0), b.index(wide), [&](Value i) {
    buildColumns(token, b.mul(i, width * lanes), width, Value());
  });
  int64_t rest = wide * width * lanes;
  int64_t vectors = llvm::divideCeil(columns - rest, lanes);
  b.forEach(b.index(0), b.index(vectors), [&](Value i) {
    Value column = b.add(b.mul(i, lanes), rest);
    Value mask =
        vector::CreateMaskOp::create(b, VectorType::get(lanes, b.getI1Type()),
                                     b.sub(b.index(columns), column));
    buildColumns(token, column, 1, mask);
  });
}

LogicalResult GatherSumLowering::run() {
  for (Value rows : {op.getRows(), op.getDropped(), op.getInit()})
    if (rows && !cast<MemRefType>(rows.getType()).isLastDimUnitStride())
      return op.emitOpError("expected contiguous rows, got ") << rows.getType();
  // A task reads about 64 KiB of rows, enough to amortize its dispatch.
  int64_t taskTokens = std::max<int64_t>(
      1, (16 << 10) / std::max<int64_t>(1, op.getTopK() * columns));
  Value tokens = memref::DimOp::create(b, op.getInit(), 0);
  b.forEachTask(b.ceilDiv(tokens, taskTokens), [&](Value task) {
    Value first = b.mul(task, taskTokens);
    Value last = b.min(b.add(first, taskTokens), tokens);
    b.forEach(first, last, [&](Value token) { buildToken(token); });
  });
  op.erase();
  return success();
}

LogicalResult mlir::moe::lowerToCPU(GatherSumOp op, const CPUDescription &cpu) {
  return GatherSumLowering(op, cpu).run();
}
