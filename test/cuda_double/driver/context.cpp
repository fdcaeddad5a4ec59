//===- context.cpp - Initialisation, devices and contexts -----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "driver.h"

#include <algorithm>
#include <cstring>

using namespace moe::gpu;

Driver &moe::gpu::driver() {
  static Driver instance;
  return instance;
}

std::recursive_mutex &moe::gpu::driverLock() {
  static std::recursive_mutex lock;
  return lock;
}

std::vector<CUcontext> &moe::gpu::contextStack() {
  static thread_local std::vector<CUcontext> stack;
  return stack;
}

//===----------------------------------------------------------------------===//
// State
//===----------------------------------------------------------------------===//

void Driver::initialise() {
  if (initialised)
    return;
  settings = Settings::fromEnvironment();
  if (settings.devices < 1)
    fail(CUDA_ERROR_NO_DEVICE, "MOE_CUDA_DOUBLE_DEVICES is 0");
  log.open(settings.log);
  for (int i = 0; i < settings.devices; ++i) {
    memories.push_back(std::make_unique<DeviceMemory>(settings.memory));
    primary.push_back(nullptr);
  }
  initialised = true;
}

template <typename Handle> static void deleteAll(std::set<Handle> &handles) {
  for (Handle handle : handles)
    delete handle;
  handles.clear();
}

void Driver::clear() {
  deleteAll(modules);
  functions.clear();
  deleteAll(streams);
  deleteAll(events);
  deleteAll(graphs);
  deleteAll(executables);
  deleteAll(contexts);
  memories.clear();
  primary.clear();
  log.close();
  message.clear();
  launches = instructions = 0;
  initialised = false;
}

void Driver::checkDevice(CUdevice device) const {
  requireInitialised();
  if (device < 0 || device >= settings.devices)
    fail(CUDA_ERROR_INVALID_DEVICE, "there is no device ", device);
}

CUcontext Driver::createContext(CUdevice device, bool isPrimary) {
  auto *context = new CUctx_st();
  context->device = device;
  context->primary = isPrimary;
  context->legacy = createStream(context, true);
  context->perThread = createStream(context, true);
  contexts.insert(context);
  return context;
}

void Driver::destroyContext(CUcontext context) {
  if (context->error == CUDA_SUCCESS)
    try {
      synchroniseContext(context);
    } catch (const Fault &) {
      // The context owns it.
    }
  auto removeFrom = [&](auto &handles) {
    for (auto it = handles.begin(); it != handles.end();)
      if ((*it)->context == context) {
        delete *it;
        it = handles.erase(it);
      } else {
        ++it;
      }
  };
  for (CUmodule module : modules)
    if (module->context == context)
      for (auto &[name, function] : module->functions)
        functions.erase(function.get());
  removeFrom(modules);
  removeFrom(streams);
  removeFrom(events);
  removeFrom(graphs);
  removeFrom(executables);
  contexts.erase(context);
  delete context;
}

CUcontext Driver::current() {
  requireInitialised();
  std::vector<CUcontext> &stack = contextStack();
  if (stack.empty() || !stack.back())
    fail(CUDA_ERROR_INVALID_CONTEXT, "no context is current");
  CUcontext context = stack.back();
  if (contexts.count(context) == 0)
    fail(CUDA_ERROR_CONTEXT_IS_DESTROYED, "the context was destroyed");
  if (context->error != CUDA_SUCCESS)
    fail(context->error, "the context is dead: ", message);
  return context;
}

void moe_cuda_double_reset(void) {
  std::lock_guard<std::recursive_mutex> guard(driverLock());
  driver().clear();
  contextStack().clear();
}

const char *moe_cuda_double_message(void) {
  std::lock_guard<std::recursive_mutex> guard(driverLock());
  static thread_local std::string copy;
  copy = driver().message;
  return copy.c_str();
}

uint64_t moe_cuda_double_instructions(void) {
  std::lock_guard<std::recursive_mutex> guard(driverLock());
  return driver().instructions;
}

/// Whether launches from now on are checked for races; for tests of input that
/// has several blocks write the same, which is wrong but must not do harm.
extern "C" MOE_CUDA_API void moe_cuda_double_detect_races(int on) {
  std::lock_guard<std::recursive_mutex> guard(driverLock());
  driver().settings.allowRaces = !on;
}

//===----------------------------------------------------------------------===//
// Initialisation
//===----------------------------------------------------------------------===//

CUresult cuInit(unsigned flags) {
  return entry("cuInit", [&](Driver &driver) {
    if (flags != 0)
      fail(CUDA_ERROR_INVALID_VALUE, "flags must be 0");
    driver.initialise();
    return CUDA_SUCCESS;
  });
}

CUresult cuDriverGetVersion(int *version) {
  return entry("cuDriverGetVersion", [&](Driver &) {
    checkPointer(version);
    // May be called before cuInit.
    *version = Settings::fromEnvironment().driver;
    return CUDA_SUCCESS;
  });
}

static const struct {
  CUresult code;
  const char *name, *words;
} errors[] = {
#define ERROR(name, words) {name, #name, words}
    ERROR(CUDA_SUCCESS, "no error"),
    ERROR(CUDA_ERROR_INVALID_VALUE, "invalid argument"),
    ERROR(CUDA_ERROR_OUT_OF_MEMORY, "out of memory"),
    ERROR(CUDA_ERROR_NOT_INITIALIZED, "initialization error"),
    ERROR(CUDA_ERROR_NO_DEVICE, "no CUDA-capable device is detected"),
    ERROR(CUDA_ERROR_INVALID_DEVICE, "invalid device ordinal"),
    ERROR(CUDA_ERROR_INVALID_IMAGE, "device kernel image is invalid"),
    ERROR(CUDA_ERROR_INVALID_CONTEXT, "invalid device context"),
    ERROR(CUDA_ERROR_NO_BINARY_FOR_GPU,
          "no kernel image is available for execution on the device"),
    ERROR(CUDA_ERROR_INVALID_PTX, "a PTX JIT compilation failed"),
    ERROR(CUDA_ERROR_UNSUPPORTED_PTX_VERSION,
          "the provided PTX was compiled with an unsupported toolchain."),
    ERROR(CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND,
          "shared object symbol not found"),
    ERROR(CUDA_ERROR_INVALID_HANDLE, "invalid resource handle"),
    ERROR(CUDA_ERROR_ILLEGAL_STATE,
          "the operation cannot be performed in the present state"),
    ERROR(CUDA_ERROR_NOT_FOUND, "named symbol not found"),
    ERROR(CUDA_ERROR_NOT_READY, "device not ready"),
    ERROR(CUDA_ERROR_ILLEGAL_ADDRESS,
          "an illegal memory access was encountered"),
    ERROR(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES,
          "too many resources requested for launch"),
    ERROR(CUDA_ERROR_LAUNCH_TIMEOUT, "the launch timed out and was terminated"),
    ERROR(CUDA_ERROR_CONTEXT_IS_DESTROYED, "context is destroyed"),
    ERROR(CUDA_ERROR_ASSERT, "device-side assert triggered"),
    ERROR(CUDA_ERROR_ILLEGAL_INSTRUCTION,
          "an illegal instruction was encountered"),
    ERROR(CUDA_ERROR_MISALIGNED_ADDRESS, "misaligned address"),
    ERROR(CUDA_ERROR_INVALID_ADDRESS_SPACE,
          "operation not supported on global/shared address space"),
    ERROR(CUDA_ERROR_LAUNCH_FAILED, "unspecified launch failure"),
    ERROR(CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE,
          "too many blocks in cooperative launch"),
    ERROR(CUDA_ERROR_NOT_SUPPORTED, "operation not supported"),
    ERROR(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
          "operation not permitted when stream is capturing"),
    ERROR(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED,
          "operation failed due to a previous error during capture"),
    ERROR(CUDA_ERROR_STREAM_CAPTURE_MERGE,
          "operation would result in a merge of separate capture sequences"),
    ERROR(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED,
          "capture was not ended in the same stream as it began"),
    ERROR(CUDA_ERROR_STREAM_CAPTURE_UNJOINED,
          "capturing stream has unjoined work"),
    ERROR(CUDA_ERROR_STREAM_CAPTURE_ISOLATION,
          "dependency created on uncaptured work in another stream"),
    ERROR(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT,
          "operation would make the legacy stream depend on a capturing "
          "blocking stream"),
    ERROR(CUDA_ERROR_CAPTURED_EVENT,
          "operation not permitted on an event last recorded in a capturing "
          "stream"),
    ERROR(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD,
          "attempt to terminate a thread-local capture sequence from another "
          "thread"),
    ERROR(CUDA_ERROR_INVALID_CLUSTER_SIZE, "cluster misconfiguration"),
    ERROR(CUDA_ERROR_UNKNOWN, "unknown error"),
#undef ERROR
};

CUresult cuGetErrorName(CUresult error, const char **result) {
  for (const auto &entry : errors)
    if (entry.code == error) {
      *result = entry.name;
      return CUDA_SUCCESS;
    }
  *result = nullptr;
  return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGetErrorString(CUresult error, const char **result) {
  for (const auto &entry : errors)
    if (entry.code == error) {
      *result = entry.words;
      return CUDA_SUCCESS;
    }
  *result = nullptr;
  return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGetProcAddress_v2(const char *symbol, void **function, int version,
                             uint64_t, CUdriverProcAddressQueryResult *status) {
  static const struct {
    std::string_view name;
    void *address;
  } table[] = {
#define ENTRY(name, parameters) {#name, reinterpret_cast<void *>(&name)},
      MOE_CUDA_FUNCTIONS(ENTRY)
#undef ENTRY
  };
  return entry("cuGetProcAddress", [&](Driver &) {
    checkPointer(symbol);
    checkPointer(function);
    *function = nullptr;
    // Prefer the newest version of the symbol.
    for (std::string name : {std::string(symbol) + "_v2", std::string(symbol)})
      for (const auto &candidate : table)
        if (candidate.name == name && !*function)
          *function = candidate.address;
    bool old = version > Settings::fromEnvironment().driver;
    if (old)
      *function = nullptr;
    if (status)
      *status = *function ? CU_GET_PROC_ADDRESS_SUCCESS
                : old     ? CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT
                          : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return *function || status ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
  });
}

//===----------------------------------------------------------------------===//
// Devices
//===----------------------------------------------------------------------===//

CUresult cuDeviceGetCount(int *count) {
  return entry("cuDeviceGetCount", [&](Driver &driver) {
    checkPointer(count);
    driver.requireInitialised();
    *count = driver.settings.devices;
    return CUDA_SUCCESS;
  });
}

CUresult cuDeviceGet(CUdevice *device, int ordinal) {
  return entry("cuDeviceGet", [&](Driver &driver) {
    checkPointer(device);
    driver.checkDevice(ordinal);
    *device = ordinal;
    return CUDA_SUCCESS;
  });
}

CUresult cuDeviceGetName(char *name, int length, CUdevice device) {
  return entry("cuDeviceGetName", [&](Driver &driver) {
    checkPointer(name);
    driver.checkDevice(device);
    std::snprintf(name, static_cast<size_t>(std::max(length, 0)),
                  "CUDA double sm_%d", driver.settings.arch());
    return CUDA_SUCCESS;
  });
}

CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice device) {
  return entry("cuDeviceGetUuid", [&](Driver &driver) {
    checkPointer(uuid);
    driver.checkDevice(device);
    std::memcpy(uuid->bytes, "moe cuda double", 16);
    uuid->bytes[15] = static_cast<char>(device);
    return CUDA_SUCCESS;
  });
}

CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device) {
  return cuDeviceGetUuid(uuid, device);
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
  return entry("cuDeviceTotalMem", [&](Driver &driver) {
    checkPointer(bytes);
    driver.checkDevice(device);
    *bytes = driver.settings.memory;
    return CUDA_SUCCESS;
  });
}

static int attributeOf(const Settings &settings, CUdevice_attribute attribute) {
  bool hopper = settings.major >= 9;
  switch (attribute) {
  case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
  case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X:
  case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y:
    return 1024;
  case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z:
    return 64;
  case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X:
    return 0x7FFFFFFF;
  case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y:
  case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z:
    return 65535;
  case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK:
    return static_cast<int>(settings.sharedPerBlock());
  case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN:
    return static_cast<int>(settings.sharedOptIn());
  case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR:
    return static_cast<int>(settings.sharedPerMultiprocessor());
  case CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK:
    return static_cast<int>(settings.sharedReserved());
  case CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY:
    return 65536;
  case CU_DEVICE_ATTRIBUTE_WARP_SIZE:
    return 32;
  case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK:
  case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR:
    return 65536;
  case CU_DEVICE_ATTRIBUTE_CLOCK_RATE:
    return 1755000;
  case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE:
    return 2619000;
  case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH:
    return 5120;
  case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE:
    return (hopper ? 50 : 40) << 20;
  case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
    return settings.multiprocessors;
  case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR:
    return settings.threadsPerMultiprocessor();
  case CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR:
    return settings.blocksPerMultiprocessor();
  case CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT:
    return 3;
  case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
    return settings.major;
  case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
    return settings.minor;
  case CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY:
  case CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS:
  case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING:
  case CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED:
  case CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH:
  case CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED:
    return 1;
  case CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH:
  case CU_DEVICE_ATTRIBUTE_TENSOR_MAP_ACCESS_SUPPORTED:
    return hopper;
  default:
    return 0;
  }
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute,
                              CUdevice device) {
  return entry("cuDeviceGetAttribute", [&](Driver &driver) {
    checkPointer(value);
    driver.checkDevice(device);
    if (attribute < 1 || attribute > 200)
      fail(CUDA_ERROR_INVALID_VALUE, "unknown attribute ", int(attribute));
    *value = attributeOf(driver.settings, attribute);
    return CUDA_SUCCESS;
  });
}

//===----------------------------------------------------------------------===//
// Contexts
//===----------------------------------------------------------------------===//

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
  return entry("cuDevicePrimaryCtxRetain", [&](Driver &driver) {
    checkPointer(context);
    driver.checkDevice(device);
    CUcontext &primary = driver.primary[device];
    if (!primary)
      primary = driver.createContext(device, true);
    ++primary->retained;
    *context = primary;
    return CUDA_SUCCESS;
  });
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
  return entry("cuDevicePrimaryCtxRelease", [&](Driver &driver) {
    driver.checkDevice(device);
    CUcontext &primary = driver.primary[device];
    if (!primary)
      fail(CUDA_ERROR_INVALID_CONTEXT, "the primary context is not retained");
    if (--primary->retained == 0) {
      driver.destroyContext(primary);
      primary = nullptr;
    }
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxCreate_v2(CUcontext *context, unsigned, CUdevice device) {
  return entry("cuCtxCreate", [&](Driver &driver) {
    checkPointer(context);
    driver.checkDevice(device);
    *context = driver.createContext(device, false);
    contextStack().push_back(*context);
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxDestroy_v2(CUcontext context) {
  return entry("cuCtxDestroy", [&](Driver &driver) {
    driver.requireInitialised();
    if (driver.contexts.count(context) == 0 || context->primary)
      fail(CUDA_ERROR_INVALID_CONTEXT, "not a context to destroy");
    driver.destroyContext(context);
    std::vector<CUcontext> &stack = contextStack();
    if (!stack.empty() && stack.back() == context)
      stack.pop_back();
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxPushCurrent_v2(CUcontext context) {
  return entry("cuCtxPushCurrent", [&](Driver &driver) {
    driver.requireInitialised();
    if (driver.contexts.count(context) == 0)
      fail(CUDA_ERROR_INVALID_CONTEXT, "not a context");
    contextStack().push_back(context);
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxPopCurrent_v2(CUcontext *context) {
  return entry("cuCtxPopCurrent", [&](Driver &driver) {
    driver.requireInitialised();
    std::vector<CUcontext> &stack = contextStack();
    if (stack.empty())
      fail(CUDA_ERROR_INVALID_CONTEXT, "no context is current");
    if (context)
      *context = stack.back();
    stack.pop_back();
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxSetCurrent(CUcontext context) {
  return entry("cuCtxSetCurrent", [&](Driver &driver) {
    driver.requireInitialised();
    if (context && driver.contexts.count(context) == 0)
      fail(CUDA_ERROR_INVALID_CONTEXT, "not a context");
    std::vector<CUcontext> &stack = contextStack();
    if (!stack.empty())
      stack.pop_back();
    if (context)
      stack.push_back(context);
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxGetCurrent(CUcontext *context) {
  return entry("cuCtxGetCurrent", [&](Driver &driver) {
    checkPointer(context);
    driver.requireInitialised();
    std::vector<CUcontext> &stack = contextStack();
    *context = stack.empty() ? nullptr : stack.back();
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxGetDevice(CUdevice *device) {
  return entry("cuCtxGetDevice", [&](Driver &driver) {
    checkPointer(device);
    *device = driver.current()->device;
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxSynchronize() {
  return entry("cuCtxSynchronize", [&](Driver &driver) {
    CUcontext context = driver.current();
    driver.unsafeDuringCapture("cuCtxSynchronize");
    driver.log.write("synchronise", {{"what", "context"}});
    driver.synchroniseContext(context);
    return CUDA_SUCCESS;
  });
}
