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
#include "llvm/Support/CodeGen.h"

namespace mlir::moe {

//===----------------------------------------------------------------------===//
// Registration
//===----------------------------------------------------------------------===//

/// Registers all passes and pipelines, of MLIR and of this project, that an
/// option may name. Later calls have no effect.
void registerCompilePasses();

/// Adds the dialects of input programs and all that the pipelines need.
void registerCompileDialects(DialectRegistry &registry);

//===----------------------------------------------------------------------===//
// Pipelines
//===----------------------------------------------------------------------===//

/// How far a pipeline lowers.
enum class PipelineEnd {
  /// To buffers in one workspace, whose size is then known.
  Buffers,
  /// To the LLVM dialect.
  LLVM
};

/// Adds the passes of the pipeline `name` with the options for `target`.
/// `moe-cpu` and `moe-gpu` use the kernels of the target's device,
/// `moe-reference` uses loops; any other name is a textual pipeline, as for
/// moe-opt, to the LLVM dialect.
llvm::Error addPipeline(OpPassManager &manager, llvm::StringRef name,
                        const TargetDescription &target, PipelineEnd end);

/// Returns the kernel variants of a pipeline in the syntax of
/// `moe-plan-capacity`; empty if unknown. For a GPU they are those that it
/// chooses for the grouped matmuls of `module`. Fails after a diagnostic.
FailureOr<llvm::SmallVector<std::string>>
getVariants(llvm::StringRef pipeline, const TargetDescription &target,
            ModuleOp module);

//===----------------------------------------------------------------------===//
// Stages
//===----------------------------------------------------------------------===//

/// Makes routes results or arguments of the functions of `module`, if the
/// options ask for that. Fails after a diagnostic.
LogicalResult exposeRoutes(ModuleOp module, const CompileOptions &options);

/// Adds the backward functions of `module`, if the options ask for them. Fails
/// after a diagnostic.
LogicalResult addBackward(ModuleOp module, const CompileOptions &options);

/// Spreads the experts of `module` over ranks, if the options or functions ask
/// for that, and cuts the functions at their exchanges. Fails after a
/// diagnostic.
LogicalResult spreadExperts(ModuleOp module, const CompileOptions &options);

/// Sets the `moe.activations` that the options give, if any, on the functions
/// of `module`. Warns where the kernels of `target` ignore it.
void setActivations(ModuleOp module, const TargetDescription &target,
                    const CompileOptions &options);

/// Rounds weights of `module` to the format that the options give, if any: they
/// become moe.dequantize of moe.quantize. Warns if there are none to round.
/// Fails after a diagnostic.
LogicalResult quantizeWeights(ModuleOp module, const CompileOptions &options);

enum class PlanFormat { None, Text, JSON };

/// Attaches a `moe.plan` for `target` to the functions of `module` and prints
/// it to `report`. Fails after a diagnostic.
LogicalResult planProgram(ModuleOp module, const TargetDescription &target,
                          const CompileOptions &options,
                          PlanFormat format = PlanFormat::None,
                          llvm::raw_ostream *report = nullptr);

/// A program in the LLVM dialect, with a module for each target.
struct Program {
  llvm::SmallVector<OwningOpRef<ModuleOp>> modules;
  llvm::SmallVector<Variant> variants; // of `modules`
};

/// Plans a copy of `module` for each target, if the options ask for a plan, and
/// lowers it. Fails after a diagnostic.
FailureOr<Program> lowerProgram(ModuleOp module,
                                llvm::ArrayRef<TargetDescription> targets,
                                const CompileOptions &options);

/// Returns LLVM IR as text. Fails if the variant exports no function.
llvm::Expected<std::string> emitLLVMIR(const Variant &variant);

/// Returns assembly or an object. Fails if the variant exports no function.
llvm::Expected<llvm::SmallVector<char, 0>>
emitVariant(const Variant &variant, llvm::CodeGenFileType type);

/// Returns the PTX of a program for a GPU.
llvm::Expected<std::string> emitPTX(const Variant &variant);

/// Returns an artifact of all variants; `warnings` become part of its metadata.
llvm::Expected<llvm::SmallVector<char, 0>>
emitArtifact(const Program &program, llvm::ArrayRef<std::string> warnings);

/// All stages: compiles `module`, which stays as it is, with options as words
/// to an artifact. Adds what the pipelines need to the context, and listens to
/// its remarks, as warnings of the artifact, if nobody else does. Fails after a
/// diagnostic.
FailureOr<llvm::SmallVector<char, 0>> compileArtifact(ModuleOp module,
                                                      llvm::StringRef options);

} // namespace mlir::moe

#endif // MOE_DRIVER_DRIVER_H
