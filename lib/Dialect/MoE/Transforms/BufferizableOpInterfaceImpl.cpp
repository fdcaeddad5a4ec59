//===- BufferizableOpInterfaceImpl.cpp - Bufferization --------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/Transforms/BufferizableOpInterfaceImpl.h"
#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/Dialect/Bufferization/IR/BufferizableOpInterface.h"

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
} // namespace

void mlir::moe::registerBufferizableOpInterfaceExternalModels(
    DialectRegistry &registry) {
  registry.addExtension(+[](MLIRContext *context, MoEDialect *) {
    GateOp::attachInterface<ReadsAndAllocates<GateOp>>(*context);
    DispatchOp::attachInterface<ReadsAndAllocates<DispatchOp>>(*context);
    ExpertOp::attachInterface<ReadsAndAllocates<ExpertOp>>(*context);
    CombineOp::attachInterface<ReadsAndAllocates<CombineOp>>(*context);
  });
}
