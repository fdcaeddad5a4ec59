//===- CarryInPlace.cpp - What a loop carries in one buffer ---------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Bufferization wants the tensor that an iteration passes to the next in the
// buffer that it was passed in. Where an iteration computes it elsewhere, a
// copy at its end brings it there.
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
/// The values that a region yields, the operands of its terminator from `first`
/// on, and where the next region finds it.
struct Carried {
  Operation *terminator;
  unsigned first;
  Block::BlockArgListType arguments;
  ValueRange inits;
};
} // namespace

/// The places that loops carry tensors through.
static SmallVector<Carried> findCarried(Operation *root) {
  SmallVector<Carried> all;
  root->walk([&](Operation *op) {
    if (auto loop = dyn_cast<scf::ForOp>(op))
      all.push_back({loop.getBody()->getTerminator(), 0,
                     Block::BlockArgListType(loop.getRegionIterArgs()),
                     loop.getInits()});
    if (auto loop = dyn_cast<scf::WhileOp>(op)) {
      // The condition comes first among the operands of the first terminator.
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
      if (failed(verifyPlaces(carried)))
        return signalPassFailure();
    bufferization::OneShotBufferizationOptions options;
    options.bufferizeFunctionBoundaries = true;
    options.setFunctionBoundaryTypeConversion(
        bufferization::LayoutMapOption::IdentityLayoutMap);
    // What is not in place yet is no error here.
    options.allowReturnAllocsFromLoops = true;
    bufferization::OneShotAnalysisState state(getOperation(), options);
    if (failed(bufferization::analyzeModuleOp(getOperation(), state)))
      return signalPassFailure();
    SmallVector<std::pair<Carried *, SmallVector<unsigned>>> elsewhere;
    for (Carried &carried : all)
      if (SmallVector<unsigned> found = findElsewhere(carried, state);
          !found.empty())
        elsewhere.push_back({&carried, found});
    // The state knows the program as it was: all is found before it changes.
    for (auto &[carried, numbers] : elsewhere)
      if (failed(copy(*carried, numbers, state)))
        return signalPassFailure();
  }

  /// The numbers of what is not passed on in the buffer it came in.
  SmallVector<unsigned> findElsewhere(const Carried &carried,
                                      bufferization::AnalysisState &state) {
    SmallVector<unsigned> found;
    for (auto [number, value] : llvm::enumerate(
             carried.terminator->getOperands().drop_front(carried.first)))
      if (isa<RankedTensorType>(value.getType()) &&
          !state.areEquivalentBufferizedValues(value,
                                               carried.arguments[number]))
        found.push_back(number);
    return found;
  }

  /// Fail where a loop passes tensors on in other places than it takes them in.
  LogicalResult verifyPlaces(const Carried &carried) {
    for (auto [number, value] : llvm::enumerate(
             carried.terminator->getOperands().drop_front(carried.first)))
      if (isa<TensorType>(value.getType()) &&
          (number >= carried.inits.size() ||
           carried.inits[number].getType() != value.getType() ||
           carried.arguments[number].getType() != value.getType()))
        return carried.terminator->emitOpError("expected operand #")
               << number + carried.first
               << ", a tensor, to be of the type that "
               << "the loop takes in its place";
    return success();
  }

  LogicalResult copy(const Carried &carried, ArrayRef<unsigned> numbers,
                     bufferization::OneShotAnalysisState &state) {
    OpBuilder b(carried.terminator);
    Location loc = carried.terminator->getLoc();
    SmallVector<Value> values;
    for (unsigned number : numbers) {
      OpOperand &operand =
          carried.terminator->getOpOperand(carried.first + number);
      BlockArgument argument = carried.arguments[number];
      if (!haveSameExtents(operand.get(), argument) ||
          !haveSameExtents(operand.get(), carried.inits[number]))
        return emitError(operand.get().getLoc(),
                         "expected a tensor that a loop passes from one "
                         "iteration to the next to keep its extents; those of ")
                   .append(operand.get().getType(), " may change")
                   .attachNote(carried.terminator->getParentOp()->getLoc())
               << "the loop is here";
      // One that another place is overwritten with must be read before.
      bool isCarried = llvm::any_of(carried.arguments, [&](Value other) {
        return isa<TensorType>(other.getType()) &&
               state.areAliasingBufferizedValues(operand.get(), other);
      });
      values.push_back(operand.get());
      if (isCarried && numbers.size() > 1)
        values.back() = bufferization::AllocTensorOp::create(
            b, loc, cast<RankedTensorType>(operand.get().getType()),
            ValueRange(), operand.get());
    }
    for (auto [number, value] : llvm::zip(numbers, values)) {
      auto place = bufferization::MaterializeInDestinationOp::create(
          b, loc, value.getType(), value, carried.arguments[number]);
      carried.terminator->setOperand(carried.first + number, place.getResult());
      ++numCopied;
    }
    return success();
  }
};
} // namespace
