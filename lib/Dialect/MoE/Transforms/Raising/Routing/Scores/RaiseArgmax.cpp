//===- RaiseArgmax.cpp - The largest score as a choice -------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// jnp.argmax: a reduction of the scores and their indices, of which the lower
// one is kept among equals. It becomes a gate of one choice, if a layer uses
// it. The maximum of the same scores is the weight of the choice.
//
//===----------------------------------------------------------------------===//

#include "Extents.h"
#include "Routing/Routing.h"

#include "mlir/Dialect/Tensor/IR/Tensor.h"

#include <limits>

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

using Dims = SmallVector<int64_t>;

/// Computes a value of a region of comparisons, of its arguments; none if it is
/// not known.
static std::optional<double> evaluate(Value value, ArrayRef<double> arguments,
                                      unsigned &budget) {
  if (auto argument = dyn_cast<BlockArgument>(value))
    return argument.getArgNumber() < arguments.size()
               ? std::optional(arguments[argument.getArgNumber()])
               : std::nullopt;
  Operation *op = value.getDefiningOp();
  if (budget == 0 || op->getNumRegions() != 0 || op->getNumResults() != 1)
    return std::nullopt;
  --budget;
  SmallVector<double> x;
  for (Value operand : op->getOperands()) {
    std::optional<double> number = evaluate(operand, arguments, budget);
    if (!number)
      return std::nullopt;
    x.push_back(*number);
  }
  StringRef name = stablehloName(op);
  if (name == "select" && x.size() == 3)
    return x[0] != 0 ? x[1] : x[2];
  bool isTruth = getElementTypeOrSelf(value).isInteger(1);
  if (name == "not" && isTruth && x.size() == 1)
    return x[0] == 0;
  if (x.size() != 2)
    return std::nullopt;
  if (name == "maximum")
    return std::max(x[0], x[1]);
  if (name == "minimum")
    return std::min(x[0], x[1]);
  if (name == "and" && isTruth)
    return x[0] != 0 && x[1] != 0;
  if (name == "or" && isTruth)
    return x[0] != 0 || x[1] != 0;
  return llvm::StringSwitch<std::optional<double>>(directionOf(op))
      .Case("GT", x[0] > x[1])
      .Case("GE", x[0] >= x[1])
      .Case("LT", x[0] < x[1])
      .Case("LE", x[0] <= x[1])
      .Case("EQ", x[0] == x[1])
      .Case("NE", x[0] != x[1])
      .Default(std::nullopt);
}

/// True for a region of two values with an index each, which keeps the larger
/// value, of equal ones that with the lower index. What it does follows from
/// how they compare, so that two numbers show it.
static bool keepsFirstLargest(Block &body) {
  Operation *end = body.empty() ? nullptr : &body.back();
  if (body.getNumArguments() != 4 || !isNamed(end, "stablehlo.return") ||
      end->getNumOperands() != 2)
    return false;
  for (unsigned bits = 0; bits < 16; ++bits) {
    double x[4];
    for (unsigned i = 0; i < 4; ++i)
      x[i] = bits >> i & 1;
    bool first = x[0] > x[2] || (x[0] == x[2] && x[1] < x[3]);
    for (unsigned i : {0u, 1u}) {
      unsigned budget = 200;
      if (evaluate(end->getOperand(i), x, budget) != x[first ? i : 2 + i])
        return false;
    }
  }
  return true;
}

/// True for the index along the last of two dimensions.
static bool isIndex(Value value) {
  Operation *op = value.getDefiningOp();
  if (!op)
    return false;
  auto dim = integersOf(op, "iota_dimension");
  if (isNamed(op, "stablehlo.iota") || isNamed(op, "stablehlo.dynamic_iota"))
    return dim == Dims{1};
  if (!isNamed(op, "stablehlo.broadcast_in_dim") &&
      !isNamed(op, "stablehlo.dynamic_broadcast_in_dim"))
    return false;
  Value from = op->getOperand(0);
  auto dims = integersOf(op, "broadcast_dimensions");
  RankedTensorType type = tensorOf(from);
  if (!type || type.getRank() == 0 || !dims ||
      type.getShape().back() != tensorOf(value).getShape().back())
    return false;
  return dims == Dims{0, 1} ? isIndex(from)
                            : dims == Dims{1} && isNamed(from.getDefiningOp(),
                                                         "stablehlo.iota");
}

/// Returns what a reduction along the second of two dimensions is of, if it
/// starts at −inf; null for others.
static Value reducedFromNone(Operation *op, unsigned operands) {
  RankedTensorType type = op->getNumOperands() == operands
                              ? tensorOf(op->getOperand(0))
                              : RankedTensorType();
  return type && type.getRank() == 2 && !type.isDynamicDim(1) &&
                 isRowFloat(type.getElementType()) &&
                 integersOf(op, "dimensions") == Dims{1} &&
                 splatOf(op->getOperand(operands / 2)) ==
                     -std::numeric_limits<double>::infinity()
             ? op->getOperand(0)
             : Value();
}

std::optional<Argmax> mlir::moe::raising::raiseArgmax(Operation *op,
                                                      RewriterBase &rewriter) {
  if (!isNamed(op, "stablehlo.reduce") || op->getNumResults() != 2 ||
      op->getNumRegions() != 1 || !op->getRegion(0).hasOneBlock())
    return std::nullopt;
  Value scores = reducedFromNone(op, 4);
  if (!scores || !isIndex(op->getOperand(1)) ||
      !keepsFirstLargest(op->getRegion(0).front()))
    return std::nullopt;
  std::optional<double> first = splatOf(op->getOperand(3));
  RankedTensorType ids = tensorOf(op->getResult(1));
  Operation *from = scores.getDefiningOp();
  if (!first || *first < 0 || !ids || ids.getRank() != 1 ||
      !(ids.getElementType().isSignlessInteger(32) ||
        ids.getElementType().isSignlessInteger(64)) ||
      (from && from->getBlock() != op->getBlock()))
    return std::nullopt;
  // Where the scores are, so that it is before what else is computed of them.
  rewriter.setInsertionPointAfterValue(scores);
  Location loc = op->getLoc();
  Argmax made{buildTopK(rewriter, loc, scores, 1), {}};
  auto vectorOf = [&](Value column) -> Value {
    return tensor::CollapseShapeOp::create(
        rewriter, loc, column, ArrayRef<ReassociationIndices>{{0, 1}});
  };
  Value id = vectorOf(made.gate.getIds());
  if (getElementTypeOrSelf(id) != ids.getElementType()) {
    OperationState state(loc, "stablehlo.convert");
    state.addOperands(id);
    state.addTypes(ids);
    id = rewriter.create(state)->getResult(0);
  }
  auto replace = [&](Value old, Value by) {
    made.replaced.push_back({old, by});
    rewriter.replaceAllUsesWith(old, by);
  };
  // A softmax subtracts the maximum: it is raised as a whole.
  bool isSubtracted = false;
  SmallVector<Operation *> others;
  for (Operation *user : scores.getUsers()) {
    isSubtracted |= isNamed(user, "stablehlo.subtract");
    if (user->getBlock() == op->getBlock() &&
        isNamed(user, "stablehlo.reduce") && updateOf(user) == Update::Max &&
        reducedFromNone(user, 2) == scores)
      others.push_back(user);
  }
  replace(op->getResult(1), id);
  replace(op->getResult(0), vectorOf(made.gate.getWeights()));
  if (!isSubtracted)
    for (Operation *other : others)
      replace(other->getResult(0), vectorOf(made.gate.getWeights()));
  return made;
}

bool mlir::moe::raising::undoUnused(const Argmax &made,
                                    RewriterBase &rewriter) {
  GateOp gate = made.gate;
  if (!gate.getIds().hasOneUse())
    return false;
  for (auto [old, by] : made.replaced) {
    rewriter.replaceAllUsesWith(by, old);
    Operation *op = by.getDefiningOp();
    while (op && op->use_empty() && op != gate) {
      Operation *from = op->getOperand(0).getDefiningOp();
      rewriter.eraseOp(op);
      op = from;
    }
  }
  if (gate->use_empty())
    rewriter.eraseOp(gate);
  return true;
}
