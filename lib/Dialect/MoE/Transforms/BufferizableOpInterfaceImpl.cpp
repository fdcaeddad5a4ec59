//===- BufferizableOpInterfaceImpl.cpp - Bufferization --------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/Transforms/BufferizableOpInterfaceImpl.h"
#include "moe/Dialect/MoE/IR/MoE.h"
#include "moe/Dialect/MoERuntime/IR/MoERuntime.h"

#include "mlir/Dialect/Bufferization/IR/BufferizableOpInterface.h"
#include "mlir/Dialect/Bufferization/IR/DstBufferizableOpInterfaceImpl.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::bufferization;

namespace {
template <typename OpT>
struct ReadsAndAllocates
    : BufferizableOpInterface::ExternalModel<ReadsAndAllocates<OpT>, OpT> {
  bool bufferizesToMemoryRead(Operation *, OpOperand &,
                              const AnalysisState &) const {
    return true;
  }
  bool bufferizesToMemoryWrite(Operation *, OpOperand &,
                               const AnalysisState &) const {
    return false;
  }
  AliasingValueList getAliasingValues(Operation *, OpOperand &,
                                      const AnalysisState &) const {
    return {};
  }
  bool bufferizesToAllocation(Operation *, Value) const { return true; }

  LogicalResult bufferize(Operation *op, RewriterBase &,
                          const BufferizationOptions &,
                          BufferizationState &) const {
    return op->emitOpError("is an operation on tensors; run "
                           "convert-moe-to-linalg before bufferization");
  }
};

/// True if the result depends on what a destination has: elements that are kept
/// or added to.
static bool readsDestinations(Operation *op) {
  auto contract = dyn_cast<GroupedContractOp>(op);
  return !contract || contract.getAccumulate();
}

/// Recreates an operation with destinations on buffers.
template <typename OpT>
struct OnBuffers
    : DstBufferizableOpInterfaceExternalModel<OnBuffers<OpT>, OpT> {
  bool bufferizesToMemoryRead(Operation *op, OpOperand &operand,
                              const AnalysisState &) const {
    return readsDestinations(op) ||
           !cast<DestinationStyleOpInterface>(op).isDpsInit(&operand);
  }

  LogicalResult bufferize(Operation *op, RewriterBase &rewriter,
                          const BufferizationOptions &options,
                          BufferizationState &state) const {
    OpBuilder::InsertionGuard guard(rewriter);
    rewriter.setInsertionPoint(op);
    SmallVector<Value> operands;
    for (Value operand : op->getOperands()) {
      FailureOr<Value> buffer = operand;
      if (isa<TensorType>(operand.getType()))
        buffer = getBuffer(rewriter, operand, options, state);
      if (failed(buffer))
        return failure();
      operands.push_back(*buffer);
    }
    OperationState onBuffers(op->getLoc(), op->getName(), operands, TypeRange(),
                             op->getAttrs());
    onBuffers.propertiesAttr = op->getPropertiesAsAttribute();
    for (Region &region : op->getRegions())
      onBuffers.addRegion()->takeBody(region);
    rewriter.create(onBuffers);
    SmallVector<Value> results;
    for (OpOperand &init :
         cast<DestinationStyleOpInterface>(op).getDpsInitsMutable())
      results.push_back(operands[init.getOperandNumber()]);
    replaceOpWithBufferizedValues(rewriter, op, results);
    return success();
  }
};
} // namespace

void mlir::moe::registerBufferizableOpInterfaceExternalModels(
    DialectRegistry &registry) {
  registry.addExtension(+[](MLIRContext *context, MoEDialect *) {
    GateOp::attachInterface<ReadsAndAllocates<GateOp>>(*context);
    GateGradientOp::attachInterface<ReadsAndAllocates<GateGradientOp>>(
        *context);
    AuxiliaryLossOp::attachInterface<ReadsAndAllocates<AuxiliaryLossOp>>(
        *context);
    AuxiliaryLossGradientOp::attachInterface<
        ReadsAndAllocates<AuxiliaryLossGradientOp>>(*context);
    ExpertLoadOp::attachInterface<ReadsAndAllocates<ExpertLoadOp>>(*context);
    UpdateBiasOp::attachInterface<ReadsAndAllocates<UpdateBiasOp>>(*context);
    DispatchOp::attachInterface<ReadsAndAllocates<DispatchOp>>(*context);
    ExpertOp::attachInterface<ReadsAndAllocates<ExpertOp>>(*context);
    CombineOp::attachInterface<ReadsAndAllocates<CombineOp>>(*context);
    RouteOp::attachInterface<ReadsAndAllocates<RouteOp>>(*context);
    QuantizeOp::attachInterface<ReadsAndAllocates<QuantizeOp>>(*context);
    DequantizeOp::attachInterface<ReadsAndAllocates<DequantizeOp>>(*context);
    GroupedMatmulOp::attachInterface<OnBuffers<GroupedMatmulOp>>(*context);
    GroupedContractOp::attachInterface<OnBuffers<GroupedContractOp>>(*context);
    GatherSumOp::attachInterface<OnBuffers<GatherSumOp>>(*context);
    PackOp::attachInterface<OnBuffers<PackOp>>(*context);
    QuantizeRowsOp::attachInterface<OnBuffers<QuantizeRowsOp>>(*context);
    RoundMatricesOp::attachInterface<OnBuffers<RoundMatricesOp>>(*context);
  });
  registry.addExtension(+[](MLIRContext *context, moe_rt::MoERuntimeDialect *) {
    moe_rt::LaunchOp::attachInterface<OnBuffers<moe_rt::LaunchOp>>(*context);
  });
}
