//===- PlanReport.cpp - A capacity plan for people and programs -----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Analysis/PlanReport.h"
#include "moe/Dialect/MoE/IR/MoEABI.h"

#include "llvm/Support/Format.h"
#include "llvm/Support/MathExtras.h"

#include <set>

using namespace mlir;
using namespace mlir::moe;

//===----------------------------------------------------------------------===//
// Numbers
//===----------------------------------------------------------------------===//

/// The element type of the rows of the first dispatch, else of the first
/// argument that is a tensor of floats.
static Type mainElementType(func::FuncOp function, const FunctionCost &cost) {
  if (!cost.dispatches.empty())
    return cost.dispatches.front().getElementType();
  for (Type type : function.getArgumentTypes())
    if (isa<ShapedType>(type) && isa<FloatType>(getElementTypeOrSelf(type)))
      return getElementTypeOrSelf(type);
  return Float32Type::get(function.getContext());
}

/// Returns how rows enter matmuls of quantised weights; empty if there are
/// none.
static std::string activationsOf(func::FuncOp function) {
  bool isQuantized =
      function.walk([](DequantizeOp) { return WalkResult::interrupt(); })
          .wasInterrupted();
  if (!isQuantized)
    return "";
  auto given = function->getAttrOfType<StringAttr>(activationsAttrName);
  return given ? given.getValue().str() : "exact";
}

PlanReport::PlanReport(
    func::FuncOp function, const FunctionCost &cost,
    ArrayRef<RowDistribution> rows, StringRef imbalance,
    const PlanTarget &target, std::vector<LaunchWork> launches,
    const std::function<std::optional<int64_t>(int64_t)> &workspace,
    const RowsOfExperts &rowsOfExperts)
    : name(function.getName().str()), imbalance(imbalance.str()),
      plan(function->getAttrOfType<PlanAttr>(planAttrName)), cost(cost),
      rows(rows), target(target), launches(std::move(launches)),
      elementType(mainElementType(function, cost)), workspace(workspace),
      rowsOfExperts(rowsOfExperts), activations(activationsOf(function)) {
  // Both ends of the range, the first T of each variant, and some powers of
  // two.
  std::set<int64_t> tokens = {plan.getMin(), plan.getMax()};
  for (int64_t each = 1; each <= 32768; each *= 8)
    tokens.insert(each);
  for (auto dispatch : plan.getDispatches().getAsRange<DispatchPlanAttr>())
    for (auto range : dispatch.getRanges().getAsRange<TileRangeAttr>())
      tokens.insert(range.getMin());
  for (int64_t each : tokens)
    if (each >= plan.getMin() && each <= plan.getMax())
      points.push_back(at(each));
}

PlanReport::DispatchPoint PlanReport::at(size_t index, int64_t tokens) const {
  auto its = cast<DispatchPlanAttr>(plan.getDispatches()[index]);
  int64_t atOnce =
      plan.getChunk() > 0 ? std::min(tokens, plan.getChunk()) : tokens;
  TileRangeAttr range;
  for (auto each : its.getRanges().getAsRange<TileRangeAttr>())
    if (each.getMin() <= atOnce)
      range = each;
  // Tiles and padding are those of a chunk: chunks run one after the other.
  const RowDistribution &model = rows[index];
  DispatchPoint point;
  point.variant = range.getVariant().str();
  point.rows = evaluateBound(its.getRows().getValue(), atOnce);
  point.tiles = evaluateBound(range.getTiles().getValue(), atOnce);
  point.padding = evaluateBound(range.getPadding().getValue(), atOnce);
  point.active = model.expectedActive(atOnce);
  point.fullest = model.expectedFullest(atOnce);
  point.fullestBound = model.boundOfFullest(atOnce);
  point.method = model.method(atOnce);
  point.padded = model.expectedPadded(atOnce, range.getGranularity());
  DispatchOp dispatch = cost.dispatches[index].dispatch;
  std::optional<CapacityAttr> capacity = dispatch.getCapacity();
  int64_t most =
      capacity ? capacity->evaluate(atOnce, dispatch.getNumExperts()) : 0;
  point.overflow = capacity ? model.overflowProbability(atOnce, most) : 0;
  point.dropped = capacity ? model.expectedDropped(atOnce, most) : 0;
  return point;
}

PlanReport::Point PlanReport::at(int64_t tokens) const {
  Point point;
  point.tokens = tokens;
  point.workspace = workspace(tokens);
  int64_t flops = 0;
  double compute =
      (double(cost.flopsPerToken) * double(tokens) + double(cost.fixedFlops)) /
      target.rates.flops(elementType);
  bool fits = !llvm::MulOverflow(cost.flopsPerToken, tokens, flops) &&
              !llvm::AddOverflow(flops, cost.fixedFlops, flops);
  double bytes = double(cost.bytesPerToken) * double(tokens) +
                 double(cost.fixedBytes) + double(cost.sharedWeightBytes);
  for (auto [index, each] : llvm::enumerate(cost.dispatches)) {
    DispatchOp dispatch = each.dispatch;
    std::optional<int64_t> most = evaluateBound(boundOfRows(dispatch), tokens);
    int64_t grouped = 0, product;
    fits = fits && most &&
           !llvm::MulOverflow(tokens, dispatch.getMaxChoices(), grouped);
    grouped = most ? std::min(*most, grouped) : grouped;
    fits = fits && !llvm::MulOverflow(each.flopsPerRow, grouped, product) &&
           !llvm::AddOverflow(flops, product, flops);
    compute += double(grouped) * double(each.flopsPerRow) /
               target.rates.flops(each.getElementType());
    bytes += std::min(double(each.weightBytes),
                      rows[index].expectedActive(tokens) *
                          double(each.weightBytesPerExpert)) +
             double(grouped) * double(each.bytesPerRow);
    point.dispatches.push_back(at(index, tokens));
  }
  if (fits)
    point.flops = flops;
  point.bytes = bytes;
  int64_t saved;
  if (cost.savesTensors() &&
      !llvm::MulOverflow(cost.savedBytesPerToken, tokens, saved) &&
      !llvm::AddOverflow(saved, cost.savedFixedBytes, saved))
    point.saved = saved;
  point.seconds = std::max(compute, bytes / target.rates.bandwidth);
  if (target.gpu) {
    SmallVector<DispatchOp> dispatches =
        llvm::map_to_vector(cost.dispatches, [](const DispatchCost &each) {
          return each.dispatch;
        });
    int64_t atOnce =
        plan.getChunk() > 0 ? std::min(tokens, plan.getChunk()) : tokens;
    point.launches = predictLaunches(launches, *target.gpu, dispatches, rows,
                                     atOnce, rowsOfExperts, &point.unknown);
  }
  return point;
}

//===----------------------------------------------------------------------===//
// Text
//===----------------------------------------------------------------------===//

static std::string formatCount(std::optional<int64_t> value) {
  return value ? std::to_string(*value) : "> 2^63";
}

/// A double with four significant digits.
static std::string shortly(double value) {
  std::string text;
  llvm::raw_string_ostream(text) << llvm::format("%.4g", value);
  return text;
}

/// An expected count, with three significant digits if it is small.
static std::string average(double count) {
  std::string text;
  llvm::raw_string_ostream(text)
      << llvm::format(count < 1000 ? "%.3g" : "%.0f", count);
  return text;
}

/// The value with a unit, each unit `step` times the one before: `12.3 KiB`.
static std::string scaled(double value, double step,
                          ArrayRef<StringLiteral> units) {
  size_t unit = 0;
  // At most three digits before the decimal point.
  while (std::abs(value) >= 999.5 && unit + 1 < units.size()) {
    value /= step;
    ++unit;
  }
  std::string text;
  llvm::raw_string_ostream(text) << llvm::format("%.3g ", value) << units[unit];
  return text;
}

static std::string bytes(double value) {
  static constexpr StringLiteral units[] = {"bytes", "KiB", "MiB", "GiB",
                                            "TiB",   "PiB", "EiB"};
  return scaled(value, 1024, units);
}

static std::string bytes(std::optional<int64_t> value) {
  return value ? bytes(double(*value)) : "> 2^63 bytes";
}

static std::string operations(std::optional<int64_t> value) {
  static constexpr StringLiteral units[] = {"flop",  "kflop", "Mflop", "Gflop",
                                            "Tflop", "Pflop", "Eflop"};
  return value ? scaled(double(*value), 1000, units) : "> 2^63 flop";
}

static std::string duration(double seconds) {
  static constexpr StringLiteral units[] = {"ns", "us", "ms", "s"};
  return scaled(seconds * 1e9, 1000, units);
}

llvm::MapVector<StringRef, int64_t> PlanReport::countKernels() const {
  llvm::MapVector<StringRef, int64_t> counts;
  for (const LaunchWork &launch : launches)
    ++counts[launch.kernel];
  return counts;
}

void PlanReport::printLaunches(const Point &point,
                               llvm::raw_ostream &os) const {
  if (point.launches.empty())
    return;
  double total = 0;
  for (const PredictedLaunch &launch : point.launches) {
    const KernelPrediction &predicted = launch.predicted;
    total += predicted.seconds;
    os << "    " << launch.kernel << ": predicted "
       << duration(predicted.seconds) << ", bound by " << predicted.bound();
    if (predicted.tensor > 0)
      os << "; tensor cores " << duration(predicted.tensor) << ", epilogue "
         << duration(predicted.epilogue) << ", L2 "
         << bytes(predicted.cacheBytes) << " in " << duration(predicted.cache);
    os << "; memory " << bytes(predicted.memoryBytes) << " in "
       << duration(predicted.memory) << "\n";
  }
  os << "    launches: predicted " << duration(total);
  if (point.flops && plan.getChunk() == 0)
    os << ", "
       << scaled(double(*point.flops) / total, 1000,
                 {"FLOP/s", "kFLOP/s", "MFLOP/s", "GFLOP/s", "TFLOP/s",
                  "PFLOP/s"});
  if (point.unknown > 0)
    os << ", without " << point.unknown << " whose work is unknown";
  os << "\n";
}

void PlanReport::print(llvm::raw_ostream &os) const {
  os << "capacity plan of @" << name << " for " << plan.getMin() << " to "
     << plan.getMax() << " tokens";
  if (plan.getChunk() > 0)
    os << ", in chunks of " << plan.getChunk();
  os << "\n  workspace          ";
  if (plan.getWorkspace() >= 0)
    os << "at most " << bytes(double(plan.getWorkspace())) << " ("
       << plan.getWorkspace() << " bytes)\n";
  else
    os << "unknown\n";
  os << "  parameters         " << cost.weights() << ", "
     << cost.activatedWeights() << " active per token\n"
     << "  routing model      " << imbalance << "\n";
  if (!activations.empty())
    os << "  activations        " << activations
       << " (rows of matmuls with quantised weights, on a CPU)\n";
  os << "  target             "
     << (target.machine.empty() ? "" : target.machine + ", ")
     << target.rates.name << "\n"
     << "  peak rates         " << shortly(target.rates.flops(elementType))
     << " FLOP/s in " << elementType << ", " << shortly(target.rates.bandwidth)
     << " byte/s" << (target.rates.bandwidthAssumed ? " (assumed)" : "")
     << "\n";
  if (!launches.empty()) {
    os << "  launches          ";
    for (const auto &[kernel, count] : countKernels()) {
      os << " " << kernel;
      if (count > 1)
        os << " x" << count;
    }
    os << "\n";
  }
  for (auto [index, each] : llvm::enumerate(cost.dispatches)) {
    auto its = cast<DispatchPlanAttr>(plan.getDispatches()[index]);
    os << "  dispatch " << index << ": " << its.getExperts()
       << " experts, top_k " << its.getTopK() << ", capacity overflow "
       << stringifyOverflowPolicy(its.getOverflow()) << "\n"
       << "    max rows         " << its.getRows().getValue() << "\n"
       << "    per expert       " << its.getFullest().getValue() << "\n"
       << "    FLOP per row     " << each.flopsPerRow << "\n"
       << "    weights          " << bytes(double(each.weightBytes)) << "\n";
    for (auto range : its.getRanges().getAsRange<TileRangeAttr>())
      os << "    T " << range.getMin() << " to " << range.getMax() << ": "
         << range.getVariant().getValue() << ", max tiles "
         << range.getTiles().getValue() << "\n";
  }
  for (const Point &point : points) {
    os << "  T = " << point.tokens << ": " << operations(point.flops) << ", "
       << bytes(point.bytes) << ", at least " << duration(point.seconds)
       << " (roofline); workspace " << bytes(point.workspace);
    if (cost.savesTensors())
      os << ", saved " << bytes(point.saved);
    os << "\n";
    for (auto [index, its] : llvm::enumerate(point.dispatches)) {
      os << "    dispatch " << index << ": " << its.variant << ", at most "
         << formatCount(its.rows) << " rows in " << formatCount(its.tiles)
         << " tiles, " << formatCount(its.padding) << " rows of padding\n"
         << "      expected: " << average(its.active) << " active experts, "
         << average(its.fullest) << " rows in the fullest, "
         << average(its.padded) << " rows with padding\n"
         << "      fullest expert: at most " << its.fullestBound
         << " rows, except with probability " << shortly(rows[index].getDelta())
         << " (" << stringifyMethod(its.method) << ")\n";
      if (its.overflow > 0)
        os << "      overflow: probability at most " << shortly(its.overflow)
           << ", " << shortly(100 * its.dropped)
           << " % of the choices beyond the capacity\n";
    }
    printLaunches(point, os);
  }
}

//===----------------------------------------------------------------------===//
// JSON
//===----------------------------------------------------------------------===//

static llvm::json::Value numberToJSON(std::optional<int64_t> value) {
  return value ? llvm::json::Value(*value) : llvm::json::Value(nullptr);
}

static std::string toString(AffineMapAttr map) {
  std::string text;
  llvm::raw_string_ostream(text) << map.getValue();
  return text;
}

static llvm::json::Array launchesToJSON(ArrayRef<PredictedLaunch> launches) {
  llvm::json::Array array;
  for (const PredictedLaunch &launch : launches)
    array.push_back(
        llvm::json::Object{{"kernel", launch.kernel},
                           {"predicted_seconds", launch.predicted.seconds},
                           {"bound", launch.predicted.bound()},
                           {"tensor_seconds", launch.predicted.tensor},
                           {"epilogue_seconds", launch.predicted.epilogue},
                           {"cache_bytes", launch.predicted.cacheBytes},
                           {"memory_bytes", launch.predicted.memoryBytes}});
  return array;
}

llvm::json::Object PlanReport::toJSON() const {
  using llvm::json::Array;
  using llvm::json::Object;
  Array dispatches, atTokens;
  for (auto [index, each] : llvm::enumerate(cost.dispatches)) {
    auto its = cast<DispatchPlanAttr>(plan.getDispatches()[index]);
    Array ranges;
    for (auto range : its.getRanges().getAsRange<TileRangeAttr>()) {
      Object described{{"min", range.getMin()},
                       {"max", range.getMax()},
                       {"variant", range.getVariant().getValue()},
                       {"rows", range.getRows()},
                       {"ragged", range.getRagged()},
                       {"tiles", toString(range.getTiles())},
                       {"padding", toString(range.getPadding())}};
      ranges.push_back(std::move(described));
    }
    dispatches.push_back(
        Object{{"num_experts", its.getExperts()},
               {"top_k", its.getTopK()},
               {"rows", toString(its.getRows())},
               {"fullest", toString(its.getFullest())},
               {"overflow", stringifyOverflowPolicy(its.getOverflow())},
               {"flops_per_row", each.flopsPerRow},
               {"weights", each.weights},
               {"weight_bytes", each.weightBytes},
               {"ranges", std::move(ranges)}});
  }
  for (const Point &point : points) {
    Array ofDispatches;
    for (auto [index, its] : llvm::enumerate(point.dispatches))
      ofDispatches.push_back(Object{{"variant", its.variant},
                                    {"rows", numberToJSON(its.rows)},
                                    {"tiles", numberToJSON(its.tiles)},
                                    {"padding", numberToJSON(its.padding)},
                                    {"expected_active_experts", its.active},
                                    {"expected_fullest", its.fullest},
                                    {"expected_padded_rows", its.padded},
                                    {"fullest", its.fullestBound},
                                    {"delta", rows[index].getDelta()},
                                    {"method", stringifyMethod(its.method)},
                                    {"overflow_probability", its.overflow},
                                    {"expected_dropped", its.dropped}});
    Object described{{"tokens", point.tokens},
                     {"flops", numberToJSON(point.flops)},
                     {"bytes", point.bytes},
                     {"seconds", point.seconds},
                     {"workspace_bytes", numberToJSON(point.workspace)},
                     {"dispatches", std::move(ofDispatches)}};
    if (cost.savesTensors())
      described["saved_bytes"] = numberToJSON(point.saved);
    if (!point.launches.empty())
      described["launches"] = launchesToJSON(point.launches);
    atTokens.push_back(std::move(described));
  }
  std::string typeName;
  llvm::raw_string_ostream(typeName) << elementType;
  Object machine{{"name", target.rates.name},
                 {"flops", target.rates.flops(elementType)},
                 {"type", typeName},
                 {"bandwidth", target.rates.bandwidth},
                 {"bandwidth_assumed", target.rates.bandwidthAssumed}};
  Object report{
      {"name", name},
      {"tokens", Object{{"min", plan.getMin()}, {"max", plan.getMax()}}},
      {"chunk", plan.getChunk()},
      {"workspace_bytes", plan.getWorkspace()},
      {"weights", cost.weights()},
      {"activated_weights", cost.activatedWeights()},
      {"imbalance", imbalance},
      {"dispatches", std::move(dispatches)},
      {"at", std::move(atTokens)}};
  if (!target.machine.empty())
    machine["machine"] = target.machine;
  report["target"] = std::move(machine);
  if (!activations.empty())
    report["activations"] = activations;
  Array kernels;
  for (const auto &[kernel, count] : countKernels())
    kernels.push_back(Object{{"kernel", kernel.str()}, {"count", count}});
  if (!kernels.empty())
    report["launches"] = std::move(kernels);
  return report;
}
