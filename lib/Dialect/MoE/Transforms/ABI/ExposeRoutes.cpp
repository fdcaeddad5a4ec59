//===- ExposeRoutes.cpp - Routes as results or arguments ------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "NestedRoutes.h"

#include "moe/Dialect/MoE/Transforms/ABI/Passes.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "llvm/ADT/MapVector.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEEXPOSEROUTES
#include "moe/Dialect/MoE/Transforms/ABI/Passes.h.inc"
} // namespace mlir::moe

namespace {
/// The routes of one function.
class Routes {
public:
  explicit Routes(func::FuncOp function)
      : function(function), builder(function.getContext()) {}

  LogicalResult find();
  bool empty() const { return ids.empty() && weights.empty(); }

  LogicalResult record();
  LogicalResult replay();
  LogicalResult replayIds();

private:
  /// Values, with the first dispatch that each is of.
  using Values = llvm::MapVector<Value, DispatchOp>;
  void add(Values &values, Value value, DispatchOp dispatch);
  std::string nameOf(StringRef kind, size_t index, size_t count) const;
  FailureOr<Value> addInput(Type type, StringRef name);
  LogicalResult give(Value ids, DispatchOp outer, StringRef name);

  func::FuncOp function;
  Builder builder;
  Values ids, weights;
};
} // namespace

/// Adds a value, unless the caller already passes it.
void Routes::add(Values &values, Value value, DispatchOp dispatch) {
  if (value && !isa<BlockArgument>(value))
    values.insert({value, dispatch});
}

/// Collects the ids and weights of all dispatches, in their order.
LogicalResult Routes::find() {
  WalkResult result = function.walk([&](DispatchOp dispatch) {
    if (dispatch->getParentOp() != function ||
        !function.getBody().hasOneBlock())
      return dispatch.emitOpError("expected a dispatch in the body of the "
                                  "function, whose route can be recorded or "
                                  "given"),
             WalkResult::interrupt();
    DispatchOp outer = getOuterDispatch(dispatch);
    if (outer && outer.getCapacity())
      return dispatch.emitOpError(
                 "expected its rows not to be those of a dispatch with a "
                 "capacity, so that its route can be recorded or given"),
             WalkResult::interrupt();
    add(ids, dispatch.getIds(), dispatch);
    add(weights, dispatch.getWeights(), dispatch);
    for (Operation *user : dispatch.getPositions().getUsers())
      if (auto combine = dyn_cast<CombineOp>(user))
        add(weights, combine.getWeights(), dispatch);
    return WalkResult::advance();
  });
  return failure(result.wasInterrupted());
}

std::string Routes::nameOf(StringRef kind, size_t index, size_t count) const {
  return ("route_" + kind + (count == 1 ? "" : Twine(index))).str();
}

/// Returns them: ids, then weights.
LogicalResult Routes::record() {
  auto returnOp =
      cast<func::ReturnOp>(function.getBody().front().getTerminator());
  // The names of results do not depend on what is added.
  size_t numResults = function.getNumResults();
  for (size_t i = 0; i < numResults; ++i)
    if (!function.getResultAttr(i, "moe.name"))
      function.setResultAttr(
          i, "moe.name",
          builder.getStringAttr(numResults == 1 ? "y" : "y" + Twine(i)));
  for (auto [kind, values] : {std::pair("ids", &ids), {"weights", &weights}})
    for (auto [i, entry] : llvm::enumerate(*values)) {
      auto [value, dispatch] = entry;
      if (DispatchOp outer = getOuterDispatch(dispatch)) {
        OpBuilder before(returnOp);
        value = orderByToken(before, value, outer);
      }
      unsigned index = function.getNumResults();
      auto name = builder.getNamedAttr(
          "moe.name", builder.getStringAttr(nameOf(kind, i, values->size())));
      if (failed(function.insertResult(index, value.getType(),
                                       builder.getDictionaryAttr(name))))
        return failure();
      returnOp.getOperandsMutable().append(value);
    }
  return success();
}

/// Returns the type of a value of the grouped rows of `outer`, if there is one,
/// as callers see it.
static Type typeOf(Value value, DispatchOp outer) {
  return outer ? getTypeByToken(cast<RankedTensorType>(value.getType()), outer)
               : value.getType();
}

FailureOr<Value> Routes::addInput(Type type, StringRef name) {
  unsigned index = function.getNumArguments();
  auto attributes = builder.getDictionaryAttr(
      {builder.getNamedAttr("moe.name", builder.getStringAttr(name)),
       builder.getNamedAttr("moe.role", builder.getStringAttr("input"))});
  if (failed(
          function.insertArgument(index, type, attributes, function.getLoc())))
    return failure();
  return Value(function.getArgument(index));
}

/// Replaces them by arguments.
LogicalResult Routes::replay() {
  for (auto [kind, values] : {std::pair("ids", &ids), {"weights", &weights}})
    for (auto [i, entry] : llvm::enumerate(*values)) {
      auto [value, dispatch] = entry;
      DispatchOp outer = getOuterDispatch(dispatch);
      FailureOr<Value> input =
          addInput(typeOf(value, outer), nameOf(kind, i, values->size()));
      if (failed(input))
        return failure();
      if (!outer) {
        value.replaceAllUsesWith(*input);
        continue;
      }
      OpBuilder before(dispatch);
      value.replaceUsesWithIf(
          orderByRow(before, *input, outer), [](OpOperand &use) {
            return isa<DispatchOp, CombineOp>(use.getOwner());
          });
    }
  return success();
}

/// Replaces ids by an argument, of which their gate computes the weights.
LogicalResult Routes::give(Value ids, DispatchOp outer, StringRef name) {
  auto gate = ids.getDefiningOp<GateOp>();
  if (!gate || (outer && !outer->isBeforeInBlock(gate)))
    return emitError(ids.getLoc())
           << "expected a moe.gate, which can weigh given ids, to have chosen "
              "the ids of a dispatch";
  FailureOr<Value> input = addInput(typeOf(ids, outer), name);
  if (failed(input))
    return failure();
  OpBuilder before(gate);
  Value given = outer ? orderByRow(before, *input, outer) : *input;
  // What only the selection reads goes.
  gate.getBiasMutable().clear();
  gate.removeGroupsAttr();
  gate.removeCapacityAttr();
  gate.removeThresholdAttr();
  gate.setSelection(Selection::TokenChoice);
  gate.getGivenIdsMutable().assign(given);
  ids.replaceAllUsesWith(given);
  return success();
}

LogicalResult Routes::replayIds() {
  for (auto [i, entry] : llvm::enumerate(ids))
    if (failed(give(entry.first, getOuterDispatch(entry.second),
                    nameOf("ids", i, ids.size()))))
      return failure();
  return success();
}

namespace {
struct MoEExposeRoutes : moe::impl::MoEExposeRoutesBase<MoEExposeRoutes> {
  using MoEExposeRoutesBase::MoEExposeRoutesBase;

  void runOnOperation() override {
    bool found = false;
    for (auto function : getOperation().getOps<func::FuncOp>()) {
      if (function.isExternal() || !function.isPublic())
        continue;
      Routes routes(function);
      if (failed(routes.find()))
        return signalPassFailure();
      if (routes.empty())
        continue;
      found = true;
      if (failed(expose(routes)))
        return signalPassFailure();
    }
    if (found)
      return;
    getOperation()->emitError("expected a moe.dispatch of ids or weights that "
                              "the caller of its function does not pass");
    signalPassFailure();
  }

  LogicalResult expose(Routes &routes) {
    switch (mode) {
    case RouteMode::Record:
      return routes.record();
    case RouteMode::Replay:
      return routes.replay();
    case RouteMode::ReplayIds:
      return routes.replayIds();
    }
    llvm_unreachable("all modes are handled");
  }
};
} // namespace
