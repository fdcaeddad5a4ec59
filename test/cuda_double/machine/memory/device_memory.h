//===- device_memory.h - Global memory --------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CUDA_DOUBLE_DEVICE_MEMORY_H
#define MOE_CUDA_DOUBLE_DEVICE_MEMORY_H

#include "global_shadow.h"
#include "ptx/program.h"

#include <cstdlib>

namespace moe::gpu {

/// The memory of a device, and the pinned host memory that it can access.
/// Device addresses are in a range of the process that is mapped without
/// access, so that host code which dereferences one faults; the bytes are
/// stored elsewhere.
class DeviceMemory final : public GlobalAllocator {
public:
  explicit DeviceMemory(uint64_t capacity);
  ~DeviceMemory() override;
  DeviceMemory(const DeviceMemory &) = delete;

  enum class Kind { Device, Module, Host };
  struct Allocation {
    uint64_t address = 0;
    uint64_t bytes = 0;
    uint8_t *storage = nullptr;
    Kind kind = Kind::Device;
    uint64_t id = 0;
    std::unique_ptr<GlobalShadow> shadow;
  };

  /// Returns 0 if too little memory is free. The bytes are filled with 0xFF,
  /// since no kernel may rely on zeros. The address is a multiple of 256, and
  /// of a higher power of 2 only if `align` is higher.
  uint64_t allocate(uint64_t bytes, Kind kind, uint64_t align);
  uint64_t allocate(uint64_t bytes, uint64_t align) override;
  void write(uint64_t address, const void *bytes, uint64_t count) override;
  /// Allocates host memory that the device accesses at the same address.
  void *allocateHost(uint64_t bytes);
  bool free(uint64_t address, Kind kind);

  /// Returns the allocation that contains the address, or nullptr.
  const Allocation *find(uint64_t address) const;
  /// Returns the bytes, or nullptr unless one allocation contains them all.
  uint8_t *translate(uint64_t address, uint64_t bytes) const;
  /// Notes that the host, or an operation of a stream, has written bytes: all
  /// of them, or those of a copy that were written at its source.
  void noteWrite(uint64_t address, uint64_t bytes) const;
  void noteCopy(uint64_t to, uint64_t from, uint64_t bytes) const;
  /// Returns whether the address is a device address.
  bool owns(uint64_t address) const { return address - base < reserved; }
  /// Describes the allocation nearest to an address, for messages.
  std::string describe(uint64_t address) const;

  uint64_t capacity() const { return total; }
  uint64_t used() const { return inUse; }
  /// Incremented by each free: pointers looked up before may be dangling.
  uint64_t generation() const { return generations; }

private:
  uint64_t total, inUse = 0;
  uint64_t base = 0, reserved = 0, next = 0;
  uint64_t ids = 0, generations = 0;
  std::map<uint64_t, Allocation> allocations;
};

/// The windows of the generic address space for .shared, .local and .param:
/// address ranges that no other memory of the process uses.
struct GenericWindows {
  GenericWindows();
  uint64_t shared, local, param;
  static constexpr uint64_t sharedBytes = uint64_t(16) << 24;
  static constexpr uint64_t localBytes = 16 << 20;
  static constexpr uint64_t paramBytes = 64 << 10;
};
const GenericWindows &windows();

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_DEVICE_MEMORY_H
