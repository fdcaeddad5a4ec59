//===- AuxiliaryLossToLinalg.cpp - Losses and balance of routers ----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Each token has the number of its sequence, or -1 if it does not count. Sums
// over the tokens of a sequence are rows of a matrix `[S, E]`; without
// sequences all tokens that count are of sequence 0.
//
//===----------------------------------------------------------------------===//

#include "GateBuilder.h"
#include "Lowering.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"

#include <limits>

using namespace mlir;
using namespace mlir::moe;

namespace {
/// Builds sums over the tokens that count.
class LossBuilder : public GateBuilder {
public:
  LossBuilder(Location loc, OpBuilder &builder) : GateBuilder(loc, builder) {}

  AffineMap dims(unsigned loops, ArrayRef<unsigned> results) {
    return AffineMap::getMultiDimMapWithTargets(loops, results, getContext());
  }
  Value add(Value x, Value y) {
    if (isa<FloatType>(x.getType()))
      return arith::AddFOp::create(*this, x, y);
    return arith::AddIOp::create(*this, x, y);
  }
  Value multiply(Value x, Value y) {
    return arith::MulFOp::create(*this, x, y);
  }
  Value subtract(Value x, Value y) {
    return arith::SubFOp::create(*this, x, y);
  }
  Value divide(Value x, Value y) { return arith::DivFOp::create(*this, x, y); }
  Value select(Value condition, Value x, Value y) {
    return arith::SelectOp::create(*this, condition, x, y);
  }
  Value compare(arith::CmpIPredicate predicate, Value x, Value y) {
    return arith::CmpIOp::create(*this, predicate, x, y);
  }
  Value counts(Value sequence) {
    return compare(arith::CmpIPredicate::sge, sequence, i32(0));
  }
  Value zeroOf(Type type) { return type.isF32() ? f32(0.0) : i32(0); }
  Value toF32(Value count) {
    return arith::SIToFPOp::create(*this, getF32Type(), count);
  }

  /// Returns the sequence of each token.
  Value sequencesOf(OpFoldResult tokens, Value mask, Value offsets);
  /// Returns how often each expert is among the first `choices` of each token.
  Value choicesOf(Value ids, int64_t choices, int64_t experts);
  /// Adds up the rows of `matrix` `[T, E]` of each of `count` sequences.
  Value sumOfTokens(Value matrix, Value sequences, int64_t count);
  /// Adds up a vector.
  Value total(Value vector);
};

/// Lowers a loss or its gradient.
class LossLowering {
public:
  template <typename OpT>
  LossLowering(OpT op, OpBuilder &builder)
      : formula(op.getFormula()), score(op.getScore()),
        experts(op.getExpertCount()),
        coefficient(op.getCoefficient().convertToDouble()), ids(op.getIds()),
        b(op.getLoc(), builder), f32(b.getF32Type()) {
    if (op.getSequences())
      numSequences = op.getSequences().getType().getDimSize(0) - 1;
    if (formula == Loss::LoadBalance)
      choices = op.getCountedChoices();
    values = b.map(op.getValues(), f32,
                   [&](ValueRange v) { return b.toFloat(v[0], f32); });
    sequences = b.sequencesOf(b.size(op.getValues(), 0), op.getMask(),
                              op.getSequences());
    Value ones = b.map(sequences, b.getI32Type(), [&](ValueRange v) {
      return b.select(b.counts(v[0]), b.i32(1), b.i32(0));
    });
    numTokens = b.total(ones);
  }

  Value loss();
  /// Returns the gradient in `type`, of a loss with the gradient `upstream`.
  Value gradient(Value upstream, Type type);

private:
  Value scores();
  Value tokensOfSequences();
  Value fractions();
  Value logSumExp();
  std::pair<Value, Value> importance();

  Value balanceLoss();
  Value routerZLoss();
  Value importanceLoss();
  Value balanceGradient(Value upstream);
  Value routerZGradient(Value upstream);
  Value importanceGradient(Value upstream);

  Loss formula;
  Score score;
  int64_t experts, choices = 0, numSequences = 1;
  double coefficient;
  Value ids;
  LossBuilder b;
  Type f32;
  /// `[T, E]` or `[T, K]`, `[T]`, and one number.
  Value values, sequences, numTokens;
};
} // namespace

//===----------------------------------------------------------------------===//
// Sums over tokens
//===----------------------------------------------------------------------===//

Value LossBuilder::sequencesOf(OpFoldResult tokens, Value mask, Value offsets) {
  Type type = getI32Type();
  Value result = fill(tokens, i32(offsets ? -1 : 0));
  if (offsets) {
    OpFoldResult one = getIndexAttr(1);
    OpFoldResult count = getIndexAttr(
        cast<RankedTensorType>(offsets.getType()).getDimSize(0) - 1);
    auto slice = [&](int64_t first) {
      return tensor::ExtractSliceOp::create(
          *this, offsets, ArrayRef<OpFoldResult>{getIndexAttr(first)},
          ArrayRef<OpFoldResult>{count}, ArrayRef<OpFoldResult>{one});
    };
    AffineMap sequence = dims(2, {1});
    result = generic(2, 1, {slice(0), slice(1)},
                     {sequence, sequence, dims(2, {0})}, result,
                     [&](ValueRange v) {
                       Value t = toI32(linalg::IndexOp::create(*this, 0));
                       Value s = toI32(linalg::IndexOp::create(*this, 1));
                       Value within = arith::AndIOp::create(
                           *this, compare(arith::CmpIPredicate::sle, v[0], t),
                           compare(arith::CmpIPredicate::slt, t, v[1]));
                       return SmallVector<Value>{select(within, s, v[2])};
                     })
                 .front();
  }
  if (!mask)
    return result;
  return map({result, mask}, type, [&](ValueRange v) {
    Value zero = arith::ConstantOp::create(*this, getZeroAttr(v[1].getType()));
    return select(compare(arith::CmpIPredicate::ne, v[1], zero), v[0], i32(-1));
  });
}

Value LossBuilder::choicesOf(Value ids, int64_t choices, int64_t experts) {
  OpFoldResult zero = getIndexAttr(0), one = getIndexAttr(1);
  OpFoldResult tokens = size(ids, 0);
  SmallVector<OpFoldResult> sizes{tokens, getIndexAttr(choices)};
  Value counted = tensor::ExtractSliceOp::create(
      *this, ids, SmallVector<OpFoldResult>{zero, zero}, sizes,
      SmallVector<OpFoldResult>{one, one});
  return generic(3, 1, counted, {dims(3, {0, 2}), dims(3, {0, 1})},
                 fill({tokens, getIndexAttr(experts)}, i32(0)),
                 [&](ValueRange v) {
                   Value expert = toI32(linalg::IndexOp::create(*this, 1));
                   Value its = compare(arith::CmpIPredicate::eq, v[0], expert);
                   return SmallVector<Value>{
                       add(v[1], select(its, i32(1), i32(0)))};
                 })
      .front();
}

Value LossBuilder::sumOfTokens(Value matrix, Value sequences, int64_t count) {
  Type type = cast<RankedTensorType>(matrix.getType()).getElementType();
  return generic(3, 1, {matrix, sequences},
                 {dims(3, {2, 1}), dims(3, {2}), dims(3, {0, 1})},
                 fill({getIndexAttr(count), size(matrix, 1)}, zeroOf(type)),
                 [&](ValueRange v) {
                   Value sequence = toI32(linalg::IndexOp::create(*this, 0));
                   Value its =
                       compare(arith::CmpIPredicate::eq, v[1], sequence);
                   return SmallVector<Value>{
                       add(v[2], select(its, v[0], zeroOf(type)))};
                 })
      .front();
}

Value LossBuilder::total(Value vector) {
  Type type = cast<RankedTensorType>(vector.getType()).getElementType();
  return generic(
             1, 1, vector, {dims(1, {0}), dims(1, {})}, fill({}, zeroOf(type)),
             [&](ValueRange v) { return SmallVector<Value>{add(v[1], v[0])}; })
      .front();
}

//===----------------------------------------------------------------------===//
// load_balance
//===----------------------------------------------------------------------===//

/// Returns the scores `[T, E]`, which add up to 1.
Value LossLowering::scores() {
  Value result = b.score(values, Value(), Axis::Columns, score, f32);
  if (score == Score::Softmax)
    return result;
  return b.mapWithVector(
      result, b.sum(result, Axis::Columns), Axis::Columns, f32,
      [&](ValueRange v) { return b.divideOrZero(v[0], v[1]); });
}

/// Returns how many tokens of each sequence count.
Value LossLowering::tokensOfSequences() {
  return b
      .generic(2, 1, sequences, {b.dims(2, {1}), b.dims(2, {0})},
               b.fill(OpFoldResult(b.getIndexAttr(numSequences)), b.i32(0)),
               [&](ValueRange v) {
                 Value sequence = b.toI32(linalg::IndexOp::create(b, 0));
                 Value its =
                     b.compare(arith::CmpIPredicate::eq, v[0], sequence);
                 return SmallVector<Value>{
                     b.add(v[1], b.select(its, b.i32(1), b.i32(0)))};
               })
      .front();
}

/// Returns the factor `[S, E]` of the sum of scores of an expert in the tokens
/// of a sequence: `coefficient · E · c / T'²`, over the sequences that count.
Value LossLowering::fractions() {
  Value chosen = b.sumOfTokens(b.choicesOf(ids, choices, experts), sequences,
                               numSequences);
  Value tokens = tokensOfSequences();
  Value live = b.total(b.map(tokens, b.getI32Type(), [&](ValueRange v) {
    return b.select(b.compare(arith::CmpIPredicate::sgt, v[0], b.i32(0)),
                    b.i32(1), b.i32(0));
  }));
  AffineMap each = b.dims(2, {0, 1});
  return b
      .generic(2, 0, {chosen, tokens, live},
               {each, b.dims(2, {0}), b.dims(2, {}), each},
               b.empty(b.sizes(chosen), f32),
               [&](ValueRange v) {
                 Value number = b.toF32(v[1]);
                 Value fraction = b.divideOrZero(b.toF32(v[0]), number);
                 fraction = b.divideOrZero(fraction, number);
                 fraction = b.divideOrZero(fraction, b.toF32(v[2]));
                 return SmallVector<Value>{b.multiply(
                     fraction, b.f32(coefficient * double(experts)))};
               })
      .front();
}

Value LossLowering::balanceLoss() {
  Value sums = b.sumOfTokens(scores(), sequences, numSequences);
  Value products = b.map({fractions(), sums}, f32,
                         [&](ValueRange v) { return b.multiply(v[0], v[1]); });
  return b.total(b.sum(products, Axis::Columns));
}

Value LossLowering::balanceGradient(Value upstream) {
  Value factors = fractions();
  AffineMap each = b.dims(2, {0, 1});
  Value gradient =
      b.generic(2, 0, {sequences, upstream},
                {b.dims(2, {0}), b.dims(2, {}), each},
                b.empty(b.sizes(values), f32),
                [&](ValueRange v) {
                  Value counted = b.counts(v[0]);
                  Value row = b.toIndex(b.select(counted, v[0], b.i32(0)));
                  Value factor =
                      b.extract(factors, {row, linalg::IndexOp::create(b, 1)});
                  return SmallVector<Value>{
                      b.select(counted, b.multiply(v[1], factor), b.f32(0.0))};
                })
          .front();
  Value shares = scores();
  if (score == Score::Softmax)
    return b.softmaxGradient(shares, gradient, Axis::Columns);
  // A share is the sigmoid σ by the sum of the row: (g − Σ g share) σ' / Σ σ.
  Value sums =
      b.sum(b.score(values, Value(), Axis::Columns, score, f32), Axis::Columns);
  Value mean =
      b.sum(b.map({gradient, shares}, f32,
                  [&](ValueRange v) { return b.multiply(v[0], v[1]); }),
            Axis::Columns);
  Value differences =
      b.mapWithVector(gradient, mean, Axis::Columns, f32,
                      [&](ValueRange v) { return b.subtract(v[0], v[1]); });
  Value quotients =
      b.mapWithVector(differences, sums, Axis::Columns, f32,
                      [&](ValueRange v) { return b.divideOrZero(v[0], v[1]); });
  return b.scoreGradient(values, quotients, score);
}

//===----------------------------------------------------------------------===//
// router_z
//===----------------------------------------------------------------------===//

/// Returns ln Σ exp(logits) `[T]`.
Value LossLowering::logSumExp() {
  Value maximum =
      b.reduce(values, Axis::Columns, b.negInf(), [&](ValueRange v) -> Value {
        return arith::MaximumFOp::create(b, v[0], v[1]);
      });
  Value powers =
      b.mapWithVector(values, maximum, Axis::Columns, f32, [&](ValueRange v) {
        Value same =
            arith::CmpFOp::create(b, arith::CmpFPredicate::OEQ, v[0], v[1]);
        Value power = math::ExpOp::create(b, b.subtract(v[0], v[1]));
        return b.select(same, b.f32(1.0), power);
      });
  // The sum is at least 1, the power of the maximum.
  return b.map({maximum, b.sum(powers, Axis::Columns)}, f32, [&](ValueRange v) {
    return b.add(v[0], math::Log1pOp::create(b, b.subtract(v[1], b.f32(1.0))));
  });
}

Value LossLowering::routerZLoss() {
  Value squares = b.map({sequences, logSumExp()}, f32, [&](ValueRange v) {
    return b.select(b.counts(v[0]), b.multiply(v[1], v[1]), b.f32(0.0));
  });
  return b.map({b.total(squares), numTokens}, f32, [&](ValueRange v) {
    return b.multiply(b.divideOrZero(v[0], b.toF32(v[1])), b.f32(coefficient));
  });
}

Value LossLowering::routerZGradient(Value upstream) {
  Value factor = b.map({upstream, numTokens}, f32, [&](ValueRange v) {
    return b.divideOrZero(b.multiply(v[0], b.f32(2.0 * coefficient)),
                          b.toF32(v[1]));
  });
  AffineMap each = b.dims(2, {0, 1});
  return b
      .generic(2, 0, {scores(), logSumExp(), factor},
               {each, b.dims(2, {0}), b.dims(2, {}), each},
               b.empty(b.sizes(values), f32),
               [&](ValueRange v) {
                 return SmallVector<Value>{
                     b.multiply(b.multiply(v[2], v[1]), v[0])};
               })
      .front();
}

//===----------------------------------------------------------------------===//
// importance
//===----------------------------------------------------------------------===//

/// Keeps the square of the mean from 0, as Tensor2Tensor does.
static constexpr double epsilon = 1.0e-10;

/// Returns the importance `[1, E]` less its mean, and the mean `[1]`.
std::pair<Value, Value> LossLowering::importance() {
  Value sums = b.sumOfTokens(b.scatter(ids, values, experts), sequences, 1);
  Value mean = b.map(b.sum(sums, Axis::Columns), f32, [&](ValueRange v) {
    return b.divide(v[0], b.f32(double(experts)));
  });
  Value rest =
      b.mapWithVector(sums, mean, Axis::Columns, f32,
                      [&](ValueRange v) { return b.subtract(v[0], v[1]); });
  return {rest, mean};
}

Value LossLowering::importanceLoss() {
  auto [rest, mean] = importance();
  Value squares =
      b.map(rest, f32, [&](ValueRange v) { return b.multiply(v[0], v[0]); });
  return b.total(
      b.map({b.sum(squares, Axis::Columns), mean}, f32, [&](ValueRange v) {
        Value variance = b.divide(v[0], b.f32(double(experts)));
        Value square = b.add(b.multiply(v[1], v[1]), b.f32(epsilon));
        return b.multiply(b.divide(variance, square), b.f32(coefficient));
      }));
}

/// With `m` the mean, `v` the variance and `q = m² + epsilon`, the gradient by
/// the importance `I` is `2 ((I − m) − m v / q) / (E q)`.
Value LossLowering::importanceGradient(Value upstream) {
  auto [rest, mean] = importance();
  Value squares =
      b.map(rest, f32, [&](ValueRange v) { return b.multiply(v[0], v[0]); });
  AffineMap each = b.dims(2, {0, 1}), row = b.dims(2, {0});
  Value perExpert =
      b.generic(
           2, 0, {rest, mean, b.sum(squares, Axis::Columns), upstream},
           {each, row, row, b.dims(2, {}), each}, b.empty(b.sizes(rest), f32),
           [&](ValueRange v) {
             Value number = b.f32(double(experts));
             Value variance = b.divide(v[2], number);
             Value square = b.add(b.multiply(v[1], v[1]), b.f32(epsilon));
             Value slope =
                 b.subtract(v[0], b.multiply(v[1], b.divide(variance, square)));
             slope = b.divide(b.divide(slope, square), number);
             slope = b.multiply(slope, b.f32(2.0 * coefficient));
             return SmallVector<Value>{b.multiply(slope, v[3])};
           })
          .front();
  return b.map(ids, f32, [&](ValueRange v) {
    Value valid = b.inRange(v[0], experts);
    Value expert = b.toIndex(b.select(valid, v[0], b.i32(0)));
    return b.select(valid, b.extract(perExpert, {b.index(0), expert}),
                    b.f32(0.0));
  });
}

//===----------------------------------------------------------------------===//
// Operations
//===----------------------------------------------------------------------===//

Value LossLowering::loss() {
  switch (formula) {
  case Loss::LoadBalance:
    return balanceLoss();
  case Loss::RouterZ:
    return routerZLoss();
  case Loss::Importance:
    return importanceLoss();
  }
  llvm_unreachable("every formula has a lowering");
}

Value LossLowering::gradient(Value upstream, Type type) {
  Value result = formula == Loss::LoadBalance ? balanceGradient(upstream)
                 : formula == Loss::RouterZ   ? routerZGradient(upstream)
                                              : importanceGradient(upstream);
  return b.mapWithVector(
      result, sequences, Axis::Columns, type, [&](ValueRange v) {
        return b.toFloat(b.select(b.counts(v[1]), v[0], b.f32(0.0)), type);
      });
}

SmallVector<Value> mlir::moe::lowerToLinalg(AuxiliaryLossOp op,
                                            OpBuilder &builder) {
  return {LossLowering(op, builder).loss()};
}

SmallVector<Value> mlir::moe::lowerToLinalg(AuxiliaryLossGradientOp op,
                                            OpBuilder &builder) {
  return {LossLowering(op, builder)
              .gradient(op.getGradient(),
                        op.getValues().getType().getElementType())};
}

SmallVector<Value> mlir::moe::lowerToLinalg(ExpertLoadOp op,
                                            OpBuilder &builder) {
  LossBuilder b(op.getLoc(), builder);
  Value sequences =
      b.sequencesOf(b.size(op.getIds(), 0), op.getMask(), Value());
  Value chosen = b.choicesOf(op.getIds(), op.getIds().getType().getDimSize(1),
                             op.getNumExperts());
  Value load = b.sumOfTokens(chosen, sequences, 1);
  return {tensor::CollapseShapeOp::create(
      b, load, ArrayRef<ReassociationIndices>{{0, 1}})};
}

SmallVector<Value> mlir::moe::lowerToLinalg(UpdateBiasOp op,
                                            OpBuilder &builder) {
  LossBuilder b(op.getLoc(), builder);
  Type f32 = b.getF32Type(), i64 = b.getI64Type();
  Type type = op.getBias().getType().getElementType();
  int64_t experts = op.getLoad().getType().getDimSize(0);
  AffineMap each = b.dims(1, {0}), none = b.dims(1, {});
  auto widen = [&](Value count) -> Value {
    return arith::ExtSIOp::create(b, i64, count);
  };
  Value zero = arith::ConstantIntOp::create(b, 0, 64);
  Value sum = b.generic(1, 1, op.getLoad(), {each, none}, b.fill({}, zero),
                        [&](ValueRange v) {
                          return SmallVector<Value>{b.add(v[1], widen(v[0]))};
                        })
                  .front();
  return b.generic(
      1, 0, {op.getLoad(), sum}, {each, none, each}, op.getBias(),
      [&](ValueRange v) {
        // Whether E · load is below the sum is whether load is below the mean.
        Value scaled = arith::MulIOp::create(
            b, widen(v[0]), arith::ConstantIntOp::create(b, experts, 64));
        Value below = b.compare(arith::CmpIPredicate::slt, scaled, v[1]);
        Value above = b.compare(arith::CmpIPredicate::sgt, scaled, v[1]);
        double rate = op.getRate().convertToDouble();
        Value step = b.select(below, b.f32(rate), b.f32(0.0));
        step = b.select(above, b.f32(-rate), step);
        return SmallVector<Value>{
            b.toFloat(b.add(b.toFloat(v[2], f32), step), type)};
      });
}
