//===- context.cpp - The context and its allocator ------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "core/context.h"
#include "core/devices.h"
#include "support/buffer.h"

#include <cinttypes>
#include <new>

using namespace moe::rt;

static moe_rt_status_t checkOptions(const moe_rt_context_options_t &options) {
  if (options.struct_size != sizeof(moe_rt_context_options_t))
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "context options: struct_size is %zu, expected %zu",
                     options.struct_size, sizeof(moe_rt_context_options_t));
  const moe_rt_allocator_t &allocator = options.allocator;
  if (!allocator.allocate != !allocator.release)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "context options: allocator has %s but no %s, expected "
                     "both or neither",
                     allocator.allocate ? "'allocate'" : "'release'",
                     allocator.allocate ? "'release'" : "'allocate'");
  if (options.num_threads < 0 || options.num_threads > maxThreads)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "context options: num_threads is %" PRId64
                     ", expected 0 to %" PRId64,
                     options.num_threads, maxThreads);
  MOE_RT_TRY(checkPlace(options.device));
  const moe_rt_executor_t *executor = options.executor;
  if (!executor)
    return nullptr;
  if (options.num_threads > 0)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "context options: num_threads is %" PRId64
                     " beside an executor, expected 0",
                     options.num_threads);
  if (!executor->parallel_for)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "context options: executor has no 'parallel_for'");
  if (executor->concurrency < 1)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "context options: executor has concurrency %" PRId64
                     ", expected at least 1",
                     executor->concurrency);
  return nullptr;
}

extern "C" {

moe_rt_status_t moe_rt_context_create(const moe_rt_context_options_t *options,
                                      moe_rt_context_t **out) {
  if (!out)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "moe_rt_context_create: 'out' is NULL");
  moe_rt_context_options_t given = {};
  if (options) {
    MOE_RT_TRY(checkOptions(*options));
    given = *options;
  }
  std::unique_ptr<moe_rt_context_t> context(new (std::nothrow)
                                                moe_rt_context_t());
  if (!context)
    return makeError(MOE_RT_RESOURCE_EXHAUSTED, "cannot allocate the context");
  context->allocator = defaultAllocator;
  if (given.allocator.allocate)
    context->allocator = given.allocator;
  MOE_RT_TRY(openDevice(given, context->device));
  *out = context.release();
  return nullptr;
}

void moe_rt_context_trim(moe_rt_context_t *context) {
  if (context)
    context->device->trim();
}

void moe_rt_context_destroy(moe_rt_context_t *context) { delete context; }

} // extern "C"
