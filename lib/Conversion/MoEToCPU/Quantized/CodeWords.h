//===- CodeWords.h - Codes of several columns at a time ---------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOCPU_QUANTIZED_CODEWORDS_H
#define MOE_LIB_CONVERSION_MOETOCPU_QUANTIZED_CODEWORDS_H

#include "../Lowering.h"
#include "moe/Dialect/MoE/IR/PackedFormat.h"

namespace mlir::moe {

/// Bits `[from, from + width)` of the code of an element of a step, which are
/// at bit `to` of a word of a panel.
struct CodeBits {
  int64_t element, from, width, to;
};

/// Returns what a word of a step has, from the lowest bits on.
SmallVector<CodeBits> getCodeBits(const PackedFormat &packed, int64_t word);

/// Builds the words of a step of neighbouring columns as vectors, from rows
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
  };

  CodeWords(CPUBuilder &b, const PackedFormat &packed, Value codes)
      : b(b), packed(packed), buffer(codes) {}

  bool findPlanes();
  SmallVector<Value> load(const Plane &plane, Value expert, Value n, Value k,
                          int64_t lanes);
  Value wordOf(ArrayRef<SmallVector<Value>> sources, int64_t word);
  const Plane *planeOf(const CodeBits &bits) const;
  Value splat(Value scalar, VectorType type);
  Value shift(Value words, int64_t left);

  CPUBuilder &b;
  PackedFormat packed;
  Value buffer;
  FlatBuffer rows;
  SmallVector<Plane> planes;
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOCPU_QUANTIZED_CODEWORDS_H
