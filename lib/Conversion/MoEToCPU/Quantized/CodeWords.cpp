//===- CodeWords.cpp - Codes of several columns at a time -----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A lane is a column. The words of a row that have the codes of a step are
// loaded column by column; then bits that move by the same distance move at
// once, in all columns. Where all of a period is packed, whole chunks of each
// row are loaded and transposed, and serve several steps.
//
//===----------------------------------------------------------------------===//

#include "CodeWords.h"

#include "llvm/ADT/MapVector.h"

#include <numeric>

using namespace mlir;
using namespace mlir::moe;

static constexpr int64_t maxPeriod = 256;

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
  result.findPeriod();
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

/// Returns the element of `rows` with the codes of column `n` from element `k`
/// on, the first of a step or, without `slot`, of a period. `slot` is set if
/// the step has one.
Value CodeWords::locate(const Plane &plane, Value expert, Value n, Value k,
                        Value *slot) {
  Value byte = b.index(plane.byte);
  if (packed.format.isInRecord(packed.format.getCodes())) {
    int64_t elements = packed.format.getRecordElements();
    byte =
        b.add(byte, b.mul(b.div(k, elements), packed.format.getRecordBytes()));
    k = b.rem(k, elements);
  }
  if (slot && plane.inSlots && plane.width < 8) {
    Value run = b.div(k, plane.run);
    byte = b.add(byte, b.add(b.mul(b.div(run, plane.perByte), plane.run),
                             b.rem(k, plane.run)));
    *slot = b.rem(run, plane.perByte);
  } else {
    byte = b.add(byte, b.div(k, plane.perByte));
  }
  auto type = cast<MemRefType>(buffer.getType());
  int64_t bytes = type.getElementTypeBitWidth() / 8;
  return b.add(
      b.add(rows.offset, b.div(byte, bytes)),
      b.add(b.mul(expert, rows.strides[0]), b.mul(n, rows.strides[1])));
}

/// Loads the words that have the bits of a plane, of a step and `lanes`
/// columns.
SmallVector<Value> CodeWords::load(const Plane &plane, Value expert, Value n,
                                   Value k, int64_t lanes) {
  Value slot;
  Value first = locate(plane, expert, n, k, &slot);
  auto type = cast<MemRefType>(buffer.getType());
  int64_t bytes = type.getElementTypeBitWidth() / 8;
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

/// Returns the moves to a word of a panel of bits that start at `bitOf` in the
/// words of their plane.
SmallVector<CodeWords::Move> CodeWords::getMoves(
    int64_t word,
    llvm::function_ref<int64_t(const Plane &, int64_t element)> bitOf) const {
  llvm::MapVector<std::tuple<const Plane *, int64_t, int64_t>, uint32_t> masks;
  for (const CodeBits &bits : getCodeBits(packed, word)) {
    const Plane *plane = planeOf(bits);
    int64_t bit = bitOf(*plane, bits.element) + bits.from - plane->shift;
    uint32_t mask = ((1u << bits.width) - 1) << bits.to;
    masks[{plane, bit / 32, bits.to - bit % 32}] |= mask;
  }
  SmallVector<Move> moves;
  for (auto [move, mask] : masks) {
    auto [plane, source, left] = move;
    moves.push_back({plane, source, left, mask});
  }
  return moves;
}

/// Builds a word of a panel from words of each plane.
Value CodeWords::combine(ArrayRef<Move> moves,
                         llvm::function_ref<Value(const Move &)> sourceOf) {
  Value result;
  for (const Move &move : moves) {
    Value moved = shift(sourceOf(move), move.left);
    if (move.mask != UINT32_MAX) {
      auto type = cast<VectorType>(moved.getType());
      Value kept = arith::ConstantOp::create(
          b, DenseElementsAttr::get(type, b.getI32IntegerAttr(move.mask)));
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
  for (int64_t word = 0; word < packed.getWords(); ++word) {
    auto moves = getMoves(word, [](const Plane &plane, int64_t element) {
      return plane.getBit(element);
    });
    result.push_back(combine(moves, [&](const Move &move) {
      return sources[move.plane - planes.data()][move.source];
    }));
  }
  return result;
}

//===----------------------------------------------------------------------===//
// Periods
//===----------------------------------------------------------------------===//

int64_t CodeWords::Plane::getPeriod() const {
  if (!inSlots || width == 8)
    return 8 * RowWords::chunkBytes / width;
  return run % RowWords::chunkBytes == 0 ? run * perByte : 0;
}

int64_t CodeWords::Plane::getBitInPeriod(int64_t element) const {
  if (!inSlots || width == 8)
    return width * element;
  int64_t slot = element / run;
  return 8 * (slot / perByte * run + element % run) + slot % perByte * width +
         bit;
}

/// Returns the moves to a word of a step of a period. The bytes of the source
/// may be in the order of those of a panel.
SmallVector<CodeWords::Move>
CodeWords::getMovesInPeriod(int64_t step, int64_t word, bool reorders) const {
  return getMoves(word, [&](const Plane &plane, int64_t element) {
    int64_t bit = plane.getBitInPeriod(step * packed.getStep() + element);
    if (!reorders)
      return bit;
    // An exchange of two bytes is its own inverse.
    int64_t byte = PackedFormat::rowOrder[bit / 8 % 4];
    return bit / 32 * 32 + 8 * byte + bit % 8;
  });
}

/// Sets the period, and whether fewer bits move once bytes are in order.
void CodeWords::findPeriod() {
  period = packed.getStep();
  for (const Plane &plane : planes) {
    if (plane.getPeriod() == 0) {
      period = 0;
      return;
    }
    period = std::lcm(period, plane.getPeriod());
  }
  // Each starts with a group, or ends with one; all of its steps become code.
  bool fitsGroups = packed.group % period == 0 || period % packed.group == 0;
  int64_t block = packed.format.isInRecord(packed.format.getCodes())
                      ? packed.format.getRecordElements()
                      : packed.block;
  if (!fitsGroups || packed.block % period != 0 || block % period != 0 ||
      period > maxPeriod) {
    period = 0;
    return;
  }
  size_t moves = 0, movesInOrder = 0;
  for (int64_t step = 0; step < period / packed.getStep(); ++step)
    for (int64_t word = 0; word < packed.getWords(); ++word) {
      moves += getMovesInPeriod(step, word, false).size();
      movesInOrder += getMovesInPeriod(step, word, true).size();
    }
  reorders = movesInOrder < moves;
}

SmallVector<SmallVector<Value>> CodeWords::buildPeriod(Value expert, Value n,
                                                       Value k, int64_t lanes) {
  SmallVector<RowWords, 2> sources;
  for (const Plane &plane : planes) {
    sources.emplace_back(b, rows, locate(plane, expert, n, k), lanes);
    if (reorders)
      sources.back().setByteOrder(PackedFormat::rowOrder);
  }
  SmallVector<SmallVector<Value>> result;
  for (int64_t step = 0; step < period / packed.getStep(); ++step) {
    auto &words = result.emplace_back();
    for (int64_t word = 0; word < packed.getWords(); ++word)
      words.push_back(combine(
          getMovesInPeriod(step, word, reorders), [&](const Move &move) {
            constexpr int64_t ofChunk = RowWords::chunkBytes / 4;
            RowWords &plane = sources[move.plane - planes.data()];
            int64_t chunk = move.source / ofChunk;
            return plane.getChunk(chunk *
                                  RowWords::chunkBytes)[move.source % ofChunk];
          }));
  }
  return result;
}
