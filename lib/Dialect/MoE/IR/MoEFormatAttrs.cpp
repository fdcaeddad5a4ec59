//===- MoEFormatAttrs.cpp - Formats of quantised tensors ------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/IR/MoE.h"

using namespace mlir;
using namespace mlir::moe;

//===----------------------------------------------------------------------===//
// #moe.bits
//===----------------------------------------------------------------------===//

int64_t BitsAttr::getNumBytes(int64_t count) const {
  if (getCount() > 0)
    count = std::min(count, getFirst() + getCount());
  int64_t values = count - getFirst();
  if (values <= 0)
    return 0;
  if (getWidth() >= 8)
    return getByte() + values * getBytesPerValue();
  int64_t inRuns = getValuesPerByte() * getRun();
  return getByte() + (values - 1) / inRuns * getRun() +
         std::min((values - 1) % inRuns + 1, getRun());
}

LogicalResult BitsAttr::verify(function_ref<InFlightDiagnostic()> emitError,
                               int64_t width, int64_t byte, int64_t bit,
                               int64_t run, int64_t first, int64_t count,
                               int64_t shift) {
  bool isWhole = width == 8 || width == 16 || width == 32;
  if (width < 1 || (width > 8 && !isWhole))
    return emitError() << "expected a width of 1 to 8, 16 or 32 bits, got "
                       << width;
  if (bit < 0 || (isWhole ? bit != 0 : bit + width > 8))
    return emitError() << "expected " << width
                       << " bits within a byte, got them from bit " << bit
                       << " on";
  if (run < 1 || (isWhole && run != 1))
    return emitError() << "expected a run of at least 1, or 1 where values "
                          "have whole bytes, got "
                       << run;
  // Far above any format, and small enough that products fit 64 bits.
  for (int64_t value : {byte, run, first, count})
    if (value < 0 || value > (1 << 20))
      return emitError() << "expected numbers from 0 to 2^20, got " << value;
  if (shift < 0 || shift + width > 32)
    return emitError() << "expected a value of at most 32 bits, got bits "
                       << shift << " to " << shift + width;
  return success();
}

//===----------------------------------------------------------------------===//
// #moe.field
//===----------------------------------------------------------------------===//

int64_t FieldAttr::getNumBytes(int64_t count) const {
  int64_t bytes = 0;
  for (auto bits : getBits().getAsRange<BitsAttr>())
    bytes = std::max(bytes, bits.getNumBytes(count));
  return bytes;
}

LogicalResult FieldAttr::verify(function_ref<InFlightDiagnostic()> emitError,
                                Type element, int64_t operand, Pair block,
                                ArrayAttr bits, int64_t axis, bool) {
  auto integer = dyn_cast<IntegerType>(element);
  bool isFloat =
      isa<Float32Type, Float16Type, BFloat16Type, Float8E4M3FNType,
          Float8E5M2Type, Float8E8M0FNUType, Float4E2M1FNType>(element);
  if (!isFloat && (!integer || integer.isSignless() || integer.getWidth() > 16))
    return emitError() << "expected f32, f16, bf16, f8E4M3FN, f8E5M2, "
                          "f8E8M0FNU, f4E2M1FN, or an integer of at most 16 "
                          "bits with its sign, got "
                       << element;
  if (operand < 0 || operand > 15)
    return emitError() << "expected an operand from 0 to 15, got " << operand;
  if (block.first < 1 || block.second < 1)
    return emitError() << "expected a block of positive extents, got " << block;
  if (axis != 0 && axis != 1)
    return emitError() << "expected an axis of 0 or 1, got " << axis;
  if (!bits)
    return axis == 1 ? success()
                     : emitError() << "expected bits where there is an axis";
  uint32_t known = 0;
  for (Attribute each : bits) {
    auto piece = dyn_cast<BitsAttr>(each);
    if (!piece)
      return emitError() << "expected bits of #moe.bits, got " << each;
    uint64_t mask = ((uint64_t(1) << piece.getWidth()) - 1) << piece.getShift();
    known |= uint32_t(mask);
  }
  int64_t width = element.getIntOrFloatBitWidth();
  if (known != uint32_t((uint64_t(1) << width) - 1))
    return emitError() << "expected bits for each of the " << width
                       << " bits of " << element << ", and for no other";
  return success();
}

//===----------------------------------------------------------------------===//
// #moe.format
//===----------------------------------------------------------------------===//

int64_t FormatAttr::getBlockRows(int64_t index) const {
  for (FieldAttr field : getFields())
    if (field.getOperand() == index && !isInRecord(field))
      return field.getAxis() == 0 ? 0 : field.getBlockRows();
  return 1;
}

SmallVector<FieldAttr> FormatAttr::getFields() const {
  SmallVector<FieldAttr> fields{getCodes()};
  if (getZero())
    fields.push_back(getZero());
  for (ArrayAttr list : {getScales(), getMins()})
    if (list)
      llvm::append_range(fields, list.getAsRange<FieldAttr>());
  return fields;
}

int64_t FormatAttr::getNumOperands() const {
  int64_t count = 1;
  for (FieldAttr field : getFields())
    count = std::max(count, field.getOperand() + 1);
  return count;
}

LogicalResult FormatAttr::verify(function_ref<InFlightDiagnostic()> emitError,
                                 FieldAttr codes, Pair record, int64_t offset,
                                 DenseF32ArrayAttr table, ArrayAttr scales,
                                 ArrayAttr mins, FieldAttr zero) {
  for (ArrayAttr list : {scales, mins})
    if (list && !llvm::all_of(list, llvm::IsaPred<FieldAttr>))
      return emitError() << "expected scales and mins of #moe.field, got "
                         << list;
  if (codes.getOperand() != 0 || codes.getAxis() != 1 || codes.getDivide() ||
      codes.getBlockRows() != 1 || codes.getBlockColumns() != 1)
    return emitError() << "expected codes of each element in operand 0";
  if (zero && zero.getDivide())
    return emitError() << "expected a zero point that is subtracted";
  auto integer = dyn_cast<IntegerType>(codes.getElement());
  if ((offset != 0 || zero || table) && !integer)
    return emitError() << "expected codes of integers where there is an "
                          "offset, a zero point or a table, got "
                       << codes.getElement();
  if (std::abs(offset) > (1 << 16))
    return emitError() << "expected an offset of at most 2^16, got " << offset;
  if (table && (!integer.isUnsigned() || integer.getWidth() > 8 ||
                table.size() != int64_t(1) << integer.getWidth()))
    return emitError() << "expected a table with a value for each code of "
                       << codes.getElement() << ", got " << table.size();
  if (record == Pair{0, 0})
    return success();
  if (record.first < 1 || record.second < 1 || record.first > (1 << 20) ||
      record.second > (1 << 20))
    return emitError() << "expected a record of elements and bytes, both from "
                          "1 to 2^20, got "
                       << record;
  FormatAttr format = FormatAttr::get(codes.getContext(), codes, record, offset,
                                      table, scales, mins, zero);
  for (FieldAttr field : format.getFields()) {
    if (!format.isInRecord(field))
      continue;
    if (!field.getBits() || field.getAxis() != 1 || field.getBlockRows() != 1)
      return emitError() << "expected fields of a record to be packed in a row";
    if (record.first % field.getBlockColumns() != 0)
      return emitError() << "expected blocks that divide a record of "
                         << record.first << " elements, got "
                         << field.getBlockColumns();
    int64_t bytes = field.getNumBytes(record.first / field.getBlockColumns());
    if (bytes > record.second)
      return emitError() << "expected fields within a record of "
                         << record.second
                         << " bytes, got one that ends at byte " << bytes;
  }
  return success();
}
