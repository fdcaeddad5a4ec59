//===- TMAKernel.cpp - Base of the wgmma kernels --------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "TMAKernel.h"

using namespace mlir;
using namespace mlir::moe;

/// Stages whose cp.async copies a producer thread keeps in flight.
static constexpr int64_t cpAsyncStages = 2;

void TMAKernel::declareTensorMaps() {
  if (!isGathered())
    arguments.tensorMap(lhsInput, {tile.getRows(), depth}, swizzleBytes,
                        lhsMap);
  int64_t boxRows = op.getTransposed() ? viewTileColumns : depth;
  weightMaps.resize(viewCount());
  for (auto [input, map] : llvm::zip_equal(weightInputs, weightMaps))
    arguments.tensorMap(input, {1, boxRows, depth}, swizzleBytes, map);
}

LLVM::LLVMFuncOp TMAKernel::create(StringRef name, KernelShape shape,
                                   int64_t extraBytes) {
  extraStart = stages * 16;
  schedulerStart = extraStart + extraBytes;
  shape.sharedBytes =
      stages * stageBytes + schedulerStart +
      (op.getOffsets() ? TileScheduler::sharedBytes(experts) : 0);
  declareTensorMaps();
  auto kernel = GroupedKernel::create(name, shape);
  memory = b.sharedMemory();
  barriers = b.sharedAt(memory, stages * stageBytes);
  thread = b.thread();
  return kernel;
}

Value TMAKernel::extraMemory() { return b.sharedAt(barriers, extraStart); }
Value TMAKernel::schedulerMemory() {
  return b.sharedAt(barriers, schedulerStart);
}

//===----------------------------------------------------------------------===//
// Pipeline
//===----------------------------------------------------------------------===//

TMAKernel::PipelineState TMAKernel::advance(PipelineState state) {
  Value stage = b.add(state.stage, 1);
  Value wraps = b.equal(stage, stages);
  return {b.select(wraps, b.i32(0), stage),
          b.select(wraps, b.bitXor(state.phase, 1), state.phase)};
}

TMAKernel::PipelineState TMAKernel::advance(PipelineState state,
                                            int64_t count) {
  Value stage = b.add(state.stage, count % stages);
  Value wraps = b.logicalNot(b.less(stage, stages));
  Value phase = b.bitXor(state.phase, count / stages % 2);
  return {b.select(wraps, b.sub(stage, stages), stage),
          b.select(wraps, b.bitXor(phase, 1), phase)};
}

Value TMAKernel::fullBarrier(Value stage) {
  return b.sharedAt(barriers, b.shiftLeft(stage, 3));
}

Value TMAKernel::emptyBarrier(Value stage) {
  return b.sharedAt(barriers, b.add(b.shiftLeft(stage, 3), stages * 8));
}

void TMAKernel::waitBarrier(Value barrier, Value phase) {
  // The time limit of a suspended wait, in nanoseconds; it only bounds the
  // sleep.
  NVVM::MBarrierTryWaitParityOp::create(b, barrier, phase, b.i32(10000000));
}

void TMAKernel::arrive(Value barrier) {
  auto scope =
      NVVM::MemScopeKindAttr::get(b.getContext(), NVVM::MemScopeKind::CTA);
  NVVM::MBarrierArriveOp::create(b, b.getI64Type(), barrier, Value(), scope);
}

void TMAKernel::initBarriers() {
  SmallVector<Value> maps = weightMaps;
  if (lhsMap)
    maps.push_back(lhsMap);
  for (Value map : maps)
    NVVM::PrefetchOp::create(b, NVVM::PrefetchCacheLevelAttr(),
                             NVVM::CacheEvictionPriorityAttr(), map, Value(),
                             b.getUnitAttr());
  for (int64_t stage = 0; stage < stages; ++stage) {
    NVVM::MBarrierInitOp::create(b, fullBarrier(b.i32(stage)),
                                 b.i32(1 + (isGathered() ? warpgroupSize : 0)),
                                 Value());
    NVVM::MBarrierInitOp::create(b, emptyBarrier(b.i32(stage)),
                                 b.i32(emptyArrivals), Value());
  }
}

static void fenceAsyncProxy(GPUBuilder &b) {
  auto kind =
      NVVM::ProxyKindAttr::get(b.getContext(), NVVM::ProxyKind::async_shared);
  auto space =
      NVVM::SharedSpaceAttr::get(b.getContext(), NVVM::SharedSpace::shared_cta);
  NVVM::FenceProxyOp::create(b, kind, space);
}

void TMAKernel::waitFull(PipelineState state) {
  waitBarrier(fullBarrier(state.stage), state.phase);
  if (consumersFence())
    fenceAsyncProxy(b);
}

void TMAKernel::releaseStage(Value stage) {
  b.ifThen(b.equal(b.bitAnd(thread, warpgroupSize - 1), 0),
           [&] { arrive(emptyBarrier(stage)); });
}

//===----------------------------------------------------------------------===//
// Producer
//===----------------------------------------------------------------------===//

void TMAKernel::issueTMA(Value target, Value map, ValueRange coordinates,
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

void TMAKernel::forEachWeightBox(
    const TileCoord &coord, Value kStart,
    llvm::function_ref<void(int64_t start, Value map, ValueRange coordinates)>
        body) {
  for (auto [v, view] : llvm::enumerate(layout.views)) {
    Value column =
        b.add(b.mul(coord.columnTile, viewTileColumns), view.firstColumn);
    int64_t start = lhsBytes + int64_t(v) * viewTileColumns * swizzleBytes;
    if (op.getTransposed()) {
      body(start, weightMaps[v], {kStart, column, coord.expert});
      continue;
    }
    for (int64_t block = 0; block < viewTileColumns / 64; ++block)
      body(start + block * 64 * swizzleBytes, weightMaps[v],
           {b.add(column, block * 64), kStart, coord.expert});
  }
}

void TMAKernel::loadWeights(const TileCoord &coord, Value kStart,
                            Value stageStart, Value barrier) {
  forEachWeightBox(coord, kStart,
                   [&](int64_t start, Value map, ValueRange coordinates) {
                     issueTMA(b.sharedAt(memory, b.add(stageStart, start)), map,
                              coordinates, barrier);
                   });
}

static void expectBytes(GPUBuilder &b, Value barrier, int64_t bytes) {
  auto scope =
      NVVM::MemScopeKindAttr::get(b.getContext(), NVVM::MemScopeKind::CTA);
  NVVM::MBarrierArriveExpectTxOp::create(b, /*res=*/Type(), barrier,
                                         b.i32(bytes), scope,
                                         b.getBoolAttr(false), Value());
}

/// Returns the start along k of stage `step`; the block begins at `firstStep`.
static Value kStartOf(GPUBuilder &b, Value step, Value firstStep,
                      int64_t depth) {
  return b.mul(firstStep ? b.add(step, firstStep) : step, depth);
}

void TMAKernel::prefetchWeights(TileScheduler &tiles, Value tile,
                                Value firstStep) {
  if (isGathered())
    return;
  // What all blocks prefetch fits the L2 cache.
  constexpr int64_t bytes = 64 * 1024;
  int64_t count = std::clamp<int64_t>(bytes / rhsBytes, 1, steps);
  auto mode =
      NVVM::TMALoadModeAttr::get(b.getContext(), NVVM::TMALoadMode::TILE);
  b.ifThen(b.less(tile, tiles.tileCount()), [&] {
    TileCoord coord = tiles.tileAt(tile);
    b.loop(b.i32(0), b.i32(count), b.i32(1), [&](Value step) {
      forEachWeightBox(coord, kStartOf(b, step, firstStep, depth),
                       [&](int64_t, Value map, ValueRange coordinates) {
                         NVVM::CpAsyncBulkTensorPrefetchOp::create(
                             b, map, coordinates, ValueRange(), mode, Value());
                       });
    });
  });
}

/// One thread issues all TMA loads of a tile.
TMAKernel::PipelineState TMAKernel::loadContiguousTile(const TileCoord &coord,
                                                       PipelineState state,
                                                       Value firstStep) {
  SmallVector<Value> end =
      b.loop(b.i32(0), b.i32(steps), b.i32(1), {state.stage, state.phase},
             [&](Value step, ValueRange carried) {
               PipelineState now{carried[0], carried[1]};
               waitBarrier(emptyBarrier(now.stage), now.phase);
               Value full = fullBarrier(now.stage);
               expectBytes(b, full, stageBytes);
               Value kStart = kStartOf(b, step, firstStep, depth);
               Value start = b.mul(now.stage, stageBytes);
               issueTMA(b.sharedAt(memory, start), lhsMap,
                        {kStart, coord.firstRow}, full);
               loadWeights(coord, kStart, start, full);
               PipelineState next = advance(now);
               return SmallVector<Value>{next.stage, next.phase};
             });
  return {end[0], end[1]};
}

/// Each thread copies 16-byte chunks of gathered rows with cp.async; one thread
/// issues the TMA loads of the weights.
TMAKernel::PipelineState TMAKernel::loadGatheredTile(const TileCoord &coord,
                                                     PipelineState state,
                                                     Value firstStep) {
  constexpr int64_t rowsAtOnce = warpgroupSize / 8;
  Value chunk = b.bitAnd(thread, 7), row = b.shiftRight(thread, 3);
  Value swizzled = b.swizzle128(chunk, row);
  Value target = b.add(b.mul(row, swizzleBytes), b.shiftLeft(swizzled, 4));
  Value chunkStart = b.mul(chunk, depth / 8);
  SmallVector<Value> sources;
  int64_t count = llvm::divideCeil(tile.getRows(), rowsAtOnce);
  for (int64_t i = 0; i < count; ++i) {
    Value clamped = b.min(b.add(row, i * rowsAtOnce), b.sub(coord.rows, 1));
    sources.push_back(b.at(lhsRowPointer(b.add(coord.firstRow, clamped)),
                           storage, chunkStart));
  }
  auto signalFull = [&](Value stage) {
    fenceAsyncProxy(b);
    arrive(fullBarrier(stage));
  };
  /// Returns the stage `count` stages before `stage`.
  auto stageBefore = [&](Value stage, int64_t count) {
    Value earlier = b.sub(stage, count % stages);
    return b.select(b.less(earlier, 0), b.add(earlier, stages), earlier);
  };
  SmallVector<Value> end = b.loop(
      b.i32(0), b.i32(steps), b.i32(1), {state.stage, state.phase},
      [&](Value step, ValueRange carried) {
        PipelineState now{carried[0], carried[1]};
        waitBarrier(emptyBarrier(now.stage), now.phase);
        Value full = fullBarrier(now.stage);
        Value kStart = kStartOf(b, step, firstStep, depth);
        Value start = b.mul(now.stage, stageBytes);
        b.ifThen(b.equal(thread, 0), [&] {
          expectBytes(b, full, rhsBytes);
          loadWeights(coord, kStart, start, full);
        });
        // Beyond k a copy reads nothing and fills the chunk with zeros.
        Value inside =
            k % depth != 0 ? b.less(b.add(kStart, chunkStart), k) : Value();
        Value bytes = inside ? b.select(inside, b.i32(16), b.i32(0)) : Value();
        Value offset = inside ? b.select(inside, kStart, b.i32(0)) : kStart;
        auto copy = [&] {
          for (auto [i, source] : llvm::enumerate(sources)) {
            Value byte = b.add(b.add(start, target),
                               int64_t(i) * rowsAtOnce * swizzleBytes);
            NVVM::CpAsyncOp::create(
                b, b.sharedAt(memory, byte), b.at(source, storage, offset),
                b.getI32IntegerAttr(16),
                NVVM::LoadCacheModifierKindAttr::get(
                    b.getContext(), NVVM::LoadCacheModifierKind::CG),
                bytes);
          }
        };
        if (tile.getRows() < rowsAtOnce)
          b.ifThen(b.less(row, tile.getRows()), copy);
        else
          copy();
        if (consumersFence()) {
          NVVM::CpAsyncMBarrierArriveOp::create(b, full, /*noinc=*/true);
        } else {
          NVVM::CpAsyncCommitGroupOp::create(b);
          NVVM::CpAsyncWaitGroupOp::create(b,
                                           b.getI32IntegerAttr(cpAsyncStages));
          b.ifThen(b.logicalNot(b.less(step, cpAsyncStages)),
                   [&] { signalFull(stageBefore(now.stage, cpAsyncStages)); });
        }
        PipelineState next = advance(now);
        return SmallVector<Value>{next.stage, next.phase};
      });
  if (consumersFence())
    return {end[0], end[1]};
  NVVM::CpAsyncWaitGroupOp::create(b, b.getI32IntegerAttr(0));
  for (int64_t behind = std::min(cpAsyncStages, steps); behind > 0; --behind)
    signalFull(stageBefore(end[0], behind));
  return {end[0], end[1]};
}

TMAKernel::PipelineState TMAKernel::loadTile(const TileCoord &coord,
                                             PipelineState state,
                                             Value firstStep) {
  return isGathered() ? loadGatheredTile(coord, state, firstStep)
                      : loadContiguousTile(coord, state, firstStep);
}

void TMAKernel::producerLoop(llvm::function_ref<void()> load) {
  if (!isGathered())
    return b.ifThen(b.equal(thread, 0), load);
  load();
  // A thread must not exit while copies of it are in flight.
  if (consumersFence())
    NVVM::CpAsyncWaitGroupOp::create(b, b.getI32IntegerAttr(0));
}

void TMAKernel::forEachTile(
    TileScheduler &tiles, PipelineState start,
    llvm::function_ref<PipelineState(const TileCoord &, PipelineState)> body) {
  b.loop(b.block(), tiles.tileCount(), b.numBlocks(),
         {start.stage, start.phase}, [&](Value tile, ValueRange carried) {
           PipelineState state =
               body(tiles.tileAt(tile), {carried[0], carried[1]});
           return SmallVector<Value>{state.stage, state.phase};
         });
}

//===----------------------------------------------------------------------===//
// Consumers
//===----------------------------------------------------------------------===//

Value TMAKernel::stageAddress(Value stage) {
  Value base = LLVM::PtrToIntOp::create(b, b.getI32Type(), memory);
  return b.add(base, b.mul(stage, stageBytes));
}

Value TMAKernel::descriptor(Value address, int64_t leading) {
  constexpr int64_t swizzle128 = int64_t(1) << 62;
  constexpr int64_t eightRows = 8 * swizzleBytes;
  int64_t constant =
      swizzle128 | ((eightRows >> 4) << 32) | ((leading >> 4) << 16);
  Value start = b.shiftRight(b.bitAnd(address, 0x3FFFF), 4);
  Value wide = arith::ExtUIOp::create(b, b.getI64Type(), start);
  return b.bitOr(wide, b.i64(constant));
}

Value TMAKernel::weightsDescriptor(Value address) {
  return descriptor(address, op.getTransposed() ? 16 : wgmmaMBytes);
}

static Type accumulatorType(MLIRContext *context, int64_t columns) {
  return LLVM::LLVMStructType::getLiteral(
      context, SmallVector<Type>(columns / 2, Float32Type::get(context)));
}

Value TMAKernel::undefinedAccumulators(int64_t columns) {
  return LLVM::UndefOp::create(b, accumulatorType(b.getContext(), columns));
}

Value TMAKernel::wgmma(Value accumulators, Value lhs, Value rhs,
                       int64_t columns, bool lhsKMajor, bool rhsKMajor,
                       bool clear) {
  MLIRContext *context = b.getContext();
  auto layout = [&](NVVM::MMALayout kind) {
    return NVVM::MMALayoutAttr::get(context, kind);
  };
  auto type = NVVM::WGMMATypesAttr::get(context, fp8 ? NVVM::WGMMATypes::e4m3
                                                 : element.isF16()
                                                     ? NVVM::WGMMATypes::f16
                                                     : NVVM::WGMMATypes::bf16);
  auto f32 = NVVM::WGMMATypesAttr::get(context, NVVM::WGMMATypes::f32);
  auto one = NVVM::WGMMAScaleInAttr::get(context, NVVM::WGMMAScaleIn::one);
  auto scaleD = NVVM::WGMMAScaleOutAttr::get(
      context, clear ? NVVM::WGMMAScaleOut::zero : NVVM::WGMMAScaleOut::one);
  auto shape = NVVM::MMAShapeAttr::get(context, wgmmaM, columns, fp8 ? 32 : 16);
  constexpr auto row = NVVM::MMALayout::row, col = NVVM::MMALayout::col;
  return NVVM::WgmmaMmaAsyncOp::create(
      b, accumulatorType(context, columns), accumulators, lhs, rhs, shape, type,
      type, f32, scaleD, one, one, layout(lhsKMajor ? row : col),
      layout(rhsKMajor ? col : row), NVVM::MMAIntOverflowAttr());
}

void TMAKernel::waitWgmma(int64_t pending) {
  NVVM::WgmmaWaitGroupSyncOp::create(b, b.getI64IntegerAttr(pending));
}

TMAKernel::MainloopResult TMAKernel::mainloop(PipelineState start,
                                              int64_t count, int64_t columns,
                                              MultiplyStage multiply) {
  waitFull(start);
  SmallVector<Value> accumulators(count, undefinedAccumulators(columns));
  accumulators = multiply(accumulators, start.stage, /*first=*/true);
  PipelineState second = advance(start);
  SmallVector<Value> inits{second.stage, second.phase, start.stage};
  llvm::append_range(inits, accumulators);
  SmallVector<Value> end = b.loop(
      b.i32(1), b.i32(steps), b.i32(1), inits, [&](Value, ValueRange carried) {
        PipelineState now{carried[0], carried[1]};
        waitFull(now);
        SmallVector<Value> accumulators =
            multiply(carried.drop_front(3), now.stage, /*first=*/false);
        // The wgmmas of the stage before have finished; it can be refilled.
        waitWgmma(1);
        releaseStage(carried[2]);
        PipelineState next = advance(now);
        SmallVector<Value> results{next.stage, next.phase, now.stage};
        llvm::append_range(results, accumulators);
        return results;
      });
  return {
      {end[0], end[1]}, end[2], SmallVector<Value>(llvm::drop_begin(end, 3))};
}
