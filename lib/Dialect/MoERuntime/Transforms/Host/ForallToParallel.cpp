//===- ForallToParallel.cpp - Parallel loops on the executor --------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/IR/MoEABI.h"
#include "moe/Dialect/MoERuntime/Transforms/Passes.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/SCF/Transforms/Transforms.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEFORALLTOPARALLEL
#include "moe/Dialect/MoERuntime/Transforms/Passes.h.inc"
} // namespace mlir::moe

/// Replaces `loop`, of one normalized dimension, by tasks of the executor.
static void toTasks(scf::ForallOp loop, Value executor) {
  ImplicitLocOpBuilder b(loop.getLoc(), loop);
  Value count = loop.getUpperBound(b).front();
  count = arith::IndexCastOp::create(b, b.getI64Type(), count);
  auto tasks = moe_rt::ParallelOp::create(b, executor, count);
  Block *body = b.createBlock(&tasks.getBody(), {}, b.getI64Type(), b.getLoc());
  Value index =
      arith::IndexCastOp::create(b, b.getIndexType(), body->getArgument(0));
  Block *source = loop.getBody();
  source->getTerminator()->erase();
  loop.getInductionVar(0).replaceAllUsesWith(index);
  body->getOperations().splice(body->end(), source->getOperations());
  b.setInsertionPointToEnd(body);
  moe_rt::DoneOp::create(b);
  loop.erase();
}

namespace {
struct MoEForallToParallel
    : moe::impl::MoEForallToParallelBase<MoEForallToParallel> {
  void runOnOperation() override {
    for (auto function : getOperation().getOps<func::FuncOp>())
      if (failed(convert(function)))
        return signalPassFailure();
  }

  LogicalResult convert(func::FuncOp function) {
    bool exported = isExported(function);
    SmallVector<scf::ForallOp> tasks, loops;
    WalkResult result =
        function.walk<WalkOrder::PreOrder>([&](scf::ForallOp loop) {
          if (loop->getNumResults() != 0) {
            loop.emitOpError(
                "expected a parallel loop on buffers; bufferize it "
                "before moe-forall-to-parallel");
            return WalkResult::interrupt();
          }
          bool outermost = !loop->getParentOfType<scf::ForallOp>();
          bool simple = loop.getRank() == 1 && loop.isNormalized();
          (exported && outermost && simple ? tasks : loops).push_back(loop);
          return WalkResult::advance();
        });
    if (result.wasInterrupted())
      return failure();
    IRRewriter rewriter(&getContext());
    // Innermost first, so that no loop is rewritten after the one around it.
    for (scf::ForallOp loop : llvm::reverse(loops)) {
      rewriter.setInsertionPoint(loop);
      if (failed(scf::forallToForLoop(rewriter, loop)))
        return failure();
    }
    if (tasks.empty())
      return success();
    unsigned position = function.getNumArguments();
    if (failed(function.insertArgument(
            position, LLVM::LLVMPointerType::get(&getContext()), {},
            function.getLoc())))
      return failure();
    for (scf::ForallOp loop : tasks)
      toTasks(loop, function.getArgument(position));
    return success();
  }
};
} // namespace
