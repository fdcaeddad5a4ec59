//===- Passes.td - Kernels to PTX --------------------------*- tablegen -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_TARGET_NVPTX_PASSES_TD
#define MOE_TARGET_NVPTX_PASSES_TD

include "mlir/Pass/PassBase.td"

def MoEExpandDeviceMath : Pass<"moe-expand-device-math", "::mlir::gpu::GPUModuleOp"> {
  let summary = "Functions of numbers as arithmetic that the device has";
  let description = [{
    In kernels, `math.exp` becomes the device's power of two with a correction,
    other functions of f32 polynomials: there is no library to call. Functions of
    integers that `convert-math-to-llvm` makes instructions of stay. What is left,
    most functions of f64 among it, is an error.
  }];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::math::MathDialect",
    "::mlir::LLVM::LLVMDialect", "::mlir::vector::VectorDialect"
  ];
}

def MoESerializeKernels : Pass<"moe-serialize-kernels", "::mlir::ModuleOp"> {
  let summary = "Turn kernels into PTX, as data of the program";
  let description = [{
    Each `gpu.module` in the LLVM and NVVM dialects becomes PTX in a constant of
    the module, `moe.images` and `moe.kernels` say what there is.
  }];
}

#endif // MOE_TARGET_NVPTX_PASSES_TD
