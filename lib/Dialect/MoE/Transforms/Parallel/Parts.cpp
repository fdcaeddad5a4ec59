//===- Parts.cpp - What runs between two exchanges ------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Parts.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"
#include "mlir/Transforms/RegionUtils.h"
#include "llvm/ADT/SetVector.h"

using namespace mlir;
using namespace mlir::moe;

bool mlir::moe::isExchange(Operation *op) {
  return isa<ExchangeOp, AllGatherOp, OwnRowsOp>(op);
}

StringRef Domain::getName() const {
  switch (kind) {
  case Invariant:
  case Home:
    return "home";
  case All:
    return "all";
  case Received:
    return "received";
  }
  llvm_unreachable("unknown domain");
}

/// Calls `callback` with what an operation and its regions read.
static void forEachRead(Operation *op,
                        llvm::function_ref<void(Value)> callback) {
  for (Value operand : op->getOperands())
    callback(operand);
  visitUsedValuesDefinedAbove(
      op->getRegions(), [&](OpOperand *operand) { callback(operand->get()); });
}

static const char *describe(Domain domain) {
  switch (domain.kind) {
  case Domain::Invariant:
    return "no tokens";
  case Domain::Home:
    return "the tokens of this rank";
  case Domain::All:
    return "the tokens of all ranks";
  case Domain::Received:
    return "received tokens";
  }
  llvm_unreachable("unknown domain");
}

/// Joins the domain of an operation with those of what it reads.
LogicalResult Parts::join(Operation *op, Domain &domain) {
  LogicalResult result = success();
  forEachRead(op, [&](Value value) {
    Domain its = domains.lookup(value);
    if (its.kind == Domain::Invariant)
      return;
    if (its == domain) {
      domain.exchange = std::min(domain.exchange, its.exchange);
      return;
    }
    if (domain.kind != Domain::Invariant && succeeded(result))
      result = op->emitOpError("reads ")
               << describe(domain) << " and " << describe(its)
               << ": expected the tokens of one side of a moe.exchange";
    domain = its;
  });
  return result;
}

LogicalResult Parts::findDomains() {
  for (BlockArgument argument : function.getArguments()) {
    auto type = dyn_cast<RankedTensorType>(argument.getType());
    if (type && !type.hasStaticShape())
      domains.try_emplace(argument, Domain{Domain::Home});
  }
  for (Operation &op : body->without_terminator()) {
    if (!isExchange(&op)) {
      if (failed(join(&op, domainsOfOps[&op])))
        return failure();
      for (Value result : op.getResults())
        domains[result] = domainsOfOps[&op];
      continue;
    }
    if (auto exchange = dyn_cast<ExchangeOp>(op))
      experts = exchange.getSend().getType().getDimSize(0);
    exchangeNumbers[&op] = exchanges.size();
    exchanges.push_back(&op);
    Domain domain = domainOfPart(2 * exchanges.size());
    for (Value result : op.getResults())
      domains[result] = domain;
  }
  return success();
}

Domain Parts::domainOfPart(unsigned part) const {
  if (part == 0 || isBeside(part))
    return Domain{Domain::Home};
  Operation *op = exchanges[exchangeBefore(part) - 1];
  if (isa<AllGatherOp>(op))
    return Domain{Domain::All};
  auto exchange = dyn_cast<ExchangeOp>(op);
  return exchange && !exchange.getExpect() ? Domain{Domain::Received, part}
                                           : Domain{Domain::Home};
}

/// Constants, extents and empty or filled tensors are copied into each part
/// that reads them, as is what depends on no tokens.
bool Parts::isCopied(Operation *op) const {
  if (isExchange(op) || !isPure(op) ||
      llvm::any_of(op->getUsers(), [&](Operation *user) {
        return isExchange(user) || user == body->getTerminator();
      }))
    return false;
  if (domainsOfOps.lookup(op).kind == Domain::Invariant)
    return true;
  bool scalars = llvm::none_of(op->getResultTypes(), llvm::IsaPred<ShapedType>);
  return scalars || isa<tensor::EmptyOp, linalg::FillOp>(op);
}

unsigned Parts::partOfUser(Operation *user) const {
  user = body->findAncestorOpInBlock(*user);
  if (user == body->getTerminator())
    return size() - 1;
  auto exchange = exchangeNumbers.find(user);
  return exchange != exchangeNumbers.end() ? 2 * exchange->second
                                           : parts.lookup(user);
}

/// Finds what can run beside an exchange that brings tokens to experts: all
/// that no exchange needs and that needs none, if there is a contraction in it.
void Parts::findWorkBeside() {
  bool hasExchange = llvm::any_of(exchanges, [](Operation *op) {
    auto exchange = dyn_cast<ExchangeOp>(op);
    return exchange && !exchange.getExpect();
  });
  if (!hasExchange)
    return;
  llvm::DenseSet<Operation *> dependent, needed;
  for (Operation &op : body->without_terminator()) {
    // Saved rows of other ranks may come from an earlier call.
    Domain domain = domainsOfOps.lookup(&op);
    bool depends = isExchange(&op) || domain.kind == Domain::Received ||
                   domain.kind == Domain::All;
    forEachRead(&op, [&](Value value) {
      depends |= dependent.contains(value.getDefiningOp());
    });
    if (depends)
      dependent.insert(&op);
  }
  for (Operation &op : llvm::reverse(body->without_terminator()))
    if (isExchange(&op) || needed.contains(&op))
      forEachRead(&op, [&](Value value) {
        if (Operation *maker = value.getDefiningOp())
          needed.insert(maker);
      });
  bool hasContraction = false;
  for (Operation &op : body->without_terminator()) {
    if (dependent.contains(&op) || needed.contains(&op) || isCopied(&op))
      continue;
    workBeside.insert(&op);
    auto linalgOp = dyn_cast<linalg::LinalgOp>(op);
    hasContraction |= isa<GroupedMatmulOp>(op) ||
                      (linalgOp && linalg::isaContractionOpInterface(linalgOp));
  }
  if (!hasContraction)
    workBeside.clear();
}

/// Assigns an operation to the last part that is early enough for its users and
/// has its domain: work that no exchange waits for comes behind them, or beside
/// the last one that it can run beside.
LogicalResult Parts::assignLatest(Operation *op) {
  unsigned latest = size() - 1;
  for (Operation *user : op->getUsers())
    latest = std::min(latest, partOfUser(user));
  Domain domain = domainsOfOps.lookup(op);
  auto isOpen = [&](unsigned part) {
    if (!isBeside(part))
      return domain.kind == Domain::Invariant || domainOfPart(part) == domain;
    auto exchange = dyn_cast<ExchangeOp>(exchanges[exchangeBefore(part) - 1]);
    return exchange && !exchange.getExpect();
  };
  bool beside = workBeside.contains(op);
  for (bool wantsBeside : {beside, false})
    for (unsigned part = latest + 1; part-- > 0;)
      if (isBeside(part) == wantsBeside && isOpen(part)) {
        parts[op] = part;
        return success();
      }
  return op->emitOpError("expected the exchange that its tokens come from "
                         "before those that need its results");
}

LogicalResult Parts::assign() {
  if (!function.getBody().hasOneBlock())
    return function.emitError(
        "expected a function of one block, to cut it at its exchanges");
  body = &function.getBody().front();
  if (failed(findDomains()))
    return failure();
  findWorkBeside();
  for (Operation &op : llvm::reverse(body->without_terminator())) {
    if (isExchange(&op))
      continue;
    if (!isPure(&op))
      if (auto effects = dyn_cast<MemoryEffectOpInterface>(op);
          !op.hasTrait<OpTrait::HasRecursiveMemoryEffects>() &&
          !(effects && effects.hasNoEffect()))
        return op.emitOpError("expected operations without side effects, to "
                              "cut the function at its exchanges");
    if (failed(assignLatest(&op)))
      return failure();
  }
  return success();
}

/// True if a value is read outside of a part: by an exchange, as a result, or
/// in another part.
bool Parts::isReadOutside(Value value, unsigned part) const {
  return llvm::any_of(value.getUsers(), [&](Operation *user) {
    user = body->findAncestorOpInBlock(*user);
    if (user == body->getTerminator() || isExchange(user))
      return true;
    if (!isCopied(user))
      return parts.lookup(user) != part;
    return llvm::any_of(user->getResults(), [&](Value result) {
      return isReadOutside(result, part);
    });
  });
}

Parts::Part Parts::collect(unsigned part) {
  llvm::SmallPtrSet<Operation *, 16> taken;
  auto isReadHere = [&](Operation &op) {
    return llvm::any_of(op.getUsers(), [&](Operation *user) {
      return taken.contains(body->findAncestorOpInBlock(*user));
    });
  };
  Part result;
  // Backwards, so that the readers of an operation are known.
  for (Operation &op : llvm::reverse(body->without_terminator())) {
    if (isExchange(&op) || op.use_empty())
      continue;
    if (isCopied(&op) ? !isReadHere(op) : parts.lookup(&op) != part)
      continue;
    taken.insert(&op);
    result.operations.push_back(&op);
  }
  std::reverse(result.operations.begin(), result.operations.end());
  llvm::SetVector<Value> inputs;
  for (Operation *op : result.operations) {
    forEachRead(op, [&](Value value) {
      Operation *maker = value.getDefiningOp();
      if (!maker || !taken.contains(maker))
        inputs.insert(value);
    });
    for (Value each : op->getResults())
      if (!isCopied(op) && isReadOutside(each, part))
        result.outputs.push_back(each);
  }
  // Arguments of the function first, in their order.
  result.inputs = inputs.takeVector();
  llvm::stable_sort(result.inputs, [](Value a, Value c) {
    auto first = dyn_cast<BlockArgument>(a),
         second = dyn_cast<BlockArgument>(c);
    if (!first || !second)
      return first && !second;
    return first.getArgNumber() < second.getArgNumber();
  });
  return result;
}
