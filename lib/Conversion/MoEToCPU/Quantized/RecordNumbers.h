//===- RecordNumbers.h - Numbers of several columns at a time ---*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOCPU_QUANTIZED_RECORDNUMBERS_H
#define MOE_LIB_CONVERSION_MOETOCPU_QUANTIZED_RECORDNUMBERS_H

#include "RowWords.h"
#include "moe/Dialect/MoE/IR/PackedFormat.h"

namespace mlir::moe {

/// Builds the numbers of a block of neighbouring columns as vectors, from rows
/// in which a block is a record: each number is at a fixed place of it.
class RecordNumbers {
public:
  /// Returns none if `records` (of a packing, an operand `[E, N, ...]`) has no
  /// such places.
  static std::optional<RecordNumbers>
  get(CPUBuilder &b, const PackedFormat &packed, Value records);

  /// Calls `body` for each number of the block that starts at element `k` and
  /// the element of the block where it starts, with the numbers of columns `n`
  /// to `n + lanes - 1`, in whole bytes.
  void build(Value expert, Value n, Value k, int64_t lanes,
             llvm::function_ref<void(FieldAttr, int64_t, Value)> body);

private:
  RecordNumbers(CPUBuilder &b, const PackedFormat &packed, FlatBuffer rows)
      : b(b), packed(packed), rows(std::move(rows)) {}

  Value bitsAt(RowWords &words, int64_t byte, int64_t bit, int64_t width);
  Value numberAt(RowWords &words, FieldAttr number, int64_t index,
                 int64_t lanes);
  Value shift(Value words, int64_t left);

  CPUBuilder &b;
  PackedFormat packed;
  FlatBuffer rows;
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOCPU_QUANTIZED_RECORDNUMBERS_H
