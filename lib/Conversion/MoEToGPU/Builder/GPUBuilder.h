//===- GPUBuilder.h - Short names for what kernels are made of --*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Kernels are functions of the LLVM dialect with arith, scf, math and nvvm inside.
// Numbers within a block are i32, offsets in global memory i64.
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
  // Numbers
  //===--------------------------------------------------------------------===//
  Value i1(bool value);
  Value i32(int64_t value);
  Value i64(int64_t value);
  Value f32(double value);
  /// A constant of the type of `like`.
  Value constantLike(Value like, int64_t value);

  Value add(Value x, Value y);
  Value sub(Value x, Value y);
  Value mul(Value x, Value y);
  Value div(Value x, Value y); // unsigned, as the next
  Value rem(Value x, Value y);
  Value min(Value x, Value y); // signed, as the next
  Value max(Value x, Value y);
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
  /// i32 as i64; i1 as i32.
  Value toI64(Value x);
  Value toI32(Value flag);
  /// Between f32, f16 and bf16, by way of f32; scalars, or vectors of one shape.
  Value toFloat(Value x, Type type);

  //===--------------------------------------------------------------------===//
  // Memory
  //===--------------------------------------------------------------------===//
  /// The address of element `index` (i32 or i64) behind `pointer`.
  Value at(Value pointer, Type element, Value index);
  Value load(Type type, Value pointer, int64_t alignment = 0);
  Value loadAt(Type element, Value pointer, Value index);
  void store(Value value, Value pointer, int64_t alignment = 0);
  void storeAt(Value value, Value pointer, Value index);
  /// Add to an i32 or i64 in memory, in no order; what was there before.
  Value atomicAdd(Value pointer, Value value);
  /// What this thread did before, others see before what it does afterwards.
  void fence();
  /// The dynamic shared memory of the block.
  Value sharedMemory();
  Value sharedAt(Value base, Value byte);
  Value sharedAt(Value base, int64_t byte) { return sharedAt(base, i32(byte)); }

  //===--------------------------------------------------------------------===//
  // Threads
  //===--------------------------------------------------------------------===//
  Value thread();
  Value block();
  Value numBlocks();
  Value lane() { return bitAnd(thread(), 31); }
  /// The number of the warp, the same register in all of its threads.
  Value warp();
  void barrier();
  /// The number of the block in its cluster of `size` blocks.
  Value blockInCluster(int64_t size) { return rem(block(), size); }
  /// A barrier of the cluster, in two halves; what came before the first of all
  /// threads is seen after the second.
  void arriveCluster();
  void waitCluster();
  /// Where shared memory at `pointer` is in block `number` of the cluster.
  Value inBlock(Value pointer, Value number);
  /// Value of the lane whose number differs in the bits of `mask`.
  Value shuffleXor(Value value, int64_t mask);
  Value shuffle(Value value, Value lane);
  /// Two lanes whose numbers differ in `bit` have two values each: the one
  /// without it gets the first of both, the other the second of both, in their
  /// order.
  std::pair<Value, Value> transposeLanes(Value first, Value second,
                                         int64_t bit);

  //===--------------------------------------------------------------------===//
  // Control
  //===--------------------------------------------------------------------===//
  using LoopBody =
      llvm::function_ref<SmallVector<Value>(Value, ValueRange)>;
  SmallVector<Value> loop(Value from, Value to, Value step, ValueRange inits,
                          LoopBody body);
  void loop(Value from, Value to, Value step,
            llvm::function_ref<void(Value)> body);
  void ifThen(Value condition, llvm::function_ref<void()> then);
  void ifElse(Value condition, llvm::function_ref<void()> then,
              llvm::function_ref<void()> otherwise);

  //===--------------------------------------------------------------------===//
  // Across the lanes of a warp, all of which call
  //===--------------------------------------------------------------------===//
  /// Combine the values of all lanes, in a fixed order; every lane has the result.
  Value reduceWarp(Value value,
                   llvm::function_ref<Value(Value, Value)> combine);
  Value sumWarp(Value value);
  Value maxWarp(Value value);
  /// The sum of an i32 over this lane and those before it.
  Value scanWarp(Value value);
};

/// What a kernel is to look like from outside.
struct KernelShape {
  int64_t threads;
  int64_t sharedBytes = 0;
  int64_t cluster = 1;
  int64_t tensorMaps = 0; // arguments ahead of the others
};

/// A new kernel in `kernels` with `pointers` pointers to global memory and then
/// `scalars`; the builder stands at the start of its body, before the return.
LLVM::LLVMFuncOp createKernel(GPUBuilder &b, gpu::GPUModuleOp kernels,
                              StringRef name, const KernelShape &shape,
                              int64_t pointers, ArrayRef<Type> scalars);

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_BUILDER_GPUBUILDER_H
