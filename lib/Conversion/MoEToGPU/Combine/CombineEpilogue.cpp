//===- CombineEpilogue.cpp - Sums that products end in --------------------===//
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
// RowSum
//===----------------------------------------------------------------------===//

std::optional<RowSum> RowSum::find(GroupedMatmulOp op,
                                   const DeviceLowering &lowering) {
  // Without counters, or rows of other products among those of this one.
  Value offsets = op.getOffsets();
  Value arrivals = offsets ? lowering.arrivals.lookup(offsets) : Value();
  if (!arrivals || op.getNumProducts() != 1 || op.getFirstExpert() != 0 ||
      cast<RankedTensorType>(offsets.getType()).getDimSize(0) !=
          op.getExpertCount() + 1 ||
      !op.getResult().hasOneUse())
    return std::nullopt;
  auto combine = dyn_cast<GatherSumOp>(*op.getResult().getUsers().begin());
  if (!combine || combine->getBlock() != op->getBlock() ||
      combine.getRows() != op.getResult() || combine.getDropped())
    return std::nullopt;
  Value weights = combine.getWeights();
  for (Value operand : {Value(combine.getPositions()), weights})
    if (Operation *def = operand ? operand.getDefiningOp() : nullptr;
        def && def->getBlock() == op->getBlock() && !def->isBeforeInBlock(op))
      return std::nullopt;
  return RowSum{combine, arrivals};
}

bool RowSum::suits(GroupedMatmulOp op, TileAttr tile) {
  constexpr int64_t mostRows = 16, mostWarps = 8;
  int64_t tiles = llvm::divideCeil(op.getN(), tile.getColumns());
  return tile.getRows() <= mostRows && tiles * mostWarps <= numArrivals;
}

SmallVector<Value> RowSum::inputs() const {
  GatherSumOp op = combine;
  SmallVector<Value> inputs{op.getPositions()};
  if (op.getWeights())
    inputs.push_back(op.getWeights());
  return inputs;
}

static Value tokensOf(ImplicitLocOpBuilder &b, GatherSumOp op) {
  return extentOf(b, op.getPositions(), 0);
}

Value RowSum::init(ImplicitLocOpBuilder &b) const {
  GatherSumOp op = combine;
  auto type = op.getResult().getType();
  OpFoldResult sizes[] = {getAsOpFoldResult(tokensOf(b, op)),
                          b.getIndexAttr(type.getDimSize(1))};
  // The type, which may have a static number of tokens, is that of the sizes.
  return tensor::EmptyOp::create(b, sizes, type.getElementType());
}

Value RowSum::tokensAtOnce(ImplicitLocOpBuilder &b) const {
  auto index = [&](int64_t value) -> Value {
    return arith::ConstantIndexOp::create(b, value);
  };
  Value tokens = tokensOf(b, combine);
  Value isFew = arith::CmpIOp::create(b, arith::CmpIPredicate::ule, tokens,
                                      index(mostTokens));
  return arith::SelectOp::create(b, isFew, tokens, index(0));
}

void RowSum::replace(ImplicitLocOpBuilder &b, Value rows, Value summed,
                     Value some, Value ran, DeviceLowering &lowering) const {
  GatherSumOp op = combine;
  Value tokens = tokensOf(b, op);
  Value left = arith::SelectOp::create(
      b, ran, arith::SubIOp::create(b, tokens, some), tokens);
  auto gather =
      GatherSumOp::create(b, summed.getType(), rows, op.getPositions(),
                          op.getWeights(), Value(), summed);
  Value result = launchGatherSum(gather, left, lowering);
  gather.erase();
  op.getResult().replaceAllUsesWith(result);
  op.erase();
}

//===----------------------------------------------------------------------===//
// RowSumEmitter
//===----------------------------------------------------------------------===//

static Type elementOf(GatherSumOp op) {
  return op.getResult().getType().getElementType();
}

RowSumEmitter::RowSumEmitter(GPUBuilder &b, const RowSum &sum, int64_t columns,
                             int64_t warps, const Arguments &arguments)
    : b(b), gather(b, elementOf(sum.combine), columns,
                   GatherSumOp(sum.combine).getTopK(), arguments.arrays),
      vectorWidth(GatherSumEmitter::widthOf(elementOf(sum.combine), columns)),
      vectors(columns / vectorWidth), columns(columns), warps(warps),
      arguments(arguments) {}

void RowSumEmitter::arrive(Value warp, Value columnTile, Value rowTiles,
                           const Columns &own) {
  b.ifThen(b.less(b.i32(0), arguments.tokens), [&] {
    // What all lanes have stored comes before the arrival of the first ...
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
          b, b.atomicAdd(b.at(arguments.arrivals, b.getI32Type(), slot),
                         b.i32(1)));
      b.setInsertionPointToStart(arrival.elseBlock());
      scf::YieldOp::create(b, b.i32(0));
    }
    Value before = b.shuffle(arrival.getResult(0), b.i32(0));
    b.ifThen(b.equal(before, b.sub(rowTiles, 1)), [&] {
      // ... and those of the others before what any lane reads.
      b.fence();
      NVVM::SyncWarpOp::create(b, b.i32(-1));
      int64_t perPart = own.width / vectorWidth;
      int64_t perToken = own.count * perPart;
      b.loop(lane, b.mul(arguments.tokens, perToken),
             b.i32(GPUBuilder::warpSize), [&](Value number) {
               Value within = b.rem(number, perToken);
               Value part = b.div(within, perPart);
               Value vector =
                   b.add(b.add(b.div(own.first, vectorWidth),
                               b.mul(part, own.stride / vectorWidth)),
                         b.rem(within, perPart));
               b.ifThen(b.less(vector, vectors),
                        [&] { gather.emit(b.div(number, perToken), vector); });
             });
    });
  });
}

void RowSumEmitter::fillWithoutTiles(Value rowTiles, int64_t threads) {
  Value tokens = b.select(b.equal(rowTiles, 0), arguments.tokens, b.i32(0));
  Value first = b.add(b.mul(b.block(), threads), b.thread());
  b.loop(first, b.mul(tokens, vectors), b.mul(b.numBlocks(), threads),
         [&](Value number) {
           gather.emit(b.div(number, vectors), b.rem(number, vectors));
         });
}
