//===- Choices.cpp - What values are of the choices of tokens ------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Routing/Values/Choices.h"
#include "Extents.h"

#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

using Dims = SmallVector<int64_t>;

//===----------------------------------------------------------------------===//
// Operations of StableHLO
//===----------------------------------------------------------------------===//

static bool hasRank(Value value, int64_t rank) {
  RankedTensorType type = tensorOf(value);
  return type && type.getRank() == rank;
}

static bool isInteger(Value value) {
  RankedTensorType type = tensorOf(value);
  return type && isa<IntegerType>(type.getElementType());
}

/// True for [n] and [n, 1].
static bool isVector(Value value) {
  RankedTensorType type = tensorOf(value);
  return type && (type.getRank() == 1 ||
                  (type.getRank() == 2 && type.getDimSize(1) == 1));
}

/// True if a sort compares only its first operand, signed, ascending.
static bool sortsAscending(Operation *op) {
  if (op->getNumRegions() != 1 || !op->getRegion(0).hasOneBlock() ||
      integersOf(op, "dimension") != Dims{0})
    return false;
  Block &body = op->getRegion(0).front();
  if (body.getOperations().size() != 2 || body.getNumArguments() < 2)
    return false;
  Operation &compare = body.front(), &end = body.back();
  return directionOf(&compare) == "LT" &&
         compare.getOperand(0) == body.getArgument(0) &&
         compare.getOperand(1) == body.getArgument(1) &&
         end.getNumOperands() == 1 &&
         end.getOperand(0) == compare.getResult(0) &&
         isInteger(op->getOperand(0));
}

//===----------------------------------------------------------------------===//
// Ids
//===----------------------------------------------------------------------===//

Value Choices::idsOf(Value value) {
  while (Operation *convert = definedBy(value, "stablehlo.convert")) {
    if (!isInteger(convert->getOperand(0)) || !isInteger(value) ||
        getElementTypeOrSelf(value).getIntOrFloatBitWidth() < 32)
      break;
    value = convert->getOperand(0);
  }
  if (auto expand = value.getDefiningOp<tensor::ExpandShapeOp>())
    value = expand.getSrc();
  auto gate = value.getDefiningOp<GateOp>();
  // Every id is one of an expert.
  return gate && value == gate.getIds() && !gate.mayLeaveOut() &&
                 !gate.getGivenIds() && !gate.getCapacity()
             ? value
             : Value();
}

int64_t Choices::expertsOf(Value ids) {
  return ids.getDefiningOp<GateOp>().getNumExperts();
}

/// T · K.
static std::optional<Extent> choicesOf(Value ids) {
  std::optional<Extent> tokens = rowsOf(ids);
  if (tokens)
    tokens = Extent{tokens->root, tokens->factor * topKOf(ids),
                    tokens->constant * topKOf(ids)};
  return tokens;
}

/// True for a tensor with a row for each of the choices.
static bool hasChoices(Value value, Value ids) {
  std::optional<Extent> rows = rowsOf(value), choices = choicesOf(ids);
  return rows && choices && *rows == *choices;
}

/// True for weights [T, K].
bool mlir::moe::raising::areWeightsOf(Value weights, Value ids) {
  return hasRank(weights, 2) && topKOf(weights) == topKOf(ids) &&
         haveSameRows(weights, ids);
}

//===----------------------------------------------------------------------===//
// Ranges
//===----------------------------------------------------------------------===//

static bool isIndices(const Role &role) {
  switch (role.kind) {
  case Role::FlatIds:
  case Role::FlatTokens:
  case Role::Inverse:
  case Role::SortedIds:
  case Role::Order:
  case Role::Tokens:
  case Role::Iota:
    return true;
  default:
    return false;
  }
}

bool Choices::isInRange(Value value) const {
  const Role *role = get(value);
  return role && isIndices(*role);
}

/// True if `bound` is everywhere the largest index that `value` may have, or
/// more than it.
bool Choices::isBelow(Value value, Value bound) const {
  const Role *role = get(value);
  if (!role)
    return false;
  std::optional<Extent> count;
  if (role->kind == Role::FlatIds || role->kind == Role::SortedIds)
    count = Extent{{}, 0, expertsOf(role->ids)};
  else if (role->kind == Role::Order || role->kind == Role::Inverse)
    count = choicesOf(role->ids);
  else if (role->kind == Role::Tokens)
    count = rowsOf(role->ids);
  if (!count)
    return false;
  while (Operation *op = bound.getDefiningOp()) {
    if (!isNamed(op, "stablehlo.broadcast_in_dim") &&
        !isNamed(op, "stablehlo.dynamic_broadcast_in_dim") &&
        !isNamed(op, "stablehlo.reshape"))
      break;
    bound = op->getOperand(0);
  }
  RankedTensorType type = tensorOf(bound);
  if (!type || !type.hasStaticShape())
    return false;
  std::optional<Extent> last;
  if (type.getNumElements() == 1)
    last = elementOf(bound, 0);
  else if (std::optional<double> splat = splatOf(bound))
    last = Extent{{}, 0, int64_t(*splat)};
  return last && last->root == count->root && last->factor == count->factor &&
         last->constant >= count->constant - 1;
}

//===----------------------------------------------------------------------===//
// Rules
//===----------------------------------------------------------------------===//

void Choices::visit(Operation *op) {
  using Rule = void (Choices::*)(Operation *);
  static const llvm::StringMap<Rule> rules{
      {"reshape", &Choices::visitView},
      {"dynamic_reshape", &Choices::visitView},
      {"convert", &Choices::visitView},
      {"broadcast_in_dim", &Choices::visitBroadcast},
      {"dynamic_broadcast_in_dim", &Choices::visitBroadcast},
      {"iota", &Choices::visitIota},
      {"dynamic_iota", &Choices::visitIota},
      {"sort", &Choices::visitSort},
      {"divide", &Choices::visitDivide},
      {"floor_divide", &Choices::visitDivide},
      {"select", &Choices::visitSelect},
      {"and", &Choices::visitSelect},
      {"maximum", &Choices::visitSelect},
      {"minimum", &Choices::visitSelect},
      {"clamp", &Choices::visitSelect},
      {"compare", &Choices::visitCompare},
      {"reduce", &Choices::visitReduce},
      {"gather", &Choices::visitGather},
      {"scatter", &Choices::visitScatter},
      {"cumulative_sum", &Choices::visitCumulativeSum},
      {"multiply", &Choices::visitMultiply},
      {"add", &Choices::visitMultiply},
  };
  StringRef name = isa<tensor::CollapseShapeOp, tensor::ExpandShapeOp>(op)
                       ? "reshape"
                       : stablehloName(op);
  if (name.empty() || op->getNumResults() == 0)
    return;
  auto rule = rules.find(name);
  if (rule != rules.end())
    (this->*rule->second)(op);
}

/// True for a conversion of floats that loses nothing, or of integers.
static bool isWidening(Value from, Value to) {
  Type a = getElementTypeOrSelf(from), b = getElementTypeOrSelf(to);
  if (a == b)
    return true;
  if (isa<IntegerType>(a))
    return isa<IntegerType>(b) && b.getIntOrFloatBitWidth() >= 32;
  return b.isF32() && (a.isF16() || a.isBF16());
}

void Choices::visitView(Operation *op) {
  Value from = op->getOperand(0), to = op->getResult(0);
  RankedTensorType source = tensorOf(from), type = tensorOf(to);
  if (!source || !type)
    return;
  if (const Role *role = get(from)) {
    if (role->kind == Role::OneHot || role->kind == Role::Truth ||
        role->kind == Role::Counts || role->kind == Role::Ends) {
      bool isCast = source.getShape() == type.getShape();
      if (role->kind == Role::Truth || isCast)
        set(to, *role);
    } else if (!isWidening(from, to)) {
      return;
    } else if (role->kind == Role::Iota && source.getRank() == 2 &&
               isVector(to) && !source.isDynamicDim(1)) {
      // 0, 0, 1, 1, ...
      Role tokens{Role::FlatTokens};
      tokens.topK = source.getDimSize(1);
      set(to, tokens);
    } else if (role->kind == Role::Rows && type.getRank() == 3) {
      if (type.getDimSize(1) == topKOf(role->ids) &&
          type.getDimSize(2) == source.getDimSize(1)) {
        Role slots = *role;
        slots.kind = Role::Slots;
        set(to, slots);
      }
    } else if (source.getShape() == type.getShape() ||
               (isVector(from) && isVector(to))) {
      set(to, *role);
    }
    return;
  }
  if (!isVector(to) || isNamed(op, "stablehlo.convert"))
    return;
  if (Value ids = idsOf(from)) {
    set(to, {Role::FlatIds, ids});
  } else if (source.getRank() == 2 && !source.isDynamicDim(1) &&
             isa<FloatType>(source.getElementType())) {
    Role weights{Role::FlatWeights};
    weights.of = from;
    set(to, weights);
  }
}

void Choices::visitBroadcast(Operation *op) {
  Value from = op->getOperand(0), to = op->getResult(0);
  const Role *role = get(from);
  auto dims = integersOf(op, "broadcast_dimensions");
  if (!role || !dims || !hasRank(from, dims->size()))
    return;
  if (role->kind == Role::Truth)
    return set(to, *role);
  if (role->kind == Role::Experts && *dims == Dims{0, 1})
    return set(to, *role);
  if (role->kind == Role::Iota && *dims == Dims{1} && hasRank(to, 2))
    return set(to, {Role::Experts});
  // Along the first dimension.
  if (isVector(from) && (*dims == Dims{0} || *dims == Dims{0, 1}))
    set(to, *role);
}

void Choices::visitIota(Operation *op) {
  Value to = op->getResult(0);
  auto dim = integersOf(op, "iota_dimension");
  if (!dim || !isInteger(to))
    return;
  if (*dim == Dims{0})
    set(to, {Role::Iota});
  else if (*dim == Dims{1} && hasRank(to, 2))
    set(to, {Role::Experts});
}

void Choices::visitSort(Operation *op) {
  const Role *key = op->getNumOperands() ? get(op->getOperand(0)) : nullptr;
  if (!key || !hasRank(op->getOperand(0), 1) || !sortsAscending(op))
    return;
  Role by = *key;
  if (by.kind == Role::Order) {
    // The inverse of a permutation.
    for (unsigned i = 1; i < op->getNumOperands(); ++i)
      if (get(op->getOperand(i), Role::Iota))
        set(op->getResult(i), {Role::Inverse, by.ids});
    return;
  }
  if (by.kind != Role::FlatIds)
    return;
  set(op->getResult(0), {Role::SortedIds, by.ids});
  for (unsigned i = 1; i < op->getNumOperands(); ++i) {
    const Role *carried = get(op->getOperand(i));
    if (!carried)
      continue;
    if (carried->kind == Role::Iota)
      set(op->getResult(i), {Role::Order, by.ids});
    else if (carried->kind == Role::FlatTokens &&
             carried->topK == topKOf(by.ids))
      set(op->getResult(i), {Role::Tokens, by.ids});
    else if (carried->kind == Role::FlatWeights &&
             areWeightsOf(carried->of, by.ids))
      set(op->getResult(i), {Role::SortedWeights, by.ids, carried->of});
  }
}

void Choices::visitDivide(Operation *op) {
  const Role *role = get(op->getOperand(0));
  std::optional<double> by = splatOf(op->getOperand(1));
  if (!role || !by || !isInteger(op->getResult(0)))
    return;
  if (role->kind == Role::Order && *by == double(topKOf(role->ids))) {
    set(op->getResult(0), {Role::Tokens, role->ids});
  } else if (role->kind == Role::Iota && hasRank(op->getOperand(0), 1) &&
             *by >= 1) {
    Role tokens{Role::FlatTokens};
    tokens.topK = int64_t(*by);
    set(op->getResult(0), tokens);
  }
}

void Choices::visitSelect(Operation *op) {
  Value to = op->getResult(0);
  if (isNamed(op, "stablehlo.and")) {
    if (get(op->getOperand(0), Role::Truth) &&
        get(op->getOperand(1), Role::Truth))
      set(to, {Role::Truth});
    return;
  }
  if (isNamed(op, "stablehlo.clamp")) {
    Value low = op->getOperand(0), value = op->getOperand(1);
    std::optional<double> least = splatOf(low);
    if (isInRange(value) && least && *least <= 0 &&
        isBelow(value, op->getOperand(2)))
      set(to, *get(value));
    return;
  }
  if (!isNamed(op, "stablehlo.select")) {
    bool isMax = isNamed(op, "stablehlo.maximum");
    for (auto [value, bound] :
         {std::pair(op->getOperand(0), op->getOperand(1)),
          std::pair(op->getOperand(1), op->getOperand(0))}) {
      if (!isInRange(value))
        continue;
      std::optional<double> least = splatOf(bound);
      if (isMax ? least && *least <= 0 : isBelow(value, bound))
        return set(to, *get(value));
    }
    return;
  }
  Value condition = op->getOperand(0), other = op->getOperand(2);
  Operation *test = condition.getDefiningOp();
  if (!isInRange(other) || !test)
    return;
  // An index below 0 counts from the end.
  if (directionOf(test) == "LT" && isInRange(test->getOperand(0)) &&
      splatOf(test->getOperand(1)) == 0.0)
    return set(to, *get(other));
  // The quotient of a negative number is rounded down: the signs differ, and
  // there is a remainder.
  if (!isNamed(test, "stablehlo.and"))
    return;
  bool comparesSign = false, comparesRest = false;
  for (Value operand : test->getOperands()) {
    Operation *compare = operand.getDefiningOp();
    if (!compare || directionOf(compare) != "NE")
      return;
    Operation *of = compare->getOperand(0).getDefiningOp();
    if (!of || !isInRange(of->getOperand(0)))
      return;
    if (isNamed(of, "stablehlo.sign")) {
      comparesSign = splatOf(compare->getOperand(1)) == 1.0;
    } else if (isNamed(of, "stablehlo.remainder")) {
      std::optional<double> by = splatOf(of->getOperand(1));
      comparesRest = by && *by > 0 && splatOf(compare->getOperand(1)) == 0.0;
    }
  }
  if (comparesSign && comparesRest)
    set(to, *get(other));
}

void Choices::visitCompare(Operation *op) {
  Value left = op->getOperand(0), right = op->getOperand(1);
  std::string direction = directionOf(op);
  if ((direction == "GE" && isInRange(left) && splatOf(right) == 0.0) ||
      (direction == "LE" && isInRange(left) && isBelow(left, right)))
    return set(op->getResult(0), {Role::Truth});
  if (direction != "EQ")
    return;
  for (auto [ids, experts] : {std::pair(left, right), std::pair(right, left)}) {
    const Role *role = get(ids);
    if (role && get(experts, Role::Experts) && hasRank(ids, 2) &&
        (role->kind == Role::FlatIds || role->kind == Role::SortedIds))
      return set(op->getResult(0), {Role::OneHot, role->ids});
  }
}

void Choices::visitReduce(Operation *op) {
  if (op->getNumOperands() != 2 || op->getNumResults() != 1)
    return;
  const Role *role = get(op->getOperand(0));
  std::optional<double> start = splatOf(op->getOperand(1));
  if (!role || !start)
    return;
  Update update = updateOf(op);
  if (role->kind == Role::Truth && update == Update::And && *start == 1)
    return set(op->getResult(0), {Role::Truth});
  RankedTensorType type = tensorOf(op->getResult(0));
  if (role->kind == Role::OneHot && update == Update::Add && *start == 0 &&
      integersOf(op, "dimensions") == Dims{0} && type.getRank() == 1 &&
      isa<IntegerType>(type.getElementType()) &&
      type.getElementTypeBitWidth() >= 32 &&
      type.getDimSize(0) == expertsOf(role->ids))
    set(op->getResult(0), {Role::Counts, role->ids});
}

Role Choices::sortedRows(Value rows, Value ids) const {
  // Weighted before they return to their places.
  if (Operation *product = definedBy(rows, "stablehlo.multiply"))
    for (unsigned i : {0u, 1u}) {
      const Role *weights = get(product->getOperand(i), Role::SortedWeights);
      if (weights && weights->ids == ids)
        return {Role::Rows, ids, product->getOperand(1 - i), weights->of};
    }
  return {Role::Rows, ids, rows};
}

void Choices::visitGather(Operation *op) {
  if (!gathersRows(op))
    return;
  Value from = op->getOperand(0), to = op->getResult(0);
  const Role *at = get(op->getOperand(1)), *of = get(from);
  if (!at || !at->ids || !hasChoices(from, at->ids))
    return;
  Value ids = at->ids;
  if (at->kind == Role::Inverse && hasRank(from, 2) && !isInteger(from))
    return set(to, sortedRows(from, ids));
  if (at->kind != Role::Order || !of || !hasRank(from, 1))
    return;
  if (of->kind == Role::FlatWeights && areWeightsOf(of->of, ids))
    set(to, {Role::SortedWeights, ids, of->of});
  else if (of->kind == Role::FlatTokens && of->topK == topKOf(ids))
    set(to, {Role::Tokens, ids});
  else if (of->kind == Role::FlatIds && of->ids == ids)
    set(to, {Role::SortedIds, ids});
}

void Choices::visitScatter(Operation *op) {
  if (!scattersRows(op))
    return;
  Value into = op->getOperand(0), updates = op->getOperand(2);
  const Role *at = get(op->getOperand(1));
  if (!at || !at->ids)
    return;
  Value ids = at->ids, to = op->getResult(0);
  Update update = updateOf(op);
  if (update == Update::Add &&
      (at->kind == Role::FlatIds || at->kind == Role::SortedIds) &&
      hasRank(into, 1) && isInteger(into) && splatOf(into) == 0.0 &&
      splatOf(updates) == 1.0 && tensorOf(into).getDimSize(0) == expertsOf(ids))
    return set(to, {Role::Counts, ids});
  if (update != Update::Set || at->kind != Role::Order ||
      !hasChoices(into, ids) || !hasChoices(updates, ids))
    return;
  // result[order[i]] = updates[i]
  if (hasRank(updates, 1) && get(updates, Role::Iota))
    set(to, {Role::Inverse, ids});
  else if (hasRank(updates, 2) && !isInteger(updates))
    set(to, sortedRows(updates, ids));
}

void Choices::visitCumulativeSum(Operation *op) {
  const Role *counts = get(op->getOperand(0), Role::Counts);
  if (counts && integersOf(op, "dimension") == Dims{0} &&
      tensorOf(op->getResult(0)).getRank() == 1)
    set(op->getResult(0), {Role::Ends, counts->ids});
}

Value mlir::moe::raising::repeatedAlongRows(Value value, int64_t rank) {
  while (!hasRank(value, rank)) {
    Operation *op = value.getDefiningOp();
    if (isNamed(op, "stablehlo.convert") &&
        isWidening(op->getOperand(0), value)) {
      value = op->getOperand(0);
      continue;
    }
    if (isNamed(op, "stablehlo.reshape") ||
        isNamed(op, "stablehlo.dynamic_reshape")) {
      // New dimensions of extent 1 at the end.
      Value from = op->getOperand(0);
      RankedTensorType type = tensorOf(value);
      if (!hasRank(from, rank) || type.getRank() != rank + 1 ||
          type.getShape().back() != 1 ||
          tensorOf(from).getShape().drop_front() !=
              type.getShape().drop_front().drop_back())
        return {};
      value = from;
      continue;
    }
    if (!isNamed(op, "stablehlo.broadcast_in_dim") &&
        !isNamed(op, "stablehlo.dynamic_broadcast_in_dim"))
      return {};
    auto dims = integersOf(op, "broadcast_dimensions");
    Value from = op->getOperand(0);
    RankedTensorType type = tensorOf(from);
    if (!dims || !type || type.getRank() < rank ||
        *dims != llvm::to_vector(llvm::seq<int64_t>(type.getRank())))
      return {};
    // Dimensions after the first ones have extent 1 before they are repeated.
    for (int64_t dim = rank; dim < type.getRank(); ++dim)
      if (type.getDimSize(dim) != 1)
        return {};
    value = from;
  }
  return value;
}

void Choices::visitMultiply(Operation *op) {
  bool isSum = isNamed(op, "stablehlo.add");
  for (unsigned i : {0u, 1u})
    if (isInRange(op->getOperand(i)) &&
        splatOf(op->getOperand(1 - i)) == (isSum ? 0.0 : 1.0))
      return set(op->getResult(0), *get(op->getOperand(i)));
  if (isSum)
    return;
  for (auto [rows, weights] :
       {std::pair(op->getOperand(0), op->getOperand(1)),
        std::pair(op->getOperand(1), op->getOperand(0))}) {
    const Role *role = get(rows);
    if (!role || role->weights)
      continue;
    Role weighted = *role;
    if (role->kind == Role::Slots) {
      weighted.weights = repeatedAlongRows(weights, 2);
    } else if (role->kind == Role::Rows) {
      if (const Role *flat = get(weights, Role::FlatWeights))
        weighted.weights = flat->of;
    }
    if (weighted.weights && areWeightsOf(weighted.weights, role->ids))
      return set(op->getResult(0), weighted);
  }
}

bool mlir::moe::raising::coversAll(Value offsets, Value rows) {
  Value ids;
  if (auto dispatch = offsets.getDefiningOp<DispatchOp>())
    ids = dispatch.getCapacity() ? Value() : dispatch.getIds();
  else if (auto route = offsets.getDefiningOp<RouteOp>())
    ids = route.getCapacity() ? Value() : route.getIds();
  return ids && Choices::idsOf(ids) && hasChoices(rows, ids);
}
