//===- call_layout.h - The memory of a call ---------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_LAYER_CALL_LAYOUT_H
#define MOE_RT_SRC_LAYER_CALL_LAYOUT_H

#include "artifact/signature.h"
#include "support/buffer.h"

namespace moe::rt {

/// Where the parts of a call's scratch memory lie, in bytes. Only the shapes of
/// a signature decide that, so it is computed once.
struct CallLayout {
  uint64_t bound = 0;       // BoundTensor of each argument
  uint64_t pointers = 0;    // void * of each argument, then of the workspace
  uint64_t descriptors = 0; // one after the other
  uint64_t reports = 0;     // DispatchReport of each dispatch
  uint64_t total = 0;       // a multiple of bufferAlignment

  /// Of the offsets and counters in which the code reports, one after the other
  /// and of reportSize each: behind the above, or on the device.
  uint64_t reportBytes = 0;

  /// False if it exceeds 2^64-1 bytes.
  [[nodiscard]] bool compute(const Function &function);
};

/// Whether the code reports in this argument.
inline bool isReport(const Argument &argument) {
  return argument.role == Role::offsets || argument.role == Role::counters;
}
/// What such an argument takes of CallLayout::reportBytes.
inline uint64_t reportSize(const Argument &argument) {
  return moe_rt_report_size(argument.staticBytes());
}

} // namespace moe::rt

#endif // MOE_RT_SRC_LAYER_CALL_LAYOUT_H
