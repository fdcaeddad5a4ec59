//===- CombineEpilogue.cpp - Fused combine of a grouped matmul ------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "CombineEpilogue.h"

#include "Limits.h"
#include "moe/Analysis/KernelModel.h"

#include "mlir/Dialect/SCF/IR/SCF.h"

using namespace mlir;
using namespace mlir::moe;

//===----------------------------------------------------------------------===//
// CombineEpilogue
//===----------------------------------------------------------------------===//

std::optional<CombineEpilogue> CombineEpilogue::match(FusedOp op) {
  Block &body = op.getBody().front();
  auto matmul = dyn_cast<GroupedMatmulOp>(body.front());
  auto combine = dyn_cast_or_null<GatherSumOp>(body.front().getNextNode());
  if (!matmul || !combine || !op.getCounters() ||
      combine.getRows() != matmul.getResult() || combine.getDropped() ||
      combine->getNextNode() != op.getYield() ||
      !llvm::equal(op.getYield().getValues(), combine->getResults()))
    return std::nullopt;
  return CombineEpilogue{matmul, combine, op.getCounters()};
}

bool CombineEpilogue::supportsFew(TileAttr tile) const {
  constexpr int64_t maxRows = 64, maxWarps = 8;
  // In these kernels no warp arrives for a tile.
  if (tile.getUnit() == MatrixUnit::Wgmma && !tile.getSwapAb())
    return false;
  GroupedMatmulOp op = matmul;
  int64_t tiles = llvm::divideCeil(op.getN(), tile.getColumns());
  // Counters of dynamic number are at least as many.
  auto type = cast<RankedTensorType>(counters.getType());
  int64_t count = type.isDynamicDim(0) ? numCounters : type.getDimSize(0);
  return tile.getRows() <= maxRows && tiles * maxWarps <= count;
}

bool CombineEpilogue::supportsAny() const {
  // A lane holds the positions of a token.
  constexpr int64_t maxChoices = 16;
  // A token has a counter for each tile along n.
  GroupedMatmulOp op = matmul;
  auto tiles = op->getAttrOfType<ArrayAttr>(tilesAttrName);
  bool areCounted = tiles && llvm::all_of(tiles, [](Attribute attr) {
                      auto tile = dyn_cast<TileAttr>(attr);
                      return tile && tile.getColumns() >= counterColumns;
                    });
  return areCounted && tokens &&
         cast<RankedTensorType>(counters.getType()).isDynamicDim(0) &&
         GatherSumOp(combine).getTopK() <= maxChoices;
}

static Value tokensOf(HostBuilder &b, GatherSumOp op) {
  return b.extent(op.getPositions(), 0);
}

Value CombineEpilogue::init(HostBuilder &b) const {
  GatherSumOp op = combine;
  auto type = op.getResult().getType();
  // The number of tokens may be static in the sizes though dynamic in the type.
  return b.empty(
      {getAsOpFoldResult(tokensOf(b, op)), b.getIndexAttr(type.getDimSize(1))},
      type.getElementType());
}

Value CombineEpilogue::fewTokens(HostBuilder &b) const {
  Value tokens = tokensOf(b, combine);
  Value isFew = b.atMost(tokens, b.index(maxFewTokens));
  return b.select(isFew, tokens, b.index(0));
}

Value CombineEpilogue::otherTokens(HostBuilder &b, TileAttr tile) const {
  Value tokens = tokensOf(b, combine);
  if (!supportsFew(tile))
    return tokens;
  Value isFew = b.atMost(tokens, b.index(maxFewTokens));
  return b.select(isFew, b.index(0), tokens);
}

Value CombineEpilogue::launchRemaining(HostBuilder &b, Value rows,
                                       Value combined, Value fused, Value ran,
                                       DeviceLowering &lowering) const {
  GatherSumOp op = combine;
  Value tokens = tokensOf(b, op);
  Value remaining = b.select(ran, b.sub(tokens, fused), tokens);
  auto gather =
      GatherSumOp::create(b, combined.getType(), rows, op.getPositions(),
                          op.getWeights(), Value(), combined);
  Value result = launchGatherSum(gather, remaining, maxFewTokens + 1, lowering);
  gather.erase();
  return result;
}

//===----------------------------------------------------------------------===//
// CombineEpilogueEmitter
//===----------------------------------------------------------------------===//

static Type elementOf(GatherSumOp op) {
  return op.getResult().getType().getElementType();
}

CombineEpilogueEmitter::CombineEpilogueEmitter(GPUBuilder &b,
                                               const CombineEpilogue &epilogue,
                                               int64_t columns, int64_t warps,
                                               const Arguments &arguments)
    : topK(GatherSumOp(epilogue.combine).getTopK()), b(b),
      gather(b, elementOf(epilogue.combine), columns, topK, arguments.arrays),
      vectorWidth(
          GatherSumEmitter::widthOf(elementOf(epilogue.combine), columns)),
      vectors(columns / vectorWidth), columns(columns), warps(warps),
      arguments(arguments) {}

void CombineEpilogueEmitter::arrive(Value warp, Value columnTile,
                                    Value rowTiles, const Columns &own) {
  b.ifThen(b.less(b.i32(0), arguments.few), [&] {
    // Release: the stores of all lanes come before the arrival of lane 0.
    NVVM::SyncWarpOp::create(b, b.i32(-1));
    b.fence();
    Value lane = b.lane();
    auto arrival = scf::IfOp::create(b, b.getI32Type(), b.equal(lane, 0),
                                     /*withElseRegion=*/true);
    {
      OpBuilder::InsertionGuard guard(b);
      b.setInsertionPointToStart(arrival.thenBlock());
      Value slot = b.add(b.mul(columnTile, warps), warp);
      scf::YieldOp::create(
          b, b.atomicAdd(b.at(arguments.counters, b.getI32Type(), slot),
                         b.i32(1)));
      b.setInsertionPointToStart(arrival.elseBlock());
      scf::YieldOp::create(b, b.i32(0));
    }
    Value before = b.shuffle(arrival.getResult(0), b.i32(0));
    Value arrivals = b.mul(rowTiles, own.writers);
    b.ifThen(b.equal(before, b.sub(arrivals, 1)), [&] {
      // Acquire: the stores of other warps come before the loads of any lane.
      b.fence();
      NVVM::SyncWarpOp::create(b, b.i32(-1));
      int64_t perRange = own.width / vectorWidth;
      int64_t perToken = own.count * perRange;
      b.loop(lane, b.mul(arguments.few, perToken), b.i32(GPUBuilder::warpSize),
             [&](Value index) {
               Value within = b.rem(index, perToken);
               Value range = b.div(within, perRange);
               Value vector =
                   b.add(b.add(b.div(own.first, vectorWidth),
                               b.mul(range, own.stride / vectorWidth)),
                         b.rem(within, perRange));
               b.ifThen(b.less(vector, vectors),
                        [&] { gather.emit(b.div(index, perToken), vector); });
             });
    });
  });
}

std::pair<Value, SmallVector<Value>>
CombineEpilogueEmitter::rowsOf(Value token) {
  Value start = b.mul(b.toI64(token), topK);
  SmallVector<Value> positions;
  for (int64_t k = 0; k < topK; ++k)
    positions.push_back(
        b.loadAt(b.getI32Type(), arguments.arrays.positions, b.add(start, k)));
  Value count = b.i32(0);
  for (Value position : positions)
    count = b.add(count, b.toI32(b.below(position, arguments.arrays.numRows)));
  return {count, positions};
}

/// The lanes have vectors of the columns of a tile.
void CombineEpilogueEmitter::combineToken(Value token,
                                          ArrayRef<Value> positions,
                                          Value columnTile,
                                          int64_t tileColumns) {
  int64_t ofTile = tileColumns / vectorWidth;
  b.loop(b.lane(), b.i32(ofTile), b.i32(GPUBuilder::warpSize),
         [&](Value index) {
           Value vector = b.add(b.mul(columnTile, ofTile), index);
           b.ifThen(b.less(vector, vectors),
                    [&] { gather.emit(token, vector, positions); });
         });
}

/// Each lane has a row: it arrives for its token.
void CombineEpilogueEmitter::arriveGroup(const Rows &rows, int64_t start,
                                         Value columnTile,
                                         int64_t tileColumns) {
  Type i32 = b.getI32Type();
  int64_t columnTiles = llvm::divideCeil(columns, tileColumns);
  Value index = b.add(b.lane(), start);
  Value row = rows.rowAt(index);
  Value hasRow = b.both(b.less(index, rows.most), b.less(row, rows.count));
  Value token = b.loadAt(i32, arguments.tokenOfRow,
                         b.select(hasRow, b.add(rows.first, row), b.i32(0)));
  hasRow = b.both(hasRow, b.below(token, arguments.others));
  token = b.select(hasRow, token, b.i32(0));
  auto [count, positions] = rowsOf(token);
  auto arrival = scf::IfOp::create(b, i32, hasRow, /*withElseRegion=*/true);
  {
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(arrival.thenBlock());
    Value slot = b.add(b.mul(b.toI64(token), columnTiles), b.toI64(columnTile));
    scf::YieldOp::create(
        b, b.atomicAdd(b.at(arguments.counters, i32, slot), b.i32(1)));
    b.setInsertionPointToStart(arrival.elseBlock());
    scf::YieldOp::create(b, b.i32(-1));
  }
  Value isLast = b.both(hasRow, b.equal(b.add(arrival.getResult(0), 1),
                                        b.mul(count, rows.writers)));
  Value last = b.select(isLast, token, b.i32(-1));
  Value any = b.maxWarp(last);
  b.ifThen(b.less(b.i32(-1), any), [&] {
    // Acquire: the stores of other warps come before the loads of any lane.
    b.fence();
    NVVM::SyncWarpOp::create(b, b.i32(-1));
    int64_t lanes = std::min(rows.most - start, GPUBuilder::warpSize);
    b.loop(b.i32(0), b.i32(lanes), b.i32(1), [&](Value from) {
      Value its = b.shuffle(last, from);
      b.ifThen(b.less(b.i32(-1), its), [&] {
        SmallVector<Value> all;
        for (Value position : positions)
          all.push_back(b.shuffle(position, from));
        combineToken(its, all, columnTile, tileColumns);
      });
    });
  });
}

void CombineEpilogueEmitter::arriveRows(const Rows &rows, Value columnTile,
                                        int64_t tileColumns) {
  b.ifThen(b.less(b.i32(0), arguments.others), [&] {
    // Release: the stores of all lanes come before the arrival of any.
    NVVM::SyncWarpOp::create(b, b.i32(-1));
    b.fence();
    for (int64_t start = 0; start < rows.most; start += GPUBuilder::warpSize)
      arriveGroup(rows, start, columnTile, tileColumns);
  });
}

void CombineEpilogueEmitter::emitWithoutRows(Value rowTiles, int64_t threads) {
  Value first = b.add(b.mul(b.block(), threads), b.thread());
  Value stride = b.mul(b.numBlocks(), threads);
  if (arguments.few) {
    Value tokens = b.select(b.equal(rowTiles, 0), arguments.few, b.i32(0));
    b.loop(first, b.mul(tokens, vectors), stride, [&](Value index) {
      gather.emit(b.div(index, vectors), b.rem(index, vectors));
    });
  }
  if (arguments.others)
    b.loop(first, arguments.others, stride, [&](Value token) {
      b.ifThen(b.equal(rowsOf(token).first, 0), [&] {
        b.loop(b.i32(0), b.i32(vectors), b.i32(1),
               [&](Value vector) { gather.emit(token, vector); });
      });
    });
}
