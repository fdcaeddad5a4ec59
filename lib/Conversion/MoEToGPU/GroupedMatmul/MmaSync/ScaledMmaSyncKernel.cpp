//===- ScaledMmaSyncKernel.cpp - FP8 grouped matmul on mma.sync -----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Like MmaSyncKernel, for K-major f8E4M3FN weights `[E, N, K]`. sm_80 has no
// FP8 tensor cores: weights stay FP8 in memory and shared memory and are
// converted exactly to f16 or bf16 in registers. A stage is 128 elements along
// k, a row of the weight tile; its partial accumulators are scaled and added to
// the f32 accumulators.
//
// ldmatrix gives a lane four adjacent FP8 elements where mma.sync expects two
// pairs eight elements apart. A dot product does not depend on the order of k
// as long as both operands use the same: lanes read 16-bit rows in the order of
// the weights.
//
//===----------------------------------------------------------------------===//

#include "WarpTileKernel.h"

using namespace mlir;
using namespace mlir::moe;

static constexpr int64_t depth = 128;
static constexpr int64_t weightRowBytes = 128;
static constexpr int64_t chunkBytes = 16;

namespace {
class ScaledMmaSyncKernel : public WarpTileKernel {
public:
  ScaledMmaSyncKernel(const GroupedKernelRequest &request,
                      DeviceLowering &lowering)
      : WarpTileKernel(request, lowering),
        fp8Lhs(isa<Float8E4M3FNType>(element)),
        lhsRowBytes(depth * (fp8Lhs ? 1 : 2)), lhsBytes(tileRows * lhsRowBytes),
        stageBytes(lhsBytes + tileColumns * weightRowBytes),
        steps(llvm::divideCeil(k, depth)),
        mmaType(element.isBF16() ? Type(b.getBF16Type()) : b.getF16Type()) {}

  LLVM::LLVMFuncOp build() {
    return buildKernel("grouped_matmul_scaled", stageBytes,
                       [&](const TileCoord &coord) { computeTile(coord); });
  }

private:
  /// A 16-byte chunk that a thread copies in each stage.
  struct ChunkCopy {
    Value source;        // at k = 0
    Value offset;        // in the stage
    Value valid;         // null if always
    Value rowOffset;     // bytes from the start of the source row, at k = 0
    int64_t sourceBytes; // of the source row
  };
  SmallVector<ChunkCopy> lhsCopies(const TileCoord &coord);
  SmallVector<ChunkCopy> weightCopies(const TileCoord &coord);
  void issueCopies(ArrayRef<ChunkCopy> copies, Value step, Value stage,
                   bool isLhs);
  std::pair<Value, Value> convert(Value four);
  Value convertPair(Value bytes, Value nans);
  SmallVector<SmallVector<Value>> loadLhs(Value start, int64_t step,
                                          int64_t fragment);
  SmallVector<Value> lhsRowsOfLane(const TileCoord &coord);
  SmallVector<Value> multiplyStage(Value stage);
  void computeTile(const TileCoord &coord);

  bool fp8Lhs;
  int64_t lhsRowBytes, lhsBytes, stageBytes, steps;
  Type mmaType; // of the converted operands
};
} // namespace

//===----------------------------------------------------------------------===//
// Global to shared memory
//===----------------------------------------------------------------------===//

/// Returns the byte offset of chunk `chunk` of row `row`. The swizzle avoids
/// bank conflicts: ldmatrix reads 16 bytes of eight rows at once, and the loads
/// of 16-bit rows read 32 bytes of four rows of 256 bytes.
static Value chunkOffset(GPUBuilder &b, Value row, Value chunk,
                         int64_t rowBytes) {
  Value swizzled;
  if (rowBytes == weightRowBytes)
    swizzled = b.swizzle128(chunk, row);
  else
    swizzled = b.bitXor(chunk, b.shiftLeft(b.bitAnd(row, 3), 1));
  return b.add(b.mul(row, rowBytes), b.shiftLeft(swizzled, 4));
}

SmallVector<ScaledMmaSyncKernel::ChunkCopy>
ScaledMmaSyncKernel::lhsCopies(const TileCoord &coord) {
  SmallVector<ChunkCopy> copies;
  int64_t chunks = lhsRowBytes / chunkBytes;
  int64_t count = llvm::divideCeil(tileRows * chunks, threads);
  for (int64_t i = 0; i < count; ++i) {
    Value index = b.add(thread, i * threads);
    Value row = b.div(index, chunks), chunk = b.rem(index, chunks);
    // Out-of-range rows are clamped to the last row; their results are
    // discarded.
    Value clamped = b.min(row, b.sub(coord.rows, 1));
    Value rowOffset = b.mul(chunk, chunkBytes);
    copies.push_back(
        {b.at(lhsRowPointer(b.add(coord.firstRow, clamped)), b.getI8Type(),
              rowOffset),
         chunkOffset(b, row, chunk, lhsRowBytes),
         tileRows * chunks < threads ? b.less(row, tileRows) : Value(),
         rowOffset, k * lhsRowBytes / depth});
  }
  return copies;
}

SmallVector<ScaledMmaSyncKernel::ChunkCopy>
ScaledMmaSyncKernel::weightCopies(const TileCoord &coord) {
  SmallVector<ChunkCopy> copies;
  constexpr int64_t chunks = weightRowBytes / chunkBytes;
  Type byte = b.getI8Type();
  for (int64_t i = 0; i < tileColumns * chunks / threads; ++i) {
    Value index = b.add(thread, i * threads);
    Value row = b.div(index, chunks), chunk = b.rem(index, chunks);
    auto [view, column] = weightColumn(row);
    column = b.add(column, b.mul(coord.columnTile, viewTileColumns));
    Value pointer = weightPointer(view, byte);
    Value rowOffset = b.mul(chunk, chunkBytes);
    Value offset = b.add(b.mul(b.toI64(coord.expert), weightColumns * k),
                         b.mul(b.toI64(b.min(column, viewColumns - 1)), k));
    copies.push_back(
        {b.at(pointer, byte, b.add(offset, b.toI64(rowOffset))),
         b.add(chunkOffset(b, row, chunk, weightRowBytes), lhsBytes),
         n % outTileColumns != 0 ? b.less(column, viewColumns) : Value(),
         rowOffset, k});
  }
  return copies;
}

/// Copies chunks for step `step` along k to stage `stage`; fills them with
/// zeros where they are out of range. A thread without a chunk of the rows
/// copies none.
void ScaledMmaSyncKernel::issueCopies(ArrayRef<ChunkCopy> copies, Value step,
                                      Value stage, bool isLhs) {
  int64_t stepBytes = isLhs ? lhsRowBytes : weightRowBytes;
  Value start = b.mul(step, stepBytes), stageStart = b.mul(stage, stageBytes);
  for (const ChunkCopy &copy : copies) {
    auto issue = [&] {
      Value inside = isLhs ? Value() : copy.valid;
      if (copy.sourceBytes % stepBytes != 0) {
        Value within = b.less(b.add(start, copy.rowOffset), copy.sourceBytes);
        inside = inside ? b.both(inside, within) : within;
      }
      Value target = b.sharedAt(memory, b.add(stageStart, copy.offset));
      Value offset = inside ? b.select(inside, start, b.i32(0)) : start;
      Value bytes =
          inside ? b.select(inside, b.i32(chunkBytes), b.i32(0)) : Value();
      NVVM::CpAsyncOp::create(
          b, target, b.at(copy.source, b.getI8Type(), offset), chunkBytes,
          NVVM::LoadCacheModifierKind::CG, bytes);
    };
    if (isLhs && copy.valid)
      b.ifThen(copy.valid, issue);
    else
      issue();
  }
}

//===----------------------------------------------------------------------===//
// Conversion to f16 and bf16
//===----------------------------------------------------------------------===//

/// Converts the f8E4M3FN elements in the upper bytes of both halves of `bytes`;
/// `nans` has bit 15 and bit 31 set where they are NaN. f16 results are scaled
/// by 2⁻⁸, which saves an instruction; the accumulators are rescaled.
Value ScaledMmaSyncKernel::convertPair(Value bytes, Value nans) {
  bool isF16 = mmaType.isF16();
  Value magnitude = b.bitAnd(bytes, 0x7f007f00);
  Value sign = b.bitAnd(bytes, int32_t(0x80008000));
  // Move the exponent to the low bits of the wider exponent field.
  Value bits = b.bitOr(b.shiftRight(magnitude, isF16 ? 1 : 4), sign);
  if (!isF16) {
    // Rescale the exponent: products of values this small would be inexact in
    // f32.
    auto pair = VectorType::get(2, mmaType);
    auto constant = [&](double value) -> Value {
      return arith::ConstantOp::create(
          b, DenseElementsAttr::get(pair, b.getFloatAttr(mmaType, value)));
    };
    Value wide = LLVM::BitcastOp::create(b, pair, bits);
    wide = LLVM::FMAOp::create(b, wide, constant(0x1p120), constant(0.0));
    bits = LLVM::BitcastOp::create(b, b.getI32Type(), wide);
  }
  // 0x7fff is NaN in both types.
  Value nan = b.sub(nans, b.shiftRight(nans, 15));
  return b.bitOr(bits, nan);
}

/// Converts four f8E4M3FN elements to two pairs: elements (0, 1) and (2, 3) if
/// rows are 16-bit, or (0, 2) and (1, 3), which is cheaper, if rows are FP8,
/// too, and go through the same conversion.
std::pair<Value, Value> ScaledMmaSyncKernel::convert(Value four) {
  // The addition carries into bit 7 of a byte where bits 0 to 6 are all set.
  Value ones = b.add(b.bitAnd(four, 0x7f7f7f7f), 0x01010101);
  Value nans = b.bitAnd(ones, int32_t(0x80808080));
  constexpr int64_t upperBytes = 0xff00ff00;
  auto selectPair = [&](Value bytes, bool second) -> Value {
    if (fp8Lhs)
      return second ? bytes : b.shiftLeft(bytes, 8);
    // Bytes 0 and 1, or 2 and 3, each above a byte of zeros.
    auto mode =
        NVVM::PermuteModeAttr::get(b.getContext(), NVVM::PermuteMode::DEFAULT);
    return NVVM::PermuteOp::create(b, b.getI32Type(), bytes, b.i32(0),
                                   b.i32(second ? 0x3424 : 0x1404), mode);
  };
  auto selectNaNs = [&](bool second) -> Value {
    Value pair = selectPair(nans, second);
    return fp8Lhs ? b.bitAnd(pair, int32_t(upperBytes)) : pair;
  };
  return {convertPair(selectPair(four, false), selectNaNs(false)),
          convertPair(selectPair(four, true), selectNaNs(true))};
}

//===----------------------------------------------------------------------===//
// Shared memory to tensor cores
//===----------------------------------------------------------------------===//

/// Loads the lhs fragments of 16 rows for both m16n8k16 of 32 elements along k.
SmallVector<SmallVector<Value>>
ScaledMmaSyncKernel::loadLhs(Value start, int64_t step, int64_t fragment) {
  SmallVector<SmallVector<Value>> halves(2);
  if (fp8Lhs) {
    Value row = b.add(b.add(warpRow, b.bitAnd(lane, 15)), fragment * 16);
    Value chunk = b.add(b.shiftRight(lane, 4), step * 2);
    SmallVector<Value> loaded =
        loadMatrices(b.add(start, chunkOffset(b, row, chunk, lhsRowBytes)));
    for (int64_t half = 0; half < 2; ++half) {
      auto [upperFirst, upperSecond] = convert(loaded[half * 2]);
      auto [lowerFirst, lowerSecond] = convert(loaded[half * 2 + 1]);
      halves[half] = {upperFirst, lowerFirst, upperSecond, lowerSecond};
    }
    return halves;
  }
  // A lane loads four adjacent elements; the four lanes of a row load 16.
  auto pairs = VectorType::get(2, b.getI32Type());
  Value within = b.bitAnd(lane, 3);
  for (int64_t half = 0; half < 2; ++half) {
    SmallVector<Value> first, second;
    for (int64_t lower = 0; lower < 2; ++lower) {
      Value row = b.add(b.add(warpRow, b.shiftRight(lane, 2)),
                        fragment * 16 + lower * 8);
      Value chunk = b.add(b.shiftRight(within, 1), step * 4 + half * 2);
      Value offset = b.add(chunkOffset(b, row, chunk, lhsRowBytes),
                           b.shiftLeft(b.bitAnd(within, 1), 3));
      Value loaded = b.load(pairs, b.sharedAt(memory, b.add(start, offset)), 8);
      first.push_back(vector::ExtractOp::create(b, loaded, int64_t(0)));
      second.push_back(vector::ExtractOp::create(b, loaded, int64_t(1)));
    }
    halves[half] = {first[0], first[1], second[0], second[1]};
  }
  return halves;
}

/// Returns the unscaled accumulators of one stage.
SmallVector<Value> ScaledMmaSyncKernel::multiplyStage(Value stage) {
  Value start = b.mul(stage, stageBytes);
  Value low = b.bitAnd(lane, 7), half = b.bitAnd(b.shiftRight(lane, 3), 1);
  Value upper = b.shiftRight(lane, 4);
  SmallVector<Value> accumulators(fragmentsM * fragmentsN * 4, b.f32(0.0));
  for (int64_t step = 0; step < depth / 32; ++step) {
    // The weights of the first and of the second m16n8k16.
    SmallVector<SmallVector<Value>> rhs[2];
    for (int64_t j = 0; j < fragmentsN; j += 2) {
      Value row =
          b.add(b.add(warpColumn, j * 8), b.add(low, b.shiftLeft(upper, 3)));
      Value chunk = b.add(half, step * 2);
      Value offset =
          b.add(chunkOffset(b, row, chunk, weightRowBytes), lhsBytes);
      SmallVector<Value> loaded = loadMatrices(b.add(start, offset));
      for (int64_t i = 0; i < 4; ++i) {
        auto [first, second] = convert(loaded[i]);
        rhs[i % 2].push_back({first, second});
      }
    }
    for (int64_t i = 0; i < fragmentsM; ++i) {
      SmallVector<SmallVector<Value>> lhs = loadLhs(start, step, i);
      for (int64_t half = 0; half < 2; ++half)
        for (int64_t j = 0; j < fragmentsN; ++j)
          b.mma(
              mmaType, lhs[half], rhs[half][j],
              MutableArrayRef(accumulators).slice((i * fragmentsN + j) * 4, 4));
    }
  }
  return accumulators;
}

//===----------------------------------------------------------------------===//
// Tiles
//===----------------------------------------------------------------------===//

/// Returns the rows of lhs that a lane has accumulators of; none without row
/// scales.
SmallVector<Value> ScaledMmaSyncKernel::lhsRowsOfLane(const TileCoord &coord) {
  SmallVector<Value> rows;
  if (!lhsScales)
    return rows;
  for (int64_t i = 0; i < fragmentsM * 2; ++i) {
    Value row = b.add(b.add(warpRow, b.shiftRight(lane, 2)), i * 8);
    row = b.min(row, b.sub(coord.rows, 1));
    rows.push_back(lhsRowIndex(b.add(coord.firstRow, row)));
  }
  return rows;
}

void ScaledMmaSyncKernel::computeTile(const TileCoord &coord) {
  SmallVector<ChunkCopy> lhs = lhsCopies(coord);
  SmallVector<ChunkCopy> weights = weightCopies(coord);
  SmallVector<Value> lhsRows = lhsRowsOfLane(coord);
  auto loadStage = [&](Value step, Value stage) {
    issueCopies(lhs, step, stage, /*isLhs=*/true);
    issueCopies(weights, step, stage, /*isLhs=*/false);
  };
  // Each operand that was converted to f16 is scaled by 2⁻⁸.
  Value rescale = mmaType.isF16() ? b.f32(fp8Lhs ? 0x1p16 : 0x1p8) : Value();
  auto multiply = [&](Value step, Value stage, ValueRange accumulators,
                      llvm::function_ref<void()> waitStage) {
    // The loads of scales overlap with the matmuls of the stage.
    SmallVector<Value> rowScales;
    for (Value row : lhsRows)
      rowScales.push_back(loadRowScale(row, step));
    SmallVector<Value> columnScales = loadWeightScales(
        coord, fragmentsN / matmuls, step,
        [&](int64_t fragment) { return fragmentColumn(coord, fragment); });
    waitStage();
    SmallVector<Value> next;
    for (auto [i, partial] : llvm::enumerate(multiplyStage(stage))) {
      int64_t fragment = i / 4, half = i % 4 / 2;
      Value rescaled =
          rescale ? arith::MulFOp::create(b, partial, rescale).getResult()
                  : partial;
      next.push_back(accumulateScaled(
          accumulators[i], rescaled,
          rowScales.empty() ? Value()
                            : rowScales[fragment / fragmentsN * 2 + half],
          columnScale(columnScales, fragment % fragmentsN, i % 2)));
    }
    return next;
  };
  store(coord, mainloop(steps, loadStage, multiply));
}

void mlir::moe::launchScaledMmaSyncKernel(const GroupedKernelRequest &request,
                                          Value blocks,
                                          DeviceLowering &lowering) {
  ScaledMmaSyncKernel kernel(request, lowering);
  kernel.launch(kernel.build(), blocks);
}
