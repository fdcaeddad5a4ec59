//===- device_memory.cpp - Global memory ----------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "device_memory.h"
#include "machine/fault.h"

#include <cstring>
#include <sys/mman.h>

using namespace moe::gpu;

/// Reserves a range of inaccessible addresses. `bytes` is halved until the
/// reservation succeeds.
static uint64_t reserve(uint64_t &bytes, uint64_t align) {
  for (; bytes >= align; bytes /= 2) {
    void *memory = mmap(nullptr, bytes + align, PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory != MAP_FAILED)
      return (reinterpret_cast<uint64_t>(memory) + align - 1) / align * align;
  }
  fail(CUDA_ERROR_OUT_OF_MEMORY, "no address space");
}

GenericWindows::GenericWindows() {
  uint64_t bytes = sharedBytes + localBytes + paramBytes;
  shared = reserve(bytes, uint64_t(1) << 24);
  local = shared + sharedBytes;
  param = local + localBytes;
}

const GenericWindows &moe::gpu::windows() {
  static const GenericWindows instance;
  return instance;
}

// Addresses are never reused, so that every use after free is detected.
static constexpr uint64_t reservedBytes = uint64_t(1) << 40;
static constexpr uint64_t guardBytes = 4096;

DeviceMemory::DeviceMemory(uint64_t capacity) : total(capacity) {
  reserved = reservedBytes;
  base = reserve(reserved, 2 << 20);
  next = base + guardBytes;
}

DeviceMemory::~DeviceMemory() {
  munmap(reinterpret_cast<void *>(base), reserved);
  for (auto &[address, allocation] : allocations)
    std::free(allocation.storage);
}

uint64_t DeviceMemory::allocate(uint64_t bytes, Kind kind, uint64_t align) {
  if (bytes == 0 || bytes > total - inUse)
    return 0;
  uint64_t address;
  if (align <= 256)
    address = (next + 511) / 512 * 512 + 256;
  else
    address = (next + align - 1) / align * align;
  if (address + bytes + guardBytes > base + reserved)
    return 0;
  auto *storage = static_cast<uint8_t *>(
      std::aligned_alloc(256, (bytes + 255) / 256 * 256));
  if (!storage)
    return 0;
  std::memset(storage, 0xFF, bytes);
  // The variables of a module have initial values.
  allocations[address] = {
      address, bytes,
      storage, kind,
      ++ids,   std::make_unique<GlobalShadow>(bytes, kind == Kind::Module)};
  next = address + bytes + guardBytes;
  inUse += bytes;
  return address;
}

uint64_t DeviceMemory::allocate(uint64_t bytes, uint64_t align) {
  uint64_t address = allocate(bytes, Kind::Module, align);
  if (!address)
    fail(CUDA_ERROR_OUT_OF_MEMORY, "no memory for the variables of a module");
  return address;
}

void DeviceMemory::write(uint64_t address, const void *bytes, uint64_t count) {
  if (count != 0)
    std::memcpy(translate(address, count), bytes, count);
}

void *DeviceMemory::allocateHost(uint64_t bytes) {
  void *storage = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  if (!storage)
    return nullptr;
  std::memset(storage, 0xFF, bytes);
  auto address = reinterpret_cast<uint64_t>(storage);
  // What the host writes to its memory is not seen.
  allocations[address] = {
      address,    bytes, static_cast<uint8_t *>(storage),
      Kind::Host, ++ids, std::make_unique<GlobalShadow>(bytes, true)};
  return storage;
}

bool DeviceMemory::free(uint64_t address, Kind kind) {
  auto found = allocations.find(address);
  if (found == allocations.end() || found->second.kind != kind)
    return false;
  if (kind != Kind::Host)
    inUse -= found->second.bytes;
  std::free(found->second.storage);
  allocations.erase(found);
  ++generations;
  return true;
}

const DeviceMemory::Allocation *DeviceMemory::find(uint64_t address) const {
  auto after = allocations.upper_bound(address);
  if (after == allocations.begin())
    return nullptr;
  const Allocation &candidate = std::prev(after)->second;
  return address - candidate.address < candidate.bytes ? &candidate : nullptr;
}

uint8_t *DeviceMemory::translate(uint64_t address, uint64_t bytes) const {
  const Allocation *allocation = find(address);
  if (!allocation ||
      bytes > allocation->bytes - (address - allocation->address))
    return nullptr;
  return allocation->storage + (address - allocation->address);
}

void DeviceMemory::noteWrite(uint64_t address, uint64_t bytes) const {
  if (const Allocation *allocation = find(address))
    allocation->shadow->markWritten(address - allocation->address, bytes);
}

void DeviceMemory::noteCopy(uint64_t to, uint64_t from, uint64_t bytes) const {
  const Allocation *target = find(to), *source = find(from);
  if (!target)
    return;
  uint64_t offset = to - target->address;
  if (source)
    target->shadow->copyWritten(offset, *source->shadow, from - source->address,
                                bytes);
  else
    target->shadow->markWritten(offset, bytes);
}

std::string DeviceMemory::describe(uint64_t address) const {
  auto words = [&](const Allocation &allocation) {
    return text(allocation.bytes, " bytes at ", Hex{allocation.address});
  };
  auto after = allocations.upper_bound(address);
  if (after != allocations.begin()) {
    const Allocation &before = std::prev(after)->second;
    uint64_t distance = address - before.address;
    if (distance < before.bytes)
      return text("byte ", distance, " of the allocation of ", words(before));
    if (after == allocations.end() ||
        distance - before.bytes <= after->first - address)
      return text(distance - before.bytes, " bytes behind the allocation of ",
                  words(before));
  }
  if (after != allocations.end())
    return text(after->first - address, " bytes before the allocation of ",
                words(after->second));
  return "nothing is allocated";
}
