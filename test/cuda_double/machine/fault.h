//===- fault.h - What a kernel or a call did wrong --------------*- C++ -*-===//
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

/// Thrown inside the double, and caught where it is entered: the driver's code
/// and a sentence that says what was wrong.
struct Fault {
  CUresult code;
  std::string message;
};

/// The arguments, one after the other.
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

/// Undefined behaviour in a kernel that memory accesses do not cause.
template <typename... Args> [[noreturn]] void undefined(const Args &...args) {
  throw Fault{CUDA_ERROR_LAUNCH_FAILED, text(args...)};
}

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_FAULT_H
