//===- RaiseGrouped.cpp - Grouped products of other dialects -------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "GroupedProduct.h"

#include "moe/Dialect/MoE/Transforms/Raising/Passes.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOERAISEGROUPED
#include "moe/Dialect/MoE/Transforms/Raising/Passes.h.inc"
} // namespace mlir::moe

namespace {
struct MoERaiseGrouped : moe::impl::MoERaiseGroupedBase<MoERaiseGrouped> {
  using MoERaiseGroupedBase::MoERaiseGroupedBase;

  void runOnOperation() override {
    if (Operation *op = raising::findMalformed(getOperation()))
      return raising::remarkNotRaised(op, "GroupedNotRaised",
                                      raising::malformed);
    SmallVector<Operation *> ops;
    getOperation()->walk([&](Operation *op) { ops.push_back(op); });
    IRRewriter rewriter(&getContext());
    raising::GroupedProductBuilder builder(rewriter);
    for (Operation *op : ops)
      for (auto pattern : {raising::raiseRaggedDot, raising::raiseMaskedDot,
                           raising::raiseTorchGroupedMatmul}) {
        rewriter.setInsertionPoint(op);
        raising::Outcome outcome = pattern(op, builder);
        if (outcome.kind == raising::Outcome::Left)
          raising::remarkNotRaised(op, "GroupedNotRaised", outcome.reason);
        numRaised += outcome.kind == raising::Outcome::Raised;
        if (outcome.kind != raising::Outcome::Unknown)
          break;
      }
  }
};
} // namespace
