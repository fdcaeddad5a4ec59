/*===- stub_driver.c - A driver that cannot be used -----------------------===*\
|*
|* Licensed under the Apache License v2.0 with LLVM Exceptions.
|* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
|*
|* Has the functions that every version of libcuda.so.1 has, and no others.
|* VERSION is what it supports, RESULT what initialising it returns.
|*
\*===----------------------------------------------------------------------===*/

int cuInit(unsigned flags) {
  (void)flags;
  return RESULT;
}

int cuDriverGetVersion(int *version) {
  *version = VERSION;
  return 0;
}

int cuGetErrorName(int error, const char **name) {
  if (error != 100)
    return 1;
  *name = "CUDA_ERROR_NO_DEVICE";
  return 0;
}

int cuGetErrorString(int error, const char **text) {
  if (error != 100)
    return 1;
  *text = "no CUDA-capable device is detected";
  return 0;
}
