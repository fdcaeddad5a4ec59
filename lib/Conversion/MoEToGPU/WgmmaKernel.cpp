//===- WgmmaKernel.cpp - Grouped products with wgmma ----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Blocks stay for all tiles. The first warpgroup of a block brings operands to
// shared memory, `stages` steps along k ahead: the bulk copy engine brings weights
// and rows that lie together; rows that are gathered come by cp.async, 16 bytes a
// thread. Two barriers in shared memory for each stage say that it is full, and
// that it is empty again. The others multiply. Cooperative ones share a tile, 64
// rows each; with ping-pong each has every other tile to itself, and they take
// turns: while one multiplies, the other stores what it has.
//
// Operands lie swizzled over 128 bytes, as the copy engine and wgmma have it: a
// line of 64 numbers, its chunks of 16 bytes swapped by the number of the line
// mod 8. Weights `[E, N, K]` are lines along k; `[E, K, N]` blocks of 64 columns,
// each lines along n.
//
//===----------------------------------------------------------------------===//

#include "GroupedKernel.h"

using namespace mlir;
using namespace mlir::moe;

static constexpr int64_t warpgroup = 128;
static constexpr int64_t depth = 64;        // a line of 128 bytes
static constexpr int64_t lineBytes = 128;
static constexpr int64_t groupRows = 64;    // of one wgmma
static constexpr int64_t lag = 2;           // stages of cp.async on their way
static constexpr int64_t multipliers = 2;   // warpgroups
// A block of three warpgroups starts with 168 registers a thread. What the first
// keeps of them, and what the others then have: never more than 3 · 168 together,
// or they wait for ever.
static constexpr int64_t registersForCopies = 40, registersForGather = 56;
static constexpr int64_t registersOf(bool gathered) {
  return gathered ? 224 : 232;
}
static_assert(registersForCopies + 2 * registersOf(false) <= 3 * 168 &&
              registersForGather + 2 * registersOf(true) <= 3 * 168);

namespace {
class WgmmaKernel : public GroupedKernel {
public:
  WgmmaKernel(GroupedMatmulOp op, TileAttr tile, DeviceLowering &lowering)
      : GroupedKernel(op, tile, lowering), columns(tile.getColumns()),
        stages(tile.getStages()),
        pingPong(tile.getRoles() == WarpRoles::PingPong),
        blocksOfRows(tile.getRows() / groupRows / (pingPong ? 1 : multipliers)),
        lhsBytes(tile.getRows() * lineBytes), rhsBytes(columns * lineBytes),
        stageBytes(lhsBytes + rhsBytes), steps(llvm::divideCeil(k, depth)) {}

  LLVM::LLVMFuncOp build();

private:
  /// The stage at work and the parity that its barriers are waited for with.
  struct Turn {
    Value stage, parity;
  };

  Value barrierAt(Value stage, bool empty);
  void waitFor(Value barrier, Value parity);
  void arrive(Value barrier);
  Turn next(Turn turn);
  /// A turn `count` stages later.
  Turn skip(Turn turn, int64_t count);
  /// With ping-pong, what a warpgroup waits for before it multiplies.
  Value orderAt(Value group) {
    return b.sharedAt(barriers, b.add(b.shiftLeft(group, 3), stages * 16));
  }

  void initialize();
  void produce(TileSchedule &tiles);
  void copyTile(Value target, Value map, ValueRange coordinates, Value barrier);
  void bringWeights(const TilePlace &place, Value from, Value stageStart,
                    Value barrier);
  Turn bringTile(const TilePlace &place, Turn turn);
  Turn gatherTile(const TilePlace &place, Turn turn);
  void consume(TileSchedule &tiles, Value group);
  Value descriptor(Value address, int64_t leading);
  SmallVector<Value> multiply(ValueRange sums, Value stage);
  void store(const TilePlace &place, ValueRange sums);

  int64_t columns, stages;
  bool pingPong;
  int64_t blocksOfRows; // of 64, that a warpgroup multiplies
  int64_t lhsBytes, rhsBytes, stageBytes, steps;
  bool gathered() { return bool(op.getGather()); }
  Type sumsType();

  Value memory, barriers, thread;
  Value lhsMap;
  SmallVector<Value> weightMaps;
  Value group; // of the warpgroups that multiply
};
} // namespace

Type WgmmaKernel::sumsType() {
  return LLVM::LLVMStructType::getLiteral(
      b.getContext(), SmallVector<Type>(columns / 2, b.getF32Type()));
}

//===----------------------------------------------------------------------===//
// Barriers
//===----------------------------------------------------------------------===//

Value WgmmaKernel::barrierAt(Value stage, bool empty) {
  return b.sharedAt(barriers,
                    b.add(b.shiftLeft(stage, 3), empty ? stages * 8 : 0));
}

void WgmmaKernel::waitFor(Value barrier, Value parity) {
  // The hint, in nanoseconds, only says how long to sleep between looks.
  NVVM::MBarrierTryWaitParityOp::create(b, barrier, parity, b.i32(10000000));
}

void WgmmaKernel::arrive(Value barrier) {
  auto scope = NVVM::MemScopeKindAttr::get(b.getContext(),
                                           NVVM::MemScopeKind::CTA);
  NVVM::MBarrierArriveOp::create(b, b.getI64Type(), barrier, Value(), scope);
}

WgmmaKernel::Turn WgmmaKernel::next(Turn turn) {
  Value stage = b.add(turn.stage, 1);
  Value wraps = b.equal(stage, stages);
  return {b.select(wraps, b.i32(0), stage),
          b.select(wraps, b.bitXor(turn.parity, 1), turn.parity)};
}

WgmmaKernel::Turn WgmmaKernel::skip(Turn turn, int64_t count) {
  Value stage = b.add(turn.stage, count % stages);
  Value wraps = b.logicalNot(b.less(stage, stages));
  Value parity = b.bitXor(turn.parity, count / stages % 2);
  return {b.select(wraps, b.sub(stage, stages), stage),
          b.select(wraps, b.bitXor(parity, 1), parity)};
}

void WgmmaKernel::initialize() {
  b.ifThen(b.equal(thread, 0), [&] {
    for (int64_t stage = 0; stage < stages; ++stage) {
      NVVM::MBarrierInitOp::create(b, barrierAt(b.i32(stage), false),
                                   b.i32(1 + (gathered() ? warpgroup : 0)),
                                   Value());
      NVVM::MBarrierInitOp::create(b, barrierAt(b.i32(stage), true),
                                   b.i32(pingPong ? 1 : multipliers),
                                   Value());
    }
    for (int64_t each = 0; pingPong && each < multipliers; ++each)
      NVVM::MBarrierInitOp::create(b, orderAt(b.i32(each)), b.i32(1), Value());
    NVVM::FenceMbarrierInitOp::create(b);
  });
}

//===----------------------------------------------------------------------===//
// The warpgroup that brings operands
//===----------------------------------------------------------------------===//

void WgmmaKernel::copyTile(Value target, Value map, ValueRange coordinates,
                           Value barrier) {
  auto cluster = LLVM::LLVMPointerType::get(
      b.getContext(), unsigned(NVVM::NVVMMemorySpace::SharedCluster));
  target = LLVM::AddrSpaceCastOp::create(b, cluster, target);
  auto mode = NVVM::TMALoadModeAttr::get(b.getContext(), NVVM::TMALoadMode::TILE);
  NVVM::CpAsyncBulkTensorGlobalToSharedClusterOp::create(
      b, target, map, coordinates, barrier, ValueRange(), Value(), Value(), mode,
      b.getBoolAttr(false), NVVM::CTAGroupKindAttr(), Value());
}

void WgmmaKernel::bringWeights(const TilePlace &place, Value from,
                               Value stageStart, Value barrier) {
  for (int64_t p = 0; p < products; ++p) {
    Value column = b.add(b.mul(place.column, share), views[p].firstColumn);
    int64_t start = lhsBytes + p * share * lineBytes;
    if (op.getTransposed()) {
      copyTile(b.sharedAt(memory, b.add(stageStart, start)), weightMaps[p],
               {from, column, place.expert}, barrier);
      continue;
    }
    for (int64_t block = 0; block < share / 64; ++block)
      copyTile(b.sharedAt(memory,
                          b.add(stageStart, start + block * 64 * lineBytes)),
               weightMaps[p], {b.add(column, block * 64), from, place.expert},
               barrier);
  }
}

static void expectBytes(GPUBuilder &b, Value barrier, int64_t bytes) {
  auto scope = NVVM::MemScopeKindAttr::get(b.getContext(),
                                           NVVM::MemScopeKind::CTA);
  NVVM::MBarrierArriveExpectTxOp::create(b, /*res=*/Type(), barrier,
                                         b.i32(bytes), scope,
                                         b.getBoolAttr(false), Value());
}

/// One thread starts all copies of a tile.
WgmmaKernel::Turn WgmmaKernel::bringTile(const TilePlace &place, Turn turn) {
  SmallVector<Value> end = b.loop(
      b.i32(0), b.i32(steps), b.i32(1), {turn.stage, turn.parity},
      [&](Value step, ValueRange carried) {
        Turn now{carried[0], carried[1]};
        waitFor(barrierAt(now.stage, true), now.parity);
        Value full = barrierAt(now.stage, false);
        expectBytes(b, full, stageBytes);
        Value from = b.mul(step, depth), start = b.mul(now.stage, stageBytes);
        copyTile(b.sharedAt(memory, start), lhsMap, {from, place.firstRow},
                 full);
        bringWeights(place, from, start, full);
        Turn after = next(now);
        return SmallVector<Value>{after.stage, after.parity};
      });
  return {end[0], end[1]};
}

/// Each thread copies some chunks of gathered rows; what it copied two stages ago
/// has come by then.
WgmmaKernel::Turn WgmmaKernel::gatherTile(const TilePlace &place, Turn turn) {
  constexpr int64_t linesAtOnce = warpgroup / 8;
  Value chunk = b.bitAnd(thread, 7), line = b.shiftRight(thread, 3);
  Value swapped = b.bitXor(chunk, b.bitAnd(line, 7));
  Value target = b.add(b.mul(line, lineBytes), b.shiftLeft(swapped, 4));
  Value kStart = b.shiftLeft(chunk, 3);
  SmallVector<Value> sources;
  for (int64_t i = 0; i < tile.getRows() / linesAtOnce; ++i) {
    Value row = b.min(b.add(line, i * linesAtOnce), b.sub(place.rows, 1));
    sources.push_back(
        b.at(lhsRow(b.add(place.firstRow, row)), element, kStart));
  }
  auto announce = [&](Value stage) {
    auto kind = NVVM::ProxyKindAttr::get(b.getContext(),
                                         NVVM::ProxyKind::async_shared);
    auto space = NVVM::SharedSpaceAttr::get(b.getContext(),
                                            NVVM::SharedSpace::shared_cta);
    NVVM::FenceProxyOp::create(b, kind, space);
    arrive(barrierAt(stage, false));
  };
  /// The stage `count` steps before `stage`.
  auto before = [&](Value stage, int64_t count) {
    Value earlier = b.sub(stage, count % stages);
    return b.select(b.less(earlier, 0), b.add(earlier, stages), earlier);
  };
  SmallVector<Value> end = b.loop(
      b.i32(0), b.i32(steps), b.i32(1), {turn.stage, turn.parity},
      [&](Value step, ValueRange carried) {
        Turn now{carried[0], carried[1]};
        waitFor(barrierAt(now.stage, true), now.parity);
        Value full = barrierAt(now.stage, false);
        Value from = b.mul(step, depth), start = b.mul(now.stage, stageBytes);
        b.ifThen(b.equal(thread, 0), [&] {
          expectBytes(b, full, rhsBytes);
          bringWeights(place, from, start, full);
        });
        Value inside =
            k % depth != 0 ? b.less(b.add(from, kStart), k) : Value();
        Value bytes =
            inside ? b.select(inside, b.i32(16), b.i32(0)) : Value();
        Value offset = inside ? b.select(inside, from, b.i32(0)) : from;
        for (auto [i, source] : llvm::enumerate(sources)) {
          Value place = b.add(b.add(start, target),
                              int64_t(i) * linesAtOnce * lineBytes);
          NVVM::CpAsyncOp::create(
              b, b.sharedAt(memory, place), b.at(source, element, offset),
              b.getI32IntegerAttr(16),
              NVVM::LoadCacheModifierKindAttr::get(
                  b.getContext(), NVVM::LoadCacheModifierKind::CG),
              bytes);
        }
        NVVM::CpAsyncCommitGroupOp::create(b);
        NVVM::CpAsyncWaitGroupOp::create(b, b.getI32IntegerAttr(lag));
        b.ifThen(b.logicalNot(b.less(step, lag)),
                 [&] { announce(before(now.stage, lag)); });
        Turn after = next(now);
        return SmallVector<Value>{after.stage, after.parity};
      });
  NVVM::CpAsyncWaitGroupOp::create(b, b.getI32IntegerAttr(0));
  for (int64_t behind = std::min(lag, steps); behind > 0; --behind)
    announce(before(end[0], behind));
  return {end[0], end[1]};
}

void WgmmaKernel::produce(TileSchedule &tiles) {
  NVVM::SetMaxRegisterOp::create(
      b, gathered() ? registersForGather : registersForCopies,
      NVVM::SetMaxRegisterAction::decrease);
  auto bring = [&] {
    // A barrier that nobody waited for yet counts as complete with parity 1.
    b.loop(b.block(), tiles.total(), b.numBlocks(), {b.i32(0), b.i32(1)},
           [&](Value number, ValueRange carried) {
             Turn turn{carried[0], carried[1]};
             TilePlace place = tiles.find(number);
             turn = gathered() ? gatherTile(place, turn)
                               : bringTile(place, turn);
             return SmallVector<Value>{turn.stage, turn.parity};
           });
  };
  if (gathered())
    bring();
  else
    b.ifThen(b.equal(thread, 0), bring);
}

//===----------------------------------------------------------------------===//
// The warpgroups that multiply
//===----------------------------------------------------------------------===//

/// What wgmma knows an operand in shared memory by (PTX ISA, "matrix descriptor"):
/// its address and, in units of 16 bytes, the distance of blocks along the leading
/// dimension and of groups of eight lines; swizzled over 128 bytes.
Value WgmmaKernel::descriptor(Value address, int64_t leading) {
  constexpr int64_t eightLines = 8 * lineBytes;
  int64_t constant = (int64_t(1) << 62) | ((eightLines >> 4) << 32) |
                     ((leading >> 4) << 16);
  Value start = b.shiftRight(b.bitAnd(address, 0x3FFFF), 4);
  Value wide = arith::ExtUIOp::create(b, b.getI64Type(), start);
  return b.bitOr(wide, b.i64(constant));
}

/// sums + the product of what `stage` has, for each 64 rows; the instructions are
/// under way afterwards.
SmallVector<Value> WgmmaKernel::multiply(ValueRange sums, Value stage) {
  MLIRContext *context = b.getContext();
  constexpr int64_t blockBytes = groupRows * lineBytes;
  Value base = LLVM::PtrToIntOp::create(b, b.getI32Type(), memory);
  Value start = b.add(base, b.mul(stage, stageBytes));
  Value firstRows = pingPong ? start : b.add(start, b.mul(group, blockBytes));
  Value x = descriptor(firstRows, 16);
  bool alongK = op.getTransposed();
  Value y = descriptor(b.add(start, lhsBytes), alongK ? 16 : 64 * lineBytes);
  auto type = NVVM::WGMMATypesAttr::get(
      context, element.isF16() ? NVVM::WGMMATypes::f16 : NVVM::WGMMATypes::bf16);
  auto f32 = NVVM::WGMMATypesAttr::get(context, NVVM::WGMMATypes::f32);
  auto one = NVVM::WGMMAScaleInAttr::get(context, NVVM::WGMMAScaleIn::one);
  auto keep = NVVM::WGMMAScaleOutAttr::get(context, NVVM::WGMMAScaleOut::one);
  auto shape = NVVM::MMAShapeAttr::get(context, groupRows, columns, 16);
  auto row = NVVM::MMALayoutAttr::get(context, NVVM::MMALayout::row);
  auto col = NVVM::MMALayoutAttr::get(context, NVVM::MMALayout::col);
  SmallVector<Value> results(sums);
  NVVM::WgmmaFenceAlignedOp::create(b);
  for (int64_t step = 0; step < depth / 16; ++step) {
    // 16 numbers along a line, or 16 lines.
    int64_t yStep = (alongK ? 32 : 16 * lineBytes) >> 4;
    for (auto [i, sum] : llvm::enumerate(results)) {
      int64_t xStep = (step * 32 + int64_t(i) * blockBytes) >> 4;
      sum = NVVM::WgmmaMmaAsyncOp::create(
          b, sum.getType(), sum, b.add(x, xStep), b.add(y, step * yStep), shape,
          type, type, f32, keep, one, one, row, alongK ? col : row,
          NVVM::MMAIntOverflowAttr());
    }
  }
  NVVM::WgmmaGroupSyncAlignedOp::create(b);
  return results;
}

void WgmmaKernel::store(const TilePlace &place, ValueRange sums) {
  Value lane = b.lane(), warp = b.bitAnd(b.shiftRight(thread, 5), 3);
  Value lowRow = b.add(b.shiftLeft(warp, 4), b.shiftRight(lane, 2));
  if (!pingPong)
    lowRow = b.add(lowRow, b.mul(group, groupRows));
  Value column = b.add(b.mul(place.column, share),
                       b.shiftLeft(b.bitAnd(lane, 3), 1));
  for (auto [i, sum] : llvm::enumerate(sums))
    for (int64_t half = 0; half < 2; ++half) {
      Value row = b.add(lowRow, int64_t(i) * groupRows + half * 8);
      b.ifThen(b.less(row, place.rows), [&, sum = sum] {
        Value grouped = b.add(place.firstRow, row);
        for (int64_t j = 0; j < share / 8; ++j) {
          SmallVector<Value> pair;
          for (int64_t e = 0; e < 2; ++e)
            for (int64_t p = 0; p < products; ++p)
              pair.push_back(LLVM::ExtractValueOp::create(
                  b, sum, (p * share / 8 + j) * 4 + half * 2 + e));
          storePair(place, grouped, b.add(column, j * 8), pair);
        }
      });
    }
}

void WgmmaKernel::consume(TileSchedule &tiles, Value number) {
  group = b.sub(number, 1);
  NVVM::SetMaxRegisterOp::create(b, registersOf(gathered()),
                                 NVVM::SetMaxRegisterAction::increase);
  Value first = b.equal(b.bitAnd(thread, warpgroup - 1), 0);
  auto release = [&](Value stage, Value condition) {
    b.ifThen(condition ? b.both(first, condition) : first,
             [&] { arrive(barrierAt(stage, true)); });
  };
  auto waitGroups = [&](int64_t left) {
    NVVM::WgmmaWaitGroupSyncOp::create(b, b.getI64IntegerAttr(left));
  };
  Turn start{b.i32(0), b.i32(0)};
  Value tile = b.block(), blocks = b.numBlocks(), order = b.i32(1);
  if (pingPong) {
    // The second begins with the second tile, behind the stages of the first.
    Value second = b.equal(group, 1);
    Turn later = skip(start, steps);
    start = {b.select(second, later.stage, start.stage),
             b.select(second, later.parity, start.parity)};
    tile = b.select(second, b.add(tile, blocks), tile);
    blocks = b.mul(blocks, 2);
    // Nobody stands before the first one.
    order = b.select(second, b.i32(0), b.i32(1));
  }
  b.loop(
      tile, tiles.total(), blocks, {start.stage, start.parity, order},
      [&](Value number, ValueRange outer) {
        TilePlace place = tiles.find(number);
        if (pingPong)
          waitFor(orderAt(group), outer[2]);
        SmallVector<Value> inits{outer[0], outer[1], outer[0]};
        inits.append(blocksOfRows, LLVM::ZeroOp::create(b, sumsType()));
        SmallVector<Value> end = b.loop(
            b.i32(0), b.i32(steps), b.i32(1), inits,
            [&](Value step, ValueRange carried) {
              Turn now{carried[0], carried[1]};
              waitFor(barrierAt(now.stage, false), now.parity);
              SmallVector<Value> sums =
                  multiply(carried.drop_front(3), now.stage);
              // The step before is done, and its stage can be overwritten.
              waitGroups(1);
              release(carried[2], b.less(b.i32(0), step));
              Turn after = next(now);
              SmallVector<Value> state{after.stage, after.parity, now.stage};
              llvm::append_range(state, sums);
              return state;
            });
        if (pingPong)
          b.ifThen(first, [&] { arrive(orderAt(b.bitXor(group, 1))); });
        waitGroups(0);
        release(end[2], Value());
        store(place, ArrayRef(end).drop_front(3));
        Turn after{end[0], end[1]};
        if (pingPong)
          after = skip(after, steps);
        return SmallVector<Value>{after.stage, after.parity,
                                  b.bitXor(outer[2], 1)};
      });
}

LLVM::LLVMFuncOp WgmmaKernel::build() {
  KernelShape shape;
  shape.threads = (multipliers + 1) * warpgroup;
  shape.tensorMaps = products + !gathered();
  int64_t barrierBytes = stages * 16 + multipliers * 8;
  shape.sharedBytes = stages * stageBytes + barrierBytes +
                      (op.getOffsets() ? TileSchedule::sharedBytes(experts) : 0);
  auto kernel = create("grouped_matmul_wgmma", shape);
  unsigned map = 0;
  lhsMap = gathered() ? Value() : kernel.getArgument(map++);
  for (int64_t p = 0; p < products; ++p)
    weightMaps.push_back(kernel.getArgument(map++));
  memory = b.sharedMemory();
  barriers = b.sharedAt(memory, stages * stageBytes);
  thread = b.thread();
  // The same register in all threads of a warp, so that the roles are branches
  // that warps take as one.
  Value number = b.shuffle(b.shiftRight(thread, 7), b.i32(0));
  initialize();
  TileSchedule tiles = schedule();
  tiles.prepare(b.sharedAt(barriers, barrierBytes));
  b.barrier();
  b.ifElse(
      b.equal(number, 0), [&] { produce(tiles); },
      [&] { consume(tiles, number); });
  return kernel;
}

SmallVector<TensorMapAttr> mlir::moe::wgmmaMaps(GroupedMatmulOp op,
                                                TileAttr tile) {
  MLIRContext *context = op.getContext();
  SmallVector<TensorMapAttr> maps;
  int64_t share = tile.getColumns() / op.getNumProducts();
  if (!op.getGather())
    maps.push_back(TensorMapAttr::get(
        context, 0, ArrayRef<int64_t>{tile.getRows(), depth}, lineBytes));
  int64_t first = 1 + bool(op.getGather()) + bool(op.getOffsets());
  for (int64_t p = 0; p < op.getNumProducts(); ++p) {
    int64_t box[] = {1, op.getTransposed() ? share : depth, 64};
    maps.push_back(TensorMapAttr::get(context, first + p, box, lineBytes));
  }
  return maps;
}

LLVM::LLVMFuncOp mlir::moe::buildWgmmaKernel(GroupedMatmulOp op, TileAttr tile,
                                             DeviceLowering &lowering) {
  return WgmmaKernel(op, tile, lowering).build();
}
