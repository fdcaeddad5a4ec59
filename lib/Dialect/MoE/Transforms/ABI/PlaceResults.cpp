//===- PlaceResults.cpp - Compute results in their destination ------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/Transforms/ABI/Passes.h"

#include "mlir/Dialect/Bufferization/IR/Bufferization.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/Dominance.h"
#include "mlir/Interfaces/DestinationStyleOpInterface.h"

using namespace mlir;
using bufferization::MaterializeInDestinationOp;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEPLACERESULTS
#include "moe/Dialect/MoE/Transforms/ABI/Passes.h.inc"
} // namespace mlir::moe

/// Follows the destinations of the operations that compute `value` and returns
/// the operand that is a tensor.empty; null if there is none.
static OpOperand *findEmpty(Value value) {
  OpOperand *init = nullptr;
  for (;;) {
    auto op = value.getDefiningOp<DestinationStyleOpInterface>();
    // Other readers must not see the destination overwritten.
    if (!op || (init && !value.hasOneUse()))
      break;
    init = op.getTiedOpOperand(cast<OpResult>(value));
    value = init->get();
  }
  return init && value.getDefiningOp<tensor::EmptyOp>() ? init : nullptr;
}

/// Makes `destination` dominate `op`, if need be by moving its subview.
static bool makeAvailable(Value destination, Operation *op) {
  DominanceInfo dominance;
  if (dominance.properlyDominates(destination, op))
    return true;
  auto view = destination.getDefiningOp<memref::SubViewOp>();
  if (!view || !llvm::all_of(view->getOperands(), [&](Value operand) {
        return dominance.properlyDominates(operand, op);
      }))
    return false;
  view->moveBefore(op);
  return true;
}

namespace {
struct MoEPlaceResults : moe::impl::MoEPlaceResultsBase<MoEPlaceResults> {
  using MoEPlaceResultsBase::MoEPlaceResultsBase;

  void runOnOperation() override {
    getOperation()->walk([&](MaterializeInDestinationOp op) {
      Value destination = op.getDest();
      // A reader after `op` may overwrite the result, and a nested operation
      // may not run.
      bool last = llvm::all_of(op.getSource().getUsers(), [&](Operation *user) {
        Operation *other = op->getBlock()->findAncestorOpInBlock(*user);
        return other && (other == op || other->isBeforeInBlock(op) ||
                         isa<MaterializeInDestinationOp>(other));
      });
      if (!last || op.getSource().getParentBlock() != op->getBlock() ||
          !isa<MemRefType>(destination.getType()) || !op.getRestrict() ||
          !op.getWritable() || !destination.hasOneUse())
        return;
      OpOperand *init = findEmpty(op.getSource());
      Type type = memref::getTensorTypeFromMemRefType(destination.getType());
      if (!init || init->get().getType() != type ||
          !makeAvailable(destination, init->getOwner()))
        return;
      OpBuilder b(init->getOwner());
      init->set(bufferization::ToTensorOp::create(b, op.getLoc(), type,
                                                  destination,
                                                  /*restrict=*/true,
                                                  /*writable=*/true));
      ++numPlaced;
    });
  }
};
} // namespace
