//===- PlanCapacity.cpp - Bounds, variants and chunks beforehand ----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Analysis/CapacityPlan.h"
#include "moe/Analysis/PlanReport.h"
#include "moe/Analysis/TokenFunction.h"
#include "moe/Analysis/TokenIndependence.h"
#include "moe/Dialect/MoE/IR/MoE.h"
#include "moe/Dialect/MoE/Transforms/Capacity/Passes.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Pass/PassRegistry.h"
#include "llvm/ADT/ScopeExit.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/StringSwitch.h"
#include "llvm/Support/FormatVariadic.h"

#include <cmath>

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEPLANCAPACITY
#include "moe/Dialect/MoE/Transforms/Capacity/Passes.h.inc"
} // namespace mlir::moe

//===----------------------------------------------------------------------===//
// Options
//===----------------------------------------------------------------------===//

/// `64MiB`, `2GB`, `4096`.
static std::optional<int64_t> parseBytes(StringRef text) {
  size_t digits = text.find_first_not_of("0123456789");
  int64_t number, bytes;
  int64_t unit = llvm::StringSwitch<int64_t>(text.substr(digits))
                     .Cases({"", "B"}, 1)
                     .Case("kB", 1000)
                     .Case("KB", 1000)
                     .Case("MB", 1000 * 1000)
                     .Case("GB", 1000 * 1000 * 1000)
                     .Case("KiB", int64_t(1) << 10)
                     .Case("MiB", int64_t(1) << 20)
                     .Case("GiB", int64_t(1) << 30)
                     .Case("TiB", int64_t(1) << 40)
                     .Default(0);
  if (unit == 0 || text.substr(0, digits).getAsInteger(10, number) ||
      llvm::MulOverflow(number, unit, bytes))
    return std::nullopt;
  return bytes;
}

namespace {
/// Lowers copies of a module to ask how much memory its functions take.
class WorkspaceProbe {
public:
  using Lower = std::function<LogicalResult(ModuleOp)>;
  WorkspaceProbe(ModuleOp module, bool onDevice, Lower lower)
      : module(module), onDevice(onDevice), lower(std::move(lower)) {}
  ~WorkspaceProbe() { reset(); }

  /// Take the module as it is now.
  LogicalResult refresh();
  /// Bytes for T, none above 64 bits.
  std::optional<int64_t> bytes(func::FuncOp function, int64_t tokens);
  /// Kernels of a GPU that a call starts, in their order.
  PlanReport::Launches launches(func::FuncOp function);

private:
  void reset() {
    if (copy)
      copy.erase();
    copy = {};
  }

  ModuleOp module, copy;
  bool onDevice;
  Lower lower;
};

struct MoEPlanCapacity : moe::impl::MoEPlanCapacityBase<MoEPlanCapacity> {
  using MoEPlanCapacityBase::MoEPlanCapacityBase;
  MoEPlanCapacity(MoEPlanCapacityOptions options, const MachineRates &rates,
                  llvm::raw_ostream &report)
      : MoEPlanCapacityBase(std::move(options)), rates(rates), report(&report) {}

  void getDependentDialects(DialectRegistry &registry) const override {
    MoEPlanCapacityBase::getDependentDialects(registry);
    OpPassManager lowerings(ModuleOp::getOperationName());
    if (succeeded(parsePassPipeline(lowering, lowerings, llvm::nulls())))
      lowerings.getDependentDialects(registry);
  }

  void runOnOperation() override;

private:
  /// A function and what its plan is made of.
  struct Planned {
    func::FuncOp function;
    FunctionCost cost;
    SmallVector<RowDistribution> rows;
    int64_t min, max;
  };

  LogicalResult readOptions();
  LogicalResult findRates();
  FailureOr<Planned> prepare(func::FuncOp function);
  void setPlan(Planned &planned, int64_t chunk, int64_t workspace);
  LogicalResult limitMemory(Planned &planned, WorkspaceProbe &probe,
                            int64_t needed);
  FailureOr<int64_t> findChunk(Planned &planned, WorkspaceProbe &probe);
  void printReports(ArrayRef<Planned> all, WorkspaceProbe &probe);

  std::optional<MachineRates> rates;
  llvm::raw_ostream *report = nullptr;
  std::optional<std::pair<int64_t, int64_t>> givenTokens;
  std::optional<int64_t> limit;
  Imbalance model;
  PlanTarget target;
};
} // namespace

LogicalResult MoEPlanCapacity::readOptions() {
  auto fail = [&](const Twine &message) {
    return getOperation().emitError(message);
  };
  if (!tokens.empty()) {
    auto [first, last] = StringRef(tokens).split(':');
    int64_t min, max;
    if (first.getAsInteger(10, min) || last.getAsInteger(10, max) || min < 0 ||
        max < min)
      return fail("expected tokens=MIN:MAX with 0 <= MIN <= MAX, got '" +
                  tokens + "'");
    givenTokens = {min, max};
  }
  if (!memoryLimit.empty()) {
    limit = parseBytes(memoryLimit);
    if (!limit)
      return fail(
          "expected a memory limit such as 4096, 64MiB or 2GB, within 64 "
          "bits, got '" +
          memoryLimit + "'");
  }
  llvm::Expected<Imbalance> parsed = Imbalance::parse(imbalance);
  if (!parsed)
    return fail(llvm::toString(parsed.takeError()));
  model = std::move(*parsed);

  target.byMeanRows = byMeanRows;
  target.machine = machine;
  if (failed(findRates()))
    return failure();
  for (StringRef variant : variants) {
    auto [name, tile] = variant.split(':');
    auto [size, kind] = tile.split(':');
    int64_t rows;
    if (name.empty() || size.getAsInteger(10, rows) || rows < 1 ||
        rows > (1 << 20) || (kind != "ragged" && tile.contains(':')))
      return fail("expected variants as NAME:ROWS or NAME:ROWS:ragged with 1 to "
                  "2^20 rows in a tile, got '" +
                  variant + "'");
    target.variants.push_back({name.str(), rows, kind == "ragged"});
  }
  if (target.variants.empty())
    for (int64_t rows : {8, 16, 32, 64, 128})
      target.variants.push_back({"rows" + std::to_string(rows), rows});
  llvm::stable_sort(target.variants, [](const auto &a, const auto &b) {
    return a.rows < b.rows;
  });
  if (!print.empty() && print != "text" && print != "json")
    return fail("expected print=text or print=json, got '" + print + "'");
  return success();
}

/// Those of the machine, but for what is given.
LogicalResult MoEPlanCapacity::findRates() {
  for (double rate : {double(flops), double(bandwidth)})
    if (!(rate >= 0) || std::isinf(rate))
      return getOperation().emitError(
                 "expected rates of flops and bandwidth above 0, got ")
             << llvm::formatv("{0}", rate).str();
  StringRef name = gpu.empty() ? StringRef(machine) : StringRef(gpu);
  std::optional<MachineRates> found = rates;
  if (!gpu.empty() || (!found && !machine.empty()))
    found = findGPURates(name);
  else if (!found)
    found = ProcessorDescription::host().rates();
  if (!found)
    return getOperation().emitError("expected a GPU whose rates are known, ")
           << llvm::join(listGPUs(), ", ") << " or an architecture, got '"
           << name << "'";
  target.rates = *found;
  if (flops > 0)
    target.rates.setFlops(flops);
  if (bandwidth > 0) {
    target.rates.bandwidth = bandwidth;
    target.rates.bandwidthAssumed = false;
  }
  if (flops > 0 && bandwidth > 0)
    target.rates.name = "rates as given";
  return success();
}

//===----------------------------------------------------------------------===//
// Workspace
//===----------------------------------------------------------------------===//

LogicalResult WorkspaceProbe::refresh() {
  reset();
  copy = module.clone();
  module.push_back(copy);
  return lower(copy);
}

/// What the runtime keeps of a call on a device, behind the workspace of the code:
/// the reports, each on lines of its own, and one more line.
static std::optional<int64_t> addReports(func::FuncOp function, int64_t bytes) {
  constexpr int64_t alignment = 256, line = 64;
  auto signature = function->getAttrOfType<DictionaryAttr>("moe.signature");
  auto arguments =
      signature ? signature.getAs<ArrayAttr>("arguments") : ArrayAttr();
  int64_t reports = 0;
  for (auto [i, its] : llvm::enumerate(
           arguments ? arguments.getValue() : ArrayRef<Attribute>())) {
    auto role = cast<DictionaryAttr>(its).getAs<StringAttr>("role");
    auto type = dyn_cast<MemRefType>(function.getArgument(i).getType());
    if (role && type && (role == "offsets" || role == "counters"))
      reports += llvm::alignTo(
          type.getNumElements() * type.getElementTypeBitWidth() / 8, line);
  }
  if (reports == 0)
    return bytes;
  if (llvm::AddOverflow(bytes, alignment - 1, bytes) ||
      llvm::AddOverflow(bytes / alignment * alignment, reports + line, bytes))
    return std::nullopt;
  return bytes;
}

std::optional<int64_t> WorkspaceProbe::bytes(func::FuncOp function,
                                             int64_t tokens) {
  auto workspace = copy.lookupSymbol<func::FuncOp>("moe_workspace_" +
                                                   function.getName().str());
  if (!workspace || !workspace.getBody().hasOneBlock())
    return std::nullopt;
  TokenFunction at(workspace.getArgument(0), tokens);
  std::optional<int64_t> bytes =
      at.evaluate(workspace.getBody().front().getTerminator()->getOperand(0));
  if (!bytes || !onDevice)
    return bytes;
  return addReports(copy.lookupSymbol<func::FuncOp>(function.getName()),
                    *bytes);
}

PlanReport::Launches WorkspaceProbe::launches(func::FuncOp function) {
  llvm::MapVector<StringRef, int64_t> counts;
  copy.lookupSymbol<func::FuncOp>(function.getName()).walk([&](LaunchOp op) {
    ++counts[op.getKernel().getLeafReference().getValue()];
  });
  return PlanReport::Launches(counts.begin(), counts.end());
}

//===----------------------------------------------------------------------===//
// Plans
//===----------------------------------------------------------------------===//

FailureOr<MoEPlanCapacity::Planned>
MoEPlanCapacity::prepare(func::FuncOp function) {
  function->removeAttr("moe.plan");
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
  function->setAttr("moe.tokens", Builder(function).getI64ArrayAttr(
                                      {range->first, range->second}));
  FailureOr<FunctionCost> cost = computeCost(function);
  if (failed(cost))
    return failure();
  Planned planned = {
      function, std::move(*cost), {}, range->first, range->second};
  for (auto [index, each] : llvm::enumerate(planned.cost.dispatches)) {
    DispatchOp dispatch = each.dispatch;
    if (int64_t(dispatch.getNumExperts()) > INT32_MAX)
      return dispatch.emitError("expected at most 2^31 - 1 experts, got ")
             << dispatch.getNumExperts();
    auto rows =
        model.distribution(index, dispatch.getNumExperts(), dispatch.getTopK());
    if (!rows)
      return dispatch.emitError(llvm::toString(rows.takeError()));
    planned.rows.push_back(std::move(*rows));
  }
  return planned;
}

void MoEPlanCapacity::setPlan(Planned &planned, int64_t chunk,
                              int64_t workspace) {
  MLIRContext *context = planned.function.getContext();
  // The last chunk of a call may be of any size.
  int64_t min = chunk > 0 ? 0 : planned.min;
  int64_t max = chunk > 0 ? std::min(chunk, planned.max) : planned.max;
  SmallVector<Attribute> dispatches;
  for (auto [cost, rows] : llvm::zip(planned.cost.dispatches, planned.rows))
    dispatches.push_back(planDispatch(cost, rows, target, min, max));
  planned.function->setAttr("moe.plan",
                            PlanAttr::get(context, planned.min, planned.max,
                                          chunk, workspace,
                                          ArrayAttr::get(context, dispatches)));
}

/// The largest chunk whose workspace is within the limit; 0 if there is none.
FailureOr<int64_t> MoEPlanCapacity::findChunk(Planned &planned,
                                              WorkspaceProbe &probe) {
  auto fits = [&](int64_t chunk) -> FailureOr<bool> {
    setPlan(planned, chunk, /*workspace=*/-1);
    if (failed(probe.refresh()))
      return failure();
    std::optional<int64_t> bytes = probe.bytes(planned.function, planned.max);
    return bytes && *bytes <= *limit;
  };
  // A chunk takes about what so many tokens take that run by themselves.
  int64_t low = 0, high = planned.max;
  for (int64_t guess = 1; guess < high; guess *= 2) {
    std::optional<int64_t> bytes = probe.bytes(planned.function, guess);
    (bytes && *bytes <= *limit ? low : high) = guess;
  }
  while (high - low > 1) {
    int64_t middle = low + (high - low) / 2;
    std::optional<int64_t> bytes = probe.bytes(planned.function, middle);
    (bytes && *bytes <= *limit ? low : high) = middle;
  }
  // From there in growing steps to where it fits, then the last that does.
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

/// Choose a chunk, if the tokens of a call are too many for the limit.
LogicalResult MoEPlanCapacity::limitMemory(Planned &planned,
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
  std::optional<int64_t> bytes = probe.bytes(function, planned.max);
  if (!bytes)
    return function.emitError("expected a workspace within 64 bits");
  if (*bytes > *limit) {
    InFlightDiagnostic diag = tooSmall(*bytes);
    diag.attachNote() << "with which tokens run one by one";
    return diag;
  }
  setPlan(planned, *chunk, *bytes);
  return success();
}

void MoEPlanCapacity::printReports(ArrayRef<Planned> all,
                                   WorkspaceProbe &probe) {
  llvm::raw_ostream &os = report ? *report : llvm::outs();
  llvm::json::Array functions;
  for (const Planned &planned : all) {
    PlanReport text(
        planned.function, planned.cost, planned.rows, model.getName(), target,
        probe.launches(planned.function),
        [&](int64_t tokens) { return probe.bytes(planned.function, tokens); });
    if (print == "text")
      text.print(os);
    else
      functions.push_back(text.toJSON());
  }
  if (print == "json")
    os << llvm::formatv(
        "{0:2}\n", llvm::json::Value(llvm::json::Object{
                       {"format", 1}, {"functions", std::move(functions)}}));
  os.flush();
}

void MoEPlanCapacity::runOnOperation() {
  ModuleOp module = getOperation();
  OpPassManager lowerings(ModuleOp::getOperationName());
  std::string message;
  llvm::raw_string_ostream stream(message);
  if (failed(parsePassPipeline(lowering, lowerings, stream))) {
    module.emitError("expected lowering to be a pipeline, got '")
        << lowering << "': " << StringRef(message).rtrim();
    return signalPassFailure();
  }
  if (failed(readOptions()))
    return signalPassFailure();

  SmallVector<Planned> all;
  for (auto function : module.getOps<func::FuncOp>()) {
    if (!function.isPublic() || function.isExternal() ||
        function->hasAttr("moe.signature"))
      continue;
    FailureOr<Planned> planned = prepare(function);
    if (failed(planned))
      return signalPassFailure();
    all.push_back(std::move(*planned));
    setPlan(all.back(), /*chunk=*/0, /*workspace=*/-1);
  }
  if (all.empty())
    return;

  WorkspaceProbe probe(
      module, /*onDevice=*/!machine.empty(),
      [&](ModuleOp copy) { return runPipeline(lowerings, copy); });
  for (Planned &planned : all) {
    if (failed(probe.refresh()))
      return signalPassFailure();
    std::optional<int64_t> bytes = probe.bytes(planned.function, planned.max);
    if (!bytes) {
      planned.function.emitError("expected '")
          << lowering << "' to make a workspace within 64 bits for "
          << planned.max << " tokens";
      return signalPassFailure();
    }
    if (!limit || *bytes <= *limit)
      setPlan(planned, /*chunk=*/0, *bytes);
    else if (failed(limitMemory(planned, probe, *bytes)))
      return signalPassFailure();
  }
  if (!print.empty()) {
    if (failed(probe.refresh()))
      return signalPassFailure();
    printReports(all, probe);
  }
}

std::unique_ptr<Pass>
mlir::moe::createMoEPlanCapacity(MoEPlanCapacityOptions options,
                                 const MachineRates &rates,
                                 llvm::raw_ostream &report) {
  return std::make_unique<MoEPlanCapacity>(std::move(options), rates, report);
}
