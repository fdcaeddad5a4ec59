//===- RaiseLoop.cpp - Loops over the experts ----------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// jax.lax.scan and jax.lax.fori_loop over the experts: each iteration adds what
// one of them computes of all tokens, times the weights of those that chose it,
// or stores it, as jax.lax.map does. The first iteration stands for all: the
// others differ in the slices of the weights alone.
//
//===----------------------------------------------------------------------===//

#include "Extents.h"
#include "Routing/Groups/GroupRows.h"

#include "llvm/Support/SaveAndRestore.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

using Dims = SmallVector<int64_t>;

namespace {
/// A loop from 0 to `count`, and copies of what its first iteration computes.
class Loop {
public:
  Loop(Operation *op, Routing &routing)
      : op(op), routing(routing), rewriter(routing.rewriter),
        condition(op->getRegion(0).front()), body(op->getRegion(1).front()) {}

  /// Finds the counters; false for other loops.
  bool match();
  bool isInvariant(unsigned index) const {
    return end()->getOperand(index) == body.getArgument(index);
  }
  bool isCounter(unsigned index) const { return counters.contains(index); }

  /// Returns a value of the first iteration, computed before the loop; null if
  /// it depends on what the iterations before have computed.
  Value first(Value value);
  Operation *end() const { return &body.back(); }

  Operation *op;
  int64_t count = 0;
  /// The values of the first iteration that are others in later ones; those
  /// that are the first slice of a tensor, and theirs the later ones.
  llvm::DenseSet<Value> varying, slices;

private:
  /// The value that a constant of the condition has.
  std::optional<double> constantOf(Value value) const;
  /// True for a counter itself, and what it is made to count from the start.
  bool isIndex(Value value);
  bool countsFromZero(unsigned index) const;
  Value zero(Type type);
  Value firstSlice(Operation *slice);
  Value build(Value value);

  Routing &routing;
  RewriterBase &rewriter;
  Block &condition, &body;
  llvm::SmallDenseSet<unsigned> counters;
  llvm::DenseMap<Value, Value> copies;
  unsigned depth = 0;
};
} // namespace

std::optional<double> Loop::constantOf(Value value) const {
  auto argument = dyn_cast<BlockArgument>(value);
  if (!argument || argument.getOwner() != &condition)
    return splatOf(value);
  return isInvariant(argument.getArgNumber())
             ? splatOf(op->getOperand(argument.getArgNumber()))
             : std::nullopt;
}

bool Loop::match() {
  unsigned values = op->getNumOperands();
  if (op->getNumResults() != values || body.getNumArguments() != values ||
      condition.getNumArguments() != values || body.empty() ||
      condition.empty() || end()->getNumOperands() != values ||
      condition.back().getNumOperands() != 1)
    return false;
  Operation *test = condition.back().getOperand(0).getDefiningOp();
  if (!test || directionOf(test) != "LT")
    return false;
  auto argument = dyn_cast<BlockArgument>(test->getOperand(0));
  std::optional<double> limit = constantOf(test->getOperand(1));
  if (!argument || argument.getOwner() != &condition || !limit)
    return false;
  count = int64_t(*limit);
  for (unsigned index = 0; index < values; ++index)
    if (countsFromZero(index))
      counters.insert(index);
  return isCounter(argument.getArgNumber());
}

/// True for a value that is 0 at first, and one more in each iteration.
bool Loop::countsFromZero(unsigned index) const {
  Operation *step = definedBy(end()->getOperand(index), "stablehlo.add");
  RankedTensorType type = tensorOf(op->getOperand(index));
  if (!step || !type || type.getRank() != 0 ||
      !isa<IntegerType>(type.getElementType()) ||
      splatOf(op->getOperand(index)) != 0.0)
    return false;
  for (unsigned i : {0u, 1u}) {
    Value by = step->getOperand(1 - i);
    auto invariant = dyn_cast<BlockArgument>(by);
    std::optional<double> number =
        invariant && invariant.getOwner() == &body &&
                isInvariant(invariant.getArgNumber())
            ? splatOf(op->getOperand(invariant.getArgNumber()))
            : splatOf(by);
    if (step->getOperand(i) == body.getArgument(index) && number == 1.0)
      return true;
  }
  return false;
}

Value Loop::zero(Type type) {
  auto tensor = cast<RankedTensorType>(type);
  OperationState state(op->getLoc(), "stablehlo.constant");
  state.addTypes(type);
  state.addAttribute(
      "value", DenseElementsAttr::get(tensor, rewriter.getIntegerAttr(
                                                  tensor.getElementType(), 0)));
  Operation *made = rewriter.create(state);
  routing.made.push_back(made);
  return made->getResult(0);
}

bool Loop::isIndex(Value value) {
  if (auto argument = dyn_cast<BlockArgument>(value))
    return argument.getOwner() == &body && isCounter(argument.getArgNumber());
  Operation *made = value.getDefiningOp();
  if (!made || made->getBlock() != &body || depth > 20)
    return false;
  llvm::SaveAndRestore<unsigned> nested(depth, depth + 1);
  if (isNamed(made, "stablehlo.convert"))
    return isa<IntegerType>(getElementTypeOrSelf(value)) &&
           isIndex(made->getOperand(0));
  // An index below 0 counts from the end: none is.
  if (isNamed(made, "stablehlo.select")) {
    Operation *test = made->getOperand(0).getDefiningOp();
    return test && directionOf(test) == "LT" && isIndex(test->getOperand(0)) &&
           splatOf(test->getOperand(1)) == 0.0 && isIndex(made->getOperand(2));
  }
  // Of 0, 1, 2, ...
  if (isNamed(made, "stablehlo.reshape"))
    return isIndex(made->getOperand(0));
  if (!isNamed(made, "stablehlo.dynamic_slice") || made->getNumOperands() != 2)
    return false;
  Value of = made->getOperand(0);
  if (auto argument = dyn_cast<BlockArgument>(of);
      argument && argument.getOwner() == &body &&
      isInvariant(argument.getArgNumber()))
    of = op->getOperand(argument.getArgNumber());
  Operation *iota = definedBy(of, "stablehlo.iota");
  return iota && tensorOf(of).getRank() == 1 &&
         tensorOf(of).getDimSize(0) >= count && isIndex(made->getOperand(1));
}

/// Returns the slice of the first iteration of a tensor with one for each.
Value Loop::firstSlice(Operation *slice) {
  Value of = first(slice->getOperand(0));
  RankedTensorType type = of ? tensorOf(of) : RankedTensorType(),
                   result = tensorOf(slice->getResult(0));
  if (!type || !type.hasStaticShape() || !result || varying.contains(of) ||
      type.getRank() < 2 || result.getRank() != type.getRank() ||
      int64_t(slice->getNumOperands()) != type.getRank() + 1 ||
      type.getDimSize(0) != count || result.getDimSize(0) != 1 ||
      result.getShape().drop_front() != type.getShape().drop_front() ||
      !isIndex(slice->getOperand(1)))
    return {};
  OperationState state(slice->getLoc(), "stablehlo.slice");
  state.addOperands(of);
  state.addTypes(result);
  auto add = [&](StringRef name, ArrayRef<int64_t> values) {
    state.addAttribute(name, rewriter.getDenseI64ArrayAttr(values));
  };
  add("start_indices", Dims(type.getRank(), 0));
  add("limit_indices", result.getShape());
  add("strides", Dims(type.getRank(), 1));
  Operation *made = rewriter.create(state);
  slices.insert(made->getResult(0));
  varying.insert(made->getResult(0));
  routing.made.push_back(made);
  routing.visit(made);
  return made->getResult(0);
}

Value Loop::first(Value value) {
  auto found = copies.find(value);
  if (found != copies.end())
    return found->second;
  if (depth > 200)
    return {};
  llvm::SaveAndRestore<unsigned> nested(depth, depth + 1);
  Value made = build(value);
  copies[value] = made;
  return made;
}

Value Loop::build(Value value) {
  if (auto argument = dyn_cast<BlockArgument>(value);
      argument && argument.getOwner() == &body &&
      !isCounter(argument.getArgNumber()))
    return isInvariant(argument.getArgNumber())
               ? op->getOperand(argument.getArgNumber())
               : Value();
  if (value.getParentBlock() != &body)
    return value;
  if (isIndex(value)) {
    Value made = zero(value.getType());
    varying.insert(made);
    return made;
  }
  Operation *of = value.getDefiningOp();
  if (of->getNumResults() != 1)
    return {};
  if (isNamed(of, "stablehlo.dynamic_slice"))
    return firstSlice(of);
  // What a region has of the iteration would be lost.
  bool hasOther = false;
  of->walk([&](Operation *inner) {
    for (Value operand : inner->getOperands())
      hasOther |= inner != of &&
                  !of->isAncestor(operand.getParentBlock()->getParentOp());
  });
  if (hasOther || stablehloName(of).empty() || isNamed(of, "stablehlo.while"))
    return {};
  IRMapping mapping;
  bool varies = false;
  for (Value operand : of->getOperands()) {
    Value copy = first(operand);
    if (!copy)
      return {};
    varies |= varying.contains(copy);
    mapping.map(operand, copy);
  }
  Operation *made = rewriter.clone(*of, mapping);
  routing.made.push_back(made);
  routing.visit(made);
  if (varies)
    varying.insert(made->getResult(0));
  return made->getResult(0);
}

/// Returns what each iteration stores at its place of the result `index`, [x],
/// of the first one; null for others.
static Value matchStored(Loop &loop, unsigned index) {
  Operation *update = definedBy(loop.end()->getOperand(index),
                                "stablehlo.dynamic_update_slice");
  Block &body = *loop.end()->getBlock();
  RankedTensorType type = tensorOf(loop.op->getResult(index));
  if (!update || !type || type.getRank() < 2 ||
      int64_t(update->getNumOperands()) != type.getRank() + 2 ||
      update->getOperand(0) != body.getArgument(index) ||
      !body.getArgument(index).hasOneUse() || type.getDimSize(0) != loop.count)
    return {};
  Value stored = update->getOperand(1);
  RankedTensorType part = tensorOf(stored);
  Operation *view = stored.getDefiningOp();
  if (!part || part.getDimSize(0) != 1 ||
      part.getShape().drop_front() != type.getShape().drop_front() || !view ||
      !(isBroadcast(view) || isReshape(view)))
    return {};
  Value from = view->getOperand(0);
  RankedTensorType of = tensorOf(from);
  if (!of || of.getShape() != part.getShape().drop_front())
    return {};
  if (isBroadcast(view) &&
      integersOf(view, "broadcast_dimensions") !=
          llvm::to_vector(llvm::seq<int64_t>(1, part.getRank())))
    return {};
  // At the counter, and at 0 along the others.
  Value at = loop.first(update->getOperand(2));
  if (!at || !loop.varying.contains(at) || splatOf(at) != 0.0)
    return {};
  for (Value start : update->getOperands().drop_front(3)) {
    Value copy = loop.first(start);
    if (!copy || loop.varying.contains(copy) || splatOf(copy) != 0.0)
      return {};
  }
  return loop.first(from);
}

bool mlir::moe::raising::raiseLoop(Operation *op, Routing &routing) {
  if (routing.gates.empty() || !isNamed(op, "stablehlo.while") ||
      op->getNumRegions() != 2 || !op->getRegion(0).hasOneBlock() ||
      !op->getRegion(1).hasOneBlock())
    return false;
  Loop loop(op, routing);
  if (!loop.match() || loop.count < 2)
    return false;
  RewriterBase &rewriter = routing.rewriter;
  Block &body = *loop.end()->getBlock();
  bool isRaised = false;
  for (unsigned index = 0; index < op->getNumResults(); ++index) {
    OpResult result = op->getResult(index);
    if (result.use_empty() || loop.isCounter(index))
      continue;
    if (loop.isInvariant(index)) {
      rewriter.replaceAllUsesWith(result, op->getOperand(index));
      isRaised = true;
      continue;
    }
    rewriter.setInsertionPoint(op);
    if (Value stored = matchStored(loop, index)) {
      routing.iterations[result] = {stored, loop.varying, loop.slices};
      continue;
    }
    // The sum so far, and a term.
    Operation *add = definedBy(loop.end()->getOperand(index), "stablehlo.add");
    Value before = body.getArgument(index);
    if (!add || !before.hasOneUse() ||
        !llvm::is_contained(add->getOperands(), before))
      continue;
    unsigned at = add->getOperand(0) == before ? 1 : 0;
    Value term = loop.first(add->getOperand(at));
    std::optional<ExpertTerm> found =
        term ? matchExpertTerm(term, routing) : std::nullopt;
    if (!found || found->mask.expert != 0 ||
        Choices::expertsOf(found->mask.ids) != loop.count)
      continue;
    // The sum with the first term stands for that with all.
    rewriter.setInsertionPoint(op);
    Value start = op->getOperand(index);
    IRMapping mapping;
    mapping.map(add->getOperand(at), term);
    mapping.map(before, start);
    Operation *sum = rewriter.clone(*add, mapping);
    RowGrouper grouper(routing, sum, RowLayout::First, found->mask);
    grouper.varying = loop.varying;
    grouper.firsts = loop.slices;
    Value rows = grouper.group(found->rows, {"t", "n"});
    if (rows) {
      rewriter.replaceAllUsesWith(result, sum->getResult(0));
      Value into = splatOf(start) == 0.0 ? Value() : start;
      if (replaceByCombination(sum, routing, rows, grouper.getPositions(),
                               grouper.getWeights(), into))
        isRaised = true;
      else
        rewriter.replaceAllUsesWith(sum->getResult(0), result);
    }
    if (sum->use_empty())
      rewriter.eraseOp(sum);
  }
  if (isRaised && op->use_empty())
    rewriter.eraseOp(op);
  return isRaised;
}
