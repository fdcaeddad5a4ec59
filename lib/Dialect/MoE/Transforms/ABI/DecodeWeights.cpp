//===- DecodeWeights.cpp - Decode quantised weights once ------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/Transforms/ABI/Passes.h"
#include "moe/Dialect/MoE/Transforms/ABI/WeightPreparation.h"

#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/Remarks.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEDECODEWEIGHTS
#include "moe/Dialect/MoE/Transforms/ABI/Passes.h.inc"
} // namespace mlir::moe

static remark::RemarkOpts remarkOpts(func::FuncOp function, StringRef name) {
  return remark::RemarkOpts::name(name)
      .category("moe-decode-weights")
      .function(function.getName());
}

/// Decodes `op` in a preparation; fails if it needs more than weights.
static LogicalResult decodeOnce(WeightPreparation &preparation,
                                func::FuncOp function, DequantizeOp op) {
  auto notOnce = [&](StringRef why) {
    remark::missed(op.getLoc(), remarkOpts(function, "WeightsNotPrepacked"))
        << ("decoded in every call: " + why).str();
    return failure();
  };
  int64_t leading = op.getNumLeadingDims();
  if (leading > 1)
    return notOnce("the weights have more dimensions than experts");
  SmallVector<WeightPreparation::Source> sources;
  for (Value field : op.getFields()) {
    if (!preparation.weightOf(field))
      return notOnce("the function computes these weights");
    sources.push_back({cast<BlockArgument>(field), leading == 1});
  }

  RankedTensorType result = op.getType();
  SmallVector<int64_t> shape(result.getShape());
  if (leading == 0)
    shape.insert(shape.begin(), 1);
  auto type = RankedTensorType::get(shape, result.getElementType());
  Value decoded =
      preparation.add(op.getLoc(), "decoded", type, sources,
                      [&](ImplicitLocOpBuilder &b, ValueRange fields) -> Value {
                        return DequantizeOp::create(
                            b, WeightPreparation::withDynamicExperts(type),
                            fields, op.getFormat());
                      });
  if (leading == 0) {
    OpBuilder b(op);
    decoded = tensor::CollapseShapeOp::create(
        b, op.getLoc(), decoded, ArrayRef<ReassociationIndices>{{0, 1}, {2}});
  }
  int64_t bytes = type.getNumElements() * type.getElementTypeBitWidth() / 8;
  remark::missed(op.getLoc(), remarkOpts(function, "WeightsDecoded"))
      << ("no kernel reads this format: the decoded weights take " +
          Twine((bytes + (1 << 20) - 1) >> 20) + " MiB")
             .str();
  op.replaceAllUsesWith(decoded);
  op.erase();
  return success();
}

namespace {
struct MoEDecodeWeights : moe::impl::MoEDecodeWeightsBase<MoEDecodeWeights> {
  using MoEDecodeWeightsBase::MoEDecodeWeightsBase;

  void runOnOperation() override {
    SmallVector<func::FuncOp> functions(getOperation().getOps<func::FuncOp>());
    for (func::FuncOp function : functions) {
      // A preparation is only called once itself.
      if (function.isExternal() || function->hasAttr(preparesAttrName))
        continue;
      SmallVector<DequantizeOp> work;
      function.walk([&](DequantizeOp op) { work.push_back(op); });
      if (work.empty())
        continue;
      WeightPreparation preparation(function);
      for (DequantizeOp op : work)
        (void)decodeOnce(preparation, function, op);
      preparation.finish();
      numDecoded += preparation.getNumAdded();
    }
  }
};
} // namespace
