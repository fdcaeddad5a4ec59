//===- WgmmaContract.cpp - Contraction on wgmma ---------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// For f16 and bf16, sm_90a: a persistent, warp-specialized kernel with two
// consumer warpgroups, which share a tile. Rows of both operands are in shared
// memory as they are in global memory, in blocks of 64 columns: both operands
// of wgmma are MN-major.
//
// TMA loads contiguous rows. Gathered rows are copied with cp.async, and so is
// the last step of contiguous ones where it has less than 64 rows: what follows
// them in memory belongs to another expert, and cp.async fills with zeros.
//
//===----------------------------------------------------------------------===//

#include "ContractKernel.h"
#include "GroupedMatmul/Wgmma/WgmmaPipeline.h"
#include "moe/Analysis/KernelModel.h"

#include "mlir/IR/TypeUtilities.h"

using namespace mlir;
using namespace mlir::moe;

static constexpr int64_t consumers = 2; // warpgroups
// Bytes of shared memory for stages, and the most stages.
static constexpr int64_t stagesBytes = 4 * (128 + 256) * 64 * 2, maxStages = 8;
// Of the 3 · 168 of a block (WgmmaKernel.cpp).
static constexpr int64_t producerRegisters = 56, consumerRegisters = 224;

namespace {
class WgmmaContract : public ContractKernel, protected WgmmaPipeline {
public:
  using ContractKernel::b;

  WgmmaContract(GroupedContractOp op, ContractOperands &operands,
                DeviceLowering &lowering)
      : ContractKernel(op, rowsOfTile, columnsOf(op), operands, lowering),
        WgmmaPipeline(b, element, stageCount(tileN),
                      (tileK + tileN) * depth * 2,
                      /*emptyArrivals=*/consumers) {}

  LLVM::LLVMFuncOp build();

private:
  static constexpr int64_t rowsOfTile = consumers * wgmmaM;
  static constexpr int64_t blockColumns = 64;
  static constexpr int64_t blockBytes = depth * swizzleBytes;

  static int64_t columnsOf(GroupedContractOp op);
  static int64_t stageCount(int64_t columns) {
    int64_t stageBytes = (rowsOfTile + columns) * depth * 2;
    return std::min<int64_t>(maxStages, stagesBytes / stageBytes);
  }
  /// What a producer thread copies of each block of columns: chunk `chunk` of
  /// every 16th row from `row` on, to `offset`.
  struct Copies {
    Value chunk, row, offset;
  };

  void copySide(const Coord &coord, const Side &side, const Copies &copies,
                Value firstColumn, int64_t columns, Value firstRow,
                Value start);
  void loadSide(const Side &side, Value map, Value firstColumn, int64_t columns,
                Value firstRow, Value start, Value barrier);
  PipelineState loadTile(const Coord &coord, const Copies &copies,
                         PipelineState state);
  void produce();
  SmallVector<Value> multiplyStage(ValueRange accumulators, Value stage,
                                   bool first);
  void store(const Coord &coord,
             llvm::function_ref<Value(int64_t)> accumulator);
  void consume(Value consumer);

  Value lhsMap, rhsMap; // null for gathered rows
  Value consumer;       // index of the consumer warpgroup
};
} // namespace

/// Returns the columns of a tile with which the kernel should take least time
/// for many rows: large tiles read less, but a single matrix has few of them.
int64_t WgmmaContract::columnsOf(GroupedContractOp op) {
  constexpr double rowsOfExpert = 2048, rowsOfAll = 32768;
  GPUMachine gpu = *findGPU("sm_90a");
  ContractWork work;
  work.experts = op.getExpertCount();
  work.k = op.getK();
  work.n = op.getN();
  work.tileK = rowsOfTile;
  work.gathers = bool(op.getLhsGather()) + bool(op.getRhsGather());
  work.accumulate = op.getAccumulate();
  work.rows = getElementTypeOrSelf(op.getLhs());
  work.result = getElementTypeOrSelf(op.getInit());
  double experts = double(work.experts);
  double rows = op.getOffsets() ? rowsOfExpert * experts : rowsOfAll;
  int64_t best = 0;
  double least = 0;
  for (int64_t columns = 256; columns > 0; columns -= blockColumns) {
    if (columns >= work.n + blockColumns)
      continue;
    work.tileN = columns;
    double seconds = work.predict(gpu, {rows, experts, rows}).seconds;
    if (best > 0 && seconds >= least)
      continue;
    best = columns;
    least = seconds;
  }
  return best;
}

//===----------------------------------------------------------------------===//
// Producer
//===----------------------------------------------------------------------===//

/// Copies 64 rows from grouped row `firstRow` on, with zeros where the expert
/// or the operand has none.
void WgmmaContract::copySide(const Coord &coord, const Side &side,
                             const Copies &copies, Value firstColumn,
                             int64_t columns, Value firstRow, Value start) {
  constexpr int64_t rowsAtOnce = warpgroupSize / 8;
  Value column = b.add(firstColumn, b.shiftLeft(copies.chunk, 3));
  for (int64_t i = 0; i < depth; i += rowsAtOnce) {
    Value row = b.add(firstRow, b.add(copies.row, i));
    Value exists = hasRow(coord, row);
    Value source = pointerTo(side, sourceRow(side, row, exists), column);
    for (int64_t block = 0; block < columns; block += blockColumns) {
      Value inside = exists, from = b.at(source, element, b.i64(block));
      if (side.columns % columns != 0) {
        Value has = b.less(column, side.columns - block);
        inside = b.both(exists, has);
        from = b.select(has, from, side.rows);
      }
      Value target =
          b.add(b.add(start, copies.offset),
                block / blockColumns * blockBytes + i * swizzleBytes);
      copyChunk(b.sharedAt(memory, target), from,
                b.select(inside, b.i32(16), b.i32(0)));
    }
  }
}

/// Issues the TMA loads of 64 rows; called by one thread.
void WgmmaContract::loadSide(const Side &side, Value map, Value firstColumn,
                             int64_t columns, Value firstRow, Value start,
                             Value barrier) {
  for (int64_t block = 0; block < columns; block += blockColumns)
    issueTMA(
        b.sharedAt(memory, b.add(start, block / blockColumns * blockBytes)),
        map, {b.add(firstColumn, block), firstRow}, barrier);
}

WgmmaContract::PipelineState WgmmaContract::loadTile(const Coord &coord,
                                                     const Copies &copies,
                                                     PipelineState state) {
  struct Operand {
    const Side &side;
    Value map, column;
    int64_t columns, start;
  };
  Operand operands[] = {{lhs, lhsMap, coord.k, tileK, 0},
                        {rhs, rhsMap, coord.n, tileN, tileK * depth * 2}};
  int64_t tmaBytes = 0;
  for (const Operand &each : operands)
    tmaBytes += each.map ? each.columns * depth * 2 : 0;
  PipelineState end =
      fillStages(state, coord.steps, [&](Value step, Value stage, Value full) {
        Value start = b.mul(stage, stageBytes);
        Value row = b.add(coord.firstRow, b.mul(step, depth));
        Value isWhole = b.logicalNot(b.less(b.sub(coord.endRow, row), depth));
        b.ifThen(b.equal(thread, 0), [&] {
          expectBytes(full, b.select(isWhole, b.i32(tmaBytes), b.i32(0)));
          b.ifThen(isWhole, [&] {
            for (const Operand &each : operands)
              if (each.map)
                loadSide(each.side, each.map, each.column, each.columns, row,
                         b.add(start, each.start), full);
          });
        });
        for (const Operand &each : operands) {
          auto copy = [&] {
            copySide(coord, each.side, copies, each.column, each.columns, row,
                     b.add(start, each.start));
          };
          if (each.map)
            b.ifThen(b.logicalNot(isWhole), copy);
          else
            copy();
        }
        commitCopies(stage, step);
      });
  finishCopies(end.stage, coord.steps);
  return end;
}

void WgmmaContract::produce() {
  NVVM::SetMaxRegisterOp::create(b, producerRegisters,
                                 NVVM::SetMaxRegisterAction::decrease);
  Copies copies;
  copies.chunk = b.bitAnd(thread, 7);
  copies.row = b.shiftRight(thread, 3);
  Value swizzled = b.swizzle128(copies.chunk, copies.row);
  copies.offset =
      b.add(b.mul(copies.row, swizzleBytes), b.shiftLeft(swizzled, 4));
  PipelineState start = producerStart();
  b.loop(b.block(), b.i32(tileCount()), b.numBlocks(),
         {start.stage, start.phase}, [&](Value tile, ValueRange carried) {
           PipelineState state =
               loadTile(tileAt(tile), copies, {carried[0], carried[1]});
           return SmallVector<Value>{state.stage, state.phase};
         });
}

//===----------------------------------------------------------------------===//
// Consumers
//===----------------------------------------------------------------------===//

/// Issues the wgmmas of a stage and commits them as a group.
SmallVector<Value> WgmmaContract::multiplyStage(ValueRange accumulators,
                                                Value stage, bool first) {
  constexpr int64_t stepBytes = 16 * swizzleBytes; // rows of a wgmma
  Value start = stageAddress(stage);
  Value left =
      descriptor(b.add(start, b.mul(consumer, blockBytes)), blockBytes);
  Value right = descriptor(b.add(start, tileK * depth * 2), blockBytes);
  Value accumulator = accumulators.front();
  NVVM::WgmmaFenceAlignedOp::create(b);
  for (int64_t step = 0; step < depth / 16; ++step) {
    int64_t offset = step * stepBytes >> 4;
    accumulator = wgmma(accumulator, b.add(left, offset), b.add(right, offset),
                        tileN, /*lhsKMajor=*/false,
                        /*rhsKMajor=*/false, first && step == 0);
  }
  NVVM::WgmmaGroupSyncAlignedOp::create(b);
  return {accumulator};
}

void WgmmaContract::store(const Coord &coord,
                          llvm::function_ref<Value(int64_t)> accumulator) {
  // Nothing here may be computed ahead of the loop over tiles, for which there
  // are no registers.
  Value self = b.opaque(thread), lane = b.bitAnd(self, 31);
  Value warp = b.bitAnd(b.shiftRight(self, 5), 3);
  Value k = b.add(b.add(coord.k, b.mul(consumer, wgmmaM)),
                  b.add(b.shiftLeft(warp, 4), b.shiftRight(lane, 2)));
  Value n = b.add(coord.n, b.shiftLeft(b.bitAnd(lane, 3), 1));
  SmallVector<Pair> pairs;
  for (int64_t fragment = 0; fragment < tileN / 8; ++fragment)
    for (int64_t half = 0; half < 2; ++half) {
      int64_t index = fragment * 4 + half * 2;
      pairs.push_back({b.add(k, half * 8), b.add(n, fragment * 8),
                       accumulator(index), accumulator(index + 1)});
      if (pairs.size() < pairsAtOnce && !(fragment == tileN / 8 - 1 && half))
        continue;
      storePairs(coord, pairs);
      pairs.clear();
    }
}

void WgmmaContract::consume(Value warpgroup) {
  consumer = b.sub(warpgroup, 1);
  NVVM::SetMaxRegisterOp::create(b, consumerRegisters,
                                 NVVM::SetMaxRegisterAction::increase);
  PipelineState start = consumerStart();
  b.loop(b.block(), b.i32(tileCount()), b.numBlocks(),
         {start.stage, start.phase}, [&](Value tile, ValueRange carried) {
           PipelineState state{carried[0], carried[1]};
           Coord coord = tileAt(tile);
           b.ifElse(
               b.less(b.i32(0), coord.steps),
               [&] {
                 MainloopResult result = mainloop(
                     state, coord.steps, /*count=*/1, tileN,
                     [&](ValueRange accumulators, Value stage, bool first) {
                       return multiplyStage(accumulators, stage, first);
                     });
                 waitWgmma(0);
                 releaseStage(result.lastStage);
                 store(coord, [&](int64_t index) -> Value {
                   return LLVM::ExtractValueOp::create(
                       b, result.accumulators.front(), index);
                 });
               },
               [&] {
                 if (!op.getAccumulate())
                   store(coord, [&](int64_t) { return b.f32(0.0); });
               });
           // The stages that follow those of the tile.
           Value last = b.add(state.stage, coord.steps);
           Value rounds = b.div(last, stages);
           return SmallVector<Value>{
               b.sub(last, b.mul(rounds, stages)),
               b.bitXor(state.phase, b.bitAnd(rounds, 1))};
         });
}

LLVM::LLVMFuncOp WgmmaContract::build() {
  KernelShape shape;
  shape.threads = (consumers + 1) * warpgroupSize;
  shape.sharedBytes = stages * stageBytes + barrierBytes();
  if (!op.getLhsGather())
    arguments.tensorMap(lhs.input, {depth, blockColumns}, swizzleBytes, lhsMap);
  if (!op.getRhsGather())
    arguments.tensorMap(rhs.input, {depth, blockColumns}, swizzleBytes, rhsMap);
  auto kernel = create("grouped_contract_wgmma", shape, MatrixUnit::Wgmma);
  startPipeline();
  // The shuffle makes the index uniform over a warp, so that the roles are
  // uniform branches.
  Value warpgroup = b.shuffle(b.shiftRight(thread, 7), b.i32(0));
  b.ifThen(b.equal(thread, 0), [&] {
    SmallVector<Value> maps;
    for (Value map : {lhsMap, rhsMap})
      if (map)
        maps.push_back(map);
    initBarriers(/*fullArrivals=*/1 + warpgroupSize, maps);
    NVVM::FenceMbarrierInitOp::create(b);
  });
  b.barrier();
  b.ifElse(
      b.equal(warpgroup, 0), [&] { produce(); }, [&] { consume(warpgroup); });
  return kernel;
}

void mlir::moe::launchWgmmaContract(GroupedContractOp op,
                                    ContractOperands &operands,
                                    DeviceLowering &lowering) {
  HostBuilder host(op.getLoc(), lowering.rewriter);
  WgmmaContract kernel(op, operands, lowering);
  LLVM::LLVMFuncOp function = kernel.build();
  // There is no tensor map of no rows.
  Value none = host.equal(operands.rows, host.i32(0));
  kernel.launch(function,
                host.select(none, host.index(0), kernel.gridSize(host)));
}
