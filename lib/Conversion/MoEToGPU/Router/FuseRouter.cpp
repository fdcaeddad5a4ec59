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

static void fuse(const Router &router, RewriterBase &rewriter) {
  GateOp gate = router.gate;
  rewriter.setInsertionPoint(gate);
  SmallVector<Operation *> ops = {router.matmul, gate};
  SmallVector<Value> values = gate.getResults();
  if (RouteOp route = router.route) {
    // Whether a combine is fused is decided later. To clear its counters costs
    // nothing here, and a launch elsewhere.
    auto type = RankedTensorType::get({numCounters}, rewriter.getI32Type());
    auto counters = arith::ConstantOp::create(rewriter, gate.getLoc(),
                                              DenseElementsAttr::get(type, 0));
    ops.append({route, counters});
    llvm::append_range(values, route.getResults());
    values.push_back(counters);
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
