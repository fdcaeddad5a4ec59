//===- RecordNumbers.cpp - Numbers of several columns at a time -----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A lane is a column. Chunks of the records are loaded and transposed, as those
// of codes are; a number is some bits of a word, or of several.
//
//===----------------------------------------------------------------------===//

#include "RecordNumbers.h"

using namespace mlir;
using namespace mlir::moe;

/// True if a number widens to bytes as zeros do. Those of a record are bits of
/// a row.
static bool hasBits(FormatAttr format, FieldAttr number) {
  return format.isInRecord(number) &&
         (number.getWidth() % 8 == 0 || !number.getElement().isSignedInteger());
}

std::optional<RecordNumbers>
RecordNumbers::get(CPUBuilder &b, const PackedFormat &packed, Value records) {
  auto type = cast<MemRefType>(records.getType());
  FormatAttr format = packed.format;
  if (format.getRecordElements() != packed.block ||
      format.getRecordBytes() < RowWords::chunkBytes || type.getRank() != 3 ||
      !type.isLastDimUnitStride() || type.getElementTypeBitWidth() != 8)
    return std::nullopt;
  for (bool ofBlock : {true, false})
    for (FieldAttr number : packed.getNumbers(ofBlock))
      if (!hasBits(format, number))
        return std::nullopt;
  return RecordNumbers(b, packed, flatten(b, records));
}

/// Shifts words to the left; to the right if `left` is negative.
Value RecordNumbers::shift(Value words, int64_t left) {
  if (left == 0)
    return words;
  Value amount = arith::ConstantOp::create(
      b, DenseElementsAttr::get(cast<VectorType>(words.getType()),
                                b.getI32IntegerAttr(std::abs(left))));
  if (left > 0)
    return arith::ShLIOp::create(b, words, amount);
  return arith::ShRUIOp::create(b, words, amount);
}

/// Returns `width` bits from a bit of a byte of the record on, alone in a word.
Value RecordNumbers::bitsAt(RowWords &words, int64_t byte, int64_t bit,
                            int64_t width) {
  // No chunk ends after the record: the last one may end the buffer.
  int64_t last = packed.format.getRecordBytes() - RowWords::chunkBytes;
  int64_t bytes = llvm::divideCeil(bit + width, 8);
  int64_t start =
      std::min(byte / RowWords::chunkBytes * RowWords::chunkBytes, last);
  if (byte + bytes > start + RowWords::chunkBytes)
    start = std::min(byte, last);
  ArrayRef<Value> chunk = words.getChunk(start);
  int64_t from = 8 * (byte - start) + bit, word = from / 32;
  Value value = shift(chunk[word], -(from % 32));
  if (from % 32 + width > 32)
    value =
        arith::OrIOp::create(b, value, shift(chunk[word + 1], 32 - from % 32));
  if (width == 32)
    return value;
  Value mask = arith::ConstantOp::create(
      b, DenseElementsAttr::get(cast<VectorType>(value.getType()),
                                b.getI32IntegerAttr((1u << width) - 1)));
  return arith::AndIOp::create(b, value, mask);
}

/// Returns number `index` of a field of a record; zero where it has no bits.
Value RecordNumbers::numberAt(RowWords &words, FieldAttr number, int64_t index,
                              int64_t lanes) {
  Value result;
  for (auto bits : number.getBits().getAsRange<BitsAttr>()) {
    int64_t v = index - bits.getFirst();
    if (v < 0 || (bits.getCount() != 0 && v >= bits.getCount()))
      continue;
    int64_t byte = bits.getByte(), bit = bits.getBit();
    if (bits.getWidth() >= 8) {
      byte += v * bits.getBytesPerValue();
    } else {
      int64_t slot = v / bits.getRun();
      byte +=
          slot / bits.getValuesPerByte() * bits.getRun() + v % bits.getRun();
      bit += slot % bits.getValuesPerByte() * bits.getWidth();
    }
    Value part =
        shift(bitsAt(words, byte, bit, bits.getWidth()), bits.getShift());
    result = result ? arith::OrIOp::create(b, result, part).getResult() : part;
  }
  auto type = VectorType::get(lanes, b.getI32Type());
  return result ? result
                : arith::ConstantOp::create(b, b.getZeroAttr(type)).getResult();
}

void RecordNumbers::build(
    Value expert, Value n, Value k, int64_t lanes,
    llvm::function_ref<void(FieldAttr, int64_t, Value)> body) {
  Value record = b.div(k, packed.block);
  Value first =
      b.add(b.add(rows.offset, b.mul(record, packed.format.getRecordBytes())),
            b.add(b.mul(expert, rows.strides[0]), b.mul(n, rows.strides[1])));
  RowWords words(b, rows, first, lanes);
  for (bool ofBlock : {true, false})
    for (FieldAttr number : packed.getNumbers(ofBlock)) {
      int64_t elements = ofBlock ? packed.block : packed.group;
      auto bytes = b.getIntegerType(8 * PackedFormat::getBytes(number));
      for (int64_t start = 0; start < packed.block; start += elements) {
        Value value =
            numberAt(words, number, start / number.getBlockColumns(), lanes);
        if (bytes != b.getI32Type())
          value =
              arith::TruncIOp::create(b, VectorType::get(lanes, bytes), value);
        body(number, start, value);
      }
    }
}
