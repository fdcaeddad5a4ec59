//===- JIT.h - Compile in process --------------------------------*- C -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The interface of libMoECompiler.so for programs that load it with dlopen, so
// that they need LLVM only to compile. moe_rt_module_create loads the result.
// Plain C, without headers of LLVM, MLIR or moe_rt.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_C_JIT_H
#define MOE_C_JIT_H

#include <stddef.h>

#if defined(_WIN32)
#define MOE_JIT_API
#else
#define MOE_JIT_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/// Compiled code in the memory of this process.
typedef struct moe_jit_s moe_jit_t;

/// Compiles `size` bytes of MLIR, text or bytecode, for this machine. `options`
/// are options of moe-compile, separated by spaces; NULL or "" selects the
/// defaults. Returns 0 and sets `out` on success. Otherwise returns a non-zero
/// value and sets `error`, if that is not NULL, to a message to be freed with
/// moe_jit_free_error.
MOE_JIT_API int moe_jit_create(const char *mlir_text, size_t size,
                               const char *options, moe_jit_t **out,
                               char **error);
/// Returns the metadata of the code, as in an artifact: JSON, NUL-terminated,
/// owned by `jit`. "warnings" lists code that will be slow, with the reason.
MOE_JIT_API const char *moe_jit_metadata(moe_jit_t *jit);
/// Returns the address of an entry point that the metadata names; NULL if there
/// is none. Valid until `jit` is destroyed.
MOE_JIT_API void *moe_jit_lookup(moe_jit_t *jit, const char *symbol);
/// Destroys `jit`; modules of the runtime that use its code must be destroyed
/// first. NULL is allowed.
MOE_JIT_API void moe_jit_destroy(moe_jit_t *jit);
MOE_JIT_API void moe_jit_free_error(char *error);

#ifdef __cplusplus
}
#endif

#endif // MOE_C_JIT_H
