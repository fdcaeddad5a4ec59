//===- GroupedMatmulGradient.cpp - moe.grouped_matmul ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The last matmul of an expert is y = h · W with h = f(x · V), and its result
// is combined: the gradient of row r of y is s[r] · d[t(r)], with the gradient
// d of the tokens. One matmul with transposed weights, p[r] = d[t(r)] · Wᵀ, has
// in its epilogue all that is left of f and of the combine:
//
//   gradients of x · V    s[r] · p[r] · f'(x · V)
//   rows for that of W    s[r] · h[r]
//   gradient of s[r]      Σ p[r] · h[r], the dot product of d[t(r)] and y[r]
//
//===----------------------------------------------------------------------===//

#include "Gradients.h"
#include "ScalarGradient.h"

using namespace mlir;
using namespace mlir::moe;

//===----------------------------------------------------------------------===//
// Epilogues
//===----------------------------------------------------------------------===//

bool mlir::moe::isLinear(GroupedMatmulOp op) {
  if (!op.hasOneInit() || op.getNumAccumulators() != 1)
    return false;
  // Every value of a tree of additions is used once.
  for (Operation &nested : op.getEpilogue().front().without_terminator())
    if (!isa<arith::AddFOp, arith::ExtFOp, arith::TruncFOp>(nested) ||
        !nested.getResult(0).hasOneUse())
      return false;
  return llvm::all_of(op.getEpilogue().getArguments(),
                      [](Value argument) { return argument.hasOneUse(); });
}

bool mlir::moe::hasDots(GroupedMatmulOp op) {
  AffineExpr row = getAffineDimExpr(1, op.getContext());
  for (unsigned i = 0; i < op.getExtras().size(); ++i) {
    AffineMap map = op.getOperandMap(i);
    if (map.getResultPosition(row) ||
        map.getNumResults() != (map.isFunctionOfDim(0) ? 2u : 1u) ||
        !map.isFunctionOfDim(2))
      return false;
  }
  return !op.getGather();
}

/// True if the derivative of the epilogue by its accumulators and by the active
/// operands reads the accumulators.
static bool readsSums(GroupedMatmulOp op, Gradients &g) {
  llvm::DenseSet<Value> dependent;
  Block &body = op.getEpilogue().front();
  for (Value sum : body.getArguments().take_front(op.getNumAccumulators()))
    dependent.insert(sum);
  for (Operation &nested : body.without_terminator()) {
    unsigned count = llvm::count_if(nested.getOperands(), [&](Value operand) {
      return dependent.contains(operand);
    });
    if (count == 0)
      continue;
    bool adds = isa<arith::AddFOp, arith::SubFOp, arith::NegFOp, arith::ExtFOp,
                    arith::TruncFOp>(nested);
    bool scales = isa<arith::MulFOp>(nested) && count == 1;
    if (!adds && !scales)
      return true;
    dependent.insert(nested.getResult(0));
    if (!scales)
      continue;
    // The gradient of a factor is the product with the other one.
    if (llvm::any_of(op.getExtras(), [&](Value v) { return g.isActive(v); }))
      return true;
  }
  return false;
}

namespace {
/// The derivative of an epilogue, as a part of a RowMap.
class EpilogueGradient {
public:
  EpilogueGradient(GroupedMatmulOp op, Gradients &g) : op(op), g(g) {}

  /// Adds what the derivative reads, and its results. With `needsValue` the
  /// value of the epilogue is computed, too.
  void addTo(RowMap &map, bool needsValue);
  /// Builds the derivative times `gradient`. Appends its results.
  LogicalResult build(ImplicitLocOpBuilder &b, ValueRange elements,
                      Value gradient, SmallVectorImpl<Value> &results);
  /// The value of the epilogue in f32, after `build`.
  Value value;
  /// Adds the gradients of the operands of the matmul; `results` begin with
  /// those that were added to the map.
  LogicalResult finish(ArrayRef<Value> results);

private:
  GroupedMatmulOp op;
  Gradients &g;
  SmallVector<unsigned> sums, extras; // among the operands of the map
  SmallVector<unsigned> activeSums, activeExtras;
  IRMapping captured;
};
} // namespace

void EpilogueGradient::addTo(RowMap &map, bool needsValue) {
  if (needsValue || readsSums(op, g))
    for (Value sum : g.accumulators(op))
      sums.push_back(map.addRows(sum));
  for (auto [index, extra] : llvm::enumerate(op.getExtras()))
    extras.push_back(map.addOperand(g.forward(extra), op.getOperandMap(index)));
  captured = g.capturedBy(op);
  Type rows = getElementTypeOrSelf(op.getLhs());
  for (auto [index, weights] : llvm::enumerate(op.getWeights()))
    if (g.isActive(op.getLhs()) || g.isActive(weights)) {
      activeSums.push_back(index);
      map.addResult(rows);
    }
  for (auto [index, extra] : llvm::enumerate(op.getExtras()))
    if (g.isActive(extra)) {
      activeExtras.push_back(index);
      map.addResult(Float32Type::get(op.getContext()),
                    op.getOperandMap(index).isFunctionOfDim(1));
    }
}

LogicalResult EpilogueGradient::build(ImplicitLocOpBuilder &b,
                                      ValueRange elements, Value gradient,
                                      SmallVectorImpl<Value> &results) {
  Block &body = op.getEpilogue().front();
  unsigned numSums = op.getNumAccumulators();
  IRMapping mapping = captured;
  for (unsigned i = 0; i < numSums; ++i)
    mapping.map(
        body.getArgument(i),
        sums.empty()
            ? arith::ConstantOp::create(b, b.getF32FloatAttr(0.0)).getResult()
            : toF32(b, elements[sums[i]]));
  for (auto [index, extra] : llvm::enumerate(extras))
    mapping.map(body.getArgument(numSums + index), elements[extra]);
  for (Operation &nested : body.without_terminator())
    b.clone(nested, mapping);
  Value yielded = op.getYield().getValue();
  value = toF32(b, mapping.lookupOrDefault(yielded));

  SmallVector<Value> arguments;
  for (unsigned i : activeSums)
    arguments.push_back(body.getArgument(i));
  for (unsigned i : activeExtras)
    arguments.push_back(body.getArgument(numSums + i));
  ScalarGradient scalars(b, mapping);
  scalars.add(yielded, gradient);
  if (failed(scalars.run(body, arguments)))
    return failure();
  for (Value argument : arguments) {
    Value result = scalars.of(argument);
    results.push_back(
        result ? result : arith::ConstantOp::create(b, b.getF32FloatAttr(0.0)));
  }
  return success();
}

//===----------------------------------------------------------------------===//
// Operands
//===----------------------------------------------------------------------===//

static RowGroups groupsOf(GroupedMatmulOp op, Gradients &g) {
  std::optional<int64_t> first;
  if (op.getFirst())
    first = *op.getFirst();
  return {op.getOffsets() ? g.forward(op.getOffsets()) : Value(), first,
          op.getExpertCount()};
}

/// Contracts rows of the experts.
static Value contract(Gradients &g, RowGroups groups, Value lhs,
                      Value lhsGather, Value rhs, Value rhsGather,
                      Type element) {
  auto columns = [](Value rows) {
    return cast<RankedTensorType>(rows.getType()).getDimSize(1);
  };
  ImplicitLocOpBuilder &b = g.b;
  Value init =
      g.empty({b.getIndexAttr(groups.experts), b.getIndexAttr(columns(lhs)),
               b.getIndexAttr(columns(rhs))},
              element);
  return GroupedContractOp::create(
             b, init.getType(), lhs, lhsGather, rhs, rhsGather, groups.offsets,
             init,
             groups.first ? b.getI64IntegerAttr(*groups.first) : IntegerAttr(),
             /*accumulate=*/false)
      .getResult();
}

/// Adds the gradient of weights from rows and the gradient of the accumulator.
static void addWeightGradient(GroupedMatmulOp op, unsigned index, Gradients &g,
                              Value rows, Value rowsGather, Value gradient,
                              Value gradientGather) {
  Value weights = op.getWeights()[index];
  Type element = g.elementOf(weights);
  RowGroups groups = groupsOf(op, g);
  g.add(weights, op.getTransposed()
                     ? contract(g, groups, gradient, gradientGather, rows,
                                rowsGather, element)
                     : contract(g, groups, rows, rowsGather, gradient,
                                gradientGather, element));
}

/// Adds the gradient of `lhs`, given for the rows that the matmul reads.
static LogicalResult addRowsGradient(GroupedMatmulOp op, Gradients &g,
                                     Value gradient) {
  if (!op.getGather()) {
    g.add(op.getLhs(), gradient);
    return success();
  }
  auto route = op.getGather().getDefiningOp<RouteOp>();
  if (!route || op.getGather() != route.getTokens())
    return op.emitOpError("has no gradient: its rows are gathered by other "
                          "indices than those of a moe.route");
  Value source = op.getLhs(), positions = route.getPositions();
  // A token adds the rows of its choices on its own rank.
  if (std::optional<RoundTrip> trip = findTripOf(source)) {
    source = trip->leaving.getSources().front();
    positions = trip->partition.getHome();
    if (!g.isActive(source))
      return success();
    gradient = bringHome(*trip, g, gradient);
  }
  positions = g.forward(positions);
  auto type = cast<RankedTensorType>(gradient.getType());
  Value init =
      g.empty({g.size(positions, 0), g.b.getIndexAttr(type.getDimSize(1))},
              type.getElementType());
  g.add(source,
        GatherSumOp::create(g.b, init.getType(), gradient, positions,
                            /*weights=*/Value(), /*dropped=*/Value(), init)
            .getResult());
  return success();
}

/// Sums a tensor in f32 over some dimensions.
static Value reduce(Gradients &g, Value tensor, ArrayRef<int64_t> dims) {
  ImplicitLocOpBuilder &b = g.b;
  auto type = cast<RankedTensorType>(tensor.getType());
  SmallVector<OpFoldResult> sizes;
  SmallVector<AffineExpr> kept;
  SmallVector<utils::IteratorType> iterators;
  for (int64_t dim = 0; dim < type.getRank(); ++dim) {
    bool isSummed = llvm::is_contained(dims, dim);
    iterators.push_back(isSummed ? utils::IteratorType::reduction
                                 : utils::IteratorType::parallel);
    if (isSummed)
      continue;
    sizes.push_back(g.size(tensor, dim));
    kept.push_back(b.getAffineDimExpr(dim));
  }
  Value init = g.zeros(sizes, b.getF32Type());
  return linalg::GenericOp::create(
             b, init.getType(), tensor, init,
             SmallVector<AffineMap>{
                 b.getMultiDimIdentityMap(type.getRank()),
                 AffineMap::get(type.getRank(), 0, kept, b.getContext())},
             iterators,
             [](OpBuilder &builder, Location loc, ValueRange v) {
               ImplicitLocOpBuilder inner(loc, builder);
               Value total =
                   arith::AddFOp::create(inner, v[1], toF32(inner, v[0]));
               linalg::YieldOp::create(inner, total);
             })
      .getResult(0);
}

/// Adds the gradient of an operand of the epilogue from those of its elements.
static LogicalResult addExtraGradient(GroupedMatmulOp op, unsigned index,
                                      Gradients &g, RowGradient gradient) {
  ImplicitLocOpBuilder &b = g.b;
  AffineMap map = op.getOperandMap(index);
  Value extra = op.getExtras()[index];
  SmallVector<unsigned> dims;
  for (AffineExpr expr : map.getResults())
    dims.push_back(cast<AffineDimExpr>(expr).getPosition());
  bool ofExpert = map.isFunctionOfDim(0), ofRow = map.isFunctionOfDim(1),
       ofColumn = map.isFunctionOfDim(2);
  if (!llvm::is_sorted(dims) || (ofExpert && ofRow))
    return op.emitOpError("has no gradient for operand ")
           << index << " with the map " << AffineMapAttr::get(map);
  if (ofRow) {
    // What is read here is zero in rows of no expert.
    Value rows = gradient.matrix;
    if (gradient.gather || gradient.scale)
      return op.emitOpError("has no gradient for operand ")
             << index << ", which has a number for each combined row";
    g.add(extra, ofColumn ? rows : reduce(g, rows, {1}));
    return success();
  }
  Type f32 = b.getF32Type();
  Value matrix = g.convert(gradient.matrix, f32);
  OpFoldResult rows =
      g.size(gradient.gather ? gradient.gather : gradient.matrix, 0);
  Value factors; // [R, 1]
  if (gradient.scale) {
    auto type = cast<RankedTensorType>(gradient.scale.getType());
    factors = tensor::ExpandShapeOp::create(
        b, RankedTensorType::get({type.getDimSize(0), 1}, f32), gradient.scale,
        SmallVector<ReassociationIndices>{{0, 1}},
        SmallVector<OpFoldResult>{rows, b.getIndexAttr(1)});
  } else {
    Value one = arith::ConstantOp::create(b, b.getF32FloatAttr(1.0));
    factors =
        linalg::FillOp::create(b, one, g.empty({rows, b.getIndexAttr(1)}, f32))
            .getResult(0);
  }
  Value sums = contract(g, groupsOf(op, g), factors, Value(), matrix,
                        gradient.gather, f32);
  sums = tensor::CollapseShapeOp::create(
      b, sums, SmallVector<ReassociationIndices>{{0}, {1, 2}});
  SmallVector<int64_t> summed;
  if (!ofExpert)
    summed.push_back(0);
  if (!ofColumn)
    summed.push_back(1);
  g.add(extra, summed.empty() ? sums : reduce(g, sums, summed));
  return success();
}

/// Builds the product of `map` plus the rows `total`, if that is not null.
static Value addProduct(RowMap &map, Value total, Type element, bool zeroRest) {
  if (total)
    map.addRows(total);
  map.addResult(element, zeroRest);
  // The body has no error.
  return map
      .build([](ImplicitLocOpBuilder &b, Value product, ValueRange elements,
                SmallVectorImpl<Value> &results) {
        if (!elements.empty())
          product = arith::AddFOp::create(b, elements[0], product);
        results.push_back(product);
        return success();
      })
      ->front();
}

/// Adds the gradients of the operands from those of some accumulators.
static LogicalResult
addOperandGradients(GroupedMatmulOp op, Gradients &g,
                    ArrayRef<std::pair<unsigned, Value>> accumulators) {
  ImplicitLocOpBuilder &b = g.b;
  bool rowsActive = g.isActive(op.getLhs());
  for (auto [index, gradient] : accumulators)
    if (g.isActive(op.getWeights()[index]))
      addWeightGradient(op, index, g, g.forward(op.getLhs()),
                        op.getGather() ? g.forward(op.getGather()) : Value(),
                        gradient, Value());
  if (!rowsActive)
    return success();
  // The sum over the matmuls, in f32 up to the last one.
  Value total;
  for (auto [index, gradient] : accumulators) {
    bool isLast = index == accumulators.back().first;
    RowMap map(b, groupsOf(op, g), g.size(gradient, 0), op.getK());
    map.multiply(gradient, Value(), g.forward(op.getWeights()[index]),
                 !op.getTransposed());
    total = addProduct(
        map, total, isLast ? getElementTypeOrSelf(op.getLhs()) : b.getF32Type(),
        /*zeroRest=*/isLast && op.getOffsets() && !op.getGather());
  }
  return addRowsGradient(op, g, total);
}

LogicalResult EpilogueGradient::finish(ArrayRef<Value> results) {
  SmallVector<std::pair<unsigned, Value>> accumulators;
  for (auto [index, result] : llvm::zip(activeSums, results))
    accumulators.push_back({index, result});
  for (auto [index, result] :
       llvm::zip(activeExtras, results.drop_front(activeSums.size())))
    if (failed(addExtraGradient(op, index, g, {result, Value(), Value()})))
      return failure();
  return addOperandGradients(op, g, accumulators);
}

//===----------------------------------------------------------------------===//
// Matmuls
//===----------------------------------------------------------------------===//

static LogicalResult verifyDifferentiable(GroupedMatmulOp op, Gradients &g) {
  if (op.getPanels() || op.isQuantized() || !op.hasOneInit())
    return op.emitOpError("has no gradient: its weights are packed or "
                          "quantised, or it has several results");
  if (op.getOffsets() && g.isActive(op.getInit()))
    return op.emitOpError("has no gradient: rows of no expert keep values that "
                          "depend on an argument");
  return success();
}

/// Returns the matmul that computes the rows of `op` alone, by an epilogue
/// whose derivative can be one of the product with the weights of `op`.
static GroupedMatmulOp activationOf(GroupedMatmulOp op, Gradients &g) {
  auto before = op.getLhs().getDefiningOp<GroupedMatmulOp>();
  bool sameGroups = before && !op.getGather() &&
                    before.getOffsets() == op.getOffsets() &&
                    before.getFirstExpert() == op.getFirstExpert() &&
                    before.getExpertCount() == op.getExpertCount();
  if (!sameGroups || !before.hasOneInit() || before.getPanels() ||
      before.isQuantized() || isLinear(before) || g.isActive(before.getInit()))
    return {};
  return isReadOnlyBy(op.getLhs(), op) ? before : GroupedMatmulOp();
}

/// True if the epilogue reads operands that differ from expert to expert.
static bool hasExpertOperands(GroupedMatmulOp op) {
  for (unsigned i = 0; i < op.getExtras().size(); ++i)
    if (op.getOperandMap(i).isFunctionOfDim(0) && op.getExpertCount() > 1)
      return true;
  return false;
}

/// True if every row is known to be one of an expert: no choice was dropped.
static bool coversAllRows(GroupedMatmulOp op) {
  if (!op.getOffsets())
    return true;
  auto route = op.getOffsets().getDefiningOp<RouteOp>();
  auto gate = route ? route.getIds().getDefiningOp<GateOp>() : GateOp();
  return gate && !gate.getThreshold() && !route.getCapacity();
}

/// Dot products of the gradient and of the operands of an epilogue that adds
/// them, `[R]` in f32; null without such operands.
static Value dotsOfExtras(GroupedMatmulOp op, Gradients &g,
                          RowGradient gradient, OpFoldResult rows) {
  ImplicitLocOpBuilder &b = g.b;
  Value total;
  RowGroups groups = groupsOf(op, g);
  Type element = getElementTypeOrSelf(gradient.matrix);
  for (auto [index, extra] : llvm::enumerate(op.getExtras())) {
    // As weights [E, N, 1].
    Value column = g.convert(g.forward(extra), element);
    int64_t n = op.getN(), experts = groups.experts;
    if (op.getOperandMap(index).isFunctionOfDim(0)) {
      column = tensor::ExpandShapeOp::create(
          b, RankedTensorType::get({experts, n, 1}, element), column,
          SmallVector<ReassociationIndices>{{0}, {1, 2}});
    } else {
      Value init = g.empty(
          {b.getIndexAttr(experts), b.getIndexAttr(n), b.getIndexAttr(1)},
          element);
      AffineMap map = AffineMap::get(3, 0, b.getAffineDimExpr(1));
      column = linalg::GenericOp::create(
                   b, init.getType(), column, init,
                   SmallVector<AffineMap>{map, b.getMultiDimIdentityMap(3)},
                   SmallVector<utils::IteratorType>(
                       3, utils::IteratorType::parallel),
                   [](OpBuilder &inner, Location loc, ValueRange v) {
                     linalg::YieldOp::create(inner, loc, v[0]);
                   })
                   .getResult(0);
    }
    RowMap map(b, groups, rows, 1);
    map.multiply(gradient.matrix, gradient.gather, column,
                 /*transposed=*/false);
    total = addProduct(map, total, b.getF32Type(), /*zeroRest=*/false);
  }
  if (!total)
    return Value();
  return tensor::CollapseShapeOp::create(
             b, total, SmallVector<ReassociationIndices>{{0, 1}})
      .getResult();
}

LogicalResult mlir::moe::differentiateLinear(GroupedMatmulOp op,
                                             RowGradient gradient, Gradients &g,
                                             Value *dots) {
  if (failed(verifyDifferentiable(op, g)))
    return failure();
  ImplicitLocOpBuilder &b = g.b;
  b.setLoc(op.getLoc());
  for (auto [index, extra] : llvm::enumerate(op.getExtras()))
    if (g.isActive(extra) && failed(addExtraGradient(op, index, g, gradient)))
      return failure();
  Value weights = op.getWeights().front();
  Type element = getElementTypeOrSelf(weights);
  gradient.matrix = g.convert(gradient.matrix, element);
  bool rowsActive = g.isActive(op.getLhs()),
       weightsActive = g.isActive(weights);
  OpFoldResult rows =
      g.size(gradient.gather ? gradient.gather : gradient.matrix, 0);
  Value extraDots = dots ? dotsOfExtras(op, g, gradient, rows) : Value();

  bool multiplies = rowsActive || dots;
  // Without a product the rows are computed again from the accumulators alone.
  GroupedMatmulOp before = activationOf(op, g);
  if (before && !multiplies && (!weightsActive || hasExpertOperands(before)))
    before = {};
  // Rows of the result, with one for the gradient of the weights if rows are
  // scaled: the scale belongs to either side of the contraction.
  bool scalesRows = weightsActive && gradient.scale && !op.getGather();
  bool keepsRows = weightsActive && (scalesRows || before);
  RowMap map(b, groupsOf(op, g), rows, op.getK());
  if (multiplies)
    map.multiply(gradient.matrix, gradient.gather, g.forward(weights),
                 !op.getTransposed());
  std::optional<unsigned> scale, rowsOperand;
  if (gradient.scale)
    scale = map.addRowVector(gradient.scale);
  EpilogueGradient epilogue(before, g);
  if (before)
    epilogue.addTo(map, /*needsValue=*/keepsRows || dots);
  else if (dots || scalesRows)
    rowsOperand = map.addRows(g.forward(op.getLhs()));
  if (!before && rowsActive)
    map.addResult(getElementTypeOrSelf(op.getLhs()),
                  op.getOffsets() && !op.getGather());
  if (keepsRows)
    map.addResult(getElementTypeOrSelf(op.getLhs()));
  // Their sums read rows of no expert, too.
  if (dots)
    map.addResult(b.getF32Type(), /*zeroRest=*/!coversAllRows(op));

  auto built = map.build([&](ImplicitLocOpBuilder &b, Value product,
                             ValueRange elements,
                             SmallVectorImpl<Value> &results) {
    auto scaled = [&](Value value) {
      return scale
                 ? arith::MulFOp::create(b, value, elements[*scale]).getResult()
                 : value;
    };
    Value value;
    if (before) {
      Value gradient = product ? scaled(product) : Value();
      if (failed(epilogue.build(b, elements, gradient, results)))
        return failure();
      value = epilogue.value;
    } else {
      if (rowsOperand)
        value = toF32(b, elements[*rowsOperand]);
      if (rowsActive)
        results.push_back(scaled(product));
    }
    if (keepsRows)
      results.push_back(scaled(value));
    if (dots)
      results.push_back(arith::MulFOp::create(b, product, value));
    return success();
  });
  if (failed(built))
    return failure();
  SmallVector<Value> &results = *built;
  if (dots) {
    *dots = reduce(g, results.pop_back_val(), {1});
    if (extraDots)
      *dots = g.sum(*dots, extraDots);
  }
  if (keepsRows) {
    addWeightGradient(op, 0, g, results.pop_back_val(), Value(),
                      gradient.matrix, gradient.gather);
  } else if (weightsActive) {
    Value gather = op.getGather() ? g.forward(op.getGather()) : Value();
    Value ofSums = gradient.matrix, ofSumsGather = gradient.gather;
    if (gradient.scale) {
      ofSums = g.materialize(gradient);
      ofSumsGather = Value();
    }
    addWeightGradient(op, 0, g, g.forward(op.getLhs()), gather, ofSums,
                      ofSumsGather);
  }
  if (before) {
    g.setDone(before);
    b.setLoc(before.getLoc());
    return epilogue.finish(results);
  }
  return rowsActive ? addRowsGradient(op, g, results.front()) : success();
}

LogicalResult mlir::moe::differentiate(GroupedMatmulOp op, Gradients &g) {
  if (failed(verifyDifferentiable(op, g)))
    return failure();
  if (isLinear(op))
    return differentiateLinear(op, g.ofRows(op.getResult()), g);
  Value gradient = g.of(op.getResult());
  RowMap map(g.b, groupsOf(op, g), g.size(gradient, 0), op.getN());
  unsigned operand = map.addRows(gradient);
  EpilogueGradient epilogue(op, g);
  epilogue.addTo(map, /*needsValue=*/false);
  auto built = map.build([&](ImplicitLocOpBuilder &b, Value,
                             ValueRange elements,
                             SmallVectorImpl<Value> &results) {
    return epilogue.build(b, elements, toF32(b, elements[operand]), results);
  });
  return failed(built) ? failure() : epilogue.finish(*built);
}
