//===- CapacityDrop.cpp - Drop choices beyond the capacity ----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "CapacityDrop.h"

#include "Builder/KernelArguments.h"

#include "RadixTopK.h"
#include "RouteEmitter.h"

#include <limits>

using namespace mlir;
using namespace mlir::moe;

static constexpr int64_t threads = 512;
/// Tokens whose requests are in shared memory at a time.
static constexpr int64_t batch = 2048;

/// The host values of a launch.
struct DropOperands {
  Value kept;            // tensor, replaced by the result
  Value total, capacity; // i32
};

/// Builds and launches the kernel that keeps the choices with the largest
/// weights; one block for each expert.
static void launchKeepLargest(RouteOp op, DropOperands &operands,
                              DeviceLowering &lowering) {
  GPUBuilder b(op.getLoc(), op.getContext());
  Value ids, weights, kept, total, capacity;
  KernelArguments arguments;
  arguments.input(op.getIds(), ids);
  arguments.input(op.getWeights(), weights);
  arguments.output(operands.kept, kept);
  arguments.scalar(operands.total, total);
  arguments.scalar(operands.capacity, capacity);

  HostBuilder host(op.getLoc(), lowering.rewriter);
  Value blocks = host.index(op.getNumExperts());
  KernelShape shape;
  shape.threads = threads;
  shape.sharedBytes = RadixTopK::sharedBytes;
  LLVM::LLVMFuncOp kernel =
      arguments.createKernel(b, lowering.kernels, "route_keep", shape);
  Value expert = b.block();
  Type element = op.getWeights().getType().getElementType();
  Value isFirst = b.equal(expert, 0);
  RouteEmitter route(op, b, threads);
  auto load = [&](Value choice) -> RadixTopK::Candidate {
    Value weight =
        b.toFloat(b.loadAt(element, weights, choice), b.getF32Type());
    Value isNaN =
        arith::CmpFOp::create(b, arith::CmpFPredicate::UNO, weight, weight);
    Value lowest = b.f32(-std::numeric_limits<double>::infinity());
    return {b.select(isNaN, lowest, weight),
            b.equal(route.bucketAt(ids, choice), expert)};
  };
  auto store = [&](Value choice, Value taken) {
    Value bucket = route.bucketAt(ids, choice);
    Value isOwn = b.equal(bucket, expert);
    // The first block writes the choices that count for no expert.
    Value isUncounted = b.both(isFirst, b.equal(bucket, op.getNumExperts()));
    b.ifThen(b.either(isOwn, isUncounted), [&] {
      b.storeAt(b.select(taken, expert, b.i32(-1)), kept, choice);
    });
  };
  RadixTopK(b, threads, b.sharedMemory()).emit(total, capacity, load, store);
  arguments.launch(lowering.rewriter, kernel, blocks);
}

namespace {
/// Next-choice overflow, in one block: all tokens request their first choices,
/// in order; then those that may have more choices request their second ones,
/// and so on.
class NextChoiceKernel {
public:
  NextChoiceKernel(RouteOp op, DeviceLowering &lowering)
      : op(op), lowering(lowering), b(op.getLoc(), op.getContext()),
        experts(op.getNumExperts()), topK(op.getTopK()) {}

  void launch(DropOperands &operands);

private:
  LLVM::LLVMFuncOp build();
  /// Returns the expert that a token requests with choice `k`; `experts` if
  /// none.
  Value requestedExpert(Value token, Value k);
  void assignSlots(Value count);
  void forEach(Value count, llvm::function_ref<void(Value)> body) {
    b.loop(b.thread(), count, b.i32(threads), body);
  }
  Value at(Value base, Value choice) {
    return b.at(base, b.getI32Type(), choice);
  }
  Value load(Value pointer) { return b.load(b.getI32Type(), pointer); }

  RouteOp op;
  DeviceLowering &lowering;
  GPUBuilder b;
  int64_t experts, topK;
  KernelArguments arguments;
  Value ids, kept, total, capacity;
  Value used;     // slots taken, of each expert
  Value requests; // expert requested, of each token of a batch
};
} // namespace

Value NextChoiceKernel::requestedExpert(Value token, Value k) {
  Value first = b.mul(token, topK);
  Value assigned = b.loop(b.i32(0), k, b.i32(1), {b.i32(0)},
                          [&](Value earlier, ValueRange sum) {
                            Value id = load(at(kept, b.add(first, earlier)));
                            Value is = b.toI32(b.logicalNot(b.less(id, 0)));
                            return SmallVector<Value>{b.add(sum[0], is)};
                          })
                       .front();
  Value id = load(at(ids, b.add(first, k)));
  Value wants =
      b.both(b.below(id, experts), b.less(assigned, op.getMaxChoices()));
  return b.select(wants, id, b.i32(experts));
}

/// The first warp assigns slots to 32 tokens at a time; a request becomes -1 if
/// no slot is free.
void NextChoiceKernel::assignSlots(Value count) {
  b.loop(b.i32(0), count, b.i32(GPUBuilder::warpSize), [&](Value start) {
    Value own = at(requests, b.add(start, b.thread()));
    Value expert = load(own);
    Value row = takeSlotsInOrder(b, at(used, expert), expert);
    Value fits = b.both(b.less(expert, experts), b.less(row, capacity));
    b.store(b.select(fits, expert, b.i32(-1)), own);
    NVVM::SyncWarpOp::create(b, b.i32(-1));
  });
}

void NextChoiceKernel::launch(DropOperands &operands) {
  arguments.input(op.getIds(), ids);
  arguments.output(operands.kept, kept);
  arguments.scalar(operands.total, total);
  arguments.scalar(operands.capacity, capacity);
  HostBuilder host(op.getLoc(), lowering.rewriter);
  Value one = host.index(1);
  arguments.launch(lowering.rewriter, build(), one);
}

LLVM::LLVMFuncOp NextChoiceKernel::build() {
  KernelShape shape;
  shape.threads = threads;
  // One more, for tokens without a request.
  int64_t rowBytes = (experts + 1) * 4;
  shape.sharedBytes = rowBytes + batch * 4;
  LLVM::LLVMFuncOp kernel =
      arguments.createKernel(b, lowering.kernels, "route_keep_next", shape);
  Value tokens = b.div(total, topK);
  used = b.sharedMemory();
  requests = b.sharedAt(used, rowBytes);
  forEach(b.i32(experts + 1), [&](Value e) { b.store(b.i32(0), at(used, e)); });
  b.loop(b.i32(0), b.i32(topK), b.i32(1), [&](Value k) {
    b.loop(b.i32(0), tokens, b.i32(batch), [&](Value first) {
      Value count = b.min(b.sub(tokens, first), batch);
      // Pad the batch: a warp may go beyond the last token.
      forEach(b.i32(batch), [&](Value i) {
        b.ifElse(
            b.less(i, count),
            [&] {
              b.store(requestedExpert(b.add(first, i), k), at(requests, i));
            },
            [&] { b.store(b.i32(experts), at(requests, i)); });
      });
      b.barrier();
      b.ifThen(b.less(b.thread(), GPUBuilder::warpSize),
               [&] { assignSlots(count); });
      b.barrier();
      forEach(count, [&](Value i) {
        Value choice = b.add(b.mul(b.add(first, i), topK), k);
        b.storeAt(load(at(requests, i)), kept, choice);
      });
      b.barrier();
    });
  });
  return kernel;
}

Value mlir::moe::launchCapacityDrop(RouteOp op, DeviceLowering &lowering,
                                    Value total, Value capacity) {
  HostBuilder b(op.getLoc(), lowering.rewriter);
  Value kept = b.empty(tensor::getMixedSizes(b, b.getLoc(), op.getIds()),
                       b.getI32Type());
  DropOperands operands{kept, total, capacity};
  if (op.getPriority() == Priority::Probability)
    launchKeepLargest(op, operands, lowering);
  else
    NextChoiceKernel(op, lowering).launch(operands);
  return operands.kept;
}
