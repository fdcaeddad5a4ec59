//===- Int8Kernel.cpp - Rows of integers times quantised weights ----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Products of integers accumulate in 32 bits (vpdpbusd), or in 16 bits where a
// CPU has no such instruction (vpmaddubsw), which is exact: PackedFormat
// bounds the sum of a group, and what leaves 16 bits in between comes back,
// since addition wraps. The first operand of these instructions has no sign.
// So codes become `value + offset`, and the accumulators start with `-offset`
// times the sum of the row's integers. All CPUs compute the same bits.
//
//===----------------------------------------------------------------------===//

#include "QuantizedKernelBuilder.h"
#include "moe/Dialect/MoE/IR/QuantizedRows.h"

using namespace mlir;
using namespace mlir::moe;

namespace {
class Int8KernelBuilder : public QuantizedKernelBuilder {
public:
  Int8KernelBuilder(func::FuncOp function, const Kernel &kernel,
                    const PackedFormat &format, int64_t rows)
      : QuantizedKernelBuilder(function, kernel, format, rows),
        i8(VectorType::get(4 * kernel.lanes, b.getI8Type())),
        i16(VectorType::get(2 * kernel.lanes, b.getI16Type())),
        codes(*format.getInt8Codes()), usesDot(kernel.depth == 4) {}

private:
  void buildConstants() override;
  SmallVector<Value> sumsOf(Value number, Value start, Value steps) override;
  Value finish(Value accumulator) override;
  SmallVector<Value> startsOf(Value group);
  Value decode(Value words, int64_t shift);
  Value dot(Value sum, Value weights, Value row);
  void step(Value byte, Value row, MutableArrayRef<Value> sums);
  SmallVector<Value> scaledSums(Value group, Value start);
  Value multiplyAdd(Value a, Value b);

  VectorType i8, i16; // one vector
  Int8Codes codes;
  bool usesDot;
  Value table; // of value + offset
};
} // namespace

void Int8KernelBuilder::buildConstants() {
  if (codes.isLinear())
    return;
  // The lookup is in each 16 bytes.
  SmallVector<APInt> bytes;
  for (int64_t i = 0; i < i8.getNumElements(); ++i)
    bytes.emplace_back(8, codes.values[i % 16] + codes.offset);
  table = arith::ConstantOp::create(b, DenseElementsAttr::get(i8, bytes));
}

/// Returns the sums of the products of pairs of i16, in i32.
Value Int8KernelBuilder::multiplyAdd(Value x, Value y) {
  return call(kernel.lanes == 16 ? "llvm.x86.avx512.pmaddw.d.512"
                                 : "llvm.x86.avx2.pmadd.wd",
              i32, {x, y});
}

/// Returns what the accumulators of each row start with.
SmallVector<Value> Int8KernelBuilder::startsOf(Value group) {
  VectorType type = usesDot ? i32 : i16;
  SmallVector<Value> starts(rows, zero(type));
  if (codes.offset == 0)
    return starts;
  for (int64_t i = 0; i < rows; ++i) {
    Value byte = b.add(b.add(firsts[i], group), QuantizedRows::sumsByte);
    Value sums = broadcastRowBits(byte, i16);
    Value factor = splat(i16, -codes.offset);
    starts[i] = usesDot ? multiplyAdd(sums, factor)
                        : arith::MulIOp::create(b, sums, factor).getResult();
  }
  return starts;
}

/// Returns `value + offset` of the codes in bits `shift` to `shift + 3` of each
/// byte.
Value Int8KernelBuilder::decode(Value words, int64_t shift) {
  Value mask = splat(i32, 0x0f0f0f0f);
  Value bits = arith::AndIOp::create(b, shiftRight(words, shift), mask);
  bits = bitCast(i8, bits);
  if (codes.isLinear())
    return bits;
  return call(kernel.lanes == 16 ? "llvm.x86.avx512.pshuf.b.512"
                                 : "llvm.x86.avx2.pshuf.b",
              i8, {table, bits});
}

/// Adds the products of four integers of a row and of each column.
Value Int8KernelBuilder::dot(Value sum, Value weights, Value row) {
  if (usesDot)
    return call(kernel.lanes == 16 ? "llvm.x86.avx512.vpdpbusd.512"
                                   : "llvm.x86.avx512.vpdpbusd.256",
                i32, {sum, weights, row});
  Value pairs = call(kernel.lanes == 16 ? "llvm.x86.avx512.pmaddubs.w.512"
                                        : "llvm.x86.avx2.pmadd.ub.sw",
                     i16, {weights, row});
  return arith::AddIOp::create(b, sum, pairs);
}

/// Adds the products of eight elements, whose weights start at `byte` and whose
/// integers at byte `row` of each row.
void Int8KernelBuilder::step(Value byte, Value row,
                             MutableArrayRef<Value> sums) {
  SmallVector<Value> words;
  for (int64_t j = 0; j < kernel.vectors; ++j)
    words.push_back(loadWeights(i32, b.add(byte, 4 * j * kernel.lanes)));
  for (int64_t half = 0; half < 2; ++half) {
    SmallVector<Value> weights;
    for (Value word : words)
      weights.push_back(decode(word, 4 * half));
    for (int64_t i = 0; i < rows; ++i) {
      Value quad = broadcastRowBits(b.add(b.add(firsts[i], row), 4 * half), i8);
      for (int64_t j = 0; j < kernel.vectors; ++j) {
        Value &sum = sums[i * kernel.vectors + j];
        sum = dot(sum, weights[j], quad);
      }
    }
  }
}

/// Returns the sums over 32 elements, times the scales of the rows. `group` is
/// their byte in a row, `start` that of their weights.
SmallVector<Value> Int8KernelBuilder::scaledSums(Value group, Value start) {
  SmallVector<Value> inits;
  for (Value init : startsOf(group))
    inits.append(kernel.vectors, init);
  auto loop = scf::ForOp::create(
      b, b.index(0), b.index(QuantizedRows::group / PackedFormat::step),
      b.index(1), inits);
  {
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(loop.getBody());
    SmallVector<Value> sums(loop.getRegionIterArgs());
    Value each = loop.getInductionVar();
    step(b.add(start, b.mul(each, 4 * kernel.getColumns())),
         b.add(group, b.mul(each, PackedFormat::step)), sums);
    scf::YieldOp::create(b, sums);
  }
  SmallVector<Value> results;
  for (int64_t i = 0; i < rows; ++i) {
    Value scale = broadcastRowBits(
        b.add(b.add(firsts[i], group), QuantizedRows::scaleByte), f32);
    for (int64_t j = 0; j < kernel.vectors; ++j) {
      Value sum = loop.getResult(i * kernel.vectors + j);
      if (!usesDot)
        sum = multiplyAdd(sum, splat(i16, 1));
      sum = arith::SIToFPOp::create(b, f32, sum);
      results.push_back(arith::MulFOp::create(b, sum, scale));
    }
  }
  return results;
}

SmallVector<Value> Int8KernelBuilder::sumsOf(Value number, Value start,
                                             Value steps) {
  int64_t parts = format.group / QuantizedRows::group;
  Value group = b.mul(number, parts * QuantizedRows::bytes);
  if (parts == 1)
    return scaledSums(group, start);
  constexpr int64_t stepsOfPart = QuantizedRows::group / PackedFormat::step;
  SmallVector<Value> zeros(rows * kernel.vectors, zero(f32));
  auto loop = scf::ForOp::create(b, b.index(0), b.div(steps, stepsOfPart),
                                 b.index(1), zeros);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(loop.getBody());
  Value part = loop.getInductionVar();
  SmallVector<Value> sums = scaledSums(
      b.add(group, b.mul(part, QuantizedRows::bytes)),
      b.add(start, b.mul(part, 4 * stepsOfPart * kernel.getColumns())));
  for (auto [sum, all] : llvm::zip(sums, loop.getRegionIterArgs()))
    sum = arith::AddFOp::create(b, all, sum);
  scf::YieldOp::create(b, sums);
  return llvm::to_vector_of<Value>(loop.getResults());
}

Value Int8KernelBuilder::finish(Value accumulator) {
  if (codes.factor == 1)
    return accumulator;
  Value factor = arith::ConstantOp::create(
      b, DenseElementsAttr::get(f32, 1 / codes.factor));
  return arith::MulFOp::create(b, accumulator, factor);
}

void mlir::moe::buildInt8Kernel(func::FuncOp function, const Kernel &kernel,
                                const PackedFormat &format, int64_t rows) {
  Int8KernelBuilder(function, kernel, format, rows).build();
}
