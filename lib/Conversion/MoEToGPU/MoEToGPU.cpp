//===- MoEToGPU.cpp - Kernels for NVIDIA GPUs -----------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Routing/RouterKernel.h"
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

bool GPUDescription::hasClusters() const {
  return !llvm::is_contained({"sm_80", "sm_86", "sm_89"}, StringRef(arch));
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
    FailureOr<gpu::GPUModuleOp> kernels = findKernels(rewriter);
    if (failed(kernels))
      return signalPassFailure();
    lowerBodies();
    SmallVector<Operation *> work;
    getOperation().walk([&](Operation *op) {
      // Kernels are made for tensors: what is on buffers already stays.
      if (isa<GateOp, RouteOp, QuantizeOp, GroupedMatmulOp>(op) &&
          llvm::all_of(op->getOperandTypes(), llvm::IsaPred<RankedTensorType>))
        work.push_back(op);
    });
    DeviceLowering lowering{*kernels, gpu, rewriter,
                            llvm::DenseMap<Value, Value>()};
    lowerRouters(rewriter, lowering, work);
    for (Operation *op : work)
      lower(rewriter, lowering, op);
    // Of the combinations those that no grouped matmul ends in.
    SmallVector<GatherSumOp> sums;
    getOperation().walk([&](GatherSumOp op) {
      if (op.getResult())
        sums.push_back(op);
    });
    for (GatherSumOp op : sums)
      lower(rewriter, lowering, op);
  }

  /// Replace what a router consists of as a whole, and take it out of `work`.
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
                              router->product.getOperation()})
        if (part)
          done.insert(part);
      if (router->route)
        rewriter.replaceOp(router->route, ArrayRef(results).drop_front(2));
      rewriter.replaceOp(gate, ArrayRef(results).take_front(2));
      rewriter.eraseOp(router->product);
    }
    numLowered += done.size();
    llvm::erase_if(work, [&](Operation *op) { return done.contains(op); });
  }

  /// The module of the kernels, which may be there already.
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
    // A layer may have the name; the table gives another one then.
    SymbolTable(module).insert(kernels, module.getBody()->begin());
    return kernels;
  }

  /// How many rows an expert has only the device knows, so the host can launch
  /// nothing for what an expert's body does: it is part of the expert's kernel.
  void lowerBodies() {
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
                 "' has no kernel of its own: " + why;
      ++numMissed;
      return;
    }
    ++numLowered;
    rewriter.replaceOp(op, *results);
  }
};
} // namespace
