//===- status.cpp - Status values -----------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "support/status.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <new>

/// The message follows the structure in the same allocation.
struct moe_rt_status_s {
  moe_rt_code_t code;
  const char *message;
};

// Reporting that there is no memory must not need memory.
static moe_rt_status_s outOfMemory = {MOE_RT_RESOURCE_EXHAUSTED,
                                      "out of memory"};

moe_rt_status_t moe::rt::makeError(moe_rt_code_t code, const char *format,
                                   ...) {
  va_list args;
  va_start(args, format);
  va_list again;
  va_copy(again, args);
  int length = std::vsnprintf(nullptr, 0, format, args);
  va_end(args);
  if (length < 0)
    length = 0;
  size_t bytes = sizeof(moe_rt_status_s) + static_cast<size_t>(length) + 1;
  void *memory = std::malloc(bytes);
  if (!memory) {
    va_end(again);
    return &outOfMemory;
  }
  char *message = static_cast<char *>(memory) + sizeof(moe_rt_status_s);
  message[0] = '\0';
  std::vsnprintf(message, static_cast<size_t>(length) + 1, format, again);
  va_end(again);
  return new (memory) moe_rt_status_s{code, message};
}

moe_rt_status_t moe::rt::wrapError(moe_rt_code_t code, const char *prefix,
                                   moe_rt_status_t status) {
  moe_rt_status_t wrapped =
      makeError(code, "%s: %s", prefix, moe_rt_status_message(status));
  moe_rt_status_free(status);
  return wrapped;
}

extern "C" {

moe_rt_code_t moe_rt_status_code(moe_rt_status_t status) {
  return status ? status->code : MOE_RT_OK;
}

const char *moe_rt_status_message(moe_rt_status_t status) {
  return status ? status->message : "";
}

const char *moe_rt_code_name(moe_rt_code_t code) {
  switch (code) {
  case MOE_RT_OK:
    return "OK";
  case MOE_RT_INVALID_ARGUMENT:
    return "INVALID_ARGUMENT";
  case MOE_RT_DEADLINE_EXCEEDED:
    return "DEADLINE_EXCEEDED";
  case MOE_RT_NOT_FOUND:
    return "NOT_FOUND";
  case MOE_RT_RESOURCE_EXHAUSTED:
    return "RESOURCE_EXHAUSTED";
  case MOE_RT_FAILED_PRECONDITION:
    return "FAILED_PRECONDITION";
  case MOE_RT_OUT_OF_RANGE:
    return "OUT_OF_RANGE";
  case MOE_RT_UNIMPLEMENTED:
    return "UNIMPLEMENTED";
  case MOE_RT_INTERNAL:
    return "INTERNAL";
  case MOE_RT_UNAVAILABLE:
    return "UNAVAILABLE";
  case MOE_RT_DATA_LOSS:
    return "DATA_LOSS";
  }
  return "UNKNOWN";
}

void moe_rt_status_free(moe_rt_status_t status) {
  if (status != &outOfMemory)
    std::free(status);
}

const char *moe_rt_version(void) { return MOE_RT_VERSION_STRING; }

int32_t moe_rt_abi_version(void) { return MOE_RT_ABI_VERSION; }

} // extern "C"
