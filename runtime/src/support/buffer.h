//===- buffer.h - Memory of the context's allocator -------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_SUPPORT_BUFFER_H
#define MOE_RT_SRC_SUPPORT_BUFFER_H

#include "support/status.h"

#include "moe_rt/abi.h"

#include <cstddef>
#include <utility>

namespace moe::rt {

/// Alignment of workspaces and of everything else the runtime allocates.
inline constexpr size_t bufferAlignment = MOE_RT_WORKSPACE_ALIGNMENT;
// Reports lie in such memory, one after the other.
static_assert(bufferAlignment % MOE_RT_REPORT_ALIGNMENT == 0);
/// Weights and workspaces of at least this size are aligned to it and lie in
/// huge pages where the system has them.
inline constexpr size_t hugePage = size_t(2) << 20;

/// Memory from the context's allocator, released at the end of the scope.
class Buffer {
public:
  Buffer() = default;
  explicit Buffer(const moe_rt_allocator_t &allocator)
      : allocator(&allocator) {}
  ~Buffer() { release(); }
  Buffer(Buffer &&other) noexcept
      : allocator(other.allocator),
        memory(std::exchange(other.memory, nullptr)),
        size(std::exchange(other.size, 0)) {}
  Buffer &operator=(Buffer &&other) noexcept {
    std::swap(allocator, other.allocator);
    std::swap(memory, other.memory);
    std::swap(size, other.size);
    return *this;
  }

  /// `what` names the purpose in the message. Zero bytes allocate nothing.
  moe_rt_status_t allocate(uint64_t bytes, const char *what,
                           size_t alignment = bufferAlignment);

  char *data() const { return static_cast<char *>(memory); }
  uint64_t bytes() const { return size; }

private:
  void release();

  const moe_rt_allocator_t *allocator = nullptr;
  void *memory = nullptr;
  size_t size = 0;
};

/// The C library's, with huge pages.
extern const moe_rt_allocator_t defaultAllocator;

} // namespace moe::rt

#endif // MOE_RT_SRC_SUPPORT_BUFFER_H
