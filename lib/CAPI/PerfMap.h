//===- PerfMap.h - Symbols of JIT code for profilers ------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CAPI_PERFMAP_H
#define MOE_LIB_CAPI_PERFMAP_H

#include "llvm/ExecutionEngine/Orc/LLJIT.h"

namespace mlir::moe {

/// If the environment variable MOE_PERF_DIR is set, has the JIT append the
/// symbols of its code to /tmp/perf-PID.map, where Linux perf looks for those
/// of memory without a file. Does nothing if that file cannot be written.
void writePerfMap(llvm::orc::LLJIT &jit);

} // namespace mlir::moe

#endif // MOE_LIB_CAPI_PERFMAP_H
