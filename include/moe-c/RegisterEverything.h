//===- RegisterEverything.h - Register all of this project -------*- C -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// As moe/InitAll.h: with these, and nothing else, a context parses a layer and
// runs every pipeline. To register more, or the same again, does no harm.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_C_REGISTEREVERYTHING_H
#define MOE_C_REGISTEREVERYTHING_H

#include "mlir-c/IR.h"

#ifdef __cplusplus
extern "C" {
#endif

/// Adds the dialects moe and moe_rt, those that layers are written in besides,
/// those that pipelines lower to, and the interfaces and translations of all.
MLIR_CAPI_EXPORTED void moeRegisterAllDialects(MlirDialectRegistry registry);

/// Registers all passes and pipelines, of MLIR and of this project, for
/// mlirParsePassPipeline and mlirOpPassManagerAddPipeline. Thread-safe; calls
/// after the first have no effect. moeCompile does it, too: where other threads
/// parse pipelines meanwhile, call this before they start.
MLIR_CAPI_EXPORTED void moeRegisterAllPasses(void);

#ifdef __cplusplus
}
#endif

#endif // MOE_C_REGISTEREVERYTHING_H
