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

/// "cpu", "cuda" or "cuda:N".
io::Expected<DLDevice> parseDevice(const std::string &text);

/// An NVIDIA GPU, by the driver that the runtime has opened: tensors of calls
/// lie in its memory, which is allocated with the driver alone.
class Device {
public:
  /// The runtime has a context for the device already, so there is one.
  static io::Expected<std::unique_ptr<Device>> open(DLDevice place);
  ~Device();
  Device(const Device &) = delete;

  DLDevice place() const { return where; }

  /// Memory of the device.
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
  int ordinal = -1; // of a primary context that is retained
};

} // namespace moe::run

#endif // MOE_RUN_DEVICE_H
