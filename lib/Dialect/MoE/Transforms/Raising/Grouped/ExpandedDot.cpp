//===- ExpandedDot.cpp - Grouped products, group by group ----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What StableHLO's own passes lower chlo.ragged_dot to: the sum over the groups
// of products of all rows, those of other groups 0, with a slice of the
// weights. A group begins where the one before ends, at the sum of the sizes up
// to it.
//
//===----------------------------------------------------------------------===//

#include "Extents.h"
#include "GroupedProduct.h"
#include "Routing/Values/Axes.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

using Dims = SmallVector<int64_t>;

namespace {
/// The product of the rows from `start` to `end` with the weights of a group.
struct Term {
  int64_t group;
  Value rows, weights, start, end;
};
} // namespace

/// Returns the scalar that a value repeats.
static Value scalarOf(Value value) {
  while (Operation *op = value.getDefiningOp()) {
    if (!isBroadcast(op))
      break;
    value = op->getOperand(0);
  }
  RankedTensorType type = tensorOf(value);
  return type && type.getRank() == 0 ? value : Value();
}

/// True for the index of the row in a matrix.
static bool isRow(Value value) {
  while (Operation *op = value.getDefiningOp()) {
    if (!isBroadcast(op))
      break;
    auto dims = integersOf(op, "broadcast_dimensions");
    if (!dims || dims->empty() || dims->front() != 0)
      return false;
    value = op->getOperand(0);
  }
  Operation *op = value.getDefiningOp();
  return (isNamed(op, "stablehlo.iota") ||
          isNamed(op, "stablehlo.dynamic_iota")) &&
         integersOf(op, "iota_dimension") == Dims{0};
}

/// Returns what a slice takes one of along the first dimension, with all of the
/// others, and which one.
static std::optional<std::pair<Value, int64_t>> matchSlice(Value value) {
  Operation *reshape = definedBy(value, "stablehlo.reshape");
  Operation *op =
      reshape ? definedBy(reshape->getOperand(0), "stablehlo.slice") : nullptr;
  if (!op)
    return std::nullopt;
  auto starts = integersOf(op, "start_indices"),
       limits = integersOf(op, "limit_indices"),
       strides = integersOf(op, "strides");
  RankedTensorType from = tensorOf(op->getOperand(0)), to = tensorOf(value);
  if (!starts || !limits || !strides || !from || !from.hasStaticShape() ||
      int64_t(starts->size()) != from.getRank() ||
      limits->size() != starts->size() || strides->size() != starts->size() ||
      starts->empty() || limits->front() != starts->front() + 1 ||
      to.getShape() != from.getShape().drop_front())
    return std::nullopt;
  for (int64_t dim = 1; dim < from.getRank(); ++dim)
    if ((*starts)[dim] != 0 || (*limits)[dim] != from.getDimSize(dim) ||
        (*strides)[dim] != 1)
      return std::nullopt;
  return std::pair(op->getOperand(0), starts->front());
}

static std::optional<Term> matchTerm(Value value) {
  Operation *dot = definedBy(value, "stablehlo.dot_general");
  Operation *select =
      dot ? definedBy(dot->getOperand(0), "stablehlo.select") : nullptr;
  if (!select || splatOf(select->getOperand(2)) != 0.0)
    return std::nullopt;
  std::string dims = textOf(dot, "dot_dimension_numbers");
  auto slice = matchSlice(dot->getOperand(1));
  Operation *both = definedBy(select->getOperand(0), "stablehlo.and");
  if (!slice || !both ||
      integersIn(dims, "lhs_contracting_dimensions") != Dims{1} ||
      integersIn(dims, "rhs_contracting_dimensions") != Dims{0} ||
      integersIn(dims, "lhs_batching_dimensions") != Dims{} ||
      tensorOf(select->getOperand(1)) != tensorOf(dot->getOperand(0)))
    return std::nullopt;
  Term term{slice->second, select->getOperand(1), slice->first, {}, {}};
  for (Value operand : both->getOperands()) {
    Operation *compare = operand.getDefiningOp();
    std::string direction = compare ? directionOf(compare) : "";
    if (direction.empty() || !isRow(compare->getOperand(0)))
      return std::nullopt;
    Value bound = scalarOf(compare->getOperand(1));
    (direction == "GE" ? term.start : term.end) = bound;
    if (direction != "GE" && direction != "LT")
      return std::nullopt;
  }
  return term.start && term.end ? std::optional(term) : std::nullopt;
}

/// Returns the sizes of which `end` adds that of `group` to `start`.
static Value sizesOf(Value start, Value end, int64_t group) {
  Operation *add = definedBy(end, "stablehlo.add");
  if (!add || add->getOperand(0) != start ||
      !getElementTypeOrSelf(end).isInteger(64))
    return {};
  Value size = add->getOperand(1);
  if (Operation *convert = definedBy(size, "stablehlo.convert"))
    size = convert->getOperand(0);
  auto slice = matchSlice(size);
  return slice && slice->second == group ? slice->first : Value();
}

/// Erases operations of StableHLO that compute a value, and that nothing uses.
static void eraseUnused(RewriterBase &rewriter, ValueRange values) {
  SmallVector<Operation *> left;
  auto add = [&](Value value) {
    Operation *op = value.getDefiningOp();
    if (op && op->use_empty() && !stablehloName(op).empty() &&
        !llvm::is_contained(left, op))
      left.push_back(op);
  };
  llvm::for_each(values, add);
  while (!left.empty()) {
    Operation *op = left.pop_back_val();
    SmallVector<Value> operands(op->getOperands());
    rewriter.eraseOp(op);
    llvm::for_each(operands, add);
  }
}

Outcome mlir::moe::raising::raiseExpandedDot(Operation *op,
                                             GroupedProductBuilder &builder) {
  // The last of the sums has the product of the last group.
  SmallVector<Term> terms;
  Value sum = op->getResult(0);
  auto take = [&](Value value) {
    std::optional<Term> term = matchTerm(value);
    if (term)
      terms.push_back(*term);
    return term.has_value();
  };
  while (Operation *add = definedBy(sum, "stablehlo.add")) {
    if (!take(add->getOperand(1)))
      return {};
    sum = add->getOperand(0);
  }
  if (terms.empty() || !take(sum))
    return {};
  std::reverse(terms.begin(), terms.end());
  const Term &first = terms.front();
  RankedTensorType weights = tensorOf(first.weights);
  Value sizes = sizesOf(first.start, first.end, 0);
  // Sums of fewer groups are parts of this one.
  if (int64_t(terms.size()) != weights.getDimSize(0))
    return {};
  if (!sizes || splatOf(first.start) != 0.0 ||
      tensorOf(sizes).getDimSize(0) != weights.getDimSize(0))
    return Outcome::left("its first group does not begin at the first row");
  for (auto [group, term] : llvm::enumerate(terms)) {
    if (term.group != int64_t(group) || term.rows != first.rows ||
        term.weights != first.weights ||
        (group > 0 && term.start != terms[group - 1].end) ||
        sizesOf(term.start, term.end, group) != sizes)
      return Outcome::left("its groups do not follow each other");
  }
  SmallVector<Value> operands(op->getOperands());
  Outcome outcome = builder.replace(
      op, GroupedProduct{first.rows, sizes, GroupArgument::Sizes, first.weights,
                         /*transposed=*/false, /*zeroRest=*/true,
                         op->getResult(0).getType()});
  if (outcome.kind == Outcome::Raised)
    eraseUnused(builder.getRewriter(), operands);
  return outcome;
}
