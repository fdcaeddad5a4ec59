/*===- pooling_driver.c - A driver with pools of memory -------------------===*\
|*
|* Licensed under the Apache License v2.0 with LLVM Exceptions.
|* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
|*
|* The driver that it is linked with, and pools that keep nothing but a record
|* of what is asked of them. They can be denied.
|*
\*===----------------------------------------------------------------------===*/

/* RTLD_NEXT. */
#define _GNU_SOURCE

#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef struct {
  int allocation, handles, place, device;
  void *security;
  char reserved[64];
} properties_t;

int cuMemAllocAsync(uint64_t *memory, size_t bytes, void *stream);

static char record[1024];
static char pool;

static void note(const char *text, uint64_t number) {
  size_t length = strlen(record);
  snprintf(record + length, sizeof(record) - length, "%s %llu; ", text,
           (unsigned long long)number);
}

/* What was asked since the last time. */
const char *moe_test_pool_record(void) {
  static char last[sizeof(record)];
  memcpy(last, record, sizeof(record));
  record[0] = '\0';
  return last;
}

/* Not 0: the device says that it has no pools. */
int moe_test_no_pools;

int cuDeviceGetAttribute(int *value, int attribute, int device) {
  if (attribute == 115 && moe_test_no_pools) {
    *value = 0;
    return 0;
  }
  int (*next)(int *, int, int);
  *(void **)&next = dlsym(RTLD_NEXT, "cuDeviceGetAttribute");
  return next(value, attribute, device);
}

int cuMemPoolCreate(void **out, const properties_t *properties) {
  /* Pinned, of a device, without handles for others. */
  if (properties->allocation != 1 || properties->place != 1 ||
      properties->handles || properties->security)
    return 1;
  note("create on device", (uint64_t)properties->device);
  *out = &pool;
  return 0;
}

int cuMemPoolSetAttribute(void *of, int attribute, const uint64_t *value) {
  if (of != &pool || attribute != 4)
    return 1;
  note("keep", *value);
  return 0;
}

int cuMemAllocFromPoolAsync(uint64_t *memory, size_t bytes, void *of,
                            void *stream) {
  if (of != &pool)
    return 1;
  note("allocate", bytes);
  return cuMemAllocAsync(memory, bytes, stream);
}

int cuMemPoolTrimTo(void *of, size_t kept) {
  if (of != &pool)
    return 1;
  note("trim to", kept);
  return 0;
}

int cuMemPoolDestroy(void *of) {
  if (of != &pool)
    return 1;
  note("destroy", 0);
  return 0;
}
