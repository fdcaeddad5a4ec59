//===- TensorGradient.cpp - Slices, casts and reshapes --------------------===//
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
  g.add(op.getSrc(), tensor::ExpandShapeOp::create(
                         g.b, op.getSrcType(), g.of(op.getResult()),
                         op.getReassociationIndices(), sizes));
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
