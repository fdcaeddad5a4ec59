//===- TensorGradient.cpp - Slices, casts, reshapes and sums --------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Gradients.h"

#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::moe;

/// Sizes and offsets of a slice in the backward function.
static SmallVector<OpFoldResult> forwardAll(Gradients &g,
                                            ArrayRef<OpFoldResult> values) {
  return llvm::map_to_vector(values, [&](OpFoldResult value) {
    auto dynamic = dyn_cast<Value>(value);
    return dynamic ? OpFoldResult(g.forward(dynamic)) : value;
  });
}

static LogicalResult differentiate(tensor::ExtractSliceOp op, Gradients &g) {
  g.add(op.getSource(), SliceGradient{g.of(op.getResult()),
                                      {forwardAll(g, op.getMixedOffsets()),
                                       forwardAll(g, op.getMixedSizes()),
                                       forwardAll(g, op.getMixedStrides())}});
  return success();
}

static LogicalResult differentiate(tensor::InsertSliceOp op, Gradients &g) {
  Value gradient = g.of(op.getResult());
  SmallVector<OpFoldResult> offsets = forwardAll(g, op.getMixedOffsets()),
                            sizes = forwardAll(g, op.getMixedSizes()),
                            strides = forwardAll(g, op.getMixedStrides());
  if (g.isActive(op.getSource()))
    g.add(op.getSource(),
          tensor::ExtractSliceOp::create(g.b, op.getSourceType(), gradient,
                                         offsets, sizes, strides));
  if (g.isActive(op.getDest())) {
    Value zeros = g.zeros(sizes, op.getSourceType().getElementType());
    g.add(op.getDest(), tensor::InsertSliceOp::create(g.b, zeros, gradient,
                                                      offsets, sizes, strides));
  }
  return success();
}

static LogicalResult differentiate(tensor::CastOp op, Gradients &g) {
  g.add(op.getSource(), g.of(op.getResult()));
  return success();
}

static LogicalResult differentiate(tensor::ExpandShapeOp op, Gradients &g) {
  g.add(op.getSrc(),
        tensor::CollapseShapeOp::create(g.b, g.of(op.getResult()),
                                        op.getReassociationIndices()));
  return success();
}

static LogicalResult differentiate(tensor::CollapseShapeOp op, Gradients &g) {
  SmallVector<OpFoldResult> sizes = g.sizes(g.forward(op.getSrc()));
  Value gradient = g.of(op.getResult());
  g.add(op.getSrc(),
        tensor::ExpandShapeOp::create(
            g.b, op.getSrcType().clone(getElementTypeOrSelf(gradient)),
            gradient, op.getReassociationIndices(), sizes));
  return success();
}

static LogicalResult differentiate(tensor::ConcatOp op, Gradients &g) {
  ImplicitLocOpBuilder &b = g.b;
  Value gradient = g.of(op.getResult());
  int64_t dim = op.getDim();
  SmallVector<OpFoldResult> offsets(op.getRank(), b.getIndexAttr(0)),
      strides(op.getRank(), b.getIndexAttr(1));
  for (Value input : op.getInputs()) {
    SmallVector<OpFoldResult> sizes = g.sizes(g.forward(input));
    if (g.isActive(input))
      g.add(input, tensor::ExtractSliceOp::create(
                       b, cast<RankedTensorType>(input.getType()), gradient,
                       offsets, sizes, strides));
    Value begin = getValueOrCreateConstantIndexOp(b, b.getLoc(), offsets[dim]),
          extent = getValueOrCreateConstantIndexOp(b, b.getLoc(), sizes[dim]);
    offsets[dim] = arith::AddIOp::create(b, begin, extent).getResult();
  }
  return success();
}

LogicalResult mlir::moe::differentiateTensorOp(Operation *op, Gradients &g) {
  g.b.setLoc(op->getLoc());
  return llvm::TypeSwitch<Operation *, LogicalResult>(op)
      .Case<tensor::ExtractSliceOp, tensor::InsertSliceOp, tensor::CastOp,
            tensor::ExpandShapeOp, tensor::CollapseShapeOp, tensor::ConcatOp>(
          [&](auto each) { return ::differentiate(each, g); })
      .Default([](Operation *op) {
        return LogicalResult(op->emitOpError("has no gradient"));
      });
}

//===----------------------------------------------------------------------===//
// Sums
//===----------------------------------------------------------------------===//

// The gradient of the weights of experts is one moe.grouped_contract, or one
// for each part, put next to each other. Each can add to what its part of a
// tensor has, in place: the gradients of several batches need one buffer.

/// Returns the product that computes a tensor and can start from another one;
/// null if something else does.
static GroupedContractOp contractOf(Value value) {
  auto contract = value.getDefiningOp<GroupedContractOp>();
  return contract && !contract.getAccumulate() ? contract : GroupedContractOp();
}

static void startFrom(GroupedContractOp contract, Value before) {
  contract.getInitMutable().assign(before);
  contract.setAccumulate(true);
}

/// Returns the insertions of products that make a tensor of which the rest is
/// empty or zero, in the order of the products; none if it is made otherwise.
static SmallVector<tensor::InsertSliceOp> partsOf(Value value) {
  SmallVector<tensor::InsertSliceOp> parts;
  while (auto part = value.getDefiningOp<tensor::InsertSliceOp>()) {
    GroupedContractOp contract = contractOf(part.getSource());
    bool isStatic = contract && contract.getResult().hasOneUse() &&
                    part->getNumOperands() == 2; // no extents
    if (!isStatic || (!parts.empty() && !value.hasOneUse()))
      return {};
    parts.push_back(part);
    value = part.getDest();
  }
  if (parts.empty() || !value.getDefiningOp() ||
      !isa<tensor::EmptyOp, linalg::FillOp>(value.getDefiningOp()))
    return {};
  llvm::sort(parts, [](tensor::InsertSliceOp a, tensor::InsertSliceOp b) {
    return a.getSource().getDefiningOp()->isBeforeInBlock(
        b.getSource().getDefiningOp());
  });
  return parts;
}

/// Adds the parts to those of `before`, one after the other, so that each is
/// computed in place.
static Value addParts(ImplicitLocOpBuilder &b,
                      ArrayRef<tensor::InsertSliceOp> parts, Value before) {
  OpBuilder::InsertionGuard guard(b);
  for (tensor::InsertSliceOp part : parts) {
    GroupedContractOp contract = contractOf(part.getSource());
    b.setInsertionPoint(contract);
    startFrom(contract,
              tensor::ExtractSliceOp::create(
                  b, part.getSourceType(), before, part.getMixedOffsets(),
                  part.getMixedSizes(), part.getMixedStrides()));
    b.setInsertionPointAfter(contract);
    before = tensor::InsertSliceOp::create(
        b, contract.getResult(), before, part.getMixedOffsets(),
        part.getMixedSizes(), part.getMixedStrides());
  }
  return before;
}

Value mlir::moe::addTo(ImplicitLocOpBuilder &b, Value gradient, Value before) {
  auto type = cast<RankedTensorType>(gradient.getType());
  if (GroupedContractOp contract = contractOf(gradient)) {
    startFrom(contract, before);
    return gradient;
  }
  if (SmallVector<tensor::InsertSliceOp> parts = partsOf(gradient);
      !parts.empty())
    return addParts(b, parts, before);
  if (auto collapse = gradient.getDefiningOp<tensor::CollapseShapeOp>();
      collapse && collapse.getSrcType().hasStaticShape() &&
      contractOf(collapse.getSrc())) {
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPoint(collapse.getSrc().getDefiningOp());
    startFrom(
        contractOf(collapse.getSrc()),
        tensor::ExpandShapeOp::create(b, collapse.getSrcType(), before,
                                      collapse.getReassociationIndices()));
    return gradient;
  }
  AffineMap each = b.getMultiDimIdentityMap(type.getRank());
  return linalg::GenericOp::create(
             b, type, gradient, before, SmallVector<AffineMap>{each, each},
             SmallVector<utils::IteratorType>(type.getRank(),
                                              utils::IteratorType::parallel),
             [&](OpBuilder &builder, Location loc, ValueRange v) {
               ImplicitLocOpBuilder inner(loc, builder);
               Value sum = arith::AddFOp::create(inner, toF32(inner, v[1]),
                                                 toF32(inner, v[0]));
               if (Type element = type.getElementType(); !element.isF32())
                 sum = arith::TruncFOp::create(inner, element, sum);
               linalg::YieldOp::create(inner, sum);
             })
      .getResult(0);
}
