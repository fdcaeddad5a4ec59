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
    Rest
  };

  QuantizedKernelBuilder(func::FuncOp function, const Kernel &kernel,
                         const PackedFormat &format, int64_t rows);

  /// Emits constants, such as tables of the values of codes.
  virtual void buildConstants() = 0;
  /// Returns the sums over group `number`, whose codes start at byte `start`
  /// and have `steps` steps: one for each row and vector of columns, in f32.
  virtual SmallVector<Value> sumsOf(Value number, Value start, Value steps) = 0;
  /// Returns the result of an accumulator.
  virtual Value finish(Value accumulator) { return accumulator; }

  Value argument(Argument which) { return function.getArgument(which); }
  Value splat(VectorType type, int64_t value);
  Value zero(VectorType type);
  Value bitCast(VectorType type, Value value);
  Value shiftRight(Value x, int64_t bits);
  Value call(StringRef intrinsic, Type result, ValueRange operands);
  /// Loads bytes of the weights as a vector of another type.
  Value loadWeights(VectorType type, Value byte);
  /// Loads 32 bits of the rows from an index on and broadcasts them.
  Value broadcastRowBits(Value index, VectorType type);

  const Kernel &kernel;
  const PackedFormat &format;
  int64_t rows;
  func::FuncOp function;
  CPUBuilder b;
  VectorType f32, i32;       // one vector
  SmallVector<Value> firsts; // of each row, an index of `Lhs`

private:
  Value scaleOf(Value byte);
  SmallVector<Value> group(Value number, Value steps, ValueRange accumulators);
};

/// Emits the kernel of `rows` rows of floats.
void buildFloatKernel(func::FuncOp function, const Kernel &kernel,
                      const PackedFormat &format, int64_t rows);
/// Emits the kernel of `rows` rows of moe.quantize_rows.
void buildInt8Kernel(func::FuncOp function, const Kernel &kernel,
                     const PackedFormat &format, int64_t rows);

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOCPU_QUANTIZED_QUANTIZEDKERNELBUILDER_H
