//===- CapacityPlan.cpp - Bounds, variants and policies -------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Analysis/CapacityPlan.h"
#include "moe/Analysis/TileChoice.h"
#include "moe/Dialect/MoE/IR/MoEABI.h"

#include "mlir/IR/AffineExpr.h"
#include "mlir/IR/AffineMap.h"
#include "llvm/Support/MathExtras.h"

#include <cmath>
#include <set>

using namespace mlir;
using namespace mlir::moe;

//===----------------------------------------------------------------------===//
// Evaluation
//===----------------------------------------------------------------------===//

static std::optional<int64_t> evaluate(AffineExpr expr, int64_t tokens) {
  if (isa<AffineDimExpr>(expr))
    return tokens;
  if (auto constant = dyn_cast<AffineConstantExpr>(expr))
    return constant.getValue();
  auto binary = dyn_cast<AffineBinaryOpExpr>(expr);
  if (!binary)
    return std::nullopt;
  std::optional<int64_t> lhs = evaluate(binary.getLHS(), tokens);
  std::optional<int64_t> rhs = evaluate(binary.getRHS(), tokens);
  if (!lhs || !rhs)
    return std::nullopt;
  int64_t result;
  switch (expr.getKind()) {
  case AffineExprKind::Add:
    if (llvm::AddOverflow(*lhs, *rhs, result))
      return std::nullopt;
    return result;
  case AffineExprKind::Mul:
    if (llvm::MulOverflow(*lhs, *rhs, result))
      return std::nullopt;
    return result;
  case AffineExprKind::FloorDiv:
  case AffineExprKind::CeilDiv:
  case AffineExprKind::Mod:
    if (*rhs <= 0)
      return std::nullopt;
    if (expr.getKind() == AffineExprKind::FloorDiv)
      return llvm::divideFloorSigned(*lhs, *rhs);
    if (expr.getKind() == AffineExprKind::CeilDiv)
      return llvm::divideCeilSigned(*lhs, *rhs);
    return llvm::mod(*lhs, *rhs);
  default:
    return std::nullopt;
  }
}

std::optional<int64_t> mlir::moe::evaluateBound(AffineMap bound,
                                                int64_t tokens) {
  std::optional<int64_t> least;
  for (AffineExpr result : bound.getResults()) {
    std::optional<int64_t> value = evaluate(result, tokens);
    if (!value)
      return std::nullopt;
    least = least ? std::min(*least, *value) : *value;
  }
  return least;
}

//===----------------------------------------------------------------------===//
// Bounds
//===----------------------------------------------------------------------===//

/// Upper bounds of a capacity, each a function of T. The factor counts as the
/// next multiple of 2^-20, or of less where there are more than 1024 experts,
/// so it is exact for all that are written in practice.
static SmallVector<AffineExpr> boundsOfCapacity(CapacityAttr capacity,
                                                int64_t experts) {
  MLIRContext *context = capacity.getContext();
  AffineExpr tokens = getAffineDimExpr(0, context);
  if (capacity.isFixed())
    return {getAffineConstantExpr(capacity.getFixed(), context)};
  SmallVector<AffineExpr> bounds;
  int64_t denominator = 1;
  double factor = capacity.getFactor();
  // A capacity of all tokens bounds nothing.
  if (factor < double(experts)) {
    while (denominator < (1 << 20) && denominator * experts < (1 << 30) &&
           factor * double(denominator) !=
               std::floor(factor * double(denominator)))
      denominator *= 2;
    double numerator = std::ceil(factor * double(denominator));
    bool exact = numerator == factor * double(denominator);
    AffineExpr product = tokens * int64_t(numerator);
    int64_t divisor = denominator * experts;
    // The f64 quotient may be rounded up to a whole number, which only short
    // fractions exclude.
    bool floor = capacity.getRounding() == Rounding::Floor && exact &&
                 divisor <= (1 << 20);
    bounds.push_back(floor ? product.floorDiv(divisor)
                           : product.ceilDiv(divisor));
  }
  if (capacity.getAtMostTokens())
    bounds.push_back(tokens);
  // max(x, minimum) is at most x + minimum.
  for (AffineExpr &bound : bounds)
    bound = bound + capacity.getMinimum();
  return bounds;
}

static SmallVector<AffineExpr> boundsOfCapacity(DispatchOp dispatch) {
  if (!dispatch.getCapacity())
    return {};
  return boundsOfCapacity(*dispatch.getCapacity(), dispatch.getNumExperts());
}

/// True if no token names an expert twice, which only a gate promises.
static bool hasDistinctIds(DispatchOp dispatch) {
  auto gate = dispatch.getIds().getDefiningOp<GateOp>();
  return gate && !gate.getGivenIds();
}

static AffineMap least(ArrayRef<AffineExpr> results, MLIRContext *context) {
  return AffineMap::get(1, 0, results, context);
}

AffineMap mlir::moe::boundOfRows(DispatchOp dispatch) {
  MLIRContext *context = dispatch.getContext();
  SmallVector<AffineExpr> results{getAffineDimExpr(0, context) *
                                  dispatch.getTopK()};
  for (AffineExpr capacity : boundsOfCapacity(dispatch))
    results.push_back(capacity * dispatch.getNumExperts());
  return least(results, context);
}

AffineMap mlir::moe::boundOfFullest(DispatchOp dispatch) {
  MLIRContext *context = dispatch.getContext();
  AffineExpr tokens = getAffineDimExpr(0, context);
  SmallVector<AffineExpr> results{
      hasDistinctIds(dispatch) ? tokens : tokens * dispatch.getTopK()};
  llvm::append_range(results, boundsOfCapacity(dispatch));
  return least(results, context);
}

// With A = min(E, R) experts that have a row: ⌊(R + A·(B − 1)) / B⌋ tiles,
// which for A = R is R.
AffineMap mlir::moe::boundOfTiles(AffineMap rows, int64_t experts,
                                  int64_t tile) {
  if (tile == 1)
    return rows;
  SmallVector<AffineExpr> results;
  for (AffineExpr bound : rows.getResults()) {
    results.push_back((bound + experts * (tile - 1)).floorDiv(tile));
    results.push_back(bound);
  }
  return least(results, rows.getContext());
}

// A·(B − 1): one row in the last tile of each.
AffineMap mlir::moe::boundOfPadding(AffineMap rows, int64_t experts,
                                    int64_t tile) {
  MLIRContext *context = rows.getContext();
  SmallVector<AffineExpr> results{
      getAffineConstantExpr(experts * (tile - 1), context)};
  for (AffineExpr bound : rows.getResults())
    results.push_back(bound * (tile - 1));
  return tile == 1 ? least({getAffineConstantExpr(0, context)}, context)
                   : least(results, context);
}

//===----------------------------------------------------------------------===//
// Plans
//===----------------------------------------------------------------------===//

OverflowPolicy mlir::moe::overflowPolicy(DispatchOp dispatch, int64_t tokens) {
  std::optional<CapacityAttr> capacity = dispatch.getCapacity();
  if (!capacity)
    return OverflowPolicy::Impossible;
  int64_t choices = hasDistinctIds(dispatch) ? 1 : dispatch.getTopK();
  double needed = double(tokens) * double(choices);
  // For every T up to `tokens`, as many rows as choices of one expert.
  int64_t always =
      capacity->isFixed() ? capacity->getFixed() : capacity->getMinimum();
  bool byFactor = !capacity->isFixed() &&
                  capacity->getFactor() >=
                      double(dispatch.getNumExperts()) * double(choices) &&
                  (choices == 1 || !capacity->getAtMostTokens());
  if (double(always) >= needed || byFactor)
    return OverflowPolicy::Impossible;
  return dispatch.getOverflow() == Overflow::Drop ? OverflowPolicy::Drop
                                                  : OverflowPolicy::NextChoice;
}

double mlir::moe::expertSeconds(const DispatchCost &cost,
                                const RowDistribution &rows,
                                const PlanTarget &target, int64_t tokens,
                                const TileVariant &variant) {
  double padded = rows.expectedPadded(tokens, variant.getGranularity());
  double tiles =
      rows.expectedPadded(tokens, variant.rows) / double(variant.rows);
  double compute = padded * double(cost.flopsPerRow) /
                   target.rates.flops(cost.getElementType());
  double memory = (tiles * double(cost.weightBytesPerExpert) +
                   padded * double(cost.bytesPerRow)) /
                  target.rates.bandwidth;
  return std::max(compute, memory);
}

/// The heights of the variants' tiles.
static SmallVector<int64_t> heightsOf(const PlanTarget &target) {
  return llvm::map_to_vector(
      target.variants, [](const TileVariant &variant) { return variant.rows; });
}

const TileVariant &mlir::moe::tileByRows(const PlanTarget &target,
                                         std::optional<int64_t> rows,
                                         int64_t experts) {
  if (!rows)
    return target.variants.back();
  auto fits = [](size_t) { return true; };
  return target.variants[chooseTile(heightsOf(target), *rows, experts, fits)];
}

/// Returns the numbers of tokens, from `min` to `max`, at which a GPU may
/// change to other variants.
static std::set<int64_t> findChanges(const PlanTarget &target, AffineMap bound,
                                     int64_t experts, int64_t min,
                                     int64_t max) {
  std::set<int64_t> changes = {min};
  // Adds the least number of tokens with more than `most` rows.
  auto add = [&](int64_t most) {
    int64_t low = min - 1, high = max;
    while (low < high) {
      int64_t middle = low + (high - low + 1) / 2;
      std::optional<int64_t> rows = evaluateBound(bound, middle);
      if (rows && *rows <= most)
        low = middle;
      else
        high = middle - 1;
    }
    if (low < max)
      changes.insert(low + 1);
  };
  for (const TileVariant &variant : ArrayRef(target.variants).drop_back())
    add(variant.rows * experts);
  return changes;
}

DispatchPlanAttr mlir::moe::planDispatch(const DispatchCost &cost,
                                         const RowDistribution &rows,
                                         const PlanTarget &target, int64_t min,
                                         int64_t max) {
  DispatchOp dispatch = cost.dispatch;
  MLIRContext *context = dispatch.getContext();
  int64_t experts = dispatch.getNumExperts();
  AffineMap bound = boundOfRows(dispatch);

  auto best = [&](int64_t tokens) {
    const TileVariant *chosen = nullptr;
    double seconds = 0, fullest = rows.expectedFullest(tokens);
    for (const TileVariant &variant : target.variants) {
      double its = expertSeconds(cost, rows, target, tokens, variant);
      // On a tie the first one is kept: its tiles are the smallest, which pad
      // least. Without padding, a tile as high as the rows costs nothing.
      bool free = chosen && variant.ragged && chosen->rows < fullest &&
                  its <= seconds * (1 + 1e-9);
      if (!chosen || free || its < seconds * (1 - 1e-9)) {
        chosen = &variant;
        seconds = its;
      }
    }
    return chosen;
  };
  SmallVector<Attribute> ranges;
  auto add = [&](int64_t first, int64_t last, const TileVariant &variant) {
    ranges.push_back(TileRangeAttr::get(
        context, first, last, StringAttr::get(context, variant.name),
        variant.rows,
        AffineMapAttr::get(boundOfTiles(bound, experts, variant.rows)),
        AffineMapAttr::get(
            boundOfPadding(bound, experts, variant.getGranularity())),
        variant.ragged));
  };
  auto finish = [&] {
    return DispatchPlanAttr::get(
        context, experts, dispatch.getTopK(), AffineMapAttr::get(bound),
        AffineMapAttr::get(boundOfFullest(dispatch)),
        overflowPolicy(dispatch, max), ArrayAttr::get(context, ranges));
  };
  int64_t first = min;
  if (target.byMeanRows) {
    std::set<int64_t> changes = findChanges(target, bound, experts, min, max);
    auto chosenAt = [&](int64_t tokens) {
      return &tileByRows(target, evaluateBound(bound, tokens), experts);
    };
    for (auto it = changes.begin(); it != changes.end();) {
      int64_t start = *it;
      const TileVariant *chosen = chosenAt(start);
      while (++it != changes.end() && chosenAt(*it) == chosen)
        ;
      add(start, it == changes.end() ? max : *it - 1, *chosen);
    }
    return finish();
  }
  // One choice for each power of two, at its beginning.
  const TileVariant *current = best(min);
  for (int64_t tokens = 1; tokens > 0 && tokens <= max; tokens *= 2) {
    if (tokens <= min)
      continue;
    const TileVariant *next = best(tokens);
    if (next == current)
      continue;
    add(first, tokens - 1, *current);
    first = tokens;
    current = next;
  }
  add(first, max, *current);
  return finish();
}

FailureOr<std::pair<int64_t, int64_t>>
mlir::moe::tokenRange(func::FuncOp function) {
  int64_t limit = INT32_MAX;
  function.walk([&](DispatchOp dispatch) {
    limit = std::min<int64_t>(limit, INT32_MAX / dispatch.getTopK());
  });
  Attribute given = function->getAttr(tokensAttrName);
  if (!given)
    return std::pair<int64_t, int64_t>(0, limit);
  SmallVector<int64_t> bounds;
  auto range = dyn_cast<ArrayAttr>(given);
  for (Attribute bound : range ? range.getValue() : ArrayRef<Attribute>())
    if (auto integer = dyn_cast<IntegerAttr>(bound))
      if (integer.getType().isSignlessInteger(64))
        bounds.push_back(integer.getInt());
  if (bounds.size() != 2 || range.size() != 2 || bounds[0] < 0 ||
      bounds[1] < bounds[0])
    return function.emitError()
           << "expected moe.tokens to be [min, max] with 0 <= min <= max, got "
           << given;
  if (bounds[1] > limit)
    return function.emitError()
           << "expected a maximum of at most " << limit
           << " tokens in moe.tokens, so that the rows fit 32 bits, got "
           << bounds[1];
  return std::pair(bounds[0], bounds[1]);
}

//===----------------------------------------------------------------------===//
// Verification
//===----------------------------------------------------------------------===//

namespace {
/// Compares the plan of one dispatch with what the dispatch needs.
struct DispatchVerifier {
  DispatchOp dispatch;
  DispatchPlanAttr plan;
  int64_t index;
  int64_t max;

  InFlightDiagnostic error() {
    return dispatch.emitError("moe.plan does not hold for dispatch ")
           << index << ": ";
  }
  LogicalResult verify();
  LogicalResult verifyBound(StringRef name, AffineMap given, AffineMap needed,
                            int64_t first, int64_t last);
};
} // namespace

/// A map that is not the derived one is compared with it for all small T,
/// around all powers of two, and at both ends.
LogicalResult DispatchVerifier::verifyBound(StringRef name, AffineMap given,
                                            AffineMap needed, int64_t first,
                                            int64_t last) {
  if (given == needed)
    return success();
  std::set<int64_t> points = {first, last};
  for (int64_t tokens = 0; tokens < 4096; ++tokens)
    points.insert(tokens);
  for (int64_t tokens = 4096; tokens <= int64_t(1) << 31; tokens *= 2)
    points.insert({tokens - 1, tokens, tokens + 1});
  for (int64_t tokens : points) {
    if (tokens < first || tokens > last)
      continue;
    std::optional<int64_t> least = evaluateBound(needed, tokens);
    std::optional<int64_t> bound = evaluateBound(given, tokens);
    if (!least || !bound)
      return error() << "expected '" << name << "' within 64 bits at " << tokens
                     << " tokens";
    if (*bound < *least)
      return error() << "expected '" << name << "' of at least " << *least
                     << " at " << tokens << " tokens, got " << *bound;
  }
  return success();
}

LogicalResult DispatchVerifier::verify() {
  int64_t experts = dispatch.getNumExperts(), topK = dispatch.getTopK();
  if (plan.getExperts() != experts || plan.getTopK() != topK)
    return error() << "expected experts = " << experts
                   << " and top_k = " << topK << ", got " << plan.getExperts()
                   << " and " << plan.getTopK();
  OverflowPolicy policy = overflowPolicy(dispatch, max);
  if (plan.getOverflow() != policy)
    return error() << "expected overflow = " << stringifyOverflowPolicy(policy)
                   << ", got " << stringifyOverflowPolicy(plan.getOverflow());
  AffineMap rows = boundOfRows(dispatch);
  if (failed(verifyBound("rows", plan.getRows().getValue(), rows, 0, max)) ||
      failed(verifyBound("fullest", plan.getFullest().getValue(),
                         boundOfFullest(dispatch), 0, max)))
    return failure();
  for (auto range : plan.getRanges().getAsRange<TileRangeAttr>()) {
    int64_t last = std::min(range.getMax(), max), unused;
    if (llvm::MulOverflow(range.getRows(), experts, unused))
      return error() << "expected tiles of fewer rows, got " << range.getRows();
    if (failed(verifyBound("tiles", range.getTiles().getValue(),
                           boundOfTiles(rows, experts, range.getRows()),
                           range.getMin(), last)) ||
        failed(
            verifyBound("padding", range.getPadding().getValue(),
                        boundOfPadding(rows, experts, range.getGranularity()),
                        range.getMin(), last)))
      return failure();
  }
  return success();
}

LogicalResult mlir::moe::verifyCapacityPlan(func::FuncOp function) {
  Attribute given = function->getAttr(planAttrName);
  if (!given)
    return success();
  auto plan = dyn_cast<PlanAttr>(given);
  if (!plan)
    return function.emitError("expected moe.plan to be #moe.plan, got ")
           << given;
  FailureOr<std::pair<int64_t, int64_t>> range = tokenRange(function);
  if (failed(range))
    return failure();
  if (range->first < plan.getMin() || range->second > plan.getMax())
    return function.emitError("expected moe.plan for ")
           << range->first << " to " << range->second << " tokens, got "
           << plan.getMin() << " to " << plan.getMax();
  SmallVector<DispatchOp> dispatches(function.getOps<DispatchOp>());
  if (plan.getDispatches().size() != dispatches.size())
    return function.emitError("expected moe.plan with ")
           << dispatches.size() << " dispatches, got "
           << plan.getDispatches().size();
  for (auto [index, dispatch] : llvm::enumerate(dispatches)) {
    auto its = cast<DispatchPlanAttr>(plan.getDispatches()[index]);
    if (failed(DispatchVerifier{dispatch, its, int64_t(index),
                                plan.getMaxTokensAtOnce()}
                   .verify()))
      return failure();
  }
  return success();
}
