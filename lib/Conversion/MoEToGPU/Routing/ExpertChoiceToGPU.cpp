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
#include "Limits.h"
#include "RadixTopK.h"
#include "moe/Analysis/KernelModel.h"

#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/IR/TypeUtilities.h"

#include <limits>

using namespace mlir;
using namespace mlir::moe;

static constexpr int64_t warpsInBlock = 4;
static constexpr int64_t selectThreads = 512;

/// Builds and launches the kernel that scores the experts; replaces `scores` by
/// its result.
static void launchScores(GateOp op, Value tokenCount, Value &scores,
                         DeviceLowering &lowering) {
  GPUBuilder b(op.getLoc(), op.getContext());
  Value logits, scoresPointer, tokens;
  GateEmitter::Pointers pointers;
  KernelArguments arguments;
  arguments.input(op.getLogits(), logits);
  arguments.input(op.getNoise(), pointers.noise);
  arguments.output(scores, scoresPointer);
  arguments.scalar(tokenCount, tokens);

  KernelShape shape;
  shape.threads = warpsInBlock * GPUBuilder::warpSize;
  LLVM::LLVMFuncOp kernel =
      arguments.createKernel(b, lowering.kernels, "gate_scores", shape);
  MemoryWork work;
  int64_t logitBits =
      getElementTypeOrSelf(op.getLogits()).getIntOrFloatBitWidth();
  work.bytesPerToken = double(op.getNumExperts() * (logitBits + 32)) / 8;
  kernel->setAttr(workAttrName, work.toAttr(op.getContext()));
  GateEmitter gate(op, b);
  gate.setPointers(pointers);
  Value token = b.warpOfGrid(warpsInBlock);
  b.ifThen(b.less(token, tokens),
           [&] { gate.emitScores(token, logits, scoresPointer); });
  HostBuilder host(op.getLoc(), lowering.rewriter);
  arguments.launch(lowering.rewriter, kernel,
                   host.ceilDiv(tokenCount, warpsInBlock));
}

namespace {
class ChooseKernel {
public:
  ChooseKernel(GateOp op, DeviceLowering &lowering)
      : op(op), lowering(lowering), b(op.getLoc(), op.getContext()),
        experts(op.getNumExperts()), scoreType(op.getScoreElementType()) {}

  /// The host values of a launch.
  struct Operands {
    Value scores;           // tensor
    Value weights, ids;     // tensors, replaced by the results
    Value tokens, capacity; // i32
  };
  void launch(Operands &operands);

private:
  LLVM::LLVMFuncOp build();
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
  KernelArguments arguments;
  Value scores, bias, weights, ids, tokens, capacity;
  Value expert, shared;
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

void ChooseKernel::launch(Operands &operands) {
  arguments.input(operands.scores, scores);
  arguments.input(op.getBias(), bias);
  arguments.output(operands.weights, weights);
  arguments.output(operands.ids, ids);
  arguments.scalar(operands.tokens, tokens);
  arguments.scalar(operands.capacity, capacity);
  LLVM::LLVMFuncOp kernel = build();
  HostBuilder host(op.getLoc(), lowering.rewriter);
  arguments.launch(lowering.rewriter, kernel, host.index(experts));
}

LLVM::LLVMFuncOp ChooseKernel::build() {
  KernelShape shape;
  shape.threads = selectThreads;
  shape.sharedBytes = RadixTopK::sharedBytes;
  LLVM::LLVMFuncOp kernel =
      arguments.createKernel(b, lowering.kernels, "gate_choose", shape);
  // Scores are read once; the passes of the selection find them in the L2
  // cache.
  MemoryWork work;
  work.bytesPerToken = double(experts) * 12;
  kernel->setAttr(workAttrName, work.toAttr(op.getContext()));
  expert = b.block();
  shared = b.sharedMemory();
  if (op.getScore() == Score::Softmax && op.getScoreAxis() == ScoreAxis::Tokens)
    reduceSoftmax();
  Value expertBias;
  if (bias)
    expertBias = b.toFloat(
        b.loadAt(op.getBias().getType().getElementType(), bias, expert),
        b.getF32Type());
  auto load = [&](Value token) -> RadixTopK::Candidate {
    Value score = scoreOf(token);
    if (expertBias) {
      score = arith::AddFOp::create(b, score, expertBias);
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
    b.storeAt(b.toFloat(weight, scoreType), weights, indexOf(token));
    b.storeAt(b.select(taken, expert, b.i32(-1)), ids, indexOf(token));
  };
  RadixTopK(b, selectThreads, shared).emit(tokens, capacity, load, store);
  return kernel;
}

Lowered mlir::moe::lowerExpertChoice(GateOp op, DeviceLowering &lowering,
                                     std::string &why) {
  if (op.getNormalize())
    return unsupported(why, "select(expert_choice) with normalize");
  if (op.getNumExperts() > maxExperts)
    return unsupported(why, "more than " + Twine(maxExperts) + " experts");
  HostBuilder b(op.getLoc(), lowering.rewriter);
  OpFoldResult tokens = b.mixedExtent(op.getLogits(), 0);
  Value tokenCount = b.extent(op.getLogits(), 0);
  auto emptyOf = [&](Type element) {
    return b.empty({tokens, b.getIndexAttr(op.getNumExperts())}, element);
  };
  ChooseKernel::Operands operands;
  operands.scores = emptyOf(b.getF32Type());
  launchScores(op, tokenCount, operands.scores, lowering);
  operands.weights = emptyOf(getElementTypeOrSelf(op.getResultTypes()[0]));
  operands.ids = emptyOf(getElementTypeOrSelf(op.getResultTypes()[1]));
  Value capacity = buildCapacity(b, b.getLoc(), *op.getCapacity(), tokenCount,
                                 op.getNumExperts());
  operands.tokens = b.toI32(tokenCount);
  operands.capacity = b.toI32(capacity);
  ChooseKernel(op, lowering).launch(operands);
  return SmallVector<Value>{operands.weights, operands.ids};
}
