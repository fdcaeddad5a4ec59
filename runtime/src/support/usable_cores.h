//===- usable_cores.h - How many cores there are to use ---------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_SUPPORT_USABLE_CORES_H
#define MOE_RT_SRC_SUPPORT_USABLE_CORES_H

#include "support/cgroup.h"

namespace moe::rt {

/// Number of cores that this process may use, at least 1: those of its
/// affinity, but no more than its cgroups give it time for.
int64_t usableCores(const CgroupFiles &files = {});

} // namespace moe::rt

#endif // MOE_RT_SRC_SUPPORT_USABLE_CORES_H
