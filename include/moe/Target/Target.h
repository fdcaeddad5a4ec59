//===- Target.h - From the LLVM dialect to code -----------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The back end shared by moe-compile (ahead of time) and the in-process JIT:
// translates a module in the LLVM dialect to LLVM IR, assembly, an object, or
// an artifact for the runtime.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_TARGET_TARGET_H
#define MOE_TARGET_TARGET_H

#include "mlir/IR/BuiltinOps.h"
#include "llvm/Support/Error.h"
#include "llvm/Support/MemoryBufferRef.h"

#include <memory>
#include <string>

namespace llvm {
class LLVMContext;
class Module;
class TargetMachine;
} // namespace llvm

namespace mlir::moe {

/// The CPU or GPU to compile for.
struct TargetDescription {
  std::string triple;
  std::string cpu;
  /// Features that the code may use, by LLVM's names; the runtime checks each.
  llvm::SmallVector<std::string> features;
  /// The architecture of an NVIDIA GPU (`sm_90a`), whose kernels the CPU only
  /// launches; empty for a CPU.
  std::string device;

  /// Parse `host`, LLVM's name of a CPU (`x86-64-v3`, `znver4`),
  /// for the triple of this machine, or the architecture of a GPU.
  static llvm::Expected<TargetDescription> parse(llvm::StringRef name);

  llvm::Expected<std::unique_ptr<llvm::TargetMachine>>
  createTargetMachine() const;
};

/// Parses a comma-separated list of distinct targets.
llvm::Expected<llvm::SmallVector<TargetDescription, 0>>
parseTargets(llvm::StringRef names);

/// A lowered program for one target. Variants of an artifact share a symbol
/// table, so the symbols of all but the first have a suffix.
struct Variant {
  ModuleOp module;
  TargetDescription target;
  std::string symbolSuffix;
};

/// Translates the module of a variant to LLVM IR and optimizes it.
llvm::Expected<std::unique_ptr<llvm::Module>>
translateToLLVMIR(const Variant &variant, llvm::LLVMContext &context,
                  llvm::TargetMachine &machine);

/// True if `name` is a function of the C or the math library that code may
/// call: every process that loads an artifact has it.
bool isHostFunction(llvm::StringRef name);
/// True if it is one of the math library.
bool isMathFunction(llvm::StringRef name);

/// Reports functions that are called, have no body and are not host functions.
LogicalResult verifyDefined(ModuleOp module);

/// Verifies that a shared object (ELF) needs only host functions.
llvm::Error verifyHostFunctions(llvm::MemoryBufferRef object);

/// The metadata of an artifact, JSON: target, signatures and entry points of
/// each variant, and the warnings of the compiler. Fails if one has no function
/// that `moe-export` prepared.
llvm::Expected<std::string>
buildMetadata(llvm::ArrayRef<Variant> variants,
              llvm::ArrayRef<std::string> warnings = {});

/// Builds an artifact: the objects linked into a shared object, the metadata
/// and the footer.
llvm::Expected<llvm::SmallVector<char, 0>>
buildArtifact(llvm::ArrayRef<llvm::SmallVector<char, 0>> objects,
              llvm::StringRef metadata);

} // namespace mlir::moe

#endif // MOE_TARGET_TARGET_H
