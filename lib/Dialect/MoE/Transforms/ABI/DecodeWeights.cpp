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

/// Returns `prepared`, `[1, N, K]`, as `[N, K]`, before `op`.
static Value withoutExperts(Operation *op, Value prepared) {
  OpBuilder b(op);
  return tensor::CollapseShapeOp::create(
      b, op->getLoc(), prepared, ArrayRef<ReassociationIndices>{{0, 1}, {2}});
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
  if (!preparation.findSources(op.getFields(), leading == 1, sources))
    return notOnce("the function computes these weights");

  RankedTensorType result = op.getType();
  SmallVector<int64_t> shape(result.getShape());
  if (leading == 0)
    shape.insert(shape.begin(), 1);
  auto type = RankedTensorType::get(shape, result.getElementType());
  Value decoded = preparation.add(
      op.getLoc(), "decoded", type, sources,
      [&](ImplicitLocOpBuilder &b, ValueRange values) -> Value {
        return DequantizeOp::create(
            b, WeightPreparation::withDynamicExperts(type),
            WeightPreparation::buildFields(b, op.getFields(), values),
            op.getFormat());
      });
  if (leading == 0)
    decoded = withoutExperts(op, decoded);
  int64_t bytes = type.getNumElements() * type.getElementTypeBitWidth() / 8;
  remark::missed(op.getLoc(), remarkOpts(function, "WeightsDecoded"))
      << ("no kernel reads this format: the decoded weights take " +
          Twine((bytes + (1 << 20) - 1) >> 20) + " MiB")
             .str();
  auto quantize = op.getFields().front().getDefiningOp<QuantizeOp>();
  op.replaceAllUsesWith(decoded);
  op.erase();
  if (quantize && quantize.use_empty())
    quantize.erase();
  return success();
}

/// Computes the fields of `op`, of weights, in a preparation each.
static void quantizeOnce(WeightPreparation &preparation, QuantizeOp op) {
  int64_t leading = op.getNumLeadingDims();
  SmallVector<WeightPreparation::Source> sources;
  if (leading > 1 ||
      !preparation.findSources(op.getFields(), leading == 1, sources))
    return; // rows of tokens, for example
  for (auto [index, field] : llvm::enumerate(op.getFields())) {
    if (field.use_empty())
      continue;
    auto type = cast<RankedTensorType>(field.getType());
    SmallVector<int64_t> shape(type.getShape());
    if (leading == 0)
      shape.insert(shape.begin(), 1);
    Value prepared = preparation.add(
        op.getLoc(), "quantized", type.clone(shape), sources,
        [&, index = index](ImplicitLocOpBuilder &b, ValueRange values) {
          return WeightPreparation::buildFields(b, op.getFields(),
                                                values)[index];
        });
    if (leading == 0)
      prepared = withoutExperts(op, prepared);
    field.replaceAllUsesWith(prepared);
  }
  op.erase();
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
      WeightPreparation preparation(function);
      // First what is decoded: nothing may read its fields afterwards.
      function.walk([&](DequantizeOp op) {
        (void)decodeOnce(preparation, function, op);
      });
      function.walk([&](QuantizeOp op) { quantizeOnce(preparation, op); });
      if (preparation.getNumAdded() == 0)
        continue;
      preparation.finish();
      numDecoded += preparation.getNumAdded();
    }
  }
};
} // namespace
