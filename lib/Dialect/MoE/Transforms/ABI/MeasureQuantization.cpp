//===- MeasureQuantization.cpp - Measure errors of quantised weights ------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/Transforms/ABI/Passes.h"
#include "moe/Dialect/MoE/Transforms/ABI/WeightPreparation.h"

#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEMEASUREQUANTIZATION
#include "moe/Dialect/MoE/Transforms/ABI/Passes.h.inc"
} // namespace mlir::moe

/// Adds an argument with the errors of a quantised weight.
static void measure(WeightPreparation &preparation, QuantizeOp op) {
  auto type = op.getSource().getType();
  bool hasExperts = type.getRank() == 3;
  auto errors = RankedTensorType::get({hasExperts ? type.getDimSize(0) : 1},
                                      Float32Type::get(op.getContext()));
  auto build = [&](ImplicitLocOpBuilder &b, ValueRange sources) -> Value {
    Value init = tensor::EmptyOp::create(
        b, ArrayRef{tensor::getMixedSize(b, b.getLoc(), sources.front(), 0)},
        b.getF32Type());
    return RoundMatricesOp::create(b, TypeRange(init.getType()),
                                   sources.front(), op.getTransposed(),
                                   op.getFormat(), init)
        .getResults()
        .front();
  };
  preparation.add(op.getLoc(), "error", errors,
                  {{cast<BlockArgument>(op.getSource()), hasExperts}}, build,
                  preparation.weightOf(op.getSource()).getName());
}

namespace {
struct MoEMeasureQuantization
    : moe::impl::MoEMeasureQuantizationBase<MoEMeasureQuantization> {
  using MoEMeasureQuantizationBase::MoEMeasureQuantizationBase;

  void runOnOperation() override {
    SmallVector<func::FuncOp> functions(getOperation().getOps<func::FuncOp>());
    for (func::FuncOp function : functions) {
      if (function.isExternal() || !isExported(function))
        continue;
      WeightPreparation preparation(function);
      SmallVector<QuantizeOp> work;
      function.walk([&](QuantizeOp op) {
        int64_t rank = op.getSource().getType().getRank();
        if ((rank == 2 || rank == 3) && preparation.weightOf(op.getSource()))
          work.push_back(op);
      });
      if (work.empty())
        continue;
      for (QuantizeOp op : work)
        measure(preparation, op);
      preparation.finish();
      numMeasured += preparation.getNumAdded();
    }
  }
};
} // namespace
