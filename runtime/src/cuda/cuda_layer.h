//===- cuda_layer.h - Call a layer on a device ------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_CUDA_CUDA_LAYER_H
#define MOE_RT_SRC_CUDA_CUDA_LAYER_H

#include "cuda/api.h"
#include "status.h"

namespace moe::rt::cuda {

/// The workspace of a call whose code wants `codeBytes`.
moe_rt_status_t callWorkspace(const moe_rt_layer_t &layer, uint64_t codeBytes,
                              uint64_t &out);

/// Enqueue a call. It fails if a call before it did, as far as that is known.
/// How many tokens are live is on the device; null: all are.
moe_rt_status_t callOnStream(moe_rt_layer_t &layer, const DLTensor *inputs,
                             const DLTensor *outputs, void *workspace,
                             uint64_t workspaceBytes, CUstream stream,
                             const int32_t *liveTokens);

/// Run a call on the legacy default stream.
moe_rt_status_t callAndWait(moe_rt_layer_t &layer, const DLTensor *inputs,
                            const DLTensor *outputs, void *workspace,
                            uint64_t workspaceBytes);

} // namespace moe::rt::cuda

#endif // MOE_RT_SRC_CUDA_CUDA_LAYER_H
