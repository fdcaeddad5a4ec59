//===- MoEToLinalg.cpp - Reference lowering -------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Conversion/MoEToLinalg/MoEToLinalg.h"
#include "Lowering.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/IR/IRMapping.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_CONVERTMOETOLINALG
#include "moe/Conversion/Passes.h.inc"
} // namespace mlir::moe

SmallVector<Value> mlir::moe::lowerToLinalg(FusedOp op, OpBuilder &builder) {
  IRMapping mapping;
  for (Operation &each : op.getBody().front().without_terminator())
    builder.clone(each, mapping);
  return llvm::map_to_vector(op.getYield().getValues(), [&](Value value) {
    return mapping.lookupOrDefault(value);
  });
}

/// The lowering of an operation, with the types that the operation has: where
/// some extent is static, the lowering may know it only after folding.
template <typename OpT>
static SmallVector<Value> decompose(OpT op, OpBuilder &builder) {
  SmallVector<Value> values = lowerToLinalg(op, builder);
  for (auto [value, type] : llvm::zip(values, op->getResultTypes()))
    if (value.getType() != type)
      value = tensor::CastOp::create(builder, op.getLoc(), type, value);
  return values;
}

/// True if weights are packed with a format: only kernels read them.
static bool hasPackedFormat(Operation *op) {
  if (auto pack = dyn_cast<PackOp>(op))
    return pack.getPanels().getFormat() != nullptr;
  auto matmul = dyn_cast<GroupedMatmulOp>(op);
  return matmul && matmul.getPanels() && matmul.getPanels()->getFormat();
}

namespace {
template <typename OpT> struct Decompose : OpRewritePattern<OpT> {
  using OpRewritePattern<OpT>::OpRewritePattern;
  LogicalResult matchAndRewrite(OpT op,
                                PatternRewriter &rewriter) const override {
    for (Value operand : op->getOperands())
      if (isa<MemRefType>(operand.getType()))
        return rewriter.notifyMatchFailure(op, "works on buffers");
    if (hasPackedFormat(op))
      return rewriter.notifyMatchFailure(op, "is for kernels");
    rewriter.replaceOp(op, decompose(op, rewriter));
    return success();
  }
};

/// Lowers grouped matmuls with quantized operands, which no CPU kernel reads.
struct DecomposeQuantized : OpRewritePattern<GroupedMatmulOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(GroupedMatmulOp op,
                                PatternRewriter &rewriter) const override {
    if (!op.getResult() || !op.isQuantized())
      return failure();
    rewriter.replaceOp(op, decompose(op, rewriter));
    return success();
  }
};

template <typename OpT>
struct AggregatedModel
    : linalg::AggregatedOpInterface::ExternalModel<AggregatedModel<OpT>, OpT> {
  FailureOr<SmallVector<Value>> decomposeOperation(Operation *op,
                                                   OpBuilder &builder) const {
    if (hasPackedFormat(op))
      return failure();
    return decompose(cast<OpT>(op), builder);
  }
};
} // namespace

void mlir::moe::populateMoEToLinalgPatterns(RewritePatternSet &patterns) {
  patterns.add<Decompose<GateOp>, Decompose<GateGradientOp>,
               Decompose<AuxiliaryLossOp>, Decompose<AuxiliaryLossGradientOp>,
               Decompose<ExpertLoadOp>, Decompose<UpdateBiasOp>,
               Decompose<DispatchOp>, Decompose<ExpertOp>, Decompose<RouteOp>,
               Decompose<QuantizeOp>, Decompose<DequantizeOp>,
               Decompose<FusedOp>, Decompose<KeepOp>, Decompose<PlaceOp>,
               Decompose<PartitionOp>, Decompose<CollectOp>>(
      patterns.getContext());
}

void mlir::moe::populateQuantizedToLinalgPatterns(RewritePatternSet &patterns) {
  patterns.add<DecomposeQuantized>(patterns.getContext());
}

void mlir::moe::populateGroupedToLinalgPatterns(RewritePatternSet &patterns) {
  patterns.add<Decompose<CombineOp>, Decompose<GroupedMatmulOp>,
               Decompose<GroupedContractOp>, Decompose<GatherSumOp>,
               Decompose<PackOp>, Decompose<RoundMatricesOp>>(
      patterns.getContext());
}

void mlir::moe::registerAggregatedOpInterfaceExternalModels(
    DialectRegistry &registry) {
  registry.addExtension(+[](MLIRContext *context, MoEDialect *) {
    GateOp::attachInterface<AggregatedModel<GateOp>>(*context);
    GateGradientOp::attachInterface<AggregatedModel<GateGradientOp>>(*context);
    AuxiliaryLossOp::attachInterface<AggregatedModel<AuxiliaryLossOp>>(
        *context);
    AuxiliaryLossGradientOp::attachInterface<
        AggregatedModel<AuxiliaryLossGradientOp>>(*context);
    ExpertLoadOp::attachInterface<AggregatedModel<ExpertLoadOp>>(*context);
    UpdateBiasOp::attachInterface<AggregatedModel<UpdateBiasOp>>(*context);
    DispatchOp::attachInterface<AggregatedModel<DispatchOp>>(*context);
    ExpertOp::attachInterface<AggregatedModel<ExpertOp>>(*context);
    CombineOp::attachInterface<AggregatedModel<CombineOp>>(*context);
    RouteOp::attachInterface<AggregatedModel<RouteOp>>(*context);
    QuantizeOp::attachInterface<AggregatedModel<QuantizeOp>>(*context);
    DequantizeOp::attachInterface<AggregatedModel<DequantizeOp>>(*context);
    GroupedMatmulOp::attachInterface<AggregatedModel<GroupedMatmulOp>>(
        *context);
    GroupedContractOp::attachInterface<AggregatedModel<GroupedContractOp>>(
        *context);
    GatherSumOp::attachInterface<AggregatedModel<GatherSumOp>>(*context);
    PackOp::attachInterface<AggregatedModel<PackOp>>(*context);
    RoundMatricesOp::attachInterface<AggregatedModel<RoundMatricesOp>>(
        *context);
    FusedOp::attachInterface<AggregatedModel<FusedOp>>(*context);
    KeepOp::attachInterface<AggregatedModel<KeepOp>>(*context);
    PlaceOp::attachInterface<AggregatedModel<PlaceOp>>(*context);
    PartitionOp::attachInterface<AggregatedModel<PartitionOp>>(*context);
    CollectOp::attachInterface<AggregatedModel<CollectOp>>(*context);
    // What a decomposition is made of.
    context->loadDialect<arith::ArithDialect, linalg::LinalgDialect,
                         math::MathDialect, scf::SCFDialect,
                         tensor::TensorDialect>();
  });
}

LogicalResult
mlir::moe::applyLinalgLowering(Operation *root, RewritePatternSet &&patterns,
                               llvm::function_ref<bool(Operation *)> mayStay) {
  if (failed(applyPatternsGreedily(root, std::move(patterns))))
    return failure();
  WalkResult result = root->walk<WalkOrder::PreOrder>([&](Operation *op) {
    if (!isa_and_nonnull<MoEDialect>(op->getDialect()) || mayStay(op))
      return WalkResult::advance();
    op->emitOpError("was not lowered to linalg");
    return WalkResult::interrupt();
  });
  return failure(result.wasInterrupted());
}

namespace {
struct ConvertMoEToLinalg
    : moe::impl::ConvertMoEToLinalgBase<ConvertMoEToLinalg> {
  using ConvertMoEToLinalgBase::ConvertMoEToLinalgBase;

  void runOnOperation() override {
    RewritePatternSet patterns(&getContext());
    populateMoEToLinalgPatterns(patterns);
    populateGroupedToLinalgPatterns(patterns);
    if (failed(applyLinalgLowering(getOperation(), std::move(patterns),
                                   [](Operation *) { return false; })))
      signalPassFailure();
  }
};
} // namespace
