//===- CodeWords.h - Codes of several columns at a time ---------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOCPU_QUANTIZED_CODEWORDS_H
#define MOE_LIB_CONVERSION_MOETOCPU_QUANTIZED_CODEWORDS_H

#include "RowWords.h"
#include "moe/Dialect/MoE/IR/PackedFormat.h"

namespace mlir::moe {

/// Bits `[from, from + width)` of the code of an element of a step, which are
/// at bit `to` of a word of a panel.
struct CodeBits {
  int64_t element, from, width, to;
};

/// Returns what a word of a step has, from the lowest bits on.
SmallVector<CodeBits> getCodeBits(const PackedFormat &packed, int64_t word);

/// Builds the words of the steps of neighbouring columns as vectors, from rows
/// whose codes of a step are at fixed places of words of 32 bits.
class CodeWords {
public:
  /// Returns none if a step of `codes` (of a packing, an operand `[E, N, ...]`)
  /// has no such places.
  static std::optional<CodeWords> get(CPUBuilder &b, const PackedFormat &packed,
                                      Value codes);

  /// Returns each word of the step that starts at element `k`, for columns `n`
  /// to `n + lanes - 1`.
  SmallVector<Value> build(Value expert, Value n, Value k, int64_t lanes);

  /// The number of elements after which places repeat, and whose codes fill
  /// chunks of RowWords: a multiple of a step. 0 if there is none.
  int64_t getPeriod() const { return period; }
  /// Returns the words of each step of the period that starts at element `k`,
  /// and loads each chunk once.
  SmallVector<SmallVector<Value>> buildPeriod(Value expert, Value n, Value k,
                                              int64_t lanes);

private:
  /// The bits of a code that share a place: all of an attribute #moe.bits.
  struct Plane {
    int64_t width, shift; // of a code: bits `[shift, shift + width)`
    int64_t byte = 0, bit = 0;
    int64_t run = 1;      // elements whose bytes follow one another
    int64_t perByte = 1;  // elements that share a byte, in slots
    bool inSlots = false; // a step has a byte of each element

    /// Bit of an element of a step in the words of the step.
    int64_t getBit(int64_t element) const {
      return (inSlots ? 8 : width) * element;
    }
    /// Elements of a period; 0 if there is none.
    int64_t getPeriod() const;
    /// Bit of an element of a period in the bytes of the period.
    int64_t getBitInPeriod(int64_t element) const;
  };
  /// Bits of a word of a panel that come from word `source` of a plane by a
  /// shift to the left.
  struct Move {
    const Plane *plane;
    int64_t source, left;
    uint32_t mask;
  };

  CodeWords(CPUBuilder &b, const PackedFormat &packed, Value codes)
      : b(b), packed(packed), buffer(codes) {}

  bool findPlanes();
  void findPeriod();
  SmallVector<Move> getMoves(
      int64_t word,
      llvm::function_ref<int64_t(const Plane &, int64_t element)> bitOf) const;
  SmallVector<Move> getMovesInPeriod(int64_t step, int64_t word,
                                     bool reorders) const;
  Value locate(const Plane &plane, Value expert, Value n, Value k,
               Value *slot = nullptr);
  SmallVector<Value> load(const Plane &plane, Value expert, Value n, Value k,
                          int64_t lanes);
  Value combine(ArrayRef<Move> moves,
                llvm::function_ref<Value(const Move &)> sourceOf);
  const Plane *planeOf(const CodeBits &bits) const;
  Value splat(Value scalar, VectorType type);
  Value shift(Value words, int64_t left);

  CPUBuilder &b;
  PackedFormat packed;
  Value buffer;
  FlatBuffer rows;
  SmallVector<Plane> planes;
  int64_t period = 0;
  bool reorders = false; // the bytes of the words of a period first
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOCPU_QUANTIZED_CODEWORDS_H
