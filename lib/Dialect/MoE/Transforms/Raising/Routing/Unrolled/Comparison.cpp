//===- Comparison.cpp - What is written out for each expert --------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Routing/Unrolled/Comparison.h"
#include "Extents.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

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

bool Comparison::isPair(Value first, Value other) {
  if (kind == Choices) {
    std::optional<Selector> a = selectors.get(first), b = selectors.get(other);
    return a && b && a->kind == Selector::Column && a->choice == 0 &&
           b->kind == Selector::Column && b->choice == index &&
           a->ids == b->ids && a->axes == b->axes;
  }
  Operation *a = definedBy(first, "stablehlo.slice"),
            *b = definedBy(other, "stablehlo.slice");
  return a && b && a->getOperand(0) == b->getOperand(0) && isSliceOf(a, 0) &&
         isSliceOf(b, index);
}

/// True for a value that is not computed, but an argument or a constant.
static bool isGiven(Value value) {
  RankedTensorType type = tensorOf(value);
  Operation *op = value.getDefiningOp();
  return type && type.hasStaticShape() && type.getRank() > 0 &&
         isa<FloatType>(type.getElementType()) &&
         (!op || (op->hasAttr("value") && op->getNumOperands() == 0 &&
                  !splatOf(value)));
}

bool Comparison::isPart(Value first, Value other) {
  if (kind != Experts || !isGiven(first) || !isGiven(other))
    return false;
  SmallVector<Value> &all = parts[first];
  all.resize(count);
  all[0] = first;
  all[index] = other;
  return true;
}

bool Comparison::compare(Value first, Value other) {
  if (first == other) {
    shared.insert(first);
    return true;
  }
  auto [known, isNew] = seen.insert({first, other});
  if (!isNew)
    return known->second == other;
  if (first.getType() != other.getType() || ++depth > 200)
    return false;
  if (isPair(first, other) || isPart(first, other)) {
    firsts.insert(first);
  } else {
    Operation *a = first.getDefiningOp(), *b = other.getDefiningOp();
    if (!a || !b || a->getName() != b->getName() || a->getNumResults() != 1 ||
        b->getNumResults() != 1 || a->getNumRegions() != 0 ||
        a->getNumOperands() != b->getNumOperands() || !haveSameAttributes(a, b))
      return false;
    for (auto [x, y] : llvm::zip_equal(a->getOperands(), b->getOperands()))
      if (!compare(x, y))
        return false;
  }
  --depth;
  // Numbers are the same wherever they are.
  if (!splatOf(first))
    varying.insert(first);
  return true;
}

/// True if something that all have is computed from what is the first one's.
bool Comparison::shareFirsts() const {
  llvm::DenseSet<Value> known(shared);
  SmallVector<Value> left(shared.begin(), shared.end());
  while (!left.empty()) {
    Value value = left.pop_back_val();
    if (firsts.contains(value))
      return true;
    if (Operation *op = value.getDefiningOp())
      for (Value operand : op->getOperands())
        if (known.insert(operand).second)
          left.push_back(operand);
  }
  return false;
}

bool Comparison::compare(ArrayRef<Value> values) {
  count = values.size();
  for (index = 1; index < count; ++index) {
    seen.clear();
    depth = 0;
    if (!compare(values.front(), values[index]))
      return false;
  }
  if (shareFirsts())
    return false;
  return llvm::all_of(parts, [](const auto &each) {
    return llvm::all_of(each.second, [](Value part) { return bool(part); });
  });
}

Value mlir::moe::raising::takeTerms(Value sum,
                                    llvm::function_ref<bool(Value)> take) {
  while (Operation *add = definedBy(sum, "stablehlo.add")) {
    bool isTaken = false;
    for (unsigned i : {1u, 0u}) {
      if (!take(add->getOperand(i)))
        continue;
      sum = add->getOperand(1 - i);
      isTaken = true;
      break;
    }
    if (!isTaken)
      break;
  }
  return sum;
}
