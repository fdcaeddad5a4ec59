//===- FormatDecoder.h - Decode elements of quantised weights ---*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CONVERSION_UTILS_FORMATDECODER_H
#define MOE_CONVERSION_UTILS_FORMATDECODER_H

#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/IR/ImplicitLocOpBuilder.h"

namespace mlir::moe {

/// Builds scalar operations that read elements of quantised weights
/// `[..., N, K]` from their fields, tensors or buffers.
class FormatDecoder {
public:
  FormatDecoder(ImplicitLocOpBuilder &b, FormatAttr format, ValueRange fields,
                int64_t numLeadingDims)
      : b(b), format(format), fields(fields), numLeadingDims(numLeadingDims) {}

  /// Creates the tables that `decode` reads, outside of loops. On tensors.
  void createTables();

  /// Sets the element that the following functions are about.
  void setElement(ValueRange leading, Value n, Value k);
  /// Returns the element in f32.
  Value decode();
  /// Returns the bits of a field's number, as an integer of its width.
  Value readBits(FieldAttr field);

private:
  Value constantIndex(int64_t value);
  Value i32(int64_t value);
  Value f32(double value);
  Value add(Value x, int64_t y);
  Value add(Value x, Value y);
  Value mul(Value x, int64_t y);
  Value div(Value x, int64_t y);
  Value rem(Value x, int64_t y);
  Value shiftLeft(Value x, int64_t bits);
  Value toI32(Value index);
  Value bitsOf(Value value);
  Value extendToI32(Value value);
  Value extendToF32(Value value);

  ShapedType typeOf(FieldAttr field);
  Value load(Value source, ValueRange indices);
  Value loadField(FieldAttr field, ValueRange indices);
  Value byteAt(FieldAttr field, Value outer, Value byte);
  Value bitsAt(FieldAttr field, BitsAttr bits, Value outer, Value start,
               Value index);
  Value packed(FieldAttr field);
  Value stored(FieldAttr field);
  Value number(FieldAttr field);
  Value product(ArrayAttr factors);
  Value toF32(Value code, Type element);
  Value fromExponent(Value code);
  Value fromTable(Value table, Value code);

  ImplicitLocOpBuilder &b;
  FormatAttr format;
  SmallVector<Value> fields;
  int64_t numLeadingDims;
  Value table;     // of the codes
  Value floatsOf4; // of f4E2M1FN
  SmallVector<Value> leading;
  Value n, k;
};

} // namespace mlir::moe

#endif // MOE_CONVERSION_UTILS_FORMATDECODER_H
