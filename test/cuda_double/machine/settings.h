//===- settings.h - Settings of the device from the environment -*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CUDA_DOUBLE_SETTINGS_H
#define MOE_CUDA_DOUBLE_SETTINGS_H

#include <cstdint>
#include <string>

namespace moe::gpu {

/// The variables MOE_CUDA_DOUBLE_*, read by cuInit.
struct Settings {
  int major = 9, minor = 0;               // ARCH=9.0
  int multiprocessors = 4;                // SMS
  uint64_t memory = uint64_t(4) << 30;    // MEMORY, bytes
  int driver = 13000;                     // DRIVER, a version
  int devices = 1;                        // DEVICES
  uint64_t seed = 0;                      // SEED, see late()
  uint64_t instructions = 20'000'000'000; // LIMIT, of one launch
  bool allowUninitialised = false;        // UNINIT=allow
  bool allowRaces = false;                // RACES=allow
  bool allowEqual = false;                // RACES=equal
  bool allowCopies = false;               // COPIES=allow
  bool allowBarriers = false;             // BARRIERS=allow
  bool hardwarePlacement = false;         // PLACEMENT=hardware
  std::string log;                        // LOG, a file

  static Settings fromEnvironment();

  int arch() const { return major * 10 + minor; }

  /// When asynchronous operations take effect: as late as the ISA allows
  /// (SEED=0), at their issue (1), or at a random time (any other seed), which
  /// also randomizes the order of threads, warps and blocks.
  bool late() const { return seed == 0; }
  bool immediate() const { return seed == 1; }
  bool random() const { return seed > 1; }

  // Limits of the architecture (CUDA C++ Programming Guide, "Technical
  // Specifications per Compute Capability").
  uint32_t sharedPerBlock() const { return 48 << 10; }
  uint32_t sharedOptIn() const {
    return (arch() == 80 ? 163 : arch() >= 90 ? 227 : 99) << 10;
  }
  uint32_t sharedPerMultiprocessor() const {
    return (arch() == 80 ? 164 : arch() >= 90 ? 228 : 100) << 10;
  }
  /// The bytes at the start of each block's shared memory that the system uses.
  uint32_t sharedReserved() const { return 1 << 10; }
  int threadsPerMultiprocessor() const {
    return arch() == 80 || arch() >= 90 ? 2048 : 1536;
  }
  int blocksPerMultiprocessor() const {
    return arch() == 80 || arch() >= 90 ? 32 : 16;
  }
};

/// The generator xorshift64*, whose results do not depend on the host.
class Random {
public:
  explicit Random(uint64_t seed) : state(seed * 0x9E3779B97F4A7C15u | 1) {}
  uint64_t next() {
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545F4914F6CDD1Du;
  }
  /// Returns a number below `bound`.
  uint32_t below(uint32_t bound) {
    return static_cast<uint32_t>((next() >> 32) * bound >> 32);
  }

private:
  uint64_t state;
};

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_SETTINGS_H
