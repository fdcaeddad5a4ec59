//===- PlanSettings.cpp - Settings of capacity plans ----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "PlanSettings.h"
#include "moe/Analysis/Units.h"
#include "moe/Dialect/MoE/IR/MoEABI.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "llvm/ADT/StringExtras.h"

using namespace mlir;
using namespace mlir::moe;

static llvm::Error expected(const Twine &what, StringRef value) {
  return llvm::createStringError("expected " + what + ", got '" + value + "'");
}

/// Returns the rates of the machine, with those overridden that are given.
static llvm::Expected<MachineRates>
findRates(const PlanSettingsOptions &options) {
  StringRef name = options.gpu.empty() ? options.machine : options.gpu;
  std::optional<MachineRates> rates = options.rates;
  if (!options.gpu.empty() || (!rates && !options.machine.empty()))
    rates = findGPURates(name);
  else if (!rates)
    rates = ProcessorDescription::host().rates();
  if (!rates)
    return expected("a GPU whose rates are known, " +
                        llvm::join(listGPUs(), ", ") + " or an architecture",
                    name);
  if (!options.flops.empty()) {
    std::optional<double> flops = parseFlops(options.flops);
    if (!flops)
      return expected("flops above 0, such as 1e12 or 2TFLOP/s", options.flops);
    rates->setFlops(*flops);
  }
  if (!options.bandwidth.empty()) {
    std::optional<double> bandwidth = parseBandwidth(options.bandwidth);
    if (!bandwidth)
      return expected("bandwidth above 0, such as 1e11 or 100GB/s",
                      options.bandwidth);
    rates->bandwidth = *bandwidth;
    rates->bandwidthAssumed = false;
  }
  if (!options.flops.empty() && !options.bandwidth.empty())
    rates->name = "rates as given";
  return *rates;
}

/// Parses `NAME:ROWS` or `NAME:ROWS:ragged`.
static llvm::Expected<TileVariant> parseVariant(StringRef text) {
  auto [name, tile] = text.split(':');
  auto [size, kind] = tile.split(':');
  int64_t rows;
  if (name.empty() || size.getAsInteger(10, rows) || rows < 1 ||
      rows > (1 << 20) || (kind != "ragged" && tile.contains(':')))
    return expected("variants as NAME:ROWS or NAME:ROWS:ragged with 1 to 2^20 "
                    "rows in a tile",
                    text);
  return TileVariant{name.str(), rows, kind == "ragged"};
}

llvm::Expected<PlanSettings>
mlir::moe::parsePlanSettings(const PlanSettingsOptions &options) {
  auto model = Imbalance::parse(options.imbalance);
  if (!model)
    return model.takeError();
  auto rates = findRates(options);
  if (!rates)
    return rates.takeError();
  PlanSettings settings{std::move(*model), {}};
  PlanTarget &target = settings.target;
  target.rates = *rates;
  target.byMeanRows = options.byMeanRows;
  target.machine = options.machine.str();
  if (!target.machine.empty())
    target.gpu = findGPU(options.gpu.empty() ? options.machine : options.gpu);
  if (target.gpu)
    target.gpu->rates = *rates;
  for (StringRef text : options.variants) {
    auto variant = parseVariant(text);
    if (!variant)
      return variant.takeError();
    target.variants.push_back(std::move(*variant));
  }
  if (target.variants.empty())
    for (int64_t rows : {8, 16, 32, 64, 128})
      target.variants.push_back({"rows" + std::to_string(rows), rows});
  llvm::stable_sort(target.variants, [](const auto &a, const auto &b) {
    return a.rows < b.rows;
  });
  return settings;
}

bool mlir::moe::isPlanned(func::FuncOp function) {
  return function.isPublic() && !function.isExternal() && !isExported(function);
}

FailureOr<PlannedFunction>
mlir::moe::analyzeForPlan(func::FuncOp function, const PlanSettings &settings) {
  FailureOr<std::pair<int64_t, int64_t>> range = tokenRange(function);
  if (failed(range))
    return failure();
  FailureOr<FunctionCost> cost = computeCost(function);
  if (failed(cost))
    return failure();
  PlannedFunction planned = {
      function, std::move(*cost), {}, range->first, range->second};
  for (auto [index, each] : llvm::enumerate(planned.cost.dispatches)) {
    DispatchOp dispatch = each.dispatch;
    if (int64_t(dispatch.getNumExperts()) > INT32_MAX)
      return dispatch.emitError("expected at most 2^31 - 1 experts, got ")
             << dispatch.getNumExperts();
    auto rows = settings.model.distribution(index, dispatch.getNumExperts(),
                                            dispatch.getTopK());
    if (!rows)
      return dispatch.emitError(llvm::toString(rows.takeError()));
    planned.rows.push_back(std::move(*rows));
  }
  return planned;
}
