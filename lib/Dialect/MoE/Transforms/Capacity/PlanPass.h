//===- PlanPass.h - Base of the passes on plans -----------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_TRANSFORMS_CAPACITY_PLANPASS_H
#define MOE_LIB_DIALECT_MOE_TRANSFORMS_CAPACITY_PLANPASS_H

#include "PlanSettings.h"
#include "WorkspaceProbe.h"

#include "mlir/Pass/PassManager.h"
#include "mlir/Pass/PassRegistry.h"

namespace mlir::moe {

/// Holds the options that moe-plan-capacity and moe-print-plan share. `Base` is
/// the class that TableGen generates.
template <typename Base> class PlanPass : public Base {
public:
  using Base::Base;

  /// Takes rates and a lowering from an embedder instead of from options.
  template <typename Options>
  PlanPass(Options options, const MachineRates &rates,
           const OpPassManager &lowering)
      : Base(std::move(options)), rates(rates), givenLowering(lowering) {}

  void getDependentDialects(DialectRegistry &registry) const override {
    Base::getDependentDialects(registry);
    OpPassManager passes(ModuleOp::getOperationName());
    if (givenLowering)
      givenLowering->getDependentDialects(registry);
    else if (succeeded(
                 parsePassPipeline(this->lowering, passes, llvm::nulls())))
      passes.getDependentDialects(registry);
  }

protected:
  /// Returns the pipeline to the LLVM dialect. Fails after a diagnostic.
  FailureOr<OpPassManager> getLowering() {
    if (givenLowering)
      return *givenLowering;
    return parseLowering(this->getOperation(), this->lowering);
  }

  llvm::Expected<PlanSettings> getSettings() {
    return parsePlanSettings({this->imbalance, this->gpu, this->flops,
                              this->bandwidth, this->machine, *this->variants,
                              this->byMeanRows, rates});
  }

  /// Creates a probe that lowers the module with `passes`, which must outlive
  /// it.
  WorkspaceProbe makeProbe(OpPassManager &passes) {
    return WorkspaceProbe(this->getOperation(),
                          /*onDevice=*/!this->machine.empty(),
                          [this, &passes](ModuleOp copy) {
                            return this->runPipeline(passes, copy);
                          });
  }

private:
  std::optional<MachineRates> rates;
  std::optional<OpPassManager> givenLowering;
};

} // namespace mlir::moe

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_CAPACITY_PLANPASS_H
