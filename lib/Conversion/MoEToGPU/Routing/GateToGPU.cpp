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

#include "mlir/Interfaces/FunctionInterfaces.h"

using namespace mlir;
using namespace mlir::moe;

static constexpr int64_t warpsInBlock = 4;

static LLVM::LLVMFuncOp buildKernel(GateOp op, int64_t inputs,
                                    DeviceLowering &lowering) {
  GPUBuilder b(op.getLoc(), op.getContext());
  KernelShape shape;
  shape.threads = warpsInBlock * 32;
  bool takesLive = op->getParentOfType<FunctionOpInterface>()->hasAttr(
      independentTokensAttr);
  SmallVector<Type> scalars{b.getI64Type()};
  if (takesLive)
    scalars.push_back(b.getI64Type());
  auto kernel =
      createKernel(b, lowering.kernels, "gate", shape, 3 + inputs, scalars);
  ValueRange arguments = kernel.getArguments();
  GateEmitter gate(op, b);
  gate.setPointers(arguments.drop_front(1).drop_back(scalars.size()));
  Value tokens = arguments[3 + inputs], live = tokens;
  if (takesLive) {
    kernel->setAttr(liveTokensAttr, b.getUnitAttr());
    live = GateEmitter::liveTokens(b, tokens, arguments.back());
  }
  Value token = b.add(b.mul(b.toI64(b.block()), warpsInBlock),
                      b.toI64(b.shiftRight(b.thread(), 5)));
  b.ifThen(b.less(token, live), [&] {
    gate.emit(token, arguments.front(), b.mul(token, op.getNumExperts()));
  });
  if (takesLive)
    b.ifThen(b.both(b.less(token, tokens), b.logicalNot(b.less(token, live))),
             [&] { gate.emitNone(token); });
  return kernel;
}

Lowered mlir::moe::lowerToGPU(GateOp op, DeviceLowering &lowering,
                              std::string &why) {
  if (op.getSelection() == Selection::ExpertChoice)
    return lowerExpertChoice(op, lowering, why);
  if (failed(GateEmitter::verify(op, why)))
    return failure();
  SmallVector<Value> inputs = GateEmitter::inputs(op);
  LLVM::LLVMFuncOp kernel = buildKernel(op, inputs.size(), lowering);
  inputs.insert(inputs.begin(), op.getLogits());
  ImplicitLocOpBuilder b(op.getLoc(), lowering.rewriter);
  OpFoldResult tokens = tensor::getMixedSize(b, b.getLoc(), op.getLogits(), 0);
  OpFoldResult choices = b.getIndexAttr(op.getTopK());
  SmallVector<Value> inits;
  for (Type type : op.getResultTypes())
    inits.push_back(
        tensor::EmptyOp::create(b, ArrayRef<OpFoldResult>{tokens, choices},
                                cast<RankedTensorType>(type).getElementType()));
  Value count = extentOf(b, op.getLogits(), 0);
  return launch(lowering, op.getLoc(), kernel,
                ceilDivOf(b, count, warpsInBlock), inputs, inits, count);
}
