//===- RouterKernel.cpp - From rows to routed choices ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "RouterKernel.h"

#include "mlir/Interfaces/FunctionInterfaces.h"

using namespace mlir;
using namespace mlir::moe;

static constexpr int64_t tileTokens = 16;
static constexpr int64_t tileExperts = 8;
/// With more experts a gate has too many registers for as many warps.
static constexpr int64_t manyExperts = 256;

static Type elementOf(Value tensor) {
  return cast<RankedTensorType>(tensor.getType()).getElementType();
}

LogicalResult Router::verify(GroupedMatmulOp product, GateOp gate,
                             std::string &why) {
  auto weights = cast<RankedTensorType>(product.getWeights().front().getType());
  auto isNumber = [](Type type) {
    return type.isF32() || type.isF16() || type.isBF16();
  };
  if (!product->hasOneUse())
    why = "its logits have other uses";
  else if (product->getBlock() != gate->getBlock())
    why = "it is in another block";
  else if (product.getOffsets() || product.getGather() || product.getPanels() ||
           product.getNumProducts() != 1)
    why = "it is more than one product of all rows";
  else if (!weights.hasStaticShape() || product.getK() == 0)
    why = "its weights have a dynamic extent, or none";
  else if (!isNumber(weights.getElementType()) ||
           !isNumber(elementOf(product.getLhs())) ||
           !isNumber(elementOf(product.getInit())))
    why = "its numbers are other than f32, f16 or bf16";
  return failure(!why.empty() || failed(DeviceEpilogue::verify(product, why)) ||
                 failed(GateEmitter::verify(gate, why)));
}

RouterKernel::RouterKernel(Router router, RouterShape shape,
                           DeviceLowering &lowering)
    : router(router), shape(shape), lowering(lowering),
      b(router.gate.getLoc(), router.gate.getContext()),
      xType(elementOf(router.product.getLhs())),
      weightType(elementOf(router.product.getWeights().front())),
      logitType(elementOf(router.product.getInit())), k(router.product.getK()),
      experts(router.product.getN()), warps(experts <= manyExperts ? 16 : 8),
      ownTiles(llvm::divideCeil(llvm::divideCeil(experts, tileExperts),
                                shape.cluster)),
      across(llvm::divideCeil(ownTiles, llvm::divideCeil(ownTiles, 4))),
      onCores(xType == weightType && !xType.isF32() && k % 8 == 0) {}

int64_t RouterKernel::getPartialBytes() const {
  return warps * shape.getTokens() * across * tileExperts * 4;
}

int64_t RouterKernel::getLogitBytes() const {
  return shape.getTokens() * experts * logitType.getIntOrFloatBitWidth() / 8;
}

int64_t RouterKernel::getSharedBytes() const {
  int64_t bytes = getPartialBytes() + llvm::alignTo(getLogitBytes(), 4);
  if (!router.route)
    return bytes;
  return std::max(bytes + RouteEmitter::counterBytes(router.route),
                  RouteEmitter::placeBytes(router.route));
}

SmallVector<Value> RouterKernel::inputs(Router router) {
  SmallVector<Value> inputs{router.product.getLhs(),
                            router.product.getWeights().front()};
  llvm::append_range(inputs, DeviceEpilogue::inputs(router.product));
  llvm::append_range(inputs, GateEmitter::inputs(router.gate));
  return inputs;
}

//===----------------------------------------------------------------------===//
// The product
//===----------------------------------------------------------------------===//

Value RouterKernel::loadX(Value row, Value at, Value inside, int64_t size) {
  // A row that is not there has the numbers of the last one, to be thrown away.
  row = b.add(first, b.min(row, b.sub(valid, 1)));
  auto type = VectorType::get(size, xType);
  Value place =
      b.add(b.mul(b.toI64(row), k), b.toI64(b.select(inside, at, b.i32(0))));
  Value loaded = b.load(type, b.at(x, xType, place),
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
  if (router.product.getTransposed()) {
    Value place = b.add(b.mul(b.toI64(column), k), b.toI64(at));
    loaded = b.load(type, b.at(weights, weightType, place),
                    size * weightType.getIntOrFloatBitWidth() / 8);
  } else {
    // Eight columns are neighbours: what one brings, the others find in the
    // cache.
    SmallVector<Value> numbers;
    for (int64_t i = 0; i < size; ++i) {
      Value place =
          b.add(b.mul(b.toI64(b.add(at, i)), experts), b.toI64(column));
      numbers.push_back(b.loadAt(weightType, weights, place));
    }
    loaded = vector::FromElementsOp::create(b, type, numbers);
  }
  Value zero = arith::ConstantOp::create(b, b.getZeroAttr(type));
  return b.select(inside, loaded, zero);
}

Value RouterKernel::partial(Value ofWarp, Value row, Value column) {
  Value line = b.add(b.mul(ofWarp, shape.getTokens()), row);
  Value place = b.add(b.mul(line, across * tileExperts), column);
  return b.at(partials, b.getF32Type(), place);
}

/// A lane has eight numbers of a row, 16 bytes, from each 64: operands of two
/// mma.sync, which do not care which k comes first so long as both sides agree.
void RouterKernel::multiplyOnCores(Value firstColumn) {
  constexpr int64_t own = 8, atOnce = 4 * own;
  int64_t rowTiles = shape.rowTiles, loads = 2 * rowTiles + across;
  int64_t steps = llvm::divideCeil(llvm::divideCeil(k, atOnce), warps);
  // As many loads on their way as there are registers for.
  int64_t ahead = loads <= 4 ? 4 : loads <= 6 ? 2 : 1;
  ahead = std::min<int64_t>(ahead, llvm::PowerOf2Ceil(steps));
  Value group = b.shiftRight(lane, 2), within = b.bitAnd(lane, 3);
  Value from = b.mul(warp, steps * atOnce);
  Value to = b.min(b.add(from, steps * atOnce), k);
  SmallVector<Value> inits(rowTiles * across * 4, b.f32(0.0));
  SmallVector<Value> sums = b.loop(
      from, to, b.i32(ahead * atOnce), inits,
      [&](Value start, ValueRange carried) {
        SmallVector<SmallVector<Value>> xs(ahead), ys(ahead);
        for (int64_t i = 0; i < ahead; ++i) {
          Value at = b.add(b.add(start, i * atOnce), b.mul(within, own));
          Value inside = b.less(at, to);
          for (int64_t row = 0; row < 2 * rowTiles; ++row)
            xs[i].push_back(loadX(b.add(group, row * 8), at, inside, own));
          for (int64_t tile = 0; tile < across; ++tile) {
            Value column = b.add(b.add(firstColumn, tile * tileExperts), group);
            ys[i].push_back(loadWeights(column, at, inside, own));
          }
        }
        SmallVector<Value> next = llvm::to_vector(carried);
        for (int64_t i = 0; i < ahead; ++i)
          for (int64_t row = 0; row < rowTiles; ++row)
            for (int64_t tile = 0; tile < across; ++tile)
              multiplyTile(
                  xs[i][2 * row], xs[i][2 * row + 1], ys[i][tile],
                  MutableArrayRef(next).slice((row * across + tile) * 4, 4));
        return next;
      });
  for (int64_t i = 0; i < int64_t(sums.size()); ++i) {
    int64_t tile = i / 4 % across, row = i / 4 / across * 16 + i % 4 / 2 * 8;
    Value column = b.add(b.mul(within, 2), tile * tileExperts + i % 2);
    b.store(sums[i], partial(warp, b.add(group, row), column));
  }
}

/// sums += x · y for sixteen rows, in two vectors of eight, and eight columns.
void RouterKernel::multiplyTile(Value low, Value high, Value y,
                                MutableArrayRef<Value> sums) {
  Type i32 = b.getI32Type(), f32 = b.getF32Type();
  bool isF16 = xType.isF16();
  // Pairs: f16 operands by type, bf16 ones by bits.
  Type pair = isF16 ? Type(VectorType::get(2, xType)) : i32;
  auto pairOf = [&](Value vector, int64_t number) -> Value {
    Value words = vector::BitCastOp::create(b, VectorType::get(4, i32), vector);
    Value word = vector::ExtractOp::create(b, words, number);
    return isF16 ? LLVM::BitcastOp::create(b, pair, word).getResult() : word;
  };
  NVVM::MMATypes type = isF16 ? NVVM::MMATypes::f16 : NVVM::MMATypes::bf16;
  for (int64_t half = 0; half < 2; ++half) {
    SmallVector<Value> xs, ys;
    for (int64_t number : {2 * half, 2 * half + 1}) {
      llvm::append_values(xs, pairOf(low, number), pairOf(high, number));
      ys.push_back(pairOf(y, number));
    }
    Value result = NVVM::MmaOp::create(
        b,
        LLVM::LLVMStructType::getLiteral(b.getContext(), {f32, f32, f32, f32}),
        xs, ys, ValueRange(ArrayRef<Value>(sums)), ArrayRef<int64_t>{16, 8, 16},
        std::nullopt, std::nullopt, std::array<NVVM::MMATypes, 2>{type, type},
        std::array<NVVM::MMALayout, 2>{NVVM::MMALayout::row,
                                       NVVM::MMALayout::col});
    for (int64_t i = 0; i < 4; ++i)
      sums[i] = LLVM::ExtractValueOp::create(b, result, i);
  }
}

/// The lanes share k, with up to 16 bytes each, and have sums of four tokens
/// and eight experts.
void RouterKernel::multiplyByFMA(Value firstColumn) {
  constexpr int64_t groupRows = 4;
  int64_t own = 128 / std::max(xType.getIntOrFloatBitWidth(),
                               weightType.getIntOrFloatBitWidth());
  while (k % own != 0)
    own /= 2;
  int64_t atOnce = own * GPUBuilder::warpSize;
  int64_t steps = llvm::divideCeil(llvm::divideCeil(k, atOnce), warps);
  Value from = b.mul(warp, steps * atOnce);
  Value to = b.min(b.add(from, steps * atOnce), k);
  auto numbers = [&](Value vector) {
    vector = b.toFloat(vector, VectorType::get(own, b.getF32Type()));
    SmallVector<Value> each;
    for (int64_t i = 0; i < own; ++i)
      each.push_back(vector::ExtractOp::create(b, vector, i));
    return each;
  };
  auto multiply = [&](Value row, Value column) {
    SmallVector<Value> inits(groupRows * tileExperts, b.f32(0.0));
    SmallVector<Value> sums = b.loop(
        from, to, b.i32(atOnce), inits, [&](Value start, ValueRange carried) {
          Value at = b.add(start, b.mul(lane, own));
          Value inside = b.less(at, to);
          SmallVector<SmallVector<Value>> xs, ys;
          for (int64_t i = 0; i < groupRows; ++i)
            xs.push_back(numbers(loadX(b.add(row, i), at, inside, own)));
          for (int64_t j = 0; j < tileExperts; ++j)
            ys.push_back(numbers(loadWeights(
                b.add(b.add(firstColumn, column), j), at, inside, own)));
          SmallVector<Value> next = llvm::to_vector(carried);
          for (auto [i, sum] : llvm::enumerate(next))
            for (int64_t e = 0; e < own; ++e)
              sum = LLVM::FMAOp::create(b, xs[i / tileExperts][e],
                                        ys[i % tileExperts][e], sum);
          return next;
        });
    // Each step halves the lanes that a sum is spread over, and the sums of a
    // lane: in the end lane i has sum i.
    for (int64_t distance = 16; distance > 0; distance /= 2) {
      Value isUpper = b.logicalNot(b.equal(b.bitAnd(lane, distance), 0));
      SmallVector<Value> kept;
      for (int64_t i = 0; i < distance; ++i) {
        Value own = b.select(isUpper, sums[i + distance], sums[i]);
        Value other = b.select(isUpper, sums[i], sums[i + distance]);
        kept.push_back(
            arith::AddFOp::create(b, own, b.shuffleXor(other, distance)));
      }
      sums = kept;
    }
    b.store(sums.front(), partial(warp, b.add(row, b.shiftRight(lane, 3)),
                                  b.add(column, b.bitAnd(lane, 7))));
  };
  b.loop(b.i32(0), valid, b.i32(groupRows), [&](Value row) {
    b.loop(b.i32(0), b.i32(across * tileExperts), b.i32(tileExperts),
           [&](Value column) { multiply(row, column); });
  });
}

void RouterKernel::addPartials(Value firstColumn, Value columns) {
  Value target = shape.cluster > 1 ? b.inBlock(logits, b.i32(0)) : logits;
  int64_t width = across * tileExperts;
  b.loop(thread, b.mul(valid, width), b.i32(warps * 32), [&](Value number) {
    Value row = b.div(number, width), within = b.rem(number, width);
    Value column = b.add(firstColumn, within);
    b.ifThen(b.less(column, columns), [&] {
      Value sum = b.f32(0.0);
      for (int64_t i = 0; i < warps; ++i)
        sum = arith::AddFOp::create(
            b, sum, b.load(b.getF32Type(), partial(b.i32(i), row, within)));
      Value logit = DeviceEpilogue(b, router.product, extras)
                        .build(sum, b.i32(0), b.add(first, row), column);
      b.storeAt(logit, target, b.add(b.mul(row, experts), column));
    });
  });
}

/// The logits of a tile, to the first block of the cluster; a barrier follows.
void RouterKernel::computeLogits() {
  int64_t own = ownTiles * tileExperts;
  Value start = b.mul(rank, own);
  Value end = b.min(b.add(start, own), experts);
  // Without a live token there is nothing to compute.
  end = b.select(b.equal(valid, 0), start, end);
  b.loop(start, end, b.i32(across * tileExperts), [&](Value firstColumn) {
    if (onCores)
      multiplyOnCores(firstColumn);
    else
      multiplyByFMA(firstColumn);
    b.barrier();
    addPartials(firstColumn, end);
    b.barrier();
  });
}

//===----------------------------------------------------------------------===//
// The kernel
//===----------------------------------------------------------------------===//

void RouterKernel::gateTokens(GateEmitter &gate, RouteEmitter *route) {
  b.loop(warp, dead, b.i32(warps), [&](Value row) {
    gate.emitNone(b.toI64(b.add(b.add(first, valid), row)));
  });
  b.loop(warp, valid, b.i32(warps), [&](Value row) {
    GateEmitter::Row ids = gate.emit(b.toI64(b.add(first, row)), logits,
                                     b.toI64(b.mul(row, experts)));
    if (route)
      gate.forEach(ids, router.gate.getTopK(), [&](Value column, Value id) {
        route->countOne(counters, column, id);
      });
  });
}

void RouterKernel::setTile(Value start, Value end) {
  Value there = b.min(b.sub(end, start), shape.getTokens());
  first = start;
  valid = b.max(b.min(b.sub(live, start), there), b.i32(0));
  dead = b.sub(there, valid);
}

LLVM::LLVMFuncOp RouterKernel::build() {
  KernelShape kernelShape;
  kernelShape.threads = warps * GPUBuilder::warpSize;
  kernelShape.sharedBytes = getSharedBytes();
  kernelShape.cluster = shape.cluster;
  int64_t numInputs = inputs(router).size();
  int64_t numGateInputs = GateEmitter::inputs(router.gate).size();
  bool hasCapacity = router.route && router.route.getCapacity();
  SmallVector<Type> scalars(2 + bool(router.route) + hasCapacity,
                            b.getI32Type());
  bool takesLive = router.gate->getParentOfType<FunctionOpInterface>()->hasAttr(
      independentTokensAttr);
  if (takesLive)
    scalars.push_back(b.getI64Type());
  auto kernel = createKernel(b, lowering.kernels, "router", kernelShape,
                             numInputs + (router.route ? 7 : 2), scalars);
  ValueRange arguments = kernel.getArguments();
  x = arguments[0];
  weights = arguments[1];
  extras = arguments.slice(2, numInputs - 2 - numGateInputs);
  ValueRange outputs = arguments.drop_front(numInputs);
  ValueRange numbers = arguments.take_back(scalars.size());
  tokens = numbers[0];
  perBlock = numbers[1];
  rows = router.route ? numbers[2] : Value();
  capacity = hasCapacity ? numbers[3] : Value();
  live = tokens;
  if (takesLive) {
    kernel->setAttr(liveTokensAttr, b.getUnitAttr());
    live = GateEmitter::liveTokens(b, tokens, numbers.back());
  }

  memory = b.sharedMemory();
  partials = memory;
  logits = b.sharedAt(memory, getPartialBytes());
  counters = b.sharedAt(logits, llvm::alignTo(getLogitBytes(), 4));
  thread = b.thread();
  lane = b.lane();
  warp = b.warp();
  rank = shape.cluster > 1 ? b.blockInCluster(shape.cluster) : b.i32(0);
  Value group = b.div(b.block(), shape.cluster);
  GateEmitter gate(router.gate, b);
  gate.setPointers(
      arguments.slice(numInputs - numGateInputs, numGateInputs + 2));
  std::optional<RouteEmitter> route;
  if (router.route) {
    route.emplace(router.route, b, kernelShape.threads);
    route->clear(counters);
    clearArrivals(outputs[6]);
  }

  Value start = b.mul(group, perBlock);
  Value end = b.min(b.add(start, perBlock), tokens);
  if (shape.cluster > 1) {
    // The blocks of a cluster have one tile: all of them have to be there
    // before one writes to another.
    setTile(start, end);
    b.arriveCluster();
    b.waitCluster();
    computeLogits();
    b.arriveCluster();
    b.waitCluster();
    b.ifThen(b.equal(rank, 0), [&] {
      gateTokens(gate, route ? &*route : nullptr);
      if (route)
        finish(*route, outputs, group);
    });
    return kernel;
  }
  b.loop(start, end, b.i32(shape.getTokens()), [&](Value tile) {
    setTile(tile, end);
    computeLogits();
    gateTokens(gate, route ? &*route : nullptr);
    // The logits have been read.
    b.barrier();
  });
  if (route)
    finish(*route, outputs, group);
  return kernel;
}

void RouterKernel::clearArrivals(Value arrivals) {
  b.ifThen(b.equal(b.block(), 0), [&] {
    b.loop(thread, b.i32(numArrivals), b.i32(warps * GPUBuilder::warpSize),
           [&](Value i) { b.storeAt(b.i32(0), arrivals, i); });
  });
}

/// Leave the counts to a second kernel, or place the choices where they are all
/// of one tile.
void RouterKernel::finish(RouteEmitter &route, ValueRange outputs,
                          Value group) {
  RouteEmitter::Arrays arrays{/*ids=*/outputs[1], /*counts=*/outputs[5],
                              /*tokens=*/outputs[2], /*offsets=*/outputs[3],
                              /*positions=*/outputs[4]};
  b.barrier();
  b.ifElse(
      b.less(b.i32(shape.getTokens()), tokens),
      [&] { route.storeCounts(counters, arrays.counts, group); },
      [&] {
        Value total = b.mul(tokens, router.gate.getTopK());
        route.place(
            memory, arrays,
            {b.i32(0), b.i32(1), /*chunk=*/total, total, rows, capacity});
      });
}
