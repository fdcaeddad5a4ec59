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

/* packed: x f32[T, 4], gate and up f32[3, 4], which it does not read, bias
   f32[4], both f32[3, 2, 4] prepared from gate and up -> y f32[T, 4],
   y = x * (sum over e of both[e, 0] * both[e, 1]) + bias. */
int32_t moe_entry_packed(void **args, const moe_rt_executor_t *executor) {
  (void)executor;
  memref_t *x = args[0], *gate = args[1], *up = args[2], *bias = args[3],
           *both = args[4], *y = args[5];
  if (gate->aligned || up->aligned)
    return 1;
  int64_t tokens = x->sizes_and_strides[0];
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t h = 0; h < 4; ++h) {
      float scale = 0;
      for (int64_t e = 0; e < 3; ++e)
        scale += ((float *)both->aligned)[8 * e + h] *
                 ((float *)both->aligned)[8 * e + 4 + h];
      ((float *)y->aligned)[4 * t + h] =
          scale * ((float *)x->aligned)[4 * t + h] +
          ((float *)bias->aligned)[h];
    }
  return 0;
}

int64_t moe_workspace_packed(int64_t tokens) { return tokens ? 64 : 0; }

/* pack: gate and up f32[E, 4] -> both f32[E, 2, 4]. Uses its workspace of 32
   bytes for each expert. */
int32_t moe_entry_pack(void **args, const moe_rt_executor_t *executor) {
  (void)executor;
  memref_t *gate = args[0], *up = args[1], *both = args[2],
           *workspace = args[3];
  float *buffer = workspace->aligned;
  for (int64_t e = 0; e < gate->sizes_and_strides[0]; ++e) {
    for (int64_t h = 0; h < 4; ++h) {
      buffer[8 * e + h] = ((float *)gate->aligned)[4 * e + h];
      buffer[8 * e + 4 + h] = ((float *)up->aligned)[4 * e + h];
    }
    for (int64_t i = 0; i < 8; ++i)
      ((float *)both->aligned)[8 * e + i] = buffer[8 * e + i];
  }
  return 0;
}

int64_t moe_workspace_pack(int64_t experts) { return 32 * experts; }
