//===- Parallelize.cpp - Spread experts over ranks ------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ExpertParameters.h"
#include "RankSums.h"
#include "moe/Analysis/TokenIndependence.h"
#include "moe/Dialect/MoE/IR/MoEABI.h"
#include "moe/Dialect/MoE/Transforms/Parallel/ExchangeUtils.h"
#include "moe/Dialect/MoE/Transforms/Parallel/Passes.h"

#include "mlir/Dialect/Arith/Utils/Utils.h"
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

/// Returns the experts of a dispatch that are spread: the largest range of one
/// kind. The others stay where the tokens are; null if it has none.
static ExpertOp findSpread(DispatchOp dispatch) {
  ExpertOp largest;
  for (Operation *user : dispatch.getOffsets().getUsers())
    if (auto expert = dyn_cast<ExpertOp>(user))
      if (!largest || expert.getExpertCount() > largest.getExpertCount() ||
          (expert.getExpertCount() == largest.getExpertCount() &&
           expert->isBeforeInBlock(largest)))
        largest = expert;
  return largest;
}

/// True if all experts are of one kind, or of several that share their range.
static bool isOfOneKind(DispatchOp dispatch) {
  ExpertOp spread = findSpread(dispatch);
  return !spread ||
         spread.getExpertCount() == int64_t(dispatch.getNumExperts());
}

static int64_t countSpread(DispatchOp dispatch) {
  return isOfOneKind(dispatch) ? dispatch.getNumExperts()
                               : findSpread(dispatch).getExpertCount();
}

namespace {
/// The experts of other kinds than those that are spread, on the rank of their
/// tokens.
struct HomeExperts {
  DispatchOp dispatch;
  Value rows; // of the last of them
};

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
  Value
  mapIds(Value ids,
         llvm::function_ref<Value(OpBuilder &, Location, ValueRange)> body);
  Value keepFirstChoices(DispatchOp dispatch);
  Value selectRange(Value ids, ExpertOp spread, int64_t count, bool inside);
  FailureOr<HomeExperts> separate(DispatchOp dispatch, ExpertOp spread,
                                  Value ids);
  void mergeHome(CombineOp combine, HomeExperts others);
  LogicalResult verifyRows(CombineOp combine);
  void bringHome(CombineOp combine, DispatchOp local, Value received,
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
    if (!gate.getTokenDependence().empty() &&
        parallel.getScope() == TokenScope::Group)
      gatherGate(gate);
  ExpertParameters parameters(function, experts, parallel.getSlots());
  for (DispatchOp dispatch : dispatches) {
    // With several kinds only those of the largest range travel, which are all
    // of theirs then.
    ExpertOp travelling =
        isOfOneKind(dispatch) ? ExpertOp() : findSpread(dispatch);
    if (!travelling)
      for (Operation *user : dispatch.getOffsets().getUsers())
        if (auto expert = dyn_cast<ExpertOp>(user))
          if (failed(parameters.take(expert)))
            return failure();
    if (failed(spread(dispatch)) ||
        (travelling && failed(parameters.take(travelling))))
      return failure();
  }
  if (failed(parameters.finish()))
    return failure();
  return dispatches.size();
}

LogicalResult
Parallelizer::addPlacement(MutableArrayRef<DispatchOp> dispatches) {
  experts = countSpread(dispatches.front());
  // The slots of as many ranks as there are experts are numbered in i32, and
  // a rank dispatches to its slots.
  int64_t limit = std::min<int64_t>(INT32_MAX / experts, INT32_MAX - 1);
  if (parallel.getSlots() > limit)
    return dispatches.front().emitOpError("expected between 1 and ")
           << limit << " slots on a rank for " << experts << " experts, got "
           << parallel.getSlots();
  for (DispatchOp dispatch : dispatches) {
    if (countSpread(dispatch) != experts)
      return dispatch.emitOpError("expected ")
             << experts << " experts, as the dispatch before it has, got "
             << countSpread(dispatch);
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

/// Maps each of the ids `[T, K]`.
Value Parallelizer::mapIds(
    Value ids,
    llvm::function_ref<Value(OpBuilder &, Location, ValueRange)> body) {
  auto type = cast<RankedTensorType>(ids.getType());
  Value init = tensor::EmptyOp::create(
      b, tensor::getMixedSizes(b, b.getLoc(), ids), type.getElementType());
  AffineMap map = b.getMultiDimIdentityMap(2);
  return linalg::GenericOp::create(
             b, type, ids, init, ArrayRef{map, map},
             SmallVector<utils::IteratorType>(2, utils::IteratorType::parallel),
             [&](OpBuilder &nested, Location loc, ValueRange elements) {
               linalg::YieldOp::create(nested, loc,
                                       body(nested, loc, elements));
             })
      .getResult(0);
}

/// Returns the ids of the choices that a dispatch without a capacity keeps.
Value Parallelizer::keepFirstChoices(DispatchOp dispatch) {
  int64_t kept = dispatch.getMaxChoices();
  Value ids = dispatch.getIds();
  if (kept == dispatch.getTopK())
    return ids;
  return mapIds(ids, [&](OpBuilder &nested, Location loc, ValueRange elements) {
    Value k = linalg::IndexOp::create(nested, loc, 1);
    Value limit = arith::ConstantIndexOp::create(nested, loc, kept);
    Value first =
        arith::CmpIOp::create(nested, loc, arith::CmpIPredicate::ult, k, limit);
    Value none =
        arith::ConstantOp::create(nested, loc, nested.getI32IntegerAttr(-1));
    return arith::SelectOp::create(nested, loc, first, elements[0], none);
  });
}

/// Returns the ids of the experts that are spread, from 0, or those of the
/// others; -1 for the rest.
Value Parallelizer::selectRange(Value ids, ExpertOp spread, int64_t count,
                                bool inside) {
  return mapIds(ids, [&](OpBuilder &nested, Location loc, ValueRange elements) {
    auto constant = [&](int64_t value) -> Value {
      return arith::ConstantOp::create(nested, loc,
                                       nested.getI32IntegerAttr(value));
    };
    Value id = elements[0], none = constant(-1);
    Value shifted = arith::SubIOp::create(nested, loc, id,
                                          constant(spread.getFirstExpert()));
    Value isSpread =
        arith::CmpIOp::create(nested, loc, arith::CmpIPredicate::ult, shifted,
                              constant(spread.getExpertCount()));
    if (inside)
      return arith::SelectOp::create(nested, loc, isSpread, shifted, none)
          .getResult();
    Value exists = arith::CmpIOp::create(nested, loc, arith::CmpIPredicate::ult,
                                         id, constant(count));
    Value other = arith::SelectOp::create(nested, loc, exists, id, none);
    return arith::SelectOp::create(nested, loc, isSpread, none, other)
        .getResult();
  });
}

/// Gives the experts of other kinds a dispatch of their own, which needs no
/// exchange, and makes the spread ones all experts of theirs.
FailureOr<HomeExperts> Parallelizer::separate(DispatchOp dispatch,
                                              ExpertOp spread, Value ids) {
  if (isa<BlockArgument>(dispatch.getIds()))
    return dispatch.emitOpError("expected ids of a gate, to spread experts of "
                                "several kinds over ranks, got an argument");
  auto home = DispatchOp::create(
      b, dispatch.getRows(),
      cast<TypedValue<RankedTensorType>>(
          selectRange(ids, spread, dispatch.getNumExperts(), false)),
      dispatch.getScaleRows() ? dispatch.getWeights() : Value(),
      dispatch.getNumExperts(), CapacityAttr(), Priority::Position,
      Overflow::Drop, IntegerAttr(), dispatch.getUncovered(),
      dispatch.getScaleRows());
  // What the other kinds had from the spread one: its rows are elsewhere.
  Value before = spread.getInit();
  if (!before) {
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPoint(spread);
    auto type = cast<RankedTensorType>(spread.getResult().getType());
    before = tensor::EmptyOp::create(
        b,
        SmallVector<OpFoldResult>{
            tensor::getMixedSize(b, b.getLoc(), home.getGrouped(), 0),
            b.getIndexAttr(type.getDimSize(1))},
        type.getElementType());
    if (spread.getUncovered() == Uncovered::Zero) {
      Value zero =
          arith::ConstantOp::create(b, b.getZeroAttr(type.getElementType()));
      before = linalg::FillOp::create(b, zero, before).getResult(0);
    }
    if (before.getType() != type)
      before = tensor::CastOp::create(b, type, before);
  }
  if (before == dispatch.getGrouped())
    before = home.getGrouped();
  HomeExperts others{home, Value()};
  for (Operation *user :
       llvm::make_early_inc_range(dispatch.getOffsets().getUsers())) {
    auto expert = cast<ExpertOp>(user);
    if (expert == spread)
      continue;
    expert.getOffsetsMutable().set(home.getOffsets());
    for (OpOperand &operand : expert->getOpOperands())
      if (operand.get() == dispatch.getGrouped())
        operand.set(home.getGrouped());
      else if (operand.get() == spread.getResult())
        operand.set(before);
  }
  spread.getInitMutable().clear();
  spread.setUncovered(Uncovered::Undefined);
  spread.removeFirstAttr();
  // The combine reads the last kind, of which each choice has one row.
  for (Operation *user : dispatch.getPositions().getUsers()) {
    auto combine = cast<CombineOp>(user);
    Value rows = combine.getGrouped();
    if (rows == spread.getResult())
      rows = before;
    if (others.rows && others.rows != rows)
      return combine.emitOpError("expected the rows of the combine before it, "
                                 "of experts of several kinds that are spread "
                                 "over ranks");
    others.rows = rows;
    combine.getGroupedMutable().set(spread.getResult());
  }
  return others;
}

/// Adds the rows of the other kinds of experts to those that came home.
void Parallelizer::mergeHome(CombineOp combine, HomeExperts others) {
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPoint(combine);
  Value came = combine.getGrouped(), positions = combine.getPositions();
  Value count = getValueOrCreateConstantIndexOp(
      b, b.getLoc(), tensor::getMixedSize(b, b.getLoc(), came, 0));
  Value rows = tensor::ConcatOp::create(b, 0, ValueRange{came, others.rows});
  Value begin = arith::IndexCastOp::create(b, b.getI32Type(), count);
  auto type = cast<RankedTensorType>(positions.getType());
  Value init = tensor::EmptyOp::create(
      b, tensor::getMixedSizes(b, b.getLoc(), positions),
      type.getElementType());
  AffineMap map = b.getMultiDimIdentityMap(2);
  Value merged =
      linalg::GenericOp::create(
          b, type, ValueRange{positions, others.dispatch.getPositions()}, init,
          ArrayRef{map, map, map},
          SmallVector<utils::IteratorType>(2, utils::IteratorType::parallel),
          [&](OpBuilder &nested, Location loc, ValueRange elements) {
            Value zero = arith::ConstantOp::create(nested, loc,
                                                   nested.getI32IntegerAttr(0));
            auto isNone = [&](Value position) -> Value {
              return arith::CmpIOp::create(
                  nested, loc, arith::CmpIPredicate::slt, position, zero);
            };
            Value behind =
                arith::AddIOp::create(nested, loc, elements[1], begin);
            Value other = arith::SelectOp::create(
                nested, loc, isNone(elements[1]), elements[1], behind);
            Value position = arith::SelectOp::create(
                nested, loc, isNone(elements[0]), other, elements[0]);
            linalg::YieldOp::create(nested, loc, position);
          })
          .getResult(0);
  combine.getGroupedMutable().set(rows);
  combine.getPositionsMutable().set(merged);
}

LogicalResult Parallelizer::spread(DispatchOp dispatch) {
  b.setLoc(dispatch.getLoc());
  b.setInsertionPoint(dispatch);
  Value ids = dispatch.getIds(), weights = dispatch.getWeights();
  int64_t choices = dispatch.getTopK();
  // What is dropped is decided for the tokens of all ranks, or of this one.
  if (CapacityAttr capacity = dispatch.getCapacityAttr()) {
    bool isOfRank = parallel.getScope() == TokenScope::Rank;
    auto gather = [&](Value value) -> Value {
      return isOfRank
                 ? value
                 : AllGatherOp::create(b, value.getType(), value).getResult();
    };
    Value all = gather(ids);
    bool weighs = dispatch.getPriority() == Priority::Probability;
    Value kept = KeepOp::create(b, all, weighs ? gather(weights) : Value(),
                                dispatch.getNumExperts(), capacity,
                                dispatch.getPriority(), dispatch.getOverflow(),
                                dispatch.getChoicesAttr());
    ids = isOfRank ? kept
                   : OwnRowsOp::create(b, kept.getType(), kept).getResult();
  } else {
    ids = keepFirstChoices(dispatch);
  }

  std::optional<HomeExperts> others;
  if (!isOfOneKind(dispatch)) {
    ExpertOp spread = findSpread(dispatch);
    Value spreadIds = selectRange(ids, spread, dispatch.getNumExperts(), true);
    FailureOr<HomeExperts> found = separate(dispatch, spread, ids);
    if (failed(found))
      return failure();
    others = *found;
    ids = spreadIds;
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
  auto sendBeside = [&](Value values) {
    sources.push_back(listByTokens(b, values, partition.getTokens()));
    types.push_back(received(getElementTypeOrSelf(values)));
    return sources.size() - 1;
  };
  if (dispatch.getScaleRows())
    sendBeside(weights);
  SmallVector<CombineOp> combines;
  for (Operation *user : dispatch.getPositions().getUsers())
    combines.push_back(cast<CombineOp>(user));
  // Sums of a rank need the weights of its choices.
  bool sums = parallel.getReduce() == RankReduction::PerRank;
  SmallVector<std::optional<size_t>> weightSources(combines.size());
  for (auto [combine, source] : llvm::zip(combines, weightSources)) {
    if (!sums)
      continue;
    if (failed(prepareSums(b, combine, slots, others.has_value())))
      return failure();
    if (combine.getWeights())
      source = sendBeside(combine.getWeights());
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

  // The rows of the choices come home, or their sums.
  for (auto [combine, source] : llvm::zip(combines, weightSources)) {
    if (failed(verifyRows(combine)))
      return failure();
    if (sums)
      bringSumsHome(b, combine,
                    {exchange, local, partition,
                     source ? Value(exchange.getRows()[*source]) : Value()});
    else
      bringHome(combine, local, exchange.getReceived(), partition);
    if (others)
      mergeHome(combine, *others);
    if (sums)
      finishSums(b, combine, slots, others.has_value());
  }
  dispatch.getGrouped().replaceAllUsesWith(local.getGrouped());
  dispatch.getOffsets().replaceAllUsesWith(local.getOffsets());
  dispatch.erase();
  return success();
}

LogicalResult Parallelizer::verifyRows(CombineOp combine) {
  Type type = combine.getGrouped().getType();
  if (cast<RankedTensorType>(type).isDynamicDim(0))
    return success();
  return combine.emitOpError("expected a dynamic number of rows, to spread "
                             "the experts over ranks, got ")
         << type;
}

void Parallelizer::bringHome(CombineOp combine, DispatchOp local,
                             Value received, PartitionOp partition) {
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPoint(combine);
  auto collect = CollectOp::create(
      b, local.getPositions(), cast<TypedValue<RankedTensorType>>(received));
  Value home = returnRows(b, combine.getGrouped(), collect.getOrder(),
                          collect.getReturns(), partition.getReturns());
  combine.getGroupedMutable().set(home);
  combine.getPositionsMutable().set(partition.getHome());
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
        parallel =
            ParallelAttr::get(&getContext(), needed, replicas, reduce, scope);
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
          ranks > 0 ? llvm::divideCeil(countSpread(dispatch), ranks) : slots;
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
