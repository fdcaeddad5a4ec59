//===- device.h - Where layers run ------------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The interface between the core and the devices, of which the CPU is one. A
// new device has a folder, beside those of the CPU and of CUDA, and implements
// there
//
//   Device        opens the device and says which code it runs,
//   Program       the code of one module, loaded,
//   DeviceLayer   one layer: its calls, with its LayerWeights
//                 (layer/weights.h) and its Statistics (layer/statistics.h).
//
// devices.cpp, above the folders, registers it by its DLDeviceType.
// artifact/images.h has what the metadata says of its kernels. Nothing else of
// the core knows which devices there are.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_CORE_DEVICE_H
#define MOE_RT_SRC_CORE_DEVICE_H

#include "support/status.h"

#include <memory>

namespace moe::rt {

class LayerWeights;
class ParallelLayer;
class Profile;
class SavedValues;
class Statistics;
struct Argument;
struct Variant;

/// What the caller of a layer passes, a tensor for each input and output of the
/// function.
struct CallArguments {
  const DLTensor *inputs;
  const DLTensor *outputs;
  void *workspace; // may be null: the device finds one
  uint64_t workspaceBytes;
  /// Of a layer over several ranks: takes what the call saves, or has what one
  /// of its forward layer saved; may be null.
  SavedValues *saved = nullptr;
};

/// One layer on a device.
class DeviceLayer {
public:
  virtual ~DeviceLayer() = default;

  virtual LayerWeights &weights() = 0;
  virtual Statistics &statistics() = 0;
  virtual Profile &profile() = 0;
  /// Enable or disable the profile, if the device can measure one.
  virtual moe_rt_status_t enableProfile(bool value) = 0;

  /// The workspace of a call with T tokens.
  virtual moe_rt_status_t workspace(int64_t tokens, uint64_t &out) const = 0;
  /// Run a call and wait for it.
  virtual moe_rt_status_t call(const CallArguments &arguments) = 0;
  /// Enqueue a call on a stream of the device. `liveTokens` is there, too, how
  /// many of the tokens are live; null: all are.
  virtual moe_rt_status_t callOnStream(const CallArguments &arguments,
                                       void *stream,
                                       const int32_t *liveTokens) = 0;
  /// The first error of the enqueued calls that have run. Waits for nothing.
  virtual moe_rt_status_t poll() = 0;

  /// A call fails with `status` before it begins. Returns that, once all know
  /// who has to.
  virtual moe_rt_status_t refuse(moe_rt_status_t status) { return status; }
  /// The layer, if it is one over several ranks.
  virtual ParallelLayer *parallel() { return nullptr; }
};

/// The code of a module on a device.
class Program {
public:
  virtual ~Program() = default;

  /// Create the device's part of a layer, which has no weights yet. `layer`
  /// outlives it.
  virtual moe_rt_status_t newLayer(const moe_rt_layer_t &layer,
                                   std::unique_ptr<DeviceLayer> &out) = 0;
};

/// A device as a context uses it.
class Device {
public:
  virtual ~Device() = default;

  /// Refuse a tensor of an argument that is not where code of this device can
  /// reach it.
  virtual moe_rt_status_t checkPlace(const Argument &argument,
                                     DLDevice place) const = 0;
  /// Whether a variant is for this device and this machine.
  virtual moe_rt_status_t checkVariant(const Variant &variant) const = 0;
  /// Load the code of a variant that passed the check, whose symbols are
  /// resolved. `variant` outlives the program.
  virtual moe_rt_status_t load(const Variant &variant,
                               std::unique_ptr<Program> &out) = 0;
  /// Release the memory that no call uses.
  virtual void trim() = 0;
  /// What runs tasks, if the device is the host; its tensors can be read.
  virtual const moe_rt_executor_t *hostExecutor() const { return nullptr; }
};

} // namespace moe::rt

#endif // MOE_RT_SRC_CORE_DEVICE_H
