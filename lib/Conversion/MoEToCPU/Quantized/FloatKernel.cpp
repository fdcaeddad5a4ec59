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
  /// Emits what getOrCreateDecoder describes.
  void decode(Decoded what);

  FloatKernelBuilder(func::FuncOp function, const Kernel &kernel,
                     const PackedFormat &format, int64_t rows)
      : QuantizedKernelBuilder(function, kernel, format, rows),
        pairs(VectorType::get(2 * kernel.lanes, kernel.element)),
        usesDot(kernel.depth == 2), usesTables(usesDot && format.width == 8) {}

protected:
  void forEachPart(Value byte,
                   llvm::function_ref<void(int64_t, ArrayRef<Value>)> body);
  Value rowElement(Value offset);

  VectorType pairs;
  bool usesDot;

private:
  void buildConstants() override;
  Sums sumsOf(const Group &group) override;
  double getExcess() override { return getValueExcess(kernel, format); }
  Value lookUpPairs(Value words, int64_t pair);
  Value lookUp(Value words, int64_t k);
  void buildByteTables();
  std::array<Value, 2> lookUpBytes(Value codes);
  Value integer(Value codes, int64_t position);
  Value float8(Value codes, int64_t position);
  Value valueOf(ArrayRef<Value> codes, int64_t part);
  double getFactor() override { return getValueFactor(kernel, format); }
  void step(Value byte, Value k, MutableArrayRef<Value> sums);
  void decodeValues();
  void decodeFactors();

  bool usesTables;         // of 128 bytes
  Value table, upperTable; // of the values of codes
  // The same for codes of 8 bits: low and high bytes, of codes below 64 and
  // from there on.
  Value lowBytes[2], highBytes[2];
};

/// Multiplies one row with each weight, which is rounded once, to f32.
class ExactKernelBuilder : public FloatKernelBuilder {
public:
  ExactKernelBuilder(func::FuncOp function, const Kernel &kernel,
                     const PackedFormat &format)
      : FloatKernelBuilder(function, kernel, format, /*rows=*/1) {}

private:
  SmallVector<Value> addGroup(const Group &group,
                              ValueRange accumulators) override;
  Value half(Value pairs, int64_t which);
};
} // namespace

/// 2^7: bf16 has 7 bits below it, so that `base + code` is `base | code`.
static constexpr int64_t base = 128;

double mlir::moe::getValueFactor(const Kernel &kernel,
                                 const PackedFormat &format) {
  // Without tables, an f8E4M3FN becomes an f16 of 2^-8 of what it stands for.
  return format.isFloat8() && kernel.depth == 1 ? 0x1p-8 : 1;
}

double mlir::moe::getValueExcess(const Kernel &kernel,
                                 const PackedFormat &format) {
  if (kernel.depth == 1 || format.isFloat8() || format.width == 4)
    return 0;
  int64_t offset = format.format.getOffset();
  if (format.width == 6)
    return base + offset;
  bool isSigned = format.format.getCodes().getElement().isSignedInteger();
  return 0.5 + (isSigned ? 0 : offset - 128);
}

/// True if codes with bit 3 are the negated values of those without.
static bool isSigned(const PackedFormat &format) {
  std::array<float, 16> values = format.getValues();
  for (int64_t code = 0; code < 8; ++code)
    if (values[code + 8] != -values[code])
      return false;
  return true;
}

/// Builds the tables of the magnitudes of codes in bf16: of the bits of a float
/// without its sign; or of m + 1/2 for m = 0 to 127.
void FloatKernelBuilder::buildByteTables() {
  auto type = VectorType::get(64, b.getI8Type());
  for (int64_t half = 0; half < 2; ++half) {
    SmallVector<APInt> low, high;
    for (int64_t i = 64 * half; i < 64 * (half + 1); ++i) {
      APFloat value(float(i) + 0.5f);
      if (format.isFloat8())
        value = APFloat(APFloat::Float8E4M3FN(), APInt(8, i));
      bool inexact;
      value.convert(APFloat::BFloat(), APFloat::rmNearestTiesToEven, &inexact);
      APInt bits = value.bitcastToAPInt();
      low.push_back(bits.trunc(8));
      high.push_back(bits.lshr(8).trunc(8));
    }
    lowBytes[half] =
        arith::ConstantOp::create(b, DenseElementsAttr::get(type, low));
    highBytes[half] =
        arith::ConstantOp::create(b, DenseElementsAttr::get(type, high));
  }
}

void FloatKernelBuilder::buildConstants() {
  if (usesTables)
    return buildByteTables();
  if (format.width != 4)
    return;
  std::array<float, 16> all = format.getValues();
  ArrayRef<float> values(all);
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

/// Returns elements 0 and 1, and elements 2 and 3, of each word of codes of 8
/// bits, in bf16. Integers have 1/2 too much: those with a sign are ±(m + 1/2)
/// with m from 0 to 127, which bf16 has.
std::array<Value, 2> FloatKernelBuilder::lookUpBytes(Value codes) {
  auto bytes = VectorType::get(64, b.getI8Type());
  codes = bitCast(bytes, codes);
  // In each 16 bytes, which are four columns, pairs 0 come before pairs 1.
  std::array<int64_t, 4> order = format.getByteOrder();
  SmallVector<int64_t> mask(64);
  for (int64_t lane = 0; lane < 64; lane += 16)
    for (int64_t column = 0; column < 4; ++column)
      for (int64_t element = 0; element < 4; ++element)
        mask[lane + 8 * (element / 2) + 2 * column + element % 2] =
            lane + 4 * column + (llvm::find(order, element) - order.begin());
  codes = vector::ShuffleOp::create(b, codes, codes, mask);
  Value index = codes;
  if (!format.isFloat8()) {
    if (!format.format.getCodes().getElement().isSignedInteger())
      codes = arith::XOrIOp::create(b, codes, splat(bytes, 0x80));
    // m is the code if that is not negative, else its complement.
    Value complement = arith::XOrIOp::create(b, codes, splat(bytes, 0xff));
    index = arith::MinUIOp::create(b, codes, complement);
  }
  // A lookup ignores the highest bit of an index, which is the sign.
  auto lookUp = [&](Value(&table)[2]) {
    return call("llvm.x86.avx512.vpermi2var.qi.512", bytes,
                {table[0], index, table[1]});
  };
  Value low = lookUp(lowBytes), high = lookUp(highBytes);
  high = arith::OrIOp::create(b, high, bitAnd(codes, 0x80));
  std::array<Value, 2> result;
  for (int64_t half = 0; half < 2; ++half) {
    SmallVector<int64_t> interleave(128);
    for (int64_t i = 0; i < 64; ++i)
      for (int64_t byte = 0; byte < 2; ++byte)
        interleave[2 * i + byte] = 64 * byte + 16 * (i / 8) + 8 * half + i % 8;
    interleave.truncate(64);
    result[half] =
        bitCast(pairs, vector::ShuffleOp::create(b, low, high, interleave));
  }
  return result;
}

/// Broadcasts an element of a row in f32.
Value FloatKernelBuilder::rowElement(Value offset) {
  Value scalar = memref::LoadOp::create(b, argument(Lhs), offset);
  if (!kernel.element.isF32())
    scalar = arith::ExtFOp::create(b, b.getF32Type(), scalar);
  return vector::BroadcastOp::create(b, f32, scalar);
}

/// Returns byte `position` of each word of integer codes, as a value in f32.
Value FloatKernelBuilder::integer(Value codes, int64_t position) {
  Value value;
  if (format.format.getCodes().getElement().isSignedInteger()) {
    value = arith::ShRSIOp::create(b, shiftLeft(codes, 24 - 8 * position),
                                   splat(i32, 24));
  } else {
    value = shiftRight(codes, 8 * position);
    value = position == 3 ? value : bitAnd(value, 0xff);
    if (int64_t offset = format.format.getOffset())
      value = arith::SubIOp::create(b, value, splat(i32, offset));
  }
  return arith::SIToFPOp::create(b, f32, value);
}

/// Returns byte `position` of each word of f8E4M3FN, as a value in f32. The
/// bits of its exponent and mantissa are those of an f16 that is 2^-8 of it,
/// subnormal numbers included.
Value FloatKernelBuilder::float8(Value codes, int64_t position) {
  auto move = [&](int64_t to) {
    return to < 8 * position ? shiftRight(codes, 8 * position - to)
                             : shiftLeft(codes, to - 8 * position);
  };
  Value magnitude = bitAnd(move(7), 0x3f80);
  Value sign = bitAnd(move(8), 0x8000);
  Value isNaN = arith::CmpIOp::create(b, arith::CmpIPredicate::eq, magnitude,
                                      splat(i32, 0x3f80));
  Value bits = arith::OrIOp::create(b, magnitude, sign);
  bits = arith::SelectOp::create(b, isNaN, splat(i32, 0x7e00), bits);
  bits = arith::TruncIOp::create(
      b, VectorType::get(kernel.lanes, b.getI16Type()), bits);
  return arith::ExtFOp::create(
      b, f32, bitCast(VectorType::get(kernel.lanes, b.getF16Type()), bits));
}

/// Returns element `part` of a step in f32, or pair `part` in bf16. `codes` is
/// the word of a step with codes of 4 bits; otherwise each has four elements.
Value FloatKernelBuilder::valueOf(ArrayRef<Value> codes, int64_t part) {
  if (format.width == 4)
    return usesDot ? lookUpPairs(codes[0], part) : lookUp(codes[0], part);
  if (usesTables)
    return codes[part % 2];
  if (usesDot) {
    Value bits = shiftRight(codes[part / 2], 8 * (part % 2));
    bits = bitAnd(bits, 0x00ff00ff);
    bits = arith::OrIOp::create(b, bits, splat(i32, 0x43004300));
    return bitCast(pairs, bits);
  }
  std::array<int64_t, 4> order = format.getByteOrder();
  int64_t position = llvm::find(order, part % 4) - order.begin();
  Value bytes = codes[part / 4];
  return format.isFloat8() ? float8(bytes, position) : integer(bytes, position);
}

/// Calls `body` with each element, or pair, of a step that starts at `byte`,
/// and its values in each vector of columns.
void FloatKernelBuilder::forEachPart(
    Value byte, llvm::function_ref<void(int64_t, ArrayRef<Value>)> body) {
  SmallVector<SmallVector<Value>> codes = loadWords(byte);
  if (format.width != 4) // lookups shift whole words
    for (SmallVector<Value> &each : codes)
      each = unpack(each);
  int64_t width = usesDot ? 2 : 1;
  SmallVector<SmallVector<Value>> words = codes;
  for (int64_t part = 0; part < format.getStep() / width; ++part) {
    if (usesTables && part % 2 == 0) // not before, which would take registers
      for (auto [j, each] : llvm::enumerate(words))
        codes[j] = llvm::to_vector_of<Value>(lookUpBytes(each[part / 2]));
    SmallVector<Value> values;
    for (ArrayRef<Value> each : codes)
      values.push_back(valueOf(each, part));
    body(part, values);
  }
}

/// Adds the products of a step, from element `k` on, to the sums.
void FloatKernelBuilder::step(Value byte, Value k,
                              MutableArrayRef<Value> sums) {
  int64_t width = usesDot ? 2 : 1;
  forEachPart(byte, [&](int64_t part, ArrayRef<Value> values) {
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
  });
  // The sums of the row itself, in as many lanes as a step has elements.
  if (!needsRowSums())
    return;
  auto elements = VectorType::get(format.getStep(), kernel.element);
  auto floats = VectorType::get(format.getStep(), b.getF32Type());
  for (int64_t i = 0; i < rows; ++i) {
    Value x =
        vector::LoadOp::create(b, elements, argument(Lhs), b.add(firsts[i], k));
    if (!kernel.element.isF32())
      x = arith::ExtFOp::create(b, floats, x);
    Value &sum = sums[rows * kernel.vectors + i];
    sum = arith::AddFOp::create(b, sum, x);
  }
}

QuantizedKernelBuilder::Sums FloatKernelBuilder::sumsOf(const Group &group) {
  Value k = b.mul(group.number, format.group);
  int64_t products = rows * kernel.vectors;
  SmallVector<Value> zeros(products, zero(f32));
  if (needsRowSums())
    zeros.append(rows, zero(VectorType::get(format.getStep(), b.getF32Type())));
  int64_t bytes = format.getStepBytes() * kernel.getColumns();
  SmallVector<Value> sums =
      forEach(group.steps, zeros, [&](Value each, ValueRange current) {
        SmallVector<Value> next(current);
        Value start = b.add(group.start, b.mul(each, bytes));
        if (prefetchesInGroup())
          prefetch(start, bytes);
        step(start, b.add(k, b.mul(each, format.getStep())), next);
        return next;
      });
  Sums result;
  llvm::append_range(result.products, ArrayRef(sums).take_front(products));
  for (Value sum : ArrayRef(sums).drop_front(products)) {
    sum = vector::ReductionOp::create(b, vector::CombiningKind::ADD, sum);
    result.rows.push_back(vector::BroadcastOp::create(b, f32, sum));
  }
  return result;
}

/// Returns the first or second of each two values in bf16, in f32.
Value ExactKernelBuilder::half(Value values, int64_t which) {
  Value bits = bitCast(i32, values);
  return bitCast(f32,
                 which == 0 ? shiftLeft(bits, 16) : bitAnd(bits, 0xffff0000));
}

SmallVector<Value> ExactKernelBuilder::addGroup(const Group &group,
                                                ValueRange accumulators) {
  SmallVector<std::pair<Value, Value>> factors;
  for (int64_t j = 0; j < kernel.vectors; ++j)
    factors.push_back(factorsOf(j));
  Value first = b.add(firsts[0], b.mul(group.number, format.group));
  int64_t bytes = format.getStepBytes() * kernel.getColumns();
  return forEach(group.steps, accumulators, [&](Value each, ValueRange sums) {
    SmallVector<Value> next(sums);
    Value k = b.add(first, b.mul(each, format.getStep()));
    int64_t width = usesDot ? 2 : 1;
    forEachPart(b.add(group.start, b.mul(each, bytes)),
                [&](int64_t part, ArrayRef<Value> values) {
                  for (int64_t i = 0; i < width; ++i) {
                    Value x = rowElement(b.add(k, part * width + i));
                    for (auto [j, value] : llvm::enumerate(values)) {
                      auto [scale, excess] = factors[j];
                      Value w = usesDot ? half(value, i) : value;
                      w = vector::FMAOp::create(b, w, scale, excess);
                      next[j] = vector::FMAOp::create(b, x, w, next[j]);
                    }
                  }
                });
    return next;
  });
}

/// The arguments of a decoder, in order.
enum DecoderArgument { First, Second, Packed, Out, OutStart };
static_assert(int(Packed) == 2, "the weights of a kernel are argument 2, too");

void FloatKernelBuilder::decodeValues() {
  int64_t width = usesDot ? 2 : 1, columns = kernel.getColumns() * width;
  int64_t parts = format.getStep() / width;
  int64_t bytes = format.getStepBytes() * kernel.getColumns();
  Value out = function.getArgument(Out), start = function.getArgument(OutStart);
  b.forEach(b.index(0), function.getArgument(Second), [&](Value step) {
    Value byte = b.add(function.getArgument(First), b.mul(step, bytes));
    Value at = b.add(start, b.mul(step, parts * columns));
    forEachPart(byte, [&](int64_t part, ArrayRef<Value> values) {
      for (auto [j, value] : llvm::enumerate(values))
        vector::StoreOp::create(
            b, value, out,
            b.add(at, part * columns + int64_t(j) * kernel.lanes * width));
    });
  });
}

void FloatKernelBuilder::decodeFactors() {
  blockStart = function.getArgument(First);
  groupEnd = function.getArgument(Second);
  Value out = function.getArgument(Out), start = function.getArgument(OutStart);
  for (int64_t j = 0; j < kernel.vectors; ++j) {
    auto [scale, excess] = factorsOf(j);
    Value at = b.add(start, j * kernel.lanes);
    vector::StoreOp::create(b, scale, out, at);
    if (excess)
      vector::StoreOp::create(b, excess, out, b.add(at, kernel.getColumns()));
  }
}

void FloatKernelBuilder::decode(Decoded what) {
  b.setInsertionPointToStart(function.addEntryBlock());
  buildConstants();
  if (what == Decoded::Values)
    decodeValues();
  else
    decodeFactors();
  func::ReturnOp::create(b);
}

void mlir::moe::buildDecoder(func::FuncOp function, const Kernel &kernel,
                             const PackedFormat &format, Decoded what) {
  FloatKernelBuilder(function, kernel, format, /*rows=*/0).decode(what);
}

void mlir::moe::buildExactKernel(func::FuncOp function, const Kernel &kernel,
                                 const PackedFormat &format) {
  ExactKernelBuilder(function, kernel, format).build();
}

void mlir::moe::buildFloatKernel(func::FuncOp function, const Kernel &kernel,
                                 const PackedFormat &format, int64_t rows) {
  FloatKernelBuilder(function, kernel, format, rows).build();
}
