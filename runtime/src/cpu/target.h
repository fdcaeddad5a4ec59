//===- target.h - Can this machine run the code? ----------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_CPU_TARGET_H
#define MOE_RT_SRC_CPU_TARGET_H

#include "support/status.h"

#include <string>
#include <vector>

namespace moe::rt {

/// Whether code for `triple` (LLVM's notation) runs on this machine's
/// architecture and operating system.
moe_rt_status_t checkTriple(const std::string &triple);

/// Whether this CPU has each of the features, which are named as LLVM does.
/// An unknown name is refused.
moe_rt_status_t checkFeatures(const std::vector<std::string> &features);

} // namespace moe::rt

#endif // MOE_RT_SRC_CPU_TARGET_H
