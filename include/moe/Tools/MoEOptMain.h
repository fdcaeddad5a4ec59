//===- MoEOptMain.h - The tool moe-opt --------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_TOOLS_MOEOPTMAIN_H
#define MOE_TOOLS_MOEOPTMAIN_H

namespace mlir::moe {

/// Runs moe-opt, with all of MLIR's passes and dialects; returns its exit
/// status.
int optMain(int argc, char **argv);

} // namespace mlir::moe

#endif // MOE_TOOLS_MOEOPTMAIN_H
