//===- ExpertParameters.cpp - Parameters of the experts of a rank ---------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ExpertParameters.h"

#include "moe/Dialect/MoE/IR/MoEABI.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::moe;

LogicalResult ExpertParameters::take(ExpertOp expert) {
  if (expert.getFirstExpert() != 0 || expert.getExpertCount() != experts)
    return expert.emitOpError("expected the experts of a dispatch to be of one "
                              "kind, to spread them over ranks, got a range of "
                              "experts ")
           << expert.getFirstExpert() << " to "
           << expert.getFirstExpert() + expert.getExpertCount() - 1 << " of "
           << experts;
  if (expert.getCountAttr())
    expert.setCount(slots);
  users.insert(expert);
  for (Value parameter : expert.getParams())
    if (failed(narrow(parameter, expert)))
      return failure();
  return success();
}

/// Returns a type `[E, ...]` with the slots of a rank.
static RankedTensorType withSlots(RankedTensorType type, int64_t slots) {
  SmallVector<int64_t> shape(type.getShape());
  shape[0] = slots;
  return type.clone(shape);
}

LogicalResult ExpertParameters::narrow(Value value, Operation *user) {
  if (narrowed.contains(value))
    return success();
  auto type = dyn_cast<RankedTensorType>(value.getType());
  if (!type || type.getRank() < 1 || type.getDimSize(0) != experts)
    return user->emitOpError("expected parameters with a leading dimension of ")
           << experts << ", one slice for each expert, got " << value.getType();
  narrowed.insert(value);
  if (auto argument = dyn_cast<BlockArgument>(value)) {
    if (argument.getOwner()->getParentOp() != function)
      return user->emitOpError("expected parameters of experts from arguments "
                               "of the function");
    argument.setType(withSlots(type, slots));
    return success();
  }
  Operation *op = value.getDefiningOp();
  if (op->getParentOp() != function)
    return op->emitOpError("expected an operation in the body of the function, "
                           "to spread the experts over ranks");
  users.insert(op);
  value.setType(withSlots(type, slots));
  return narrowOperands(op);
}

/// Narrows the operands that a slice of the result of `op` comes from.
LogicalResult ExpertParameters::narrowOperands(Operation *op) {
  return llvm::TypeSwitch<Operation *, LogicalResult>(op)
      .Case([&](DequantizeOp) {
        for (Value operand : op->getOperands())
          if (failed(narrow(operand, op)))
            return failure();
        return success();
      })
      .Case([&](linalg::LinalgOp linalgOp) -> LogicalResult {
        // The loop over the experts: that of the first dimension of the
        // results.
        std::optional<unsigned> loop;
        for (OpOperand &init : linalgOp.getDpsInitsMutable()) {
          AffineMap map = linalgOp.getMatchingIndexingMap(&init);
          AffineDimExpr dim(nullptr);
          if (map.getNumResults() > 0)
            dim = dyn_cast<AffineDimExpr>(map.getResult(0));
          if (!dim || dim.getPosition() != loop.value_or(dim.getPosition()))
            return op->emitOpError("expected results by expert, to spread the "
                                   "experts over ranks");
          loop = dim.getPosition();
        }
        for (OpResult result : op->getResults())
          if (!narrowed.contains(result)) {
            narrowed.insert(result);
            result.setType(
                withSlots(cast<RankedTensorType>(result.getType()), slots));
          }
        for (OpOperand &operand : op->getOpOperands()) {
          AffineMap map = linalgOp.getMatchingIndexingMap(&operand);
          for (auto [dim, expr] : llvm::enumerate(map.getResults())) {
            if (!expr.isFunctionOfDim(*loop))
              continue;
            if (dim != 0 || !isa<AffineDimExpr>(expr))
              return op->emitOpError("expected operands by expert, to spread "
                                     "the experts over ranks");
            if (failed(narrow(operand.get(), op)))
              return failure();
          }
        }
        return success();
      })
      .Case([&](tensor::EmptyOp) { return success(); })
      .Case([&](tensor::CastOp cast) { return narrow(cast.getSource(), op); })
      .Case([&](tensor::CollapseShapeOp shape) -> LogicalResult {
        if (shape.getReassociationIndices().front().size() != 1)
          return op->emitOpError("expected a reshape of each expert, to spread "
                                 "the experts over ranks");
        return narrow(shape.getSrc(), op);
      })
      .Case([&](tensor::ExpandShapeOp shape) -> LogicalResult {
        if (shape.getReassociationIndices().front().size() != 1)
          return op->emitOpError("expected a reshape of each expert, to spread "
                                 "the experts over ranks");
        SmallVector<int64_t> shapes(shape.getStaticOutputShape());
        shapes[0] = slots;
        shape.setStaticOutputShape(shapes);
        return narrow(shape.getSrc(), op);
      })
      .Case([&](tensor::ExtractSliceOp slice) -> LogicalResult {
        SmallVector<int64_t> sizes(slice.getStaticSizes());
        if (slice.getSourceType().getDimSize(0) != experts ||
            sizes[0] != experts)
          return op->emitOpError("expected a slice of all experts, to spread "
                                 "them over ranks");
        sizes[0] = slots;
        slice.setStaticSizes(sizes);
        return narrow(slice.getSource(), op);
      })
      .Default([&](Operation *) {
        return op->emitOpError("is not known to treat every expert alone, and "
                               "computes a parameter of experts that are "
                               "spread over ranks");
      });
}

LogicalResult ExpertParameters::finish() {
  for (Value value : narrowed)
    for (Operation *user : value.getUsers())
      if (!users.contains(user) && !isa<tensor::DimOp>(user))
        return user->emitOpError(
            "uses a parameter of experts that are spread over ranks");
  Builder b(function.getContext());
  for (Value value : narrowed)
    if (auto argument = dyn_cast<BlockArgument>(value))
      function.setArgAttr(argument.getArgNumber(), "moe.experts",
                          b.getI64IntegerAttr(experts));
  function.setType(
      b.getFunctionType(function.getBody().front().getArgumentTypes(),
                        function.getResultTypes()));
  return success();
}
