//===- signature.h - Signatures of functions --------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The signatures of a module's functions, from its metadata.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_ARTIFACT_SIGNATURE_H
#define MOE_RT_SRC_ARTIFACT_SIGNATURE_H

#include "artifact/images.h"
#include "support/status.h"

#include "moe_rt/abi.h"

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace moe::rt {

enum class Role { input, weight, output, offsets, counters, prepared };

inline constexpr int64_t dynamicExtent = -1;

struct Argument {
  std::string name;
  Role role;
  DLDataType dtype;
  bool isBool = false;        // i1, one byte each
  std::vector<int64_t> shape; // dynamicExtent is T
  uint32_t alignment;
  int64_t numExperts = 0; // > 0: elements are expert ids
  bool retained = true;   // of a weight: calls read it

  /// "input", "weight", ...
  const char *roleName() const;
  size_t elementSize() const { return dtype.bits / 8u; }
  /// Bytes of an argument without a dynamic extent; parsing bounds them.
  uint64_t staticBytes() const;
};

/// One dispatch of a function and the arguments in which it reports.
struct Dispatch {
  int64_t numExperts;
  int64_t topK = 0; // 0: unknown
  size_t offsets;   // index of an argument
  /// Likewise; without any, every choice names an expert and is kept.
  std::optional<size_t> counters;
};

/// A stage of a function on the CPU, by its index in calls of begin_stage.
struct Stage {
  std::string name;
  std::vector<std::string> kernels;
};

/// How an argument of role `prepared` comes from weights. The function that
/// prepares takes a range of experts of each source and returns theirs.
struct Preparation {
  size_t argument;             // the one that is prepared
  size_t function = 0;         // in the variant
  std::vector<size_t> sources; // in Function::weights
  /// In Function::weights: the one whose error the argument is, if any.
  std::optional<size_t> measures;
};

struct Function {
  std::string name;
  std::string entry;
  std::string workspace;
  std::string prepares; // the function whose weights this one prepares, if any
  int64_t minTokens;
  int64_t maxTokens;
  bool takesLiveTokens = false; // whether a call may leave out the last ones
  std::vector<Argument> arguments;
  std::vector<Dispatch> dispatches;
  std::vector<Preparation> preparations;
  std::vector<Stage> stages;
  // Indices of the caller's arguments by role, in signature order.
  std::vector<size_t> inputs, weights, outputs;

  // Filled in when the code is loaded. What the entry takes depends on the
  // device.
  void *entryAddress = nullptr;
  moe_rt_workspace_fn workspaceFn = nullptr;

  const std::vector<size_t> &indices(moe_rt_role_t role) const;
};

struct ParallelFunction;

/// The code for one target.
struct Variant {
  std::string triple;
  std::string cpu; // for messages; may be empty
  std::vector<std::string> features;
  std::optional<DeviceCode> device; // without: code for the CPU
  std::vector<Function> functions;
  /// The functions that are not there to prepare, nor parts of a layer for
  /// several ranks.
  std::vector<size_t> callable;
  /// Layers for several ranks; artifact/parallel.h has their type.
  std::vector<std::shared_ptr<const ParallelFunction>> parallel;
};

struct Metadata {
  std::vector<Variant> variants; // best first, at least one
};

/// Read and validate metadata. It is untrusted: whatever it says is either
/// consistent or refused.
moe_rt_status_t parseMetadata(const char *text, size_t size, Metadata &out);

} // namespace moe::rt

#endif // MOE_RT_SRC_ARTIFACT_SIGNATURE_H
