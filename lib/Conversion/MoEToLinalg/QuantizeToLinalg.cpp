//===- QuantizeToLinalg.cpp - moe.quantize --------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Lowering.h"
#include "TensorBuilder.h"
#include "moe/Conversion/Utils/FormatEncoder.h"

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
  Value codes(Value scales);

  QuantizeOp op;
  TensorBuilder b;
  FieldAttr codeField, scaleField;
  FormatEncoder encoder;
  Type f32;
};
} // namespace

Quantizer::Quantizer(QuantizeOp op, OpBuilder &builder)
    : op(op), b(op.getLoc(), builder), codeField(op.getFormat().getCodes()),
      scaleField(op.getScale()), encoder(b, op.getFormat()),
      f32(b.getF32Type()) {}

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
                  if (encoder.isSymmetric())
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
               [&](ValueRange v) -> Value { return encoder.roundScale(v[0]); });
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
              Value divisor = encoder.toDivisor(b.extract(scales, ofScale));
              Value x = elementAt(outer, n, k);
              x = arith::DivFOp::create(b, x, divisor);
              return encoder.roundCode(encoder.saturate(x));
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
    stored =
        b.map(rounded, scaleField.getElement(),
              [&](ValueRange v) -> Value { return encoder.storeScale(v[0]); });
  return {codes(rounded), stored};
}

SmallVector<Value> mlir::moe::lowerToLinalg(QuantizeOp op, OpBuilder &builder) {
  return Quantizer(op, builder).lower();
}
