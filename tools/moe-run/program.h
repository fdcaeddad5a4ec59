//===- program.h - A program and its weights --------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RUN_PROGRAM_H
#define MOE_RUN_PROGRAM_H

#include "ranks.h"

#include "moe_rt/io.h"
#include "moe_rt/moe_rt.h"

namespace moe::run {

/// Converts a status to an error and frees it.
io::Error takeStatus(moe_rt_status_t status);

/// Returns the directory of this executable, with a slash; empty if unknown.
std::string executableDirectory();

/// A tensor of a signature.
struct Signature {
  std::string name;
  DLDataType dtype;
  std::vector<int64_t> shape; // -1 is T
  uint32_t alignment;
  int64_t numExperts;

  /// Returns the shape for T = `tokens`.
  std::vector<int64_t> shapeFor(int64_t tokens) const;
};

/// The relative errors of the experts of a quantised weight.
struct WeightError {
  std::string name;
  std::vector<float> errors;
};

/// A function of a program, loaded and with its weights bound.
class Program {
public:
  /// With `ranks`, all of them open it together.
  static io::Expected<std::unique_ptr<Program>> open(const Options &options,
                                                     Ranks *ranks);
  ~Program();
  Program(const Program &) = delete;
  Program &operator=(const Program &) = delete;

  moe_rt_layer_t *layer() const { return boundLayer; }
  /// The GPU that runs it; null on the CPU.
  const Device *device() const { return gpu.get(); }
  /// The ranks that run it; null for one alone.
  Ranks *ranks() const { return allRanks; }
  /// Whether all ranks are called with the same tokens.
  bool isReplicated() const { return replicated; }
  const std::string &function() const { return name; }
  /// The target of the code that runs, such as "sm_90a" or "skylake-avx512".
  std::string target() const;
  const std::vector<Signature> &inputs() const { return inputList; }
  const std::vector<Signature> &outputs() const { return outputList; }
  int64_t maxTokens() const { return tokenLimit; }
  /// Returns the bytes of weights that are copied or generated instead of
  /// mapped.
  uint64_t ownedWeightBytes() const;
  /// Returns the relative errors of the weights that the compiler quantised.
  std::vector<WeightError> weightErrors() const;

private:
  Program() = default;
  io::Expected<void> load(const Options &options);
  io::Expected<void> compile(const Options &options);
  io::Expected<void> choose(const Options &options);
  io::Expected<void> readSignatures();
  io::Expected<void> checkRows() const;
  io::Expected<void> makeLayer(const Options &options);
  io::Expected<void> makeParallelLayer(const Options &options);
  io::Expected<void> bindWeights(const Options &options,
                                 const std::vector<io::WeightSpec> &specs,
                                 const io::ProgressFn &progress);
  io::Expected<void> readWeights(const Options &options,
                                 const std::vector<io::WeightSpec> &specs,
                                 const io::ProgressFn &progress);

  struct Jit;

  moe_rt_context_t *context = nullptr;
  std::unique_ptr<Device> gpu;
  std::unique_ptr<Jit> jit;
  moe_rt_module_t *module = nullptr;
  Ranks *allRanks = nullptr;
  bool replicated = false;
  moe_rt_group_t *group = nullptr;
  moe_rt_layer_t *boundLayer = nullptr;
  std::string name;
  std::vector<Signature> inputList, outputList;
  int64_t tokenLimit = 0;
  io::WeightBinder weights;
};

} // namespace moe::run

#endif // MOE_RUN_PROGRAM_H
