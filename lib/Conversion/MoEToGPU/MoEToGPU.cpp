//===- MoEToGPU.cpp - Kernels for NVIDIA GPUs -----------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Router/RouterKernel.h"
#include "moe/Conversion/MoEToLinalg/MoEToLinalg.h"

#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/IR/Remarks.h"
#include "mlir/Interfaces/FunctionInterfaces.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"
#include "llvm/ADT/TypeSwitch.h"

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
    SmallVector<Operation *> work;
    getOperation().walk([&](Operation *op) {
      // Operations on buffers are left to other lowerings.
      if (isa<GateOp, RouteOp, QuantizeOp, GroupedMatmulOp>(op) &&
          llvm::all_of(op->getOperandTypes(), llvm::IsaPred<RankedTensorType>))
        work.push_back(op);
    });
    DeviceLowering lowering{*kernels, gpu, rewriter,
                            llvm::DenseMap<Value, Value>()};
    lowerRouters(rewriter, lowering, work);
    for (Operation *op : work)
      lower(rewriter, lowering, op);
    // The gather sums that are no epilogue of a grouped matmul.
    SmallVector<GatherSumOp> sums;
    getOperation().walk([&](GatherSumOp op) {
      if (op.getResult())
        sums.push_back(op);
    });
    for (GatherSumOp op : sums)
      lower(rewriter, lowering, op);
  }

  /// Lowers each router (matmul, gate and routing) to one kernel and removes
  /// its operations from `work`.
  void lowerRouters(IRRewriter &rewriter, DeviceLowering &lowering,
                    SmallVector<Operation *> &work) {
    llvm::SmallPtrSet<Operation *, 8> done;
    for (Operation *op : work) {
      auto gate = dyn_cast<GateOp>(op);
      std::optional<Router> router = gate ? findRouter(gate) : std::nullopt;
      if (!router)
        continue;
      rewriter.setInsertionPoint(gate);
      SmallVector<Value> results = lowerToGPU(*router, lowering);
      for (Operation *part : {router->route.getOperation(), gate.getOperation(),
                              router->matmul.getOperation()})
        if (part)
          done.insert(part);
      if (router->route)
        rewriter.replaceOp(router->route, ArrayRef(results).drop_front(2));
      rewriter.replaceOp(gate, ArrayRef(results).take_front(2));
      rewriter.eraseOp(router->matmul);
    }
    numLowered += done.size();
    llvm::erase_if(work, [&](Operation *op) { return done.contains(op); });
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

  void lower(IRRewriter &rewriter, DeviceLowering &lowering, Operation *op) {
    rewriter.setInsertionPoint(op);
    std::string why;
    Lowered results =
        llvm::TypeSwitch<Operation *, Lowered>(op)
            .Case<GateOp, RouteOp, QuantizeOp, GroupedMatmulOp, GatherSumOp>(
                [&](auto op) { return lowerToGPU(op, lowering, why); });
    if (failed(results)) {
      auto function = op->getParentOfType<FunctionOpInterface>();
      remark::missed(op->getLoc(),
                     remark::RemarkOpts::name(isa<GroupedMatmulOp>(op)
                                                  ? "ProductWithoutKernel"
                                                  : "NoKernel")
                         .category("moe-gpu")
                         .function(function ? function.getName() : ""))
          << "'" + op->getName().getStringRef().str() +
                 "' not lowered to a GPU kernel: " + why;
      ++numMissed;
      return;
    }
    ++numLowered;
    rewriter.replaceOp(op, *results);
  }
};
} // namespace
