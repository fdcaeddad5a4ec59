//===- CodeWords.cpp - Codes of several columns at a time -----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A lane is a column. The words of a row that have the codes of a step are
// loaded column by column; then bits that move by the same distance move at
// once, in all columns.
//
//===----------------------------------------------------------------------===//

#include "CodeWords.h"

#include "llvm/ADT/MapVector.h"

using namespace mlir;
using namespace mlir::moe;

SmallVector<CodeBits> mlir::moe::getCodeBits(const PackedFormat &packed,
                                             int64_t word) {
  SmallVector<CodeBits> result;
  if (packed.width == 8) {
    for (auto [i, element] : llvm::enumerate(packed.getByteOrder()))
      result.push_back({4 * word + element, 0, 8, int64_t(8 * i)});
    return result;
  }
  if (packed.width == 6 && word == 0) {
    for (int64_t j = 0; j < 4; ++j)
      for (auto [i, element] : llvm::enumerate(packed.getByteOrder()))
        result.push_back({4 * j + element, 4, 2, int64_t(8 * i) + 2 * j});
    return result;
  }
  int64_t first = packed.width == 6 ? 8 * (word - 1) : 0;
  for (auto [i, element] : llvm::enumerate(PackedFormat::order))
    result.push_back({first + element, 0, 4, int64_t(4 * i)});
  return result;
}

/// True if the dimensions after the rows are one sequence of elements.
static bool hasContiguousRows(MemRefType type) {
  SmallVector<int64_t> strides;
  int64_t offset, expected = 1;
  if (type.getRank() < 3 || failed(type.getStridesAndOffset(strides, offset)))
    return false;
  for (int64_t dim = type.getRank() - 1; dim >= 2; --dim) {
    if (strides[dim] != expected)
      return false;
    expected *= type.getDimSize(dim);
  }
  return true;
}

/// Finds where the codes of a step are. Records and steps begin at whole bytes.
bool CodeWords::findPlanes() {
  FieldAttr codes = packed.format.getCodes();
  auto type = cast<MemRefType>(buffer.getType());
  int64_t step = packed.getStep(), elementBytes = type.getElementTypeBitWidth();
  elementBytes /= 8;
  if (codes.getAxis() != 1 || !hasContiguousRows(type))
    return false;
  if (!codes.getBits()) {
    planes.push_back({8, 0});
    planes.back().inSlots = true;
    return packed.width == 8 && elementBytes == 1;
  }
  // Words of 32 bits can start only where elements do.
  bool hasRecords = packed.format.isInRecord(codes);
  if (elementBytes != 1 && (elementBytes != 4 || hasRecords))
    return false;
  for (auto bits : codes.getBits().getAsRange<BitsAttr>()) {
    Plane plane{bits.getWidth(), bits.getShift(), bits.getByte(),
                bits.getBit(),   bits.getRun(),   bits.getValuesPerByte()};
    // Bytes of 8 bits follow one another, as do those of a run.
    plane.inSlots = plane.width == 8 || plane.run % step == 0;
    bool sharesBytes = plane.run == 1 && plane.bit == 0 &&
                       plane.perByte * plane.width == 8 &&
                       step * plane.width % 32 == 0;
    if (bits.getFirst() != 0 || bits.getCount() != 0 || plane.width > 8 ||
        !(plane.inSlots || sharesBytes) || plane.byte % elementBytes != 0)
      return false;
    if (plane.width == 8)
      plane.run = plane.perByte = 1;
    planes.push_back(plane);
  }
  for (int64_t word = 0; word < packed.getWords(); ++word)
    for (const CodeBits &bits : getCodeBits(packed, word))
      if (!planeOf(bits))
        return false;
  return true;
}

std::optional<CodeWords>
CodeWords::get(CPUBuilder &b, const PackedFormat &packed, Value codes) {
  CodeWords result(b, packed, codes);
  if (!result.findPlanes())
    return std::nullopt;
  result.rows = flatten(b, codes);
  return result;
}

const CodeWords::Plane *CodeWords::planeOf(const CodeBits &bits) const {
  const auto *found = llvm::find_if(planes, [&](const Plane &plane) {
    return plane.shift <= bits.from &&
           bits.from + bits.width <= plane.shift + plane.width;
  });
  return found == planes.end() ? nullptr : found;
}

Value CodeWords::splat(Value scalar, VectorType type) {
  return vector::BroadcastOp::create(b, type, scalar);
}

/// Shifts words to the left; to the right if `left` is negative.
Value CodeWords::shift(Value words, int64_t left) {
  if (left == 0)
    return words;
  auto type = cast<VectorType>(words.getType());
  Value amount = arith::ConstantOp::create(
      b, DenseElementsAttr::get(type, b.getI32IntegerAttr(std::abs(left))));
  if (left > 0)
    return arith::ShLIOp::create(b, words, amount);
  return arith::ShRUIOp::create(b, words, amount);
}

/// Loads the words that have the bits of a plane, of a step and `lanes`
/// columns.
SmallVector<Value> CodeWords::load(const Plane &plane, Value expert, Value n,
                                   Value k, int64_t lanes) {
  Value byte = b.index(plane.byte), slot;
  if (packed.format.isInRecord(packed.format.getCodes())) {
    int64_t elements = packed.format.getRecordElements();
    byte =
        b.add(byte, b.mul(b.div(k, elements), packed.format.getRecordBytes()));
    k = b.rem(k, elements);
  }
  if (plane.width == 8) {
    byte = b.add(byte, k);
  } else if (plane.inSlots) {
    Value run = b.div(k, plane.run);
    byte = b.add(byte, b.add(b.mul(b.div(run, plane.perByte), plane.run),
                             b.rem(k, plane.run)));
    slot = b.rem(run, plane.perByte);
  } else {
    byte = b.add(byte, b.div(k, plane.perByte));
  }
  auto type = cast<MemRefType>(buffer.getType());
  int64_t bytes = type.getElementTypeBitWidth() / 8;
  Value first =
      b.add(b.add(rows.offset, b.div(byte, bytes)),
            b.add(b.mul(expert, rows.strides[0]), b.mul(n, rows.strides[1])));
  auto four = VectorType::get(4 / bytes, type.getElementType());
  auto word = VectorType::get(1, b.getI32Type());
  auto words = VectorType::get(lanes, b.getI32Type());
  Value shift;
  if (slot) {
    Value amount = b.add(b.mul(slot, plane.width), plane.bit);
    shift = splat(arith::IndexCastOp::create(b, b.getI32Type(), amount), words);
  }
  SmallVector<Value> result;
  int64_t count = plane.getBit(packed.getStep()) / 32;
  for (int64_t i = 0; i < count; ++i) {
    SmallVector<Value> columns;
    for (int64_t lane = 0; lane < lanes; ++lane) {
      Value at = b.add(first, b.mul(rows.strides[1], lane));
      Value loaded = vector::LoadOp::create(b, four, rows.elements,
                                            b.add(at, i * 4 / bytes));
      if (four != word)
        loaded = vector::BitCastOp::create(b, word, loaded);
      columns.push_back(
          vector::ExtractOp::create(b, loaded, ArrayRef<int64_t>{0}));
    }
    Value value = vector::FromElementsOp::create(b, words, columns);
    if (shift)
      value = arith::ShRUIOp::create(b, value, shift);
    result.push_back(value);
  }
  return result;
}

/// Builds a word of a panel from the words of each plane.
Value CodeWords::wordOf(ArrayRef<SmallVector<Value>> sources, int64_t word) {
  // The bits of the result that come from a word by a shift to the left.
  llvm::MapVector<std::tuple<int64_t, int64_t, int64_t>, uint32_t> moves;
  for (const CodeBits &bits : getCodeBits(packed, word)) {
    const Plane *plane = planeOf(bits);
    int64_t bit = plane->getBit(bits.element) + bits.from - plane->shift;
    uint32_t mask = ((1u << bits.width) - 1) << bits.to;
    moves[{plane - planes.data(), bit / 32, bits.to - bit % 32}] |= mask;
  }
  Value result;
  for (auto [move, mask] : moves) {
    auto [plane, source, left] = move;
    Value moved = shift(sources[plane][source], left);
    if (mask != UINT32_MAX) {
      auto type = cast<VectorType>(moved.getType());
      Value kept = arith::ConstantOp::create(
          b, DenseElementsAttr::get(type, b.getI32IntegerAttr(mask)));
      moved = arith::AndIOp::create(b, moved, kept);
    }
    result =
        result ? arith::OrIOp::create(b, result, moved).getResult() : moved;
  }
  return result;
}

SmallVector<Value> CodeWords::build(Value expert, Value n, Value k,
                                    int64_t lanes) {
  SmallVector<SmallVector<Value>> sources;
  for (const Plane &plane : planes)
    sources.push_back(load(plane, expert, n, k, lanes));
  SmallVector<Value> result;
  for (int64_t word = 0; word < packed.getWords(); ++word)
    result.push_back(wordOf(sources, word));
  return result;
}
