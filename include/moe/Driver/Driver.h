//===- Driver.h - Compile a layer -------------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DRIVER_DRIVER_H
#define MOE_DRIVER_DRIVER_H

#include "moe/Driver/Options.h"
#include "moe/Target/Target.h"

#include "mlir/Pass/PassManager.h"

namespace mlir::moe {

//===----------------------------------------------------------------------===//
// Before a layer is read
//===----------------------------------------------------------------------===//

/// Registers all passes and pipelines, of MLIR and of this project, that an
/// option may name. Later calls do nothing.
void registerCompilePasses();

/// Adds the dialects that a layer may be written in and all that the pipelines
/// need.
void registerCompileDialects(DialectRegistry &registry);

//===----------------------------------------------------------------------===//
// Pipelines
//===----------------------------------------------------------------------===//

/// How far a pipeline lowers.
enum class PipelineEnd {
  /// To buffers in one workspace, so far that its size is known.
  Buffers,
  /// To the LLVM dialect.
  LLVM
};

/// Adds the passes of the pipeline `name`, with what they need to know of
/// `target`. `moe-cpu` and `moe-gpu` are the kernels of the target's device,
/// `moe-reference` is loops; any other name is a list of passes as moe-opt
/// takes it, which ends in the LLVM dialect.
llvm::Error addPipeline(OpPassManager &manager, llvm::StringRef name,
                        const TargetDescription &target, PipelineEnd end);

/// The kernel variants of a pipeline, as `moe-plan-capacity` takes them; none
/// if the pipeline does not say which it has. For a GPU they are those that it
/// chooses for the grouped matmuls of `module`. Fails after a diagnostic.
FailureOr<llvm::SmallVector<std::string>>
getVariants(llvm::StringRef pipeline, const TargetDescription &target,
            ModuleOp module);

//===----------------------------------------------------------------------===//
// Stages
//===----------------------------------------------------------------------===//

enum class PlanFormat { None, Text, JSON };

/// Gives the functions of `module` a `moe.plan` for `target` and prints it to
/// `report`. Fails after a diagnostic.
LogicalResult planProgram(ModuleOp module, const TargetDescription &target,
                          const CompileOptions &options,
                          PlanFormat format = PlanFormat::None,
                          llvm::raw_ostream *report = nullptr);

/// A program in the LLVM dialect, once for each target.
struct Program {
  llvm::SmallVector<OwningOpRef<ModuleOp>> modules;
  llvm::SmallVector<Variant> variants; // of these modules
};

/// Plans a copy of `module` for each target, if the options ask for that, and
/// lowers it. Fails after a diagnostic.
FailureOr<Program> lowerProgram(ModuleOp module,
                                llvm::ArrayRef<TargetDescription> targets,
                                const CompileOptions &options);

/// LLVM IR as text. Fails if the variant exports no function.
llvm::Expected<std::string> emitLLVMIR(const Variant &variant);

/// Assembly or an object. Fails if the variant exports no function.
llvm::Expected<llvm::SmallVector<char, 0>>
emitVariant(const Variant &variant, llvm::CodeGenFileType type);

/// The PTX of a program for a GPU.
llvm::Expected<std::string> emitPTX(const Variant &variant);

/// An artifact of all variants; `warnings` become part of its metadata.
llvm::Expected<llvm::SmallVector<char, 0>>
emitArtifact(const Program &program, llvm::ArrayRef<std::string> warnings);

} // namespace mlir::moe

#endif // MOE_DRIVER_DRIVER_H
