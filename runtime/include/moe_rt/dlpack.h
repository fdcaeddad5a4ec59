//===- dlpack.h - The part of DLPack that moe_rt uses -----------*- C -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The structures of DLPack 1.x (https://dmlc.github.io/dlpack), with its names
// and layout. To use your own <dlpack/dlpack.h> instead, include it before this
// header.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_DLPACK_H
#define MOE_RT_DLPACK_H

#ifndef DLPACK_DLPACK_H_
#define DLPACK_DLPACK_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Tensors of other devices carry other values, which are valid, too. */
#ifdef __cplusplus
typedef enum : int32_t {
#else
typedef enum {
#endif
  kDLCPU = 1,
  kDLCUDA = 2,
  kDLCUDAHost = 3
} DLDeviceType;

typedef struct {
  DLDeviceType device_type;
  int32_t device_id;
} DLDevice;

typedef enum {
  kDLInt = 0U,
  kDLUInt = 1U,
  kDLFloat = 2U,
  kDLBfloat = 4U
} DLDataTypeCode;

typedef struct {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
} DLDataType;

typedef struct {
  void *data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t *shape;
  int64_t *strides; /* in elements; NULL means row-major and compact */
  uint64_t byte_offset;
} DLTensor;

#ifdef __cplusplus
}
#endif

#endif // DLPACK_DLPACK_H_
#endif // MOE_RT_DLPACK_H
