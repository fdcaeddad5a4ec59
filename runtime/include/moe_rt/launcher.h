//===- launcher.h - Launch kernels on a device --------------------*- C -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Compiled code for a GPU launches its kernels through a launcher: the entry
// point of a layer runs on the host, computes the grids from the number of
// tokens, and calls `launch` once for each kernel, in stream order. It does not
// read device memory. Compiled code accesses these structures: their layout is
// part of the ABI.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_LAUNCHER_H
#define MOE_RT_LAUNCHER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// A tensor map describes a tensor in global memory to the TMA unit (sm_90).
/// Dimension 0 is the innermost one, with contiguous elements. Elements out of
/// bounds are read as zero.
typedef struct {
  uint64_t address;   // device address, a multiple of 16
  int64_t element;    // moe_rt_map_element_t
  int64_t rank;       // 1 to 5; the arrays are not read beyond
  int64_t sizes[5];   // elements, 1 to 2^32
  int64_t strides[5]; // bytes from one element of a dimension to the next, a
                      // multiple of 16; that of dimension 0 is not read
  int64_t box[5];     // elements of one copy, 1 to 256; those of dimension 0
                      // have a multiple of 16 bytes, at most `swizzle` if that
                      // is not 0
  int64_t swizzle;    // bytes of the swizzle: 0, 32, 64 or 128
} moe_rt_tensor_map_t;

typedef enum {
  MOE_RT_MAP_U8 = 0, // bytes: fp8
  MOE_RT_MAP_F16 = 1,
  MOE_RT_MAP_BF16 = 2,
  MOE_RT_MAP_F32 = 3,
  MOE_RT_MAP_I32 = 4,
} moe_rt_map_element_t;

/// An argument of a kernel: the lowest `size` bytes (1, 2, 4 or 8) of `value`;
/// or, with size 0, a moe_rt_tensor_map_t that `value` points to and that the
/// kernel takes by value as 128 bytes, aligned to 64.
typedef struct {
  int64_t size;
  uint64_t value;
} moe_rt_kernel_argument_t;

/// Passed to an entry point; valid during that call, on its thread.
typedef struct {
  void *user;
  int64_t multiprocessors; // of the device, at least 1
  /// Launches kernel `kernel` of the variant's `kernels` with a grid of x · y ·
  /// z blocks on the stream of the call. x must be a multiple of the kernel's
  /// `cluster`. `arguments` has an element for each parameter, at most 256, of
  /// which at most 32 are tensor maps; they are copied. Returns 0 on success.
  /// After a failure nothing more is launched, whether or not the entry point
  /// returns. A grid with an extent of 0 is not launched.
  int32_t (*launch)(void *user, int64_t kernel, int64_t x, int64_t y, int64_t z,
                    const moe_rt_kernel_argument_t *arguments, int64_t count);
  /// Device address of an i32, the number of live tokens; 0 if all are live.
  uint64_t live_tokens;
} moe_rt_launcher_t;

#ifdef __cplusplus
} // extern "C"
static_assert(sizeof(moe_rt_tensor_map_t) == 19 * 8 &&
                  sizeof(moe_rt_kernel_argument_t) == 16 &&
                  offsetof(moe_rt_launcher_t, user) == 0 &&
                  offsetof(moe_rt_launcher_t, multiprocessors) == 8 &&
                  offsetof(moe_rt_launcher_t, launch) == 16 &&
                  offsetof(moe_rt_launcher_t, live_tokens) == 24,
              "compiled code knows these offsets");
#endif

#endif // MOE_RT_LAUNCHER_H
