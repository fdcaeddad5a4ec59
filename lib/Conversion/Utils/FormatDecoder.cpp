//===- FormatDecoder.cpp - Decode elements of quantised weights -----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Conversion/Utils/FormatDecoder.h"

#include "moe/Dialect/MoE/IR/PackedFormat.h"

#include "mlir/Dialect/MemRef/IR/MemRef.h"

using namespace mlir;
using namespace mlir::moe;

//===----------------------------------------------------------------------===//
// Scalars
//===----------------------------------------------------------------------===//

Value FormatDecoder::constantIndex(int64_t value) {
  return arith::ConstantIndexOp::create(b, value);
}
Value FormatDecoder::i32(int64_t value) {
  return arith::ConstantIntOp::create(b, value, 32);
}
Value FormatDecoder::f32(double value) {
  return arith::ConstantOp::create(b, b.getF32FloatAttr(value));
}
Value FormatDecoder::add(Value x, int64_t y) {
  return y == 0 ? x : add(x, constantIndex(y));
}
Value FormatDecoder::add(Value x, Value y) {
  return arith::AddIOp::create(b, x, y);
}
Value FormatDecoder::mul(Value x, int64_t y) {
  return y == 1 ? x : arith::MulIOp::create(b, x, constantIndex(y)).getResult();
}
Value FormatDecoder::div(Value x, int64_t y) {
  return y == 1 ? x
                : arith::DivUIOp::create(b, x, constantIndex(y)).getResult();
}
Value FormatDecoder::rem(Value x, int64_t y) {
  return arith::RemUIOp::create(b, x, constantIndex(y));
}
Value FormatDecoder::shiftLeft(Value x, int64_t bits) {
  return bits == 0 ? x : arith::ShLIOp::create(b, x, i32(bits)).getResult();
}
Value FormatDecoder::toI32(Value index) {
  return arith::IndexCastOp::create(b, b.getI32Type(), index);
}
/// Returns the bits of a value in an integer of its width.
Value FormatDecoder::bitsOf(Value value) {
  unsigned width = value.getType().getIntOrFloatBitWidth();
  return isa<IntegerType>(value.getType())
             ? value
             : arith::BitcastOp::create(b, b.getIntegerType(width), value)
                   .getResult();
}
/// Returns the bits of a value of at most 32 in i32.
Value FormatDecoder::extendToI32(Value value) {
  value = bitsOf(value);
  return value.getType().isInteger(32)
             ? value
             : arith::ExtUIOp::create(b, b.getI32Type(), value).getResult();
}
Value FormatDecoder::extendToF32(Value value) {
  return value.getType().isF32()
             ? value
             : arith::ExtFOp::create(b, b.getF32Type(), value).getResult();
}

//===----------------------------------------------------------------------===//
// Fields
//===----------------------------------------------------------------------===//

ShapedType FormatDecoder::typeOf(FieldAttr field) {
  return cast<ShapedType>(fields[field.getOperand()].getType());
}

void FormatDecoder::createTables() {
  auto constant = [&](ArrayRef<float> values) -> Value {
    auto type = RankedTensorType::get({int64_t(values.size())}, b.getF32Type());
    return arith::ConstantOp::create(b, DenseElementsAttr::get(type, values));
  };
  if (format.getTable())
    table = constant(format.getTable().asArrayRef());
  for (FieldAttr field : format.getFields())
    if (isa<Float4E2M1FNType>(field.getElement()) && !floatsOf4)
      floatsOf4 = constant(getF4Values());
}

Value FormatDecoder::load(Value source, ValueRange indices) {
  if (isa<MemRefType>(source.getType()))
    return memref::LoadOp::create(b, source, indices);
  return tensor::ExtractOp::create(b, source, indices);
}

/// Loads from a field, of which last dimensions may be missing.
Value FormatDecoder::loadField(FieldAttr field, ValueRange indices) {
  SmallVector<Value> all(leading);
  llvm::append_range(all, indices);
  all.truncate(typeOf(field).getRank());
  return load(fields[field.getOperand()], all);
}

/// Returns byte `byte` of row (or, along axis 0, column) `outer`, as i32.
Value FormatDecoder::byteAt(FieldAttr field, Value outer, Value byte) {
  ShapedType type = typeOf(field);
  int64_t wordBytes = type.getElementTypeBitWidth() / 8;
  Value position = div(byte, wordBytes);
  SmallVector<Value> indices{outer};
  if (field.getAxis() == 0) {
    indices = {position, outer};
  } else {
    ArrayRef<int64_t> inner = type.getShape().drop_front(numLeadingDims + 1);
    for (size_t dim = 0; dim < inner.size(); ++dim) {
      Value index =
          div(position, ShapedType::getNumElements(inner.drop_front(dim + 1)));
      indices.push_back(dim == 0 ? index : rem(index, inner[dim]));
    }
  }
  Value word = extendToI32(loadField(field, indices));
  if (wordBytes == 1)
    return word;
  Value shift = toI32(mul(rem(byte, wordBytes), 8));
  word = arith::ShRUIOp::create(b, word, shift);
  return arith::AndIOp::create(b, word, i32(255));
}

/// Returns the bits that `bits` has of value `index`, in place; 0 if it has
/// none.
Value FormatDecoder::bitsAt(FieldAttr field, BitsAttr bits, Value outer,
                            Value start, Value index) {
  Value v = index, isCovered;
  if (bits.getFirst() != 0 || bits.getCount() != 0) {
    v = arith::SubIOp::create(b, index, constantIndex(bits.getFirst()));
    int64_t count = bits.getCount() ? bits.getCount() : INT32_MAX;
    // The unsigned comparison rejects values before the first, too.
    isCovered = arith::CmpIOp::create(b, arith::CmpIPredicate::ult, v,
                                      constantIndex(count));
    v = arith::SelectOp::create(b, isCovered, v, constantIndex(0));
  }
  start = add(start, bits.getByte());
  Value value;
  if (bits.getWidth() >= 8) {
    Value byte = add(start, mul(v, bits.getBytesPerValue()));
    for (int64_t i = 0; i < bits.getBytesPerValue(); ++i) {
      Value part = shiftLeft(byteAt(field, outer, add(byte, i)), 8 * i);
      value = i == 0 ? part : arith::OrIOp::create(b, value, part).getResult();
    }
  } else {
    int64_t run = bits.getRun(), perByte = bits.getValuesPerByte();
    Value byte = add(mul(div(v, perByte * run), run), rem(v, run));
    value = byteAt(field, outer, add(start, byte));
    Value slot = rem(div(v, run), perByte);
    Value shift = toI32(add(mul(slot, bits.getWidth()), bits.getBit()));
    value = arith::ShRUIOp::create(b, value, shift);
    value = arith::AndIOp::create(b, value, i32((1 << bits.getWidth()) - 1));
  }
  value = shiftLeft(value, bits.getShift());
  if (isCovered)
    value = arith::SelectOp::create(b, isCovered, value, i32(0));
  return value;
}

/// Returns the code of a packed number.
Value FormatDecoder::packed(FieldAttr field) {
  Value row = div(n, field.getBlockRows());
  Value column = div(k, field.getBlockColumns());
  bool alongRows = field.getAxis() == 0;
  Value outer = alongRows ? column : row, index = alongRows ? row : column;
  Value start = constantIndex(0);
  if (format.isInRecord(field)) {
    start = mul(div(k, format.getRecordElements()), format.getRecordBytes());
    index = div(rem(k, format.getRecordElements()), field.getBlockColumns());
  }
  Value code;
  for (auto bits : field.getBits().getAsRange<BitsAttr>()) {
    Value part = bitsAt(field, bits, outer, start, index);
    code = code ? arith::OrIOp::create(b, code, part).getResult() : part;
  }
  return code;
}

/// Returns 2^(code − 127), or NaN for 255.
Value FormatDecoder::fromExponent(Value code) {
  Value bits = shiftLeft(code, 23);
  auto select = [&](int64_t value, int64_t instead) {
    Value equal =
        arith::CmpIOp::create(b, arith::CmpIPredicate::eq, code, i32(value));
    bits = arith::SelectOp::create(b, equal, i32(instead), bits);
  };
  select(0, 0x00400000); // 2^-127 is subnormal
  select(255, 0x7fc00000);
  return arith::BitcastOp::create(b, b.getF32Type(), bits);
}

Value FormatDecoder::fromTable(Value table, Value code) {
  Value position = arith::IndexCastUIOp::create(b, b.getIndexType(), code);
  return load(table, position);
}

/// Converts a code, an i32 without further bits, to f32.
Value FormatDecoder::toF32(Value code, Type element) {
  if (auto integer = dyn_cast<IntegerType>(element)) {
    if (integer.isUnsigned())
      return arith::UIToFPOp::create(b, b.getF32Type(), code);
    Value unused = i32(32 - integer.getWidth());
    code = arith::ShLIOp::create(b, code, unused);
    code = arith::ShRSIOp::create(b, code, unused);
    return arith::SIToFPOp::create(b, b.getF32Type(), code);
  }
  if (isa<Float4E2M1FNType>(element))
    return fromTable(floatsOf4, code);
  if (isa<Float8E8M0FNUType>(element))
    return fromExponent(code);
  unsigned width = element.getIntOrFloatBitWidth();
  if (width < 32)
    code = arith::TruncIOp::create(b, b.getIntegerType(width), code);
  return extendToF32(arith::BitcastOp::create(b, element, code));
}

/// Loads the number of the element if it is not packed.
Value FormatDecoder::stored(FieldAttr field) {
  return loadField(
      field, {div(n, field.getBlockRows()), div(k, field.getBlockColumns())});
}

/// Returns the number of the element, in f32; that of a table stays a code.
Value FormatDecoder::number(FieldAttr field) {
  Type element = field.getElement();
  Value code = field.getBits() ? packed(field) : stored(field);
  if (!field.getBits()) {
    if (code.getType() == element && !isa<Float8E8M0FNUType>(element))
      return extendToF32(code);
    code = extendToI32(code);
  }
  bool isIndex = field == format.getCodes() && table;
  return isIndex ? fromTable(table, code) : toF32(code, element);
}

Value FormatDecoder::product(ArrayAttr factors) {
  Value result;
  for (auto field : factors.getAsRange<FieldAttr>()) {
    Value factor = number(field);
    if (field.getDivide())
      result = arith::DivFOp::create(b, result ? result : f32(1.0), factor);
    else
      result = result ? arith::MulFOp::create(b, result, factor).getResult()
                      : factor;
  }
  return result;
}

void FormatDecoder::setElement(ValueRange indices, Value row, Value column) {
  leading = llvm::to_vector(indices);
  n = row;
  k = column;
}

Value FormatDecoder::readBits(FieldAttr field) {
  if (!field.getBits())
    return bitsOf(stored(field));
  unsigned width = field.getWidth();
  Value code = packed(field);
  return width == 32 ? code
                     : arith::TruncIOp::create(b, b.getIntegerType(width), code)
                           .getResult();
}

Value FormatDecoder::decode() {
  Value value = number(format.getCodes());
  if (format.getOffset() != 0)
    value = arith::SubFOp::create(b, value, f32(double(format.getOffset())));
  if (format.getZero())
    value = arith::SubFOp::create(b, value, number(format.getZero()));
  if (format.getScales() && !format.getScales().empty())
    value = arith::MulFOp::create(b, product(format.getScales()), value);
  if (format.getMins() && !format.getMins().empty())
    value = arith::SubFOp::create(b, value, product(format.getMins()));
  return value;
}
