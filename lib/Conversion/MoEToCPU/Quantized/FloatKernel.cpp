//===- FloatKernel.cpp - Rows of floats times quantised weights -----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "QuantizedKernelBuilder.h"

#include "mlir/Dialect/X86Vector/X86VectorDialect.h"

using namespace mlir;
using namespace mlir::moe;

namespace {
/// Looks up the values of codes in registers; weights are exact.
class FloatKernelBuilder : public QuantizedKernelBuilder {
public:
  FloatKernelBuilder(func::FuncOp function, const Kernel &kernel,
                     const PackedFormat &format, int64_t rows)
      : QuantizedKernelBuilder(function, kernel, format, rows),
        pairs(VectorType::get(2 * kernel.lanes, kernel.element)),
        usesDot(kernel.depth == 2) {}

private:
  void buildConstants() override;
  SmallVector<Value> sumsOf(Value number, Value start, Value steps) override;
  Value lookUpPairs(Value words, int64_t pair);
  Value lookUp(Value words, int64_t k);
  Value rowElement(Value offset);
  void step(Value byte, Value k, MutableArrayRef<Value> sums);

  VectorType pairs;
  bool usesDot;
  Value table, upperTable; // of the values of codes
};
} // namespace

/// True if codes with bit 3 are the negated values of those without.
static bool isSigned(const PackedFormat &format) {
  for (int64_t code = 0; code < 8; ++code)
    if (format.values[code + 8] != -format.values[code])
      return false;
  return true;
}

void FloatKernelBuilder::buildConstants() {
  ArrayRef<float> values(format.values);
  if (usesDot) {
    // The 16 values twice, so that bit 4 of an index does not matter.
    SmallVector<APInt> words;
    for (int64_t i = 0; i < 32; ++i) {
      APFloat value(values[i % 16]);
      bool inexact;
      value.convert(APFloat::BFloat(), APFloat::rmNearestTiesToEven, &inexact);
      words.push_back(value.bitcastToAPInt());
    }
    auto type = VectorType::get(32, b.getI16Type());
    table = arith::ConstantOp::create(b, DenseElementsAttr::get(type, words));
    return;
  }
  auto constant = [&](ArrayRef<float> entries) -> Value {
    return arith::ConstantOp::create(b, DenseElementsAttr::get(f32, entries));
  };
  table = constant(values.take_front(kernel.lanes));
  if (kernel.lanes == 8)
    upperTable = constant(values.drop_front(8));
}

/// Returns the values of elements 2 · pair and 2 · pair + 1 of a step, in bf16.
Value FloatKernelBuilder::lookUpPairs(Value words, int64_t pair) {
  static constexpr int64_t shifts[] = {0, 8, 4, 12};
  auto halves = VectorType::get(2 * kernel.lanes, b.getI16Type());
  Value codes = shiftRight(bitCast(halves, words), shifts[pair]);
  // The lookup ignores all bits of an index above the lowest five.
  Value values = call("llvm.x86.avx512.permvar.hi.512", halves, {table, codes});
  return bitCast(VectorType::get(2 * kernel.lanes, b.getBF16Type()), values);
}

/// Returns the value of element `k` of a step, in f32.
Value FloatKernelBuilder::lookUp(Value words, int64_t k) {
  int64_t position =
      llvm::find(PackedFormat::order, k) - PackedFormat::order.begin();
  Value codes = shiftRight(words, 4 * position);
  // Lookups ignore the bits of an index above those that they need.
  if (kernel.lanes == 16)
    return call("llvm.x86.avx512.permvar.sf.512", f32, {table, codes});
  Value low = call("llvm.x86.avx2.permps", f32, {table, codes});
  // Bit 3 of the code, as the sign.
  Value bit = arith::ShLIOp::create(b, codes, splat(i32, 28));
  if (isSigned(format)) {
    Value sign = arith::AndIOp::create(b, bit, splat(i32, int64_t(1) << 31));
    Value bits = arith::XOrIOp::create(b, bitCast(i32, low), sign);
    return bitCast(f32, bits);
  }
  Value high = call("llvm.x86.avx2.permps", f32, {upperTable, codes});
  Value isHigh =
      arith::CmpIOp::create(b, arith::CmpIPredicate::slt, bit, splat(i32, 0));
  return arith::SelectOp::create(b, isHigh, high, low);
}

/// Broadcasts an element of a row in f32.
Value FloatKernelBuilder::rowElement(Value offset) {
  Value scalar = memref::LoadOp::create(b, argument(Lhs), offset);
  if (!kernel.element.isF32())
    scalar = arith::ExtFOp::create(b, b.getF32Type(), scalar);
  return vector::BroadcastOp::create(b, f32, scalar);
}

/// Adds the products of eight elements along k, from `k` on, to the sums.
void FloatKernelBuilder::step(Value byte, Value k,
                              MutableArrayRef<Value> sums) {
  SmallVector<Value> words;
  for (int64_t j = 0; j < kernel.vectors; ++j)
    words.push_back(loadWeights(i32, b.add(byte, 4 * j * kernel.lanes)));
  int64_t width = usesDot ? 2 : 1;
  for (int64_t part = 0; part < PackedFormat::step / width; ++part) {
    SmallVector<Value> values;
    for (Value word : words)
      values.push_back(usesDot ? lookUpPairs(word, part) : lookUp(word, part));
    for (int64_t i = 0; i < rows; ++i) {
      Value offset = b.add(b.add(firsts[i], k), part * width);
      Value x = usesDot ? broadcastRowBits(offset, pairs) : rowElement(offset);
      for (int64_t j = 0; j < kernel.vectors; ++j) {
        Value &sum = sums[i * kernel.vectors + j];
        if (usesDot)
          sum = x86vector::DotBF16Op::create(b, f32, sum, x, values[j]);
        else
          sum = vector::FMAOp::create(b, x, values[j], sum);
      }
    }
  }
}

SmallVector<Value> FloatKernelBuilder::sumsOf(Value number, Value start,
                                              Value steps) {
  Value k = b.mul(number, format.group);
  SmallVector<Value> zeros(rows * kernel.vectors, zero(f32));
  auto loop = scf::ForOp::create(b, b.index(0), steps, b.index(1), zeros);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(loop.getBody());
  SmallVector<Value> sums(loop.getRegionIterArgs());
  Value each = loop.getInductionVar();
  step(b.add(start, b.mul(each, 4 * kernel.getColumns())),
       b.add(k, b.mul(each, PackedFormat::step)), sums);
  scf::YieldOp::create(b, sums);
  return llvm::to_vector_of<Value>(loop.getResults());
}

void mlir::moe::buildFloatKernel(func::FuncOp function, const Kernel &kernel,
                                 const PackedFormat &format, int64_t rows) {
  FloatKernelBuilder(function, kernel, format, rows).build();
}
