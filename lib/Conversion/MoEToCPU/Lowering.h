//===- Lowering.h - Lowerings to CPU kernels --------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOCPU_LOWERING_H
#define MOE_LIB_CONVERSION_MOETOCPU_LOWERING_H

#include "Kernel.h"

#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"

namespace mlir::moe {

/// Replaces an operation on buffers by a parallel loop over tasks. Emits an
/// error on failure.
LogicalResult lowerToCPU(GroupedMatmulOp op, const CPUDescription &cpu);
LogicalResult lowerToCPU(GroupedContractOp op, const CPUDescription &cpu);
LogicalResult lowerToCPU(GatherSumOp op, const CPUDescription &cpu);
LogicalResult lowerToCPU(PackOp op, const CPUDescription &cpu);
LogicalResult lowerToCPU(QuantizeRowsOp op, const CPUDescription &cpu);
LogicalResult lowerToCPU(RoundMatricesOp op, const CPUDescription &cpu);
/// The same of a packing whose panels have a format.
LogicalResult lowerQuantizedToCPU(PackOp op, const CPUDescription &cpu);

/// What a task may have on its stack: an executor promises 256 KiB
/// (moe_rt/executor.h).
static constexpr int64_t stackBytes = 240 << 10;

/// Some rows of a task: tile `index` of `total`.
struct Tile {
  Value index, total, row, count;
};

/// Adds short names for index arithmetic and loops.
class CPUBuilder : public ImplicitLocOpBuilder {
public:
  using ImplicitLocOpBuilder::ImplicitLocOpBuilder;

  Value index(int64_t value);
  Value add(Value x, Value y);
  Value add(Value x, int64_t y) { return y == 0 ? x : add(x, index(y)); }
  Value sub(Value x, Value y);
  Value mul(Value x, Value y);
  Value mul(Value x, int64_t y) { return y == 1 ? x : mul(x, index(y)); }
  Value div(Value x, int64_t y);
  Value rem(Value x, int64_t y);
  Value ceilDiv(Value x, int64_t y) { return div(add(x, y - 1), y); }
  Value min(Value x, Value y);
  /// Clamps `value` to [0, limit].
  Value clamp(Value value, Value limit);
  Value less(Value x, Value y);
  Value toIndex(Value integer);

  /// Builds an scf.for over [from, to) without results.
  void forEach(Value from, Value to, llvm::function_ref<void(Value)> body);
  /// Builds an scf.forall over `count` tasks.
  void forEachTask(Value count, llvm::function_ref<void(Value)> body);
  /// Loads a vector of `lanes` elements of `buffer` from `indices` on along the
  /// last dimension. With `mask`, whose first `count` lanes (at least one) are
  /// set, the other lanes are undefined.
  Value loadFirst(int64_t lanes, Value buffer, ArrayRef<Value> indices,
                  Value count, Value mask);
  /// Loads like loadFirst, along dimension `dim` and element by element.
  Value gatherFirst(int64_t lanes, Value buffer, ArrayRef<Value> indices,
                    unsigned dim, Value count);
  /// Stores a vector from `indices` on along the last dimension: the first
  /// `count` lanes, which are those of `mask`, or all lanes without a mask.
  void storeFirst(Value vector, Value buffer, ArrayRef<Value> indices,
                  Value count, Value mask);
  void ifThen(Value condition, llvm::function_ref<void()> then);
  void ifElse(Value condition, llvm::function_ref<void()> then,
              llvm::function_ref<void()> otherwise);

  /// Allocates memory of a task on its stack.
  Value allocateScratch(Type element, int64_t count);
  /// Splits rows into tiles of about equal height.
  void forEachTile(Value rows, int64_t maxRows,
                   llvm::function_ref<void(const Tile &)> body);
  /// Calls the kernel of as many rows as a tile has.
  void callKernel(Value height, int64_t maxRows, ValueRange operands,
                  llvm::function_ref<func::FuncOp(int64_t rows)> kernelOf);
  /// Transposes a square of as many vectors as each has lanes.
  SmallVector<Value> transpose(SmallVector<Value> rows);
};

/// A buffer as a 1-D memref with the offset and strides of its elements.
struct FlatBuffer {
  Value elements; // memref<?xT>
  Value offset;   // of element (0, 0, ...)
  SmallVector<Value> strides;
};
FlatBuffer flatten(CPUBuilder &b, Value buffer);

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOCPU_LOWERING_H
