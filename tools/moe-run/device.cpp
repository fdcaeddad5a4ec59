//===- device.cpp - Memory of a GPU ---------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "device.h"
#include "options.h"

#include <cstdlib>
#include <dlfcn.h>

using namespace moe::run;
using moe::io::Error;
using moe::io::Expected;

Expected<DLDevice> moe::run::parseDevice(const std::string &text) {
  static constexpr std::string_view cuda = "cuda";
  if (text == "cpu")
    return DLDevice{kDLCPU, 0};
  uint64_t number = 0;
  bool known = text.compare(0, cuda.size(), cuda) == 0;
  if (known && text.size() > cuda.size())
    known = text[cuda.size()] == ':' &&
            parseNumber(text.substr(cuda.size() + 1), number) &&
            number <= INT32_MAX;
  if (!known)
    return Error{"--device: expected cpu, cuda or cuda:N, got '" + text + "'"};
  return DLDevice{kDLCUDA, static_cast<int32_t>(number)};
}

/// The functions used of the driver, with the types of CUDA's interface.
struct Device::Driver {
  void *library = nullptr;
  int (*cuDeviceGet)(int *, int) = nullptr;
  int (*cuDevicePrimaryCtxRetain)(void **, int) = nullptr;
  int (*cuDevicePrimaryCtxRelease)(int) = nullptr;
  int (*cuCtxSetCurrent)(void *) = nullptr;
  int (*cuMemAlloc)(unsigned long long *, size_t) = nullptr;
  int (*cuMemFree)(unsigned long long) = nullptr;
  int (*cuMemcpyHtoD)(unsigned long long, const void *, size_t) = nullptr;
  int (*cuMemcpyDtoH)(void *, unsigned long long, size_t) = nullptr;
  int (*cuStreamSynchronize)(void *) = nullptr;
  int (*cuGetErrorString)(int, const char **) = nullptr;

  bool open();
};

bool Device::Driver::open() {
  const char *given = std::getenv("MOE_CUDA_LIBRARY");
  library =
      dlopen(given && *given ? given : "libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  auto find = [&](const char *symbol, auto &out) {
    out = reinterpret_cast<std::decay_t<decltype(out)>>(dlsym(library, symbol));
    return out != nullptr;
  };
  return library && find("cuDeviceGet", cuDeviceGet) &&
         find("cuDevicePrimaryCtxRetain", cuDevicePrimaryCtxRetain) &&
         find("cuDevicePrimaryCtxRelease_v2", cuDevicePrimaryCtxRelease) &&
         find("cuCtxSetCurrent", cuCtxSetCurrent) &&
         find("cuMemAlloc_v2", cuMemAlloc) && find("cuMemFree_v2", cuMemFree) &&
         find("cuMemcpyHtoD_v2", cuMemcpyHtoD) &&
         find("cuMemcpyDtoH_v2", cuMemcpyDtoH) &&
         find("cuStreamSynchronize", cuStreamSynchronize) &&
         find("cuGetErrorString", cuGetErrorString);
}

Device::Device(std::unique_ptr<Driver> driver) : driver(std::move(driver)) {}

Expected<void> Device::check(int result, const std::string &purpose) const {
  if (result == 0)
    return {};
  const char *text = nullptr;
  if (driver->cuGetErrorString(result, &text) != 0 || !text)
    text = "unknown CUDA error";
  return Error{"cannot " + purpose + ": " + text};
}

Expected<std::unique_ptr<Device>> Device::open(DLDevice place) {
  auto driver = std::make_unique<Driver>();
  if (!driver->open()) {
    const char *reason = dlerror();
    return Error{"cannot use the NVIDIA driver: " +
                 std::string(reason ? reason : "a function is missing")};
  }
  std::unique_ptr<Device> device(new Device(std::move(driver)));
  device->where = place;
  int ordinal;
  void *context;
  if (Expected<void> got =
          device->check(device->driver->cuDeviceGet(&ordinal, place.device_id),
                        "get the GPU");
      !got)
    return got.takeError();
  if (Expected<void> retained = device->check(
          device->driver->cuDevicePrimaryCtxRetain(&context, ordinal),
          "use the GPU");
      !retained)
    return retained.takeError();
  device->ordinal = ordinal;
  if (Expected<void> set = device->check(
          device->driver->cuCtxSetCurrent(context), "use the GPU");
      !set)
    return set.takeError();
  return device;
}

Device::~Device() {
  // The library stays open, as the runtime uses it, too.
  if (ordinal >= 0)
    (void)driver->cuDevicePrimaryCtxRelease(ordinal);
}

//===----------------------------------------------------------------------===//
// Buffers
//===----------------------------------------------------------------------===//

Device::Buffer::Buffer(Buffer &&other) noexcept { *this = std::move(other); }

Device::Buffer &Device::Buffer::operator=(Buffer &&other) noexcept {
  std::swap(device, other.device);
  std::swap(address, other.address);
  return *this;
}

Device::Buffer::~Buffer() {
  if (address)
    (void)device->driver->cuMemFree(address);
}

void *Device::Buffer::data() const {
  return reinterpret_cast<void *>(static_cast<uintptr_t>(address));
}

Expected<Device::Buffer> Device::allocate(uint64_t bytes) const {
  Buffer buffer;
  buffer.device = this;
  if (bytes > 0)
    if (Expected<void> result =
            check(driver->cuMemAlloc(&buffer.address, bytes),
                  "allocate " + std::to_string(bytes) + " bytes on the GPU");
        !result)
      return result.takeError();
  return buffer;
}

Expected<void> Device::upload(const Buffer &to, const void *from,
                              uint64_t bytes) const {
  if (bytes == 0)
    return {};
  if (Expected<void> copied = check(
          driver->cuMemcpyHtoD(to.address, from, bytes), "copy to the GPU");
      !copied)
    return copied;
  // A copy from pageable memory may return before it completes.
  return check(driver->cuStreamSynchronize(nullptr), "copy to the GPU");
}

Expected<void> Device::download(void *to, const Buffer &from,
                                uint64_t bytes) const {
  if (bytes == 0)
    return {};
  return check(driver->cuMemcpyDtoH(to, from.address, bytes),
               "copy from the GPU");
}
