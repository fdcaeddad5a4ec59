//===- Int8Kernel.cpp - Rows of integers times quantised weights ----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Integers of 8 bits are multiplied in one of three ways. All compute the same
// sums, so the bits of a result do not depend on the processor.
//
// * Dot: vpdpbusd adds the products of four pairs of integers in 32 bits. Its
//   first operand has no sign, so codes become `value + offset`, and sums start
//   with `-offset` times the sum of the row's integers.
// * Int16: vpmaddubsw adds two products in 16 bits, likewise. That is exact if
//   the sum of a group fits 16 bits: what leaves them in between comes back,
//   since addition wraps.
// * Signed: for other codes. vpmaddubsw multiplies |value| and the integers of
//   the row with the sign of the value, and vpmaddwd widens the sums.
//
//===----------------------------------------------------------------------===//

#include "QuantizedKernelBuilder.h"
#include "moe/Dialect/MoE/IR/QuantizedRows.h"

#include "mlir/Dialect/Math/IR/Math.h"

using namespace mlir;
using namespace mlir::moe;

namespace {
enum class Multiplication { Dot, Int16, Signed };

class Int8KernelBuilder : public QuantizedKernelBuilder {
public:
  Int8KernelBuilder(func::FuncOp function, const Kernel &kernel,
                    const PackedFormat &format, int64_t rows)
      : QuantizedKernelBuilder(function, kernel, format, rows),
        i8(VectorType::get(4 * kernel.lanes, b.getI8Type())),
        i16(VectorType::get(2 * kernel.lanes, b.getI16Type())),
        codes(*format.getInt8Codes()),
        part(std::min(format.group, QuantizedRows::group)) {
    // A lane of 16 bits has half of the products.
    how = kernel.depth == 4          ? Multiplication::Dot
          : codes.fitInt16(part / 2) ? Multiplication::Int16
                                     : Multiplication::Signed;
  }

private:
  void buildConstants() override;
  Sums sumsOf(const Group &group) override;
  double getFactor() override { return codes.factor; }

  /// The elements of a group that share a scale of the rows: where they start
  /// in a row and in the weights, and where the sums of their integers are.
  struct Part {
    Value integers, scale, sums, weights;
  };
  Value startOf(const Part &part, int64_t row);
  Value valuesOf(Value codes);
  Value dot(Value sum, Value weights, Value row);
  void step(Value byte, Value row, MutableArrayRef<Value> sums);
  Sums scaledSums(const Part &part);
  Value multiplyAdd(Value x, Value y);

  VectorType i8, i16; // one vector
  Int8Codes codes;
  int64_t part; // elements
  Multiplication how;
  Value table; // of value + offset, or of values
};
} // namespace

void Int8KernelBuilder::buildConstants() {
  if (codes.table.empty())
    return;
  // The lookup is in each 16 bytes.
  int64_t offset = how == Multiplication::Signed ? 0 : codes.offset;
  SmallVector<APInt> bytes;
  for (int64_t i = 0; i < i8.getNumElements(); ++i)
    bytes.emplace_back(8, codes.table[i % 16] + offset, /*isSigned=*/true,
                       /*implicitTrunc=*/true);
  table = arith::ConstantOp::create(b, DenseElementsAttr::get(i8, bytes));
}

/// Returns the sums of the products of pairs of i16, in i32.
Value Int8KernelBuilder::multiplyAdd(Value x, Value y) {
  return call(kernel.lanes == 16 ? "llvm.x86.avx512.pmaddw.d.512"
                                 : "llvm.x86.avx2.pmadd.wd",
              i32, {x, y});
}

/// Returns what the sums of a row start with.
Value Int8KernelBuilder::startOf(const Part &part, int64_t row) {
  VectorType type = how == Multiplication::Int16 ? i16 : i32;
  if (how == Multiplication::Signed || codes.offset == 0)
    return zero(type);
  Value sums = broadcastRowBits(b.add(firsts[row], part.sums), i16);
  Value factor = splat(i16, -codes.offset);
  return how == Multiplication::Dot
             ? multiplyAdd(sums, factor)
             : arith::MulIOp::create(b, sums, factor).getResult();
}

/// Returns `value + offset` of codes, or with signs the values.
Value Int8KernelBuilder::valuesOf(Value bits) {
  Value bytes = bitCast(i8, bits);
  if (table)
    return call(kernel.lanes == 16 ? "llvm.x86.avx512.pshuf.b.512"
                                   : "llvm.x86.avx2.pshuf.b",
                i8, {table, bytes});
  bool isSigned = how == Multiplication::Signed;
  if (codes.flipsSign)
    return isSigned ? bytes : arith::XOrIOp::create(b, bytes, splat(i8, 0x80));
  return isSigned && codes.offset != 0
             ? arith::SubIOp::create(b, bytes, splat(i8, codes.offset))
             : bytes;
}

/// Adds the products of four integers of a row and of each column.
Value Int8KernelBuilder::dot(Value sum, Value weights, Value row) {
  bool isWide = kernel.lanes == 16;
  if (how == Multiplication::Dot)
    return call(isWide ? "llvm.x86.avx512.vpdpbusd.512"
                       : "llvm.x86.avx512.vpdpbusd.256",
                i32, {sum, weights, row});
  if (how == Multiplication::Signed) {
    if (isWide) {
      Value isNegative = arith::CmpIOp::create(b, arith::CmpIPredicate::slt,
                                               weights, zero(i8));
      row = arith::SelectOp::create(
          b, isNegative, arith::SubIOp::create(b, zero(i8), row), row);
    } else {
      row = call("llvm.x86.avx2.psign.b", i8, {row, weights});
    }
    weights = math::AbsIOp::create(b, weights);
  }
  Value pairs = call(isWide ? "llvm.x86.avx512.pmaddubs.w.512"
                            : "llvm.x86.avx2.pmadd.ub.sw",
                     i16, {weights, row});
  if (how == Multiplication::Signed)
    pairs = multiplyAdd(pairs, splat(i16, 1));
  return arith::AddIOp::create(b, sum, pairs);
}

/// Adds the products of a step, whose weights start at `byte` and whose
/// integers at byte `row` of each row.
void Int8KernelBuilder::step(Value byte, Value row,
                             MutableArrayRef<Value> sums) {
  SmallVector<SmallVector<Value>> quads;
  for (ArrayRef<Value> words : loadWords(byte))
    quads.push_back(unpack(words));
  for (int64_t quad = 0; quad < format.getStep() / 4; ++quad) {
    SmallVector<Value> weights;
    for (ArrayRef<Value> each : quads)
      weights.push_back(valuesOf(each[quad]));
    for (int64_t i = 0; i < rows; ++i) {
      Value x = broadcastRowBits(b.add(b.add(firsts[i], row), 4 * quad), i8);
      for (int64_t j = 0; j < kernel.vectors; ++j) {
        Value &sum = sums[i * kernel.vectors + j];
        sum = dot(sum, weights[j], x);
      }
    }
  }
}

/// Returns the sums over a part, times the scales of the rows.
QuantizedKernelBuilder::Sums Int8KernelBuilder::scaledSums(const Part &each) {
  SmallVector<Value> inits;
  for (int64_t i = 0; i < rows; ++i)
    inits.append(kernel.vectors, startOf(each, i));
  Value steps = b.index(part / format.getStep());
  int64_t bytes = format.getStepBytes() * kernel.getColumns();
  SmallVector<Value> integers =
      forEach(steps, inits, [&](Value number, ValueRange current) {
        SmallVector<Value> next(current);
        step(b.add(each.weights, b.mul(number, bytes)),
             b.add(each.integers, b.mul(number, format.getStep())), next);
        return next;
      });
  Sums result;
  for (int64_t i = 0; i < rows; ++i) {
    Value scale = broadcastRowBits(b.add(firsts[i], each.scale), f32);
    auto scaled = [&](Value sum) -> Value {
      return arith::MulFOp::create(b, arith::SIToFPOp::create(b, f32, sum),
                                   scale);
    };
    for (int64_t j = 0; j < kernel.vectors; ++j) {
      Value sum = integers[i * kernel.vectors + j];
      if (how == Multiplication::Int16)
        sum = multiplyAdd(sum, splat(i16, 1));
      result.products.push_back(scaled(sum));
    }
    if (needsRowSums()) {
      Value sums = broadcastRowBits(b.add(firsts[i], each.sums), i16);
      result.rows.push_back(scaled(multiplyAdd(sums, splat(i16, 1))));
    }
  }
  return result;
}

QuantizedKernelBuilder::Sums Int8KernelBuilder::sumsOf(const Group &group) {
  constexpr int64_t elements = QuantizedRows::group;
  if (part < elements) {
    // Half of the elements that share a scale of the rows.
    Value row = b.mul(b.div(group.number, 2), QuantizedRows::bytes);
    Value half = b.rem(group.number, 2);
    return scaledSums(
        {b.add(row, b.mul(half, part)), b.add(row, QuantizedRows::scaleByte),
         b.add(b.add(row, b.mul(half, 4)), QuantizedRows::halfSumsByte),
         group.start});
  }
  auto partAt = [&](Value row, Value weights) {
    return Part{row, b.add(row, QuantizedRows::scaleByte),
                b.add(row, QuantizedRows::sumsByte), weights};
  };
  int64_t parts = format.group / elements;
  Value row = b.mul(group.number, parts * QuantizedRows::bytes);
  if (parts == 1)
    return scaledSums(partAt(row, group.start));

  int64_t products = rows * kernel.vectors;
  int64_t stepsOfPart = elements / format.getStep();
  int64_t partBytes = stepsOfPart * format.getStepBytes() * kernel.getColumns();
  SmallVector<Value> zeros(products + (needsRowSums() ? rows : 0), zero(f32));
  SmallVector<Value> sums =
      forEach(b.div(group.steps, stepsOfPart), zeros,
              [&](Value number, ValueRange current) {
                Value start = b.add(group.start, b.mul(number, partBytes));
                if (prefetchesInGroup())
                  prefetch(start, partBytes);
                Sums each = scaledSums(partAt(
                    b.add(row, b.mul(number, QuantizedRows::bytes)), start));
                SmallVector<Value> next(each.products);
                llvm::append_range(next, each.rows);
                for (auto [sum, all] : llvm::zip(next, current))
                  sum = arith::AddFOp::create(b, all, sum);
                return next;
              });
  Sums result;
  llvm::append_range(result.products, ArrayRef(sums).take_front(products));
  llvm::append_range(result.rows, ArrayRef(sums).drop_front(products));
  return result;
}

void mlir::moe::buildInt8Kernel(func::FuncOp function, const Kernel &kernel,
                                const PackedFormat &format, int64_t rows) {
  Int8KernelBuilder(function, kernel, format, rows).build();
}
