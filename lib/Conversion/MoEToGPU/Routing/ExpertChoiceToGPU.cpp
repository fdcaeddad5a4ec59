//===- ExpertChoiceToGPU.cpp - Expert-choice moe.gate ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// In the first kernel a warp scores all experts for one token; in the second a
// block selects the top tokens of one expert.
//
//===----------------------------------------------------------------------===//

#include "ExpertChoiceToGPU.h"

#include "GateEmitter.h"
#include "RadixTopK.h"

#include "mlir/Dialect/Math/IR/Math.h"

#include <limits>

using namespace mlir;
using namespace mlir::moe;

static constexpr int64_t warpsInBlock = 4;
static constexpr int64_t selectThreads = 512;

static LLVM::LLVMFuncOp buildScores(GateOp op, DeviceLowering &lowering) {
  GPUBuilder b(op.getLoc(), op.getContext());
  KernelShape shape;
  shape.threads = warpsInBlock * GPUBuilder::warpSize;
  auto kernel = createKernel(b, lowering.kernels, "gate_scores", shape,
                             op.getNoise() ? 3 : 2, b.getI64Type());
  ValueRange arguments = kernel.getArguments();
  GateEmitter gate(op, b);
  if (op.getNoise())
    gate.setNoise(arguments[1]);
  Value token = b.add(b.mul(b.toI64(b.block()), warpsInBlock),
                      b.toI64(b.shiftRight(b.thread(), 5)));
  b.ifThen(b.less(token, arguments.back()), [&] {
    gate.emitScores(token, arguments[0], arguments.drop_back().back());
  });
  return kernel;
}

namespace {
class ChooseKernel {
public:
  ChooseKernel(GateOp op, DeviceLowering &lowering)
      : op(op), lowering(lowering), b(op.getLoc(), op.getContext()),
        experts(op.getNumExperts()), scoreType(op.getScoreElementType()) {}

  /// Inputs: scores and, if there is one, the bias; results: weights and ids;
  /// scalars: tokens and capacity.
  LLVM::LLVMFuncOp build();

private:
  Value indexOf(Value token) {
    return b.add(b.mul(b.toI64(token), experts), b.toI64(expert));
  }
  Value compare(arith::CmpFPredicate predicate, Value x, Value y) {
    return arith::CmpFOp::create(b, predicate, x, y);
  }
  Value negInf() { return b.f32(-std::numeric_limits<double>::infinity()); }
  /// Reduces a value of each token over the block, in a fixed order; all
  /// threads have the result.
  Value reduce(Value init, llvm::function_ref<Value(Value score)> valueOf,
               llvm::function_ref<Value(Value, Value)> combine);
  void reduceSoftmax();
  Value scoreOf(Value token);

  GateOp op;
  DeviceLowering &lowering;
  GPUBuilder b;
  int64_t experts;
  Type scoreType;
  Value scores, expert, tokens, shared;
  Value maximum, sum; // of a softmax over the tokens
};
} // namespace

Value ChooseKernel::reduce(Value init, llvm::function_ref<Value(Value)> valueOf,
                           llvm::function_ref<Value(Value, Value)> combine) {
  constexpr int64_t warps = selectThreads / GPUBuilder::warpSize;
  Type f32 = b.getF32Type();
  Value own = b.loop(b.thread(), tokens, b.i32(selectThreads), init,
                     [&](Value token, ValueRange carried) {
                       Value value =
                           valueOf(b.loadAt(f32, scores, indexOf(token)));
                       return SmallVector<Value>{combine(carried[0], value)};
                     })
                  .front();
  own = b.reduceWarp(own, combine);
  Value warp = b.warp();
  b.ifThen(b.equal(b.lane(), 0), [&] { b.storeAt(own, shared, warp); });
  b.barrier();
  Value all = b.load(f32, shared);
  for (int64_t i = 1; i < warps; ++i)
    all = combine(all, b.loadAt(f32, shared, b.i32(i)));
  b.barrier();
  return all;
}

/// Returns exp(x − maximum); 1 for the maximum itself, even if it is infinite.
static Value expOf(GPUBuilder &b, Value x, Value maximum) {
  Value power = math::ExpOp::create(b, arith::SubFOp::create(b, x, maximum));
  Value same = arith::CmpFOp::create(b, arith::CmpFPredicate::OEQ, x, maximum);
  return b.select(same, b.f32(1.0), power);
}

void ChooseKernel::reduceSoftmax() {
  maximum = reduce(
      negInf(), [](Value x) { return x; },
      [&](Value x, Value y) -> Value {
        return arith::MaximumFOp::create(b, x, y);
      });
  sum = reduce(
      b.f32(0.0), [&](Value x) { return expOf(b, x, maximum); },
      [&](Value x, Value y) -> Value {
        return arith::AddFOp::create(b, x, y);
      });
}

Value ChooseKernel::scoreOf(Value token) {
  Value score = b.loadAt(b.getF32Type(), scores, indexOf(token));
  if (!sum)
    return score;
  // The maximum contributes 1, so the sum is not 0.
  score = arith::DivFOp::create(b, expOf(b, score, maximum), sum);
  return b.toFloat(b.toFloat(score, scoreType), b.getF32Type());
}

LLVM::LLVMFuncOp ChooseKernel::build() {
  KernelShape shape;
  shape.threads = selectThreads;
  shape.sharedBytes = RadixTopK::sharedBytes;
  Type i32 = b.getI32Type(), f32 = b.getF32Type();
  auto kernel = createKernel(b, lowering.kernels, "gate_choose", shape,
                             op.getBias() ? 4 : 3, {i32, i32});
  ValueRange arguments = kernel.getArguments();
  ValueRange outputs = arguments.drop_back(2).take_back(2);
  scores = arguments[0];
  tokens = arguments.drop_back().back();
  expert = b.block();
  shared = b.sharedMemory();
  if (op.getScore() == Score::Softmax && op.getScoreAxis() == ScoreAxis::Tokens)
    reduceSoftmax();
  Value bias;
  if (op.getBias())
    bias = b.toFloat(
        b.loadAt(op.getBias().getType().getElementType(), arguments[1], expert),
        f32);
  auto load = [&](Value token) -> RadixTopK::Candidate {
    Value score = scoreOf(token);
    if (bias) {
      score = arith::AddFOp::create(b, score, bias);
      score = b.select(compare(arith::CmpFPredicate::UNO, score, score),
                       negInf(), score);
    }
    return {score, b.i1(true)};
  };
  auto store = [&](Value token, Value taken) {
    Value weight = scoreOf(token);
    if (op.getThreshold())
      taken =
          b.both(taken, compare(arith::CmpFPredicate::OGT, weight,
                                b.f32(op.getThreshold()->convertToDouble())));
    weight = b.select(taken, weight, b.f32(0.0));
    if (op.getScale())
      weight = arith::MulFOp::create(b, weight,
                                     b.f32(op.getScale()->convertToDouble()));
    b.storeAt(b.toFloat(weight, scoreType), outputs[0], indexOf(token));
    b.storeAt(b.select(taken, expert, b.i32(-1)), outputs[1], indexOf(token));
  };
  RadixTopK(b, selectThreads, shared)
      .emit(tokens, arguments.back(), load, store);
  return kernel;
}

Lowered mlir::moe::lowerExpertChoice(GateOp op, DeviceLowering &lowering,
                                     std::string &why) {
  if (op.getNormalize())
    why = "select(expert_choice) with normalize";
  else if (op.getNumExperts() > GateEmitter::maxExperts)
    why = "more than " + std::to_string(GateEmitter::maxExperts) + " experts";
  if (!why.empty())
    return failure();
  LLVM::LLVMFuncOp score = buildScores(op, lowering);
  LLVM::LLVMFuncOp choose = ChooseKernel(op, lowering).build();

  ImplicitLocOpBuilder b(op.getLoc(), lowering.rewriter);
  OpFoldResult tokens = tensor::getMixedSize(b, b.getLoc(), op.getLogits(), 0);
  Value count = extentOf(b, op.getLogits(), 0);
  auto emptyOf = [&](Type element) -> Value {
    return tensor::EmptyOp::create(
        b, ArrayRef<OpFoldResult>{tokens, b.getIndexAttr(op.getNumExperts())},
        element);
  };
  SmallVector<Value> inputs{op.getLogits()};
  if (op.getNoise())
    inputs.push_back(op.getNoise());
  Value scores =
      launch(lowering, op.getLoc(), score, ceilDivOf(b, count, warpsInBlock),
             inputs, emptyOf(b.getF32Type()), count)
          .front();
  SmallVector<Value> inits;
  for (Type type : op.getResultTypes())
    inits.push_back(emptyOf(cast<RankedTensorType>(type).getElementType()));
  inputs = {scores};
  if (op.getBias())
    inputs.push_back(op.getBias());
  auto toI32 = [&](Value value) -> Value {
    return arith::IndexCastOp::create(b, b.getI32Type(), value);
  };
  Value capacity = buildCapacity(b, b.getLoc(), *op.getCapacity(), count,
                                 op.getNumExperts());
  return launch(lowering, op.getLoc(), choose,
                arith::ConstantIndexOp::create(b, op.getNumExperts()), inputs,
                inits, {toI32(count), toI32(capacity)});
}
