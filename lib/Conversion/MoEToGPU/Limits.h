//===- Limits.h - Limits of the GPU kernels ---------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_LIMITS_H
#define MOE_LIB_CONVERSION_MOETOGPU_LIMITS_H

#include "mlir/Support/LLVM.h"
#include "llvm/ADT/Twine.h"

#include <cstdint>
#include <string>

namespace mlir::moe {

/// Experts of a gate, whose row of scores a warp holds in registers, or of a
/// grouped matmul, whose tile counts a block holds in shared memory.
inline constexpr int64_t maxExperts = 1024;

/// Arrival counters for a fused combine, which the kernel of a router clears:
/// so many for few tokens; otherwise one for each token and so many columns of
/// the result.
inline constexpr int64_t numCounters = 1024, counterColumns = 128;

/// Fails and sets `why` to the reason that an operation has no kernel.
inline LogicalResult unsupported(std::string &why, const Twine &reason) {
  why = reason.str();
  return failure();
}

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_LIMITS_H
