//===- fault.h - Errors of kernels and driver calls -------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CUDA_DOUBLE_FAULT_H
#define MOE_CUDA_DOUBLE_FAULT_H

#include "driver/cuda_abi.h"

#include <sstream>
#include <string>
#include <utility>

namespace moe::gpu {

/// Thrown inside the double and caught by the exported functions: the error
/// code of the driver and a message that describes the error.
struct Fault {
  CUresult code;
  std::string message;
};

/// Concatenates the arguments.
template <typename... Args> std::string text(const Args &...args) {
  std::ostringstream stream;
  (stream << ... << args);
  return stream.str();
}

struct Hex {
  uint64_t value;
};
inline std::ostream &operator<<(std::ostream &stream, Hex hex) {
  std::ios::fmtflags flags = stream.flags();
  stream << "0x" << std::hex << hex.value;
  stream.flags(flags);
  return stream;
}

template <typename... Args>
[[noreturn]] void fail(CUresult code, const Args &...args) {
  throw Fault{code, text(args...)};
}

/// Reports undefined behaviour of a kernel other than an illegal access.
template <typename... Args> [[noreturn]] void undefined(const Args &...args) {
  throw Fault{CUDA_ERROR_LAUNCH_FAILED, text(args...)};
}

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_FAULT_H
