//===- MoEQuantizationOps.cpp - Quantised tensors -------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Verification.h"

using namespace mlir;
using namespace mlir::moe;

//===----------------------------------------------------------------------===//
// moe.quantize
//===----------------------------------------------------------------------===//

const char *QuantizeOp::reasonNotToQuantize(FormatAttr format) {
  FieldAttr codes = format.getCodes();
  Type element = codes.getElement();
  auto integer = dyn_cast<IntegerType>(element);
  bool isInteger =
      integer && integer.getWidth() >= 4 && integer.getWidth() <= 8;
  if (!isInteger && !isa<Float8E4M3FNType, Float4E2M1FNType>(element))
    return "expected codes of f8E4M3FN, f4E2M1FN or integers of 4 to 8 bits";
  if (format.hasRecords() || format.getTable() || format.getMins() ||
      format.getZero())
    return "expected no records, table, mins or zero point";
  int64_t width = codes.getWidth();
  if ((width < 8) != bool(codes.getBits()))
    return "expected bits of codes if, and only if, they have less than 8";
  if (codes.getBits() &&
      (codes.getBits().size() != 1 ||
       codes.getBits()[0] != BitsAttr::get(format.getContext(), width, 0, 0,
                                           /*run=*/1, 0, 0, 0)))
    return "expected bits of codes that share bytes with their neighbours";
  if (!format.getScales() || format.getScales().size() != 1)
    return "expected one scale";
  auto scale = cast<FieldAttr>(format.getScales()[0]);
  if (scale.getOperand() != 1 || scale.getBits() || scale.getDivide() ||
      !isa<Float32Type, Float16Type, BFloat16Type, Float8E8M0FNUType>(
          scale.getElement()))
    return "expected a scale of f32, f16, bf16 or f8E8M0FNU that multiplies, "
           "in operand 1";
  if (isInteger && isa<Float8E8M0FNUType>(scale.getElement()))
    return "expected a scale with a sign, f32, f16 or bf16, for codes of "
           "integers";
  return nullptr;
}

LogicalResult QuantizeOp::verify() {
  if (const char *reason = reasonNotToQuantize(getFormat()))
    return emitOpError() << reason;
  RankedTensorType source = getSource().getType();
  if (ShapedType::isDynamic(getK()) ||
      (ShapedType::isDynamic(getN()) && getScale().getBlockRows() > 1))
    return emitOpError("expected matrices with static columns, and with static "
                       "rows where they share scales, got ")
           << source;
  return success();
}

//===----------------------------------------------------------------------===//
// moe.dequantize
//===----------------------------------------------------------------------===//

/// True if `stored` holds numbers of type `element`: that type, or integers
/// without a sign of as many bits.
static bool holds(Type stored, Type element) {
  return stored == element ||
         (stored.isSignlessInteger() &&
          stored.getIntOrFloatBitWidth() == element.getIntOrFloatBitWidth());
}

LogicalResult mlir::moe::verifyField(Operation *op, int64_t number,
                                     FormatAttr format, FieldAttr field,
                                     ShapedType type,
                                     ArrayRef<int64_t> leadingShape, int64_t n,
                                     int64_t k) {
  auto fail = [&] { return op->emitOpError("field ") << number << ": "; };
  int64_t leading = leadingShape.size();
  int64_t rows = llvm::divideCeil(n, field.getBlockRows());
  int64_t columns = llvm::divideCeil(k, field.getBlockColumns());
  int64_t least = field.getBits() ? leading + 2 : leading;
  if (!type.hasRank() || type.getRank() < least)
    return fail() << "expected a tensor of rank " << least << " at least, got "
                  << type;
  if (ShapedType::isDynamicShape(type.getShape().drop_front(leading)))
    return fail() << "expected static extents after the first " << leading
                  << ", got " << type;
  for (auto [mine, its] : llvm::zip(type.getShape(), leadingShape))
    if (!compatible(mine, its))
      return fail() << "expected leading dimensions of [" << leadingShape
                    << "], got " << type;
  ArrayRef<int64_t> shape = type.getShape().drop_front(leading);
  if (!field.getBits()) {
    if (!holds(type.getElementType(), field.getElement()))
      return fail() << "expected elements of " << field.getElement()
                    << " or integers of as many bits, got " << type;
    // Last extents of 1 may be missing.
    int64_t expected[] = {rows, columns};
    bool isMissingOnes =
        shape.size() <= 2 &&
        llvm::all_of(ArrayRef(expected).drop_front(shape.size()),
                     [](int64_t extent) { return extent == 1; });
    if (!isMissingOnes || shape != ArrayRef(expected).take_front(shape.size()))
      return fail() << "expected numbers for " << rows << " x " << columns
                    << " blocks, got " << type;
    return success();
  }
  Type element = type.getElementType();
  int64_t wordBytes =
      element.isIntOrFloat() ? element.getIntOrFloatBitWidth() / 8 : 0;
  if (wordBytes == 0)
    return fail() << "expected elements of whole bytes, got " << type;
  if (field.getAxis() == 0) {
    int64_t words = llvm::divideCeil(field.getNumBytes(rows), wordBytes);
    if (shape != ArrayRef<int64_t>({words, columns}))
      return fail() << "expected " << words << " x " << columns
                    << " words, got " << type;
    return success();
  }
  int64_t bytes =
      format.isInRecord(field)
          ? int64_t(llvm::divideCeil(k, format.getRecordElements())) *
                format.getRecordBytes()
          : field.getNumBytes(columns);
  bytes = llvm::alignTo(bytes, wordBytes);
  int64_t stored = ShapedType::getNumElements(shape.drop_front()) * wordBytes;
  if (shape.front() != rows || stored != bytes)
    return fail() << "expected " << rows << " rows of " << bytes
                  << " bytes, got " << type;
  return success();
}

LogicalResult DequantizeOp::verify() {
  if (getType().getRank() < 2 ||
      ShapedType::isDynamicShape(getType().getShape().take_back(2)))
    return emitOpError("expected a result with static rows and columns, got ")
           << getType();
  if (getN() == 0 || getK() == 0)
    return emitOpError("expected a result with rows and columns, got ")
           << getType();
  int64_t count = getFormat().getNumOperands();
  if (int64_t(getFields().size()) != count)
    return emitOpError("expected ")
           << count << " fields, as the format has, got " << getFields().size();
  for (FieldAttr field : getFormat().getFields()) {
    auto type = cast<ShapedType>(getFields()[field.getOperand()].getType());
    if (failed(verifyField(*this, field.getOperand(), getFormat(), field, type,
                           getType().getShape().drop_back(2), getN(), getK())))
      return failure();
  }
  return success();
}

LogicalResult
DequantizeOp::reifyResultShapes(OpBuilder &b,
                                ReifiedRankedShapedTypeDims &shapes) {
  SmallVector<OpFoldResult> sizes =
      getAsIndexOpFoldResult(getContext(), getType().getShape());
  for (int64_t dim = 0; dim < getNumLeadingDims(); ++dim)
    if (getType().isDynamicDim(dim))
      sizes[dim] = tensor::getMixedSize(b, getLoc(), getFields().front(), dim);
  shapes = {sizes};
  return success();
}
