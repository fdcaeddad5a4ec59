//===- BufferLifetimes.cpp - When a buffer is in use ----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Analysis/BufferLifetimes.h"

#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Interfaces/ControlFlowInterfaces.h"
#include "mlir/Interfaces/LoopLikeInterface.h"
#include "mlir/Interfaces/ViewLikeInterface.h"

using namespace mlir;
using namespace mlir::moe;

BufferLifetimes::BufferLifetimes(FunctionOpInterface function)
    : function(function), aliases(function) {
  unsigned next = 0;
  function->walk([&](Operation *op, const WalkStage &stage) {
    if (stage.isBeforeAllRegions())
      points[op].begin = next++;
    if (stage.isAfterAllRegions())
      points[op].end = next++;
  });
}

/// True if the regions of an operation each run at most once, one after
/// another.
static bool runsOnce(Operation *op) {
  return isa<scf::IfOp, scf::IndexSwitchOp, scf::ExecuteRegionOp,
             memref::AllocaScopeOp>(op) &&
         llvm::all_of(op->getRegions(), [](Region &region) {
           return region.empty() || region.hasOneBlock();
         });
}

/// Returns the lifetime of `use`, or of the outermost operation around it that
/// may run it again and does not make the buffer.
Lifetime BufferLifetimes::spanOf(Operation *use, memref::AllocOp alloc) const {
  Operation *outermost = use;
  for (Operation *op = use->getParentOp(); !op->isAncestor(alloc);
       op = op->getParentOp())
    if (!runsOnce(op))
      outermost = op;
  return points.lookup(outermost);
}

/// True if a use only makes a view, asks for an extent, or frees the memory.
static bool touchesNoMemory(OpOperand &use) {
  if (auto view = dyn_cast<ViewLikeOpInterface>(use.getOwner()))
    return use.get() == view.getViewSource();
  return isa<memref::DimOp, memref::DeallocOp>(use.getOwner());
}

/// True if memory may be accessed later through no known alias.
static bool escapes(OpOperand &use) {
  Operation *op = use.getOwner();
  if (isa<memref::ExtractAlignedPointerAsIndexOp, UnrealizedConversionCastOp>(
          op))
    return true;
  auto store = dyn_cast<memref::StoreOp>(op);
  return store && use.get() == store.getValueToStore();
}

Lifetime BufferLifetimes::of(memref::AllocOp alloc) const {
  // A buffer that nothing uses lives where it is made.
  Lifetime life = points.lookup(alloc);
  bool used = false;
  for (Value alias : aliases.resolve(alloc))
    for (OpOperand &use : alias.getUses()) {
      if (escapes(use))
        return points.lookup(function);
      if (touchesNoMemory(use))
        continue;
      Lifetime span = spanOf(use.getOwner(), alloc);
      life.begin = used ? std::min(life.begin, span.begin) : span.begin;
      life.end = used ? std::max(life.end, span.end) : span.end;
      used = true;
    }
  return life;
}

static InFlightDiagnostic notStructured(memref::AllocOp alloc) {
  return alloc.emitError(
      "expected a buffer made under structured control flow, got one in ");
}

LogicalResult BufferLifetimes::verify(memref::AllocOp alloc) const {
  for (Operation *op = alloc; op != function; op = op->getParentOp()) {
    // Branches between blocks may form a loop, too.
    Region *region = op->getParentRegion();
    if (!region->hasOneBlock())
      return notStructured(alloc)
             << "a region of " << region->getBlocks().size() << " blocks";
    Operation *parent = op->getParentOp();
    if (parent == function)
      break;
    if (parent->hasTrait<OpTrait::HasParallelRegion>()) {
      InFlightDiagnostic diag = alloc.emitError(
          "expected no buffer made in a parallel loop: its iterations would "
          "share its memory; make it outside, with room for each of them");
      diag.attachNote(parent->getLoc()) << "the loop is here";
      return diag;
    }
    if (!isa<LoopLikeOpInterface, RegionBranchOpInterface>(parent))
      return notStructured(alloc) << "'" << parent->getName() << "'";
  }

  // The next iteration allocates its own at the same offset.
  auto loop = alloc->getParentOfType<LoopLikeOpInterface>();
  if (!loop)
    return success();
  for (Value alias : aliases.resolve(alloc)) {
    Region *region = alias.getParentRegion();
    auto argument = dyn_cast<BlockArgument>(alias);
    bool carried = argument && argument.getOwner()->getParentOp() == loop;
    if (carried || !loop->isAncestor(region->getParentOp())) {
      InFlightDiagnostic diag =
          alloc.emitError("expected a buffer made in a loop to end with the "
                          "iteration; this one outlives it");
      diag.attachNote(loop->getLoc()) << "the loop is here";
      return diag;
    }
  }
  return success();
}
