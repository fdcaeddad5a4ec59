//===- DeviceEpilogue.cpp - Epilogues of grouped matmuls ------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "DeviceEpilogue.h"

#include "Limits.h"

#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/Matchers.h"
#include "mlir/IR/TypeUtilities.h"

using namespace mlir;
using namespace mlir::moe;

namespace {
/// An operand as a strided view of a compact tensor.
struct OperandView {
  TypedValue<RankedTensorType> source;
  SmallVector<int64_t> offsets, strides;
};
} // namespace

static OperandView viewOf(Value operand) {
  auto tensor = cast<TypedValue<RankedTensorType>>(operand);
  int64_t rank = tensor.getType().getRank();
  auto slice = operand.getDefiningOp<tensor::ExtractSliceOp>();
  if (slice && slice.getSourceType().getRank() == rank &&
      !ShapedType::isDynamicShape(slice.getStaticOffsets()) &&
      !ShapedType::isDynamicShape(slice.getStaticStrides()) &&
      !ShapedType::isDynamicShape(
          slice.getSourceType().getShape().drop_front(rank > 0)))
    return {slice.getSource(), SmallVector<int64_t>(slice.getStaticOffsets()),
            SmallVector<int64_t>(slice.getStaticStrides())};
  return {tensor, SmallVector<int64_t>(rank, 0), SmallVector<int64_t>(rank, 1)};
}

SmallVector<Value> DeviceEpilogue::inputs(GroupedMatmulOp op) {
  return llvm::map_to_vector(op.getExtras(), [](Value extra) -> Value {
    return viewOf(extra).source;
  });
}

LogicalResult DeviceEpilogue::verify(GroupedMatmulOp op, std::string &why) {
  Block &body = op.getEpilogue().front();
  for (Operation &nested : body) {
    if (!isa<arith::ArithDialect, math::MathDialect, MoEDialect>(
            nested.getDialect()) ||
        nested.getNumRegions() != 0)
      return unsupported(why, "'" + nested.getName().getStringRef() +
                                  "' in the epilogue");
    for (Value operand : nested.getOperands())
      if (operand.getParentBlock() != &body &&
          !matchPattern(operand, m_Constant()))
        return unsupported(why, "a value from outside of the epilogue");
  }
  for (Value extra : op.getExtras()) {
    auto type = cast<RankedTensorType>(extra.getType());
    // Linear offsets depend on every extent but the first.
    if (llvm::any_of(type.getShape().drop_front(type.getRank() > 0),
                     ShapedType::isDynamic) ||
        type.getElementTypeBitWidth() % 8 != 0)
      return unsupported(why, "an epilogue operand with dynamic inner extents "
                              "or sub-byte elements");
    if (isa<FloatType>(type.getElementType()) &&
        type.getElementTypeBitWidth() == 8)
      return unsupported(why, "an epilogue operand of 8-bit floats");
  }
  return success();
}

Value DeviceEpilogue::loadExtra(unsigned index, const Place &place) {
  OperandView view = viewOf(op.getExtras()[index]);
  RankedTensorType type = view.source.getType();
  Value coordinates[3] = {place.expert, place.row, place.column};
  // The constant part of the offset becomes that of an instruction.
  Value offset = b.i64(0);
  int64_t constant = 0;
  for (auto [dim, expr] :
       llvm::enumerate(op.getOperandMap(index).getResults())) {
    unsigned position = cast<AffineDimExpr>(expr).getPosition();
    if (dim > 0) {
      offset = b.mul(offset, type.getDimSize(dim));
      constant *= type.getDimSize(dim);
    }
    offset =
        b.add(offset, b.mul(b.toI64(coordinates[position]), view.strides[dim]));
    constant += view.offsets[dim];
    if (position == 2)
      constant += place.columnOffset * view.strides[dim];
  }
  Type element = type.getElementType();
  Value pointer =
      b.at(b.at(extras[index], element, offset), element, b.i64(constant));
  return place.hasColumn ? b.loadIf(place.hasColumn, element, pointer)
                         : b.load(element, pointer);
}

EpilogueMath DeviceEpilogue::mathOf(GroupedMatmulOp op) {
  bool isRounded = llvm::any_of(op.getInits(), [](Value init) {
    auto type = dyn_cast<FloatType>(getElementTypeOrSelf(init));
    return type && type.getWidth() <= 16;
  });
  return isRounded ? EpilogueMath::Approximate : EpilogueMath::Precise;
}

Operation *DeviceEpilogue::clone(Operation &nested, IRMapping &mapping) {
  Operation *op = b.clone(nested, mapping);
  auto withFlags = dyn_cast<arith::ArithFastMathInterface>(op);
  bool isFunction = isa<math::MathDialect>(op->getDialect());
  if (math == EpilogueMath::Precise || !withFlags ||
      !(isFunction || isa<arith::DivFOp>(op)) ||
      op->getResult(0).getType().isF64())
    return op;
  auto flags = withFlags.getFastMathFlagsAttr();
  op->setAttr(withFlags.getFastMathAttrName(),
              arith::FastMathFlagsAttr::get(
                  b.getContext(),
                  arith::FastMathFlags::afn |
                      (flags ? flags.getValue() : arith::FastMathFlags::none)));
  return op;
}

SmallVector<Value> DeviceEpilogue::build(ValueRange accumulators,
                                         const Place &place) {
  Block &body = op.getEpilogue().front();
  IRMapping mapping;
  for (auto [argument, accumulator] :
       llvm::zip(body.getArguments(), accumulators))
    mapping.map(argument, accumulator);
  for (unsigned i = 0; i < op.getExtras().size(); ++i)
    mapping.map(body.getArgument(accumulators.size() + i), loadExtra(i, place));
  auto lookup = [&](Value operand) {
    if (!mapping.contains(operand))
      mapping.map(operand,
                  b.clone(*operand.getDefiningOp())
                      ->getResult(cast<OpResult>(operand).getResultNumber()));
    return mapping.lookup(operand);
  };
  for (Operation &nested : body.without_terminator()) {
    for (Value operand : nested.getOperands())
      (void)lookup(operand);
    clone(nested, mapping);
  }
  return llvm::map_to_vector(op.getYield().getValues(), lookup);
}
