//===- RouterToGPU.cpp - A router's product, gate and routing -------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Few tokens are routed by one launch, others by two: the router, then what
// places the choices. All kernels are launched; those that do not suit the
// number of tokens have no blocks.
//
//===----------------------------------------------------------------------===//

#include "RouterKernel.h"

#include "mlir/IR/Remarks.h"

using namespace mlir;
using namespace mlir::moe;

/// What is portable.
static constexpr int64_t mostBlocksOfCluster = 8;

static RouteOp findRoute(GateOp gate) {
  for (Operation *user : gate.getIds().getUsers()) {
    auto route = dyn_cast<RouteOp>(user);
    std::string why;
    if (route && route.getIds() == gate.getIds() &&
        route->getBlock() == gate->getBlock() &&
        !RouteEmitter::keepsBefore(route) &&
        succeeded(RouteEmitter::verify(route, why)))
      return route;
  }
  return nullptr;
}

static void remarkApart(GroupedMatmulOp product, const Twine &why) {
  remark::missed(product.getLoc(),
                 remark::RemarkOpts::name("RouterApart").category("moe-gpu"))
      << "the product of a router is apart from its gate: " + why.str();
}

std::optional<Router> mlir::moe::findRouter(GateOp gate) {
  auto product = gate.getLogits().getDefiningOp<GroupedMatmulOp>();
  if (!product)
    return std::nullopt;
  std::string why;
  if (failed(Router::verify(product, gate, why))) {
    remarkApart(product, why);
    return std::nullopt;
  }
  return Router{product, gate, findRoute(gate)};
}

SmallVector<Value> mlir::moe::lowerToGPU(Router router,
                                         DeviceLowering &lowering) {
  auto [product, gate, route] = router;
  int64_t experts = product.getN();
  int64_t share = llvm::PowerOf2Ceil(llvm::divideCeil(experts, 8));
  RouterShape few{std::min(mostBlocksOfCluster, share), 1}, many{1, 2};
  bool hasFew = lowering.gpu.hasClusters() && few.cluster > 1;
  if (RouterKernel(router, many, lowering).getSharedBytes() >
      lowering.gpu.getSharedBytes())
    many.rowTiles = 1;

  ImplicitLocOpBuilder b(gate.getLoc(), lowering.rewriter);
  Type i32 = b.getI32Type();
  auto index = [&](int64_t value) -> Value {
    return arith::ConstantIndexOp::create(b, value);
  };
  auto toI32 = [&](Value value) -> Value {
    return arith::IndexCastOp::create(b, i32, value);
  };
  auto select = [&](Value condition, Value x, Value y) -> Value {
    return arith::SelectOp::create(b, condition, x, y);
  };
  auto atMost = [&](Value x, Value y) -> Value {
    return arith::CmpIOp::create(b, arith::CmpIPredicate::ule, x, y);
  };
  auto mul = [&](Value x, Value y) -> Value {
    return arith::MulIOp::create(b, x, y);
  };
  Value tokens = extentOf(b, product.getLhs(), 0);
  Value processors = MultiprocessorsOp::create(b);
  Value fewTiles = ceilDivOf(b, tokens, few.getTokens());
  // Each multiprocessor has the same number of tiles, or one less.
  Value manyTiles = ceilDivOf(b, tokens, many.getTokens());
  Value perBlock = mul(arith::CeilDivUIOp::create(b, manyTiles, processors),
                       index(many.getTokens()));
  perBlock = arith::MaxUIOp::create(b, perBlock, index(many.getTokens()));
  Value most = index(many.getTokens()); // tokens that one launch routes
  Value isFew;
  if (hasFew) {
    isFew = atMost(mul(fewTiles, index(few.cluster)), processors);
    perBlock = select(isFew, index(few.getTokens()), perBlock);
    most = select(isFew, index(few.getTokens()), most);
  }
  Value blocks = arith::CeilDivUIOp::create(b, tokens, perBlock);

  SmallVector<Value> inits;
  auto addInit = [&](ArrayRef<OpFoldResult> shape, Type element) {
    inits.push_back(tensor::EmptyOp::create(b, shape, element));
  };
  OpFoldResult count = tensor::getMixedSize(b, b.getLoc(), product.getLhs(), 0);
  for (Type type : gate->getResultTypes())
    addInit({count, b.getIndexAttr(gate.getTopK())},
            cast<RankedTensorType>(type).getElementType());
  SmallVector<Value> scalars{toI32(tokens), toI32(perBlock)};
  Value choices = mul(tokens, index(gate.getTopK()));
  if (route) {
    // The gate's ids are not there yet; their shape is.
    route.getIdsMutable().assign(inits[1]);
    ReifiedRankedShapedTypeDims shapes;
    (void)route.reifyResultShapes(b, shapes); // never fails for this operation
    for (const auto &shape : shapes)
      addInit(shape, i32);
    // As many as there may be blocks, whatever the device.
    addInit({getAsOpFoldResult(fewTiles),
             b.getIndexAttr(RouteEmitter::countBuckets(route))},
            i32);
    addInit({b.getIndexAttr(numArrivals)}, i32);
    scalars.push_back(
        toI32(getValueOrCreateConstantIndexOp(b, b.getLoc(), shapes[0][0])));
    if (Value capacity = capacityOf(b, route))
      scalars.push_back(capacity);
  }
  SmallVector<Value> inputs = RouterKernel::inputs(router);
  auto start = [&](RouterShape shape, Value blocks) {
    LLVM::LLVMFuncOp kernel = RouterKernel(router, shape, lowering).build();
    inits =
        launch(lowering, gate.getLoc(), kernel, blocks, inputs, inits, scalars);
  };
  if (hasFew) {
    start(few, select(isFew, mul(blocks, index(few.cluster)), index(0)));
    start(many, select(isFew, index(0), blocks));
  } else {
    start(many, blocks);
  }
  if (!route)
    return inits;
  // Without tokens there still are offsets to write.
  Value isPlaced = arith::AndIOp::create(
      b, atMost(tokens, most),
      arith::CmpIOp::create(b, arith::CmpIPredicate::ne, tokens, index(0)));
  Value placing =
      select(isPlaced, index(0), arith::MaxUIOp::create(b, blocks, index(1)));
  SmallVector<Value> placeScalars{toI32(choices), scalars[2],
                                  toI32(mul(perBlock, index(gate.getTopK())))};
  placeScalars.append(scalars.begin() + 3, scalars.end());
  SmallVector<Value> placed = launch(
      lowering, route.getLoc(), buildPlaceKernel(route, lowering), placing,
      {inits[1], inits[5]}, ArrayRef(inits).slice(2, 3), placeScalars);
  llvm::copy(placed, inits.begin() + 2);
  lowering.arrivals[inits[3]] = inits[6];
  inits.truncate(5);
  return inits;
}
