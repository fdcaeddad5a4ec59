//===- QuantizedKernelBuilder.h - Kernels of quantised weights --*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOCPU_QUANTIZED_QUANTIZEDKERNELBUILDER_H
#define MOE_LIB_CONVERSION_MOETOCPU_QUANTIZED_QUANTIZEDKERNELBUILDER_H

#include "../Lowering.h"
#include "QuantizedKernel.h"

namespace mlir::moe {

/// Emits the body of a kernel of quantised weights: the loop over the groups of
/// a panel and their scales. How rows are multiplied with the codes of a group
/// is up to a subclass.
class QuantizedKernelBuilder {
public:
  virtual ~QuantizedKernelBuilder() = default;
  void build();

protected:
  /// The arguments of a kernel function, in order.
  enum Argument {
    Lhs,
    Firsts,
    Weights,
    Start,
    Accumulators,
    AccumulatorsStart,
    Groups,
    Rest,
    End
  };

  QuantizedKernelBuilder(func::FuncOp function, const Kernel &kernel,
                         const PackedFormat &format, int64_t rows);

  /// A group of a panel: its number, the first byte of its codes, and its
  /// steps.
  struct Group {
    Value number, start, steps;
  };
  /// Sums over a group, in f32: of products, for each row and vector of
  /// columns; and of the elements of each row, broadcast, if the kernel
  /// subtracts them.
  struct Sums {
    SmallVector<Value> products, rows;
  };

  /// Emits constants, such as tables of the values of codes.
  virtual void buildConstants() {}
  virtual Sums sumsOf(const Group &group) = 0;
  /// Returns the accumulators with the products of a group.
  virtual SmallVector<Value> addGroup(const Group &group,
                                      ValueRange accumulators);
  /// Returns what all codes of a kernel have too much.
  virtual double getExcess() { return 0; }
  /// Returns what the products of a kernel are multiplied by, a power of two.
  virtual double getFactor() { return 1; }

  /// True if a group is so large that the loops in it prefetch, not that over
  /// groups: it may be a whole row.
  bool prefetchesInGroup() {
    return kernel.getColumns() * format.getGroupBytes() > 8 << 10;
  }
  /// Emits the prefetches of an iteration that reads `bytes` bytes of weights
  /// from `start` on.
  void prefetch(Value start, int64_t bytes);

  /// True if the kernel subtracts something from all weights of a group.
  bool needsRowSums() { return format.hasMins() || getExcess() != 0; }
  Value argument(Argument which) { return function.getArgument(which); }
  Value splat(VectorType type, int64_t value);
  Value zero(VectorType type);
  Value bitCast(VectorType type, Value value);
  Value shiftRight(Value x, int64_t bits);
  Value call(StringRef intrinsic, Type result, ValueRange operands);
  /// Loads bytes of the weights as a vector of another type.
  Value loadWeights(VectorType type, Value byte);
  /// Loads the words of a step for each vector of columns, in the order of
  /// their addresses: hardware follows one ascending stream.
  SmallVector<SmallVector<Value>> loadWords(Value byte);
  /// Returns the codes of each four elements of a step, in bytes.
  SmallVector<Value> unpack(ArrayRef<Value> words);
  Value bitAnd(Value x, int64_t mask) {
    return arith::AndIOp::create(b, x,
                                 splat(cast<VectorType>(x.getType()), mask));
  }
  Value shiftLeft(Value x, int64_t bits);
  /// Emits a loop that carries values; `body` returns the next ones.
  SmallVector<Value>
  forEach(Value count, ValueRange inits,
          llvm::function_ref<SmallVector<Value>(Value, ValueRange)> body);
  /// Loads 32 bits of the rows from an index on and broadcasts them.
  Value broadcastRowBits(Value index, VectorType type);

  const Kernel &kernel;
  const PackedFormat &format;
  int64_t rows;
  func::FuncOp function;
  CPUBuilder b;
  VectorType f32, i32;       // one vector
  SmallVector<Value> firsts; // of each row, an index of `Lhs`

  Value scaled(Value x, double factor);
  /// Returns what multiplies the sums of products of a group, and what
  /// multiplies the sum of a row, null if nothing does, of a vector of columns.
  std::pair<Value, Value> factorsOf(int64_t vector);

  Value blockStart, groupEnd; // bytes of the current group's numbers

private:
  Value numberOf(FieldAttr number, Value byte);
  Value productOf(ArrayRef<FieldAttr> numbers, int64_t vector);
  SmallVector<Value> buildGroup(Value number, Value inBlock, Value steps,
                                ValueRange accumulators);
  SmallVector<Value> buildGroups();
};

/// Emits the bodies of getOrCreateDecoder.
void buildDecoder(func::FuncOp function, const Kernel &kernel,
                  const PackedFormat &format, Decoded what);
/// Emits the kernel of `rows` rows of floats.
void buildFloatKernel(func::FuncOp function, const Kernel &kernel,
                      const PackedFormat &format, int64_t rows);
/// Emits what getOrCreateExactKernel describes.
void buildExactKernel(func::FuncOp function, const Kernel &kernel,
                      const PackedFormat &format);
/// Emits the kernel of `rows` rows of moe.quantize_rows.
void buildInt8Kernel(func::FuncOp function, const Kernel &kernel,
                     const PackedFormat &format, int64_t rows);

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOCPU_QUANTIZED_QUANTIZEDKERNELBUILDER_H
