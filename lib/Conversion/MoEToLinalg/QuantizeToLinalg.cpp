//===- QuantizeToLinalg.cpp - moe.quantize --------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Lowering.h"
#include "TensorBuilder.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"

using namespace mlir;
using namespace mlir::moe;

namespace {
/// Lowers one moe.quantize.
class Quantizer {
public:
  Quantizer(QuantizeOp op, OpBuilder &builder);

  /// Returns codes and scales.
  SmallVector<Value> lower();

private:
  Value elementAt(ValueRange leading, Value n, Value k);
  /// Returns the scales, rounded, in f32.
  Value scales();
  Value roundScale(Value extreme);
  Value storeScale(Value scale);
  Value codes(Value scales);
  Value roundCode(Value x);
  Value roundToF4(Value x);

  QuantizeOp op;
  TensorBuilder b;
  FieldAttr codeField, scaleField;
  Type f32;
  double low, high; // values of codes
};
} // namespace

Quantizer::Quantizer(QuantizeOp op, OpBuilder &builder)
    : op(op), b(op.getLoc(), builder), codeField(op.getFormat().getCodes()),
      scaleField(op.getScale()), f32(b.getF32Type()) {
  if (auto integer = dyn_cast<IntegerType>(codeField.getElement())) {
    double count = double(1 << integer.getWidth());
    low = (integer.isSigned() ? -count / 2 : 0) - op.getFormat().getOffset();
    high = low + count - 1;
  } else {
    high = isa<Float8E4M3FNType>(codeField.getElement()) ? 448.0 : 6.0;
    low = -high;
  }
}

/// Returns an element of the matrices in f32. Beyond the last row or column it
/// is that of the last one, which changes no maximum.
Value Quantizer::elementAt(ValueRange leading, Value n, Value k) {
  int64_t rank = op.getSource().getType().getRank();
  SmallVector<Value> indices(leading);
  if (scaleField.getBlockRows() > 1)
    n = b.clamp(n, b.index(op.getN() - 1));
  k = b.clamp(k, b.index(op.getK() - 1));
  indices.append({n, k});
  if (op.getTransposed())
    std::swap(indices[rank - 2], indices[rank - 1]);
  return b.toFloat(b.extract(op.getSource(), indices), f32);
}

/// Returns the scale of a block with the element `extreme`, in f32, with a
/// value that the type of scales has.
Value Quantizer::roundScale(Value extreme) {
  double largest = -low > high ? low : high;
  Value scale = arith::DivFOp::create(b, extreme, b.f32(largest));
  Type type = scaleField.getElement();
  if (type.isF32())
    return scale;
  if (isa<Float8E8M0FNUType>(type)) {
    // Adding all bits of the mantissa carries into the exponent unless they are
    // zero; the sign is zero. A NaN becomes an infinity, with the same code.
    Value bits = arith::BitcastOp::create(b, b.getI32Type(), scale);
    bits = arith::AddIOp::create(b, bits, b.i32(0x007fffff));
    bits = arith::MinUIOp::create(b, bits, b.i32(0x7f800000));
    bits = arith::AndIOp::create(b, bits, b.i32(0x7f800000));
    return arith::BitcastOp::create(b, f32, bits);
  }
  const llvm::fltSemantics &semantics =
      cast<FloatType>(type).getFloatSemantics();
  double limit = APFloat::getLargest(semantics).convertToDouble();
  scale = arith::MinimumFOp::create(b, scale, b.f32(limit));
  scale = arith::MaximumFOp::create(b, scale, b.f32(-limit));
  // NaN if the extreme is an infinity, else no change.
  Value nan = arith::MulFOp::create(b, extreme, b.f32(0.0));
  return b.roundTo(arith::AddFOp::create(b, scale, nan), type);
}

/// Returns a rounded scale as it is stored.
Value Quantizer::storeScale(Value scale) {
  Type type = scaleField.getElement();
  if (!isa<Float8E8M0FNUType>(type))
    return b.toFloat(scale, type);
  Value bits = arith::BitcastOp::create(b, b.getI32Type(), scale);
  bits = arith::ShRUIOp::create(b, bits, b.i32(23));
  bits = arith::TruncIOp::create(b, b.getI8Type(), bits);
  return arith::BitcastOp::create(b, type, bits);
}

Value Quantizer::scales() {
  unsigned leading = op.getNumLeadingDims(), rank = leading + 2;
  int64_t rows = scaleField.getBlockRows(),
          columns = std::min(scaleField.getBlockColumns(),
                             std::max<int64_t>(op.getK(), 1));
  if (!ShapedType::isDynamic(op.getN()))
    rows = std::min(rows, std::max<int64_t>(op.getN(), 1));
  ReifiedRankedShapedTypeDims shapes;
  (void)op.reifyResultShapes(b, shapes);
  // Only provides the extents of the loops in a block.
  Value extents = b.empty({b.getIndexAttr(rows), b.getIndexAttr(columns)}, f32);
  unsigned loops = rank + 2;
  SmallVector<unsigned> outer = llvm::to_vector(llvm::seq(0u, rank));
  SmallVector<unsigned> inner{rank, rank + 1};
  auto mapOf = [&](ArrayRef<unsigned> dims) {
    return AffineMap::getMultiDimMapWithTargets(loops, dims, b.getContext());
  };
  Value extremes =
      b.generic(loops, 2, extents, {mapOf(inner), mapOf(outer)},
                b.fill(shapes[1], b.f32(0.0)),
                [&](ValueRange v) -> SmallVector<Value> {
                  SmallVector<Value> at;
                  for (unsigned dim = 0; dim < loops; ++dim)
                    at.push_back(linalg::IndexOp::create(b, dim));
                  auto position = [&](unsigned dim, int64_t extent) -> Value {
                    if (extent == 1)
                      return at[leading + dim];
                    Value first = arith::MulIOp::create(b, at[leading + dim],
                                                        b.index(extent));
                    return arith::AddIOp::create(b, first, at[rank + dim]);
                  };
                  Value x = elementAt(ArrayRef<Value>(at).take_front(leading),
                                      position(0, rows), position(1, columns));
                  Value magnitude = math::AbsFOp::create(b, x);
                  if (-low == high)
                    return {arith::MaximumFOp::create(b, v[1], magnitude)};
                  // A NaN stays: nothing is greater.
                  Value isGreater = arith::CmpFOp::create(
                      b, arith::CmpFPredicate::OGT, magnitude,
                      math::AbsFOp::create(b, v[1]));
                  Value takes = arith::OrIOp::create(b, isGreater, b.isNaN(x));
                  return {arith::SelectOp::create(b, takes, x, v[1])};
                })
          .front();
  return b.map(extremes, f32,
               [&](ValueRange v) -> Value { return roundScale(v[0]); });
}

/// Returns the code of f4E2M1FN nearest to `x`, which is at most 6.
Value Quantizer::roundToF4(Value x) {
  // Between two values, ties go to the even code.
  static constexpr std::pair<double, arith::CmpFPredicate> steps[] = {
      {0.25, arith::CmpFPredicate::OGT}, {0.75, arith::CmpFPredicate::OGE},
      {1.25, arith::CmpFPredicate::OGT}, {1.75, arith::CmpFPredicate::OGE},
      {2.5, arith::CmpFPredicate::OGT},  {3.5, arith::CmpFPredicate::OGE},
      {5.0, arith::CmpFPredicate::OGT}};
  Value magnitude = math::AbsFOp::create(b, x);
  Value bits = arith::BitcastOp::create(b, b.getI32Type(), x);
  Value code = arith::ShRUIOp::create(b, bits, b.i32(31));
  code = arith::ShLIOp::create(b, code, b.i32(3));
  for (auto [bound, predicate] : steps) {
    Value isAbove =
        arith::CmpFOp::create(b, predicate, magnitude, b.f32(bound));
    code = arith::AddIOp::create(
        b, code, arith::ExtUIOp::create(b, b.getI32Type(), isAbove));
  }
  return code;
}

/// Returns the code of `x`, an element over its scale: of its own type if it
/// has a byte, else as i32.
Value Quantizer::roundCode(Value x) {
  Type element = codeField.getElement();
  x = arith::MinimumFOp::create(b, x, b.f32(high));
  x = arith::MaximumFOp::create(b, x, b.f32(low));
  if (isa<Float8E4M3FNType>(element))
    return b.toFloat(x, element);
  if (isa<Float4E2M1FNType>(element))
    return roundToF4(x);
  // Where the scale is NaN, any code will do.
  x = arith::SelectOp::create(b, b.isNaN(x), b.f32(0.0), x);
  x = math::RoundEvenOp::create(b, x);
  Value code = arith::FPToSIOp::create(b, b.getI32Type(), x);
  code = arith::AddIOp::create(b, code, b.i32(op.getFormat().getOffset()));
  if (codeField.getBits())
    return arith::AndIOp::create(b, code,
                                 b.i32((1 << codeField.getWidth()) - 1));
  return arith::TruncIOp::create(b, b.getI8Type(), code);
}

Value Quantizer::codes(Value scales) {
  auto type = cast<RankedTensorType>(op.getQuantized().getType());
  unsigned rank = type.getRank(), leading = op.getNumLeadingDims();
  int64_t perByte = 1;
  if (codeField.getBits())
    perByte = cast<BitsAttr>(codeField.getBits()[0]).getValuesPerByte();
  ReifiedRankedShapedTypeDims shapes;
  (void)op.reifyResultShapes(b, shapes);
  return b
      .generic(
          rank, 0, {}, {b.getMultiDimIdentityMap(rank)},
          b.empty(shapes[0], type.getElementType()),
          [&](ValueRange) -> SmallVector<Value> {
            SmallVector<Value> at;
            for (unsigned dim = 0; dim < rank; ++dim)
              at.push_back(linalg::IndexOp::create(b, dim));
            ArrayRef<Value> outer = ArrayRef<Value>(at).take_front(leading);
            auto codeAt = [&](Value n, Value k) {
              auto block = [&](Value index, int64_t extent) -> Value {
                return extent == 1
                           ? index
                           : arith::DivUIOp::create(b, index, b.index(extent))
                                 .getResult();
              };
              SmallVector<Value> ofScale(outer);
              ofScale.append({block(n, scaleField.getBlockRows()),
                              block(k, scaleField.getBlockColumns())});
              Value scale = b.extract(scales, ofScale);
              Value isZero = arith::CmpFOp::create(b, arith::CmpFPredicate::OEQ,
                                                   scale, b.f32(0.0));
              scale = arith::SelectOp::create(b, isZero, b.f32(1.0), scale);
              Value x = elementAt(outer, n, k);
              return roundCode(arith::DivFOp::create(b, x, scale));
            };
            Value n = at[rank - 2], k = at[rank - 1];
            if (perByte == 1) {
              Value code = codeAt(n, k);
              return {code.getType().isInteger(32)
                          ? arith::TruncIOp::create(b, b.getI8Type(), code)
                                .getResult()
                          : code};
            }
            Value byte;
            Value first = arith::MulIOp::create(b, k, b.index(perByte));
            for (int64_t i = 0; i < perByte; ++i) {
              Value column = arith::AddIOp::create(b, first, b.index(i));
              Value code = codeAt(n, b.clamp(column, b.index(op.getK() - 1)));
              // No code lies beyond the last column.
              Value isInside = arith::CmpIOp::create(
                  b, arith::CmpIPredicate::ult, column, b.index(op.getK()));
              code = arith::SelectOp::create(b, isInside, code, b.i32(0));
              code = arith::ShLIOp::create(b, code,
                                           b.i32(i * codeField.getWidth()));
              byte =
                  byte ? arith::OrIOp::create(b, byte, code).getResult() : code;
            }
            return {arith::TruncIOp::create(b, b.getI8Type(), byte)};
          })
      .front();
}

SmallVector<Value> Quantizer::lower() {
  Value rounded = scales();
  Value stored = rounded;
  if (!scaleField.getElement().isF32())
    stored = b.map(rounded, scaleField.getElement(),
                   [&](ValueRange v) -> Value { return storeScale(v[0]); });
  return {codes(rounded), stored};
}

SmallVector<Value> mlir::moe::lowerToLinalg(QuantizeOp op, OpBuilder &builder) {
  return Quantizer(op, builder).lower();
}
