//===- PlanCapacity.cpp - Plan bounds, variants and memory ----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "PlanPass.h"
#include "moe/Analysis/DefaultChunk.h"
#include "moe/Analysis/TokenIndependence.h"
#include "moe/Analysis/Units.h"
#include "moe/Dialect/MoE/IR/MoEABI.h"
#include "moe/Dialect/MoE/Transforms/Capacity/Passes.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEPLANCAPACITY
#include "moe/Dialect/MoE/Transforms/Capacity/Passes.h.inc"
} // namespace mlir::moe

namespace {
struct MoEPlanCapacity
    : PlanPass<moe::impl::MoEPlanCapacityBase<MoEPlanCapacity>> {
  using PlanPass::PlanPass;

  void runOnOperation() override;

private:
  LogicalResult readOptions();
  FailureOr<PlannedFunction> prepare(func::FuncOp function);
  void setPlan(PlannedFunction &planned, int64_t chunk, int64_t workspace);
  LogicalResult limitMemory(PlannedFunction &planned, WorkspaceProbe &probe,
                            int64_t needed);
  FailureOr<int64_t> findChunk(PlannedFunction &planned, WorkspaceProbe &probe);
  int64_t chooseDefaultChunk(const PlannedFunction &planned);

  std::optional<std::pair<int64_t, int64_t>> givenTokens;
  std::optional<int64_t> limit;
  PlanSettings settings;
};
} // namespace

LogicalResult MoEPlanCapacity::readOptions() {
  ModuleOp module = getOperation();
  if (!tokens.empty()) {
    givenTokens = parseTokenRange(tokens);
    if (!givenTokens)
      return module.emitError(
                 "expected tokens=MIN:MAX with 0 <= MIN <= MAX, got '")
             << tokens << "'";
  }
  if (!memoryLimit.empty()) {
    limit = parseBytes(memoryLimit);
    if (!limit)
      return module.emitError("expected a memory limit such as 4096, 64MiB or "
                              "0.5GiB, within 64 bits, got '")
             << memoryLimit << "'";
  }
  auto parsed = getSettings();
  if (!parsed)
    return module.emitError(llvm::toString(parsed.takeError()));
  settings = std::move(*parsed);
  return success();
}

FailureOr<PlannedFunction> MoEPlanCapacity::prepare(func::FuncOp function) {
  function->removeAttr(planAttrName);
  FailureOr<std::pair<int64_t, int64_t>> range = tokenRange(function);
  if (failed(range))
    return failure();
  if (givenTokens) {
    if (givenTokens->first < range->first ||
        givenTokens->second > range->second)
      return function.emitError("expected tokens within ")
             << range->first << ":" << range->second << ", got "
             << givenTokens->first << ":" << givenTokens->second;
    range = *givenTokens;
  }
  function->setAttr(tokensAttrName, Builder(function).getI64ArrayAttr(
                                        {range->first, range->second}));
  return analyzeForPlan(function, settings);
}

void MoEPlanCapacity::setPlan(PlannedFunction &planned, int64_t chunk,
                              int64_t workspace) {
  MLIRContext *context = planned.function.getContext();
  // The last chunk of a call has any size up to `chunk`.
  int64_t min = chunk > 0 ? 0 : planned.min;
  int64_t max = chunk > 0 ? std::min(chunk, planned.max) : planned.max;
  SmallVector<Attribute> dispatches;
  for (auto [cost, rows] : llvm::zip(planned.cost.dispatches, planned.rows))
    dispatches.push_back(planDispatch(cost, rows, settings.target, min, max));
  planned.function->setAttr(planAttrName,
                            PlanAttr::get(context, planned.min, planned.max,
                                          chunk, workspace,
                                          ArrayAttr::get(context, dispatches)));
}

/// Returns the largest chunk whose workspace is within the limit; 0 if none is.
FailureOr<int64_t> MoEPlanCapacity::findChunk(PlannedFunction &planned,
                                              WorkspaceProbe &probe) {
  auto fits = [&](int64_t chunk) -> FailureOr<bool> {
    setPlan(planned, chunk, /*workspace=*/-1);
    if (failed(probe.refresh()))
      return failure();
    std::optional<int64_t> bytes =
        probe.getBytes(planned.function, planned.max);
    return bytes && *bytes <= *limit;
  };
  // First guess: a chunk needs about as much as a call with that many tokens.
  int64_t low = 0, high = planned.max;
  for (int64_t guess = 1; guess < high; guess *= 2) {
    std::optional<int64_t> bytes = probe.getBytes(planned.function, guess);
    (bytes && *bytes <= *limit ? low : high) = guess;
  }
  while (high - low > 1) {
    int64_t middle = low + (high - low) / 2;
    std::optional<int64_t> bytes = probe.getBytes(planned.function, middle);
    (bytes && *bytes <= *limit ? low : high) = middle;
  }
  // Then gallop from the guess to bracket the limit, and bisect.
  int64_t guess = std::max<int64_t>(low, 1);
  low = 0;
  high = planned.max;
  for (int64_t step = 1; high - low > 1; step *= 2) {
    FailureOr<bool> answer = fits(guess);
    if (failed(answer))
      return failure();
    (*answer ? low : high) = guess;
    if (low > 0 && high < planned.max)
      guess = low + (high - low) / 2;
    else if (low > 0)
      guess = std::min(high - 1, low + step);
    else
      guess = std::max<int64_t>(1, high - step);
  }
  return low;
}

/// Returns the chunk that the lowering chooses without a limit; 0 for none.
int64_t MoEPlanCapacity::chooseDefaultChunk(const PlannedFunction &planned) {
  if (!defaultChunk || findTokenDependence(planned.function))
    return 0;
  return getDefaultChunk(planned.function, planned.max);
}

/// Chooses a chunk so that the workspace is within the limit.
LogicalResult MoEPlanCapacity::limitMemory(PlannedFunction &planned,
                                           WorkspaceProbe &probe,
                                           int64_t needed) {
  func::FuncOp function = planned.function;
  auto tooSmall = [&](int64_t least) {
    return function.emitError("expected a memory limit of at least ")
           << least << " bytes for " << planned.max << " tokens, got "
           << *limit;
  };
  if (std::optional<TokenDependence> found = findTokenDependence(function)) {
    InFlightDiagnostic diag = tooSmall(needed);
    diag.attachNote(found->op->getLoc())
        << "a call cannot run in chunks of tokens: " << found->reason;
    return diag;
  }
  FailureOr<int64_t> chunk = findChunk(planned, probe);
  if (failed(chunk))
    return failure();
  setPlan(planned, std::max<int64_t>(*chunk, 1), /*workspace=*/-1);
  if (failed(probe.refresh()))
    return failure();
  std::optional<int64_t> bytes = probe.getBytes(function, planned.max);
  if (!bytes)
    return function.emitError("expected a workspace within 64 bits");
  if (*bytes > *limit) {
    InFlightDiagnostic diag = tooSmall(*bytes);
    diag.attachNote() << "this limit allows chunks of one token";
    return diag;
  }
  setPlan(planned, *chunk, *bytes);
  return success();
}

void MoEPlanCapacity::runOnOperation() {
  ModuleOp module = getOperation();
  FailureOr<OpPassManager> passes = getLowering();
  if (failed(passes) || failed(readOptions()))
    return signalPassFailure();

  SmallVector<PlannedFunction> all;
  for (auto function : module.getOps<func::FuncOp>()) {
    if (!isPlanned(function))
      continue;
    FailureOr<PlannedFunction> planned = prepare(function);
    if (failed(planned))
      return signalPassFailure();
    all.push_back(std::move(*planned));
    setPlan(all.back(), /*chunk=*/0, /*workspace=*/-1);
  }
  if (all.empty())
    return;

  WorkspaceProbe probe = makeProbe(*passes);
  for (PlannedFunction &planned : all) {
    if (failed(probe.refresh()))
      return signalPassFailure();
    std::optional<int64_t> bytes =
        probe.getBytes(planned.function, planned.max);
    if (!bytes) {
      planned.function.emitError("expected '")
          << lowering << "' to make a workspace within 64 bits for "
          << planned.max << " tokens";
      return signalPassFailure();
    }
    if (!limit || *bytes <= *limit)
      setPlan(planned, chooseDefaultChunk(planned), *bytes);
    else if (failed(limitMemory(planned, probe, *bytes)))
      return signalPassFailure();
  }
}

std::unique_ptr<Pass>
mlir::moe::createMoEPlanCapacity(MoEPlanCapacityOptions options,
                                 const MachineRates &rates,
                                 const OpPassManager &lowering) {
  return std::make_unique<MoEPlanCapacity>(std::move(options), rates, lowering);
}
