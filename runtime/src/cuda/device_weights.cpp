//===- device_weights.cpp - Weights in memory of a device -----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "cuda/device_weights.h"
#include "cuda/kernel_launcher.h"
#include "layer/call.h"

#include <algorithm>

using namespace moe::rt;
using namespace moe::rt::cuda;

// What is read at once, where one element of the first dimension is not more.
static constexpr uint64_t stagingBytes = uint64_t(32) << 20;

moe_rt_status_t DeviceWeights::bind(const DLTensor *tensors) {
  ContextScope scope(device);
  MOE_RT_TRY(scope.check());
  return LayerWeights::bind(tensors);
}

moe_rt_status_t DeviceWeights::rebind(const DLTensor *tensors) {
  ContextScope scope(device);
  MOE_RT_TRY(scope.check());
  return LayerWeights::rebind(tensors);
}

moe_rt_status_t DeviceWeights::waitForCalls() const {
  return device.waitForAll("weights cannot be replaced");
}

moe_rt_status_t DeviceWeights::read(const WeightSource &source) {
  ContextScope scope(device);
  MOE_RT_TRY(scope.check());
  return LayerWeights::read(source);
}

moe_rt_status_t DeviceWeights::own(const Argument &argument, const char *what,
                                   BoundTensor &out) {
  uint64_t bytes = argument.staticBytes();
  std::string name = std::string(what) + " '" + argument.name + "'";
  owned.emplace_back(device);
  MOE_RT_TRY(owned.back().allocate(bytes, name.c_str(), argument.alignment));
  out = {owned.back().data(), bytes};
  return nullptr;
}

moe_rt_status_t DeviceWeights::load(const WeightSource &source, size_t position,
                                    const BoundTensor &out) {
  if (out.bytes == 0)
    return nullptr;
  const Argument &argument = weight(position);
  int64_t rows = argument.shape.empty() ? 1 : argument.shape[0];
  uint64_t rowBytes = out.bytes / static_cast<uint64_t>(rows);
  auto rowsAtOnce =
      static_cast<int64_t>(std::max<uint64_t>(1, stagingBytes / rowBytes));
  rowsAtOnce = std::min(rowsAtOnce, rows);
  uint64_t pieceBytes = static_cast<uint64_t>(rowsAtOnce) * rowBytes;
  if (staging.bytes() < pieceBytes)
    MOE_RT_TRY(staging.allocate(static_cast<size_t>(pieceBytes),
                                "weights that are read"));
  const Driver &driver = device.driver();
  CUdeviceptr target = deviceAddress(out.data);
  for (int64_t first = 0; first < rows; first += rowsAtOnce) {
    int64_t count = std::min(rowsAtOnce, rows - first);
    uint64_t bytes = static_cast<uint64_t>(count) * rowBytes;
    MOE_RT_TRY(
        source.load(argument, position, first, count, staging.data(), bytes));
    MOE_RT_TRY(driver.check(
        driver.cuMemcpyHtoD(target, staging.data(), static_cast<size_t>(bytes)),
        "copy weight '%s' to the device", argument.name.c_str()));
    target += bytes;
  }
  return nullptr;
}

/// Prepare all experts with one run of the code, on the legacy default stream.
moe_rt_status_t DeviceWeights::prepare(const WeightSource &source,
                                       const Preparation &preparation,
                                       const BoundTensor &out) {
  const Function &code = module.variant.functions[preparation.function];
  const Argument &target = function.arguments[preparation.argument];
  int64_t experts = target.shape[0];
  size_t words = descriptorWords(1); // of the workspace
  for (const Argument &argument : code.arguments)
    words += descriptorWords(argument.shape.size());
  std::vector<int64_t> descriptors(words);
  std::vector<void *> pointers(code.arguments.size() + 1);
  int64_t *descriptor = descriptors.data();
  auto pass = [&](size_t index, void *data) {
    pointers[index] = descriptor;
    descriptor =
        writeDescriptor(code.arguments[index], experts, data, descriptor);
  };

  std::vector<DeviceBuffer> pieces; // of the sources that are read
  for (size_t i = 0; i < preparation.sources.size(); ++i) {
    size_t position = preparation.sources[i];
    BoundTensor bound = weights()[position];
    if (source.read && !weight(position).retained) {
      const Argument &input = code.arguments[code.inputs[i]];
      pieces.emplace_back(device);
      MOE_RT_TRY(pieces.back().allocate(weight(position).staticBytes(),
                                        "weights that are prepared",
                                        input.alignment));
      bound = {pieces.back().data(), pieces.back().bytes()};
      MOE_RT_TRY(load(source, position, bound));
    }
    pass(code.inputs[i], bound.data);
  }
  pass(code.outputs[0], out.data);
  uint64_t bytes = 0;
  MOE_RT_TRY(codeWorkspace(code, experts, bytes));
  DeviceBuffer workspace(device);
  MOE_RT_TRY(workspace.allocate(bytes, "workspace of a preparation"));
  pointers.back() = descriptor;
  writeWorkspaceDescriptor(workspace.data(), bytes, descriptor);

  MOE_RT_TRY(Launcher(device, program, nullptr).run(code, pointers.data()));
  const Driver &driver = device.driver();
  return driver.check(driver.cuStreamSynchronize(nullptr),
                      "prepare '%s' with function '%s'", target.name.c_str(),
                      code.name.c_str());
}

moe_rt_status_t DeviceWeights::fetch(const Argument &argument,
                                     const BoundTensor &from, void *to) const {
  const Driver &driver = device.driver();
  return driver.check(
      driver.cuMemcpyDtoH(to, reinterpret_cast<CUdeviceptr>(from.data),
                          static_cast<size_t>(from.bytes)),
      "copy '%s' from the device", argument.name.c_str());
}

uint64_t DeviceWeights::ownedBytes() const {
  uint64_t bytes = 0;
  for (const DeviceBuffer &buffer : owned)
    bytes += buffer.bytes();
  return bytes;
}
