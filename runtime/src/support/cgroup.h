//===- cgroup.h - Limits of the process's cgroups ---------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_SUPPORT_CGROUP_H
#define MOE_RT_SRC_SUPPORT_CGROUP_H

#include <cstdint>
#include <optional>
#include <string>

namespace moe::rt {

/// Where the kernel says which cgroups a process is in and where they are.
struct CgroupFiles {
  std::string groups = "/proc/self/cgroup";
  std::string mounts = "/proc/self/mountinfo";
};

/// How many processors the process may use on average, rounded up: the least of
/// its group and of all groups around it, of version 1 (cpu.cfs_quota_us) and
/// of version 2 (cpu.max). Nothing where there is no limit.
std::optional<int64_t> cgroupProcessors(const CgroupFiles &files = {});

} // namespace moe::rt

#endif // MOE_RT_SRC_SUPPORT_CGROUP_H
