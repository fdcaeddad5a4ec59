//===- RouterToGPU.cpp - Fused routers ------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Up to 64 tokens take one launch, more take two: the router kernel, then the
// kernel that scatters the choices. All kernels are launched; those that do not
// suit the number of tokens get an empty grid. The same is chosen for the plan,
// in lib/Analysis/RoutingModel.cpp.
//
//===----------------------------------------------------------------------===//

#include "Limits.h"
#include "RouterKernel.h"

#include "mlir/IR/TypeUtilities.h"

using namespace mlir;
using namespace mlir::moe;

/// The portable maximum.
static constexpr int64_t maxClusterSize = 8;

std::optional<Router> Router::match(FusedOp op) {
  Router router;
  YieldOp yield = op.getYield();
  for (Operation &each : op.getBody().front().without_terminator()) {
    if (auto matmul = dyn_cast<GroupedMatmulOp>(each))
      router.matmul = matmul;
    else if (auto gate = dyn_cast<GateOp>(each))
      router.gate = gate;
    else if (auto route = dyn_cast<RouteOp>(each))
      router.route = route;
    else if (!each.hasOneUse() ||
             !isa<tensor::SplatOp, YieldOp>(*each.user_begin()) ||
             !(each.hasTrait<OpTrait::ConstantLike>() ||
               isa<tensor::SplatOp>(each)))
      return std::nullopt;
  }
  if (!router.matmul || !router.gate ||
      router.gate.getLogits() != router.matmul.getResult() ||
      (router.route && router.route.getIds() != router.gate.getIds()))
    return std::nullopt;
  for (Value value : yield.getValues()) {
    Operation *def = value.getDefiningOp();
    if (def && (def == router.gate || def == router.route))
      continue;
    if (router.counters || !areClearedCounters(value))
      return std::nullopt;
    router.counters = value;
  }
  return router;
}

namespace {
/// Lowers a router to the launches of two router kernels, of which one runs,
/// and of the scatter kernel.
class RouterLowering {
public:
  RouterLowering(Router router, DeviceLowering &lowering);
  /// Returns the results of `op`, whose region is the router.
  SmallVector<Value> run(FusedOp op);

private:
  bool isFasterStaged();
  void chooseGrid();
  void createOutputs();
  void launchRouter();
  void launchScatter();

  GroupedMatmulOp matmul;
  GateOp gate;
  RouteOp route;
  Router router;
  DeviceLowering &lowering;
  HostBuilder b;
  /// For few tokens, in a cluster each; for those that one cluster routes, too;
  /// for many; and for more than a wave of those.
  RouterShape few, whole, many, staged;
  bool hasFew, hasWhole, hasStaged;

  Value tokens, fewTiles;
  Value isFew;    // null without a kernel for few tokens
  Value isWhole;  // null without one that routes more of them
  Value isStaged; // null without a staged kernel
  Value tokensPerBlock, blocks;
  Value maxTokens; // that a router kernel scatters itself
  Value choices;
  RouterOperands operands;
};
} // namespace

RouterLowering::RouterLowering(Router router, DeviceLowering &lowering)
    : matmul(router.matmul), gate(router.gate), route(router.route),
      router(router), lowering(lowering), b(gate.getLoc(), lowering.rewriter) {
  int64_t blocks = llvm::PowerOf2Ceil(llvm::divideCeil(matmul.getN(), 8));
  few = {std::min(maxClusterSize, blocks), 1};
  many = {1, 2};
  hasFew = lowering.gpu.hasClusters() && few.cluster > 1;
  auto fits = [&](RouterShape shape) {
    return RouterKernel(router, shape, lowering).getSharedBytes() <=
           lowering.gpu.getSharedBytes();
  };
  if (!fits(many))
    many.rowTiles = 1;
  staged = {1, 8, /*staged=*/true};
  if (!fits(staged))
    staged.rowTiles = 4;
  hasStaged = fits(staged) && isFasterStaged();
  // Without tensor cores, or on one multiprocessor, the product of as many
  // tokens takes longer than another launch.
  whole = {few.cluster, 4};
  hasWhole = route && (hasFew || few.cluster == 1) && fits(whole) &&
             RouterKernel(router, whole, lowering).usesTensorCores();
}

/// True if a staged kernel should pay: with few experts the tokens take longer
/// than the weights.
bool RouterLowering::isFasterStaged() {
  constexpr int64_t manyTokens = 32768;
  RouterKernel kernel(router, staged, lowering);
  std::optional<GPUMachine> machine = findGPU(lowering.gpu.arch);
  auto secondsOf = [&](const RouterWork &work) {
    return work.predict(*machine, manyTokens).seconds;
  };
  return kernel.canStage() &&
         secondsOf(kernel.work()) <
             secondsOf(RouterKernel(router, many, lowering).work());
}

void RouterLowering::chooseGrid() {
  tokens = b.extent(matmul.getLhs(), 0);
  Value multiprocessors = moe_rt::MultiprocessorsOp::create(b);
  fewTiles = b.ceilDiv(tokens, few.getTokens());
  // The tiles are balanced over the multiprocessors.
  Value manyTiles = b.ceilDiv(tokens, many.getTokens());
  tokensPerBlock =
      b.mul(b.ceilDiv(manyTiles, multiprocessors), b.index(many.getTokens()));
  tokensPerBlock = b.max(tokensPerBlock, b.index(many.getTokens()));
  maxTokens = b.index(many.getTokens());
  if (hasFew) {
    isFew = b.atMost(b.mul(fewTiles, few.cluster), multiprocessors);
    tokensPerBlock = b.select(isFew, b.index(few.getTokens()), tokensPerBlock);
    maxTokens = b.select(isFew, b.index(few.getTokens()), maxTokens);
  }
  if (hasStaged) {
    isStaged = b.greater(manyTiles, multiprocessors);
    maxTokens = b.select(isStaged, b.index(0), maxTokens);
  }
  blocks = b.ceilDiv(tokens, tokensPerBlock);
  if (!hasWhole)
    return;
  // One cluster for all tokens saves the launch of the scatter kernel.
  isWhole = b.both(b.greater(tokens, maxTokens),
                   b.atMost(tokens, b.index(whole.getTokens())));
  tokensPerBlock =
      b.select(isWhole, b.index(whole.getTokens()), tokensPerBlock);
  maxTokens = b.select(isWhole, b.index(whole.getTokens()), maxTokens);
  blocks = b.select(isWhole, b.index(1), blocks);
}

void RouterLowering::createOutputs() {
  Type i32 = b.getI32Type();
  OpFoldResult count = b.mixedExtent(matmul.getLhs(), 0);
  auto choicesOf = [&](Type type) {
    return b.empty({count, b.getIndexAttr(gate.getTopK())},
                   getElementTypeOrSelf(type));
  };
  operands.weights = choicesOf(gate->getResultTypes()[0]);
  operands.ids = choicesOf(gate->getResultTypes()[1]);
  operands.tokenCount = b.toI32(tokens);
  operands.tokensPerBlock = b.toI32(tokensPerBlock);
  choices = b.mul(tokens, gate.getTopK());
  if (router.counters) {
    auto splat = router.counters.getDefiningOp<tensor::SplatOp>();
    auto type = cast<RankedTensorType>(router.counters.getType());
    operands.counterCount = type.hasStaticShape()
                                ? b.index(type.getNumElements())
                                : splat.getDynamicSizes().front();
    operands.counters =
        b.empty({getAsOpFoldResult(operands.counterCount)}, i32);
  }
  if (!route)
    return;
  // The gate has no ids yet, but the shape is known.
  route.getIdsMutable().assign(operands.ids);
  ReifiedRankedShapedTypeDims shapes;
  (void)route.reifyResultShapes(b, shapes); // never fails for this operation
  operands.tokens = b.empty(shapes[0], i32);
  operands.offsets = b.empty(shapes[1], i32);
  operands.positions = b.empty(shapes[2], i32);
  // At least as many rows as there are blocks, on any device.
  operands.counts = b.empty({getAsOpFoldResult(fewTiles),
                             b.getIndexAttr(RouteEmitter::countBuckets(route))},
                            i32);
  operands.rows =
      b.toI32(getValueOrCreateConstantIndexOp(b, b.getLoc(), shapes[0][0]));
  operands.capacity = capacityOf(b, route);
}

void RouterLowering::launchRouter() {
  // One of the kernels runs.
  auto launch = [&](RouterShape shape, ArrayRef<std::pair<Value, bool>> when) {
    Value grid = b.mul(blocks, shape.cluster);
    for (auto [condition, value] : when)
      if (condition)
        grid = value ? b.select(condition, grid, b.index(0))
                     : b.select(condition, b.index(0), grid);
    RouterKernel(router, shape, lowering).launch(operands, grid);
  };
  if (hasFew)
    launch(few, {{isFew, true}, {isWhole, false}});
  launch(many, {{isFew, false}, {isStaged, false}, {isWhole, false}});
  if (hasStaged)
    launch(staged, {{isFew, false}, {isStaged, true}, {isWhole, false}});
  if (hasWhole)
    launch(whole, {{isWhole, true}});
}

void RouterLowering::launchScatter() {
  // Without tokens the offsets must be written all the same.
  Value isScattered =
      b.both(b.atMost(tokens, maxTokens), b.notEqual(tokens, b.index(0)));
  Value grid = b.select(isScattered, b.index(0), b.max(blocks, b.index(1)));
  ScatterOperands scatter;
  scatter.ids = operands.ids;
  scatter.counts = operands.counts;
  scatter.tokens = operands.tokens;
  scatter.offsets = operands.offsets;
  scatter.positions = operands.positions;
  scatter.total = b.toI32(choices);
  scatter.rows = operands.rows;
  scatter.chunk = b.toI32(b.mul(tokensPerBlock, gate.getTopK()));
  scatter.capacity = operands.capacity;
  scatter.isOfRouter = true;
  moe::launchScatter(route, scatter, grid, lowering);
  operands.tokens = scatter.tokens;
  operands.offsets = scatter.offsets;
  operands.positions = scatter.positions;
}

SmallVector<Value> RouterLowering::run(FusedOp op) {
  chooseGrid();
  createOutputs();
  launchRouter();
  if (route) {
    launchScatter();
    lowering.tokensOfPositions[operands.positions] = operands.tokens;
  }
  return llvm::map_to_vector(op.getYield().getValues(), [&](Value value) {
    Operation *def = value.getDefiningOp();
    unsigned number = cast<OpResult>(value).getResultNumber();
    if (def == gate)
      return number == 0 ? operands.weights : operands.ids;
    if (!def || def != route)
      return operands.counters;
    Value results[] = {operands.tokens, operands.offsets, operands.positions};
    return results[number];
  });
}

Lowered mlir::moe::lowerToGPU(FusedOp op, Router router,
                              DeviceLowering &lowering, std::string &why) {
  if (failed(Router::verify(router.matmul, router.gate, why)) ||
      (router.route && failed(Router::verify(router.route, why))))
    return failure();
  return RouterLowering(router, lowering).run(op);
}
