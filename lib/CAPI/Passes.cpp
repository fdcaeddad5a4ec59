//===- Passes.cpp - Create and register passes ----------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe-c/Passes.h"
#include "moe-c/RegisterEverything.h"
#include "moe/Driver/Driver.h"
#include "moe/InitAll.h"

#include "mlir/CAPI/IR.h"
#include "mlir/CAPI/Pass.h"

using namespace mlir;
using namespace mlir::moe;

void moeRegisterAllDialects(MlirDialectRegistry registry) {
  moe::registerAllDialects(*unwrap(registry));
  moe::registerAllExtensions(*unwrap(registry));
}

void moeRegisterAllPasses() { moe::registerCompilePasses(); }

#include "moe/Conversion/Passes.capi.cpp.inc"
#include "moe/Dialect/MoE/Transforms/ABI/Passes.capi.cpp.inc"
#include "moe/Dialect/MoE/Transforms/Capacity/Passes.capi.cpp.inc"
#include "moe/Dialect/MoE/Transforms/Fusion/Passes.capi.cpp.inc"
#include "moe/Dialect/MoE/Transforms/Parallel/Passes.capi.cpp.inc"
#include "moe/Dialect/MoE/Transforms/Raising/Passes.capi.cpp.inc"
#include "moe/Dialect/MoE/Transforms/Training/Passes.capi.cpp.inc"
#include "moe/Dialect/MoERuntime/Transforms/Passes.capi.cpp.inc"
#include "moe/Target/NVPTX/Passes.capi.cpp.inc"
#include "moe/Transforms/Passes.capi.cpp.inc"
