//===- PrintPlan.cpp - A capacity plan as text or JSON --------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "PlanPass.h"
#include "moe/Dialect/MoE/IR/MoEABI.h"
#include "moe/Dialect/MoE/Transforms/Capacity/Passes.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "llvm/Support/FormatVariadic.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEPRINTPLAN
#include "moe/Dialect/MoE/Transforms/Capacity/Passes.h.inc"
} // namespace mlir::moe

namespace {
struct MoEPrintPlan : PlanPass<moe::impl::MoEPrintPlanBase<MoEPrintPlan>> {
  using PlanPass::PlanPass;
  MoEPrintPlan(MoEPrintPlanOptions options, const MachineRates &rates,
               const OpPassManager &lowering, llvm::raw_ostream &os)
      : PlanPass(std::move(options), rates, lowering), output(&os) {}

  void runOnOperation() override;

private:
  llvm::raw_ostream *output = nullptr;
};
} // namespace

void MoEPrintPlan::runOnOperation() {
  ModuleOp module = getOperation();
  FailureOr<OpPassManager> passes = getLowering();
  if (failed(passes))
    return signalPassFailure();
  auto settings = getSettings();
  if (!settings) {
    module.emitError(llvm::toString(settings.takeError()));
    return signalPassFailure();
  }
  if (format != "text" && format != "json") {
    module.emitError("expected format=text or format=json, got '")
        << format << "'";
    return signalPassFailure();
  }
  WorkspaceProbe probe = makeProbe(*passes);
  if (failed(probe.refresh()))
    return signalPassFailure();

  llvm::raw_ostream &os = output ? *output : llvm::outs();
  llvm::json::Array functions;
  for (auto function : module.getOps<func::FuncOp>()) {
    if (!isPlanned(function) || !function->hasAttr(planAttrName))
      continue;
    FailureOr<PlannedFunction> planned = analyzeForPlan(function, *settings);
    if (failed(planned))
      return signalPassFailure();
    PlanReport report(
        function, planned->cost, planned->rows, settings->model.getName(),
        settings->target, probe.getLaunches(function, settings->target.gpu),
        [&](int64_t tokens) { return probe.getBytes(function, tokens); },
        [&](int64_t experts, int64_t topK) -> std::optional<RowDistribution> {
          auto model = settings->model.distribution(0, experts, topK);
          if (model)
            return *model;
          // A record of another layer: what it predicts is unknown.
          llvm::consumeError(model.takeError());
          return std::nullopt;
        });
    if (format == "text")
      report.print(os);
    else
      functions.push_back(report.toJSON());
  }
  if (format == "json")
    os << llvm::formatv(
        "{0:2}\n", llvm::json::Value(llvm::json::Object{
                       {"format", 1}, {"functions", std::move(functions)}}));
  os.flush();
  markAllAnalysesPreserved();
}

std::unique_ptr<Pass> mlir::moe::createMoEPrintPlan(
    MoEPrintPlanOptions options, const MachineRates &rates,
    const OpPassManager &lowering, llvm::raw_ostream &os) {
  return std::make_unique<MoEPrintPlan>(std::move(options), rates, lowering,
                                        os);
}
