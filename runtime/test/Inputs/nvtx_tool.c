/*===- nvtx_tool.c - A tool that NVTX talks to ----------------------------===*\
|*
|* Licensed under the Apache License v2.0 with LLVM Exceptions.
|* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
|*
|* Writes the ranges of the process to the file $NVTX_TOOL_LOG, if it is set, as
|* a tool that $NVTX_INJECTION64_PATH names sees them.
|*
\*===----------------------------------------------------------------------===*/

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef void (*function_t)(void);
typedef struct {
  size_t struct_size;
  int (*get_module_function_table)(int module, function_t ***table,
                                   unsigned *size);
} callbacks_t;

static _Thread_local int depth;

static void write_line(const char *text) {
  const char *path = getenv("NVTX_TOOL_LOG");
  FILE *log = path ? fopen(path, "a") : NULL;
  if (!log)
    return;
  fprintf(log, "%*s%s\n", 2 * depth, "", text);
  fclose(log);
}

static int push(const char *text) {
  write_line(text);
  return depth++;
}

static int pop(void) { return --depth; }

int InitializeInjectionNvtx2(const void *(*get_export_table)(uint32_t)) {
  const callbacks_t *callbacks = get_export_table(1);
  function_t **table;
  unsigned size;
  if (get_export_table(2) || !get_export_table(3) ||
      callbacks->struct_size < sizeof(callbacks_t) ||
      callbacks->get_module_function_table(2, &table, &size) ||
      !callbacks->get_module_function_table(5, &table, &size) || size != 16 ||
      !callbacks->get_module_function_table(1, &table, &size) || size != 16)
    return 0;
  *table[9] = (function_t)push;
  *table[11] = (function_t)pop;
  return 1;
}
