//===- GatherSumGradient.cpp - Gradients of combine, dispatch and gate ----===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The operations that move rows between tokens and choices.
//
//===----------------------------------------------------------------------===//

#include "Gradients.h"

#include "mlir/Dialect/SCF/IR/SCF.h"

using namespace mlir;
using namespace mlir::moe;

//===----------------------------------------------------------------------===//
// moe.gate
//===----------------------------------------------------------------------===//

LogicalResult mlir::moe::differentiate(AuxiliaryLossOp op, Gradients &g) {
  auto forward = [&](Value value) {
    return value ? g.forward(value) : Value();
  };
  Value gradient = g.of(op.getResult());
  g.add(op.getValues(), AuxiliaryLossGradientOp::create(
                            g.b, op.getFormulaAttr(), forward(op.getValues()),
                            gradient, forward(op.getIds()),
                            forward(op.getMask()), forward(op.getSequences()),
                            op.getScoreAttr(), op.getNumExpertsAttr(),
                            op.getChoicesAttr(), op.getCoefficientAttr()));
  return success();
}

LogicalResult mlir::moe::differentiate(GateOp op, Gradients &g) {
  // The ids no longer tell which choices the softmax ran over.
  if (op.getThreshold() && op.getOrder() == Order::SelectThenScore &&
      op.getScore() == Score::Softmax)
    return op.emitOpError("has no gradient: a threshold leaves out choices "
                          "after the softmax of the selected logits");
  // An id of -1 stands for the best that was left, not for a given expert.
  if (op.getThreshold() && op.getOrder() == Order::ScoreEachChoice &&
      op.getGivenIds())
    return op.emitOpError("has no gradient: a threshold leaves out given "
                          "choices, without which later ones were scored");
  Value gradient = g.of(op.getWeights());
  Value noise = op.getNoise() ? g.forward(op.getNoise()) : Value();
  auto logits = GateGradientOp::create(
      g.b, g.forward(op.getLogits()), g.forward(op.getIds()), gradient, noise,
      op.getScoreAttr(), op.getScoreAxisAttr(), op.getOrderAttr(),
      op.getMarginAttr(), op.getNormalizeAttr(), op.getScaleAttr());
  g.add(op.getLogits(), logits);
  if (op.getNoise())
    g.add(op.getNoise(), logits);
  return success();
}

//===----------------------------------------------------------------------===//
// Choices and rows
//===----------------------------------------------------------------------===//

/// Gathers the weight of each row from the choices of its token, `[R]` f32: 0
/// for a row without a choice. No two rows depend on each other.
static Value gatherWeights(Gradients &g, Value positions, Value tokens,
                           Value weights) {
  ImplicitLocOpBuilder &b = g.b;
  Value init = g.empty(g.sizes(tokens), b.getF32Type());
  auto extent = [&](int64_t dim) {
    return getValueOrCreateConstantIndexOp(b, b.getLoc(),
                                           g.size(positions, dim));
  };
  Value count = extent(0), choices = extent(1);
  auto body = [&](OpBuilder &builder, Location loc, ValueRange arguments) {
    ImplicitLocOpBuilder inner(loc, builder);
    Value row = linalg::IndexOp::create(inner, 0);
    auto toIndex = [&](Value number) -> Value {
      return arith::IndexCastOp::create(inner, inner.getIndexType(), number);
    };
    Value token = toIndex(arguments[0]);
    Value exists =
        arith::CmpIOp::create(inner, arith::CmpIPredicate::ult, token, count);
    Value zero = arith::ConstantIndexOp::create(inner, 0),
          one = arith::ConstantIndexOp::create(inner, 1);
    Value none = arith::ConstantOp::create(inner, inner.getF32FloatAttr(0.0));
    // A row without a token has no choices.
    Value bound = arith::SelectOp::create(inner, exists, choices, zero);
    auto loop = scf::ForOp::create(inner, zero, bound, one, none);
    {
      OpBuilder::InsertionGuard guard(inner);
      inner.setInsertionPointToStart(loop.getBody());
      ValueRange place{token, loop.getInductionVar()};
      Value its = toIndex(tensor::ExtractOp::create(inner, positions, place));
      Value is =
          arith::CmpIOp::create(inner, arith::CmpIPredicate::eq, its, row);
      Value weight = tensor::ExtractOp::create(inner, weights, place);
      Value next =
          arith::SelectOp::create(inner, is, weight, loop.getRegionIterArg(0));
      scf::YieldOp::create(inner, next);
    }
    linalg::YieldOp::create(inner, loop.getResult(0));
  };
  AffineMap map = b.getMultiDimIdentityMap(1);
  return linalg::GenericOp::create(
             b, init.getType(), tokens, init, SmallVector<AffineMap>{map, map},
             SmallVector<utils::IteratorType>{utils::IteratorType::parallel},
             body)
      .getResult(0);
}

/// Scatters to the row of each choice its token, unless `tokens` has them, and
/// its weight, if there are weights: `[R]` i32, -1 for a row without a choice,
/// and `[R]` f32.
static std::pair<Value, Value> scatterChoices(Gradients &g, Value positions,
                                              Value tokens, Value weights,
                                              OpFoldResult rows) {
  if (tokens)
    return {tokens,
            weights ? gatherWeights(g, positions, tokens, weights) : Value()};
  ImplicitLocOpBuilder &b = g.b;
  SmallVector<Value> inits;
  Value none = arith::ConstantOp::create(b, b.getI32IntegerAttr(-1));
  Value init = g.empty({rows}, b.getI32Type());
  inits.push_back(linalg::FillOp::create(b, none, init).getResult(0));
  if (weights)
    inits.push_back(g.zeros({rows}, b.getF32Type()));
  Value zero = arith::ConstantIndexOp::create(b, 0),
        one = arith::ConstantIndexOp::create(b, 1);
  auto extent = [&](OpFoldResult size) {
    return getValueOrCreateConstantIndexOp(b, b.getLoc(), size);
  };
  Value count = extent(rows);
  auto scatter = [&](Value t, Value k, ValueRange before) {
    Value row = arith::IndexCastOp::create(
        b, b.getIndexType(),
        tensor::ExtractOp::create(b, positions, ValueRange{t, k}));
    Value kept =
        arith::CmpIOp::create(b, arith::CmpIPredicate::ult, row, count);
    auto choice = scf::IfOp::create(b, before.getTypes(), kept, true);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(choice.elseBlock());
    scf::YieldOp::create(b, before);
    b.setInsertionPointToStart(choice.thenBlock());
    SmallVector<Value> next;
    Value token = arith::IndexCastOp::create(b, b.getI32Type(), t);
    next.push_back(tensor::InsertOp::create(b, token, before.front(), row));
    if (weights) {
      Value weight = tensor::ExtractOp::create(b, weights, ValueRange{t, k});
      next.push_back(tensor::InsertOp::create(b, weight, before.back(), row));
    }
    scf::YieldOp::create(b, next);
    return choice;
  };
  auto overTokens =
      scf::ForOp::create(b, zero, extent(g.size(positions, 0)), one, inits);
  {
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(overTokens.getBody());
    auto overChoices = scf::ForOp::create(b, zero, extent(g.size(positions, 1)),
                                          one, overTokens.getRegionIterArgs());
    scf::YieldOp::create(b, overChoices.getResults());
    b.setInsertionPointToStart(overChoices.getBody());
    auto choice =
        scatter(overTokens.getInductionVar(), overChoices.getInductionVar(),
                overChoices.getRegionIterArgs());
    scf::YieldOp::create(b, choice.getResults());
  }
  return {overTokens.getResult(0),
          weights ? overTokens.getResults().back() : Value()};
}

/// Builds `[T, K]` in f32: `kept(row)` for a choice at a position in range,
/// `otherwise()` or 0 for one that is not.
static Value mapChoices(
    Gradients &g, Value positions, OpFoldResult rows,
    llvm::function_ref<Value(ImplicitLocOpBuilder &, Value row, Value t)> kept,
    llvm::function_ref<Value(ImplicitLocOpBuilder &, Value t, Value k)>
        otherwise) {
  ImplicitLocOpBuilder &b = g.b;
  Value init = g.empty(g.sizes(positions), b.getF32Type());
  Value count = getValueOrCreateConstantIndexOp(b, b.getLoc(), rows);
  AffineMap map = b.getMultiDimIdentityMap(2);
  return linalg::GenericOp::create(
             b, init.getType(), positions, init,
             SmallVector<AffineMap>{map, map},
             SmallVector<utils::IteratorType>(2, utils::IteratorType::parallel),
             [&](OpBuilder &builder, Location loc, ValueRange arguments) {
               ImplicitLocOpBuilder inner(loc, builder);
               Value row = arith::IndexCastOp::create(
                   inner, inner.getIndexType(), arguments[0]);
               // Not in the branches, which are no bodies of the generic.
               Value t = linalg::IndexOp::create(inner, 0),
                     k = linalg::IndexOp::create(inner, 1);
               Value exists = arith::CmpIOp::create(
                   inner, arith::CmpIPredicate::ult, row, count);
               auto choice =
                   scf::IfOp::create(inner, inner.getF32Type(), exists, true);
               {
                 OpBuilder::InsertionGuard guard(inner);
                 inner.setInsertionPointToStart(choice.thenBlock());
                 scf::YieldOp::create(inner, kept(inner, row, t));
                 inner.setInsertionPointToStart(choice.elseBlock());
                 Value zero = otherwise
                                  ? otherwise(inner, t, k)
                                  : arith::ConstantOp::create(
                                        inner, inner.getF32FloatAttr(0.0));
                 scf::YieldOp::create(inner, zero);
               }
               linalg::YieldOp::create(inner, choice.getResult(0));
             })
      .getResult(0);
}

/// Dot product of two rows, in f32 over ascending columns.
static Value dotOfRows(ImplicitLocOpBuilder &b, Value x, Value xRow, Value y,
                       Value yRow, int64_t columns) {
  Value zero = arith::ConstantIndexOp::create(b, 0),
        one = arith::ConstantIndexOp::create(b, 1),
        bound = arith::ConstantIndexOp::create(b, columns);
  Value start = arith::ConstantOp::create(b, b.getF32FloatAttr(0.0));
  auto loop = scf::ForOp::create(b, zero, bound, one, start);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(loop.getBody());
  Value h = loop.getInductionVar();
  Value left = tensor::ExtractOp::create(b, x, ValueRange{xRow, h}),
        right = tensor::ExtractOp::create(b, y, ValueRange{yRow, h});
  Value product = arith::MulFOp::create(b, toF32(b, left), toF32(b, right));
  Value sum = arith::AddFOp::create(b, loop.getRegionIterArg(0), product);
  scf::YieldOp::create(b, sum);
  return loop.getResult(0);
}

//===----------------------------------------------------------------------===//
// moe.gather_sum
//===----------------------------------------------------------------------===//

/// Returns the indices of the tokens of the rows if the positions are those of
/// a route.
static Value tokensOf(Value positions) {
  auto route = positions.getDefiningOp<RouteOp>();
  return route && positions == route.getPositions() ? route.getTokens()
                                                    : Value();
}

/// The gradient of `dropped`: the weights of the choices that no row has, times
/// the gradient of the result.
static void addDropped(GatherSumOp op, Gradients &g, Value gradient,
                       Value positions, Value weights, OpFoldResult rows) {
  ImplicitLocOpBuilder &b = g.b;
  Value none = mapChoices(
      g, positions, rows,
      [](ImplicitLocOpBuilder &inner, Value, Value) -> Value {
        return arith::ConstantOp::create(inner, inner.getF32FloatAttr(0.0));
      },
      [&](ImplicitLocOpBuilder &inner, Value t, Value k) -> Value {
        if (!weights)
          return arith::ConstantOp::create(inner, inner.getF32FloatAttr(1.0));
        return tensor::ExtractOp::create(inner, weights, ValueRange{t, k});
      });
  // d[t, h] = (Σ_k none[t, k]) · gradient[t, h]
  Value start = g.zeros(g.sizes(gradient), b.getF32Type());
  MLIRContext *context = b.getContext();
  auto map = [&](ArrayRef<unsigned> dims) {
    return AffineMap::getMultiDimMapWithTargets(3, dims, context);
  };
  auto sum = linalg::GenericOp::create(
      b, start.getType(), ValueRange{gradient, none}, start,
      SmallVector<AffineMap>{map({0, 1}), map({0, 2}), map({0, 1})},
      SmallVector<utils::IteratorType>{utils::IteratorType::parallel,
                                       utils::IteratorType::parallel,
                                       utils::IteratorType::reduction},
      [](OpBuilder &builder, Location loc, ValueRange v) {
        ImplicitLocOpBuilder inner(loc, builder);
        Value product = arith::MulFOp::create(inner, toF32(inner, v[0]), v[1]);
        Value total = arith::AddFOp::create(inner, v[2], product);
        linalg::YieldOp::create(inner, total);
      });
  g.add(op.getDropped(), sum.getResult(0));
}

/// The dot product of each grouped row and of the gradient of its token, `[R]`
/// in f32; `tokens` are those of the rows, -1 for none.
static Value dotsOfRows(Gradients &g, Value gradient, Value tokens,
                        Value rows) {
  ImplicitLocOpBuilder &b = g.b;
  int64_t columns = cast<RankedTensorType>(rows.getType()).getDimSize(1);
  Value init = g.empty({g.size(tokens, 0)}, b.getF32Type());
  AffineMap map = b.getMultiDimIdentityMap(1);
  Value count =
      getValueOrCreateConstantIndexOp(b, b.getLoc(), g.size(gradient, 0));
  return linalg::GenericOp::create(
             b, init.getType(), tokens, init, SmallVector<AffineMap>{map, map},
             SmallVector<utils::IteratorType>{utils::IteratorType::parallel},
             [&](OpBuilder &builder, Location loc, ValueRange arguments) {
               ImplicitLocOpBuilder inner(loc, builder);
               Value token = arith::IndexCastOp::create(
                   inner, inner.getIndexType(), arguments[0]);
               Value exists = arith::CmpIOp::create(
                   inner, arith::CmpIPredicate::ult, token, count);
               Value row = linalg::IndexOp::create(inner, 0);
               auto choice =
                   scf::IfOp::create(inner, inner.getF32Type(), exists, true);
               {
                 OpBuilder::InsertionGuard guard(inner);
                 inner.setInsertionPointToStart(choice.thenBlock());
                 Value dot =
                     dotOfRows(inner, gradient, token, rows, row, columns);
                 scf::YieldOp::create(inner, dot);
                 inner.setInsertionPointToStart(choice.elseBlock());
                 Value zero = arith::ConstantOp::create(
                     inner, inner.getF32FloatAttr(0.0));
                 scf::YieldOp::create(inner, zero);
               }
               linalg::YieldOp::create(inner, choice.getResult(0));
             })
      .getResult(0);
}

/// Brings a number of each grouped row home: `[T * K]`.
static Value bringNumbersHome(const RoundTrip &trip, Gradients &g,
                              Value numbers) {
  ImplicitLocOpBuilder &b = g.b;
  SmallVector<ReassociationIndices> groups{{0, 1}};
  Value column = tensor::ExpandShapeOp::create(
      b, RankedTensorType::get({ShapedType::kDynamic, 1}, b.getF32Type()),
      numbers, groups,
      SmallVector<OpFoldResult>{g.size(numbers, 0), b.getIndexAttr(1)});
  return tensor::CollapseShapeOp::create(b, bringHome(trip, g, column), groups);
}

LogicalResult mlir::moe::differentiate(GatherSumOp op, Gradients &g) {
  Value gradient = g.of(op.getResult());
  Value positions = g.forward(op.getPositions());
  Value weights = op.getWeights() ? g.forward(op.getWeights()) : Value();
  bool weightsActive = op.getWeights() && g.isActive(op.getWeights());
  // Where the experts are: the grouped rows, and the tokens, the weights and
  // the positions of their choices.
  auto [rows, trip] = findRowsBeforeHome(op.getRows());
  Value ofTokens = gradient, itsWeights = weights, itsPositions = positions,
        forwardPositions = op.getPositions();
  Operation *reader = op;
  if (trip) {
    std::tie(ofTokens, itsWeights) = sendToExperts(*trip, g, gradient, weights);
    forwardPositions = trip->collect.getPositions();
    itsPositions = g.forward(forwardPositions);
    reader = *rows.getUsers().begin();
    for (Operation *user : rows.getUsers())
      if (!isa<tensor::DimOp>(user))
        reader = user;
  } else {
    rows = op.getRows();
  }
  Value tokens = tokensOf(forwardPositions);
  auto matmul = rows.getDefiningOp<GroupedMatmulOp>();
  bool dotsFromMatmul = weightsActive && matmul && isLinear(matmul) &&
                        hasDots(matmul) && tokens && isReadOnlyBy(rows, reader);
  // The rows themselves are only needed where their dot
  // products are not known otherwise.
  OpFoldResult count;
  Value kept;
  if (tokens) {
    kept = g.forward(tokens);
    count = g.size(kept, 0);
  } else {
    count = g.size(g.forward(rows), 0);
  }
  Value scale;
  std::tie(kept, scale) =
      scatterChoices(g, itsPositions, kept, itsWeights, count);
  int64_t columns = cast<RankedTensorType>(rows.getType()).getDimSize(1);

  Value dots;
  RowGradient ofRows{ofTokens, kept, scale};
  if (dotsFromMatmul) {
    if (failed(differentiateLinear(matmul, ofRows, g, &dots)))
      return failure();
    g.setDone(matmul);
  } else {
    g.add(rows, ofRows);
  }
  if (trip) {
    // One row has come home for each choice.
    if (weightsActive && !dots)
      dots = dotsOfRows(g, ofTokens, kept, g.forward(rows));
    if (dots)
      dots = bringNumbersHome(*trip, g, dots);
    ImplicitLocOpBuilder &b = g.b;
    Value choices = arith::ConstantIndexOp::create(b, op.getTopK());
    Value size =
        getValueOrCreateConstantIndexOp(b, b.getLoc(), g.size(positions, 0));
    count = arith::MulIOp::create(b, size, choices).getResult();
  }
  if (weightsActive) {
    Value forwardRows = dots ? Value() : g.forward(rows);
    Value dropped = op.getDropped() ? g.forward(op.getDropped()) : Value();
    auto ofDropped = [&](ImplicitLocOpBuilder &inner, Value t, Value) {
      return dotOfRows(inner, gradient, t, dropped, t, columns);
    };
    using Otherwise =
        llvm::function_ref<Value(ImplicitLocOpBuilder &, Value, Value)>;
    Value ofWeights = mapChoices(
        g, positions, count,
        [&](ImplicitLocOpBuilder &inner, Value row, Value t) -> Value {
          if (dots)
            return tensor::ExtractOp::create(inner, dots, row);
          return dotOfRows(inner, gradient, t, forwardRows, row, columns);
        },
        dropped ? Otherwise(ofDropped) : Otherwise());
    g.add(op.getWeights(), ofWeights);
  }
  if (op.getDropped() && g.isActive(op.getDropped()))
    addDropped(op, g, gradient, positions, weights, count);
  return success();
}

//===----------------------------------------------------------------------===//
// moe.dispatch
//===----------------------------------------------------------------------===//

LogicalResult mlir::moe::differentiate(DispatchOp op, Gradients &g) {
  ImplicitLocOpBuilder &b = g.b;
  Value gradient = g.of(op.getGrouped());
  Value source = op.getRows(), positions = op.getPositions(),
        weights = op.getScaleRows() ? Value(op.getWeights()) : Value();
  // The rows go home first, where one rank would compute the same from them.
  if (std::optional<RoundTrip> trip = findTripOf(source)) {
    gradient = bringHome(*trip, g, gradient);
    source = trip->leaving.getSources().front();
    positions = trip->partition.getHome();
    if (weights)
      weights = weightsOfTrip(*trip);
    if (op.getScaleRows() && !weights)
      return op.emitOpError("has no gradient: the weights that scale its rows "
                            "are not those of tokens that leave their rank");
  }
  positions = g.forward(positions);
  Value scales =
      weights ? g.convert(g.forward(weights), b.getF32Type()) : Value();
  auto rowsType = cast<RankedTensorType>(source.getType());
  if (g.isActive(source)) {
    Value init =
        g.empty({g.size(positions, 0), b.getIndexAttr(rowsType.getDimSize(1))},
                rowsType.getElementType());
    g.add(source,
          GatherSumOp::create(b, init.getType(), gradient, positions, scales,
                              /*dropped=*/Value(), init)
              .getResult());
  }
  if (weights && g.isActive(weights)) {
    Value rows = g.forward(source);
    g.add(weights, mapChoices(
                       g, positions, g.size(gradient, 0),
                       [&](ImplicitLocOpBuilder &inner, Value row, Value t) {
                         return dotOfRows(inner, rows, t, gradient, row,
                                          rowsType.getDimSize(1));
                       },
                       nullptr));
  }
  return success();
}
