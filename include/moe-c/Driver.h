//===- Driver.h - Compile a module to an artifact ----------------*- C -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//   MoeArtifact artifact = moeCompile(module, options);
//   MlirStringRef bytes = moeArtifactGetBytes(artifact);
//   moe_rt_module_load_memory(context, bytes.data, bytes.length, &loaded);
//
//===----------------------------------------------------------------------===//

#ifndef MOE_C_DRIVER_H
#define MOE_C_DRIVER_H

#include "mlir-c/IR.h"

#ifdef __cplusplus
extern "C" {
#endif

/// The bytes that moe-compile writes to a file. Independent of the context that
/// it was compiled in.
typedef struct {
  void *ptr;
} MoeArtifact;

/// Compiles the functions of `module`, which stays as it is, to an artifact.
/// `options` are options of moe-compile, separated by spaces, such as
/// `--target=x86-64-v3 --memory-limit=64MiB`; an empty string selects the
/// defaults. Errors and warnings are diagnostics of the module's context; after
/// an error the result is null.
///
/// The context gets the dialects that the pipelines need, so it must not be in
/// use by another thread. If it has a listener of remarks already, the artifact
/// has no warnings about slow code in its metadata.
MLIR_CAPI_EXPORTED MoeArtifact moeCompile(MlirModule module,
                                          MlirStringRef options);
static inline bool moeArtifactIsNull(MoeArtifact artifact) {
  return !artifact.ptr;
}
/// Returns the bytes, owned by the artifact.
MLIR_CAPI_EXPORTED MlirStringRef moeArtifactGetBytes(MoeArtifact artifact);
/// Destroys the artifact; null is allowed.
MLIR_CAPI_EXPORTED void moeArtifactDestroy(MoeArtifact artifact);

#ifdef __cplusplus
}
#endif

#endif // MOE_C_DRIVER_H
