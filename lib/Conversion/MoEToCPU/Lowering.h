//===- Lowering.h - One lowering for each operation -------------*- C++ -*-===//
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

/// Replace an operation on buffers by parallel loops over tasks. On failure an
/// error has been emitted.
LogicalResult lowerToCPU(GroupedMatmulOp op, const CPUDescription &cpu);
LogicalResult lowerToCPU(GatherSumOp op, const CPUDescription &cpu);
LogicalResult lowerToCPU(PackOp op, const CPUDescription &cpu);

/// What the lowerings build loops and indices with.
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
  /// `value` held to [0, limit].
  Value hold(Value value, Value limit);
  Value less(Value x, Value y);
  Value toIndex(Value integer);

  /// scf.for over [from, to), without results.
  void forEach(Value from, Value to, llvm::function_ref<void(Value)> body);
  /// Tasks that may run at the same time.
  void forEachTask(Value count, llvm::function_ref<void(Value)> body);
  /// A vector of `lanes` elements of `buffer` along its last dimension, from
  /// `indices`; with `mask`, of which the first `count` lanes are set, what the
  /// others hold is not defined. There is at least one.
  Value loadFirst(int64_t lanes, Value buffer, ArrayRef<Value> indices,
                  Value count, Value mask);
  /// Element by element along dimension `dim`, again the first `count`.
  Value gatherFirst(int64_t lanes, Value buffer, ArrayRef<Value> indices,
                    unsigned dim, Value count);
  /// Store the first `count` lanes, those of `mask`, at `indices`, the last of
  /// which is theirs; without `mask` all.
  void storeFirst(Value vector, Value buffer, ArrayRef<Value> indices,
                  Value count, Value mask);
  void ifThen(Value condition, llvm::function_ref<void()> then);
  void ifElse(Value condition, llvm::function_ref<void()> then,
              llvm::function_ref<void()> otherwise);
};

/// A buffer as one row of elements, from which anything of it can be reached.
struct FlatBuffer {
  Value elements; // memref<?xT>
  Value offset;   // of element (0, 0, ...)
  SmallVector<Value> strides;
};
FlatBuffer flatten(CPUBuilder &b, Value buffer);

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOCPU_LOWERING_H
