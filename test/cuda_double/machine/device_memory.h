//===- device_memory.h - Global memory --------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CUDA_DOUBLE_DEVICE_MEMORY_H
#define MOE_CUDA_DOUBLE_DEVICE_MEMORY_H

#include "ptx/program.h"

#include <cstdlib>

namespace moe::gpu {

/// The memory of a device and what of the host's it can reach. The addresses
/// that it gives out belong to a range of the process that nobody can access,
/// so that host code which dereferences one stops; the bytes are elsewhere.
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
  };

  /// 0 if there is not that much left. The bytes are 0xFF: no kernel may rely
  /// on zeros. The address is a multiple of 256, and of no higher power of 2
  /// unless asked for.
  uint64_t allocate(uint64_t bytes, Kind kind, uint64_t align);
  uint64_t allocate(uint64_t bytes, uint64_t align) override;
  void write(uint64_t address, const void *bytes, uint64_t count) override;
  /// Memory of the host that the device can access under its own address.
  void *allocateHost(uint64_t bytes);
  bool free(uint64_t address, Kind kind);

  /// The allocation with this byte, or nullptr.
  const Allocation *find(uint64_t address) const;
  /// The bytes, or nullptr unless all are of one allocation.
  uint8_t *translate(uint64_t address, uint64_t bytes) const;
  /// Whether the address is one that only a device may use.
  bool owns(uint64_t address) const { return address - base < reserved; }
  /// The allocation next to an address, in words.
  std::string describe(uint64_t address) const;

  uint64_t capacity() const { return total; }
  uint64_t used() const { return inUse; }
  /// Changes when an allocation ends: what was looked up may be gone.
  uint64_t generation() const { return generations; }

private:
  uint64_t total, inUse = 0;
  uint64_t base = 0, reserved = 0, next = 0;
  uint64_t ids = 0, generations = 0;
  std::map<uint64_t, Allocation> allocations;
};

/// Where the generic addresses of the other state spaces lie: ranges that no
/// other memory of the process takes.
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
