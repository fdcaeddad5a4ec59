//===- Parallelize.cpp - Spread experts over ranks ------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ExpertParameters.h"
#include "moe/Analysis/TokenIndependence.h"
#include "moe/Dialect/MoE/IR/MoEABI.h"
#include "moe/Dialect/MoE/Transforms/Parallel/ExchangeUtils.h"
#include "moe/Dialect/MoE/Transforms/Parallel/Passes.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEPARALLELIZE
#include "moe/Dialect/MoE/Transforms/Parallel/Passes.h.inc"
} // namespace mlir::moe

/// Fails if the tokens of a layer depend on one another by anything but what a
/// dispatch or a gate decides for all tokens.
static LogicalResult verifyTokens(func::FuncOp function) {
  OwningOpRef<func::FuncOp> copy = function.clone();
  copy->walk([](Operation *op) {
    if (auto gate = dyn_cast<GateOp>(op)) {
      gate.setSelection(Selection::TokenChoice);
      gate.setScoreAxis(ScoreAxis::Experts);
      gate.removeCapacityAttr();
    } else if (auto dispatch = dyn_cast<DispatchOp>(op)) {
      dispatch.removeCapacityAttr();
    }
  });
  std::optional<TokenDependence> found = findTokenDependence(*copy, {});
  if (!found)
    return success();
  InFlightDiagnostic diag = function.emitError(
      "expected tokens that depend on one another by capacities and gates "
      "alone, to spread the experts over ranks");
  diag.attachNote(found->op->getLoc()) << found->reason;
  return diag;
}

namespace {
/// Spreads the experts of one function over ranks.
class Parallelizer {
public:
  Parallelizer(func::FuncOp function, ParallelAttr parallel)
      : function(function), parallel(parallel),
        b(function.getLoc(), function.getContext()) {}

  FailureOr<unsigned> run();

private:
  LogicalResult addPlacement(MutableArrayRef<DispatchOp> dispatches);
  void gatherGate(GateOp gate);
  LogicalResult spread(DispatchOp dispatch);
  LogicalResult verifyUses(DispatchOp dispatch);
  Value keepFirstChoices(DispatchOp dispatch);
  LogicalResult bringHome(CombineOp combine, DispatchOp local, Value received,
                          PartitionOp partition);

  func::FuncOp function;
  ParallelAttr parallel;
  ImplicitLocOpBuilder b;
  Value placement;
  int64_t experts = 0;
};
} // namespace

FailureOr<unsigned> Parallelizer::run() {
  SmallVector<DispatchOp> dispatches;
  SmallVector<GateOp> gates;
  WalkResult result = function.walk([&](Operation *op) {
    if (!isa<DispatchOp, GateOp>(op))
      return WalkResult::advance();
    if (op->getParentOp() != function || !function.getBody().hasOneBlock()) {
      op->emitOpError("expected an operation in the only block of a function, "
                      "to spread the experts over ranks");
      return WalkResult::interrupt();
    }
    if (auto dispatch = dyn_cast<DispatchOp>(op))
      dispatches.push_back(dispatch);
    else
      gates.push_back(cast<GateOp>(op));
    return WalkResult::advance();
  });
  if (result.wasInterrupted())
    return failure();
  if (dispatches.empty())
    return function.emitError("expected a moe.dispatch in a function with ")
           << parallelAttrName;
  if (failed(addPlacement(dispatches)) || failed(verifyTokens(function)))
    return failure();
  for (GateOp gate : gates)
    if (!gate.getTokenDependence().empty())
      gatherGate(gate);
  ExpertParameters parameters(function, experts, parallel.getSlots());
  for (DispatchOp dispatch : dispatches) {
    for (Operation *user : dispatch.getOffsets().getUsers())
      if (auto expert = dyn_cast<ExpertOp>(user))
        if (failed(parameters.take(expert)))
          return failure();
    if (failed(spread(dispatch)))
      return failure();
  }
  if (failed(parameters.finish()))
    return failure();
  return dispatches.size();
}

LogicalResult
Parallelizer::addPlacement(MutableArrayRef<DispatchOp> dispatches) {
  experts = dispatches.front().getNumExperts();
  for (DispatchOp dispatch : dispatches) {
    if (int64_t(dispatch.getNumExperts()) != experts)
      return dispatch.emitOpError("expected ")
             << experts << " experts, as the dispatch before it has, got "
             << dispatch.getNumExperts();
    if (!dispatch.getIds().getType().isDynamicDim(0) ||
        !dispatch.getRows().getType().isDynamicDim(0))
      return dispatch.emitOpError("expected a dynamic number of tokens, to "
                                  "spread the experts over ranks, got ")
             << dispatch.getRows().getType();
    if (failed(verifyUses(dispatch)))
      return failure();
  }
  unsigned index = function.getNumArguments();
  auto type =
      RankedTensorType::get({experts, parallel.getReplicas()}, b.getI32Type());
  auto attributes = b.getDictionaryAttr(
      {b.getNamedAttr("moe.name", b.getStringAttr("placement")),
       b.getNamedAttr("moe.role", b.getStringAttr("placement"))});
  if (failed(
          function.insertArgument(index, type, attributes, function.getLoc())))
    return failure();
  placement = function.getArgument(index);
  return success();
}

/// Offsets and positions belong to experts that are elsewhere: only operations
/// that move along can use them.
LogicalResult Parallelizer::verifyUses(DispatchOp dispatch) {
  for (OpOperand &use : dispatch.getOffsets().getUses())
    if (!isa<ExpertOp>(use.getOwner()))
      return use.getOwner()->emitOpError(
          "uses the offsets of a moe.dispatch whose experts are spread over "
          "ranks");
  for (OpOperand &use : dispatch.getPositions().getUses()) {
    auto combine = dyn_cast<CombineOp>(use.getOwner());
    if (!combine || use.get() != combine.getPositions())
      return use.getOwner()->emitOpError(
          "uses the positions of a moe.dispatch whose experts are spread over "
          "ranks");
  }
  return success();
}

/// A gate that depends on all tokens runs on those of all ranks.
void Parallelizer::gatherGate(GateOp gate) {
  b.setLoc(gate.getLoc());
  b.setInsertionPoint(gate);
  auto gather = [&](MutableOperandRange operand) {
    for (OpOperand &each : operand)
      each.set(AllGatherOp::create(b, each.get().getType(), each.get()));
  };
  gather(gate.getNoiseMutable());
  gather(gate.getGivenIdsMutable());
  gate.getLogitsMutable().set(
      AllGatherOp::create(b, gate.getLogits().getType(), gate.getLogits()));
  b.setInsertionPointAfter(gate);
  for (OpResult each : gate->getResults()) {
    auto own = OwnRowsOp::create(b, each.getType(), each);
    each.replaceAllUsesExcept(own, own);
  }
}

/// Returns the ids of the choices that a dispatch without a capacity keeps.
Value Parallelizer::keepFirstChoices(DispatchOp dispatch) {
  int64_t kept = dispatch.getMaxChoices();
  Value ids = dispatch.getIds();
  if (kept == dispatch.getTopK())
    return ids;
  auto type = cast<RankedTensorType>(ids.getType());
  Value init = tensor::EmptyOp::create(
      b, tensor::getMixedSizes(b, b.getLoc(), ids), type.getElementType());
  AffineMap map = b.getMultiDimIdentityMap(2);
  SmallVector<utils::IteratorType> iterators(2, utils::IteratorType::parallel);
  return linalg::GenericOp::create(
             b, type, ids, init, ArrayRef{map, map}, iterators,
             [&](OpBuilder &nested, Location loc, ValueRange elements) {
               Value k = linalg::IndexOp::create(nested, loc, 1);
               Value limit = arith::ConstantIndexOp::create(nested, loc, kept);
               Value first = arith::CmpIOp::create(
                   nested, loc, arith::CmpIPredicate::ult, k, limit);
               Value none = arith::ConstantOp::create(
                   nested, loc, nested.getI32IntegerAttr(-1));
               Value id = arith::SelectOp::create(nested, loc, first,
                                                  elements[0], none);
               linalg::YieldOp::create(nested, loc, id);
             })
      .getResult(0);
}

LogicalResult Parallelizer::spread(DispatchOp dispatch) {
  b.setLoc(dispatch.getLoc());
  b.setInsertionPoint(dispatch);
  Value ids = dispatch.getIds(), weights = dispatch.getWeights();
  int64_t choices = dispatch.getTopK();
  // What is dropped is decided for the tokens of all ranks.
  if (CapacityAttr capacity = dispatch.getCapacityAttr()) {
    auto gather = [&](Value value) -> Value {
      return AllGatherOp::create(b, value.getType(), value);
    };
    Value all = gather(ids);
    bool weighs = dispatch.getPriority() == Priority::Probability;
    Value kept = KeepOp::create(b, all, weighs ? gather(weights) : Value(),
                                dispatch.getNumExperts(), capacity,
                                dispatch.getPriority(), dispatch.getOverflow(),
                                dispatch.getChoicesAttr());
    ids = OwnRowsOp::create(b, kept.getType(), kept);
  } else {
    ids = keepFirstChoices(dispatch);
  }

  // Each token goes once to every rank with one of its experts.
  Value slots = PlaceOp::create(b, ids, placement);
  auto partition = PartitionOp::create(b, slots, parallel.getSlots(), experts);
  RankedTensorType rowsType = dispatch.getRows().getType();
  auto received = [&](Type element) {
    return RankedTensorType::get({ShapedType::kDynamic, choices}, element);
  };
  SmallVector<Value> sources{dispatch.getRows(), partition.getLocal()};
  SmallVector<Type> types{rowsType, received(b.getI32Type())};
  if (dispatch.getScaleRows()) {
    sources.push_back(listByTokens(b, weights, partition.getTokens()));
    types.push_back(received(getElementTypeOrSelf(weights)));
  }
  auto exchange =
      ExchangeOp::create(b, types, partition.getSend().getType(), sources,
                         partition.getTokens(), partition.getSend(), Value());
  auto local = DispatchOp::create(
      b, exchange.getRows()[0],
      cast<TypedValue<RankedTensorType>>(exchange.getRows()[1]),
      dispatch.getScaleRows() ? Value(exchange.getRows()[2]) : Value(),
      parallel.getSlots(), CapacityAttr(), Priority::Position, Overflow::Drop,
      IntegerAttr(), dispatch.getUncovered(), dispatch.getScaleRows());

  // The rows of the choices come home.
  SmallVector<CombineOp> combines;
  for (Operation *user : dispatch.getPositions().getUsers())
    combines.push_back(cast<CombineOp>(user));
  for (CombineOp combine : combines)
    if (failed(bringHome(combine, local, exchange.getReceived(), partition)))
      return failure();
  dispatch.getGrouped().replaceAllUsesWith(local.getGrouped());
  dispatch.getOffsets().replaceAllUsesWith(local.getOffsets());
  dispatch.erase();
  return success();
}

LogicalResult Parallelizer::bringHome(CombineOp combine, DispatchOp local,
                                      Value received, PartitionOp partition) {
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPoint(combine);
  Value rows = combine.getGrouped();
  auto type = cast<RankedTensorType>(rows.getType());
  if (!type.isDynamicDim(0))
    return combine.emitOpError("expected a dynamic number of rows, to spread "
                               "the experts over ranks, got ")
           << type;
  auto collect = CollectOp::create(
      b, local.getPositions(), cast<TypedValue<RankedTensorType>>(received));
  Value home = returnRows(b, rows, collect.getOrder(), collect.getReturns(),
                          partition.getReturns());
  combine.getGroupedMutable().set(home);
  combine.getPositionsMutable().set(partition.getHome());
  return success();
}

namespace {
struct MoEParallelize : moe::impl::MoEParallelizeBase<MoEParallelize> {
  using MoEParallelizeBase::MoEParallelizeBase;

  void runOnOperation() override {
    if (slots < 0 || slots > INT32_MAX || ranks < 0 || replicas < 1 ||
        replicas > INT32_MAX || (slots > 0 && ranks > 0)) {
      getOperation().emitError("expected slots or ranks of at least 0, not "
                               "both, and replicas of at least 1, got ")
          << slots << ", " << ranks << " and " << replicas;
      return signalPassFailure();
    }
    for (auto function : getOperation().getOps<func::FuncOp>()) {
      if (!function.isPublic() || function.isExternal())
        continue;
      auto parallel = function->getAttrOfType<ParallelAttr>(parallelAttrName);
      if (int64_t needed = slotsFor(function); !parallel && needed > 0) {
        parallel = ParallelAttr::get(&getContext(), needed, replicas);
        function->setAttr(parallelAttrName, parallel);
      }
      if (!parallel || isSpread(function))
        continue;
      FailureOr<unsigned> count = Parallelizer(function, parallel).run();
      if (failed(count))
        return signalPassFailure();
      numDispatches += *count;
    }
  }

  /// Returns the slots that the options ask for; 0 for no layer of experts.
  int64_t slotsFor(func::FuncOp function) {
    int64_t needed = 0;
    function.walk([&](DispatchOp dispatch) {
      needed =
          ranks > 0 ? llvm::divideCeil(dispatch.getNumExperts(), ranks) : slots;
      return WalkResult::interrupt();
    });
    return needed;
  }
  /// True if the pass ran before.
  static bool isSpread(func::FuncOp function) {
    return function.walk([](ExchangeOp) { return WalkResult::interrupt(); })
        .wasInterrupted();
  }
};
} // namespace
