//===- GateGradientToGPU.cpp - moe.gate_gradient --------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A warp computes the gradients of a token, by the formulas and with the guards
// of lib/Conversion/MoEToLinalg/GateGradientToLinalg.cpp.
//
//===----------------------------------------------------------------------===//

#include "Builder/KernelArguments.h"
#include "Limits.h"
#include "Lowering.h"
#include "WarpRows.h"
#include "moe/Analysis/KernelModel.h"
#include "moe/Conversion/Utils/ScoreFormula.h"

#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/IR/TypeUtilities.h"

using namespace mlir;
using namespace mlir::moe;

using Row = WarpRows::Row;

static constexpr int64_t warpsInBlock = 4;

/// The scatter is unrolled up to so many steps.
static constexpr int64_t maxSteps = 1024;

namespace {
class GateGradientEmitter : public WarpRows {
public:
  struct Pointers {
    Value logits, ids, gradient, noise, result;
  };

  GateGradientEmitter(GateGradientOp op, const Pointers &pointers,
                      GPUBuilder &b)
      : WarpRows(b), op(op), pointers(pointers), experts(op.getNumExperts()),
        topK(op.getTopK()) {}

  /// Computes the gradients of token `token` (i64, uniform).
  void emit(Value token);

private:
  using Pair = llvm::function_ref<Value(Value, Value)>;

  Row zip(const Row &x, const Row &y, Pair body);
  Row multiply(const Row &x, const Row &y);
  Row where(const Row &valid, const Row &row);
  Value sum(const Row &row);
  Value divideOrZero(Value dividend, Value divisor);
  Value slopeOf(Value x);
  Row softmaxGradient(const Row &scores, const Row &gradient);
  Row throughScore(const Row &values, const Row &scores, const Row &gradient);
  Row throughNormalize(const Row &scores, const Row &gradient);
  Row ofScores(const Row &scores);
  Row score(const Row &values, const Row &valid);
  Row scatter(const Row &gradient);

  GateGradientOp op;
  Pointers pointers;
  int64_t experts, topK;
  Row ids, valid, given; // of the choices
};
} // namespace

//===----------------------------------------------------------------------===//
// Rows
//===----------------------------------------------------------------------===//

Row GateGradientEmitter::zip(const Row &x, const Row &y, Pair body) {
  return llvm::map_to_vector(llvm::zip_equal(x, y), [&](auto each) {
    return body(std::get<0>(each), std::get<1>(each));
  });
}

Row GateGradientEmitter::multiply(const Row &x, const Row &y) {
  return zip(x, y, [&](Value a, Value c) -> Value {
    return arith::MulFOp::create(b, a, c);
  });
}

Row GateGradientEmitter::where(const Row &valid, const Row &row) {
  return zip(valid, row, [&](Value isValid, Value x) {
    return b.select(isValid, x, b.f32(0.0));
  });
}

/// Sums a row whose columns beyond its end are 0.
Value GateGradientEmitter::sum(const Row &row) {
  Value total = row.front();
  for (Value x : llvm::drop_begin(row))
    total = arith::AddFOp::create(b, total, x);
  return b.sumWarp(total);
}

Value GateGradientEmitter::divideOrZero(Value dividend, Value divisor) {
  Value none = compare(arith::CmpFPredicate::OEQ, divisor, b.f32(0.0));
  return b.select(none, b.f32(0.0),
                  arith::DivFOp::create(b, dividend, divisor));
}

//===----------------------------------------------------------------------===//
// Scores
//===----------------------------------------------------------------------===//

Row GateGradientEmitter::score(const Row &values, const Row &valid) {
  if (op.getScore() == Score::Softmax)
    return softmax(values, valid);
  return map(values, [&](Value x) { return scoreOf(b, x, op.getScore()); });
}

/// The derivative of a score that is neither a softmax nor the logit.
Value GateGradientEmitter::slopeOf(Value x) {
  // The power is at most 1: e = exp(−|x|).
  Value positive = compare(arith::CmpFPredicate::OGT, x, b.f32(0.0));
  Value e = math::ExpOp::create(
      b, arith::NegFOp::create(b, math::AbsFOp::create(b, x)));
  Value one = b.f32(1.0), total = arith::AddFOp::create(b, one, e);
  // s (1 − s) without the difference
  if (op.getScore() == Score::Sigmoid)
    return arith::DivFOp::create(b, e, arith::MulFOp::create(b, total, total));
  // σ(x) / (2 s); both are 0 for −∞.
  Value sigmoid = arith::DivFOp::create(b, b.select(positive, one, e), total);
  Value s = scoreOf(b, x, op.getScore());
  return divideOrZero(sigmoid, arith::AddFOp::create(b, s, s));
}

Row GateGradientEmitter::softmaxGradient(const Row &scores,
                                         const Row &gradient) {
  Value mean = sum(multiply(gradient, scores));
  return zip(scores, gradient, [&](Value s, Value g) -> Value {
    return arith::MulFOp::create(b, s, arith::SubFOp::create(b, g, mean));
  });
}

Row GateGradientEmitter::throughScore(const Row &values, const Row &scores,
                                      const Row &gradient) {
  if (op.getScore() == Score::Softmax)
    return softmaxGradient(scores, gradient);
  if (op.getScore() == Score::None)
    return gradient;
  return zip(values, gradient, [&](Value x, Value g) -> Value {
    if (op.getScore() == Score::Relu)
      return b.select(compare(arith::CmpFPredicate::OGT, x, b.f32(0.0)), g,
                      b.f32(0.0));
    return arith::MulFOp::create(b, g, slopeOf(x));
  });
}

//===----------------------------------------------------------------------===//
// Choices
//===----------------------------------------------------------------------===//

Row GateGradientEmitter::throughNormalize(const Row &scores,
                                          const Row &gradient) {
  std::optional<NormalizeAttr> normalize = op.getNormalize();
  if (!normalize)
    return gradient;
  if (normalize->getKind() == NormalizeKind::Softmax)
    return softmaxGradient(softmax(scores, valid), gradient);
  bool isNorm = normalize->getKind() == NormalizeKind::Norm;
  double p = isNorm ? double(normalize->getP()) : 1.0;
  auto power = [&](Value x, double exponent) -> Value {
    if (exponent == 1.0)
      return x;
    if (exponent == 2.0)
      return arith::MulFOp::create(b, x, x);
    if (exponent == 0.5)
      return math::SqrtOp::create(b, x);
    return math::PowFOp::create(b, x, b.f32(exponent));
  };
  Value norm =
      sum(where(valid, map(scores, [&](Value s) -> Value {
                  return isNorm ? power(math::AbsFOp::create(b, s), p) : s;
                })));
  norm = power(norm, 1 / p);
  Value epsilon = b.f32(normalize->getEpsilon()), denominator = norm;
  bool clamps = normalize->getGuard() == NormalizeGuard::Clamp;
  if (clamps)
    denominator = arith::MaximumFOp::create(b, norm, epsilon);
  else if (normalize->getEpsilon() != 0.0)
    denominator = arith::AddFOp::create(b, norm, epsilon);
  auto divide = [&](Value x) { return divideOrZero(x, denominator); };
  Value mean = sum(multiply(gradient, map(scores, divide)));
  // An epsilon in the place of the norm is constant.
  if (clamps)
    mean = b.select(compare(arith::CmpFPredicate::OLT, norm, epsilon),
                    b.f32(0.0), mean);
  return zip(scores, gradient, [&](Value s, Value g) -> Value {
    Value share = mean;
    if (isNorm) {
      // dD/ds = sign(s) (|s| / D)^(p − 1), and 0 for a score of 0
      Value slope =
          p == 1.0
              ? b.f32(1.0)
              : power(divideOrZero(math::AbsFOp::create(b, s), norm), p - 1.0);
      Value zero = b.f32(0.0);
      slope = b.select(compare(arith::CmpFPredicate::OLT, s, zero),
                       arith::NegFOp::create(b, slope), slope);
      slope =
          b.select(compare(arith::CmpFPredicate::OEQ, s, zero), zero, slope);
      share = arith::MulFOp::create(b, slope, mean);
    }
    return divide(arith::SubFOp::create(b, g, share));
  });
}

/// Returns the gradient by the scores of the choices, 0 where there is none.
Row GateGradientEmitter::ofScores(const Row &scores) {
  Row gradient = map(given, [&](Value g) -> Value {
    return op.getScale() ? arith::MulFOp::create(
                               b, g, b.f32(op.getScale()->convertToDouble()))
                         : g;
  });
  return where(valid, throughNormalize(scores, where(valid, gradient)));
}

/// Adds what the choices have to the columns of their experts, in their order.
Row GateGradientEmitter::scatter(const Row &gradient) {
  Row row(slotsOf(experts), b.f32(0.0));
  for (int64_t k = 0; k < topK; ++k) {
    Value id = b.shuffle(ids[k / 32], b.i32(k % 32));
    Value value = b.shuffle(gradient[k / 32], b.i32(k % 32));
    for (auto [slot, sum] : llvm::enumerate(row))
      sum = arith::AddFOp::create(
          b, sum, b.select(b.equal(columnOf(slot), id), value, b.f32(0.0)));
  }
  return row;
}

void GateGradientEmitter::emit(Value token) {
  auto elementOf = [](Value tensor) { return getElementTypeOrSelf(tensor); };
  Value firstExpert = b.mul(token, experts), firstChoice = b.mul(token, topK);
  Row raw = loadRow(pointers.logits, elementOf(op.getLogits()), firstExpert,
                    experts, negInf());
  if (pointers.noise) {
    Row noise = loadRow(pointers.noise, elementOf(op.getNoise()), firstExpert,
                        experts, b.f32(0.0));
    raw = zip(raw, noise, [&](Value x, Value y) -> Value {
      return arith::AddFOp::create(b, x, y);
    });
  }
  // NaN counts as −inf, which no score depends on.
  Row logits =
      map(raw, [&](Value x) { return b.select(isNaN(x), negInf(), x); });
  ids = loadRow(pointers.ids, b.getI32Type(), firstChoice, topK, b.i32(-1));
  given = loadRow(pointers.gradient, elementOf(op.getGradient()), firstChoice,
                  topK, b.f32(0.0));
  valid = map(ids, [&](Value id) { return b.below(id, experts); });

  Row gradient;
  if (op.getOrder() == Order::ScoreThenSelect) {
    Row scores = score(logits, validColumns(experts));
    gradient = scatter(ofScores(gather(scores, ids, experts)));
    gradient = throughScore(logits, scores, gradient);
  } else {
    Row chosen = gather(logits, ids, experts);
    Row scores = where(valid, score(chosen, valid));
    gradient = scatter(throughScore(chosen, scores, ofScores(scores)));
  }
  Type type = elementOf(op.getResult());
  Row result = zip(raw, gradient, [&](Value x, Value g) {
    return b.toFloat(b.select(isNaN(x), b.f32(0.0), g), type);
  });
  storeRow(result, pointers.result, firstExpert, experts);
}

//===----------------------------------------------------------------------===//
// Lowering
//===----------------------------------------------------------------------===//

static LogicalResult verify(GateGradientOp op, std::string &why) {
  if (op.getScoreAxis() == ScoreAxis::Tokens)
    return unsupported(why, "score_axis(tokens)");
  if (op.getOrder() == Order::ScoreEachChoice)
    return unsupported(why, "order(score_each_choice)");
  int64_t experts = op.getNumExperts(), topK = op.getTopK();
  if (ShapedType::isDynamic(experts) || experts > maxExperts ||
      ShapedType::isDynamic(topK))
    return unsupported(why, "more than " + Twine(maxExperts) +
                                " experts, or a dynamic extent");
  int64_t steps = topK * llvm::divideCeil(experts, GPUBuilder::warpSize);
  if (steps > maxSteps)
    return unsupported(why, Twine(steps) + " steps of a lane, more than " +
                                Twine(maxSteps));
  return success();
}

Lowered mlir::moe::lowerToGPU(GateGradientOp op, DeviceLowering &lowering,
                              std::string &why) {
  if (failed(verify(op, why)))
    return failure();
  HostBuilder host(op.getLoc(), lowering.rewriter);
  int64_t experts = op.getNumExperts(), topK = op.getTopK();
  RankedTensorType type = op.getResult().getType();
  Value result = host.empty(
      {host.mixedExtent(op.getLogits(), 0), host.getIndexAttr(experts)},
      type.getElementType());
  Value count = host.extent(op.getLogits(), 0);

  GPUBuilder b(op.getLoc(), op.getContext());
  GateGradientEmitter::Pointers pointers;
  KernelArguments arguments;
  Value tokens;
  arguments.input(op.getLogits(), pointers.logits);
  arguments.input(op.getIds(), pointers.ids);
  arguments.input(op.getGradient(), pointers.gradient);
  arguments.input(op.getNoise(), pointers.noise);
  arguments.output(result, pointers.result);
  arguments.scalar(count, tokens);
  KernelShape shape;
  shape.threads = warpsInBlock * GPUBuilder::warpSize;
  LLVM::LLVMFuncOp kernel =
      arguments.createKernel(b, lowering.kernels, "gate_gradient", shape);
  MemoryWork work;
  auto bytesOf = [](Value tensor) {
    return tensor
               ? double(getElementTypeOrSelf(tensor).getIntOrFloatBitWidth()) /
                     8
               : 0;
  };
  work.bytesPerToken =
      double(experts) * (bytesOf(op.getLogits()) + bytesOf(op.getNoise()) +
                         bytesOf(op.getResult())) +
      double(topK) * (bytesOf(op.getIds()) + bytesOf(op.getGradient()));
  kernel->setAttr(workAttrName, work.toAttr(op.getContext()));
  Value token = b.warpOfGrid(warpsInBlock);
  GateGradientEmitter emitter(op, pointers, b);
  b.ifThen(b.less(token, tokens), [&] { emitter.emit(token); });
  arguments.launch(lowering.rewriter, kernel,
                   host.ceilDiv(count, warpsInBlock));
  return SmallVector<Value>{result};
}
