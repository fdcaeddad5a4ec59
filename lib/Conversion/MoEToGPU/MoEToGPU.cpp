//===- MoEToGPU.cpp - Kernels for NVIDIA GPUs -----------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Lowering.h"
#include "moe/Conversion/MoEToGPU/GPUKernelOpInterface.h"
#include "moe/Conversion/MoEToLinalg/MoEToLinalg.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/IR/Remarks.h"
#include "mlir/Interfaces/FunctionInterfaces.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_CONVERTMOETOGPU
#include "moe/Conversion/Passes.h.inc"
} // namespace mlir::moe

LogicalResult GPUDescription::verify(Operation *op) const {
  static constexpr StringRef known[] = {"sm_80",  "sm_86",  "sm_89", "sm_90",
                                        "sm_90a", "sm_100", "sm_120"};
  if (llvm::is_contained(known, arch))
    return success();
  InFlightDiagnostic diag = op->emitError("expected an architecture of ");
  llvm::interleaveComma(known, diag);
  return diag << ", got '" << arch << "'";
}

int64_t GPUDescription::getSharedBytes() const {
  // 227 KiB on sm_90a. Code for sm_80 may run on any later GPU, of which sm_86,
  // sm_89 and sm_120 have the least: 99 KiB.
  return (hasWgmma() ? 227 : 99) * 1024;
}

bool GPUDescription::hasClusters() const {
  return !llvm::is_contained({"sm_80", "sm_86", "sm_89"}, StringRef(arch));
}

static void emitMissed(Operation *op, StringRef name, const Twine &text) {
  auto function = op->getParentOfType<FunctionOpInterface>();
  remark::missed(op->getLoc(),
                 remark::RemarkOpts::name(name).category("moe-gpu").function(
                     function ? function.getName() : ""))
      << text.str();
}

void mlir::moe::remarkSlow(Operation *op, StringRef why) {
  emitMissed(op, "NoTensorCores",
             "'" + op->getName().getStringRef() +
                 "' lowered to a GPU kernel without tensor cores: " + why);
}

namespace {
struct ConvertMoEToGPU : moe::impl::ConvertMoEToGPUBase<ConvertMoEToGPU> {
  using ConvertMoEToGPUBase::ConvertMoEToGPUBase;

  void runOnOperation() override {
    GPUDescription gpu{arch};
    if (failed(gpu.verify(getOperation())))
      return signalPassFailure();
    IRRewriter rewriter(&getContext());
    FailureOr<gpu::GPUModuleOp> kernels = findKernels(rewriter);
    if (failed(kernels))
      return signalPassFailure();
    lowerExpertBodies();
    SmallVector<GPUKernelOpInterface> work;
    getOperation().walk<WalkOrder::PreOrder>([&](Operation *op) {
      // Operations on buffers are left to other lowerings.
      if (!isa_and_nonnull<MoEDialect>(op->getDialect()) || isa<YieldOp>(op) ||
          !llvm::all_of(op->getOperandTypes(), llvm::IsaPred<RankedTensorType>))
        return WalkResult::advance();
      if (auto hasKernel = dyn_cast<GPUKernelOpInterface>(op))
        work.push_back(hasKernel);
      else
        remarkNotLowered(op, "it has none");
      return WalkResult::skip();
    });
    DeviceLowering lowering{*kernels, gpu, rewriter};
    for (GPUKernelOpInterface op : work)
      lower(rewriter, lowering, op);
    SmallVector<linalg::GenericOp> loops;
    getOperation()->walk([&](linalg::GenericOp op) {
      if (isa<func::FuncOp>(op->getParentOp()))
        loops.push_back(op);
    });
    for (linalg::GenericOp op : loops) {
      rewriter.setInsertionPoint(op);
      numLowered += lowerRowSum(op, lowering);
    }
  }

  void getDependentDialects(DialectRegistry &registry) const override {
    ConvertMoEToGPUBase::getDependentDialects(registry);
    registerGPUKernelOpInterfaceExternalModels(registry);
  }

  /// Finds or creates the module of the kernels.
  FailureOr<gpu::GPUModuleOp> findKernels(OpBuilder &b) {
    ModuleOp module = getOperation();
    auto target = NVVM::NVVMTargetAttr::get(&getContext(), /*optLevel=*/3,
                                            "nvptx64-nvidia-cuda", arch);
    SmallVector<gpu::GPUModuleOp> found(module.getOps<gpu::GPUModuleOp>());
    if (found.size() > 1)
      return found[1].emitError(
          "expected one gpu.module, with all kernels of the "
          "program, got another");
    if (!found.empty()) {
      if (!found[0].getTargetsAttr())
        found[0].setTargetsAttr(b.getArrayAttr(target));
      for (Attribute each : found[0].getTargetsAttr()) {
        auto its = dyn_cast<NVVM::NVVMTargetAttr>(each);
        if (!its || its.getChip() != arch)
          return found[0].emitError("expected a gpu.module for '")
                 << arch << "', got one for " << each;
      }
      return found[0];
    }
    module->setAttr(gpu::GPUDialect::getContainerModuleAttrName(),
                    b.getUnitAttr());
    auto kernels = gpu::GPUModuleOp::create(b, module.getLoc(), "kernels",
                                            b.getArrayAttr(target));
    // The symbol table renames the module if a layer has its name.
    SymbolTable(module).insert(kernels, module.getBody()->begin());
    return kernels;
  }

  /// Lowers operations in the bodies of experts to linalg. Only the device
  /// knows the rows of an expert, so the host cannot launch kernels for its
  /// body.
  void lowerExpertBodies() {
    SmallVector<Operation *> inside;
    getOperation()->walk([&](ExpertOp expert) {
      expert.getBody().walk([&](Operation *op) {
        if (isa<MoEDialect>(op->getDialect()) && !isa<YieldOp>(op) &&
            !op->getParentOfType<GroupedMatmulOp>())
          inside.push_back(op);
      });
    });
    RewritePatternSet patterns(&getContext());
    populateMoEToLinalgPatterns(patterns);
    populateGroupedToLinalgPatterns(patterns);
    if (!inside.empty())
      (void)applyOpPatternsGreedily(inside, std::move(patterns));
  }

  void remarkNotLowered(Operation *op, StringRef why) {
    emitMissed(op, isa<GroupedMatmulOp>(op) ? "MatmulNotLowered" : "NotLowered",
               "'" + op->getName().getStringRef() +
                   "' not lowered to a GPU kernel: " + why);
    ++numMissed;
  }

  void lower(IRRewriter &rewriter, DeviceLowering &lowering,
             GPUKernelOpInterface op) {
    rewriter.setInsertionPoint(op);
    std::string why;
    Lowered results = op.lowerToKernels(lowering, why);
    if (succeeded(results)) {
      ++numLowered;
      rewriter.replaceOp(op, *results);
      return;
    }
    remarkNotLowered(op, why);
    if (auto fused = dyn_cast<FusedOp>(op.getOperation()))
      lowerApart(rewriter, lowering, fused);
  }

  /// Inlines a region that no kernel computes and lowers its operations one by
  /// one.
  void lowerApart(IRRewriter &rewriter, DeviceLowering &lowering, FusedOp op) {
    SmallVector<GPUKernelOpInterface> inside(
        op.getBody().getOps<GPUKernelOpInterface>());
    YieldOp yield = op.getYield();
    SmallVector<Value> results(yield.getValues());
    rewriter.eraseOp(yield);
    rewriter.inlineBlockBefore(&op.getBody().front(), op);
    rewriter.replaceOp(op, results);
    for (GPUKernelOpInterface each : inside)
      lower(rewriter, lowering, each);
  }
};
} // namespace
