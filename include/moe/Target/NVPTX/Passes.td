//===- Passes.td - Passes of the NVPTX target --------------*- tablegen -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_TARGET_NVPTX_PASSES_TD
#define MOE_TARGET_NVPTX_PASSES_TD

include "mlir/Pass/PassBase.td"

def MoEExpandDeviceMath
    : Pass<"moe-expand-device-math", "::mlir::gpu::GPUModuleOp"> {
  let summary = "Expand math functions into device arithmetic";
  let description = [{
    There is no math library to link on the device. `math.exp` becomes
    ex2.approx with a correction, other functions of f32 polynomial
    approximations. Integer functions that `convert-math-to-llvm` turns into
    instructions stay. Any other function, such as most of f64, is an error.
  }];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::math::MathDialect",
    "::mlir::LLVM::LLVMDialect", "::mlir::vector::VectorDialect"
  ];
}

def MoESerializeKernels : Pass<"moe-serialize-kernels", "::mlir::ModuleOp"> {
  let summary = "Compile kernels to PTX and embed it in the module";
  let description = [{
    Compiles the `gpu.module`, in the LLVM and NVVM dialects, to PTX in a
    constant global. The image and the kernel table are attached to the module
    as `moe.images` and `moe.kernels`.
  }];
}

#endif // MOE_TARGET_NVPTX_PASSES_TD
