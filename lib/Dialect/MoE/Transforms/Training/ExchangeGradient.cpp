//===- ExchangeGradient.cpp - Gradients of rows that travel ---------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Gradients travel on the routes of the forward function, which saved the
// partition: those of tokens once to every rank with one of their experts, as
// the tokens did, and one row home for each choice. A rank computes the rows of
// its experts, in the order of the tokens of all ranks, as one rank does.
//
//===----------------------------------------------------------------------===//

#include "Gradients.h"
#include "moe/Dialect/MoE/Transforms/Parallel/ExchangeUtils.h"

using namespace mlir;
using namespace mlir::moe;

/// Returns the trip that begins with an exchange.
static std::optional<RoundTrip> tripFrom(ExchangeOp leaving) {
  auto partition = leaving.getSend().getDefiningOp<PartitionOp>();
  if (!partition || leaving.getExpect() || !leaving.getReceived())
    return std::nullopt;
  for (Operation *user : leaving.getReceived().getUsers())
    if (auto collect = dyn_cast<CollectOp>(user))
      return RoundTrip{partition, leaving, collect};
  return std::nullopt;
}

std::optional<RoundTrip> mlir::moe::findTripOf(Value received) {
  auto leaving = received.getDefiningOp<ExchangeOp>();
  return leaving ? tripFrom(leaving) : std::nullopt;
}

std::pair<Value, std::optional<RoundTrip>>
mlir::moe::findRowsBeforeHome(Value rows) {
  auto collapse = rows.getDefiningOp<tensor::CollapseShapeOp>();
  auto home =
      collapse ? collapse.getSrc().getDefiningOp<ExchangeOp>() : ExchangeOp();
  if (!home || !home.getExpect() || !home.getGather())
    return {};
  auto expand =
      home.getSources().front().getDefiningOp<tensor::ExpandShapeOp>();
  auto collect = home.getGather().getDefiningOp<CollectOp>();
  auto leaving = collect ? collect.getReceived().getDefiningOp<ExchangeOp>()
                         : ExchangeOp();
  if (!expand || !leaving)
    return {};
  std::optional<RoundTrip> trip = tripFrom(leaving);
  if (!trip || trip->partition.getReturns() != home.getExpect())
    return {};
  trip->collect = collect;
  return {expand.getSrc(), trip};
}

std::pair<Value, Value> mlir::moe::sendToExperts(const RoundTrip &trip,
                                                 Gradients &g, Value gradient,
                                                 Value weights) {
  ImplicitLocOpBuilder &b = g.b;
  auto tokens = g.forward(PartitionOp(trip.partition).getTokens());
  auto typeOf = [](Value value) {
    auto type = cast<RankedTensorType>(value.getType());
    return RankedTensorType::get({ShapedType::kDynamic, type.getShape().back()},
                                 type.getElementType());
  };
  SmallVector<Value> sources{gradient};
  SmallVector<Type> types{typeOf(gradient)};
  if (weights) {
    sources.push_back(listByTokens(b, weights, tokens));
    types.push_back(typeOf(weights));
  }
  Value send = g.forward(PartitionOp(trip.partition).getSend());
  auto exchange = ExchangeOp::create(b, types, send.getType(), sources, tokens,
                                     send, Value());
  return {exchange.getRows()[0], weights ? exchange.getRows()[1] : Value()};
}

Value mlir::moe::bringHome(const RoundTrip &trip, Gradients &g, Value rows) {
  CollectOp collect = trip.collect;
  return returnRows(g.b, rows, g.forward(collect.getOrder()),
                    g.forward(collect.getReturns()),
                    g.forward(PartitionOp(trip.partition).getReturns()));
}

Value mlir::moe::weightsOfTrip(const RoundTrip &trip) {
  ExchangeOp leaving = trip.leaving;
  for (Value source : leaving.getSources())
    if (isFloatTensor(source.getType()) && source != leaving.getSources()[0])
      if (auto list = source.getDefiningOp<linalg::GenericOp>())
        for (Operation &op : list.getBody()->without_terminator())
          if (auto extract = dyn_cast<tensor::ExtractOp>(op))
            return extract.getTensor();
  return Value();
}

//===----------------------------------------------------------------------===//
// Rows of all ranks
//===----------------------------------------------------------------------===//

// All ranks compute the same from what is gathered, and each takes its rows:
// the gradient of what they compute has the gradients of the rows of each.

LogicalResult mlir::moe::differentiate(OwnRowsOp op, Gradients &g) {
  Value gradient = g.of(op.getOwn());
  g.add(op.getAll(), AllGatherOp::create(g.b, gradient.getType(), gradient));
  return success();
}

LogicalResult mlir::moe::differentiate(AllGatherOp op, Gradients &g) {
  Value gradient = g.of(op.getAll());
  g.add(op.getSource(), OwnRowsOp::create(g.b, gradient.getType(), gradient));
  return success();
}
