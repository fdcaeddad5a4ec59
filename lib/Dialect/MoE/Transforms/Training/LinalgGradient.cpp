//===- LinalgGradient.cpp - linalg.generic --------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The gradient of an input is a linalg.generic over the same loops, with the
// dimensions that the input lacks as reductions. That of a tensor that the body
// reads at indices of its own is a loop nest.
//
//===----------------------------------------------------------------------===//

#include "Gradients.h"
#include "ScalarGradient.h"

#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Transforms/RegionUtils.h"

using namespace mlir;
using namespace mlir::moe;

namespace {
/// How an output is computed from the body: its elements, their sum with what
/// was there, the largest or smallest of both, or the last one that is chosen
/// (a scatter).
enum class Combiner { None, Sum, Extreme, Last };
struct Output {
  Combiner combiner;
  Value term;           // what the body computes, without the old element
  Value condition = {}; // of the last one
  bool whenFalse = false;
};
} // namespace

static FailureOr<Output> readOutput(linalg::GenericOp op, unsigned index) {
  Value old = op.getRegionOutputArgs()[index];
  Value yielded = op.getBody()->getTerminator()->getOperand(index);
  // Without a reduction the old element is an input.
  if (old.use_empty() || op.getNumParallelLoops() == op.getNumLoops())
    return Output{Combiner::None, yielded};
  Operation *last = yielded.getDefiningOp();
  if (auto select = dyn_cast_or_null<arith::SelectOp>(last);
      select && old.hasOneUse() && select.getCondition() != old &&
      select->getBlock() == op.getBody()) {
    bool keepsFirst = select.getTrueValue() == old;
    return Output{Combiner::Last,
                  keepsFirst ? select.getFalseValue() : select.getTrueValue(),
                  select.getCondition(), keepsFirst};
  }
  bool sums = isa_and_nonnull<arith::AddFOp>(last);
  bool isExtreme = isa_and_nonnull<arith::MaximumFOp, arith::MaxNumFOp,
                                   arith::MinimumFOp, arith::MinNumFOp>(last);
  if ((!sums && !isExtreme) || !old.hasOneUse() ||
      last->getBlock() != op.getBody() ||
      !llvm::is_contained(last->getOperands(), old))
    return failure();
  Value term =
      last->getOperand(0) == old ? last->getOperand(1) : last->getOperand(0);
  return Output{sums ? Combiner::Sum : Combiner::Extreme, term};
}

namespace {
class GenericGradient {
public:
  GenericGradient(linalg::GenericOp op, Gradients &g) : op(op), g(g), b(g.b) {}

  LogicalResult run();

private:
  InFlightDiagnostic refuse(const Twine &why) {
    return op.emitOpError("has no gradient: ") << why;
  }
  LogicalResult readOutputs();
  LogicalResult readExtracts();
  void readInputs();
  /// Clones the body for elements of `inputs` and propagates the gradients of
  /// the results to `targets`; returns those.
  FailureOr<SmallVector<Value>> build(ImplicitLocOpBuilder &inner,
                                      IRMapping &mapping, ValueRange elements,
                                      ArrayRef<Value> targets);
  LogicalResult addInputGradient(OpOperand *operand);
  LogicalResult addExtractGradient(Value tensor);

  linalg::GenericOp op;
  Gradients &g;
  ImplicitLocOpBuilder &b;
  SmallVector<Output> outputs;
  SmallVector<Value> gradients; // of results; null: none has reached it
  /// Operands that the body reads element by element.
  SmallVector<OpOperand *> operands;
  /// Tensors with a gradient that the body reads at indices of its own.
  llvm::MapVector<Value, SmallVector<tensor::ExtractOp>> extracts;
  /// In the backward function: the operands, then the gradients of results and,
  /// of extremes, the results.
  SmallVector<Value> inputs;
  SmallVector<AffineMap> maps;
  SmallVector<std::optional<unsigned>> gradientOf, resultOf; // results, inputs
  IRMapping captured;
};
} // namespace

LogicalResult GenericGradient::readExtracts() {
  llvm::SetVector<Value> used;
  getUsedValuesDefinedAbove(op->getRegions(), used);
  for (Value value : used) {
    if (!g.isActive(value))
      continue;
    for (Operation *user : value.getUsers()) {
      if (!op->isProperAncestor(user) || isa<tensor::DimOp>(user))
        continue;
      auto extract = dyn_cast<tensor::ExtractOp>(user);
      if (!extract || extract->getBlock() != op.getBody())
        return refuse("its body reads a tensor that depends on an argument");
      extracts[value].push_back(extract);
    }
  }
  return success();
}

LogicalResult GenericGradient::readOutputs() {
  for (unsigned i = 0; i < op->getNumResults(); ++i) {
    FailureOr<Output> output = readOutput(op, i);
    Value gradient = g.of(op->getResult(i)), init = op.getDpsInits()[i];
    if (failed(output)) {
      if (gradient)
        return refuse("a reduction other than a sum, a maximum, a minimum or a "
                      "scatter");
      output = Output{Combiner::None, Value()};
    }
    outputs.push_back(*output);
    gradients.push_back(gradient);
    if (!gradient || output->combiner == Combiner::None)
      continue;
    // What was there before a sum.
    if (output->combiner == Combiner::Sum)
      g.add(init, gradient);
    else if (g.isActive(init))
      return refuse("the initial value of a reduction depends on an argument");
  }
  return success();
}

void GenericGradient::readInputs() {
  operands = op.getDpsInputOperands();
  if (op.getNumParallelLoops() == op.getNumLoops())
    for (OpOperand &init : op.getDpsInitsMutable())
      if (!op.getMatchingBlockArgument(&init).use_empty())
        operands.push_back(&init);
  auto addInput = [&](Value value, OpOperand *like) {
    inputs.push_back(value);
    maps.push_back(op.getMatchingIndexingMap(like));
    return unsigned(inputs.size() - 1);
  };
  for (OpOperand *operand : operands)
    addInput(g.forward(operand->get()), operand);
  for (auto [i, gradient] : llvm::enumerate(gradients)) {
    OpOperand *init = op.getDpsInitOperand(i);
    gradientOf.push_back(std::nullopt);
    resultOf.push_back(std::nullopt);
    if (!gradient)
      continue;
    gradientOf.back() = addInput(gradient, init);
    if (outputs[i].combiner == Combiner::Extreme)
      resultOf.back() = addInput(g.forward(op->getResult(i)), init);
  }
  captured = g.capturedBy(op);
}

FailureOr<SmallVector<Value>>
GenericGradient::build(ImplicitLocOpBuilder &inner, IRMapping &mapping,
                       ValueRange elements, ArrayRef<Value> targets) {
  for (auto [operand, element] : llvm::zip(operands, elements))
    mapping.map(op.getMatchingBlockArgument(operand), element);
  for (Value old : op.getRegionOutputArgs())
    if (!old.use_empty() && !mapping.contains(old))
      mapping.map(old, arith::ConstantOp::create(
                           inner, inner.getZeroAttr(old.getType())));
  for (Operation &nested : op.getBody()->without_terminator())
    if (nested.getNumResults() != 1 || !mapping.contains(nested.getResult(0)))
      inner.clone(nested, mapping);
  Value zero = arith::ConstantOp::create(inner, inner.getF32FloatAttr(0.0));
  auto onlyIf = [&](Value condition, Value gradient, bool negated) -> Value {
    return negated ? arith::SelectOp::create(inner, condition, zero, gradient)
                   : arith::SelectOp::create(inner, condition, gradient, zero);
  };
  ScalarGradient scalars(inner, mapping);
  for (auto [i, output] : llvm::enumerate(outputs)) {
    if (!gradientOf[i])
      continue;
    Value gradient = toF32(inner, elements[*gradientOf[i]]);
    if (output.combiner == Combiner::Extreme) {
      Value isExtreme = arith::CmpFOp::create(
          inner, arith::CmpFPredicate::OEQ,
          mapping.lookupOrDefault(output.term), elements[*resultOf[i]]);
      gradient = onlyIf(isExtreme, gradient, /*negated=*/false);
    } else if (output.combiner == Combiner::Last) {
      gradient = onlyIf(mapping.lookupOrDefault(output.condition), gradient,
                        output.whenFalse);
    }
    scalars.add(output.term, gradient);
  }
  if (failed(scalars.run(*op.getBody(), targets)))
    return failure();
  return llvm::map_to_vector(targets, [&](Value target) {
    Value gradient = scalars.of(target);
    return gradient ? gradient : zero;
  });
}

LogicalResult GenericGradient::addInputGradient(OpOperand *operand) {
  Value value = operand->get();
  AffineMap map = op.getMatchingIndexingMap(operand);
  if (!map.isProjectedPermutation(/*allowZeroInResults=*/false))
    return refuse("an operand is not indexed by a projection of the loops");
  SmallVector<utils::IteratorType> iterators(op.getNumLoops(),
                                             utils::IteratorType::reduction);
  for (AffineExpr expr : map.getResults())
    iterators[cast<AffineDimExpr>(expr).getPosition()] =
        utils::IteratorType::parallel;
  bool reduces = llvm::is_contained(iterators, utils::IteratorType::reduction);
  SmallVector<OpFoldResult> sizes = g.sizes(g.forward(value));
  Value init =
      reduces ? g.zeros(sizes, b.getF32Type()) : g.empty(sizes, b.getF32Type());
  SmallVector<AffineMap> all(maps);
  all.push_back(map);
  LogicalResult built = success();
  auto generic = linalg::GenericOp::create(
      b, init.getType(), inputs, init, all, iterators,
      [&](OpBuilder &builder, Location loc, ValueRange arguments) {
        ImplicitLocOpBuilder inner(loc, builder);
        IRMapping mapping = captured;
        FailureOr<SmallVector<Value>> found =
            build(inner, mapping, arguments.drop_back(),
                  Value(op.getMatchingBlockArgument(operand)));
        Value result = arguments.back();
        if (failed(found))
          built = failure();
        else
          result = reduces
                       ? arith::AddFOp::create(inner, result, found->front())
                             .getResult()
                       : found->front();
        linalg::YieldOp::create(inner, result);
      });
  if (succeeded(built))
    g.add(value, generic.getResult(0));
  return built;
}

/// Builds a loop nest that adds up the gradient of a tensor that the body reads
/// at indices that it computes: in order, since they may repeat.
LogicalResult GenericGradient::addExtractGradient(Value tensor) {
  Value init = g.zeros(g.sizes(g.forward(tensor)), b.getF32Type());
  SmallVector<Value> extents(op.getNumLoops());
  for (auto [input, map] : llvm::zip_equal(inputs, maps))
    for (auto [dim, expr] : llvm::enumerate(map.getResults()))
      if (auto loop = dyn_cast<AffineDimExpr>(expr))
        if (Value &extent = extents[loop.getPosition()]; !extent)
          extent = getValueOrCreateConstantIndexOp(b, b.getLoc(),
                                                   g.size(input, dim));
  if (llvm::is_contained(extents, Value()))
    return refuse("the extent of a loop is that of no operand");
  SmallVector<Value> targets, indices;
  for (tensor::ExtractOp extract : extracts[tensor])
    targets.push_back(extract.getResult());
  LogicalResult built = success();
  Value zero = arith::ConstantIndexOp::create(b, 0),
        one = arith::ConstantIndexOp::create(b, 1);
  auto innermost = [&](Value sum) -> Value {
    SmallVector<Value> elements;
    for (auto [input, map] : llvm::zip_equal(inputs, maps)) {
      SmallVector<Value> at;
      for (AffineExpr expr : map.getResults()) {
        auto dim = dyn_cast<AffineDimExpr>(expr);
        auto number = dyn_cast<AffineConstantExpr>(expr);
        if (!dim && !number) {
          built = refuse("an operand is not indexed by a projection of the "
                         "loops");
          return sum;
        }
        at.push_back(dim ? indices[dim.getPosition()]
                         : arith::ConstantIndexOp::create(b, number.getValue())
                               .getResult());
      }
      elements.push_back(
          isa<RankedTensorType>(input.getType())
              ? tensor::ExtractOp::create(b, input, at).getResult()
              : input);
    }
    IRMapping mapping = captured;
    for (auto index : op.getBody()->getOps<linalg::IndexOp>())
      mapping.map(index.getResult(), indices[index.getDim()]);
    FailureOr<SmallVector<Value>> found = build(b, mapping, elements, targets);
    if (failed(found)) {
      built = failure();
      return sum;
    }
    for (auto [extract, gradient] : llvm::zip_equal(extracts[tensor], *found)) {
      SmallVector<Value> at =
          llvm::map_to_vector(extract.getIndices(), [&](Value index) {
            return mapping.lookupOrDefault(index);
          });
      Value before = tensor::ExtractOp::create(b, sum, at);
      Value after = arith::AddFOp::create(b, before, gradient);
      sum = tensor::InsertOp::create(b, after, sum, at);
    }
    return sum;
  };
  std::function<Value(Value)> nest = [&](Value sum) -> Value {
    if (indices.size() == extents.size())
      return innermost(sum);
    auto loop = scf::ForOp::create(b, zero, extents[indices.size()], one, sum);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(loop.getBody());
    indices.push_back(loop.getInductionVar());
    scf::YieldOp::create(b, nest(loop.getRegionIterArg(0)));
    indices.pop_back();
    return loop.getResult(0);
  };
  Value sum = nest(init);
  if (succeeded(built))
    g.add(tensor, sum);
  return built;
}

LogicalResult GenericGradient::run() {
  if (failed(readExtracts()) || failed(readOutputs()))
    return failure();
  readInputs();
  for (OpOperand *operand : operands)
    if (g.isActive(operand->get()) && failed(addInputGradient(operand)))
      return failure();
  for (auto &[tensor, _] : extracts)
    if (failed(addExtractGradient(tensor)))
      return failure();
  return success();
}

LogicalResult mlir::moe::differentiate(linalg::GenericOp op, Gradients &g) {
  return GenericGradient(op, g).run();
}
