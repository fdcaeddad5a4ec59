//===- device.h - Memory of a GPU -------------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RUN_DEVICE_H
#define MOE_RUN_DEVICE_H

#include "moe_rt/io.h"

#include <memory>

namespace moe::run {

/// Parses "cpu", "cuda" or "cuda:N".
io::Expected<DLDevice> parseDevice(const std::string &text);

/// Allocates the tensors of calls in the memory of an NVIDIA GPU, through the
/// driver that the runtime has opened.
class Device {
public:
  /// Requires that the runtime already has a context for the device.
  static io::Expected<std::unique_ptr<Device>> open(DLDevice place);
  ~Device();
  Device(const Device &) = delete;

  DLDevice place() const { return where; }

  /// A block of device memory.
  class Buffer {
  public:
    Buffer() = default;
    Buffer(Buffer &&other) noexcept;
    Buffer &operator=(Buffer &&other) noexcept;
    ~Buffer();

    void *data() const;

  private:
    friend class Device;
    const Device *device = nullptr;
    unsigned long long address = 0;
  };

  io::Expected<Buffer> allocate(uint64_t bytes) const;
  io::Expected<void> upload(const Buffer &to, const void *from,
                            uint64_t bytes) const;
  io::Expected<void> download(void *to, const Buffer &from,
                              uint64_t bytes) const;

private:
  struct Driver;
  explicit Device(std::unique_ptr<Driver> driver);
  io::Expected<void> check(int result, const std::string &purpose) const;

  std::unique_ptr<Driver> driver;
  DLDevice where = {kDLCUDA, 0};
  int ordinal = -1; // of the primary context that is retained
};

} // namespace moe::run

#endif // MOE_RUN_DEVICE_H
