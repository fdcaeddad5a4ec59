//===- Cost.cpp - FLOPs and bytes of a layer ------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Analysis/Cost.h"
#include "moe/Analysis/TokenExtents.h"
#include "moe/Dialect/MoE/IR/MoEABI.h"
#include "moe/Dialect/MoE/IR/PackedFormat.h"

#include "mlir/Analysis/SliceAnalysis.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "llvm/ADT/SetVector.h"
#include "llvm/Support/MathExtras.h"

#include <limits>

using namespace mlir;
using namespace mlir::moe;

namespace {
/// A count that is a·n + b for n tokens or rows.
struct Count {
  int64_t each = 0, fixed = 0;
};

class CostAnalysis {
public:
  explicit CostAnalysis(func::FuncOp function) : function(function) {}
  FailureOr<FunctionCost> run();

private:
  LogicalResult add(Operation *at, int64_t &sum, int64_t value);
  FailureOr<int64_t> multiply(Operation *at, int64_t a, int64_t b);
  FailureOr<Count> elementsOf(Operation *at, ShapedType type);
  FailureOr<int64_t> bytesOf(Operation *at, Type element, int64_t count);
  FailureOr<int64_t> bytesOfWeights(Operation *at, Value weights);
  LogicalResult addContraction(linalg::LinalgOp op, Count &flops);
  LogicalResult addContractions(Region &region, Count &flops);
  LogicalResult addExpert(ExpertOp op);
  std::optional<Count> rowsOf(Value tensor);
  LogicalResult addProduct(Operation *op, Count rows, int64_t k, int64_t n,
                           int64_t matmuls);
  LogicalResult addProducts();
  int64_t countIdle(BlockArgument argument, int64_t elements);
  FailureOr<Count> addBytes(RankedTensorType type, int64_t &fixedBytes);
  LogicalResult addDequantized(DequantizeOp op);
  LogicalResult addArguments();

  func::FuncOp function;
  FunctionCost cost;
  /// Values that moe.expert takes as parameters.
  llvm::SetVector<Value> parameters;
  /// Arguments that are weights of grouped rows, and how many rows of a token
  /// read them at most.
  llvm::DenseMap<Value, int64_t> rowsPerToken;
};
} // namespace

static LogicalResult tooLarge(Operation *op) {
  return op->emitError("expected a cost within 64 bits");
}

LogicalResult CostAnalysis::add(Operation *at, int64_t &sum, int64_t value) {
  return llvm::AddOverflow(sum, value, sum) ? tooLarge(at) : success();
}

FailureOr<int64_t> CostAnalysis::multiply(Operation *at, int64_t a, int64_t b) {
  int64_t product;
  if (llvm::MulOverflow(a, b, product))
    return tooLarge(at);
  return product;
}

/// Elements of a tensor; at most one extent may be dynamic.
FailureOr<Count> CostAnalysis::elementsOf(Operation *at, ShapedType type) {
  int64_t elements = 1;
  for (int64_t extent : type.getShape()) {
    if (ShapedType::isDynamic(extent))
      continue;
    FailureOr<int64_t> product = multiply(at, elements, extent);
    if (failed(product))
      return failure();
    elements = *product;
  }
  if (type.getNumDynamicDims() > 1)
    return at->emitError("expected at most one dynamic extent to count the "
                         "cost, got ")
           << type;
  return type.getNumDynamicDims() == 1 ? Count{elements, 0}
                                       : Count{0, elements};
}

FailureOr<int64_t> CostAnalysis::bytesOf(Operation *at, Type element,
                                         int64_t count) {
  if (!element.isIntOrIndexOrFloat())
    return at->emitError(
               "expected elements that are integers or floats to count "
               "the cost, got ")
           << element;
  int64_t bits = element.isIndex() ? 64 : element.getIntOrFloatBitWidth();
  return multiply(at, count, llvm::divideCeil(bits, 8));
}

/// Bytes of weights of a static shape as calls read them: packed, if there are
/// kernels for the format, otherwise decoded. Packed numbers are whole bytes,
/// and those that columns share in a file are stored for each column. Columns
/// that fill up the last panel do not count.
FailureOr<int64_t> CostAnalysis::bytesOfWeights(Operation *at, Value weights) {
  auto type = cast<RankedTensorType>(weights.getType());
  FailureOr<Count> elements = elementsOf(at, type);
  if (failed(elements))
    return failure();
  if (auto dequantize = weights.getDefiningOp<DequantizeOp>()) {
    auto packed = PackedFormat::get(dequantize.getFormat());
    int64_t k = dequantize.getK();
    if (packed && k % packed->getStep() == 0)
      return multiply(at, elements->fixed / k,
                      packed->getPanelBytes(/*columns=*/1, k));
  }
  return bytesOf(at, type.getElementType(), elements->fixed);
}

LogicalResult CostAnalysis::addContraction(linalg::LinalgOp op, Count &flops) {
  int64_t domain = 2, dynamic = 0;
  for (int64_t extent : op.getStaticLoopRanges()) {
    if (ShapedType::isDynamic(extent)) {
      ++dynamic;
      continue;
    }
    FailureOr<int64_t> product = multiply(op, domain, extent);
    if (failed(product))
      return failure();
    domain = *product;
  }
  if (dynamic > 1)
    return op->emitError(
               "expected a contraction over at most one dynamic extent "
               "to count its cost, got ")
           << dynamic;
  return add(op, dynamic == 1 ? flops.each : flops.fixed, domain);
}

/// Adds all contractions of a region except those of experts within it.
LogicalResult CostAnalysis::addContractions(Region &region, Count &flops) {
  WalkResult result = region.walk<WalkOrder::PreOrder>([&](Operation *op) {
    if (isa<ExpertOp>(op))
      return WalkResult::skip();
    auto contraction = dyn_cast<linalg::LinalgOp>(op);
    if (contraction && linalg::isaContractionOpInterface(contraction) &&
        failed(addContraction(contraction, flops)))
      return WalkResult::interrupt();
    return WalkResult::advance();
  });
  return failure(result.wasInterrupted());
}

LogicalResult CostAnalysis::addExpert(ExpertOp op) {
  auto dispatch = op.getOffsets().getDefiningOp<DispatchOp>();
  DispatchCost *found =
      llvm::find_if(cost.dispatches, [&](const DispatchCost &each) {
        return each.dispatch == dispatch;
      });
  // The offsets are not those of a dispatch: the rows are unknown.
  if (found == cost.dispatches.end())
    return success();

  Count flops;
  if (failed(addContractions(op.getBody(), flops)) ||
      failed(add(op, found->flopsPerRow, flops.each)))
    return failure();
  for (Type type : {op.getGrouped().getType(), op.getResult().getType()}) {
    auto rows = cast<RankedTensorType>(type);
    FailureOr<int64_t> bytes =
        bytesOf(op, rows.getElementType(), rows.getDimSize(1));
    if (failed(bytes) || failed(add(op, found->bytesPerRow, *bytes)))
      return failure();
  }
  int64_t weights = 0, weightBytes = 0;
  for (Value parameter : op.getParams()) {
    parameters.insert(parameter);
    auto type = cast<RankedTensorType>(parameter.getType());
    FailureOr<Count> elements = elementsOf(op, type);
    if (failed(elements))
      return failure();
    FailureOr<int64_t> bytes = bytesOfWeights(op, parameter);
    if (failed(bytes) || failed(add(op, found->weights, elements->fixed)) ||
        failed(add(op, found->weightBytes, *bytes)))
      return failure();
    // All leading extents are the number of experts of the operation.
    int64_t count = std::max<int64_t>(op.getExpertCount(), 1);
    weights += elements->fixed / count;
    weightBytes += *bytes / count;
  }
  found->weightsPerExpert = std::max(found->weightsPerExpert, weights);
  found->weightBytesPerExpert =
      std::max(found->weightBytesPerExpert, weightBytes);
  return success();
}

/// Returns the rows of a tensor; none where they depend on the routing.
std::optional<Count> CostAnalysis::rowsOf(Value tensor) {
  Extent extent = extentOf(tensor, 0, function);
  std::optional<int64_t> at[3];
  for (int64_t tokens : {1, 2, 3})
    at[tokens - 1] = evaluateExtent(extent, tokens, function);
  if (!at[0] || !at[1] || !at[2] || *at[2] - *at[1] != *at[1] - *at[0])
    return std::nullopt;
  return Count{*at[1] - *at[0], 2 * *at[0] - *at[1]};
}

LogicalResult CostAnalysis::addProduct(Operation *op, Count rows, int64_t k,
                                       int64_t n, int64_t matmuls) {
  FailureOr<int64_t> area = multiply(op, k, n);
  FailureOr<int64_t> each = failed(area) ? area : multiply(op, *area, matmuls);
  for (auto [count, sum] : {std::pair(rows.each, &cost.flopsPerToken),
                            std::pair(rows.fixed, &cost.fixedFlops)}) {
    FailureOr<int64_t> flops =
        failed(each) ? each : multiply(op, *each, 2 * count);
    if (failed(flops) || failed(add(op, *sum, *flops)))
      return failure();
  }
  return success();
}

/// Adds products of grouped rows outside of experts.
LogicalResult CostAnalysis::addProducts() {
  // Extents may be reified, next to the operations.
  auto matmuls = llvm::to_vector(function.getOps<GroupedMatmulOp>());
  auto contractions = llvm::to_vector(function.getOps<GroupedContractOp>());
  for (GroupedMatmulOp op : matmuls) {
    std::optional<Count> rows = rowsOf(op.getInit());
    if (!rows)
      continue;
    if (failed(addProduct(op, *rows, op.getK(), op.getN(),
                          op.getWeights().size())))
      return failure();
    if (!op.getOffsets())
      continue;
    BackwardSliceOptions options;
    options.inclusive = true;
    for (Value weights : op.getWeights()) {
      llvm::SetVector<Operation *> makers;
      (void)getBackwardSlice(weights, &makers, options);
      SmallVector<Value> sources{weights};
      for (Operation *maker : makers)
        llvm::append_range(sources, maker->getOperands());
      for (Value source : sources) {
        int64_t &most = rowsPerToken[source];
        most = std::max(most, rows->each);
      }
    }
  }
  for (GroupedContractOp op : contractions) {
    Value side = op.getLhsGather() ? op.getLhsGather() : op.getLhs();
    std::optional<Count> rows = rowsOf(side);
    if (rows && failed(addProduct(op, *rows, op.getK(), op.getN(), 1)))
      return failure();
  }
  return success();
}

/// Elements of an argument in the matrices of experts that no row of a token
/// has, if it is the weights of grouped rows.
int64_t CostAnalysis::countIdle(BlockArgument argument, int64_t elements) {
  auto type = cast<RankedTensorType>(argument.getType());
  auto found = rowsPerToken.find(argument);
  if (found == rowsPerToken.end() || type.getRank() < 3 ||
      type.getDimSize(0) <= found->second)
    return 0;
  return elements / type.getDimSize(0) * (type.getDimSize(0) - found->second);
}

/// True for a result that a backward function takes.
static bool isSaved(func::FuncOp function, unsigned result) {
  auto role = function.getResultAttrOfType<StringAttr>(result, "moe.role");
  return role && role.getValue() == savedRole;
}

/// Add the bytes of a tensor to those of each token and to `fixedBytes`;
/// returns its elements.
FailureOr<Count> CostAnalysis::addBytes(RankedTensorType type,
                                        int64_t &fixedBytes) {
  FailureOr<Count> elements = elementsOf(function, type);
  if (failed(elements))
    return failure();
  auto each = bytesOf(function, type.getElementType(), elements->each);
  auto fixed = bytesOf(function, type.getElementType(), elements->fixed);
  if (failed(each) || failed(fixed) ||
      failed(add(function, cost.bytesPerToken, *each)) ||
      failed(add(function, fixedBytes, *fixed)))
    return failure();
  return elements;
}

/// Adds quantised weights that are not those of experts.
LogicalResult CostAnalysis::addDequantized(DequantizeOp op) {
  FailureOr<Count> elements = elementsOf(op, op.getType());
  FailureOr<int64_t> bytes = bytesOfWeights(op, op.getResult());
  return success(succeeded(elements) && succeeded(bytes) &&
                 succeeded(add(op, cost.sharedWeights, elements->fixed)) &&
                 succeeded(add(op, cost.sharedWeightBytes, *bytes)));
}

/// Adds inputs, outputs, and the weights that are not those of experts.
LogicalResult CostAnalysis::addArguments() {
  llvm::SetVector<Operation *> makers;
  llvm::DenseSet<Value> ofExperts(parameters.begin(), parameters.end());
  BackwardSliceOptions options;
  options.inclusive = true;
  for (Value parameter : parameters)
    (void)getBackwardSlice(parameter, &makers, options);
  for (Operation *op : makers)
    ofExperts.insert(op->operand_begin(), op->operand_end());
  for (auto op : function.getOps<DequantizeOp>()) {
    if (makers.contains(op))
      continue;
    if (failed(addDequantized(op)))
      return failure();
    ofExperts.insert(op->operand_begin(), op->operand_end());
  }

  for (BlockArgument argument : function.getArguments()) {
    auto type = dyn_cast<RankedTensorType>(argument.getType());
    if (!type || ofExperts.contains(argument))
      continue;
    auto role = function.getArgAttrOfType<StringAttr>(argument.getArgNumber(),
                                                      "moe.role");
    bool isWeight = role && role.getValue() == "weight";
    FailureOr<Count> elements =
        addBytes(type, isWeight ? cost.sharedWeightBytes : cost.fixedBytes);
    if (failed(elements) ||
        (isWeight &&
         failed(add(function, cost.sharedWeights, elements->fixed))))
      return failure();
    if (isWeight)
      cost.idleWeights += countIdle(argument, elements->fixed);
  }
  for (auto [index, result] : llvm::enumerate(function.getResultTypes())) {
    auto type = dyn_cast<RankedTensorType>(result);
    if (!type)
      continue;
    int64_t each = cost.bytesPerToken, fixed = cost.fixedBytes;
    if (failed(addBytes(type, cost.fixedBytes)))
      return failure();
    if (isSaved(function, index)) {
      cost.savedBytesPerToken += cost.bytesPerToken - each;
      cost.savedFixedBytes += cost.fixedBytes - fixed;
    }
  }
  return success();
}

FailureOr<FunctionCost> CostAnalysis::run() {
  for (auto dispatch : function.getOps<DispatchOp>())
    cost.dispatches.push_back({dispatch});
  for (auto op : function.getOps<ExpertOp>())
    if (failed(addExpert(op)))
      return failure();
  Count flops;
  if (failed(addContractions(function.getBody(), flops)))
    return failure();
  cost.flopsPerToken = flops.each;
  cost.fixedFlops = flops.fixed;
  if (failed(addProducts()) || failed(addArguments()))
    return failure();
  return cost;
}

/// Adds, or returns the largest integer on overflow.
static int64_t saturatingSum(int64_t a, int64_t b) {
  int64_t sum;
  return llvm::AddOverflow(a, b, sum) ? std::numeric_limits<int64_t>::max()
                                      : sum;
}

int64_t FunctionCost::weights() const {
  int64_t sum = sharedWeights;
  for (const DispatchCost &dispatch : dispatches)
    sum = saturatingSum(sum, dispatch.weights);
  return sum;
}

int64_t FunctionCost::activatedWeights() const {
  int64_t sum = sharedWeights - idleWeights;
  for (const DispatchCost &each : dispatches) {
    DispatchOp dispatch = each.dispatch;
    int64_t choices =
        std::min<int64_t>(dispatch.getMaxChoices(), dispatch.getNumExperts());
    // At most all of them: weightsPerExpert is that of the largest expert.
    int64_t active;
    if (llvm::MulOverflow(each.weightsPerExpert, choices, active) ||
        active > each.weights)
      active = each.weights;
    sum = saturatingSum(sum, active);
  }
  return sum;
}

FailureOr<FunctionCost> mlir::moe::computeCost(func::FuncOp function) {
  return CostAnalysis(function).run();
}
