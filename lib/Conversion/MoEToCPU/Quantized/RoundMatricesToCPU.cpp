//===- RoundMatricesToCPU.cpp - moe.round_matrices ------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A block is read twice: for its scale, and for its codes or their errors.
// Vectors are along the columns of a row, in which the codes are contiguous.
//
//===----------------------------------------------------------------------===//

#include "../Lowering.h"
#include "moe/Conversion/Utils/FormatEncoder.h"

#include "mlir/Dialect/Math/IR/Math.h"

using namespace mlir;
using namespace mlir::moe;

/// Vectors of a row of a block that are not in a loop.
static constexpr int64_t maxUnrolled = 8;

namespace {
/// Lowers to tasks on blocks of rows, or on whole matrices to measure errors.
class RoundMatricesLowering {
public:
  RoundMatricesLowering(RoundMatricesOp op, const CPUDescription &cpu)
      : op(op), lanes(cpu.getLanes()), b(op.getLoc(), op),
        encoder(b, op.getFormat()),
        scale(cast<FieldAttr>(op.getFormat().getScales()[0])),
        blockRows(scale.getBlockRows()),
        f32(VectorType::get(lanes, b.getF32Type())),
        i32(VectorType::get(lanes, b.getI32Type())) {}

  void run();

private:
  /// A block: its matrix, its first row and column, its number of rows and
  /// columns, its place among the blocks of the matrix.
  struct Block {
    SmallVector<Value> leading;
    Value row, rows, column;
    int64_t columns;
    Value blockRow, blockColumn;
  };
  using Values = SmallVector<Value>;
  using Step = llvm::function_ref<Values(Value, ValueRange)>;
  using VectorStep =
      llvm::function_ref<Values(Value row, Value column, int64_t, ValueRange)>;

  Values loop(Value from, Value to, ValueRange init, Step step);
  Values forEachVector(const Block &block, ValueRange init, VectorStep step);
  Values forEachBlock(ArrayRef<Value> leading, Value first, Value last,
                      ValueRange init,
                      llvm::function_ref<Values(const Block &, ValueRange)>);
  Value load(const Block &block, Value row, Value column, int64_t count);
  Value extremeOf(const Block &block);
  Value splat(VectorType type, Value scalar) {
    return vector::BroadcastOp::create(b, type, scalar);
  }
  Value constant(int64_t value) {
    return arith::ConstantOp::create(
        b, DenseElementsAttr::get(i32, APInt(32, value, true)));
  }
  Value constantI32(int64_t value) {
    return arith::ConstantIntOp::create(b, value, 32);
  }
  Value toI32(Value index) {
    return arith::IndexCastOp::create(b, b.getI32Type(), index);
  }
  void storeCodes(Value codes, const Block &block, Value row, Value column,
                  int64_t count);
  void roundBlock(const Block &block);
  Values measureBlock(const Block &block, ValueRange sums);
  void measure(Value matrix);

  RoundMatricesOp op;
  int64_t lanes;
  CPUBuilder b;
  FormatEncoder encoder;
  FieldAttr scale;
  int64_t blockRows;
  VectorType f32, i32;
  Value rows; // of a matrix
};
} // namespace

/// Builds an scf.for that carries values.
SmallVector<Value> RoundMatricesLowering::loop(Value from, Value to,
                                               ValueRange init, Step step) {
  auto loop = scf::ForOp::create(b, from, to, b.index(1), init);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(loop.getBody());
  Values results = step(loop.getInductionVar(), loop.getRegionIterArgs());
  if (!init.empty())
    scf::YieldOp::create(b, results);
  return llvm::to_vector_of<Value>(loop.getResults());
}

/// Calls `step` for each vector of a block, with the row and column in the
/// block and the number of elements.
SmallVector<Value> RoundMatricesLowering::forEachVector(const Block &block,
                                                        ValueRange init,
                                                        VectorStep step) {
  int64_t whole = block.columns / lanes, rest = block.columns % lanes;
  auto ofRow = [&](Value row, ValueRange carried) {
    Values values(carried);
    if (whole <= maxUnrolled)
      for (int64_t i = 0; i < whole; ++i)
        values = step(row, b.index(i * lanes), lanes, values);
    else
      values = loop(b.index(0), b.index(whole), values,
                    [&](Value i, ValueRange carried) {
                      return step(row, b.mul(i, lanes), lanes, carried);
                    });
    if (rest > 0)
      values = step(row, b.index(whole * lanes), rest, values);
    return values;
  };
  if (blockRows == 1)
    return ofRow(b.index(0), init);
  return loop(b.index(0), block.rows, init, ofRow);
}

/// Calls `body` for each block of the rows of blocks from `first` to `last`.
SmallVector<Value> RoundMatricesLowering::forEachBlock(
    ArrayRef<Value> leading, Value first, Value last, ValueRange init,
    llvm::function_ref<Values(const Block &, ValueRange)> body) {
  int64_t k = op.getK();
  int64_t size = std::min(scale.getBlockColumns(), std::max<int64_t>(k, 1));
  auto at = [&](Value blockRow, Value blockColumn, int64_t columns,
                ValueRange carried) {
    Value row = b.mul(blockRow, blockRows);
    Value rest = b.min(b.sub(rows, row), b.index(blockRows));
    return body({llvm::to_vector(leading), row, rest, b.mul(blockColumn, size),
                 columns, blockRow, blockColumn},
                carried);
  };
  // Columns of transposed matrices are far apart: adjacent rows share their
  // cache lines.
  auto forEachRow = [&](Value blockColumn, int64_t columns,
                        ValueRange carried) {
    return loop(first, last, carried, [&](Value row, ValueRange carried) {
      return at(row, blockColumn, columns, carried);
    });
  };
  auto forEachColumn =
      [&](ValueRange carried,
          llvm::function_ref<Values(Value, int64_t, ValueRange)> body) {
        Values values = loop(b.index(0), b.index(k / size), carried,
                             [&](Value blockColumn, ValueRange carried) {
                               return body(blockColumn, size, carried);
                             });
        if (k % size != 0)
          values = body(b.index(k / size), k % size, values);
        return values;
      };
  if (op.getTransposed())
    return forEachColumn(init, forEachRow);
  return loop(first, last, init, [&](Value row, ValueRange carried) {
    return forEachColumn(
        carried, [&](Value blockColumn, int64_t columns, ValueRange carried) {
          return at(row, blockColumn, columns, carried);
        });
  });
}

/// Loads `count` elements of a row of a block in f32, and zeros after them.
Value RoundMatricesLowering::load(const Block &block, Value row, Value column,
                                  int64_t count) {
  auto type = cast<MemRefType>(op.getSource().getType());
  Type element = type.getElementType();
  Values indices(block.leading);
  indices.append({b.add(block.row, row), b.add(block.column, column)});
  auto source = cast<TypedValue<MemRefType>>(op.getSource());
  unsigned rank = type.getRank();
  if (count == lanes && !op.getTransposed() && type.isLastDimUnitStride())
    return convertFloat(b,
                        vector::LoadOp::create(b,
                                               VectorType::get(lanes, element),
                                               source, indices),
                        b.getF32Type());
  Value zero = arith::ConstantOp::create(b, b.getZeroAttr(element));
  Values elements(lanes, zero);
  for (int64_t lane = 0; lane < count; ++lane) {
    Values at(indices);
    at[rank - 1] = b.add(at[rank - 1], lane);
    if (op.getTransposed())
      std::swap(at[rank - 2], at[rank - 1]);
    elements[lane] = memref::LoadOp::create(b, source, at);
  }
  return convertFloat(b,
                      vector::FromElementsOp::create(
                          b, VectorType::get(lanes, element), elements),
                      b.getF32Type());
}

/// Returns the element of a block with the largest magnitude: the first of
/// equal ones; a NaN before all others. If only the magnitude matters, returns
/// that.
Value RoundMatricesLowering::extremeOf(const Block &block) {
  // Magnitudes compare as their bits do.
  Value zero = constant(0);
  auto bitsOf = [&](Value x) -> Value {
    return arith::BitcastOp::create(b, i32, x);
  };
  auto magnitudeOf = [&](Value bits) -> Value {
    return arith::AndIOp::create(b, bits, constant(INT32_MAX));
  };
  auto toFloat = [&](Value bits) -> Value {
    return arith::BitcastOp::create(b, b.getF32Type(), bits);
  };
  auto reduce = [&](vector::CombiningKind kind, Value vector) -> Value {
    return vector::ReductionOp::create(b, kind, vector);
  };
  if (encoder.isSymmetric()) {
    Value most = forEachVector(
        block, zero,
        [&](Value row, Value column, int64_t count, ValueRange most) -> Values {
          Value bits = magnitudeOf(bitsOf(load(block, row, column, count)));
          return {arith::MaxSIOp::create(b, most[0], bits)};
        })[0];
    return toFloat(reduce(vector::CombiningKind::MAXSI, most));
  }
  // The sign comes from the first of equal magnitudes: the one whose place in
  // the block, over the sign in the lowest bit, is smallest.
  SmallVector<APInt> places;
  for (int64_t lane = 0; lane < lanes; ++lane)
    places.emplace_back(32, 2 * lane);
  Value placesOfLanes =
      arith::ConstantOp::create(b, DenseElementsAttr::get(i32, places));
  Values most = forEachVector(
      block, {zero, zero},
      [&](Value row, Value column, int64_t count, ValueRange most) -> Values {
        Value bits = bitsOf(load(block, row, column, count));
        Value magnitude = magnitudeOf(bits);
        Value sign = arith::ShRUIOp::create(b, bits, constant(31));
        Value first = toI32(b.mul(b.add(b.mul(row, block.columns), column), 2));
        Value place =
            arith::AddIOp::create(b, splat(i32, first), placesOfLanes);
        place = arith::OrIOp::create(b, place, sign);
        Value isGreater = arith::CmpIOp::create(b, arith::CmpIPredicate::sgt,
                                                magnitude, most[0]);
        return {arith::MaxSIOp::create(b, magnitude, most[0]),
                arith::SelectOp::create(b, isGreater, place, most[1])};
      });
  Value magnitude = reduce(vector::CombiningKind::MAXSI, most[0]);
  Value isMost = arith::CmpIOp::create(b, arith::CmpIPredicate::eq, most[0],
                                       splat(i32, magnitude));
  Value place =
      arith::SelectOp::create(b, isMost, most[1], constant(INT32_MAX));
  place = reduce(vector::CombiningKind::MINSI, place);
  Value sign = arith::ShLIOp::create(b, place, constantI32(31));
  return toFloat(arith::OrIOp::create(b, magnitude, sign));
}

/// Stores the codes of `count` elements of a row of a block.
void RoundMatricesLowering::storeCodes(Value codes, const Block &block,
                                       Value row, Value column, int64_t count) {
  Value destination = op.getInits()[0];
  Value at = b.add(block.column, column);
  int64_t size = lanes;
  if (op.getFormat().getCodes().getWidth() == 4) {
    // Two codes a byte, the first in the low bits; none after the last column.
    auto bytes = VectorType::get(lanes, b.getI8Type());
    auto pairs = VectorType::get(lanes / 2, b.getI16Type());
    codes = arith::TruncIOp::create(b, bytes, codes);
    if (count % 2 != 0) {
      SmallVector<APInt> mask(lanes, APInt(8, 0));
      std::fill_n(mask.begin(), count, APInt(8, 15));
      codes = arith::AndIOp::create(
          b, codes,
          arith::ConstantOp::create(b, DenseElementsAttr::get(bytes, mask)));
    }
    Value pair = vector::BitCastOp::create(b, pairs, codes);
    Value four = arith::ConstantOp::create(
        b, DenseElementsAttr::get(pairs, APInt(16, 4)));
    Value second = arith::ShRUIOp::create(b, pair, four);
    pair = arith::OrIOp::create(b, pair, second);
    codes = arith::TruncIOp::create(
        b, VectorType::get(lanes / 2, b.getI8Type()), pair);
    at = b.div(at, 2);
    size = lanes / 2;
    count = llvm::divideCeil(count, 2);
  }
  Values indices(block.leading);
  indices.append({b.add(block.row, row), at});
  if (count == size &&
      cast<MemRefType>(destination.getType()).isLastDimUnitStride()) {
    vector::StoreOp::create(b, codes, destination, indices);
    return;
  }
  for (int64_t lane = 0; lane < count; ++lane) {
    indices.back() = b.add(at, lane);
    memref::StoreOp::create(b, vector::ExtractOp::create(b, codes, lane),
                            destination, indices);
  }
}

void RoundMatricesLowering::roundBlock(const Block &block) {
  Value number = encoder.roundScale(extremeOf(block));
  Values indices(block.leading);
  indices.append({block.blockRow, block.blockColumn});
  memref::StoreOp::create(b, encoder.storeScale(number), op.getInits()[1],
                          indices);
  Value divisor = splat(f32, encoder.toDivisor(number));
  forEachVector(
      block, {},
      [&](Value row, Value column, int64_t count, ValueRange) -> Values {
        Value x = load(block, row, column, count);
        x = encoder.saturate(arith::DivFOp::create(b, x, divisor));
        storeCodes(encoder.roundCode(x), block, row, column, count);
        return {};
      });
}

/// Adds the squares of errors and of elements to `sums`, in f64.
SmallVector<Value> RoundMatricesLowering::measureBlock(const Block &block,
                                                       ValueRange sums) {
  Value number = encoder.roundScale(extremeOf(block));
  Value divisor = splat(f32, encoder.toDivisor(number));
  Value factor = splat(f32, number);
  auto f64 = VectorType::get(lanes, b.getF64Type());
  auto addSquare = [&](Value sum, Value x) -> Value {
    return arith::AddFOp::create(b, sum, arith::MulFOp::create(b, x, x));
  };
  return forEachVector(
      block, sums,
      [&](Value row, Value column, int64_t count, ValueRange sums) -> Values {
        Value w = load(block, row, column, count);
        Value x = encoder.saturate(arith::DivFOp::create(b, w, divisor));
        Value rounded = arith::MulFOp::create(b, encoder.roundValue(x), factor);
        w = arith::ExtFOp::create(b, f64, w);
        Value error =
            arith::SubFOp::create(b, arith::ExtFOp::create(b, f64, rounded), w);
        return {addSquare(sums[0], error), addSquare(sums[1], w)};
      });
}

/// Measures the error of a matrix.
void RoundMatricesLowering::measure(Value matrix) {
  auto f64 = VectorType::get(lanes, b.getF64Type());
  Value zero = arith::ConstantOp::create(b, b.getZeroAttr(f64));
  Values sums =
      forEachBlock(matrix, b.index(0), b.ceilDiv(rows, blockRows), {zero, zero},
                   [&](const Block &block, ValueRange sums) {
                     return measureBlock(block, sums);
                   });
  for (Value &sum : sums)
    sum = vector::ReductionOp::create(b, vector::CombiningKind::ADD, sum);
  auto constant = [&](double value) -> Value {
    return arith::ConstantOp::create(b, b.getF64FloatAttr(value));
  };
  Value isZero = arith::CmpFOp::create(b, arith::CmpFPredicate::OEQ, sums[1],
                                       constant(0.0));
  Value whole = arith::SelectOp::create(b, isZero, constant(1.0), sums[1]);
  Value error =
      math::SqrtOp::create(b, arith::DivFOp::create(b, sums[0], whole));
  memref::StoreOp::create(b, arith::TruncFOp::create(b, b.getF32Type(), error),
                          op.getInits()[0], matrix);
}

void RoundMatricesLowering::run() {
  unsigned leading = op.getNumLeadingDims();
  rows = memref::DimOp::create(b, op.getSource(),
                               leading + (op.getTransposed() ? 1 : 0));
  Values extents;
  Value matrices = b.index(1);
  for (unsigned dim = 0; dim < leading; ++dim) {
    extents.push_back(memref::DimOp::create(b, op.getSource(), dim));
    matrices = b.mul(matrices, extents.back());
  }
  if (op.isMeasurement()) {
    b.forEachTask(matrices, [&](Value matrix) { measure(matrix); });
    op.erase();
    return;
  }
  // A task reads about 64 Ki elements, enough to amortize its dispatch, and a
  // cache line of each column.
  int64_t elements = std::max<int64_t>(1, op.getK() * blockRows);
  int64_t blocks = std::max<int64_t>(1, (64 << 10) / elements);
  if (op.getTransposed())
    blocks = std::max<int64_t>(blocks, llvm::divideCeil(32, blockRows));
  Value blocksOfRows = b.ceilDiv(rows, blockRows);
  Value tasks = b.ceilDiv(blocksOfRows, blocks);
  b.forEachTask(b.mul(matrices, tasks), [&](Value task) {
    Value matrix = arith::DivUIOp::create(b, task, tasks);
    Value first = b.mul(arith::RemUIOp::create(b, task, tasks), blocks);
    Value last = b.min(b.add(first, blocks), blocksOfRows);
    Values at(leading);
    for (unsigned dim = leading; dim-- > 0;) {
      at[dim] = arith::RemUIOp::create(b, matrix, extents[dim]);
      matrix = arith::DivUIOp::create(b, matrix, extents[dim]);
    }
    forEachBlock(at, first, last, {}, [&](const Block &block, ValueRange) {
      roundBlock(block);
      return Values();
    });
  });
  op.erase();
}

LogicalResult mlir::moe::lowerToCPU(RoundMatricesOp op,
                                    const CPUDescription &cpu) {
  if (const char *reason =
          RoundMatricesOp::reasonNotToRound(op.getFormat(), op.getK()))
    return op.emitOpError() << reason;
  RoundMatricesLowering(op, cpu).run();
  return success();
}
