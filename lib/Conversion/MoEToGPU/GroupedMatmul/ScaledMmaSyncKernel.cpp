//===- ScaledMmaSyncKernel.cpp - Products of 8-bit weights ----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// As MmaSyncKernel, for weights of f8E4M3FN `[E, N, K]`, which stay 8 bits wide
// as far as registers and become f16 or bf16 there, exactly: what has 8 bits is
// on its way from memory, and sm_80 multiplies 16. A stage is 128 steps along
// k, a line of weights. Its sums are scaled and added to those of the stages
// before.
//
// ldmatrix brings a lane four numbers beside each other where mma.sync has two
// pairs that are eight apart. It is the same to a sum, as long as both operands
// agree: rows of 16 bits are read by lanes as weights are.
//
//===----------------------------------------------------------------------===//

#include "WarpTileKernel.h"

using namespace mlir;
using namespace mlir::moe;

static constexpr int64_t depth = 128;
static constexpr int64_t lineBytes = 128; // of weights
static constexpr int64_t chunkBytes = 16;

namespace {
class ScaledMmaSyncKernel : public WarpTileKernel {
public:
  ScaledMmaSyncKernel(const GroupedKernelRequest &request, DeviceLowering &lowering)
      : WarpTileKernel(request, lowering),
        narrowRows(isa<Float8E4M3FNType>(element)),
        rowBytes(depth * (narrowRows ? 1 : 2)), lhsBytes(tileRows * rowBytes),
        stageBytes(lhsBytes + tileColumns * lineBytes),
        steps(llvm::divideCeil(k, depth)),
        factor(element.isBF16() ? Type(b.getBF16Type()) : b.getF16Type()) {}

  LLVM::LLVMFuncOp build() {
    return buildKernel("grouped_matmul_scaled", stageBytes,
                       [&](const TilePlace &place) { computeTile(place); });
  }

private:
  /// 16 bytes that a thread brings for each stage.
  struct Copy {
    Value source;       // at k = 0
    Value offset;       // in the stage
    Value valid;        // null: always
    Value first;        // byte of the row that it begins with, at k = 0
    int64_t bytesOfRow; // that there are
  };
  SmallVector<Copy> lhsCopies(const TilePlace &place);
  SmallVector<Copy> weightCopies(const TilePlace &place);
  void bring(ArrayRef<Copy> copies, Value step, Value stage, bool ofRows);
  std::pair<Value, Value> widen(Value four);
  Value asFactor(Value bytes, Value nans);
  SmallVector<SmallVector<Value>> loadRows(Value start, int64_t step,
                                           int64_t rowTile);
  SmallVector<Value> rowNumbers(const TilePlace &place);
  SmallVector<Value> multiply(Value stage);
  void computeTile(const TilePlace &place);

  bool narrowRows; // of 8 bits
  int64_t rowBytes, lhsBytes, stageBytes, steps;
  Type factor; // what is multiplied
};
} // namespace

//===----------------------------------------------------------------------===//
// To shared memory
//===----------------------------------------------------------------------===//

/// Where chunk `chunk` of line `line` lies, so that the lanes that read at once
/// find different banks: eight lines by 16 bytes with ldmatrix, or four by 32.
static Value swizzled(GPUBuilder &b, Value line, Value chunk, int64_t bytes) {
  Value swap = bytes == lineBytes ? b.bitAnd(line, 7)
                                  : b.shiftLeft(b.bitAnd(line, 3), 1);
  return b.add(b.mul(line, bytes), b.shiftLeft(b.bitXor(chunk, swap), 4));
}

SmallVector<ScaledMmaSyncKernel::Copy>
ScaledMmaSyncKernel::lhsCopies(const TilePlace &place) {
  SmallVector<Copy> copies;
  int64_t chunks = rowBytes / chunkBytes;
  int64_t count = llvm::divideCeil(tileRows * chunks, threads);
  for (int64_t i = 0; i < count; ++i) {
    Value number = b.add(thread, i * threads);
    Value line = b.div(number, chunks), chunk = b.rem(number, chunks);
    // A line beyond the rows has those of the last one, to be thrown away.
    Value row = b.min(line, b.sub(place.rows, 1));
    Value first = b.mul(chunk, chunkBytes);
    copies.push_back(
        {b.at(lhsRow(b.add(place.firstRow, row)), b.getI8Type(), first),
         swizzled(b, line, chunk, rowBytes),
         tileRows * chunks < threads ? b.less(line, tileRows) : Value(), first,
         k * rowBytes / depth});
  }
  return copies;
}

SmallVector<ScaledMmaSyncKernel::Copy>
ScaledMmaSyncKernel::weightCopies(const TilePlace &place) {
  SmallVector<Copy> copies;
  constexpr int64_t chunks = lineBytes / chunkBytes;
  Type byte = b.getI8Type();
  for (int64_t i = 0; i < tileColumns * chunks / threads; ++i) {
    Value number = b.add(thread, i * threads);
    Value line = b.div(number, chunks), chunk = b.rem(number, chunks);
    auto [view, column] = weightColumn(line);
    column = b.add(column, b.mul(place.column, viewShare));
    Value base;
    for (int64_t v = 0; v < viewCount(); ++v) {
      Value start =
          b.at(weights[v], byte, b.i64(layout.views[v].firstColumn * k));
      base = base ? b.select(b.equal(view, v), start, base) : start;
    }
    Value first = b.mul(chunk, chunkBytes);
    Value offset = b.add(b.mul(b.toI64(place.expert), weightColumns * k),
                         b.mul(b.toI64(b.min(column, viewColumns - 1)), k));
    copies.push_back({b.at(base, byte, b.add(offset, b.toI64(first))),
                      b.add(swizzled(b, line, chunk, lineBytes), lhsBytes),
                      n % share != 0 ? b.less(column, viewColumns) : Value(),
                      first, k});
  }
  return copies;
}

/// Copy step `step` along k to stage `stage`, zeros where there is nothing. A
/// thread that has no line of the rows brings nothing.
void ScaledMmaSyncKernel::bring(ArrayRef<Copy> copies, Value step, Value stage,
                                bool ofRows) {
  int64_t stepBytes = ofRows ? rowBytes : lineBytes;
  Value from = b.mul(step, stepBytes), stageStart = b.mul(stage, stageBytes);
  for (const Copy &copy : copies) {
    auto issue = [&] {
      Value inside = ofRows ? Value() : copy.valid;
      if (copy.bytesOfRow % stepBytes != 0) {
        Value within = b.less(b.add(from, copy.first), copy.bytesOfRow);
        inside = inside ? b.both(inside, within) : within;
      }
      Value target = b.sharedAt(memory, b.add(stageStart, copy.offset));
      Value held = inside ? b.select(inside, from, b.i32(0)) : from;
      Value bytes =
          inside ? b.select(inside, b.i32(chunkBytes), b.i32(0)) : Value();
      NVVM::CpAsyncOp::create(b, target, b.at(copy.source, b.getI8Type(), held),
                              chunkBytes, NVVM::LoadCacheModifierKind::CG,
                              bytes);
    };
    if (ofRows && copy.valid)
      b.ifThen(copy.valid, issue);
    else
      issue();
  }
}

//===----------------------------------------------------------------------===//
// To registers
//===----------------------------------------------------------------------===//

/// Two f16 or bf16 from numbers of f8E4M3FN in the upper halves of `bytes`;
/// `nans` has the uppermost bits where they are NaN. Those of f16 are 2⁻⁸ of
/// the number, which the sums make up for: they would cost an instruction more.
Value ScaledMmaSyncKernel::asFactor(Value bytes, Value nans) {
  bool isF16 = factor.isF16();
  Value magnitude = b.bitAnd(bytes, 0x7f007f00);
  Value sign = b.bitAnd(bytes, int32_t(0x80008000));
  // Exponents become wider.
  Value bits = b.bitOr(b.shiftRight(magnitude, isF16 ? 1 : 4), sign);
  if (!isF16) {
    // In f32 products of such small numbers would not be exact.
    auto pair = VectorType::get(2, factor);
    auto constant = [&](double value) -> Value {
      return arith::ConstantOp::create(
          b, DenseElementsAttr::get(pair, b.getFloatAttr(factor, value)));
    };
    Value wide = LLVM::BitcastOp::create(b, pair, bits);
    wide = LLVM::FMAOp::create(b, wide, constant(0x1p120), constant(0.0));
    bits = LLVM::BitcastOp::create(b, b.getI32Type(), wide);
  }
  // 0x7fff is NaN in both.
  Value nan = b.sub(nans, b.shiftRight(nans, 15));
  return b.bitOr(bits, nan);
}

/// Four numbers of f8E4M3FN as two pairs. They are the first two and the last
/// two where rows have 16 bits, the even and the odd ones where weights meet
/// rows that went the same way.
std::pair<Value, Value> ScaledMmaSyncKernel::widen(Value four) {
  // Bit 7 is set where all others were.
  Value ones = b.add(b.bitAnd(four, 0x7f7f7f7f), 0x01010101);
  Value nans = b.bitAnd(ones, int32_t(0x80808080));
  constexpr int64_t upperBits = 0xff00ff00;
  auto pairOf = [&](Value bytes, bool second) -> Value {
    if (narrowRows)
      return second ? bytes : b.shiftLeft(bytes, 8);
    // Bytes 0 and 1, or 2 and 3, each above a byte of zeros.
    auto mode =
        NVVM::PermuteModeAttr::get(b.getContext(), NVVM::PermuteMode::DEFAULT);
    return NVVM::PermuteOp::create(b, b.getI32Type(), bytes, b.i32(0),
                                   b.i32(second ? 0x3424 : 0x1404), mode);
  };
  auto nansOf = [&](bool second) -> Value {
    Value of = pairOf(nans, second);
    return narrowRows ? b.bitAnd(of, int32_t(upperBits)) : of;
  };
  return {asFactor(pairOf(four, false), nansOf(false)),
          asFactor(pairOf(four, true), nansOf(true))};
}

/// The rows of tile `rowTile` for two times 16 steps along k, from step `step`
/// of 32 on.
SmallVector<SmallVector<Value>>
ScaledMmaSyncKernel::loadRows(Value start, int64_t step, int64_t rowTile) {
  SmallVector<SmallVector<Value>> halves(2);
  if (narrowRows) {
    Value line = b.add(b.add(warpRow, b.bitAnd(lane, 15)), rowTile * 16);
    Value chunk = b.add(b.shiftRight(lane, 4), step * 2);
    SmallVector<Value> loaded =
        loadMatrices(b.add(start, swizzled(b, line, chunk, rowBytes)));
    for (int64_t half = 0; half < 2; ++half) {
      auto [upperFirst, upperSecond] = widen(loaded[half * 2]);
      auto [lowerFirst, lowerSecond] = widen(loaded[half * 2 + 1]);
      halves[half] = {upperFirst, lowerFirst, upperSecond, lowerSecond};
    }
    return halves;
  }
  // Four numbers of a row, of which the lanes of a row have 16.
  auto pairs = VectorType::get(2, b.getI32Type());
  Value within = b.bitAnd(lane, 3);
  for (int64_t half = 0; half < 2; ++half) {
    SmallVector<Value> first, second;
    for (int64_t lower = 0; lower < 2; ++lower) {
      Value line = b.add(b.add(warpRow, b.shiftRight(lane, 2)),
                         rowTile * 16 + lower * 8);
      Value chunk = b.add(b.shiftRight(within, 1), step * 4 + half * 2);
      Value offset = b.add(swizzled(b, line, chunk, rowBytes),
                           b.shiftLeft(b.bitAnd(within, 1), 3));
      Value loaded = b.load(pairs, b.sharedAt(memory, b.add(start, offset)), 8);
      first.push_back(vector::ExtractOp::create(b, loaded, int64_t(0)));
      second.push_back(vector::ExtractOp::create(b, loaded, int64_t(1)));
    }
    halves[half] = {first[0], first[1], second[0], second[1]};
  }
  return halves;
}

/// The sums of what stage `stage` has; four for each tile of a warp, row by row
/// of tiles.
SmallVector<Value> ScaledMmaSyncKernel::multiply(Value stage) {
  Value start = b.mul(stage, stageBytes);
  Value low = b.bitAnd(lane, 7), half = b.bitAnd(b.shiftRight(lane, 3), 1);
  Value upper = b.shiftRight(lane, 4);
  SmallVector<Value> sums(rowTiles * columnTiles * 4, b.f32(0.0));
  for (int64_t step = 0; step < depth / 32; ++step) {
    // Weights for the first and the second 16 steps along k.
    SmallVector<SmallVector<Value>> y[2];
    for (int64_t j = 0; j < columnTiles; j += 2) {
      Value line =
          b.add(b.add(warpColumn, j * 8), b.add(low, b.shiftLeft(upper, 3)));
      Value chunk = b.add(half, step * 2);
      Value offset = b.add(swizzled(b, line, chunk, lineBytes), lhsBytes);
      SmallVector<Value> loaded = loadMatrices(b.add(start, offset));
      for (int64_t i = 0; i < 4; ++i) {
        auto [first, second] = widen(loaded[i]);
        y[i % 2].push_back({first, second});
      }
    }
    for (int64_t i = 0; i < rowTiles; ++i) {
      SmallVector<SmallVector<Value>> x = loadRows(start, step, i);
      for (int64_t part = 0; part < 2; ++part)
        for (int64_t j = 0; j < columnTiles; ++j)
          multiplyTile(
              factor, x[part], y[part][j],
              MutableArrayRef(sums).slice((i * columnTiles + j) * 4, 4));
    }
  }
  return sums;
}

//===----------------------------------------------------------------------===//
// Tiles
//===----------------------------------------------------------------------===//

/// The rows of lhs that a lane has sums of.
SmallVector<Value> ScaledMmaSyncKernel::rowNumbers(const TilePlace &place) {
  SmallVector<Value> numbers;
  if (!lhsScales)
    return numbers;
  for (int64_t i = 0; i < rowTiles * 2; ++i) {
    Value row = b.add(b.add(warpRow, b.shiftRight(lane, 2)), i * 8);
    row = b.min(row, b.sub(place.rows, 1));
    numbers.push_back(lhsRowNumber(b.add(place.firstRow, row)));
  }
  return numbers;
}

void ScaledMmaSyncKernel::computeTile(const TilePlace &place) {
  SmallVector<Copy> rowCopies = lhsCopies(place);
  SmallVector<Copy> columnCopies = weightCopies(place);
  SmallVector<Value> scaledRows = rowNumbers(place);
  auto bringStage = [&](Value step, Value stage) {
    bring(rowCopies, step, stage, /*ofRows=*/true);
    bring(columnCopies, step, stage, /*ofRows=*/false);
  };
  // 2⁸ for each operand of f16 that was one of f8E4M3FN.
  Value magnitude =
      factor.isF16() ? b.f32(narrowRows ? 0x1p16 : 0x1p8) : Value();
  auto multiplyStage = [&](Value step, Value stage, ValueRange sums,
                           llvm::function_ref<void()> arrive) {
    // Scales come while the stage is multiplied.
    SmallVector<Value> rowScales;
    for (Value row : scaledRows)
      rowScales.push_back(rowScale(row, step));
    SmallVector<Value> columnScales = weightScalesOf(
        place, columnTiles / products, step,
        [&](int64_t piece) { return firstColumn(place, piece); });
    arrive();
    SmallVector<Value> next;
    for (auto [i, sum] : llvm::enumerate(multiply(stage))) {
      int64_t piece = i / 4, half = i % 4 / 2;
      Value ofBlock = magnitude
                          ? arith::MulFOp::create(b, sum, magnitude).getResult()
                          : sum;
      next.push_back(addScaled(
          sums[i], ofBlock,
          rowScales.empty() ? Value()
                            : rowScales[piece / columnTiles * 2 + half],
          columnScale(columnScales, piece % columnTiles, i % 2)));
    }
    return next;
  };
  store(place, sumOverStages(steps, bringStage, multiplyStage));
}

LLVM::LLVMFuncOp mlir::moe::buildScaledMmaSyncKernel(const GroupedKernelRequest &request, DeviceLowering &lowering) {
  return ScaledMmaSyncKernel(request, lowering).build();
}
