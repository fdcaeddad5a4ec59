//===- Options.h - Options of a compilation ---------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DRIVER_OPTIONS_H
#define MOE_DRIVER_OPTIONS_H

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

#include <string>

namespace mlir::moe {

/// Options to compile and plan a layer with. Each field is an option of
/// `moe-compile` with the same name; the JIT and `moe-run --compile-options`
/// take them as words, `--target=x86-64-v3 --memory-limit=64MiB`. Empty: not
/// given.
struct CompileOptions {
  std::string target = "host";
  std::string pipeline = "moe-cpu";
  std::string routes;
  std::string backward;
  std::string f32Gradients;
  std::string accumulate;
  std::string save;
  std::string parallel;
  std::string quantize;
  std::string activations;
  std::string tokens;
  std::string memoryLimit;
  std::string imbalance;
  std::string gpu;
  std::string flops;
  std::string bandwidth;

  /// True if an option asks for a plan before the layer is compiled.
  bool wantsPlan() const;

  /// Fails if an option does not accept its value; the error has the option,
  /// the expected and the actual value. Targets and pipelines are checked when
  /// used.
  llvm::Error verify() const;
};

/// An option: its name without `--`, the placeholder of its value in a help
/// text, and the help.
struct CompileOptionInfo {
  llvm::StringLiteral name, value, help;
  std::string CompileOptions::*field;
};
llvm::ArrayRef<CompileOptionInfo> getCompileOptions();

/// Experts that a rank holds: `slots`, or what `ranks` ranks need.
struct ParallelOption {
  int64_t slots = 0, ranks = 0, replicas = 1;
  bool reducesPerRank = false; // reduce = per_rank
  bool isOfRank = false;       // scope = rank
};
/// Parses SLOTS[:REPLICAS] or ranks=N[:REPLICAS], and what follows it of
/// `,reduce=REDUCTION` and `,scope=SCOPE`: the value of `--parallel`.
std::optional<ParallelOption> parseParallel(llvm::StringRef text);

/// Parses and verifies `--name=value` words, separated by spaces.
llvm::Expected<CompileOptions> parseCompileOptions(llvm::StringRef words);

} // namespace mlir::moe

#endif // MOE_DRIVER_OPTIONS_H
