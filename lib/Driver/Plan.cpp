//===- Plan.cpp - Plan a program for a target -----------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Analysis/MachineRates.h"
#include "moe/Analysis/Units.h"
#include "moe/Dialect/MoE/IR/MoEABI.h"
#include "moe/Dialect/MoE/Transforms/Capacity/Passes.h"
#include "moe/Driver/Driver.h"
#include "moe/Transforms/Passes.h"

#include "mlir/Transforms/Passes.h"

using namespace mlir;
using namespace mlir::moe;

static MachineRates ratesOf(const TargetDescription &target) {
  if (!target.device.empty())
    if (auto rates = findGPURates(target.device))
      return *rates;
  return ProcessorDescription::of(target.cpu, target.features).rates();
}

/// Returns the range of tokens to plan for. The default range of a function is
/// too large to be of use in a report.
static std::string tokensToPlan(ModuleOp module, const CompileOptions &options,
                                PlanFormat format) {
  bool hasRange = llvm::any_of(module.getOps(), [](Operation &op) {
    return op.hasAttr(tokensAttrName);
  });
  if (options.tokens.empty() && format != PlanFormat::None && !hasRange)
    return "1:8192";
  return options.tokens;
}

LogicalResult mlir::moe::planProgram(ModuleOp module,
                                     const TargetDescription &target,
                                     const CompileOptions &options,
                                     PlanFormat format,
                                     llvm::raw_ostream *report) {
  auto variants = getVariants(options.pipeline, target, module);
  if (failed(variants))
    return failure();
  OpPassManager lowering(ModuleOp::getOperationName());
  if (llvm::Error error =
          addPipeline(lowering, options.pipeline, target, PipelineEnd::Buffers))
    return module.emitError(llvm::toString(std::move(error)));

  auto setShared = [&](auto &pass) {
    if (!options.imbalance.empty())
      pass.imbalance = options.imbalance;
    pass.gpu = options.gpu;
    pass.flops = options.flops;
    pass.bandwidth = options.bandwidth;
    pass.variants = *variants;
    pass.byMeanRows = !target.device.empty();
    pass.machine = target.device;
    pass.lowering = options.pipeline; // appears in diagnostics
  };
  MoEPlanCapacityOptions plan;
  setShared(plan);
  plan.tokens = tokensToPlan(module, options, format);
  plan.memoryLimit = options.memoryLimit;
  plan.defaultChunk = target.device.empty() && options.pipeline == "moe-cpu";
  PassManager manager(module.getContext());
  manager.addPass(createMoERaiseOperations());
  manager.addPass(createInlinerPass());
  manager.addPass(createCanonicalizerPass());
  manager.addPass(createCSEPass());
  manager.addPass(createMoEPlanCapacity(plan, ratesOf(target), lowering));
  if (format != PlanFormat::None) {
    MoEPrintPlanOptions print;
    setShared(print);
    print.format = format == PlanFormat::JSON ? "json" : "text";
    manager.addPass(
        createMoEPrintPlan(print, ratesOf(target), lowering, *report));
  }
  return manager.run(module);
}
