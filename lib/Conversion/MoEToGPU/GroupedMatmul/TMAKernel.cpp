//===- TMAKernel.cpp - A warpgroup that feeds wgmma -----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "TMAKernel.h"

using namespace mlir;
using namespace mlir::moe;

static constexpr int64_t lag = 2; // stages of cp.async on their way

LLVM::LLVMFuncOp BulkCopyKernel::create(StringRef name, KernelShape shape,
                                        int64_t extraBytes) {
  shape.tensorMaps = viewCount() + !gathered();
  extraStart = stages * 16;
  scheduleStart = extraStart + extraBytes;
  shape.sharedBytes =
      stages * stageBytes + scheduleStart +
      (op.getOffsets() ? TileSchedule::sharedBytes(experts) : 0);
  auto kernel = GroupedKernel::create(name, shape);
  unsigned map = 0;
  lhsMap = gathered() ? Value() : kernel.getArgument(map++);
  for (int64_t v = 0; v < viewCount(); ++v)
    weightMaps.push_back(kernel.getArgument(map++));
  memory = b.sharedMemory();
  barriers = b.sharedAt(memory, stages * stageBytes);
  thread = b.thread();
  return kernel;
}

Value BulkCopyKernel::extraMemory() { return b.sharedAt(barriers, extraStart); }
Value BulkCopyKernel::scheduleMemory() {
  return b.sharedAt(barriers, scheduleStart);
}

//===----------------------------------------------------------------------===//
// Barriers
//===----------------------------------------------------------------------===//

Value BulkCopyKernel::barrierAt(Value stage, bool empty) {
  return b.sharedAt(barriers,
                    b.add(b.shiftLeft(stage, 3), empty ? stages * 8 : 0));
}

void BulkCopyKernel::waitFor(Value barrier, Value parity) {
  // The hint, in nanoseconds, only says how long to sleep between looks.
  NVVM::MBarrierTryWaitParityOp::create(b, barrier, parity, b.i32(10000000));
}

static void fenceProxies(GPUBuilder &b) {
  auto kind = NVVM::ProxyKindAttr::get(b.getContext(),
                                       NVVM::ProxyKind::async_shared);
  auto space = NVVM::SharedSpaceAttr::get(b.getContext(),
                                          NVVM::SharedSpace::shared_cta);
  NVVM::FenceProxyOp::create(b, kind, space);
}

void BulkCopyKernel::waitUntilFull(Turn turn) {
  waitFor(barrierAt(turn.stage, false), turn.parity);
  if (consumersFence())
    fenceProxies(b);
}

void BulkCopyKernel::arrive(Value barrier) {
  auto scope =
      NVVM::MemScopeKindAttr::get(b.getContext(), NVVM::MemScopeKind::CTA);
  NVVM::MBarrierArriveOp::create(b, b.getI64Type(), barrier, Value(), scope);
}

BulkCopyKernel::Turn BulkCopyKernel::next(Turn turn) {
  Value stage = b.add(turn.stage, 1);
  Value wraps = b.equal(stage, stages);
  return {b.select(wraps, b.i32(0), stage),
          b.select(wraps, b.bitXor(turn.parity, 1), turn.parity)};
}

BulkCopyKernel::Turn BulkCopyKernel::skip(Turn turn, int64_t count) {
  Value stage = b.add(turn.stage, count % stages);
  Value wraps = b.logicalNot(b.less(stage, stages));
  Value parity = b.bitXor(turn.parity, count / stages % 2);
  return {b.select(wraps, b.sub(stage, stages), stage),
          b.select(wraps, b.bitXor(parity, 1), parity)};
}

void BulkCopyKernel::initializeStages() {
  for (int64_t stage = 0; stage < stages; ++stage) {
    NVVM::MBarrierInitOp::create(b, barrierAt(b.i32(stage), false),
                                 b.i32(1 + (gathered() ? warpgroup : 0)),
                                 Value());
    NVVM::MBarrierInitOp::create(b, barrierAt(b.i32(stage), true),
                                 b.i32(releases), Value());
  }
}

//===----------------------------------------------------------------------===//
// The warpgroup that brings operands
//===----------------------------------------------------------------------===//

void BulkCopyKernel::copyTile(Value target, Value map, ValueRange coordinates,
                              Value barrier) {
  auto cluster = LLVM::LLVMPointerType::get(
      b.getContext(), unsigned(NVVM::NVVMMemorySpace::SharedCluster));
  target = LLVM::AddrSpaceCastOp::create(b, cluster, target);
  auto mode =
      NVVM::TMALoadModeAttr::get(b.getContext(), NVVM::TMALoadMode::TILE);
  NVVM::CpAsyncBulkTensorGlobalToSharedClusterOp::create(
      b, target, map, coordinates, barrier, ValueRange(), Value(), Value(),
      mode, b.getBoolAttr(false), NVVM::CTAGroupKindAttr(), Value());
}

void BulkCopyKernel::bringWeights(const TilePlace &place, Value from,
                                  Value stageStart, Value barrier) {
  for (auto [v, view] : llvm::enumerate(layout.views)) {
    Value column = b.add(b.mul(place.column, viewShare), view.firstColumn);
    int64_t start = lhsBytes + int64_t(v) * viewShare * lineBytes;
    if (op.getTransposed()) {
      copyTile(b.sharedAt(memory, b.add(stageStart, start)), weightMaps[v],
               {from, column, place.expert}, barrier);
      continue;
    }
    for (int64_t block = 0; block < viewShare / 64; ++block)
      copyTile(
          b.sharedAt(memory, b.add(stageStart, start + block * 64 * lineBytes)),
          weightMaps[v], {b.add(column, block * 64), from, place.expert},
          barrier);
  }
}

static void expectBytes(GPUBuilder &b, Value barrier, int64_t bytes) {
  auto scope =
      NVVM::MemScopeKindAttr::get(b.getContext(), NVVM::MemScopeKind::CTA);
  NVVM::MBarrierArriveExpectTxOp::create(b, /*res=*/Type(), barrier,
                                         b.i32(bytes), scope,
                                         b.getBoolAttr(false), Value());
}

/// Where along k step `step` of this block's begins.
static Value kOf(GPUBuilder &b, Value step, Value firstStep, int64_t depth) {
  return b.mul(firstStep ? b.add(step, firstStep) : step, depth);
}

/// One thread starts all copies of a tile.
BulkCopyKernel::Turn BulkCopyKernel::bringTile(const TilePlace &place,
                                               Turn turn, Value firstStep) {
  SmallVector<Value> end =
      b.loop(b.i32(0), b.i32(steps), b.i32(1), {turn.stage, turn.parity},
             [&](Value step, ValueRange carried) {
               Turn now{carried[0], carried[1]};
               waitFor(barrierAt(now.stage, true), now.parity);
               Value full = barrierAt(now.stage, false);
               expectBytes(b, full, stageBytes);
               Value from = kOf(b, step, firstStep, depth);
               Value start = b.mul(now.stage, stageBytes);
               copyTile(b.sharedAt(memory, start), lhsMap,
                        {from, place.firstRow}, full);
               bringWeights(place, from, start, full);
               Turn after = next(now);
               return SmallVector<Value>{after.stage, after.parity};
             });
  return {end[0], end[1]};
}

/// Each thread copies some chunks of gathered rows. They arrive by themselves,
/// or the thread does: what it copied two stages ago has come by then.
BulkCopyKernel::Turn BulkCopyKernel::gatherTile(const TilePlace &place,
                                                Turn turn, Value firstStep) {
  constexpr int64_t linesAtOnce = warpgroup / 8;
  Value chunk = b.bitAnd(thread, 7), line = b.shiftRight(thread, 3);
  Value swapped = b.bitXor(chunk, b.bitAnd(line, 7));
  Value target = b.add(b.mul(line, lineBytes), b.shiftLeft(swapped, 4));
  Value kStart = b.mul(chunk, depth / 8);
  SmallVector<Value> sources;
  int64_t count = llvm::divideCeil(tile.getRows(), linesAtOnce);
  for (int64_t i = 0; i < count; ++i) {
    Value row = b.min(b.add(line, i * linesAtOnce), b.sub(place.rows, 1));
    sources.push_back(
        b.at(lhsRow(b.add(place.firstRow, row)), storage, kStart));
  }
  auto announce = [&](Value stage) {
    fenceProxies(b);
    arrive(barrierAt(stage, false));
  };
  /// The stage `count` steps before `stage`.
  auto before = [&](Value stage, int64_t count) {
    Value earlier = b.sub(stage, count % stages);
    return b.select(b.less(earlier, 0), b.add(earlier, stages), earlier);
  };
  SmallVector<Value> end =
      b.loop(b.i32(0), b.i32(steps), b.i32(1), {turn.stage, turn.parity},
             [&](Value step, ValueRange carried) {
               Turn now{carried[0], carried[1]};
               waitFor(barrierAt(now.stage, true), now.parity);
               Value full = barrierAt(now.stage, false);
               Value from = kOf(b, step, firstStep, depth);
               Value start = b.mul(now.stage, stageBytes);
               b.ifThen(b.equal(thread, 0), [&] {
                 expectBytes(b, full, rhsBytes);
                 bringWeights(place, from, start, full);
               });
               Value inside =
                   k % depth != 0 ? b.less(b.add(from, kStart), k) : Value();
               Value bytes =
                   inside ? b.select(inside, b.i32(16), b.i32(0)) : Value();
               Value offset = inside ? b.select(inside, from, b.i32(0)) : from;
               auto copy = [&] {
                 for (auto [i, source] : llvm::enumerate(sources)) {
                   Value place = b.add(b.add(start, target),
                                       int64_t(i) * linesAtOnce * lineBytes);
                   NVVM::CpAsyncOp::create(
                       b, b.sharedAt(memory, place),
                       b.at(source, storage, offset), b.getI32IntegerAttr(16),
                       NVVM::LoadCacheModifierKindAttr::get(
                           b.getContext(), NVVM::LoadCacheModifierKind::CG),
                       bytes);
                 }
               };
               if (tile.getRows() < linesAtOnce)
                 b.ifThen(b.less(line, tile.getRows()), copy);
               else
                 copy();
               if (consumersFence()) {
                 NVVM::CpAsyncMBarrierArriveOp::create(b, full, /*noinc=*/true);
               } else {
                 NVVM::CpAsyncCommitGroupOp::create(b);
                 NVVM::CpAsyncWaitGroupOp::create(b, b.getI32IntegerAttr(lag));
                 b.ifThen(b.logicalNot(b.less(step, lag)),
                          [&] { announce(before(now.stage, lag)); });
               }
               Turn after = next(now);
               return SmallVector<Value>{after.stage, after.parity};
             });
  if (consumersFence())
    return {end[0], end[1]};
  NVVM::CpAsyncWaitGroupOp::create(b, b.getI32IntegerAttr(0));
  for (int64_t behind = std::min(lag, steps); behind > 0; --behind)
    announce(before(end[0], behind));
  return {end[0], end[1]};
}

BulkCopyKernel::Turn BulkCopyKernel::produce(const TilePlace &place, Turn turn,
                                             Value firstStep) {
  return gathered() ? gatherTile(place, turn, firstStep)
                    : bringTile(place, turn, firstStep);
}

void BulkCopyKernel::byProducers(llvm::function_ref<void()> bring) {
  if (!gathered())
    return b.ifThen(b.equal(thread, 0), bring);
  bring();
  // No thread ends while copies of it are under way.
  if (consumersFence())
    NVVM::CpAsyncWaitGroupOp::create(b, b.getI32IntegerAttr(0));
}

void BulkCopyKernel::forTiles(
    TileSchedule &tiles, Turn first,
    llvm::function_ref<Turn(const TilePlace &, Turn)> one) {
  b.loop(b.block(), tiles.total(), b.numBlocks(), {first.stage, first.parity},
         [&](Value number, ValueRange carried) {
           Turn turn = one(tiles.find(number), {carried[0], carried[1]});
           return SmallVector<Value>{turn.stage, turn.parity};
         });
}

//===----------------------------------------------------------------------===//
// What multiplies
//===----------------------------------------------------------------------===//

Value BulkCopyKernel::stageAddress(Value stage) {
  Value base = LLVM::PtrToIntOp::create(b, b.getI32Type(), memory);
  return b.add(base, b.mul(stage, stageBytes));
}

Value BulkCopyKernel::descriptor(Value address, int64_t leading) {
  constexpr int64_t eightLines = 8 * lineBytes;
  int64_t constant =
      (int64_t(1) << 62) | ((eightLines >> 4) << 32) | ((leading >> 4) << 16);
  Value start = b.shiftRight(b.bitAnd(address, 0x3FFFF), 4);
  Value wide = arith::ExtUIOp::create(b, b.getI64Type(), start);
  return b.bitOr(wide, b.i64(constant));
}

Value BulkCopyKernel::weightsDescriptor(Value address) {
  return descriptor(address, op.getTransposed() ? 16 : groupBytes);
}

static Type sumsType(MLIRContext *context, int64_t columns) {
  return LLVM::LLVMStructType::getLiteral(
      context, SmallVector<Type>(columns / 2, Float32Type::get(context)));
}

Value BulkCopyKernel::undefinedSums(int64_t columns) {
  return LLVM::UndefOp::create(b, sumsType(b.getContext(), columns));
}

Value BulkCopyKernel::multiplyGroup(Value sums, Value x, Value y,
                                    int64_t columns, bool xAlongK, bool yAlongK,
                                    bool clear) {
  MLIRContext *context = b.getContext();
  auto layout = [&](NVVM::MMALayout kind) {
    return NVVM::MMALayoutAttr::get(context, kind);
  };
  auto type = NVVM::WGMMATypesAttr::get(context, narrow ? NVVM::WGMMATypes::e4m3
                                                 : element.isF16()
                                                     ? NVVM::WGMMATypes::f16
                                                     : NVVM::WGMMATypes::bf16);
  auto f32 = NVVM::WGMMATypesAttr::get(context, NVVM::WGMMATypes::f32);
  auto one = NVVM::WGMMAScaleInAttr::get(context, NVVM::WGMMAScaleIn::one);
  auto keep = NVVM::WGMMAScaleOutAttr::get(
      context, clear ? NVVM::WGMMAScaleOut::zero : NVVM::WGMMAScaleOut::one);
  auto shape =
      NVVM::MMAShapeAttr::get(context, groupLines, columns, narrow ? 32 : 16);
  constexpr auto row = NVVM::MMALayout::row, col = NVVM::MMALayout::col;
  return NVVM::WgmmaMmaAsyncOp::create(
      b, sumsType(context, columns), sums, x, y, shape, type, type, f32, keep,
      one, one, layout(xAlongK ? row : col), layout(yAlongK ? col : row),
      NVVM::MMAIntOverflowAttr());
}

void BulkCopyKernel::waitForGroups(int64_t left) {
  NVVM::WgmmaWaitGroupSyncOp::create(b, b.getI64IntegerAttr(left));
}

void BulkCopyKernel::release(Value stage) {
  b.ifThen(b.equal(b.bitAnd(thread, warpgroup - 1), 0),
           [&] { arrive(barrierAt(stage, true)); });
}

BulkCopyKernel::Steps BulkCopyKernel::multiplySteps(
    Turn start, int64_t count, int64_t columns,
    llvm::function_ref<SmallVector<Value>(ValueRange, Value, bool)> multiply) {
  waitUntilFull(start);
  SmallVector<Value> sums(count, undefinedSums(columns));
  sums = multiply(sums, start.stage, /*first=*/true);
  Turn second = next(start);
  SmallVector<Value> inits{second.stage, second.parity, start.stage};
  llvm::append_range(inits, sums);
  SmallVector<Value> end = b.loop(
      b.i32(1), b.i32(steps), b.i32(1), inits, [&](Value, ValueRange carried) {
        Turn now{carried[0], carried[1]};
        waitUntilFull(now);
        SmallVector<Value> sums =
            multiply(carried.drop_front(3), now.stage, /*first=*/false);
        // The step before is done, and its stage can be overwritten.
        waitForGroups(1);
        release(carried[2]);
        Turn after = next(now);
        SmallVector<Value> state{after.stage, after.parity, now.stage};
        llvm::append_range(state, sums);
        return state;
      });
  return {
      {end[0], end[1]}, end[2], SmallVector<Value>(llvm::drop_begin(end, 3))};
}

//===----------------------------------------------------------------------===//
// Tensor maps
//===----------------------------------------------------------------------===//

SmallVector<TensorMapAttr> BulkCopyKernel::maps(GroupedMatmulOp op,
                                                TileAttr tile) {
  MLIRContext *context = op.getContext();
  SmallVector<TensorMapAttr> maps;
  int64_t views = layoutOf(op).views.size();
  int64_t share = tile.getColumns() / views;
  int64_t depth = stageDepth(op);
  if (!op.getGather())
    maps.push_back(TensorMapAttr::get(
        context, 0, ArrayRef<int64_t>{tile.getRows(), depth}, lineBytes));
  int64_t first = 1 + bool(op.getGather()) + bool(op.getOffsets());
  for (int64_t v = 0; v < views; ++v) {
    int64_t box[] = {1, op.getTransposed() ? share : depth, depth};
    maps.push_back(TensorMapAttr::get(context, first + v, box, lineBytes));
  }
  return maps;
}
