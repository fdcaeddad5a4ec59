//===- KernelModels.cpp - Operations with GPU kernels ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Lowering.h"
#include "moe/Conversion/MoEToGPU/GPUKernelOpInterface.h"

using namespace mlir;
using namespace mlir::moe;

#include "moe/Conversion/MoEToGPU/GPUKernelOpInterface.cpp.inc"

namespace {
template <typename OpT>
struct KernelModel
    : GPUKernelOpInterface::ExternalModel<KernelModel<OpT>, OpT> {
  Lowered lowerToKernels(Operation *op, DeviceLowering &lowering,
                         std::string &why) const {
    return lowerToGPU(cast<OpT>(op), lowering, why);
  }
};

template <typename... OpTs> void attachModels(MLIRContext &context) {
  (OpTs::template attachInterface<KernelModel<OpTs>>(context), ...);
}
} // namespace

void mlir::moe::registerGPUKernelOpInterfaceExternalModels(
    DialectRegistry &registry) {
  registry.addExtension(+[](MLIRContext *context, MoEDialect *) {
    attachModels<GateOp, GateGradientOp, RouteOp, QuantizeOp, GroupedMatmulOp,
                 GroupedContractOp, GatherSumOp, FusedOp>(*context);
  });
}
