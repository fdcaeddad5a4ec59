//===- CombineEpilogue.cpp - Fused combine of a grouped matmul ------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "CombineEpilogue.h"

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
      op.getCounters().getType().isDynamicDim(0) ||
      combine.getRows() != matmul.getResult() || combine.getDropped() ||
      combine->getNextNode() != op.getYield() ||
      !llvm::equal(op.getYield().getValues(), combine->getResults()))
    return std::nullopt;
  return CombineEpilogue{matmul, combine, op.getCounters()};
}

bool CombineEpilogue::supports(TileAttr tile) const {
  constexpr int64_t maxRows = 64, maxWarps = 8;
  GroupedMatmulOp op = matmul;
  int64_t tiles = llvm::divideCeil(op.getN(), tile.getColumns());
  return tile.getRows() <= maxRows &&
         tiles * maxWarps <=
             cast<RankedTensorType>(counters.getType()).getDimSize(0);
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

Value CombineEpilogue::fusedTokens(HostBuilder &b) const {
  Value tokens = tokensOf(b, combine);
  Value isFew = b.atMost(tokens, b.index(maxTokens));
  return b.select(isFew, tokens, b.index(0));
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
  Value result = launchGatherSum(gather, remaining, maxTokens + 1, lowering);
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
    : b(b), gather(b, elementOf(epilogue.combine), columns,
                   GatherSumOp(epilogue.combine).getTopK(), arguments.arrays),
      vectorWidth(
          GatherSumEmitter::widthOf(elementOf(epilogue.combine), columns)),
      vectors(columns / vectorWidth), columns(columns), warps(warps),
      arguments(arguments) {}

void CombineEpilogueEmitter::arrive(Value warp, Value columnTile,
                                    Value rowTiles, const Columns &own) {
  b.ifThen(b.less(b.i32(0), arguments.tokens), [&] {
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
      b.loop(lane, b.mul(arguments.tokens, perToken),
             b.i32(GPUBuilder::warpSize), [&](Value index) {
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

void CombineEpilogueEmitter::emitWithoutTiles(Value rowTiles, int64_t threads) {
  Value tokens = b.select(b.equal(rowTiles, 0), arguments.tokens, b.i32(0));
  Value first = b.add(b.mul(b.block(), threads), b.thread());
  b.loop(first, b.mul(tokens, vectors), b.mul(b.numBlocks(), threads),
         [&](Value index) {
           gather.emit(b.div(index, vectors), b.rem(index, vectors));
         });
}
