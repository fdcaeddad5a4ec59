/*===- fixture.c - What the compiler would write --------------------------===*\
|*
|* Licensed under the Apache License v2.0 with LLVM Exceptions.
|* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
|*
|* Entry points with the calling convention of an artifact, without any library.
|*
\*===----------------------------------------------------------------------===*/

#include "moe_rt/executor.h"

#include <stdint.h>

#ifndef SCALE
#define SCALE 2
#endif

typedef struct {
  void *allocated;
  void *aligned;
  int64_t offset;
  int64_t sizes_and_strides[];
} memref_t;

/* double: x f32[T, 4] -> y f32[T, 4], y = SCALE * x. Fills its workspace of 64
 * * T bytes. */
int32_t moe_entry_double(void **args, const moe_rt_executor_t *executor) {
  (void)executor;
  memref_t *x = args[0], *y = args[1], *workspace = args[2];
  int64_t count = x->sizes_and_strides[0] * x->sizes_and_strides[1];
  for (int64_t i = 0; i < workspace->sizes_and_strides[0]; ++i)
    ((volatile char *)workspace->aligned)[i] = (char)i;
  for (int64_t i = 0; i < count; ++i)
    ((float *)y->aligned)[i] = SCALE * ((float *)x->aligned)[i];
  return 0;
}

int64_t moe_workspace_double(int64_t tokens) { return 64 * tokens; }

/* layer: x f32[T, 4], ids i32[T, 2] of 3 experts, w f32[3, 4] -> y f32[T, 4],
   offsets i32[4], counters i64[2]. y = sum over k of w[ids[t, k]] * x[t]. Each
   expert takes at most 4 tokens. */
int32_t moe_entry_layer(void **args, const moe_rt_executor_t *executor) {
  (void)executor;
  memref_t *x = args[0], *ids = args[1], *w = args[2], *y = args[3],
           *offsets = args[4], *counters = args[5];
  int64_t tokens = x->sizes_and_strides[0];
  int32_t kept[3] = {0, 0, 0};
  int64_t *counter = counters->aligned;
  for (int64_t t = 0; t < tokens; ++t) {
    float *row = (float *)y->aligned + 4 * t;
    for (int64_t h = 0; h < 4; ++h)
      row[h] = 0;
    for (int64_t k = 0; k < 2; ++k) {
      int32_t id = ((int32_t *)ids->aligned)[2 * t + k];
      if (id < 0)
        continue;
      ++counter[0];
      if (kept[id] == 4)
        continue;
      ++kept[id];
      for (int64_t h = 0; h < 4; ++h)
        row[h] += ((float *)w->aligned)[4 * id + h] *
                  ((float *)x->aligned)[4 * t + h];
    }
  }
  for (int e = 0; e < 3; ++e)
    ((int32_t *)offsets->aligned)[e + 1] =
        ((int32_t *)offsets->aligned)[e] + kept[e];
  return 0;
}

int64_t moe_workspace_layer(int64_t tokens) { return tokens ? 128 : 0; }
