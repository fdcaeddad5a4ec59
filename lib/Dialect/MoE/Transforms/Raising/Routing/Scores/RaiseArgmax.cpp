//===- RaiseArgmax.cpp - The largest score as a choice -------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// jnp.argmax: a reduction of the scores and their indices, of which the lower
// one is kept among equals; or the smallest index among the scores that are
// equal to their maximum. It becomes a gate of one choice, if a layer uses it.
// The maximum of the same scores is the weight of the choice.
//
//===----------------------------------------------------------------------===//

#include "Extents.h"
#include "Routing/Routing.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/TypeUtilities.h"

#include <limits>

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

using Dims = SmallVector<int64_t>;

/// Returns the direction of a comparison of StableHLO or arith.
static std::string comparisonOf(Operation *op) {
  // oeq, une, slt, ugt, ...
  if (auto compare = dyn_cast<arith::CmpIOp>(op))
    return arith::stringifyCmpIPredicate(compare.getPredicate())
        .take_back(2)
        .upper();
  if (auto compare = dyn_cast<arith::CmpFOp>(op))
    return arith::stringifyCmpFPredicate(compare.getPredicate())
        .take_back(2)
        .upper();
  return directionOf(op);
}

/// Computes a value of comparisons, of some values; none if it is not known.
static std::optional<double> evaluate(Value value, ValueRange arguments,
                                      ArrayRef<double> numbers,
                                      unsigned &budget) {
  for (auto [argument, number] : llvm::zip_equal(arguments, numbers))
    if (value == argument)
      return number;
  Operation *op = value.getDefiningOp();
  if (!op || budget == 0 || op->getNumRegions() != 0 ||
      op->getNumResults() != 1)
    return std::nullopt;
  --budget;
  // Indices as integers are the same.
  if (isa<arith::IndexCastOp>(op))
    return evaluate(op->getOperand(0), arguments, numbers, budget);
  SmallVector<double> x;
  for (Value operand : op->getOperands()) {
    std::optional<double> number =
        evaluate(operand, arguments, numbers, budget);
    if (!number)
      return std::nullopt;
    x.push_back(*number);
  }
  StringRef name = op->getName().getDialectNamespace() == "arith"
                       ? op->getName().stripDialect()
                       : stablehloName(op);
  if (name == "select" && x.size() == 3)
    return x[0] != 0 ? x[1] : x[2];
  bool isTruth = getElementTypeOrSelf(value).isInteger(1);
  if (name == "not" && isTruth && x.size() == 1)
    return x[0] == 0;
  if (x.size() != 2)
    return std::nullopt;
  if (name == "maximum" || name == "maximumf" || name == "maxnumf" ||
      name == "maxsi")
    return std::max(x[0], x[1]);
  if (name == "minimum" || name == "minsi")
    return std::min(x[0], x[1]);
  if ((name == "and" || name == "andi") && isTruth)
    return x[0] != 0 && x[1] != 0;
  if ((name == "or" || name == "ori") && isTruth)
    return x[0] != 0 || x[1] != 0;
  return llvm::StringSwitch<std::optional<double>>(comparisonOf(op))
      .Case("GT", x[0] > x[1])
      .Case("GE", x[0] >= x[1])
      .Case("LT", x[0] < x[1])
      .Case("LE", x[0] <= x[1])
      .Case("EQ", x[0] == x[1])
      .Case("NE", x[0] != x[1])
      .Default(std::nullopt);
}

bool mlir::moe::raising::keepsFirstLargest(ValueRange arguments,
                                           ValueRange results, bool isOrdered) {
  for (unsigned bits = 0; bits < 16; ++bits) {
    double x[4];
    for (unsigned i = 0; i < 4; ++i)
      x[i] = bits >> i & 1;
    if (isOrdered && x[1] > x[3])
      continue;
    bool first = x[0] > x[2] || (x[0] == x[2] && x[1] < x[3]);
    for (unsigned i : {0u, 1u}) {
      unsigned budget = 200;
      if (evaluate(results[i], arguments, x, budget) != x[first ? i : 2 + i])
        return false;
    }
  }
  return true;
}

bool mlir::moe::raising::countsExactly(Value value, int64_t dim) {
  RankedTensorType type = tensorOf(value);
  Type element = type.getElementType();
  if (type.isDynamicDim(dim) || !element.isIntOrFloat())
    return false;
  auto number = dyn_cast<FloatType>(element);
  unsigned bits = number ? number.getFPMantissaWidth()
                         : element.getIntOrFloatBitWidth() - 1;
  return bits > 62 || type.getDimSize(dim) <= int64_t(1) << bits;
}

/// True for the index along the last dimension.
static bool isIndex(Value value) {
  Operation *op = value.getDefiningOp();
  RankedTensorType type = tensorOf(value);
  if (!op || !type || type.getRank() == 0)
    return false;
  int64_t last = type.getRank() - 1;
  if (!countsExactly(value, last))
    return false;
  auto dim = integersOf(op, "iota_dimension");
  if (isNamed(op, "stablehlo.iota") || isNamed(op, "stablehlo.dynamic_iota"))
    return dim == Dims{last};
  Value from = op->getNumOperands() > 0 ? op->getOperand(0) : Value();
  if (isNamed(op, "stablehlo.convert"))
    return isIndex(from);
  if (isReshape(op))
    // Dimensions of extent 1 come first.
    return tensorOf(from).getRank() > 0 &&
           tensorOf(from).getShape().back() == type.getShape().back() &&
           tensorOf(from).hasStaticShape() &&
           tensorOf(from).getNumElements() == type.getShape().back() &&
           isIndex(from);
  if (!isBroadcast(op))
    return false;
  auto dims = integersOf(op, "broadcast_dimensions");
  RankedTensorType source = tensorOf(from);
  return source && source.getRank() > 0 && dims && !dims->empty() &&
         dims->back() == last &&
         source.getShape().back() == type.getShape().back() && isIndex(from);
}

/// Returns what a reduction along the last dimension is of, if it starts at
/// −inf; null for others.
static Value reducedFromNone(Operation *op, unsigned operands) {
  RankedTensorType type = op->getNumOperands() == operands
                              ? tensorOf(op->getOperand(0))
                              : RankedTensorType();
  return type && type.getRank() >= 2 &&
                 !type.isDynamicDim(type.getRank() - 1) &&
                 isRowFloat(type.getElementType()) &&
                 integersOf(op, "dimensions") == Dims{type.getRank() - 1} &&
                 splatOf(op->getOperand(operands / 2)) ==
                     -std::numeric_limits<double>::infinity()
             ? op->getOperand(0)
             : Value();
}

namespace {
/// The scores that an argmax chooses among, the index, and perhaps the value.
struct Found {
  Value scores, id, largest;
};
} // namespace

/// The first index of the scores that are equal to the largest one: the
/// smallest among these, of all others one that is none of an expert.
static std::optional<Found> matchFirstIndex(Operation *op) {
  RankedTensorType type = tensorOf(op->getOperand(0));
  Operation *select = definedBy(op->getOperand(0), "stablehlo.select");
  if (!select || !type || type.getRank() < 2 || updateOf(op) != Update::Min ||
      integersOf(op, "dimensions") != Dims{type.getRank() - 1} ||
      !isIndex(select->getOperand(1)))
    return std::nullopt;
  double last = double(type.getShape().back()) - 1;
  for (Value none : {select->getOperand(2), op->getOperand(1)})
    if (std::optional<double> index = splatOf(none); !index || *index < last)
      return std::nullopt;
  Operation *compare = select->getOperand(0).getDefiningOp();
  std::string direction = compare ? directionOf(compare) : "";
  for (bool swapped : {false, true}) {
    if (direction != "EQ" && direction != (swapped ? "LE" : "GE"))
      continue;
    Value scores = compare->getOperand(swapped);
    Value largest =
        repeatedAlongRows(compare->getOperand(!swapped), type.getRank() - 1);
    Operation *reduce = largest ? largest.getDefiningOp() : nullptr;
    if (isNamed(reduce, "stablehlo.reduce") &&
        updateOf(reduce) == Update::Max && reducedFromNone(reduce, 2) == scores)
      return Found{scores, op->getResult(0), {}};
  }
  return std::nullopt;
}

static std::optional<Found> matchArgmax(Operation *op) {
  if (isNamed(op, "stablehlo.argmax"))
    return Found{op->getOperand(0), op->getResult(1), op->getResult(0)};
  if (!isNamed(op, "stablehlo.reduce") || op->getNumRegions() != 1 ||
      !op->getRegion(0).hasOneBlock())
    return std::nullopt;
  if (op->getNumOperands() == 2 && op->getNumResults() == 1)
    return matchFirstIndex(op);
  Value scores = op->getNumResults() == 2 ? reducedFromNone(op, 4) : Value();
  if (!scores || !isIndex(op->getOperand(1)))
    return std::nullopt;
  std::optional<double> first = splatOf(op->getOperand(3));
  Block &body = op->getRegion(0).front();
  Operation *end = body.empty() ? nullptr : &body.back();
  if (!first || *first < 0 || !isNamed(end, "stablehlo.return") ||
      body.getNumArguments() != 4 || end->getNumOperands() != 2 ||
      !keepsFirstLargest(body.getArguments(), end->getOperands(),
                         /*isOrdered=*/false))
    return std::nullopt;
  return Found{scores, op->getResult(1), op->getResult(0)};
}

std::optional<Argmax> mlir::moe::raising::raiseArgmax(Operation *op,
                                                      Routing &routing) {
  RewriterBase &rewriter = routing.rewriter;
  std::optional<Found> found =
      stablehloName(op).empty() ? std::nullopt : matchArgmax(op);
  if (!found)
    return std::nullopt;
  Value scores = found->scores;
  RankedTensorType type = tensorOf(scores), ids = tensorOf(found->id);
  Operation *from = scores.getDefiningOp();
  if (!ids || ids.getRank() != type.getRank() - 1 ||
      type.isDynamicDim(type.getRank() - 1) ||
      !isRowFloat(type.getElementType()) ||
      !(ids.getElementType().isSignlessInteger(32) ||
        ids.getElementType().isSignlessInteger(64)) ||
      (from && from->getBlock() != op->getBlock()))
    return std::nullopt;
  // Where the scores are, so that it is before what else is computed of them.
  rewriter.setInsertionPointAfterValue(scores);
  Location loc = op->getLoc();
  Value rows = ids.getRank() == 1 ? scores : flattenTokens(scores, routing);
  if (!rows)
    return std::nullopt;
  Argmax made{buildTopK(rewriter, loc, rows, 1), {}};
  if (rows != scores)
    routing.gatesOfScores.insert({scores, made.gate});
  auto vectorOf = [&](Value column) -> Value {
    Value vector = tensor::CollapseShapeOp::create(
        rewriter, loc, column, ArrayRef<ReassociationIndices>{{0, 1}});
    RankedTensorType type = ids.clone(getElementTypeOrSelf(vector));
    return type.getRank() == 1 ? vector
                               : restoreTokens(vector, scores, type, rewriter);
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
  replace(found->id, id);
  if (found->largest)
    replace(found->largest, vectorOf(made.gate.getWeights()));
  if (!isSubtracted)
    for (Operation *other : others)
      replace(other->getResult(0), vectorOf(made.gate.getWeights()));
  return made;
}

/// Erases an operation that nothing uses, and what it alone used in turn, which
/// has no effect: the reshapes and the rows of the scores.
static void eraseUnused(Operation *op, RewriterBase &rewriter) {
  SmallVector<Operation *> pending{op};
  while (!pending.empty()) {
    Operation *next = pending.pop_back_val();
    if (!next || !next->use_empty())
      continue;
    for (Value operand : next->getOperands())
      if (operand.hasOneUse())
        pending.push_back(operand.getDefiningOp());
    rewriter.eraseOp(next);
  }
}

bool mlir::moe::raising::undoUnused(const Argmax &made,
                                    RewriterBase &rewriter) {
  GateOp gate = made.gate;
  if (!gate.getIds().hasOneUse())
    return false;
  for (auto [old, by] : made.replaced)
    rewriter.replaceAllUsesWith(by, old);
  for (auto [old, by] : made.replaced)
    if (by.use_empty())
      eraseUnused(by.getDefiningOp(), rewriter);
  return true;
}
