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
#include "mlir/Interfaces/ValueBoundsOpInterface.h"
#include "mlir/Interfaces/ViewLikeInterface.h"
#include "llvm/ADT/DenseSet.h"

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

/// Makes `destination` dominate `op`, if need be by moving the view that it is.
static bool makeAvailable(Value destination, Operation *op) {
  DominanceInfo dominance;
  if (dominance.properlyDominates(destination, op))
    return true;
  Operation *view = destination.getDefiningOp();
  if (!isa_and_nonnull<memref::SubViewOp, memref::CollapseShapeOp>(view) ||
      !llvm::all_of(view->getOperands(), [&](Value operand) {
        return dominance.properlyDominates(operand, op);
      }))
    return false;
  view->moveBefore(op);
  return true;
}

/// True if nothing reads the memory of a destination, by way of other views
/// either: what is placed there is written earlier.
static bool isOnlyWritten(Value destination) {
  while (auto view = destination.getDefiningOp<ViewLikeOpInterface>())
    destination = view.getViewSource();
  SmallVector<Value> views{destination};
  while (!views.empty())
    for (Operation *user : views.pop_back_val().getUsers()) {
      if (isa<ViewLikeOpInterface>(user))
        llvm::append_range(views, user->getResults());
      else if (!isa<memref::DimOp, MaterializeInDestinationOp>(user))
        return false;
    }
  return true;
}

/// Returns the insertions that write a whole tensor part by part, the last one
/// first; none if something else is in it or reads it, or if parts overlap.
static SmallVector<tensor::InsertSliceOp> findParts(Value value) {
  SmallVector<tensor::InsertSliceOp> parts;
  auto type = dyn_cast<RankedTensorType>(value.getType());
  int64_t elements = 0;
  while (auto part = value.getDefiningOp<tensor::InsertSliceOp>()) {
    if (!value.hasOneUse() || !part.getSourceType().hasStaticShape())
      return {};
    for (tensor::InsertSliceOp other : parts) {
      FailureOr<bool> overlap = ValueBoundsConstraintSet::areOverlappingSlices(
          part.getContext(), HyperrectangularSlice(part),
          HyperrectangularSlice(other));
      if (failed(overlap) || *overlap)
        return {};
    }
    elements += part.getSourceType().getNumElements();
    parts.push_back(part);
    value = part.getDest();
  }
  if (parts.empty() || !type.hasStaticShape() ||
      elements != type.getNumElements())
    return {};
  return parts;
}

/// Stores a tensor that is inserted part by part as its parts, each into its
/// part of the destination.
static void splitIntoParts(MaterializeInDestinationOp op) {
  SmallVector<tensor::InsertSliceOp> parts = findParts(op.getSource());
  auto memref = dyn_cast<MemRefType>(op.getDest().getType());
  if (parts.empty() || !memref)
    return;
  OpBuilder b(op);
  for (tensor::InsertSliceOp part : llvm::reverse(parts)) {
    auto type = memref::SubViewOp::inferRankReducedResultType(
        part.getSourceType().getShape(), memref, part.getMixedOffsets(),
        part.getMixedSizes(), part.getMixedStrides());
    Value view = memref::SubViewOp::create(
        b, op.getLoc(), type, op.getDest(), part.getMixedOffsets(),
        part.getMixedSizes(), part.getMixedStrides());
    MaterializeInDestinationOp::create(b, op.getLoc(), /*result=*/Type(),
                                       part.getSource(), view, op.getRestrict(),
                                       op.getWritable());
  }
  op.erase();
  for (tensor::InsertSliceOp part : parts)
    part.erase();
}

/// Stores a tensor that is an expanded one as that, into the destination
/// collapsed likewise.
static void collapseDestination(MaterializeInDestinationOp op) {
  auto expand = op.getSource().getDefiningOp<tensor::ExpandShapeOp>();
  auto memref = dyn_cast<MemRefType>(op.getDest().getType());
  if (!expand || !memref || !expand->hasOneUse())
    return;
  SmallVector<ReassociationIndices> groups = expand.getReassociationIndices();
  if (!memref::CollapseShapeOp::isGuaranteedCollapsible(memref, groups))
    return;
  OpBuilder b(op);
  Value collapsed =
      memref::CollapseShapeOp::create(b, op.getLoc(), op.getDest(), groups);
  MaterializeInDestinationOp::create(b, op.getLoc(), /*result=*/Type(),
                                     expand.getSrc(), collapsed,
                                     op.getRestrict(), op.getWritable());
  op.erase();
  expand.erase();
}

namespace {
struct MoEPlaceResults : moe::impl::MoEPlaceResultsBase<MoEPlaceResults> {
  using MoEPlaceResultsBase::MoEPlaceResultsBase;

  void runOnOperation() override {
    getOperation()->walk([](MaterializeInDestinationOp op) {
      if (!op.getResult() && op.getRestrict() && op.getWritable())
        splitIntoParts(op);
    });
    getOperation()->walk([](MaterializeInDestinationOp op) {
      if (!op.getResult() && op.getRestrict() && op.getWritable())
        collapseDestination(op);
    });
    // What is placed is read in the memory itself, as one of several parts.
    llvm::DenseSet<Operation *> placeable;
    getOperation()->walk([&](MaterializeInDestinationOp op) {
      if (isOnlyWritten(op.getDest()))
        placeable.insert(op);
    });
    getOperation()->walk([&](MaterializeInDestinationOp op) {
      Value destination = op.getDest();
      // A reader after `op` may overwrite the result, and a nested operation
      // may not run.
      bool last = llvm::all_of(op.getSource().getUsers(), [&](Operation *user) {
        Operation *other = op->getBlock()->findAncestorOpInBlock(*user);
        return other && (other == op || other->isBeforeInBlock(op) ||
                         isa<MaterializeInDestinationOp>(other));
      });
      if (!last || !placeable.contains(op) ||
          op.getSource().getParentBlock() != op->getBlock() ||
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
