//===- memory.cpp - Memory: allocations and copies ------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "driver.h"
#include "machine/memory/tensor_map.h"

#include <cstring>

using namespace moe::gpu;

//===----------------------------------------------------------------------===//
// Allocations
//===----------------------------------------------------------------------===//

CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t bytes) {
  return entry("cuMemAlloc", [&](Driver &driver) {
    checkPointer(address);
    DeviceMemory &memory = driver.memory();
    driver.unsafeDuringCapture("cuMemAlloc");
    if (bytes == 0)
      fail(CUDA_ERROR_INVALID_VALUE, "an allocation of 0 bytes");
    *address = memory.allocate(bytes, DeviceMemory::Kind::Device, 256);
    if (!*address)
      fail(CUDA_ERROR_OUT_OF_MEMORY, bytes, " bytes; ", memory.used(), " of ",
           memory.capacity(), " are in use");
    driver.log.write("alloc", {{"bytes", bytes}, {"address", *address}});
    return CUDA_SUCCESS;
  });
}

CUresult cuMemFree_v2(CUdeviceptr address) {
  return entry("cuMemFree", [&](Driver &driver) {
    DeviceMemory &memory = driver.memory();
    driver.unsafeDuringCapture("cuMemFree");
    if (address == 0)
      return CUDA_SUCCESS;
    // cuMemFree synchronizes, as the driver does.
    driver.synchroniseContext(driver.current());
    if (!memory.free(address, DeviceMemory::Kind::Device))
      fail(CUDA_ERROR_INVALID_VALUE, Hex{address},
           " is no allocation: ", memory.describe(address));
    driver.log.write("free", {{"address", address}});
    return CUDA_SUCCESS;
  });
}

CUresult cuMemAllocAsync(CUdeviceptr *address, size_t bytes, CUstream handle) {
  return entry("cuMemAllocAsync", [&](Driver &driver) {
    checkPointer(address);
    CUstream stream = driver.stream(handle);
    DeviceMemory &memory = driver.memory();
    if (stream->capture)
      fail(CUDA_ERROR_NOT_SUPPORTED, "allocations in graphs are not modelled");
    if (bytes == 0)
      fail(CUDA_ERROR_INVALID_VALUE, "an allocation of 0 bytes");
    *address = memory.allocate(bytes, DeviceMemory::Kind::Device, 256);
    if (!*address)
      fail(CUDA_ERROR_OUT_OF_MEMORY, bytes, " bytes");
    driver.log.write("alloc", {{"bytes", bytes}, {"address", *address}});
    return CUDA_SUCCESS;
  });
}

CUresult cuMemFreeAsync(CUdeviceptr address, CUstream handle) {
  return entry("cuMemFreeAsync", [&](Driver &driver) {
    CUstream stream = driver.stream(handle);
    DeviceMemory &memory = driver.memory();
    if (stream->capture)
      fail(CUDA_ERROR_NOT_SUPPORTED, "allocations in graphs are not modelled");
    const DeviceMemory::Allocation *allocation = memory.find(address);
    if (!allocation || allocation->address != address)
      fail(CUDA_ERROR_INVALID_VALUE, Hex{address}, " is no allocation");
    driver.submit(stream, [&memory, address] {
      memory.free(address, DeviceMemory::Kind::Device);
    });
    driver.log.write("free", {{"address", address}});
    return CUDA_SUCCESS;
  });
}

CUresult cuMemHostAlloc(void **address, size_t bytes, unsigned) {
  return entry("cuMemHostAlloc", [&](Driver &driver) {
    checkPointer(address);
    DeviceMemory &memory = driver.memory();
    driver.unsafeDuringCapture("cuMemHostAlloc");
    if (bytes == 0)
      fail(CUDA_ERROR_INVALID_VALUE, "an allocation of 0 bytes");
    *address = memory.allocateHost(bytes);
    if (!*address)
      fail(CUDA_ERROR_OUT_OF_MEMORY, bytes, " bytes");
    return CUDA_SUCCESS;
  });
}

CUresult cuMemAllocHost_v2(void **address, size_t bytes) {
  return cuMemHostAlloc(address, bytes, 0);
}

CUresult cuMemFreeHost(void *address) {
  return entry("cuMemFreeHost", [&](Driver &driver) {
    DeviceMemory &memory = driver.memory();
    driver.unsafeDuringCapture("cuMemFreeHost");
    driver.synchroniseContext(driver.current());
    if (!memory.free(reinterpret_cast<uint64_t>(address),
                     DeviceMemory::Kind::Host))
      fail(CUDA_ERROR_INVALID_VALUE, "no pinned memory of the host");
    return CUDA_SUCCESS;
  });
}

CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *address, void *host,
                                      unsigned) {
  return entry("cuMemHostGetDevicePointer", [&](Driver &driver) {
    checkPointer(address);
    auto value = reinterpret_cast<uint64_t>(host);
    const DeviceMemory::Allocation *allocation = driver.memory().find(value);
    if (!allocation || allocation->kind != DeviceMemory::Kind::Host)
      fail(CUDA_ERROR_INVALID_VALUE, "no pinned memory of the host");
    *address = value;
    return CUDA_SUCCESS;
  });
}

CUresult cuMemGetInfo_v2(size_t *available, size_t *total) {
  return entry("cuMemGetInfo", [&](Driver &driver) {
    checkPointer(available);
    checkPointer(total);
    DeviceMemory &memory = driver.memory();
    *total = memory.capacity();
    *available = memory.capacity() - memory.used();
    return CUDA_SUCCESS;
  });
}

//===----------------------------------------------------------------------===//
// Copies
//===----------------------------------------------------------------------===//

namespace {

/// One side of a copy.
struct Side {
  uint64_t address;
  bool device; // as the call states, or by the address
  bool pinned;
};

Side sideOf(DeviceMemory &memory, uint64_t address) {
  const DeviceMemory::Allocation *allocation = memory.find(address);
  bool pinned = allocation && allocation->kind == DeviceMemory::Kind::Host;
  return {address, memory.owns(address), pinned};
}

/// Translates an address to host storage; faults if it is not allocated.
uint8_t *bytesOf(DeviceMemory &memory, const Side &side, size_t bytes) {
  if (!side.device)
    return reinterpret_cast<uint8_t *>(side.address);
  uint8_t *data = memory.translate(side.address, bytes);
  if (!data)
    fail(CUDA_ERROR_INVALID_VALUE, bytes, " bytes at ", Hex{side.address},
         " of the device: ", memory.describe(side.address));
  return data;
}

Action copyAction(DeviceMemory &memory, Side to, Side from, size_t bytes) {
  return [&memory, to, from, bytes] {
    std::memmove(bytesOf(memory, to, bytes), bytesOf(memory, from, bytes),
                 bytes);
    memory.noteCopy(to.address, from.address, bytes);
  };
}

/// A kind of memory is 'H' (host), 'D' (device) or '*' (by the address).
CUresult copy(const char *name, char toKind, uint64_t toAddress, char fromKind,
              uint64_t fromAddress, size_t bytes, bool async, CUstream handle) {
  return entry(name, [&](Driver &driver) {
    DeviceMemory &memory = driver.memory();
    CUcontext context = driver.current();
    Side to = sideOf(memory, toAddress), from = sideOf(memory, fromAddress);
    auto check = [&](const Side &side, char kind) {
      if (kind == 'D' && !side.device && !side.pinned)
        fail(CUDA_ERROR_INVALID_VALUE, Hex{side.address},
             " is not memory of the device");
      if (kind == 'H' && side.device)
        fail(CUDA_ERROR_INVALID_VALUE, Hex{side.address},
             " is memory of the device, not of the host");
      if (side.device)
        bytesOf(memory, side, bytes);
    };
    if (bytes == 0)
      return CUDA_SUCCESS;
    check(to, toKind);
    check(from, fromKind);
    driver.log.write("memcpy", {{"call", name},
                                {"to", toAddress},
                                {"from", fromAddress},
                                {"bytes", bytes},
                                {"async", async}});
    if (!async) {
      driver.unsafeDuringCapture(name);
      driver.synchroniseLegacy(context);
      copyAction(memory, to, from, bytes).run();
      return CUDA_SUCCESS;
    }
    CUstream stream = driver.stream(handle);
    bool captured = stream->capture != nullptr;
    bool pageable =
        (!from.device && !from.pinned) || (!to.device && !to.pinned);
    if (captured || !pageable || to.device) {
      if (!captured && !from.device && !from.pinned) {
        // Pageable memory is staged before the call returns.
        auto *data = reinterpret_cast<const uint8_t *>(fromAddress);
        auto staged =
            std::make_shared<std::vector<uint8_t>>(data, data + bytes);
        driver.submit(stream, [&memory, to, staged] {
          std::memcpy(bytesOf(memory, to, staged->size()), staged->data(),
                      staged->size());
          memory.noteWrite(to.address, staged->size());
        });
        return CUDA_SUCCESS;
      }
      driver.submit(stream, copyAction(memory, to, from, bytes));
      return CUDA_SUCCESS;
    }
    // A copy to pageable memory returns when it has completed.
    driver.submit(stream, copyAction(memory, to, from, bytes));
    driver.synchronise(stream, stream->enqueued());
    return CUDA_SUCCESS;
  });
}

uint64_t number(const void *pointer) {
  return reinterpret_cast<uint64_t>(pointer);
}

} // namespace

CUresult cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  return copy("cuMemcpy", '*', to, '*', from, bytes, false, nullptr);
}
CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes,
                       CUstream stream) {
  return copy("cuMemcpyAsync", '*', to, '*', from, bytes, true, stream);
}
CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes) {
  return copy("cuMemcpyHtoD", 'D', to, 'H', number(from), bytes, false,
              nullptr);
}
CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes) {
  return copy("cuMemcpyDtoH", 'H', number(to), 'D', from, bytes, false,
              nullptr);
}
CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  return copy("cuMemcpyDtoD", 'D', to, 'D', from, bytes, false, nullptr);
}
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes,
                              CUstream stream) {
  return copy("cuMemcpyHtoDAsync", 'D', to, 'H', number(from), bytes, true,
              stream);
}
CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes,
                              CUstream stream) {
  return copy("cuMemcpyDtoHAsync", 'H', number(to), 'D', from, bytes, true,
              stream);
}
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes,
                              CUstream stream) {
  return copy("cuMemcpyDtoDAsync", 'D', to, 'D', from, bytes, true, stream);
}

//===----------------------------------------------------------------------===//
// Memsets
//===----------------------------------------------------------------------===//

template <typename T>
static CUresult fillWith(const char *name, CUdeviceptr to, T value,
                         size_t count, bool async, CUstream handle) {
  return entry(name, [&](Driver &driver) {
    DeviceMemory &memory = driver.memory();
    if (!async)
      driver.unsafeDuringCapture(name);
    CUstream stream = driver.stream(handle);
    if (count == 0)
      return CUDA_SUCCESS;
    if (to % sizeof(T) != 0 || !memory.translate(to, count * sizeof(T)))
      fail(CUDA_ERROR_INVALID_VALUE, count * sizeof(T), " bytes at ", Hex{to},
           ": ", memory.describe(to));
    driver.log.write(
        "memset",
        {{"to", to}, {"bytes", count * sizeof(T)}, {"value", uint32_t(value)}});
    driver.submit(stream, [&memory, to, value, count] {
      uint8_t *data = memory.translate(to, count * sizeof(T));
      if (!data)
        fail(CUDA_ERROR_ILLEGAL_ADDRESS, "a memset of freed memory at ",
             Hex{to});
      for (size_t i = 0; i < count; ++i)
        std::memcpy(data + i * sizeof(T), &value, sizeof(T));
      memory.noteWrite(to, count * sizeof(T));
    });
    return CUDA_SUCCESS;
  });
}

CUresult cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t count) {
  return fillWith<uint8_t>("cuMemsetD8", to, value, count, false, nullptr);
}
CUresult cuMemsetD32_v2(CUdeviceptr to, unsigned value, size_t count) {
  return fillWith<uint32_t>("cuMemsetD32", to, value, count, false, nullptr);
}
CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count,
                         CUstream stream) {
  return fillWith<uint8_t>("cuMemsetD8Async", to, value, count, true, stream);
}
CUresult cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t count,
                          CUstream stream) {
  return fillWith<uint32_t>("cuMemsetD32Async", to, value, count, true, stream);
}

//===----------------------------------------------------------------------===//
// Pointers and tensor maps
//===----------------------------------------------------------------------===//

static CUresult pointerAttribute(Driver &driver, void *value,
                                 CUpointer_attribute attribute,
                                 CUdeviceptr address) {
  checkPointer(value);
  CUcontext context = driver.current();
  const DeviceMemory::Allocation *allocation = driver.memory().find(address);
  if (!allocation)
    return CUDA_ERROR_INVALID_VALUE;
  bool host = allocation->kind == DeviceMemory::Kind::Host;
  switch (attribute) {
  case CU_POINTER_ATTRIBUTE_CONTEXT:
    *static_cast<CUcontext *>(value) = context;
    return CUDA_SUCCESS;
  case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
    *static_cast<unsigned *>(value) =
        host ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
    return CUDA_SUCCESS;
  case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
    *static_cast<CUdeviceptr *>(value) = address;
    return CUDA_SUCCESS;
  case CU_POINTER_ATTRIBUTE_HOST_POINTER:
    if (!host)
      return CUDA_ERROR_INVALID_VALUE;
    *static_cast<CUdeviceptr *>(value) = address;
    return CUDA_SUCCESS;
  case CU_POINTER_ATTRIBUTE_BUFFER_ID:
    *static_cast<uint64_t *>(value) = allocation->id;
    return CUDA_SUCCESS;
  case CU_POINTER_ATTRIBUTE_IS_MANAGED:
    *static_cast<unsigned *>(value) = 0;
    return CUDA_SUCCESS;
  case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
    *static_cast<int *>(value) = context->device;
    return CUDA_SUCCESS;
  case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
    *static_cast<CUdeviceptr *>(value) = allocation->address;
    return CUDA_SUCCESS;
  case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
    *static_cast<size_t *>(value) = allocation->bytes;
    return CUDA_SUCCESS;
  case CU_POINTER_ATTRIBUTE_MAPPED:
    *static_cast<unsigned *>(value) = 1;
    return CUDA_SUCCESS;
  }
  return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuPointerGetAttribute(void *value, CUpointer_attribute attribute,
                               CUdeviceptr address) {
  return entry("cuPointerGetAttribute", [&](Driver &driver) {
    return pointerAttribute(driver, value, attribute, address);
  });
}

CUresult cuPointerGetAttributes(unsigned count, CUpointer_attribute *attributes,
                                void **values, CUdeviceptr address) {
  return entry("cuPointerGetAttributes", [&](Driver &driver) {
    checkPointer(attributes);
    checkPointer(values);
    // Unknown attributes are zero and no error.
    for (unsigned i = 0; i < count; ++i)
      if (pointerAttribute(driver, values[i], attributes[i], address) !=
          CUDA_SUCCESS) {
        bool wide = attributes[i] == CU_POINTER_ATTRIBUTE_CONTEXT ||
                    attributes[i] == CU_POINTER_ATTRIBUTE_DEVICE_POINTER ||
                    attributes[i] == CU_POINTER_ATTRIBUTE_HOST_POINTER ||
                    attributes[i] == CU_POINTER_ATTRIBUTE_BUFFER_ID ||
                    attributes[i] == CU_POINTER_ATTRIBUTE_RANGE_START_ADDR ||
                    attributes[i] == CU_POINTER_ATTRIBUTE_RANGE_SIZE;
        std::memset(values[i], 0, wide ? 8 : 4);
        if (attributes[i] == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL)
          *static_cast<int *>(values[i]) = -2;
      }
    return CUDA_SUCCESS;
  });
}

CUresult cuTensorMapEncodeTiled(
    CUtensorMap *map, CUtensorMapDataType type, uint32_t rank, void *address,
    const uint64_t *sizes, const uint64_t *strides, const uint32_t *box,
    const uint32_t *elementStrides, CUtensorMapInterleave interleave,
    CUtensorMapSwizzle swizzle, CUtensorMapL2promotion promotion,
    CUtensorMapFloatOOBfill fill) {
  return entry("cuTensorMapEncodeTiled", [&](Driver &driver) {
    checkPointer(map);
    checkPointer(sizes);
    checkPointer(box);
    checkPointer(elementStrides);
    driver.requireInitialised();
    if (driver.settings.major < 9)
      fail(CUDA_ERROR_NOT_SUPPORTED, "the device has no tensor maps");
    if (reinterpret_cast<uint64_t>(map) % 64 != 0)
      fail(CUDA_ERROR_INVALID_VALUE, "the map is not aligned to 64 bytes");
    if (rank > 1)
      checkPointer(strides);
    TensorMap encoded;
    std::string why;
    CUresult result = encodeTensorMap(
        encoded, type, rank, reinterpret_cast<uint64_t>(address), sizes,
        strides, box, elementStrides, interleave, swizzle, promotion, fill,
        why);
    if (result != CUDA_SUCCESS)
      fail(result, why);
    std::memset(map, 0, sizeof(*map));
    std::memcpy(map, &encoded, sizeof(encoded));
    return CUDA_SUCCESS;
  });
}
