//===- RaiseCombine.cpp - Rows that return to their tokens ---------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Extents.h"
#include "Routing/Groups/GroupRows.h"
#include "Routing/Routing.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

using Dims = SmallVector<int64_t>;

namespace {
/// The sum of the rows of each token, perhaps added to what is there.
struct Combination {
  Value ids, rows, weights, into;
};
} // namespace

/// A sum over the choices.
static std::optional<Combination> matchSum(Operation *op, Choices &choices) {
  if (!isNamed(op, "stablehlo.reduce") || op->getNumOperands() != 2 ||
      updateOf(op) != Update::Add || integersOf(op, "dimensions") != Dims{1} ||
      splatOf(op->getOperand(1)) != 0.0)
    return std::nullopt;
  const Role *slots = choices.get(op->getOperand(0), Role::Slots);
  if (!slots)
    return std::nullopt;
  return Combination{slots->ids, slots->of, slots->weights, {}};
}

/// A product with the weights of the token, which contracts the choices.
static std::optional<Combination> matchDot(Operation *op, Choices &choices) {
  if (!isNamed(op, "stablehlo.dot_general") || op->getNumOperands() != 2)
    return std::nullopt;
  std::string dims = textOf(op, "dot_dimension_numbers");
  for (const char *field :
       {"lhs_batching_dimensions", "rhs_batching_dimensions"})
    if (integersIn(dims, field) != Dims{0})
      return std::nullopt;
  for (const char *field :
       {"lhs_contracting_dimensions", "rhs_contracting_dimensions"})
    if (integersIn(dims, field) != Dims{1})
      return std::nullopt;
  for (unsigned i : {0u, 1u}) {
    const Role *slots = choices.get(op->getOperand(i), Role::Slots);
    Value weights = op->getOperand(1 - i);
    if (slots && !slots->weights && areWeightsOf(weights, slots->ids))
      return Combination{slots->ids, slots->of, weights, {}};
  }
  return std::nullopt;
}

/// Rows that are added at their tokens.
static std::optional<Combination> matchScatter(Operation *op,
                                               Choices &choices) {
  if (!scattersRows(op) || updateOf(op) != Update::Add)
    return std::nullopt;
  const Role *tokens = choices.getTokens(op->getOperand(1));
  Value into = op->getOperand(0), rows = op->getOperand(2);
  if (!tokens || cast<RankedTensorType>(into.getType()).getRank() != 2 ||
      !haveSameRows(into, tokens->ids))
    return std::nullopt;
  // As many rows as choices.
  std::optional<Extent> count = rowsOf(rows),
                        places = rowsOf(op->getOperand(1));
  if (!count || !places || !(*count == *places))
    return std::nullopt;
  Combination found{tokens->ids, rows, {}, into};
  if (splatOf(into) == 0.0)
    found.into = {};
  if (Operation *product = definedBy(rows, "stablehlo.multiply"))
    for (unsigned i : {0u, 1u}) {
      const Role *weights =
          choices.get(product->getOperand(i), Role::SortedWeights);
      if (weights && weights->ids == tokens->ids) {
        found.rows = product->getOperand(1 - i);
        found.weights = weights->of;
        break;
      }
    }
  return found;
}

/// The row of the only choice, times its weight.
static std::optional<Combination> matchProduct(Operation *op,
                                               Choices &choices) {
  if (!isNamed(op, "stablehlo.multiply"))
    return std::nullopt;
  for (unsigned i : {0u, 1u}) {
    const Role *rows = choices.get(op->getOperand(i), Role::Rows);
    if (!rows || rows->weights || topKOf(rows->ids) != 1)
      continue;
    if (Value weights =
            Selectors::weightsOf(op->getOperand(1 - i), {"t", "*"}, rows->ids))
      return Combination{rows->ids, rows->of, weights, {}};
  }
  return std::nullopt;
}

bool mlir::moe::raising::replaceByCombination(Operation *op, Routing &routing,
                                              Value rows, Value positions,
                                              Value weights, Value into) {
  auto rowsType = dyn_cast<RankedTensorType>(rows.getType());
  auto type = cast<RankedTensorType>(op->getResult(0).getType());
  Type element = type.getElementType();
  if (!rowsType || rowsType.getRank() != 2 ||
      !(element.isF32() || element.isF16() || element.isBF16()))
    return false;
  RewriterBase &rewriter = routing.rewriter;
  rewriter.setInsertionPoint(op);
  Location loc = op->getLoc();
  Operation *rounded = op;
  if (rowsType.getElementType() != element) {
    if (!element.isF32())
      return false;
    // The sum is one of f32; if nothing but its rounding is used, rows need not
    // be widened.
    Operation *user =
        op->hasOneUse() ? *op->getResult(0).getUsers().begin() : nullptr;
    if (isNamed(user, "stablehlo.convert") && !into &&
        getElementTypeOrSelf(user->getResult(0)) == rowsType.getElementType())
      rounded = user;
    else
      rows = arith::ExtFOp::create(rewriter, loc,
                                   rowsType.clone(rewriter.getF32Type()), rows);
  }
  Value sum = CombineOp::create(rewriter, loc, rows, positions, weights,
                                /*dropped=*/nullptr, /*normalize=*/nullptr);
  // Of tokens in groups.
  auto result = cast<RankedTensorType>(rounded->getResult(0).getType());
  if (result.getRank() == 3)
    sum = tensor::ExpandShapeOp::create(
        rewriter, loc, result.clone(getElementTypeOrSelf(sum)), sum,
        SmallVector<ReassociationIndices>{{0, 1}, {2}});
  sum = routing.recast(sum, rounded->getResult(0).getType());
  if (into)
    sum = arith::AddFOp::create(rewriter, loc, into, sum);
  rewriter.replaceAllUsesWith(rounded->getResult(0), sum);
  return true;
}

bool mlir::moe::raising::raiseCombine(Operation *op, Routing &routing) {
  std::optional<Combination> found;
  for (auto match : {matchSum, matchDot, matchScatter, matchProduct})
    if (!found)
      found = match(op, routing.choices);
  if (!found)
    return false;
  Operation *grouping = routing.groupingBefore(op, found->ids);
  return replaceByCombination(op, routing, found->rows,
                              Routing::positionsOf(grouping), found->weights,
                              found->into);
}

unsigned mlir::moe::raising::raiseOnlyChoices(Routing &routing) {
  unsigned count = 0;
  SmallVector<std::pair<Value, Role>> all(routing.choices.all());
  for (const auto &[value, role] : all) {
    Operation *op = value.getDefiningOp();
    if (role.kind != Role::Rows || topKOf(role.ids) != 1 || value.use_empty() ||
        !(isNamed(op, "stablehlo.gather") || isNamed(op, "stablehlo.scatter")))
      continue;
    // What has become a combination with weights is not used any more.
    if (llvm::all_of(op->getUsers(), [](Operation *user) {
          return user->getNumResults() > 0 && user->use_empty();
        }))
      continue;
    Operation *grouping = routing.groupingBefore(op, role.ids);
    count += replaceByCombination(
        op, routing, role.of, Routing::positionsOf(grouping), role.weights, {});
  }
  return count;
}
