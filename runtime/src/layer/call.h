//===- call.h - Call a layer ------------------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_LAYER_CALL_H
#define MOE_RT_SRC_LAYER_CALL_H

#include "layer/call_layout.h"
#include "layer/tensor.h"
#include "support/buffer.h"

namespace moe::rt {

moe_rt_status_t checkTokens(const Function &function, int64_t tokens);
/// The bytes of workspace that the code wants for T tokens.
moe_rt_status_t codeWorkspace(const Function &function, int64_t tokens,
                              uint64_t &out);

/// What a call is wherever it runs: the caller's tensors, checked, and the
/// arguments of the code.
class Call {
protected:
  explicit Call(const moe_rt_layer_t &layer);

  template <typename T> T *at(uint64_t offset) {
    return reinterpret_cast<T *>(scratch.data() + offset);
  }
  BoundTensor &bound(size_t argument);

  /// Check the caller's tensors, though not their elements, and find T.
  moe_rt_status_t bind(const DLTensor *inputs, const DLTensor *outputs);
  /// Check the caller's workspace. `required` bytes of it are used.
  moe_rt_status_t bindWorkspace(void *given, uint64_t bytes, uint64_t required,
                                size_t alignment);
  /// Outputs and workspace must be apart from all that the code reads.
  moe_rt_status_t checkOverlaps();
  /// Write the descriptors. The code reports at `reports`, and has the first
  /// `workspaceBytes` of the workspace.
  void writeArguments(char *reports, uint64_t workspaceBytes);
  /// Whether there is an element to compute: with T = 0 there often is none.
  bool hasWork();

  const moe_rt_layer_t &layer;
  const Function &function;
  const CallLayout &layout;
  Buffer scratch; // of the host
  int64_t tokens = 0;
  BoundTensor workspace = {nullptr, 0};

private:
  moe_rt_status_t checkOverlap(const BoundTensor &written, const char *role,
                               const char *name, size_t outputs);
};

} // namespace moe::rt

#endif // MOE_RT_SRC_LAYER_CALL_H
