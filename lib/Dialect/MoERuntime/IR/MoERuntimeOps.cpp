//===- MoERuntimeOps.cpp - Tasks and launches -----------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/IR/MoEABI.h"
#include "moe/Dialect/MoERuntime/IR/MoERuntime.h"
#include "moe/Dialect/Utils/DestinationEffects.h"

#include "mlir/Interfaces/FunctionInterfaces.h"

using namespace mlir;
using namespace mlir::moe_rt;

//===----------------------------------------------------------------------===//
// moe_rt.parallel
//===----------------------------------------------------------------------===//

LogicalResult ParallelOp::verifyRegions() {
  Block &entry = getBody().front();
  if (entry.getNumArguments() != 1 ||
      !entry.getArgument(0).getType().isSignlessInteger(64))
    return emitOpError("expected a region that takes the number of a task as "
                       "i64, got ")
           << llvm::to_vector(entry.getArgumentTypes());
  return success();
}

//===----------------------------------------------------------------------===//
// #moe_rt.tensor_map
//===----------------------------------------------------------------------===//

LogicalResult
TensorMapAttr::verify(llvm::function_ref<InFlightDiagnostic()> emitError,
                      int64_t input, ArrayRef<int64_t> box, int64_t swizzle) {
  if (input < 0)
    return emitError() << "expected the index of an operand, got " << input;
  if (box.empty() || box.size() > 5)
    return emitError() << "expected a box of 1 to 5 dimensions, got "
                       << box.size();
  for (int64_t extent : box)
    if (extent < 1 || extent > 256)
      return emitError() << "expected 1 to 256 elements of each dimension in a "
                            "box, got "
                         << extent;
  if (!llvm::is_contained({0, 32, 64, 128}, swizzle))
    return emitError() << "expected a swizzle of 0, 32, 64 or 128 bytes, got "
                       << swizzle;
  return success();
}

//===----------------------------------------------------------------------===//
// moe_rt.launch
//===----------------------------------------------------------------------===//

void LaunchOp::getEffects(
    SmallVectorImpl<SideEffects::EffectInstance<MemoryEffects::Effect>>
        &effects) {
  moe::addDestinationEffects(*this, effects);
}

LogicalResult LaunchOp::reifyResultShapes(OpBuilder &b,
                                          ReifiedRankedShapedTypeDims &shapes) {
  for (Value init : getInits())
    shapes.push_back(tensor::getMixedSizes(b, getLoc(), init));
  return success(getNumResults() != 0);
}

/// Operands must be all tensors or all buffers, and results the tensors of
/// destinations.
LogicalResult LaunchOp::verify() {
  if (getInits().empty())
    return emitOpError("expected at least one destination");
  bool tensors = isa<TensorType>(getInits().front().getType());
  for (Value data : llvm::concat<Value>(getInputs(), getInits()))
    if (isa<TensorType>(data.getType()) != tensors)
      return emitOpError("expected data that are all tensors or all memrefs, "
                         "got ")
             << getInits().front().getType() << " and " << data.getType();
  TypeRange expected = tensors ? TypeRange(getInits()) : TypeRange();
  if (TypeRange(getOutputs()) != expected)
    return emitOpError("expected the types of the destinations as results");
  for (Value scalar : getScalars())
    if (!scalar.getType().isIntOrIndexOrFloat())
      return emitOpError("expected scalars of integers or floats, got ")
             << scalar.getType();
  if (!getMaps())
    return success();
  for (auto map : getMaps()->getAsRange<TensorMapAttr>()) {
    if (map.getInput() >= int64_t(getInputs().size()))
      return emitOpError("expected a tensor map of one of ")
             << getInputs().size() << " inputs, got input " << map.getInput();
    auto type = cast<ShapedType>(getInputs()[map.getInput()].getType());
    if (type.getRank() != int64_t(map.getBox().size()))
      return emitOpError("expected a box of as many dimensions as the input, ")
             << type.getRank() << ", got " << map.getBox().size();
  }
  return success();
}

LogicalResult LaunchOp::verifySymbolUses(SymbolTableCollection &symbols) {
  auto kernel =
      symbols.lookupNearestSymbolFrom<FunctionOpInterface>(*this, getKernel());
  if (!kernel)
    return emitOpError("expected a kernel, found no function ") << getKernel();
  // gpu::GPUDialect::getKernelFuncAttrName(), which llvm.func keeps; the
  // dialect library does not link the GPU dialect.
  constexpr StringLiteral kernelAttr = "gpu.kernel";
  if (!kernel->hasAttr(kernelAttr))
    return emitOpError("expected a kernel, ")
           << getKernel() << " lacks " << kernelAttr;
  size_t expected = getInputs().size() + getInits().size() +
                    getScalars().size() + (getMaps() ? getMaps()->size() : 0) +
                    // The runtime passes the pointer to the number of live
                    // tokens.
                    kernel->hasAttr(moe::liveTokensAttrName);
  if (kernel.getNumArguments() != expected)
    return emitOpError("expected a kernel with ")
           << expected << " arguments, got " << kernel.getNumArguments();
  return success();
}
