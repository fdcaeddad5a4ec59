//===- WarpRows.h - Rows in the registers of a warp -------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A row of scores or choices is distributed over the lanes of a warp: column c
// is in slot c div 32 of lane c mod 32.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_ROUTING_WARPROWS_H
#define MOE_LIB_CONVERSION_MOETOGPU_ROUTING_WARPROWS_H

#include "Builder/GPUBuilder.h"

namespace mlir::moe {

/// Emits operations on rows. All lanes of a warp must take part.
class WarpRows {
public:
  /// One value for each slot of a lane.
  using Row = SmallVector<Value>;

  /// The builder must be at a point that all lanes reach (convergent).
  explicit WarpRows(GPUBuilder &b) : b(b), lane(b.lane()) {}

  /// Runs `body` for each of the `columns` columns of a row and its value.
  void forEach(const Row &row, int64_t columns,
               llvm::function_ref<void(Value column, Value value)> body);

  /// Returns the slots of a row.
  static int64_t slotsOf(int64_t columns) {
    return llvm::divideCeil(columns, GPUBuilder::warpSize);
  }

protected:
  Value negInf();
  Value isNaN(Value x);
  Value compare(arith::CmpFPredicate predicate, Value x, Value y);

  Value columnOf(unsigned slot);
  /// Returns a flag for each slot: true if its column is below `columns`.
  Row validColumns(int64_t columns);
  /// Loads a row, floats as f32; columns beyond it are `otherwise`.
  Row loadRow(Value pointer, Type element, Value first, int64_t columns,
              Value otherwise);
  void storeRow(const Row &row, Value pointer, Value first, int64_t columns);
  Row map(const Row &row, llvm::function_ref<Value(Value)> body);
  /// Returns row[ids[k]] at column k; 0 if ids[k] is not below `columns`.
  Row gather(const Row &row, const Row &ids, int64_t columns);
  /// The softmax of the columns whose flag is set; 0 for others.
  Row softmax(const Row &row, const Row &valid);

  GPUBuilder &b;
  Value lane;
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_ROUTING_WARPROWS_H
