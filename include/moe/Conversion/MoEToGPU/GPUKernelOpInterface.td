//===- GPUKernelOpInterface.td - Operations with kernels ---*- tablegen -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CONVERSION_MOETOGPU_GPUKERNELOPINTERFACE_TD
#define MOE_CONVERSION_MOETOGPU_GPUKERNELOPINTERFACE_TD

include "mlir/IR/OpBase.td"

def GPUKernelOpInterface : OpInterface<"GPUKernelOpInterface"> {
  let description = [{
    An operation that `convert-moe-to-gpu` lowers to launches of kernels. The
    operations of the dialect implement it by external models
    (lib/Conversion/MoEToGPU/KernelModels.cpp).
  }];
  let cppNamespace = "::mlir::moe";
  let methods = [
    InterfaceMethod<[{
        Creates the kernels and, at the insertion point of the lowering, their
        launches; returns the results. If there is no kernel, fails with the
        reason in `why`, and nothing was created.
      }],
      "::mlir::FailureOr<::mlir::SmallVector<::mlir::Value>>", "lowerToKernels",
      (ins "::mlir::moe::DeviceLowering &":$lowering, "std::string &":$why)>
  ];
}

#endif // MOE_CONVERSION_MOETOGPU_GPUKERNELOPINTERFACE_TD
