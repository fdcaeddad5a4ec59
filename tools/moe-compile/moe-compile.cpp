//===- moe-compile.cpp - Compile IR or a checkpoint -----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Tools/MoECompileMain.h"

int main(int argc, char **argv) { return mlir::moe::compileMain(argc, argv); }
