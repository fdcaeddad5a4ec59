//===- GateToGPU.cpp - moe.gate -------------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Gates whose logits are in memory. RouterToGPU.cpp fuses a gate with the
// matmul that computes its logits.
//
//===----------------------------------------------------------------------===//

#include "ExpertChoiceToGPU.h"
#include "GateEmitter.h"
#include "moe/Analysis/KernelModel.h"

#include "mlir/IR/TypeUtilities.h"
#include "mlir/Interfaces/FunctionInterfaces.h"

using namespace mlir;
using namespace mlir::moe;

static constexpr int64_t warpsInBlock = 4;

/// Builds and launches the gate kernel; `weights` and `ids` are destinations
/// that the launch replaces.
static void launchGate(GateOp op, Value tokenCount, Value &weights, Value &ids,
                       DeviceLowering &lowering) {
  GPUBuilder b(op.getLoc(), op.getContext());
  bool takesLive = op->getParentOfType<FunctionOpInterface>()->hasAttr(
      independentTokensAttrName);
  Value logits, tokens, liveAddress;
  GateEmitter::Pointers pointers;
  KernelArguments arguments;
  arguments.input(op.getLogits(), logits);
  GateEmitter::declareInputs(op, arguments, pointers);
  arguments.output(weights, pointers.weights);
  arguments.output(ids, pointers.ids);
  arguments.scalar(tokenCount, tokens);
  if (takesLive)
    arguments.appended(b.getI64Type(), liveAddress);

  KernelShape shape;
  shape.threads = warpsInBlock * 32;
  LLVM::LLVMFuncOp kernel =
      arguments.createKernel(b, lowering.kernels, "gate", shape);
  MemoryWork work;
  int64_t logitBits =
      getElementTypeOrSelf(op.getLogits()).getIntOrFloatBitWidth();
  work.bytesPerToken =
      double(op.getNumExperts() * logitBits) / 8 + double(op.getTopK()) * 8;
  kernel->setAttr(workAttrName, work.toAttr(op.getContext()));
  GateEmitter gate(op, b);
  gate.setPointers(pointers);
  Value live = tokens;
  if (takesLive) {
    kernel->setAttr(liveTokensAttrName, b.getUnitAttr());
    live = GateEmitter::liveTokens(b, tokens, liveAddress);
  }
  Value token = b.warpOfGrid(warpsInBlock);
  b.ifThen(b.less(token, live),
           [&] { gate.emit(token, logits, b.mul(token, op.getNumExperts())); });
  if (takesLive)
    b.ifThen(b.both(b.less(token, tokens), b.logicalNot(b.less(token, live))),
             [&] { gate.emitNone(token); });
  HostBuilder host(op.getLoc(), lowering.rewriter);
  arguments.launch(lowering.rewriter, kernel,
                   host.ceilDiv(tokenCount, warpsInBlock));
}

Lowered mlir::moe::lowerToGPU(GateOp op, DeviceLowering &lowering,
                              std::string &why) {
  if (op.getSelection() == Selection::ExpertChoice)
    return lowerExpertChoice(op, lowering, why);
  if (failed(GateEmitter::verify(op, why)))
    return failure();
  HostBuilder b(op.getLoc(), lowering.rewriter);
  OpFoldResult tokens = b.mixedExtent(op.getLogits(), 0);
  SmallVector<Value> results;
  for (Type type : op.getResultTypes())
    results.push_back(b.empty({tokens, b.getIndexAttr(op.getTopK())},
                              getElementTypeOrSelf(type)));
  Value tokenCount = b.extent(op.getLogits(), 0);
  launchGate(op, tokenCount, results[0], results[1], lowering);
  return results;
}
