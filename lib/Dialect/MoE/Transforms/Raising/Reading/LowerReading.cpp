//===- LowerReading.cpp - Operations of a reading in linalg --------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What is computed of the rows of experts has other rows than in the program,
// and so no operation there: it becomes operations of tensors.
//
//===----------------------------------------------------------------------===//

#include "Reading.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Utils/ReshapeOpsUtils.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

static Value lowerConvert(OpBuilder &b, Location loc, Value value, Type type) {
  Type from = getElementTypeOrSelf(value), to = getElementTypeOrSelf(type);
  if (from == to)
    return value;
  unsigned before = from.getIntOrFloatBitWidth(),
           after = to.getIntOrFloatBitWidth();
  if (isa<FloatType>(from) && isa<FloatType>(to)) {
    if (before < after)
      return arith::ExtFOp::create(b, loc, type, value);
    // bf16 and f16 have no common type but f32.
    if (before == after) {
      auto wide = cast<RankedTensorType>(type).clone(b.getF32Type());
      value = arith::ExtFOp::create(b, loc, wide, value);
    }
    return arith::TruncFOp::create(b, loc, type, value);
  }
  if (isa<IntegerType>(from) && isa<IntegerType>(to)) {
    if (after == 1)
      return {};
    if (before < after)
      return before == 1 ? Value(arith::ExtUIOp::create(b, loc, type, value))
                         : arith::ExtSIOp::create(b, loc, type, value);
    return arith::TruncIOp::create(b, loc, type, value);
  }
  if (isa<IntegerType>(from))
    return before == 1 ? Value(arith::UIToFPOp::create(b, loc, type, value))
                       : arith::SIToFPOp::create(b, loc, type, value);
  return {};
}

/// Returns a tensor of the type of `like`, of one number.
static Value lowerSplat(OpBuilder &b, Location loc, double number, Value like) {
  auto type = cast<RankedTensorType>(like.getType());
  Value scalar = arith::ConstantOp::create(
      b, loc, b.getFloatAttr(type.getElementType(), number));
  Value init = tensor::EmptyOp::create(
      b, loc, tensor::getMixedSizes(b, loc, like), type.getElementType());
  return linalg::FillOp::create(b, loc, scalar, init).getResult(0);
}

static Value lowerCompare(OpBuilder &b, Location loc, StringRef direction,
                          ValueRange x) {
  if (isa<FloatType>(getElementTypeOrSelf(x[0]))) {
    auto predicate = llvm::StringSwitch<arith::CmpFPredicate>(direction)
                         .Case("LT", arith::CmpFPredicate::OLT)
                         .Case("LE", arith::CmpFPredicate::OLE)
                         .Case("GT", arith::CmpFPredicate::OGT)
                         .Case("GE", arith::CmpFPredicate::OGE)
                         .Case("NE", arith::CmpFPredicate::UNE)
                         .Default(arith::CmpFPredicate::OEQ);
    return arith::CmpFOp::create(b, loc, predicate, x[0], x[1]);
  }
  auto predicate = llvm::StringSwitch<arith::CmpIPredicate>(direction)
                       .Case("LT", arith::CmpIPredicate::slt)
                       .Case("LE", arith::CmpIPredicate::sle)
                       .Case("GT", arith::CmpIPredicate::sgt)
                       .Case("GE", arith::CmpIPredicate::sge)
                       .Case("NE", arith::CmpIPredicate::ne)
                       .Default(arith::CmpIPredicate::eq);
  return arith::CmpIOp::create(b, loc, predicate, x[0], x[1]);
}

/// Builds a function of one float; null for others.
static Value lowerUnary(OpBuilder &b, Location loc, StringRef name, Value x) {
  if (name == "negate")
    return arith::NegFOp::create(b, loc, x);
  if (name == "exponential")
    return math::ExpOp::create(b, loc, x);
  if (name == "log")
    return math::LogOp::create(b, loc, x);
  if (name == "log_plus_one")
    return math::Log1pOp::create(b, loc, x);
  if (name == "exponential_minus_one")
    return math::ExpM1Op::create(b, loc, x);
  if (name == "tanh")
    return math::TanhOp::create(b, loc, x);
  if (name == "erf")
    return math::ErfOp::create(b, loc, x);
  if (name == "sqrt")
    return math::SqrtOp::create(b, loc, x);
  if (name == "rsqrt")
    return math::RsqrtOp::create(b, loc, x);
  if (name == "abs")
    return math::AbsFOp::create(b, loc, x);
  if (name == "logistic") {
    Value one = lowerSplat(b, loc, 1.0, x);
    Value power = math::ExpOp::create(b, loc, arith::NegFOp::create(b, loc, x));
    return arith::DivFOp::create(b, loc, one,
                                 arith::AddFOp::create(b, loc, one, power));
  }
  return {};
}

/// Builds a function of two numbers; null for others.
static Value lowerBinary(OpBuilder &b, Location loc, StringRef name, Value x,
                         Value y) {
  bool isFloat = isa<FloatType>(getElementTypeOrSelf(x));
#define MOE_LOWER(NAME, FLOAT, INTEGER)                                        \
  if (name == NAME)                                                            \
    return isFloat ? Value(FLOAT::create(b, loc, x, y))                        \
                   : Value(INTEGER::create(b, loc, x, y));
  MOE_LOWER("add", arith::AddFOp, arith::AddIOp)
  MOE_LOWER("subtract", arith::SubFOp, arith::SubIOp)
  MOE_LOWER("multiply", arith::MulFOp, arith::MulIOp)
  MOE_LOWER("maximum", arith::MaximumFOp, arith::MaxSIOp)
  MOE_LOWER("minimum", arith::MinimumFOp, arith::MinSIOp)
#undef MOE_LOWER
  if (name == "divide" && isFloat)
    return arith::DivFOp::create(b, loc, x, y);
  if (name == "power" && isFloat)
    return math::PowFOp::create(b, loc, x, y);
  if (name == "and" && !isFloat)
    return arith::AndIOp::create(b, loc, x, y);
  if (name == "or" && !isFloat)
    return arith::OrIOp::create(b, loc, x, y);
  return {};
}

/// Builds a scalar, or a tensor that repeats dimensions of extent 1.
static Value lowerBroadcast(OpBuilder &b, Location loc, Operation *op,
                            Value value) {
  auto from = cast<RankedTensorType>(value.getType()),
       to = cast<RankedTensorType>(op->getResult(0).getType());
  auto dims = integersOf(op, "broadcast_dimensions");
  if (!dims || int64_t(dims->size()) != from.getRank() || !to.hasStaticShape())
    return {};
  SmallVector<AffineExpr> exprs;
  for (auto [index, dim] : llvm::enumerate(*dims))
    exprs.push_back(from.getDimSize(index) == to.getDimSize(dim)
                        ? b.getAffineDimExpr(dim)
                        : b.getAffineConstantExpr(0));
  Value init =
      tensor::EmptyOp::create(b, loc, to.getShape(), to.getElementType());
  SmallVector<AffineMap> maps{
      AffineMap::get(to.getRank(), 0, exprs, b.getContext()),
      b.getMultiDimIdentityMap(to.getRank())};
  SmallVector<utils::IteratorType> loops(to.getRank(),
                                         utils::IteratorType::parallel);
  return linalg::GenericOp::create(
             b, loc, to, value, init, maps, loops,
             [](OpBuilder &b, Location loc, ValueRange x) {
               linalg::YieldOp::create(b, loc, x[0]);
             })
      .getResult(0);
}

static Value lowerTranspose(OpBuilder &b, Location loc, Operation *op,
                            Value value) {
  auto permutation = integersOf(op, "permutation");
  if (!permutation)
    return {};
  SmallVector<OpFoldResult> from = tensor::getMixedSizes(b, loc, value), to;
  for (int64_t dim : *permutation)
    to.push_back(from[dim]);
  Value init = tensor::EmptyOp::create(b, loc, to, getElementTypeOrSelf(value));
  return linalg::TransposeOp::create(b, loc, value, init, *permutation)
      ->getResult(0);
}

/// Builds a reshape of static extents that merges or splits dimensions.
static Value lowerReshape(OpBuilder &b, Location loc, RankedTensorType to,
                          Value value) {
  auto from = cast<RankedTensorType>(value.getType());
  auto groups = getReassociationIndicesForReshape(from, to);
  if (!from.hasStaticShape() || !to.hasStaticShape() || !groups)
    return {};
  return from.getRank() > to.getRank()
             ? Value(
                   tensor::CollapseShapeOp::create(b, loc, to, value, *groups))
             : tensor::ExpandShapeOp::create(b, loc, to, value, *groups);
}

Value mlir::moe::raising::lowerReading(OpBuilder &b, Operation *op,
                                       ValueRange operands) {
  Location loc = op->getLoc();
  StringRef name = stablehloName(op);
  auto type = cast<RankedTensorType>(op->getResult(0).getType());
  if (name == "constant")
    return arith::ConstantOp::create(b, loc,
                                     cast<TypedAttr>(op->getAttr("value")));
  if (name == "convert")
    return lowerConvert(b, loc, operands[0], type);
  if (name == "reshape")
    return lowerReshape(b, loc, type, operands[0]);
  if (name == "transpose")
    return lowerTranspose(b, loc, op, operands[0]);
  if (name == "broadcast_in_dim")
    return operands.size() == 1 ? lowerBroadcast(b, loc, op, operands[0])
                                : Value();
  if (name == "softmax") {
    Value init = tensor::EmptyOp::create(
        b, loc, tensor::getMixedSizes(b, loc, operands[0]),
        type.getElementType());
    return linalg::SoftmaxOp::create(b, loc, TypeRange(type), operands[0], init,
                                     /*dimension=*/type.getRank() - 1)
        ->getResult(0);
  }
  if (name == "compare")
    return lowerCompare(
        b, loc,
        op->getAttrOfType<StringAttr>("comparison_direction").getValue(),
        operands);
  if (name == "select")
    return arith::SelectOp::create(b, loc, operands[0], operands[1],
                                   operands[2]);
  if (operands.size() == 1)
    return lowerUnary(b, loc, name, operands[0]);
  return operands.size() == 2
             ? lowerBinary(b, loc, name, operands[0], operands[1])
             : Value();
}
