//===- TokenExtents.cpp - Extents that are the number of tokens -----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Analysis/TokenExtents.h"

#include "moe/Dialect/MoE/IR/MoEABI.h"

#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"
#include "mlir/Interfaces/DestinationStyleOpInterface.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"

using namespace mlir;
using namespace mlir::moe;

Extent mlir::moe::extentOf(OpFoldResult size, Operation *exported) {
  if (std::optional<int64_t> constant = getConstantIntValue(size))
    return {Value(), *constant};
  auto value = cast<Value>(size);
  if (auto dim = value.getDefiningOp<tensor::DimOp>())
    if (std::optional<int64_t> number = dim.getConstantIndex())
      return extentOf(dim.getSource(), *number, exported);
  return {value, Extent::index};
}

/// Returns the initial value of a value that a loop carries, whose extents it
/// keeps, or else is an error.
static Value startOf(Value value) {
  if (auto argument = dyn_cast<BlockArgument>(value)) {
    Operation *parent = argument.getOwner()->getParentOp();
    unsigned number = argument.getArgNumber();
    if (auto loop = dyn_cast<scf::ForOp>(parent))
      return number == 0 ? Value() : loop.getInits()[number - 1];
    if (auto loop = dyn_cast<scf::WhileOp>(parent))
      return argument.getOwner() == loop.getBeforeBody()
                 ? loop.getInits()[number]
                 : loop.getConditionOp().getArgs()[number];
    return {};
  }
  auto result = cast<OpResult>(value);
  Operation *op = result.getOwner();
  if (auto loop = dyn_cast<scf::ForOp>(op))
    return loop.getInits()[result.getResultNumber()];
  if (auto loop = dyn_cast<scf::WhileOp>(op))
    return loop.getConditionOp().getArgs()[result.getResultNumber()];
  if (auto style = dyn_cast<DestinationStyleOpInterface>(op))
    return style.getTiedOpOperand(result)->get();
  if (isa<tensor::CastOp, tensor::InsertOp>(op))
    return op->getOperand(isa<tensor::InsertOp>(op));
  return {};
}

/// The operand of an operation of this dialect that has as many rows as a
/// result.
static Value rowsOf(OpResult result) {
  Operation *op = result.getOwner();
  if (auto gate = dyn_cast<GateOp>(op))
    return gate.isChosenByExperts() ? Value() : gate.getLogits();
  if (auto gradient = dyn_cast<GateGradientOp>(op))
    return gradient.getLogits();
  if (auto gradient = dyn_cast<AuxiliaryLossGradientOp>(op))
    return gradient.getValues();
  if (auto dispatch = dyn_cast<DispatchOp>(op))
    return result == dispatch.getPositions() ? dispatch.getIds() : Value();
  if (auto expert = dyn_cast<ExpertOp>(op))
    return expert.getGrouped();
  if (auto combine = dyn_cast<CombineOp>(op))
    return combine.getPositions();
  if (auto quantize = dyn_cast<QuantizeOp>(op);
      quantize && quantize.isRowwise())
    return quantize.getSource();
  return {};
}

Extent mlir::moe::extentOf(Value tensor, int64_t dim, Operation *exported) {
  auto type = dyn_cast<RankedTensorType>(tensor.getType());
  if (type && !type.isDynamicDim(dim))
    return {Value(), type.getDimSize(dim)};
  if (Value start = startOf(tensor))
    return extentOf(start, dim, exported);
  if (auto argument = dyn_cast<BlockArgument>(tensor)) {
    // moe-export makes every dynamic extent of an argument T.
    Operation *parent = argument.getOwner()->getParentOp();
    bool isInput = parent == exported || isExported(parent);
    return isInput ? Extent{Value(), Extent::tokens} : Extent{tensor, dim};
  }
  if (auto empty = tensor.getDefiningOp<tensor::EmptyOp>())
    return extentOf(empty.getMixedSizes()[dim], exported);
  if (auto generate = tensor.getDefiningOp<tensor::GenerateOp>())
    return extentOf(
        OpFoldResult(
            generate.getDynamicExtents()[type.getDynamicDimIndex(dim)]),
        exported);
  if (auto slice = tensor.getDefiningOp<tensor::ExtractSliceOp>()) {
    llvm::SmallBitVector dropped = slice.getDroppedDims();
    for (auto [number, size] : llvm::enumerate(slice.getMixedSizes()))
      if (!dropped.test(number) && dim-- == 0)
        return extentOf(size, exported);
  }
  if (auto choice = tensor.getDefiningOp<scf::IfOp>()) {
    unsigned number = cast<OpResult>(tensor).getResultNumber();
    Value then = choice.thenYield().getOperand(number);
    Value otherwise = choice.elseYield().getOperand(number);
    Extent extent = extentOf(then, dim, exported);
    if (extent == extentOf(otherwise, dim, exported))
      return extent;
  }
  // Operations on each token or row keep the number of rows.
  if (dim == 0)
    if (Value rows = rowsOf(cast<OpResult>(tensor)))
      return extentOf(rows, 0, exported);
  return {tensor, dim};
}

bool mlir::moe::haveSameExtents(Value a, Value b) {
  auto type = cast<RankedTensorType>(a.getType());
  if (type != b.getType())
    return false;
  return llvm::all_of(llvm::seq<int64_t>(type.getRank()), [&](int64_t dim) {
    return extentOf(a, dim) == extentOf(b, dim);
  });
}

/// Evaluates an index that is computed from extents and constants alone.
static std::optional<int64_t> evaluateIndex(Value value, int64_t tokens,
                                            Operation *exported) {
  if (std::optional<int64_t> constant = getConstantIntValue(value))
    return constant;
  Operation *op = value.getDefiningOp();
  if (auto dim = dyn_cast_or_null<tensor::DimOp>(op)) {
    std::optional<int64_t> number = dim.getConstantIndex();
    return number ? evaluateExtent(extentOf(dim.getSource(), *number, exported),
                                   tokens, exported)
                  : std::nullopt;
  }
  if (!op || op->getNumRegions() != 0 || op->getNumResults() != 1 ||
      !isPure(op))
    return std::nullopt;
  SmallVector<Attribute> operands;
  for (Value operand : op->getOperands()) {
    if (!operand.getType().isIntOrIndex())
      return std::nullopt;
    std::optional<int64_t> number = evaluateIndex(operand, tokens, exported);
    if (!number)
      return std::nullopt;
    operands.push_back(IntegerAttr::get(operand.getType(), *number));
  }
  SmallVector<OpFoldResult> folded;
  if (failed(op->fold(operands, folded)) || folded.size() != 1)
    return std::nullopt;
  if (auto other = dyn_cast<Value>(folded[0]))
    return other == value ? std::nullopt
                          : evaluateIndex(other, tokens, exported);
  return getConstantIntValue(folded[0]);
}

std::optional<int64_t> mlir::moe::evaluateExtent(const Extent &extent,
                                                 int64_t tokens,
                                                 Operation *exported) {
  if (extent.isTokens())
    return tokens;
  if (extent.isKnown())
    return extent.number;
  if (extent.number == Extent::index)
    return evaluateIndex(extent.source, tokens, exported);
  auto op = extent.source.getDefiningOp<ReifyRankedShapedTypeOpInterface>();
  if (!op)
    return std::nullopt;
  OpBuilder b(op->getContext());
  b.setInsertionPointAfter(op);
  ReifiedRankedShapedTypeDims shapes;
  if (failed(op.reifyResultShapes(b, shapes)))
    return std::nullopt;
  OpFoldResult size =
      shapes[cast<OpResult>(extent.source).getResultNumber()][extent.number];
  auto value = dyn_cast<Value>(size);
  return value ? evaluateIndex(value, tokens, exported)
               : getConstantIntValue(size);
}
