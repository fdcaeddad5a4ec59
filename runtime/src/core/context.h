//===- context.h - The context and its allocator ----------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_CORE_CONTEXT_H
#define MOE_RT_SRC_CORE_CONTEXT_H

#include "core/device.h"

namespace moe::rt {

/// The most threads that the options of a context may ask for.
inline constexpr int64_t maxThreads = 4096;

} // namespace moe::rt

struct moe_rt_context_s {
  moe_rt_allocator_t allocator; // of memory of the host
  std::unique_ptr<moe::rt::Device> device;
};

#endif // MOE_RT_SRC_CORE_CONTEXT_H
