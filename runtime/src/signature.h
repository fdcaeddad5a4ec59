//===- signature.h - Signatures of functions --------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The signatures of a module's functions, from its metadata.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_SIGNATURE_H
#define MOE_RT_SRC_SIGNATURE_H

#include "status.h"

#include <string>
#include <vector>

namespace moe::rt {

enum class Role { input, weight, output, offsets, counters };

inline constexpr int64_t dynamicExtent = -1;

struct Argument {
  std::string name;
  Role role;
  DLDataType dtype;
  bool isBool = false;        // i1, one byte each
  std::vector<int64_t> shape; // dynamicExtent is T
  uint32_t alignment;
  int64_t numExperts = 0; // > 0: elements are expert ids

  /// "input", "weight", ...
  const char *roleName() const;
  size_t elementSize() const { return dtype.bits / 8u; }
};

/// One dispatch of a function and the arguments in which it reports.
struct Dispatch {
  int64_t numExperts;
  size_t offsets;  // index of an argument
  size_t counters; // likewise
};

using EntryFn = int32_t (*)(void **args, const moe_rt_executor_t *executor);
using WorkspaceFn = int64_t (*)(int64_t tokens);

struct Function {
  std::string name;
  std::string entry;
  std::string workspace;
  int64_t minTokens;
  int64_t maxTokens;
  std::vector<Argument> arguments;
  std::vector<Dispatch> dispatches;
  // Indices of the caller's arguments by role, in signature order.
  std::vector<size_t> inputs, weights, outputs;

  // Filled in when the code is loaded.
  EntryFn entryFn = nullptr;
  WorkspaceFn workspaceFn = nullptr;

  const std::vector<size_t> &indices(moe_rt_role_t role) const;
};

/// The code for one target.
struct Variant {
  std::string triple;
  std::string cpu; // for messages; may be empty
  std::vector<std::string> features;
  std::vector<Function> functions;
};

struct Metadata {
  std::vector<Variant> variants; // best first, at least one
};

/// Read and validate metadata. It is untrusted: whatever it says is either
/// consistent or refused.
moe_rt_status_t parseMetadata(const char *text, size_t size, Metadata &out);

} // namespace moe::rt

#endif // MOE_RT_SRC_SIGNATURE_H
