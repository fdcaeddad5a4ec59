//===- TokenBounds.cpp - Upper bounds as functions of T -------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Analysis/TokenBounds.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/IR/Matchers.h"
#include "mlir/Interfaces/FunctionInterfaces.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"

using namespace mlir;
using namespace mlir::moe;

TokenBounds::Bound TokenBounds::constant(Location loc, int64_t value) {
  return {arith::ConstantIndexOp::create(builder, loc, value), true,
          value >= 0};
}

TokenBounds::Bound TokenBounds::compute(Value value) {
  // A value has no bound while its bound is being computed: it may depend on
  // itself through a loop.
  auto [found, isNew] = known.try_emplace(value);
  if (!isNew)
    return found->second;
  Bound bound = computeUncached(value);
  known[value] = bound;
  return bound;
}

/// True if a cast is lossless, so that it keeps order and sign.
static bool isWidening(arith::IndexCastOp cast) {
  auto bits = [](Type type) {
    return type.isIndex() ? 64 : type.getIntOrFloatBitWidth();
  };
  Type from = getElementTypeOrSelf(cast.getIn().getType());
  return bits(getElementTypeOrSelf(cast.getType())) >= bits(from);
}

/// True if `op` divides by a positive constant. That is monotone; for unsigned
/// division, on values that are not negative.
static bool isDivision(Operation *op) {
  APInt divisor;
  return isa<arith::DivSIOp, arith::CeilDivSIOp, arith::DivUIOp,
             arith::CeilDivUIOp>(op) &&
         matchPattern(op->getOperand(1), m_ConstantInt(&divisor)) &&
         divisor.isStrictlyPositive();
}

TokenBounds::Bound TokenBounds::computeUncached(Value value) {
  Operation *op = value.getDefiningOp();
  if (!op)
    return {};
  if (op->hasTrait<OpTrait::ConstantLike>()) {
    APInt integer;
    bool nonNegative =
        matchPattern(value, m_ConstantInt(&integer)) && !integer.isNegative();
    return {builder.clone(*op)->getResult(0), true, nonNegative};
  }
  if (auto dim = dyn_cast<memref::DimOp>(op)) {
    if (std::optional<int64_t> index = dim.getConstantIndex())
      return extent(dim.getSource(), *index);
    return {};
  }
  if (isa<arith::MinSIOp>(op))
    return minimum(op);
  if (isa<arith::MulIOp>(op))
    return product(op);
  if (auto select = dyn_cast<arith::SelectOp>(op);
      select && select.getType().isIndex()) {
    if (Bound same = copy(op, /*monotone=*/false); same.value)
      return same;
    // Either value, if the condition is not known for every T.
    Bound yes = compute(select.getTrueValue());
    Bound no = compute(select.getFalseValue());
    if (!yes.value || !no.value)
      return {};
    Value most =
        arith::MaxSIOp::create(builder, op->getLoc(), yes.value, no.value);
    return {most, /*exact=*/false, yes.nonNegative && no.nonNegative};
  }
  if (isa<arith::AddIOp, arith::MaxSIOp>(op))
    return copy(op, /*monotone=*/true);
  if (isDivision(op))
    return copy(op, /*monotone=*/isa<arith::DivSIOp, arith::CeilDivSIOp>(op) ||
                        compute(op->getOperand(0)).nonNegative);
  if (auto cast = dyn_cast<arith::IndexCastOp>(op))
    return copy(op, /*monotone=*/isWidening(cast));
  return copy(op, /*monotone=*/false);
}

/// The same operation on the bounds of its operands. Only if it is monotone may
/// they be larger than the operands.
TokenBounds::Bound TokenBounds::copy(Operation *op, bool monotone) {
  if (op->getNumRegions() != 0 || op->getNumResults() != 1 || !isPure(op))
    return {};
  IRMapping mapping;
  bool exact = true, all = true, any = false;
  for (Value operand : op->getOperands()) {
    Bound bound = compute(operand);
    if (!bound.value || (!monotone && !bound.exact))
      return {};
    exact = exact && bound.exact;
    all = all && bound.nonNegative;
    any = any || bound.nonNegative;
    mapping.map(operand, bound.value);
  }
  bool nonNegative = monotone && (isa<arith::MaxSIOp>(op) ? any : all);
  return {builder.clone(*op, mapping)->getResult(0), exact, nonNegative};
}

TokenBounds::Bound TokenBounds::minimum(Operation *op) {
  Bound lhs = compute(op->getOperand(0)), rhs = compute(op->getOperand(1));
  if (!lhs.value || !rhs.value)
    return {lhs.value ? lhs.value : rhs.value};
  Value least =
      arith::MinSIOp::create(builder, op->getLoc(), lhs.value, rhs.value);
  return {least, lhs.exact && rhs.exact, lhs.nonNegative && rhs.nonNegative};
}

/// x·y <= bound(x)·y where y is exact and not negative, and <=
/// bound(x)·max(bound(y), 0) where x is not negative.
TokenBounds::Bound TokenBounds::product(Operation *op) {
  Location loc = op->getLoc();
  Bound lhs = compute(op->getOperand(0)), rhs = compute(op->getOperand(1));
  if (!lhs.value || !rhs.value)
    return {};
  bool exact = lhs.exact && rhs.exact;
  if (!exact && !(lhs.exact && lhs.nonNegative) &&
      !(rhs.exact && rhs.nonNegative)) {
    if (!lhs.nonNegative)
      std::swap(lhs, rhs);
    if (!lhs.nonNegative)
      return {};
    if (!rhs.nonNegative) {
      Value zero = arith::ConstantOp::create(
          builder, loc, builder.getZeroAttr(rhs.value.getType()));
      rhs.value = arith::MaxSIOp::create(builder, loc, rhs.value, zero);
    }
  }
  return {arith::MulIOp::create(builder, loc, lhs.value, rhs.value), exact,
          lhs.nonNegative && rhs.nonNegative};
}

/// True if the type alone says extent `dim`.
static bool isStatic(Value memref, int64_t dim) {
  auto type = dyn_cast<MemRefType>(memref.getType());
  return type && dim >= 0 && dim < type.getRank() && !type.isDynamicDim(dim);
}

/// The buffers that `memref` may be, through loops, branches and casts; none if
/// it is itself a view or an allocation.
static SmallVector<Value> sourcesOf(Value memref) {
  if (auto argument = dyn_cast<BlockArgument>(memref)) {
    auto loop = dyn_cast<scf::ForOp>(argument.getOwner()->getParentOp());
    if (OpOperand *init = loop ? loop.getTiedLoopInit(argument) : nullptr)
      return {init->get(), loop.getTiedLoopYieldedValue(argument)->get()};
    return {};
  }
  Operation *op = memref.getDefiningOp();
  unsigned index = cast<OpResult>(memref).getResultNumber();
  if (auto loop = dyn_cast<scf::ForOp>(op))
    return {loop.getInits()[index], loop.getYieldedValues()[index]};
  if (auto choice = dyn_cast<scf::IfOp>(op))
    return {choice.thenYield().getOperand(index),
            choice.elseYield().getOperand(index)};
  if (auto cast = dyn_cast<memref::CastOp>(op))
    return {cast.getSource()};
  return {};
}

/// True if a bound that was built is 0 or more for every T.
bool TokenBounds::isNonNegative(Value bound) const {
  if (bound == tokens)
    return true;
  APInt integer;
  if (matchPattern(bound, m_ConstantInt(&integer)))
    return !integer.isNegative();
  Operation *op = bound.getDefiningOp();
  auto isSure = [&](Value operand) { return isNonNegative(operand); };
  if (isa_and_nonnull<arith::MaxSIOp>(op))
    return llvm::any_of(op->getOperands(), isSure);
  return isa_and_nonnull<arith::AddIOp, arith::MulIOp, arith::MinSIOp,
                         arith::DivSIOp, arith::CeilDivSIOp, arith::DivUIOp,
                         arith::CeilDivUIOp>(op) &&
         llvm::all_of(op->getOperands(), isSure);
}

TokenBounds::Bound TokenBounds::extent(Value memref, int64_t dim) {
  SmallVector<Value> buffers{memref};
  Bound bound;
  for (size_t i = 0; i < buffers.size(); ++i) {
    SmallVector<Value> sources;
    if (!isStatic(buffers[i], dim))
      sources = sourcesOf(buffers[i]);
    for (Value source : sources)
      if (!llvm::is_contained(buffers, source))
        buffers.push_back(source);
    if (!sources.empty())
      continue;
    Bound own = extentOfSource(buffers[i], dim);
    if (!own.value)
      return {};
    // A buffer with an extent below 0 is not allocated for this T.
    if (!isNonNegative(own.value))
      own.value = arith::MaxSIOp::create(builder, memref.getLoc(), own.value,
                                         constant(memref.getLoc(), 0).value);
    if (!bound.value)
      bound = own;
    else if (bound.value != own.value)
      bound = {arith::MaxSIOp::create(builder, memref.getLoc(), bound.value,
                                      own.value)};
  }
  bound.nonNegative = true;
  return bound;
}

TokenBounds::Bound TokenBounds::extentOfSource(Value memref, int64_t dim) {
  auto type = dyn_cast<MemRefType>(memref.getType());
  if (!type || dim < 0 || dim >= type.getRank())
    return {};
  Location loc = memref.getLoc();
  if (isStatic(memref, dim))
    return constant(loc, type.getDimSize(dim));
  auto ofSize = [&](OpFoldResult size) -> Bound {
    if (auto value = dyn_cast<Value>(size))
      return compute(value);
    return constant(loc, cast<IntegerAttr>(cast<Attribute>(size)).getInt());
  };

  if (auto argument = dyn_cast<BlockArgument>(memref)) {
    Block *block = argument.getOwner();
    if (isa<FunctionOpInterface>(block->getParentOp()) && block->isEntryBlock())
      return {tokens, true};
    return {};
  }
  Operation *op = memref.getDefiningOp();
  if (auto alloc = dyn_cast<memref::AllocOp>(op))
    return ofSize(alloc.getMixedSizes()[dim]);
  if (auto view = dyn_cast<memref::ViewOp>(op))
    return compute(view.getDynamicSizes()[type.getDynamicDimIndex(dim)]);
  if (auto subview = dyn_cast<memref::SubViewOp>(op)) {
    llvm::SmallBitVector dropped = subview.getDroppedDims();
    for (auto [index, size] : llvm::enumerate(subview.getMixedSizes()))
      if (!dropped.test(index) && dim-- == 0)
        return ofSize(size);
    return {};
  }
  if (auto expand = dyn_cast<memref::ExpandShapeOp>(op))
    return ofSize(expand.getMixedOutputShape()[dim]);
  if (auto collapse = dyn_cast<memref::CollapseShapeOp>(op)) {
    Bound product = constant(loc, 1);
    SmallVector<ReassociationIndices> groups =
        collapse.getReassociationIndices();
    for (int64_t source : groups[dim]) {
      Bound factor = extent(collapse.getSrc(), source);
      if (!factor.value)
        return {};
      product = {
          arith::MulIOp::create(builder, loc, product.value, factor.value),
          product.exact && factor.exact, true};
    }
    return product;
  }
  return {};
}
