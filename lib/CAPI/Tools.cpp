//===- Tools.cpp - The tools, behind a C interface ------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// In the Python wheel the tools share one library with LLVM inside.
//
//===----------------------------------------------------------------------===//

#include "moe/Tools/MoECompileMain.h"
#include "moe/Tools/MoEOptMain.h"

extern "C" int moe_compile_main(int argc, char **argv) {
  return mlir::moe::compileMain(argc, argv);
}

extern "C" int moe_opt_main(int argc, char **argv) {
  return mlir::moe::optMain(argc, argv);
}
