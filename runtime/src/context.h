//===- context.h - The context and its allocator ----------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_CONTEXT_H
#define MOE_RT_SRC_CONTEXT_H

#include "pool.h"
#include "status.h"

#include <memory>
#include <utility>

struct moe_rt_context_s {
  moe_rt_allocator_t allocator;
  std::unique_ptr<moe::rt::ThreadPool>
      pool; // empty: the executor is the host's
  moe_rt_executor_t executor;
};

namespace moe::rt {

/// Alignment of workspaces and of everything else the runtime allocates.
inline constexpr size_t bufferAlignment = 64;
/// Weights of at least this size are aligned to it and lie in huge pages where
/// the system has them: a call reads them all, once.
inline constexpr size_t hugePage = size_t(2) << 20;

/// Memory from the context's allocator, released at the end of the scope.
class Buffer {
public:
  explicit Buffer(const moe_rt_context_t &context) : context(context) {}
  ~Buffer() { release(); }
  Buffer(Buffer &&other) noexcept
      : context(other.context), memory(std::exchange(other.memory, nullptr)),
        size(std::exchange(other.size, 0)) {}
  Buffer &operator=(Buffer &&) = delete;

  /// `what` names the purpose in the message. Zero bytes allocate nothing.
  moe_rt_status_t allocate(uint64_t bytes, const char *what,
                           size_t alignment = bufferAlignment);

  char *data() const { return static_cast<char *>(memory); }
  uint64_t bytes() const { return size; }

private:
  void release();

  const moe_rt_context_t &context;
  void *memory = nullptr;
  size_t size = 0;
};

} // namespace moe::rt

#endif // MOE_RT_SRC_CONTEXT_H
