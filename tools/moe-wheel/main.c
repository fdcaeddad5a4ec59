//===- main.c - A tool of the Python wheel --------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Calls MOE_TOOL in libMoECompiler.so.
//
//===----------------------------------------------------------------------===//

int MOE_TOOL(int argc, char **argv);

int main(int argc, char **argv) { return MOE_TOOL(argc, argv); }
