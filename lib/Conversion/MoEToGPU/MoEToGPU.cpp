//===- MoEToGPU.cpp - Kernels for NVIDIA GPUs -----------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Lowering.h"

#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/IR/Remarks.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_CONVERTMOETOGPU
#include "moe/Conversion/Passes.h.inc"
} // namespace mlir::moe

LogicalResult GPUDescription::verify(Operation *op) const {
  static constexpr StringRef known[] = {"sm_80", "sm_86", "sm_89", "sm_90",
                                        "sm_90a", "sm_100", "sm_120"};
  if (llvm::is_contained(known, arch))
    return success();
  InFlightDiagnostic diag = op->emitError("expected an architecture of ");
  llvm::interleaveComma(known, diag);
  return diag << ", got '" << arch << "'";
}

int64_t GPUDescription::getSharedBytes() const {
  // 227 KiB on sm_90; of the others, sm_86, sm_89 and sm_120 have least, 99 KiB,
  // and the driver may run the code of sm_80 on any of them.
  return (hasWgmma() ? 227 : 99) * 1024;
}

SmallVector<Value> mlir::moe::launch(DeviceLowering &lowering, Location loc,
                                     LLVM::LLVMFuncOp kernel, Value blocks,
                                     ValueRange inputs, ValueRange inits,
                                     ValueRange scalars,
                                     ArrayRef<TensorMapAttr> maps) {
  OpBuilder &b = lowering.rewriter;
  auto symbol = SymbolRefAttr::get(
      lowering.kernels.getNameAttr(),
      FlatSymbolRefAttr::get(kernel.getNameAttr()));
  SmallVector<Attribute> attributes(maps.begin(), maps.end());
  auto op = LaunchOp::create(
      b, loc, inits.getTypes(), symbol, blocks, inputs, inits, scalars,
      attributes.empty() ? ArrayAttr() : b.getArrayAttr(attributes));
  return llvm::to_vector_of<Value>(op.getResults());
}

namespace {
struct ConvertMoEToGPU : moe::impl::ConvertMoEToGPUBase<ConvertMoEToGPU> {
  using ConvertMoEToGPUBase::ConvertMoEToGPUBase;

  void runOnOperation() override {
    GPUDescription gpu{arch};
    if (failed(gpu.verify(getOperation())))
      return signalPassFailure();
    IRRewriter rewriter(&getContext());
    gpu::GPUModuleOp kernels = findKernels(rewriter);
    SmallVector<Operation *> work;
    getOperation().walk([&](Operation *op) {
      // Kernels are made for tensors: what is on buffers already stays.
      if (isa<GateOp, RouteOp, GroupedMatmulOp, GatherSumOp>(op) &&
          llvm::all_of(op->getOperandTypes(), llvm::IsaPred<RankedTensorType>))
        work.push_back(op);
    });
    DeviceLowering lowering{kernels, gpu, rewriter};
    for (Operation *op : work)
      lower(rewriter, lowering, op);
  }

  /// The module of the kernels, which may be there already.
  gpu::GPUModuleOp findKernels(OpBuilder &b) {
    auto modules = getOperation().getOps<gpu::GPUModuleOp>();
    if (!modules.empty())
      return *modules.begin();
    b.setInsertionPointToStart(getOperation().getBody());
    auto target = NVVM::NVVMTargetAttr::get(&getContext(), /*optLevel=*/3,
                                            "nvptx64-nvidia-cuda", arch);
    getOperation()->setAttr(gpu::GPUDialect::getContainerModuleAttrName(),
                            b.getUnitAttr());
    return gpu::GPUModuleOp::create(b, getOperation().getLoc(), "kernels",
                                    b.getArrayAttr(target));
  }

  void lower(IRRewriter &rewriter, DeviceLowering &lowering, Operation *op) {
    rewriter.setInsertionPoint(op);
    std::string why;
    Lowered results =
        llvm::TypeSwitch<Operation *, Lowered>(op)
            .Case<GateOp, RouteOp, GroupedMatmulOp, GatherSumOp>(
                [&](auto op) { return lowerToGPU(op, lowering, why); });
    if (failed(results)) {
      remark::missed(op->getLoc(),
                     remark::RemarkOpts::name("NoKernel").category("moe-gpu"))
          << "'" + op->getName().getStringRef().str() +
                 "' has no kernel of its own: " + why;
      ++numMissed;
      return;
    }
    ++numLowered;
    rewriter.replaceOp(op, *results);
  }
};
} // namespace
