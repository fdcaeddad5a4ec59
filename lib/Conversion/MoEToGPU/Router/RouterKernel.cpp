//===- RouterKernel.cpp - Fused router kernel -----------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "RouterKernel.h"

#include "Limits.h"

#include "mlir/IR/TypeUtilities.h"
#include "mlir/Interfaces/FunctionInterfaces.h"

using namespace mlir;
using namespace mlir::moe;

static constexpr int64_t tileTokens = 16;
static constexpr int64_t tileExperts = 8;
/// Beyond, a gate needs too many registers for 16 warps.
static constexpr int64_t maxExpertsOf16Warps = 256;

LogicalResult Router::verify(GroupedMatmulOp matmul, GateOp gate,
                             std::string &why) {
  auto weights = cast<RankedTensorType>(matmul.getWeights().front().getType());
  auto isSupported = [](Type type) {
    return type.isF32() || type.isF16() || type.isBF16();
  };
  if (!matmul->hasOneUse())
    return unsupported(why, "its logits have other uses");
  if (matmul->getBlock() != gate->getBlock())
    return unsupported(why, "it is in another block");
  if (matmul.getOffsets() || matmul.getGather() || matmul.getPanels() ||
      matmul.getNumAccumulators() != 1 || !matmul.hasOneInit())
    return unsupported(why, "it is not a single matmul of all rows");
  if (!weights.hasStaticShape() || matmul.getK() == 0)
    return unsupported(why, "its weights have a dynamic extent or no elements");
  if (!isSupported(weights.getElementType()) ||
      !isSupported(getElementTypeOrSelf(matmul.getLhs())) ||
      !isSupported(getElementTypeOrSelf(matmul.getInit())))
    return unsupported(why,
                       "its element types are other than f32, f16 and bf16");
  if (failed(DeviceEpilogue::verify(matmul, why)))
    return failure();
  return GateEmitter::verify(gate, why);
}

LogicalResult Router::verify(RouteOp route, std::string &why) {
  if (RouteEmitter::dropsInAdvance(route))
    return unsupported(why, "another kernel drops choices before it routes");
  return RouteEmitter::verify(route, why);
}

RouterKernel::RouterKernel(Router router, RouterShape shape,
                           DeviceLowering &lowering)
    : router(router), shape(shape), lowering(lowering),
      b(router.gate.getLoc(), router.gate.getContext()),
      xType(getElementTypeOrSelf(router.matmul.getLhs())),
      weightType(getElementTypeOrSelf(router.matmul.getWeights().front())),
      logitType(getElementTypeOrSelf(router.matmul.getInit())),
      k(router.matmul.getK()), experts(router.matmul.getN()),
      warps(experts <= maxExpertsOf16Warps ? 16 : 8),
      blockTiles(llvm::divideCeil(llvm::divideCeil(experts, tileExperts),
                                  shape.cluster)),
      tilesAtOnce(llvm::divideCeil(
          blockTiles,
          llvm::divideCeil(blockTiles, shape.rowTiles > 2 ? 2 : 4))),
      usesMMA(xType == weightType && !xType.isF32() && k % 8 == 0) {
  if (shape.staged)
    staging = chooseStaging();
}

/// Bytes ahead of the logits. Those of all experts at once take the place of
/// the stages.
int64_t RouterKernel::getPartialBytes() const {
  if (shape.staged)
    return experts > staging.columns ? staging.stages * getStageBytes() : 0;
  return warps * shape.getTokens() * tilesAtOnce * tileExperts * 4;
}

int64_t RouterKernel::getLogitBytes() const {
  return shape.getTokens() * experts * logitType.getIntOrFloatBitWidth() / 8;
}

int64_t RouterKernel::getHistogramStart() const {
  return std::max<int64_t>(getPartialBytes() +
                               llvm::alignTo(getLogitBytes(), 4),
                           staging.stages * getStageBytes());
}

int64_t RouterKernel::getSharedBytes() const {
  int64_t bytes = getHistogramStart();
  if (!router.route)
    return bytes;
  bytes += RouteEmitter::histogramBytes(router.route);
  // A staged kernel leaves that to the scatter kernel.
  return shape.staged
             ? bytes
             : std::max(bytes, RouteEmitter::scatterBytes(router.route));
}

RouterWork RouterKernel::work() const {
  RouterWork work;
  work.experts = experts;
  work.k = k;
  work.choices = GateOp(router.gate).getTopK();
  work.tile = shape.getTokens();
  work.cluster = shape.cluster;
  work.staged = shape.staged;
  work.whole = !shape.staged && shape.rowTiles > 2;
  work.tensorCores = usesMMA;
  work.x = xType;
  work.weights = weightType;
  return work;
}

void RouterKernel::declareArguments(RouterOperands &operands) {
  arguments.input(router.matmul.getLhs(), x);
  arguments.input(router.matmul.getWeights().front(), weights);
  extras.resize(router.matmul.getExtras().size());
  for (auto [tensor, pointer] :
       llvm::zip_equal(DeviceEpilogue::inputs(router.matmul), extras))
    arguments.input(tensor, pointer);
  GateEmitter::declareInputs(router.gate, arguments, gatePointers);
  arguments.output(operands.weights, gatePointers.weights);
  arguments.output(operands.ids, gatePointers.ids);
  if (router.route) {
    arguments.output(operands.tokens, routeArrays.tokens);
    arguments.output(operands.offsets, routeArrays.offsets);
    arguments.output(operands.positions, routeArrays.positions);
    arguments.output(operands.counts, routeArrays.counts);
  }
  if (router.counters)
    arguments.output(operands.counters, counters);
  arguments.scalar(operands.tokenCount, tokens);
  arguments.scalar(operands.tokensPerBlock, tokensPerBlock);
  if (router.route) {
    arguments.scalar(operands.rows, rows);
    arguments.scalar(operands.capacity, capacity);
  }
  arguments.scalar(operands.counterCount, counterCount);
  if (router.gate->getParentOfType<FunctionOpInterface>()->hasAttr(
          independentTokensAttrName))
    arguments.appended(b.getI64Type(), liveAddress);
}

void RouterKernel::launch(RouterOperands &operands, Value blocks) {
  declareArguments(operands);
  arguments.launch(lowering.rewriter, build(), blocks);
}

//===----------------------------------------------------------------------===//
// Matmul
//===----------------------------------------------------------------------===//

Value RouterKernel::loadX(Value row, Value at, Value inside, int64_t size) {
  // Out-of-range rows are clamped to the last row; their results are discarded.
  row = b.add(first, b.min(row, b.sub(valid, 1)));
  auto type = VectorType::get(size, xType);
  Value index =
      b.add(b.mul(b.toI64(row), k), b.toI64(b.select(inside, at, b.i32(0))));
  Value loaded = b.load(type, b.at(x, xType, index),
                        size * xType.getIntOrFloatBitWidth() / 8);
  Value zero = arith::ConstantOp::create(b, b.getZeroAttr(type));
  return b.select(inside, loaded, zero);
}

Value RouterKernel::loadWeights(Value column, Value at, Value inside,
                                int64_t size) {
  column = b.min(column, experts - 1);
  at = b.select(inside, at, b.i32(0));
  auto type = VectorType::get(size, weightType);
  Value loaded;
  if (router.matmul.getTransposed()) {
    Value index = b.add(b.mul(b.toI64(column), k), b.toI64(at));
    loaded = b.load(type, b.at(weights, weightType, index),
                    size * weightType.getIntOrFloatBitWidth() / 8);
  } else {
    // Lanes load adjacent columns, which share cache lines.
    SmallVector<Value> elements;
    for (int64_t i = 0; i < size; ++i) {
      Value index =
          b.add(b.mul(b.toI64(b.add(at, i)), experts), b.toI64(column));
      elements.push_back(b.loadAt(weightType, weights, index));
    }
    loaded = vector::FromElementsOp::create(b, type, elements);
  }
  Value zero = arith::ConstantOp::create(b, b.getZeroAttr(type));
  return b.select(inside, loaded, zero);
}

Value RouterKernel::partialAt(Value warp, Value row, Value column) {
  Value warpRow = b.add(b.mul(warp, shape.getTokens()), row);
  Value index = b.add(b.mul(warpRow, tilesAtOnce * tileExperts), column);
  return b.at(partials, b.getF32Type(), index);
}

/// A lane loads eight adjacent elements, 16 bytes, of every 32 of a row: the
/// operands of two m16n8k16. The order of k does not matter as long as both
/// operands agree.
void RouterKernel::multiplyWithMMA(Value firstColumn) {
  constexpr int64_t laneElements = 8, stepElements = 4 * laneElements;
  int64_t rowTiles = shape.rowTiles, loads = 2 * rowTiles + tilesAtOnce;
  int64_t steps = llvm::divideCeil(llvm::divideCeil(k, stepElements), warps);
  // Keep as many loads in flight as registers allow.
  int64_t ahead = loads <= 4 ? 4 : loads <= 6 ? 2 : 1;
  ahead = std::min<int64_t>(ahead, llvm::PowerOf2Ceil(steps));
  Value group = b.shiftRight(lane, 2), within = b.bitAnd(lane, 3);
  Value from = b.mul(warp, steps * stepElements);
  Value to = b.min(b.add(from, steps * stepElements), k);
  SmallVector<Value> inits(rowTiles * tilesAtOnce * 4, b.f32(0.0));
  SmallVector<Value> accumulators = b.loop(
      from, to, b.i32(ahead * stepElements), inits,
      [&](Value start, ValueRange carried) {
        SmallVector<SmallVector<Value>> xs(ahead), ys(ahead);
        for (int64_t i = 0; i < ahead; ++i) {
          Value at = b.add(b.add(start, i * stepElements),
                           b.mul(within, laneElements));
          Value inside = b.less(at, to);
          for (int64_t row = 0; row < 2 * rowTiles; ++row)
            xs[i].push_back(
                loadX(b.add(group, row * 8), at, inside, laneElements));
          for (int64_t tile = 0; tile < tilesAtOnce; ++tile) {
            Value column = b.add(b.add(firstColumn, tile * tileExperts), group);
            ys[i].push_back(loadWeights(column, at, inside, laneElements));
          }
        }
        SmallVector<Value> next = llvm::to_vector(carried);
        for (int64_t i = 0; i < ahead; ++i)
          for (int64_t row = 0; row < rowTiles; ++row)
            for (int64_t tile = 0; tile < tilesAtOnce; ++tile)
              multiplyFragment(xs[i][2 * row], xs[i][2 * row + 1], ys[i][tile],
                               MutableArrayRef(next).slice(
                                   (row * tilesAtOnce + tile) * 4, 4));
        return next;
      });
  for (int64_t i = 0; i < int64_t(accumulators.size()); ++i) {
    int64_t tile = i / 4 % tilesAtOnce,
            row = i / 4 / tilesAtOnce * 16 + i % 4 / 2 * 8;
    Value column = b.add(b.mul(within, 2), tile * tileExperts + i % 2);
    b.store(accumulators[i], partialAt(warp, b.add(group, row), column));
  }
}

/// accumulators += x · y for 16 rows, in two vectors of eight elements each,
/// and eight columns.
void RouterKernel::multiplyFragment(Value low, Value high, Value y,
                                    MutableArrayRef<Value> accumulators) {
  Type i32 = b.getI32Type();
  bool isF16 = xType.isF16();
  // NVVM takes f16 operands as vector<2xf16>, bf16 ones as i32.
  Type pair = isF16 ? Type(VectorType::get(2, xType)) : i32;
  auto pairOf = [&](Value vector, int64_t index) -> Value {
    Value words = vector::BitCastOp::create(b, VectorType::get(4, i32), vector);
    Value word = vector::ExtractOp::create(b, words, index);
    return isF16 ? LLVM::BitcastOp::create(b, pair, word).getResult() : word;
  };
  for (int64_t half = 0; half < 2; ++half) {
    SmallVector<Value> xs, ys;
    for (int64_t index : {2 * half, 2 * half + 1}) {
      llvm::append_values(xs, pairOf(low, index), pairOf(high, index));
      ys.push_back(pairOf(y, index));
    }
    b.mma(xType, xs, ys, accumulators);
  }
}

/// The lanes split k, up to 16 bytes each, and accumulate four tokens times
/// eight experts.
void RouterKernel::multiplyWithFMA(Value firstColumn) {
  constexpr int64_t groupRows = 4;
  int64_t laneElements = 128 / std::max(xType.getIntOrFloatBitWidth(),
                                        weightType.getIntOrFloatBitWidth());
  while (k % laneElements != 0)
    laneElements /= 2;
  int64_t stepElements = laneElements * GPUBuilder::warpSize;
  int64_t steps = llvm::divideCeil(llvm::divideCeil(k, stepElements), warps);
  Value from = b.mul(warp, steps * stepElements);
  Value to = b.min(b.add(from, steps * stepElements), k);
  auto elementsOf = [&](Value vector) {
    vector = b.toFloat(vector, VectorType::get(laneElements, b.getF32Type()));
    SmallVector<Value> each;
    for (int64_t i = 0; i < laneElements; ++i)
      each.push_back(vector::ExtractOp::create(b, vector, i));
    return each;
  };
  auto multiply = [&](Value row, Value column) {
    SmallVector<Value> inits(groupRows * tileExperts, b.f32(0.0));
    SmallVector<Value> accumulators = b.loop(
        from, to, b.i32(stepElements), inits,
        [&](Value start, ValueRange carried) {
          Value at = b.add(start, b.mul(lane, laneElements));
          Value inside = b.less(at, to);
          SmallVector<SmallVector<Value>> xs, ys;
          for (int64_t i = 0; i < groupRows; ++i)
            xs.push_back(
                elementsOf(loadX(b.add(row, i), at, inside, laneElements)));
          for (int64_t j = 0; j < tileExperts; ++j)
            ys.push_back(
                elementsOf(loadWeights(b.add(b.add(firstColumn, column), j), at,
                                       inside, laneElements)));
          SmallVector<Value> next = llvm::to_vector(carried);
          for (auto [i, sum] : llvm::enumerate(next))
            for (int64_t e = 0; e < laneElements; ++e)
              sum = LLVM::FMAOp::create(b, xs[i / tileExperts][e],
                                        ys[i % tileExperts][e], sum);
          return next;
        });
    // Reduce over the lanes by recursive halving: each step halves the
    // accumulators of a lane, and in the end lane i has sum i.
    for (int64_t distance = 16; distance > 0; distance /= 2) {
      Value isUpper = b.logicalNot(b.equal(b.bitAnd(lane, distance), 0));
      SmallVector<Value> kept;
      for (int64_t i = 0; i < distance; ++i) {
        Value own =
            b.select(isUpper, accumulators[i + distance], accumulators[i]);
        Value other =
            b.select(isUpper, accumulators[i], accumulators[i + distance]);
        kept.push_back(
            arith::AddFOp::create(b, own, b.shuffleXor(other, distance)));
      }
      accumulators = kept;
    }
    b.store(accumulators.front(),
            partialAt(warp, b.add(row, b.shiftRight(lane, 3)),
                      b.add(column, b.bitAnd(lane, 7))));
  };
  b.loop(b.i32(0), valid, b.i32(groupRows), [&](Value row) {
    b.loop(b.i32(0), b.i32(tilesAtOnce * tileExperts), b.i32(tileExperts),
           [&](Value column) { multiply(row, column); });
  });
}

void RouterKernel::reducePartials(Value firstColumn, Value columns) {
  Value target = shape.cluster > 1 ? b.mapToBlock(logits, b.i32(0)) : logits;
  int64_t width = tilesAtOnce * tileExperts;
  b.loop(thread, b.mul(valid, width), b.i32(warps * 32), [&](Value index) {
    Value row = b.div(index, width), within = b.rem(index, width);
    Value column = b.add(firstColumn, within);
    b.ifThen(b.less(column, columns), [&] {
      Value sum = b.f32(0.0);
      for (int64_t i = 0; i < warps; ++i)
        sum = arith::AddFOp::create(
            b, sum, b.load(b.getF32Type(), partialAt(b.i32(i), row, within)));
      // Logits decide which experts are chosen.
      Value logit =
          DeviceEpilogue(b, router.matmul, extras, EpilogueMath::Precise)
              .build(sum, {b.i32(0), b.add(first, row), column})
              .front();
      b.storeAt(logit, target, b.add(b.mul(row, experts), column));
    });
  });
}

/// Computes the logits of a tile into the first block of the cluster; ends with
/// a barrier.
void RouterKernel::computeLogits() {
  int64_t blockExperts = blockTiles * tileExperts;
  Value start = b.mul(rank, blockExperts);
  Value end = b.min(b.add(start, blockExperts), experts);
  // Skip a tile without live tokens.
  end = b.select(b.equal(valid, 0), start, end);
  b.loop(start, end, b.i32(tilesAtOnce * tileExperts), [&](Value firstColumn) {
    if (usesMMA)
      multiplyWithMMA(firstColumn);
    else
      multiplyWithFMA(firstColumn);
    b.barrier();
    reducePartials(firstColumn, end);
    b.barrier();
  });
}

//===----------------------------------------------------------------------===//
// Kernel
//===----------------------------------------------------------------------===//

void RouterKernel::gateTokens(GateEmitter &gate, RouteEmitter *route) {
  b.loop(warp, inactive, b.i32(warps), [&](Value row) {
    gate.emitNone(b.toI64(b.add(b.add(first, valid), row)));
  });
  b.loop(warp, valid, b.i32(warps), [&](Value row) {
    GateEmitter::Row ids = gate.emit(b.toI64(b.add(first, row)), logits,
                                     b.toI64(b.mul(row, experts)));
    if (route)
      gate.forEach(ids, router.gate.getTopK(), [&](Value column, Value id) {
        route->countChoice(histogram, column, id);
      });
  });
}

void RouterKernel::setTile(Value start, Value end, Value most) {
  Value count = b.min(b.sub(end, start), most);
  first = start;
  valid = b.max(b.min(b.sub(live, start), count), b.i32(0));
  inactive = b.sub(count, valid);
}

/// Computes what the kernel needs throughout.
void RouterKernel::setUp() {
  memory = b.sharedMemory();
  partials = memory;
  logits = b.sharedAt(memory, getPartialBytes());
  histogram = b.sharedAt(memory, getHistogramStart());
  thread = b.thread();
  lane = b.lane();
  warp = b.warp();
  rank = shape.cluster > 1 ? b.blockInCluster(shape.cluster) : b.i32(0);
}

LLVM::LLVMFuncOp RouterKernel::build() {
  KernelShape kernelShape;
  kernelShape.threads = warps * GPUBuilder::warpSize;
  kernelShape.sharedBytes = getSharedBytes();
  kernelShape.cluster = shape.cluster;
  LLVM::LLVMFuncOp kernel =
      arguments.createKernel(b, lowering.kernels, "router", kernelShape);
  kernel->setAttr(workAttrName, work().toAttr());
  routeArrays.ids = gatePointers.ids;
  live = tokens;
  if (liveAddress) {
    kernel->setAttr(liveTokensAttrName, b.getUnitAttr());
    live = GateEmitter::liveTokens(b, tokens, liveAddress);
  }
  setUp();
  Value group = b.div(b.block(), shape.cluster);
  GateEmitter gate(router.gate, b);
  gate.setPointers(gatePointers);
  std::optional<RouteEmitter> route;
  if (router.route) {
    route.emplace(router.route, b, kernelShape.threads);
    route->clear(histogram);
  }
  if (counters)
    clearCounters();
  auto gateTile = [&] { gateTokens(gate, route ? &*route : nullptr); };

  Value start = b.mul(group, tokensPerBlock);
  Value end = b.min(b.add(start, tokensPerBlock), tokens);
  if (shape.cluster > 1) {
    // The blocks of a cluster share one tile. All must have started before one
    // writes to another's shared memory.
    setTile(start, end, b.i32(shape.getTokens()));
    b.arriveCluster();
    b.waitCluster();
    computeLogits();
    b.arriveCluster();
    b.waitCluster();
    b.ifThen(b.equal(rank, 0), [&] {
      gateTile();
      if (route)
        finish(*route, group);
    });
    return kernel;
  }
  Value tileTokens = b.i32(shape.getTokens());
  if (shape.staged) {
    // As many of the block's tokens in each of as few tiles as there are.
    Value tiles = b.ceilDiv(tokensPerBlock, shape.getTokens());
    Value share = b.div(b.add(tokensPerBlock, b.sub(tiles, 1)), tiles);
    tileTokens = b.mul(b.ceilDiv(share, 16), 16);
  }
  b.loop(start, end, tileTokens, [&](Value tile) {
    setTile(tile, end, tileTokens);
    if (shape.staged)
      computeStagedLogits();
    else
      computeLogits();
    gateTile();
    // All warps have read the logits.
    b.barrier();
  });
  if (route)
    finish(*route, group);
  return kernel;
}

void RouterKernel::clearCounters() {
  int64_t threads = warps * GPUBuilder::warpSize;
  Value start = b.add(b.mul(b.block(), threads), thread);
  b.loop(b.toI64(start), counterCount, b.toI64(b.mul(b.numBlocks(), threads)),
         [&](Value i) { b.storeAt(b.i32(0), counters, i); });
}

/// Scatters the choices if all tokens are in one tile; otherwise writes the
/// histogram for a second kernel.
void RouterKernel::finish(RouteEmitter &route, Value group) {
  b.barrier();
  if (shape.staged)
    return route.storeCounts(histogram, routeArrays.counts, group);
  b.ifElse(
      b.less(b.i32(shape.getTokens()), tokens),
      [&] { route.storeCounts(histogram, routeArrays.counts, group); },
      [&] {
        Value total = b.mul(tokens, router.gate.getTopK());
        route.scatter(
            memory, routeArrays,
            {b.i32(0), b.i32(1), /*chunk=*/total, total, rows, capacity});
      });
}
