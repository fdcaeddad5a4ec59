//===- moe-opt.cpp - Run passes and pipelines over IR ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Tools/MoEOptMain.h"

int main(int argc, char **argv) { return mlir::moe::optMain(argc, argv); }
