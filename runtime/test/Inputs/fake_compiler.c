/*===- fake_compiler.c - A stand-in for libMoECompiler.so -----------------===*\
|*
|* Licensed under the Apache License v2.0 with LLVM Exceptions.
|* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
|*
|* "Compiles" a text that is the metadata of fixture.c's function 'double', or
|* refuses one that starts with "error".
|*
\*===----------------------------------------------------------------------===*/

#include "fixture.c"

#include "moe-c/JIT.h"

#include <stdlib.h>
#include <string.h>

struct moe_jit_s {
  char *text;
};

int moe_jit_create(const char *mlir_text, size_t size, const char *options,
                   moe_jit_t **out, char **error) {
  if (strncmp(mlir_text, "error", 5) == 0) {
    const char *message = strcmp(options, "") ? options : "it says so";
    *error = malloc(strlen(message) + 1);
    strcpy(*error, message);
    return 1;
  }
  *out = malloc(sizeof(moe_jit_t));
  (*out)->text = calloc(1, size + 1);
  memcpy((*out)->text, mlir_text, size);
  return 0;
}

const char *moe_jit_metadata(moe_jit_t *jit) { return jit->text; }

void *moe_jit_lookup(moe_jit_t *jit, const char *symbol) {
  (void)jit;
  if (!strcmp(symbol, "moe_entry_double"))
    return (void *)moe_entry_double;
  if (!strcmp(symbol, "moe_workspace_double"))
    return (void *)moe_workspace_double;
  return NULL;
}

void moe_jit_destroy(moe_jit_t *jit) {
  if (jit)
    free(jit->text);
  free(jit);
}

void moe_jit_free_error(char *error) { free(error); }
