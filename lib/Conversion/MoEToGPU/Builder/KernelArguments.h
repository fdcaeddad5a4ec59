//===- KernelArguments.h - Named arguments of a kernel ----------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A kernel declares each argument once, as a pair: the value that the host
// passes and the variable that names the argument in the device code. The
// declarations give the signature of the kernel and the operands of its launch,
// so the two cannot disagree.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_BUILDER_KERNELARGUMENTS_H
#define MOE_LIB_CONVERSION_MOETOGPU_BUILDER_KERNELARGUMENTS_H

#include "GPUBuilder.h"
#include "moe/Dialect/MoE/IR/MoE.h"

namespace mlir::moe {

class KernelArguments {
public:
  KernelArguments() = default;
  // Declarations refer to variables of the kernel, which must not move.
  KernelArguments(const KernelArguments &) = delete;
  KernelArguments &operator=(const KernelArguments &) = delete;

  /// Declares a tensor that the kernel reads. Returns the index of the input. A
  /// null tensor is not passed, and `pointer` stays null.
  int64_t input(Value tensor, Value &pointer);
  /// Declares a tensor that the kernel writes; a launch replaces it by its
  /// result.
  void output(Value &tensor, Value &pointer);
  /// Declares a scalar, i32 or `index`, which is passed as i64. A null value is
  /// not passed.
  void scalar(Value value, Value &argument);
  /// Declares a tensor map of input `input` with boxes of `box` elements.
  void tensorMap(int64_t input, ArrayRef<int64_t> box, int64_t swizzleBytes,
                 Value &map);
  /// Declares a last argument that the runtime appends to those of the launch.
  void appended(Type type, Value &argument);

  /// Creates the kernel and sets the variables of all arguments. The builder is
  /// left in its body.
  LLVM::LLVMFuncOp createKernel(GPUBuilder &b, gpu::GPUModuleOp kernels,
                                StringRef name, KernelShape shape);

  /// Launches the kernel with a grid of `blocks`.
  void launch(OpBuilder &host, LLVM::LLVMFuncOp kernel, Value blocks);

private:
  struct Argument {
    Value onHost;
    Value *onDevice;
  };
  struct Output {
    Value *onHost, *onDevice;
  };
  struct TensorMap {
    int64_t input;
    SmallVector<int64_t> box;
    int64_t swizzleBytes;
    Value *onDevice;
  };
  SmallVector<TensorMap> tensorMaps;
  SmallVector<Argument> inputs, scalars;
  SmallVector<Output> outputs;
  Type appendedType;
  Value *appendedArgument = nullptr;
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_BUILDER_KERNELARGUMENTS_H
