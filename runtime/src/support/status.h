//===- status.h - Status values ---------------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_SUPPORT_STATUS_H
#define MOE_RT_SRC_SUPPORT_STATUS_H

#include "moe_rt/moe_rt.h"

namespace moe::rt {

/// A status with a formatted message. Never fails: without memory it returns a
/// fixed status that says so.
moe_rt_status_t makeError(moe_rt_code_t code, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/// An error with this code, and with a text and ": " before the message of
/// `status`, which is freed.
moe_rt_status_t wrapError(moe_rt_code_t code, const char *prefix,
                          moe_rt_status_t status);

} // namespace moe::rt

/// Return the status of `expr` to the caller unless it is success.
#define MOE_RT_TRY(expr)                                                       \
  do {                                                                         \
    if (moe_rt_status_t tryStatus = (expr))                                    \
      return tryStatus;                                                        \
  } while (0)

#endif // MOE_RT_SRC_SUPPORT_STATUS_H
