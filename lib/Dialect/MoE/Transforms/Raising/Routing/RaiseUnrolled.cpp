//===- RaiseUnrolled.cpp - Sums of experts that are written out ----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A loop over the experts, unrolled: the sum of what each one computes of all
// tokens, times the weights of the tokens that chose it, and 0 for others. The
// terms are the same operations, of slices of the same weights.
//
//===----------------------------------------------------------------------===//

#include "Extents.h"
#include "Routing/Groups/GroupRows.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

namespace {
/// Compares what an expert computes with the first one.
class Comparison {
public:
  Comparison(int64_t expert, RowGrouper &grouper,
             llvm::SmallPtrSetImpl<Operation *> &shared)
      : expert(expert), grouper(grouper), shared(shared) {}

  bool compare(Value first, Value other) {
    if (first == other) {
      if (Operation *op = first.getDefiningOp())
        shared.insert(op);
      return true;
    }
    auto [known, isNew] = seen.insert({first, other});
    if (!isNew)
      return known->second == other;
    Operation *a = first.getDefiningOp(), *b = other.getDefiningOp();
    if (!a || !b || a->getName() != b->getName() ||
        first.getType() != other.getType() || a->getNumResults() != 1 ||
        b->getNumResults() != 1 || a->getNumRegions() != 0 ||
        a->getNumOperands() != b->getNumOperands() || ++depth > 200)
      return false;
    bool isSlice = isNamed(a, "stablehlo.slice") &&
                   a->getOperand(0) == b->getOperand(0) && isSliceOf(a, 0) &&
                   isSliceOf(b, expert);
    if (isSlice) {
      grouper.firsts.insert(first);
    } else {
      if (!haveSameAttributes(a, b))
        return false;
      for (auto [x, y] : llvm::zip_equal(a->getOperands(), b->getOperands()))
        if (!compare(x, y))
          return false;
    }
    --depth;
    // Numbers are the same wherever they are.
    if (!splatOf(first))
      grouper.varying.insert(first);
    return true;
  }

private:
  static bool haveSameAttributes(Operation *a, Operation *b) {
    // Those of an operation that is not registered are properties.
    NamedAttrList left(a->getDiscardableAttrDictionary()),
        right(b->getDiscardableAttrDictionary());
    left.erase("id");
    right.erase("id");
    return left.getDictionary(a->getContext()) ==
               right.getDictionary(a->getContext()) &&
           a->getPropertiesAsAttribute() == b->getPropertiesAsAttribute();
  }

  /// True for the matrix, or vector, of an expert.
  static bool isSliceOf(Operation *op, int64_t expert) {
    auto starts = integersOf(op, "start_indices"),
         limits = integersOf(op, "limit_indices"),
         strides = integersOf(op, "strides");
    RankedTensorType from = tensorOf(op->getOperand(0));
    if (!starts || !limits || !strides || !from || !from.hasStaticShape() ||
        from.getRank() < 2 || int64_t(starts->size()) != from.getRank() ||
        starts->front() != expert || limits->front() != expert + 1)
      return false;
    for (int64_t dim = 1; dim < from.getRank(); ++dim)
      if ((*starts)[dim] != 0 || (*limits)[dim] != from.getDimSize(dim) ||
          (*strides)[dim] != 1)
        return false;
    return true;
  }

  int64_t expert;
  RowGrouper &grouper;
  llvm::SmallPtrSetImpl<Operation *> &shared;
  llvm::DenseMap<Value, Value> seen;
  unsigned depth = 0;
};
} // namespace

/// True if some of `ops`, or what they are computed from, has the weights of
/// the first expert.
static bool useFirst(const llvm::SmallPtrSetImpl<Operation *> &ops,
                     const llvm::DenseSet<Value> &firsts) {
  llvm::SmallPtrSet<Operation *, 32> seen(ops.begin(), ops.end());
  SmallVector<Operation *> left(ops.begin(), ops.end());
  while (!left.empty()) {
    Operation *op = left.pop_back_val();
    if (op->getNumResults() == 1 && firsts.contains(op->getResult(0)))
      return true;
    for (Value operand : op->getOperands())
      if (Operation *of = operand.getDefiningOp(); of && seen.insert(of).second)
        left.push_back(of);
  }
  return false;
}

std::optional<ExpertTerm>
mlir::moe::raising::matchExpertTerm(Value value, Routing &routing) {
  Operation *product = definedBy(value, "stablehlo.multiply");
  if (!product)
    return std::nullopt;
  for (unsigned i : {0u, 1u}) {
    std::optional<Selector> mask =
        routing.selectors.get(product->getOperand(i));
    if (mask && mask->kind == Selector::Product && mask->expert &&
        mask->weights && mask->axes == Axes{"t", "*"})
      return ExpertTerm{product->getOperand(1 - i), *mask};
  }
  return std::nullopt;
}

bool mlir::moe::raising::raiseUnrolled(Operation *op, Routing &routing) {
  if (routing.gates.empty() || !isNamed(op, "stablehlo.add"))
    return false;
  // The terms of sums on the left, the last one first.
  SmallVector<ExpertTerm> terms;
  Value sum = op->getResult(0);
  while (Operation *add = definedBy(sum, "stablehlo.add")) {
    std::optional<ExpertTerm> term;
    for (unsigned i : {1u, 0u}) {
      if (term)
        break;
      term = matchExpertTerm(add->getOperand(i), routing);
      if (term)
        sum = add->getOperand(1 - i);
    }
    if (!term)
      break;
    terms.push_back(*term);
  }
  if (std::optional<ExpertTerm> term = matchExpertTerm(sum, routing))
    terms.push_back(*term);
  else if (splatOf(sum) != 0.0)
    return false;
  if (terms.empty())
    return false;
  Value ids = terms.front().mask.ids;
  int64_t experts = Choices::expertsOf(ids);
  if (int64_t(terms.size()) != experts || experts < 2)
    return false;
  SmallVector<const ExpertTerm *> byExpert(experts);
  for (const ExpertTerm &term : terms) {
    int64_t expert = *term.mask.expert;
    if (term.mask.ids != ids || expert < 0 || expert >= experts ||
        !haveSameWeights(term.mask, terms.front().mask) || byExpert[expert])
      return false;
    byExpert[expert] = &term;
  }
  RowGrouper grouper(routing, op, RowLayout::First, byExpert[0]->mask);
  llvm::SmallPtrSet<Operation *, 16> shared;
  for (int64_t expert = 1; expert < experts; ++expert)
    if (!Comparison(expert, grouper, shared)
             .compare(byExpert[0]->rows, byExpert[expert]->rows))
      return false;
  // An expert that has weights of the first one, too.
  if (useFirst(shared, grouper.firsts))
    return false;
  Value rows = grouper.group(byExpert[0]->rows, {"t", "n"});
  return rows && replaceByCombination(op, routing, rows, grouper.getPositions(),
                                      grouper.getWeights(), {});
}
