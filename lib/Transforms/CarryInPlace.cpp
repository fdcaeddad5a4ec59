//===- CarryInPlace.cpp - Bufferize loop-carried tensors in place ---------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Bufferization requires a loop to yield a tensor in the buffer of its
// iteration argument. Where the body computes the tensor elsewhere, this pass
// copies it there at the end of the iteration.
//
//===----------------------------------------------------------------------===//

#include "moe/Analysis/TokenExtents.h"
#include "moe/Transforms/Passes.h"

#include "mlir/Dialect/Bufferization/IR/Bufferization.h"
#include "mlir/Dialect/Bufferization/Transforms/OneShotAnalysis.h"
#include "mlir/Dialect/Bufferization/Transforms/OneShotModuleBufferize.h"
#include "mlir/Dialect/SCF/IR/SCF.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOECARRYINPLACE
#include "moe/Transforms/Passes.h.inc"
} // namespace mlir::moe

namespace {
/// The operands that a terminator passes on, from operand `first` on, and the
/// block arguments of the next region that receive them.
struct Carried {
  Operation *terminator;
  unsigned first;
  Block::BlockArgListType arguments;
  ValueRange inits;
};
} // namespace

/// Returns all pairs of yielded operands and block arguments of the loops.
static SmallVector<Carried> findCarried(Operation *root) {
  SmallVector<Carried> all;
  root->walk([&](Operation *op) {
    if (auto loop = dyn_cast<scf::ForOp>(op))
      all.push_back({loop.getBody()->getTerminator(), 0,
                     Block::BlockArgListType(loop.getRegionIterArgs()),
                     loop.getInits()});
    if (auto loop = dyn_cast<scf::WhileOp>(op)) {
      // The first operand of the terminator is the condition.
      all.push_back({loop.getConditionOp(), 1, loop.getBeforeArguments(),
                     loop.getInits()});
      all.push_back(
          {loop.getYieldOp(), 0, loop.getAfterArguments(), loop.getInits()});
    }
  });
  return all;
}

namespace {
struct MoECarryInPlace : moe::impl::MoECarryInPlaceBase<MoECarryInPlace> {
  using MoECarryInPlaceBase::MoECarryInPlaceBase;

  void runOnOperation() override {
    SmallVector<Carried> all = findCarried(getOperation());
    if (all.empty())
      return;
    for (const Carried &carried : all)
      if (failed(verifyPositions(carried)))
        return signalPassFailure();
    bufferization::OneShotBufferizationOptions options;
    options.bufferizeFunctionBoundaries = true;
    options.setFunctionBoundaryTypeConversion(
        bufferization::LayoutMapOption::IdentityLayoutMap);
    // The analysis must not fail on tensors that are not in place yet.
    options.allowReturnAllocsFromLoops = true;
    bufferization::OneShotAnalysisState state(getOperation(), options);
    if (failed(bufferization::analyzeModuleOp(getOperation(), state)))
      return signalPassFailure();
    SmallVector<std::pair<Carried *, SmallVector<unsigned>>> elsewhere;
    for (Carried &carried : all)
      if (SmallVector<unsigned> found = findElsewhere(carried, state);
          !found.empty())
        elsewhere.push_back({&carried, found});
    // `state` describes the unmodified IR, so the analysis ends before the
    // first change.
    for (auto &[carried, indices] : elsewhere)
      if (failed(copy(*carried, indices, state)))
        return signalPassFailure();
  }

  /// Returns the indices of tensors that are not yielded in the buffer of their
  /// argument.
  SmallVector<unsigned> findElsewhere(const Carried &carried,
                                      bufferization::AnalysisState &state) {
    SmallVector<unsigned> found;
    for (auto [index, value] : llvm::enumerate(
             carried.terminator->getOperands().drop_front(carried.first)))
      if (isa<RankedTensorType>(value.getType()) &&
          !state.areEquivalentBufferizedValues(value, carried.arguments[index]))
        found.push_back(index);
    return found;
  }

  /// Fails if a loop yields tensors at other positions than it takes them.
  LogicalResult verifyPositions(const Carried &carried) {
    for (auto [index, value] : llvm::enumerate(
             carried.terminator->getOperands().drop_front(carried.first)))
      if (isa<TensorType>(value.getType()) &&
          (index >= carried.inits.size() ||
           carried.inits[index].getType() != value.getType() ||
           carried.arguments[index].getType() != value.getType()))
        return carried.terminator->emitOpError("expected operand #")
               << index + carried.first << ", a tensor, to be of the type that "
               << "the loop takes in its place";
    return success();
  }

  LogicalResult copy(const Carried &carried, ArrayRef<unsigned> indices,
                     bufferization::OneShotAnalysisState &state) {
    OpBuilder b(carried.terminator);
    Location loc = carried.terminator->getLoc();
    SmallVector<Value> values;
    for (unsigned index : indices) {
      OpOperand &operand =
          carried.terminator->getOpOperand(carried.first + index);
      BlockArgument argument = carried.arguments[index];
      if (!haveSameExtents(operand.get(), argument) ||
          !haveSameExtents(operand.get(), carried.inits[index]))
        return emitError(operand.get().getLoc(),
                         "expected a tensor that a loop passes from one "
                         "iteration to the next to keep its extents; those of ")
                   .append(operand.get().getType(), " may change")
                   .attachNote(carried.terminator->getParentOp()->getLoc())
               << "the loop is here";
      // A value in the buffer of another argument must be copied before that
      // buffer is overwritten.
      bool isCarried = llvm::any_of(carried.arguments, [&](Value other) {
        return isa<TensorType>(other.getType()) &&
               state.areAliasingBufferizedValues(operand.get(), other);
      });
      values.push_back(operand.get());
      if (isCarried && indices.size() > 1)
        values.back() = bufferization::AllocTensorOp::create(
            b, loc, cast<RankedTensorType>(operand.get().getType()),
            ValueRange(), operand.get());
    }
    for (auto [index, value] : llvm::zip(indices, values)) {
      auto written = bufferization::MaterializeInDestinationOp::create(
          b, loc, value.getType(), value, carried.arguments[index]);
      carried.terminator->setOperand(carried.first + index,
                                     written.getResult());
      ++numCopied;
    }
    return success();
  }
};
} // namespace
