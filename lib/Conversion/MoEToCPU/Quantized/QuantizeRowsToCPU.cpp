//===- QuantizeRowsToCPU.cpp - moe.quantize_rows --------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "../Lowering.h"
#include "moe/Dialect/MoE/IR/PackedFormat.h"
#include "moe/Dialect/MoE/IR/QuantizedRows.h"

#include "mlir/Dialect/Math/IR/Math.h"

using namespace mlir;
using namespace mlir::moe;

namespace {
/// Lowers to tasks on blocks of rows, which are loops over groups.
class QuantizeRowsLowering {
public:
  QuantizeRowsLowering(QuantizeRowsOp op, const CPUDescription &cpu)
      : op(op), lanes(cpu.getLanes()), b(op.getLoc(), op),
        f32(VectorType::get(lanes, b.getF32Type())),
        i32(VectorType::get(lanes, b.getI32Type())) {}

  LogicalResult run();

private:
  Value splat(float value) {
    return arith::ConstantOp::create(b, DenseElementsAttr::get(f32, value));
  }
  Value constant(int64_t value) {
    return arith::ConstantIntOp::create(b, value, 32);
  }
  Value scalar(float value) {
    return arith::ConstantOp::create(b, b.getF32FloatAttr(value));
  }
  void buildGroup(Value row, Value number);
  SmallVector<Value> load(Value row, Value column);
  Value maximum(ArrayRef<Value> vectors);
  SmallVector<Value> round(ArrayRef<Value> vectors, Value factor);
  Value sumsOf(ArrayRef<Value> integers);
  Value separate(Value sums);
  void store(Value vector, Value row, Value byte);

  QuantizeRowsOp op;
  int64_t lanes;
  CPUBuilder b;
  VectorType f32, i32;
};
} // namespace

/// Loads a group of elements in f32.
SmallVector<Value> QuantizeRowsLowering::load(Value row, Value column) {
  Type element = cast<MemRefType>(op.getRows().getType()).getElementType();
  SmallVector<Value> vectors;
  for (int64_t first = 0; first < QuantizedRows::group; first += lanes) {
    Value x =
        vector::LoadOp::create(b, VectorType::get(lanes, element), op.getRows(),
                               ValueRange{row, b.add(column, first)});
    if (!element.isF32())
      x = arith::ExtFOp::create(b, f32, x);
    vectors.push_back(x);
  }
  return vectors;
}

/// Returns the largest magnitude, or NaN if there is one.
Value QuantizeRowsLowering::maximum(ArrayRef<Value> vectors) {
  Value most;
  for (Value x : vectors) {
    Value magnitude = math::AbsFOp::create(b, x);
    most = most ? arith::MaximumFOp::create(b, most, magnitude).getResult()
                : magnitude;
  }
  return vector::ReductionOp::create(b, vector::CombiningKind::MAXIMUMF, most);
}

/// Returns `x · factor`, rounded to integers in the low bits. Adding 1.5 · 2^23
/// rounds to nearest even and, unlike a conversion, has a result for any
/// number.
SmallVector<Value> QuantizeRowsLowering::round(ArrayRef<Value> vectors,
                                               Value factor) {
  constexpr float magic = 12582912.0f;
  constexpr int64_t bitsOfMagic = 0x4b400000;
  Value factors = vector::BroadcastOp::create(b, f32, factor);
  SmallVector<Value> integers;
  for (Value x : vectors) {
    Value shifted = vector::FMAOp::create(b, x, factors, splat(magic));
    Value bits = arith::BitcastOp::create(b, i32, shifted);
    Value base = arith::ConstantOp::create(
        b, DenseElementsAttr::get(i32, APInt(32, bitsOfMagic)));
    integers.push_back(arith::SubIOp::create(b, bits, base));
  }
  return integers;
}

/// Returns two sums of integers: that of even elements in the low half, that of
/// odd ones in the high half, which has borrowed where the other is negative.
Value QuantizeRowsLowering::sumsOf(ArrayRef<Value> integers) {
  Value sum = integers.front();
  for (Value x : integers.drop_front())
    sum = arith::AddIOp::create(b, sum, x);
  SmallVector<APInt> weights;
  for (int64_t lane = 0; lane < lanes; ++lane)
    weights.emplace_back(32, lane % 2 == 0 ? 1 : 1 << 16);
  Value weight =
      arith::ConstantOp::create(b, DenseElementsAttr::get(i32, weights));
  sum = arith::MulIOp::create(b, sum, weight);
  return vector::ReductionOp::create(b, vector::CombiningKind::ADD, sum);
}

/// Returns two sums as i16 in an i32.
Value QuantizeRowsLowering::separate(Value sums) {
  Value borrowed = arith::AndIOp::create(
      b, arith::ShLIOp::create(b, sums, constant(1)), constant(1 << 16));
  return arith::AddIOp::create(b, sums, borrowed);
}

/// Stores the bytes of a vector.
void QuantizeRowsLowering::store(Value vector, Value row, Value byte) {
  auto type = cast<VectorType>(vector.getType());
  int64_t bytes = type.getNumElements() * type.getElementTypeBitWidth() / 8;
  auto i8 = VectorType::get(bytes, b.getI8Type());
  if (type != i8)
    vector = vector::BitCastOp::create(b, i8, vector);
  vector::StoreOp::create(b, vector, op.getInit(), ValueRange{row, byte});
}

void QuantizeRowsLowering::buildGroup(Value row, Value number) {
  SmallVector<Value> x = load(row, b.mul(number, QuantizedRows::group));
  Value most = maximum(x);
  Value isZero = arith::CmpFOp::create(b, arith::CmpFPredicate::OLT, most,
                                       scalar(0x1p-119f));
  auto orZero = [&](Value value) {
    return arith::SelectOp::create(b, isZero, scalar(0), value);
  };
  Value scale = orZero(arith::DivFOp::create(b, most, scalar(127)));
  Value factor = orZero(arith::DivFOp::create(b, scalar(127), most));
  SmallVector<Value> integers = round(x, factor);

  Value byte = b.mul(number, QuantizedRows::bytes);
  auto narrow = VectorType::get(lanes, b.getI8Type());
  SmallVector<int64_t> order;
  for (int64_t lane = 0; lane < lanes; ++lane)
    order.push_back(lane / 4 * 4 + PackedFormat::rowOrder[lane % 4]);
  for (auto [i, each] : llvm::enumerate(integers)) {
    Value bytes = arith::TruncIOp::create(b, narrow, each);
    bytes = vector::ShuffleOp::create(b, bytes, bytes, order);
    store(bytes, row, b.add(byte, int64_t(i) * lanes));
  }
  auto one = [&](Value scalar) {
    return vector::BroadcastOp::create(b, VectorType::get(1, scalar.getType()),
                                       scalar);
  };
  store(one(scale), row, b.add(byte, QuantizedRows::scaleByte));
  ArrayRef<Value> all(integers);
  Value first = sumsOf(all.take_front(all.size() / 2));
  Value second = sumsOf(all.drop_front(all.size() / 2));
  Value sums[] = {arith::AddIOp::create(b, first, second), first, second};
  for (auto [i, each] : llvm::enumerate(sums))
    store(one(separate(each)), row,
          b.add(byte, QuantizedRows::sumsByte + 4 * int64_t(i)));
}

LogicalResult QuantizeRowsLowering::run() {
  for (Value rows : {op.getRows(), op.getInit()})
    if (!cast<MemRefType>(rows.getType()).isLastDimUnitStride())
      return op.emitOpError("expected contiguous rows, got ") << rows.getType();
  if (QuantizedRows::group / 2 % lanes != 0)
    return op.emitOpError("expected vectors of 128 to 512 bits, got ")
           << lanes * 32;
  // A task reads about 16 Ki elements, enough to amortize its dispatch.
  int64_t k = op.getK();
  int64_t taskRows = std::max<int64_t>(1, (16 << 10) / std::max<int64_t>(1, k));
  Value rows = memref::DimOp::create(b, op.getRows(), 0);
  b.forEachTask(b.ceilDiv(rows, taskRows), [&](Value task) {
    Value first = b.mul(task, taskRows);
    Value last = b.min(b.add(first, taskRows), rows);
    b.forEach(first, last, [&](Value row) {
      b.forEach(b.index(0), b.index(k / QuantizedRows::group),
                [&](Value number) { buildGroup(row, number); });
    });
  });
  op.erase();
  return success();
}

LogicalResult mlir::moe::lowerToCPU(QuantizeRowsOp op,
                                    const CPUDescription &cpu) {
  return QuantizeRowsLowering(op, cpu).run();
}
