//===- RaiseChoices.cpp - Sums of choices that are written out -----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A loop over the choices of a token, unrolled: the sum of what the expert of
// each one computes, with weights that are gathered by a column of the ids,
// times that column of the weights.
//
//===----------------------------------------------------------------------===//

#include "Extents.h"
#include "Routing/Groups/GroupRows.h"
#include "Routing/Unrolled/Comparison.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

namespace {
/// Rows [t, n] times a column of weights.
struct ChoiceTerm {
  Value rows, ids, weights;
  int64_t choice;
};
} // namespace

static std::optional<ChoiceTerm> matchTerm(Value value, Value ids) {
  Operation *product = definedBy(value, "stablehlo.multiply");
  if (!product)
    return std::nullopt;
  for (unsigned i : {0u, 1u})
    if (auto column =
            Selectors::columnOf(product->getOperand(i), {"t", "*"}, ids))
      return ChoiceTerm{product->getOperand(1 - i), ids, column->first,
                        column->second};
  return std::nullopt;
}

bool mlir::moe::raising::raiseChoices(Operation *op, Routing &routing) {
  if (!isNamed(op, "stablehlo.add") ||
      tensorOf(op->getResult(0)).getRank() != 2)
    return false;
  for (Value ids : routing.gates) {
    int64_t count = topKOf(ids);
    if (count < 2 || !routing.selectors.get(ids))
      continue;
    SmallVector<ChoiceTerm> terms;
    auto take = [&](Value value) {
      std::optional<ChoiceTerm> term = matchTerm(value, ids);
      if (term)
        terms.push_back(*term);
      return term.has_value();
    };
    Value rest = takeTerms(op->getResult(0), take);
    Value into = take(rest) || splatOf(rest) == 0.0 ? Value() : rest;
    if (int64_t(terms.size()) != count)
      continue;
    SmallVector<Value> values(count);
    for (const ChoiceTerm &term : terms)
      if (term.weights == terms.front().weights)
        values[term.choice] = term.rows;
    Comparison comparison(Comparison::Choices, routing.selectors);
    if (llvm::is_contained(values, Value()) || !comparison.compare(values))
      continue;
    Selector selector = *routing.selectors.get(ids);
    selector.weights = terms.front().weights;
    RowGrouper grouper(routing, op, RowLayout::Column, selector);
    grouper.take(comparison);
    Value rows = grouper.group(values.front(), {"t", "n"});
    if (rows && replaceByCombination(op, routing, rows, grouper.getPositions(),
                                     grouper.getWeights(), into))
      return true;
  }
  return false;
}
