//===- RouterToGPU.cpp - Fused routers ------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Few tokens take one launch, more take two: the router kernel, then the kernel
// that scatters the choices. All kernels are launched; those that do not suit
// the number of tokens get an empty grid.
//
//===----------------------------------------------------------------------===//

#include "RouterKernel.h"

#include "mlir/IR/Remarks.h"

using namespace mlir;
using namespace mlir::moe;

/// The portable maximum.
static constexpr int64_t maxClusterSize = 8;

static RouteOp findRoute(GateOp gate) {
  for (Operation *user : gate.getIds().getUsers()) {
    auto route = dyn_cast<RouteOp>(user);
    std::string why;
    if (route && route.getIds() == gate.getIds() &&
        route->getBlock() == gate->getBlock() &&
        !RouteEmitter::dropsInAdvance(route) &&
        succeeded(RouteEmitter::verify(route, why)))
      return route;
  }
  return nullptr;
}

static void remarkApart(GroupedMatmulOp matmul, const Twine &why) {
  remark::missed(matmul.getLoc(),
                 remark::RemarkOpts::name("RouterApart").category("moe-gpu"))
      << "the matmul of a router is not fused with its gate: " + why.str();
}

std::optional<Router> mlir::moe::findRouter(GateOp gate) {
  auto matmul = gate.getLogits().getDefiningOp<GroupedMatmulOp>();
  if (!matmul)
    return std::nullopt;
  std::string why;
  if (failed(Router::verify(matmul, gate, why))) {
    remarkApart(matmul, why);
    return std::nullopt;
  }
  return Router{matmul, gate, findRoute(gate)};
}

SmallVector<Value> mlir::moe::lowerToGPU(Router router,
                                         DeviceLowering &lowering) {
  auto [matmul, gate, route] = router;
  int64_t experts = matmul.getN();
  int64_t share = llvm::PowerOf2Ceil(llvm::divideCeil(experts, 8));
  RouterShape few{std::min(maxClusterSize, share), 1}, many{1, 2};
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
  Value tokens = extentOf(b, matmul.getLhs(), 0);
  Value multiprocessors = MultiprocessorsOp::create(b);
  Value fewTiles = ceilDivOf(b, tokens, few.getTokens());
  // Each multiprocessor has the same number of tiles, or one less.
  Value manyTiles = ceilDivOf(b, tokens, many.getTokens());
  Value tokensPerBlock =
      mul(arith::CeilDivUIOp::create(b, manyTiles, multiprocessors),
          index(many.getTokens()));
  tokensPerBlock =
      arith::MaxUIOp::create(b, tokensPerBlock, index(many.getTokens()));
  Value most = index(many.getTokens()); // tokens that one launch routes
  Value isFew;
  if (hasFew) {
    isFew = atMost(mul(fewTiles, index(few.cluster)), multiprocessors);
    tokensPerBlock = select(isFew, index(few.getTokens()), tokensPerBlock);
    most = select(isFew, index(few.getTokens()), most);
  }
  Value blocks = arith::CeilDivUIOp::create(b, tokens, tokensPerBlock);

  SmallVector<Value> inits;
  auto addInit = [&](ArrayRef<OpFoldResult> shape, Type element) {
    inits.push_back(tensor::EmptyOp::create(b, shape, element));
  };
  OpFoldResult count = tensor::getMixedSize(b, b.getLoc(), matmul.getLhs(), 0);
  for (Type type : gate->getResultTypes())
    addInit({count, b.getIndexAttr(gate.getTopK())},
            cast<RankedTensorType>(type).getElementType());
  SmallVector<Value> scalars{toI32(tokens), toI32(tokensPerBlock)};
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
  SmallVector<Value> placeScalars{
      toI32(choices), scalars[2],
      toI32(mul(tokensPerBlock, index(gate.getTopK())))};
  placeScalars.append(scalars.begin() + 3, scalars.end());
  SmallVector<Value> placed = launch(
      lowering, route.getLoc(), buildScatterKernel(route, lowering), placing,
      {inits[1], inits[5]}, ArrayRef(inits).slice(2, 3), placeScalars);
  llvm::copy(placed, inits.begin() + 2);
  lowering.arrivals[inits[3]] = inits[6];
  inits.truncate(5);
  return inits;
}
