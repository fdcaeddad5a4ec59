//===- DecomposeCombine.cpp - moe.combine to moe.gather_sum ---------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Conversion/MoEToLinalg/MoEToLinalg.h"
#include "moe/Dialect/MoE/Transforms/Fusion/Passes.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/IR/PatternMatch.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEDECOMPOSECOMBINE
#include "moe/Dialect/MoE/Transforms/Fusion/Passes.h.inc"
} // namespace mlir::moe

namespace {
struct MoEDecomposeCombine
    : moe::impl::MoEDecomposeCombineBase<MoEDecomposeCombine> {
  using MoEDecomposeCombineBase::MoEDecomposeCombineBase;

  void runOnOperation() override {
    SmallVector<CombineOp> combines;
    getOperation()->walk([&](CombineOp op) { combines.push_back(op); });
    IRRewriter rewriter(&getContext());
    for (CombineOp op : combines) {
      rewriter.setInsertionPoint(op);
      rewriter.replaceOp(op, decomposeCombine(op, rewriter));
      ++numDecomposed;
    }
  }
};
} // namespace
