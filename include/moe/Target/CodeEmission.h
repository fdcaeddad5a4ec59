//===- CodeEmission.h - From LLVM IR to machine code ------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Shared by the code generation for CPUs and GPUs.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_TARGET_CODEEMISSION_H
#define MOE_TARGET_CODEEMISSION_H

#include "llvm/ADT/SmallVector.h"
#include "llvm/IR/Module.h"
#include "llvm/Passes/PassBuilder.h"
#include "llvm/Support/Error.h"
#include "llvm/Target/TargetMachine.h"

namespace mlir::moe {

/// Runs LLVM's default pipeline.
void optimize(llvm::Module &module, llvm::TargetMachine &machine,
              llvm::OptimizationLevel level,
              const llvm::PipelineTuningOptions &tuning);

/// Returns assembly or an object, as bytes.
llvm::Expected<llvm::SmallVector<char, 0>>
emitCode(llvm::Module &module, llvm::TargetMachine &machine,
         llvm::CodeGenFileType type);

} // namespace mlir::moe

#endif // MOE_TARGET_CODEEMISSION_H
