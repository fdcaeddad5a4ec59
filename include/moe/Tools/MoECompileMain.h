//===- MoECompileMain.h - The tool moe-compile ------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_TOOLS_MOECOMPILEMAIN_H
#define MOE_TOOLS_MOECOMPILEMAIN_H

namespace mlir::moe {

/// Runs moe-compile; returns its exit status.
int compileMain(int argc, char **argv);

} // namespace mlir::moe

#endif // MOE_TOOLS_MOECOMPILEMAIN_H
