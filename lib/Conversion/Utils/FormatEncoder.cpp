//===- FormatEncoder.cpp - Round numbers to a format ----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Conversion/Utils/FormatEncoder.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/IR/TypeUtilities.h"

using namespace mlir;
using namespace mlir::moe;

/// Returns `element`, or a vector of it with the shape of `like`.
static Type typeLike(Value like, Type element) {
  auto vector = dyn_cast<VectorType>(like.getType());
  return vector ? Type(vector.clone(element)) : element;
}

static Value constantLike(OpBuilder &b, Location loc, Value like,
                          TypedAttr value) {
  if (auto type = dyn_cast<VectorType>(typeLike(like, value.getType())))
    value = DenseElementsAttr::get(type, value);
  return arith::ConstantOp::create(b, loc, value);
}

Value mlir::moe::convertFloat(ImplicitLocOpBuilder &b, Value value,
                              Type element) {
  Type type = getElementTypeOrSelf(value);
  if (type == element)
    return value;
  if (!type.isF32())
    value = arith::ExtFOp::create(b, typeLike(value, b.getF32Type()), value);
  return element.isF32()
             ? value
             : arith::TruncFOp::create(b, typeLike(value, element), value);
}

FormatEncoder::FormatEncoder(ImplicitLocOpBuilder &b, FormatAttr format)
    : b(b), format(format), codeField(format.getCodes()),
      scaleField(cast<FieldAttr>(format.getScales()[0])) {
  if (auto integer = dyn_cast<IntegerType>(codeField.getElement())) {
    double count = double(1 << integer.getWidth());
    low = (integer.isSigned() ? -count / 2 : 0) - format.getOffset();
    high = low + count - 1;
  } else {
    high = isa<Float8E4M3FNType>(codeField.getElement()) ? 448.0 : 6.0;
    low = -high;
  }
}

Value FormatEncoder::f32(Value like, double value) {
  return constantLike(b, b.getLoc(), like, b.getF32FloatAttr(value));
}

Value FormatEncoder::i32(Value like, int64_t value) {
  return constantLike(b, b.getLoc(), like, b.getI32IntegerAttr(value));
}

Value FormatEncoder::roundScale(Value extreme) {
  double largest = -low > high ? low : high;
  Value scale = arith::DivFOp::create(b, extreme, f32(extreme, largest));
  Type type = scaleField.getElement();
  if (type.isF32())
    return scale;
  if (isa<Float8E8M0FNUType>(type)) {
    // Adding all bits of the mantissa carries into the exponent unless they are
    // zero; the sign is zero. A NaN becomes an infinity, with the same code.
    Value bits =
        arith::BitcastOp::create(b, typeLike(scale, b.getI32Type()), scale);
    bits = arith::AddIOp::create(b, bits, i32(scale, 0x007fffff));
    bits = arith::MinUIOp::create(b, bits, i32(scale, 0x7f800000));
    bits = arith::AndIOp::create(b, bits, i32(scale, 0x7f800000));
    return arith::BitcastOp::create(b, scale.getType(), bits);
  }
  const llvm::fltSemantics &semantics =
      cast<FloatType>(type).getFloatSemantics();
  double limit = APFloat::getLargest(semantics).convertToDouble();
  scale = arith::MinimumFOp::create(b, scale, f32(scale, limit));
  scale = arith::MaximumFOp::create(b, scale, f32(scale, -limit));
  // NaN if the extreme is an infinity, else no change.
  Value nan = arith::MulFOp::create(b, extreme, f32(extreme, 0.0));
  scale = convertFloat(b, arith::AddFOp::create(b, scale, nan), type);
  return convertFloat(b, scale, b.getF32Type());
}

Value FormatEncoder::storeScale(Value scale) {
  Type type = scaleField.getElement();
  if (!isa<Float8E8M0FNUType>(type))
    return convertFloat(b, scale, type);
  Value bits =
      arith::BitcastOp::create(b, typeLike(scale, b.getI32Type()), scale);
  bits = arith::ShRUIOp::create(b, bits, i32(scale, 23));
  bits = arith::TruncIOp::create(b, typeLike(scale, b.getI8Type()), bits);
  return arith::BitcastOp::create(b, typeLike(scale, type), bits);
}

Value FormatEncoder::toDivisor(Value scale) {
  Value isZero = arith::CmpFOp::create(b, arith::CmpFPredicate::OEQ, scale,
                                       f32(scale, 0.0));
  return arith::SelectOp::create(b, isZero, f32(scale, 1.0), scale);
}

Value FormatEncoder::saturate(Value x) {
  x = arith::MinimumFOp::create(b, x, f32(x, high));
  return arith::MaximumFOp::create(b, x, f32(x, low));
}

/// Returns a saturated number rounded to an integer, in f32.
Value FormatEncoder::roundInteger(Value x) {
  // Where the scale is NaN, any code will do.
  Value isNaN = arith::CmpFOp::create(b, arith::CmpFPredicate::UNO, x, x);
  x = arith::SelectOp::create(b, isNaN, f32(x, 0.0), x);
  return math::RoundEvenOp::create(b, x);
}

/// Adds up terms for the values of f4E2M1FN, in order, that the magnitude of
/// `x` rounds to or passes: of a condition and of the distance between values.
Value FormatEncoder::forEachStepOfF4(
    Value x, Value sum, llvm::function_ref<Value(Value, double)> term) {
  // Between two values, ties go to the even code.
  struct Step {
    double bound;
    arith::CmpFPredicate predicate;
    double distance;
  };
  static constexpr Step steps[] = {{0.25, arith::CmpFPredicate::OGT, 0.5},
                                   {0.75, arith::CmpFPredicate::OGE, 0.5},
                                   {1.25, arith::CmpFPredicate::OGT, 0.5},
                                   {1.75, arith::CmpFPredicate::OGE, 0.5},
                                   {2.5, arith::CmpFPredicate::OGT, 1.0},
                                   {3.5, arith::CmpFPredicate::OGE, 1.0},
                                   {5.0, arith::CmpFPredicate::OGT, 2.0}};
  Value magnitude = math::AbsFOp::create(b, x);
  for (auto [bound, predicate, distance] : steps) {
    Value isAbove =
        arith::CmpFOp::create(b, predicate, magnitude, f32(x, bound));
    Value next = term(isAbove, distance);
    sum = isa<FloatType>(getElementTypeOrSelf(sum))
              ? arith::AddFOp::create(b, sum, next).getResult()
              : arith::AddIOp::create(b, sum, next).getResult();
  }
  return sum;
}

Value FormatEncoder::roundCode(Value x) {
  Type element = codeField.getElement(), ints = typeLike(x, b.getI32Type());
  if (isa<Float8E4M3FNType>(element))
    return convertFloat(b, x, element);
  if (isa<Float4E2M1FNType>(element)) {
    Value bits = arith::BitcastOp::create(b, ints, x);
    Value code = arith::ShRUIOp::create(b, bits, i32(x, 31));
    code = arith::ShLIOp::create(b, code, i32(x, 3));
    return forEachStepOfF4(x, code, [&](Value isAbove, double) -> Value {
      return arith::ExtUIOp::create(b, ints, isAbove);
    });
  }
  Value code = arith::FPToSIOp::create(b, ints, roundInteger(x));
  code = arith::AddIOp::create(b, code, i32(x, format.getOffset()));
  if (codeField.getBits())
    return arith::AndIOp::create(b, code,
                                 i32(x, (1 << codeField.getWidth()) - 1));
  return arith::TruncIOp::create(b, typeLike(x, b.getI8Type()), code);
}

Value FormatEncoder::roundValue(Value x) {
  Type element = codeField.getElement();
  if (isa<Float8E4M3FNType>(element))
    return convertFloat(b, convertFloat(b, x, element), b.getF32Type());
  if (!isa<Float4E2M1FNType>(element))
    return roundInteger(x);
  Value zero = f32(x, 0.0);
  Value magnitude =
      forEachStepOfF4(x, zero, [&](Value isAbove, double distance) -> Value {
        return arith::SelectOp::create(b, isAbove, f32(x, distance), zero);
      });
  return math::CopySignOp::create(b, magnitude, x);
}
