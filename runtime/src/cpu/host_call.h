//===- host_call.h - Call a layer on the CPU --------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_CPU_HOST_CALL_H
#define MOE_RT_SRC_CPU_HOST_CALL_H

#include "status.h"

namespace moe::rt {

/// Run a layer on the CPU.
moe_rt_status_t callOnHost(moe_rt_layer_t &layer, const DLTensor *inputs,
                           const DLTensor *outputs, void *workspace,
                           uint64_t workspaceBytes);

} // namespace moe::rt

#endif // MOE_RT_SRC_CPU_HOST_CALL_H
