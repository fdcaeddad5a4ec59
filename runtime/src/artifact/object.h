//===- object.h - Load a shared object from memory --------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_ARTIFACT_OBJECT_H
#define MOE_RT_SRC_ARTIFACT_OBJECT_H

#include "support/status.h"

#include <cstddef>

namespace moe::rt {

/// Whether the bytes start like a shared object for this machine.
moe_rt_status_t checkObject(const void *object, size_t size);

/// A shared object loaded from memory.
class LoadedObject {
public:
  LoadedObject() = default;
  ~LoadedObject();
  LoadedObject(const LoadedObject &) = delete;
  LoadedObject &operator=(const LoadedObject &) = delete;

  /// Load exactly these bytes: they never pass through a file that someone
  /// could change between their verification and their use.
  moe_rt_status_t load(const void *bytes, size_t size);

  /// The address of a symbol that the object itself defines, else nullptr.
  void *find(const char *symbol) const;
  /// Bytes of the symbol at an address that `find` returned; all that there are
  /// where the system does not tell.
  size_t sizeOf(const void *address) const;

private:
  void *handle = nullptr;
  int fd = -1;
};

} // namespace moe::rt

#endif // MOE_RT_SRC_ARTIFACT_OBJECT_H
