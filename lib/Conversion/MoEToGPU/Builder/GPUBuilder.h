//===- GPUBuilder.h - Builder of device code --------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Short names for the operations that kernels consist of. Kernels are functions
// of the LLVM dialect; their bodies use arith, scf, math, vector and nvvm.
// Indices within a block are i32, offsets into global memory i64.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_BUILDER_GPUBUILDER_H
#define MOE_LIB_CONVERSION_MOETOGPU_BUILDER_GPUBUILDER_H

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/GPU/IR/GPUDialect.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

namespace mlir::moe {

class GPUBuilder : public ImplicitLocOpBuilder {
public:
  using ImplicitLocOpBuilder::ImplicitLocOpBuilder;

  static constexpr int64_t warpSize = 32;

  //===--------------------------------------------------------------------===//
  // Arithmetic
  //===--------------------------------------------------------------------===//
  Value i1(bool value);
  Value i32(int64_t value);
  Value i64(int64_t value);
  Value f32(double value);
  /// Returns a constant of the type of `like`.
  Value constantLike(Value like, int64_t value);

  Value add(Value x, Value y);
  Value sub(Value x, Value y);
  Value mul(Value x, Value y);
  Value div(Value x, Value y); // unsigned
  Value rem(Value x, Value y); // unsigned
  Value min(Value x, Value y); // signed
  Value max(Value x, Value y); // signed
  Value bitAnd(Value x, Value y);
  Value bitOr(Value x, Value y);
  Value bitXor(Value x, Value y);
  Value add(Value x, int64_t y) { return y ? add(x, constantLike(x, y)) : x; }
  Value sub(Value x, int64_t y) { return y ? sub(x, constantLike(x, y)) : x; }
  Value mul(Value x, int64_t y) {
    return y == 1 ? x : mul(x, constantLike(x, y));
  }
  Value div(Value x, int64_t y) {
    return y == 1 ? x : div(x, constantLike(x, y));
  }
  Value rem(Value x, int64_t y) { return rem(x, constantLike(x, y)); }
  Value min(Value x, int64_t y) { return min(x, constantLike(x, y)); }
  Value bitAnd(Value x, int64_t y) { return bitAnd(x, constantLike(x, y)); }
  Value bitXor(Value x, int64_t y) { return bitXor(x, constantLike(x, y)); }
  Value ceilDiv(Value x, int64_t y) { return div(add(x, y - 1), y); }
  Value shiftLeft(Value x, int64_t bits);
  Value shiftRight(Value x, int64_t bits);
  Value less(Value x, Value y); // signed
  Value less(Value x, int64_t y) { return less(x, constantLike(x, y)); }
  Value below(Value x, Value y); // unsigned
  Value below(Value x, int64_t y) { return below(x, constantLike(x, y)); }
  Value equal(Value x, Value y);
  Value equal(Value x, int64_t y) { return equal(x, constantLike(x, y)); }
  Value both(Value x, Value y) { return bitAnd(x, y); }
  Value either(Value x, Value y) { return bitOr(x, y); }
  Value logicalNot(Value x) { return bitXor(x, i1(true)); }
  Value select(Value condition, Value x, Value y);
  /// Sign-extends an i32 to i64.
  Value toI64(Value x);
  /// Returns a copy of an i32 that optimizations know nothing of: what is
  /// computed from it is not moved ahead of this operation.
  Value opaque(Value x);
  /// Zero-extends an i1 to i32.
  Value toI32(Value flag);
  /// Converts scalars or vectors between f32, f16 and bf16, by way of f32.
  Value toFloat(Value x, Type type);

  //===--------------------------------------------------------------------===//
  // Memory
  //===--------------------------------------------------------------------===//
  /// Returns the address of element `index` (i32 or i64) from `pointer` on.
  Value at(Value pointer, Type element, Value index);
  Value load(Type type, Value pointer, int64_t alignment = 0);
  Value loadAt(Type element, Value pointer, Value index);
  void store(Value value, Value pointer, int64_t alignment = 0);
  void storeAt(Value value, Value pointer, Value index);
  /// Stores to global memory if `condition` holds: a predicated instruction,
  /// not a branch, so that `value` is computed in any case. It has 16, 32, 64
  /// or 128 bits, to which `pointer` is aligned.
  void storeIf(Value condition, Value value, Value pointer);
  /// Loads a scalar from global memory, aligned to its size, that nothing
  /// writes; zero unless `condition` holds. A predicated instruction.
  Value loadIf(Value condition, Type type, Value pointer) {
    return loadIf(condition, type, pointer, /*isConstant=*/true);
  }
  /// The same for a vector of 16, 32, 64 or 128 bits that may be written.
  Value loadVectorIf(Value condition, VectorType type, Value pointer) {
    return loadIf(condition, type, pointer, /*isConstant=*/false);
  }
  /// Adds to an i32 or i64 in memory with relaxed order; returns the old value.
  Value atomicAdd(Value pointer, Value value);
  /// Emits an acquire-release fence at device scope.
  void fence();
  /// Returns the base of the block's dynamic shared memory.
  Value sharedMemory();
  Value sharedAt(Value base, Value byte);
  Value sharedAt(Value base, int64_t byte) { return sharedAt(base, i32(byte)); }
  /// Returns the position of 16-byte chunk `chunk` in row `row` of a tile with
  /// the 128-byte swizzle: chunk ^ (row mod 8).
  Value swizzle128(Value chunk, Value row) {
    return bitXor(chunk, bitAnd(row, 7));
  }

  //===--------------------------------------------------------------------===//
  // Threads
  //===--------------------------------------------------------------------===//
  Value thread();
  Value block();
  Value numBlocks();
  Value lane() { return bitAnd(thread(), 31); }
  /// Returns the index of the warp, uniform over its threads.
  Value warp();
  /// Returns the index (i64) of the warp in a grid of blocks of so many warps.
  Value warpOfGrid(int64_t warpsInBlock);
  void barrier();
  /// Returns the rank of the block in its cluster of `size` blocks.
  Value blockInCluster(int64_t size) { return rem(block(), size); }
  /// The two halves of a cluster barrier: writes before the arrival of any
  /// thread are visible after the wait. `aligned` asserts that all threads of a
  /// warp are converged.
  void arriveCluster(bool aligned = true);
  void waitCluster(bool aligned = true);
  /// Maps a pointer to shared memory to the same offset in block `rank` of the
  /// cluster (mapa).
  Value mapToBlock(Value pointer, Value rank);
  /// Butterfly shuffle: returns the value of lane `lane() ^ mask`.
  Value shuffleXor(Value value, int64_t mask);
  /// Returns the value of lane `lane`.
  Value shuffle(Value value, Value lane);
  /// Transposes the 2x2 matrix that two lanes, whose indices differ in `bit`,
  /// hold as (first, second): the lower lane gets both firsts, the upper both
  /// seconds.
  std::pair<Value, Value> transposeLanes(Value first, Value second,
                                         int64_t bit);
  /// accumulators += lhs · rhs with mma.sync.m16n8k16. `element` is f16 or
  /// bf16; registers are i32, or already pairs of f16.
  void mma(Type element, ArrayRef<Value> lhs, ArrayRef<Value> rhs,
           MutableArrayRef<Value> accumulators);

  //===--------------------------------------------------------------------===//
  // Control
  //===--------------------------------------------------------------------===//
  using LoopBody = llvm::function_ref<SmallVector<Value>(Value, ValueRange)>;
  SmallVector<Value> loop(Value from, Value to, Value step, ValueRange inits,
                          LoopBody body);
  void loop(Value from, Value to, Value step,
            llvm::function_ref<void(Value)> body);
  void ifThen(Value condition, llvm::function_ref<void()> then);
  void ifElse(Value condition, llvm::function_ref<void()> then,
              llvm::function_ref<void()> otherwise);

  //===--------------------------------------------------------------------===//
  // Warp-wide reductions and scans; all lanes must take part
  //===--------------------------------------------------------------------===//
  /// Reduces the values of all lanes in a fixed order; every lane has the
  /// result.
  Value reduceWarp(Value value,
                   llvm::function_ref<Value(Value, Value)> combine);
  Value sumWarp(Value value);
  Value maxWarp(Value value);
  /// Inclusive prefix sum of an i32 over the lanes.
  Value scanWarp(Value value);

  /// Inclusive prefix sum of an i32 over the threads of the first `warps` warps
  /// of a block; has a barrier, which all threads must reach. `scratch` is
  /// shared memory of `scanBytes`, free again after another barrier.
  Value scanBlock(Value value, Value scratch, int64_t warps);
  static constexpr int64_t scanBytes = 32 * 4; // of at most 1024 threads

private:
  Value loadIf(Value condition, Type type, Value pointer, bool isConstant);
};

/// Launch configuration of a kernel.
struct KernelShape {
  int64_t threads;
  int64_t sharedBytes = 0;
  int64_t cluster = 1;
  int64_t tensorMaps = 0; // leading arguments, passed by value
  int64_t resident = 1;   // blocks that run on a multiprocessor at once
};

/// Creates a kernel in `kernels` that takes tensor maps, `pointers` pointers to
/// global memory and `scalars`. The builder is left in its body, before the
/// return.
LLVM::LLVMFuncOp createKernel(GPUBuilder &b, gpu::GPUModuleOp kernels,
                              StringRef name, const KernelShape &shape,
                              int64_t pointers, ArrayRef<Type> scalars);

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_BUILDER_GPUBUILDER_H
