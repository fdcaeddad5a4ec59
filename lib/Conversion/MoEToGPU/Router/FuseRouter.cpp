//===- FuseRouter.cpp - Group the operations of a router ------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Limits.h"
#include "RouterKernel.h"

#include "mlir/IR/Remarks.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEFUSEROUTER
#include "moe/Conversion/Passes.h.inc"
} // namespace mlir::moe

/// Returns the route of the choices of a gate if the kernel of its router can
/// route them.
static RouteOp findRoute(GateOp gate) {
  for (Operation *user : gate.getIds().getUsers()) {
    auto route = dyn_cast<RouteOp>(user);
    std::string why;
    if (route && route.getIds() == gate.getIds() &&
        route->getBlock() == gate->getBlock() &&
        succeeded(Router::verify(route, why)))
      return route;
  }
  return nullptr;
}

/// Returns the router that a gate is part of if a kernel computes it; otherwise
/// a remark has the reason.
static std::optional<Router> findRouter(GateOp gate) {
  auto matmul = gate.getLogits().getDefiningOp<GroupedMatmulOp>();
  if (!matmul)
    return std::nullopt;
  std::string why;
  if (succeeded(Router::verify(matmul, gate, why)))
    return Router{matmul, gate, findRoute(gate)};
  remark::missed(matmul.getLoc(),
                 remark::RemarkOpts::name("RouterNotFused").category("moe-gpu"))
      << "the matmul of a router is not fused with its gate: " + why;
  return std::nullopt;
}

/// Returns the columns of the combine of what a route groups; 0 if there is no
/// single one.
static int64_t columnsOfCombine(RouteOp route) {
  int64_t columns = 0;
  for (Operation *user : route.getPositions().getUsers())
    if (auto sum = dyn_cast<GatherSumOp>(user)) {
      int64_t its = sum.getResult().getType().getDimSize(1);
      columns = columns == 0 && !ShapedType::isDynamic(its) ? its : -1;
    }
  return std::max<int64_t>(columns, 0);
}

/// Builds the counters for the combine of what a router groups. Whether it is
/// fused is decided later: to clear its counters costs nothing here, and a
/// launch elsewhere. Appends the operations to `ops`.
static Value createCounters(const Router &router, RewriterBase &rewriter,
                            SmallVectorImpl<Operation *> &ops) {
  Location loc = GateOp(router.gate).getLoc();
  Type i32 = rewriter.getI32Type();
  int64_t columns = columnsOfCombine(router.route);
  if (columns == 0) {
    auto type = RankedTensorType::get({numCounters}, i32);
    auto counters = arith::ConstantOp::create(rewriter, loc,
                                              DenseElementsAttr::get(type, 0));
    ops.push_back(counters);
    return counters;
  }
  HostBuilder b(loc, rewriter);
  Value tokens = b.extent(GroupedMatmulOp(router.matmul).getLhs(), 0);
  // A sum and no maximum: the size of a buffer has to have a bound in chunks of
  // tokens, too.
  Value count =
      b.add(b.mul(tokens, llvm::divideCeil(columns, uint64_t(counterColumns))),
            b.index(numCounters));
  auto zero = arith::ConstantIntOp::create(b, 0, 32);
  auto counters = tensor::SplatOp::create(
      b, RankedTensorType::get({ShapedType::kDynamic}, i32), zero, count);
  ops.append({zero, counters});
  return counters;
}

static void fuse(const Router &router, RewriterBase &rewriter) {
  GateOp gate = router.gate;
  rewriter.setInsertionPoint(gate);
  SmallVector<Operation *> ops = {router.matmul, gate};
  SmallVector<Value> values = gate.getResults();
  if (RouteOp route = router.route) {
    ops.push_back(route);
    llvm::append_range(values, route.getResults());
    values.push_back(createCounters(router, rewriter, ops));
  }
  FusedOp::wrap(rewriter, gate.getLoc(), ops, values);
}

namespace {
struct MoEFuseRouter : moe::impl::MoEFuseRouterBase<MoEFuseRouter> {
  using MoEFuseRouterBase::MoEFuseRouterBase;

  void runOnOperation() override {
    SmallVector<GateOp> gates;
    getOperation()->walk([&](GateOp gate) {
      // The host cannot launch kernels for the body of an expert.
      if (!gate->getParentOfType<ExpertOp>() &&
          !gate->getParentOfType<FusedOp>())
        gates.push_back(gate);
    });
    IRRewriter rewriter(&getContext());
    for (GateOp gate : gates)
      if (std::optional<Router> router = findRouter(gate)) {
        fuse(*router, rewriter);
        ++numFused;
      }
  }
};
} // namespace
