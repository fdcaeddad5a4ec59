//===- GatherSumEmitter.h - Weighted sum of a token's rows ------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_COMBINE_GATHERSUMEMITTER_H
#define MOE_LIB_CONVERSION_MOETOGPU_COMBINE_GATHERSUMEMITTER_H

#include "Builder/GPUBuilder.h"

namespace mlir::moe {

/// Emits the code with which a thread computes up to 16 bytes of a token's
/// result of `moe.gather_sum`. The rows of several choices are loaded before
/// the first is added; they are added in order.
class GatherSumEmitter {
public:
  struct Arrays {
    Value rows, positions, out; // pointers
    Value numRows;              // i32
    Value weights, dropped;     // pointers, or null
  };

  /// Rows have `columns` elements.
  GatherSumEmitter(GPUBuilder &b, Type element, int64_t columns, int64_t topK,
                   const Arrays &arrays);

  /// Returns the number of elements that a thread computes at once.
  static int64_t widthOf(Type element, int64_t columns);

  /// Computes vector `vector` (i32) of the result of token `token` (i32).
  /// `positions` are those of its choices; if empty they are loaded.
  void emit(Value token, Value vector, ArrayRef<Value> positions = {});

private:
  Value addressOf(Value base, Value row, Value vector);
  Value load(Value pointer);
  Value loadIf(Value condition, Value pointer);
  Value splat(Value scalar);
  Value add(Value sum, Value token, Value vector, Value start, int64_t k,
            int64_t count, ArrayRef<Value> positions = {});

  GPUBuilder &b;
  Type element;
  int64_t columns, topK, width;
  Arrays arrays;
  Value dropped; // the token's dropped row; null without them
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_COMBINE_GATHERSUMEMITTER_H
