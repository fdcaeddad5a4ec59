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
  return {arith::ConstantIndexOp::create(builder, loc, value), true};
}

TokenBounds::Bound TokenBounds::compute(Value value) {
  auto found = known.find(value);
  if (found != known.end())
    return found->second;
  Bound bound = computeUncached(value);
  known[value] = bound;
  return bound;
}

TokenBounds::Bound TokenBounds::computeUncached(Value value) {
  Operation *op = value.getDefiningOp();
  if (!op)
    return {};
  if (op->hasTrait<OpTrait::ConstantLike>())
    return {builder.clone(*op)->getResult(0), true};
  if (auto dim = dyn_cast<memref::DimOp>(op)) {
    if (std::optional<int64_t> index = dim.getConstantIndex())
      return extent(dim.getSource(), *index);
    return {};
  }
  if (isa<arith::MinSIOp, arith::MinUIOp>(op))
    return minimum(op);
  bool monotone = isa<arith::AddIOp, arith::MulIOp, arith::MaxSIOp,
                      arith::MaxUIOp, arith::IndexCastOp>(op);
  return copy(op, monotone);
}

/// The same operation on the bounds of its operands. Only if it is monotone may
/// they be larger than the operands.
TokenBounds::Bound TokenBounds::copy(Operation *op, bool monotone) {
  if (op->getNumRegions() != 0 || op->getNumResults() != 1 || !isPure(op))
    return {};
  IRMapping mapping;
  bool exact = true;
  for (Value operand : op->getOperands()) {
    Bound bound = compute(operand);
    if (!bound.value || (!monotone && !bound.exact))
      return {};
    exact = exact && bound.exact;
    mapping.map(operand, bound.value);
  }
  return {builder.clone(*op, mapping)->getResult(0), exact};
}

TokenBounds::Bound TokenBounds::minimum(Operation *op) {
  Bound lhs = compute(op->getOperand(0)), rhs = compute(op->getOperand(1));
  if (lhs.value && rhs.value) {
    IRMapping mapping;
    mapping.map(op->getOperand(0), lhs.value);
    mapping.map(op->getOperand(1), rhs.value);
    return {builder.clone(*op, mapping)->getResult(0), lhs.exact && rhs.exact};
  }
  return {lhs.value ? lhs.value : rhs.value, false};
}

TokenBounds::Bound TokenBounds::extent(Value memref, int64_t dim) {
  auto type = dyn_cast<MemRefType>(memref.getType());
  if (!type || dim < 0 || dim >= type.getRank())
    return {};
  Location loc = memref.getLoc();
  if (!type.isDynamicDim(dim))
    return constant(loc, type.getDimSize(dim));
  auto ofSize = [&](OpFoldResult size) -> Bound {
    if (auto value = dyn_cast<Value>(size))
      return compute(value);
    return constant(loc, cast<IntegerAttr>(cast<Attribute>(size)).getInt());
  };

  if (auto argument = dyn_cast<BlockArgument>(memref)) {
    Operation *parent = argument.getOwner()->getParentOp();
    if (isa<FunctionOpInterface>(parent))
      return {tokens, true};
    if (auto loop = dyn_cast<scf::ForOp>(parent))
      if (OpOperand *init = loop.getTiedLoopInit(argument))
        return extent(init->get(), dim);
    return {};
  }
  Operation *op = memref.getDefiningOp();
  if (auto alloc = dyn_cast<memref::AllocOp>(op))
    return ofSize(alloc.getMixedSizes()[dim]);
  if (auto view = dyn_cast<memref::ViewOp>(op))
    return compute(view.getDynamicSizes()[type.getDynamicDimIndex(dim)]);
  if (auto cast = dyn_cast<memref::CastOp>(op))
    return extent(cast.getSource(), dim);
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
    for (int64_t source : collapse.getReassociationIndices()[dim]) {
      Bound factor = extent(collapse.getSrc(), source);
      if (!factor.value)
        return {};
      product = {arith::MulIOp::create(builder, loc, product.value,
                                       factor.value),
                 product.exact && factor.exact};
    }
    return product;
  }
  if (auto loop = dyn_cast<scf::ForOp>(op))
    return extent(loop.getInits()[cast<OpResult>(memref).getResultNumber()],
                  dim);
  if (auto choice = dyn_cast<scf::IfOp>(op)) {
    unsigned index = cast<OpResult>(memref).getResultNumber();
    Bound lhs = extent(choice.thenYield().getOperand(index), dim);
    Bound rhs = extent(choice.elseYield().getOperand(index), dim);
    if (!lhs.value || !rhs.value)
      return {};
    return {arith::MaxSIOp::create(builder, loc, lhs.value, rhs.value), false};
  }
  return {};
}
