//===- RaiseUnrolled.cpp - Sums of experts that are written out ----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A loop over the experts, unrolled: the sum of what each one computes of all
// tokens, times the weights of the tokens that chose it, and 0 for others. The
// terms are the same operations, of slices of the same weights or of weights
// that are an argument for each expert.
//
//===----------------------------------------------------------------------===//

#include "Extents.h"
#include "Routing/Groups/GroupRows.h"
#include "Routing/Unrolled/Comparison.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

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
  SmallVector<ExpertTerm> terms;
  auto take = [&](Value value) {
    std::optional<ExpertTerm> term = matchExpertTerm(value, routing);
    if (term)
      terms.push_back(*term);
    return term.has_value();
  };
  Value rest = takeTerms(op->getResult(0), take);
  // Perhaps added to what is there, such as a shared expert.
  Value into = take(rest) || splatOf(rest) == 0.0 ? Value() : rest;
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
  Comparison comparison(Comparison::Experts, routing.selectors);
  SmallVector<Value> values = llvm::map_to_vector(
      byExpert, [](const ExpertTerm *term) { return term->rows; });
  if (!comparison.compare(values))
    return false;
  RowGrouper grouper(routing, op, RowLayout::First, byExpert[0]->mask);
  grouper.take(comparison);
  Value rows = grouper.group(byExpert[0]->rows, {"t", "n"});
  return rows && replaceByCombination(op, routing, rows, grouper.getPositions(),
                                      grouper.getWeights(), into);
}
