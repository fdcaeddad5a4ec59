/*===- device_fixture.c - What the compiler would write for a GPU ---------===*\
|*
|* Licensed under the Apache License v2.0 with LLVM Exceptions.
|* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
|*
|* Host code that starts a kernel, and the kernel, without any library.
|*
\*===----------------------------------------------------------------------===*/

#include "moe_rt/launcher.h"

#include <stdint.h>

typedef struct {
  void *allocated;
  void *aligned;
  int64_t offset;
  int64_t sizes_and_strides[];
} memref_t;

/* y[i] = 2 * x[i], one thread for each row of four. */
const char moe_image_0[] = ".version 7.0\n"
                           ".target sm_80\n"
                           ".address_size 64\n"
                           ".visible .entry twice(.param .u64 p_x,\n"
                           "                      .param .u64 p_y)\n"
                           "{\n"
                           "  .reg .b32 row;\n"
                           "  .reg .b64 x, y;\n"
                           "  .reg .f32 a, b, c, d;\n"
                           "  ld.param.u64 x, [p_x];\n"
                           "  ld.param.u64 y, [p_y];\n"
                           "  mov.u32 row, %ctaid.x;\n"
                           "  mad.wide.u32 x, row, 16, x;\n"
                           "  mad.wide.u32 y, row, 16, y;\n"
                           "  ld.global.v4.f32 {a, b, c, d}, [x];\n"
                           "  add.f32 a, a, a;\n"
                           "  add.f32 b, b, b;\n"
                           "  add.f32 c, c, c;\n"
                           "  add.f32 d, d, d;\n"
                           "  st.global.v4.f32 [y], {a, b, c, d};\n"
                           "  ret;\n"
                           "}\n";

/* twice: x f32[T, 4] -> y f32[T, 4], y = 2 * x. */
int32_t moe_entry_twice(void **args, const moe_rt_launcher_t *launcher) {
  memref_t *x = args[0], *y = args[1];
  moe_rt_kernel_argument_t arguments[] = {{8, (uint64_t)(uintptr_t)x->aligned},
                                          {8, (uint64_t)(uintptr_t)y->aligned}};
  return launcher->launch(launcher->user, 0, x->sizes_and_strides[0], 1, 1,
                          arguments, 2);
}

int64_t moe_workspace_twice(int64_t tokens) {
  (void)tokens;
  return 0;
}
