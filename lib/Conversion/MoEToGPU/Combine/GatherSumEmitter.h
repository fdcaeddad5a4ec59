//===- GatherSumEmitter.h - Sums over the choices of a token ----*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_COMBINE_GATHERSUMEMITTER_H
#define MOE_LIB_CONVERSION_MOETOGPU_COMBINE_GATHERSUMEMITTER_H

#include "Builder/GPUBuilder.h"

namespace mlir::moe {

/// What a thread does for a `moe.gather_sum`: 16 bytes of a token's result.
/// Rows of several choices are on their way at once; they are added in order.
class GatherSumEmitter {
public:
  /// Pointers, the last two of which may be null, and the number of rows (i32).
  struct Arrays {
    Value rows, positions, out, numRows;
    Value weights, dropped;
  };

  /// For rows of `columns` elements.
  GatherSumEmitter(GPUBuilder &b, Type element, int64_t columns, int64_t topK,
                   const Arrays &arrays);

  /// Elements of a vector, all of which a thread computes at once.
  static int64_t widthOf(Type element, int64_t columns);

  /// Vector `vector` (i32) of the result of `token` (i32).
  void emit(Value token, Value vector);

private:
  Value load(Value base, Value row, Value vector);
  Value splat(Value scalar);
  Value add(Value sum, Value token, Value vector, Value start, int64_t k,
            int64_t count);

  GPUBuilder &b;
  Type element;
  int64_t columns, topK, width;
  Arrays arrays;
  Value source; // of rows
  Value none;   // whether there are no rows
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_COMBINE_GATHERSUMEMITTER_H
