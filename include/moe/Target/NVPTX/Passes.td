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

    With `fastmath<afn>`, functions and quotients of 32 bits and less are
    approximated, without branches: `math.exp` is ex2.approx alone, within
    2^-16 of the result (2^-19 where f16 has it), `math.tanh` within 2^-17
    (2^-21 of 1, where 1 is added to it),
    `arith.divf` is div.full, within two ULP of f32, and a product with
    rcp.approx where the divisor is `exp(x) + 1`. Powers and reciprocals below
    2^-126 become 0.
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
