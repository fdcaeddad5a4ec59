//===- KernelArguments.cpp - Named arguments of a kernel ------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "KernelArguments.h"
#include "moe/Dialect/MoERuntime/IR/MoERuntime.h"

using namespace mlir;
using namespace mlir::moe;

int64_t KernelArguments::input(Value tensor, Value &pointer) {
  if (tensor)
    inputs.push_back({tensor, &pointer});
  return inputs.size() - 1;
}

void KernelArguments::output(Value &tensor, Value &pointer) {
  outputs.push_back({&tensor, &pointer});
}

void KernelArguments::scalar(Value value, Value &argument) {
  if (value)
    scalars.push_back({value, &argument});
}

void KernelArguments::tensorMap(int64_t input, ArrayRef<int64_t> box,
                                int64_t swizzleBytes, Value &map) {
  tensorMaps.push_back({input, llvm::to_vector(box), swizzleBytes, &map});
}

void KernelArguments::appended(Type type, Value &argument) {
  appendedType = type;
  appendedArgument = &argument;
}

LLVM::LLVMFuncOp KernelArguments::createKernel(GPUBuilder &b,
                                               gpu::GPUModuleOp kernels,
                                               StringRef name,
                                               KernelShape shape) {
  shape.tensorMaps = tensorMaps.size();
  SmallVector<Type> types;
  for (const Argument &scalar : scalars) {
    Type type = scalar.onHost.getType();
    types.push_back(type.isIndex() ? b.getI64Type() : type);
  }
  if (appendedArgument)
    types.push_back(appendedType);
  LLVM::LLVMFuncOp kernel = moe::createKernel(
      b, kernels, name, shape, inputs.size() + outputs.size(), types);
  unsigned next = 0;
  for (const TensorMap &map : tensorMaps)
    *map.onDevice = kernel.getArgument(next++);
  for (const Argument &input : inputs)
    *input.onDevice = kernel.getArgument(next++);
  for (const Output &output : outputs)
    *output.onDevice = kernel.getArgument(next++);
  for (const Argument &scalar : scalars)
    *scalar.onDevice = kernel.getArgument(next++);
  if (appendedArgument)
    *appendedArgument = kernel.getArgument(next++);
  return kernel;
}

void KernelArguments::launch(OpBuilder &host, LLVM::LLVMFuncOp kernel,
                             Value blocks) {
  SmallVector<Value> inputValues, outputValues, scalarValues;
  SmallVector<Type> resultTypes;
  for (const Argument &input : inputs)
    inputValues.push_back(input.onHost);
  for (const Output &output : outputs) {
    outputValues.push_back(*output.onHost);
    resultTypes.push_back(output.onHost->getType());
  }
  for (const Argument &scalar : scalars)
    scalarValues.push_back(scalar.onHost);
  SmallVector<Attribute> maps;
  for (const TensorMap &map : tensorMaps)
    maps.push_back(moe_rt::TensorMapAttr::get(host.getContext(), map.input,
                                              map.box, map.swizzleBytes));
  auto kernels = kernel->getParentOfType<gpu::GPUModuleOp>();
  auto symbol = SymbolRefAttr::get(
      kernels.getNameAttr(), FlatSymbolRefAttr::get(kernel.getNameAttr()));
  auto launch = moe_rt::LaunchOp::create(
      host, kernel.getLoc(), resultTypes, symbol, blocks, inputValues,
      outputValues, scalarValues,
      maps.empty() ? ArrayAttr() : host.getArrayAttr(maps));
  for (auto [output, result] : llvm::zip_equal(outputs, launch.getResults()))
    *output.onHost = result;
}
