//===- cuda_device.cpp - One NVIDIA GPU -----------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "cuda/device/cuda_device.h"
#include "artifact/signature.h"
#include "cpu/target.h"
#include "cuda/device/compatibility.h"
#include "cuda/program.h"
#include "cuda/report/report_kernel.h"

#include <new>

using namespace moe::rt;
using namespace moe::rt::cuda;

CUDADevice::CUDADevice() = default;

moe_rt_status_t CUDADevice::attribute(CUdevice_attribute attribute,
                                      int &out) const {
  return cuda.check(cuda.cuDeviceGetAttribute(&out, attribute, device),
                    "read attribute %d of the device",
                    static_cast<int>(attribute));
}

/// A pool of the context's own, which keeps what is freed for the calls to
/// come. The device's default pool, which others use, too, gives it back
/// whenever somebody waits for the device; it does where no other can be had.
void CUDADevice::createPool() {
  if (!pools || !cuda.cuMemPoolCreate)
    return;
  CUmemPoolProps properties = {};
  properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.locationType = CU_MEM_LOCATION_TYPE_DEVICE;
  properties.locationId = device;
  if (cuda.cuMemPoolCreate(&workspaces, &properties) != CUDA_SUCCESS) {
    workspaces = nullptr;
    return;
  }
  uint64_t threshold = UINT64_MAX;
  (void)cuda.cuMemPoolSetAttribute(
      workspaces, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &threshold);
}

moe_rt_status_t CUDADevice::initialise(int32_t ordinal) {
  MOE_RT_TRY(cuda.open());
  int count = 0;
  MOE_RT_TRY(cuda.check(cuda.cuDeviceGetCount(&count), "count the devices"));
  if (ordinal < 0 || ordinal >= count)
    return makeError(MOE_RT_FAILED_PRECONDITION,
                     "devices that the driver shows to this process: %d",
                     count);
  index = ordinal;
  MOE_RT_TRY(cuda.check(cuda.cuDeviceGet(&device, ordinal), "find the device"));
  MOE_RT_TRY(cuda.check(cuda.cuDeviceGetName(title, sizeof(title), device),
                        "read the device's name"));
  MOE_RT_TRY(
      attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, compute.major));
  MOE_RT_TRY(
      attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, compute.minor));
  MOE_RT_TRY(attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, processors));
  MOE_RT_TRY(attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
                       sharedMemory));
  MOE_RT_TRY(attribute(CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED, pools));
  MOE_RT_TRY(cuda.check(cuda.cuDevicePrimaryCtxRetain(&primary, device),
                        "retain the device's primary context"));
  ContextScope scope(*this);
  MOE_RT_TRY(scope.check());
  MOE_RT_TRY(cuda.check(cuda.cuStreamCreate(&probe, CU_STREAM_NON_BLOCKING),
                        "create a stream"));
  createPool();
  return nullptr;
}

moe_rt_status_t CUDADevice::open(int32_t ordinal,
                                 std::unique_ptr<CUDADevice> &out) {
  std::unique_ptr<CUDADevice> device(new (std::nothrow) CUDADevice());
  if (!device)
    return makeError(MOE_RT_RESOURCE_EXHAUSTED, "cannot allocate the device");
  if (moe_rt_status_t status = device->initialise(ordinal)) {
    moe_rt_code_t code = moe_rt_status_code(status);
    if (code != MOE_RT_RESOURCE_EXHAUSTED)
      code = MOE_RT_FAILED_PRECONDITION;
    std::string prefix = "cannot use CUDA device " + std::to_string(ordinal);
    return wrapError(code, prefix.c_str(), status);
  }
  out = std::move(device);
  return nullptr;
}

moe_rt_status_t moe::rt::cuda::openCUDA(const moe_rt_context_options_t &options,
                                        std::unique_ptr<Device> &out) {
  std::unique_ptr<CUDADevice> device;
  MOE_RT_TRY(CUDADevice::open(options.device.device_id, device));
  out = std::move(device);
  return nullptr;
}

static std::string describe(DLDevice place) {
  if (place.device_type == kDLCPU)
    return "the CPU";
  if (place.device_type == kDLCUDA)
    return "CUDA device " + std::to_string(place.device_id);
  return "device type " + std::to_string(place.device_type);
}

moe_rt_status_t CUDADevice::checkPlace(const Argument &argument,
                                       DLDevice place) const {
  if (place.device_type == kDLCUDA && place.device_id == index)
    return nullptr;
  return makeError(MOE_RT_INVALID_ARGUMENT, "%s '%s' is on %s, expected %s",
                   argument.roleName(), argument.name.c_str(),
                   describe(place).c_str(), describe({kDLCUDA, index}).c_str());
}

moe_rt_status_t CUDADevice::checkVariant(const Variant &variant) const {
  if (!variant.device)
    return makeError(MOE_RT_FAILED_PRECONDITION,
                     "is for the CPU, this context is for an NVIDIA GPU (%s)",
                     name());
  // Of the code that starts the kernels.
  MOE_RT_TRY(checkTriple(variant.triple));
  MOE_RT_TRY(checkFeatures(variant.features));
  return checkDevice(*variant.device, *this);
}

/// The driver reads the images when the first layer is created.
moe_rt_status_t CUDADevice::load(const Variant &variant,
                                 std::unique_ptr<Program> &out) {
  out.reset(new (std::nothrow) CUDAProgram(*this, *variant.device));
  if (!out)
    return makeError(MOE_RT_RESOURCE_EXHAUSTED, "cannot allocate the program");
  return nullptr;
}

CUDADevice::~CUDADevice() {
  if (!primary)
    return;
  {
    ContextScope scope(*this);
    reporter.reset();
    if (workspaces)
      (void)cuda.cuMemPoolDestroy(workspaces);
    if (probe)
      (void)cuda.cuStreamDestroy(probe);
  }
  (void)cuda.cuDevicePrimaryCtxRelease(device);
}

moe_rt_status_t CUDADevice::reportKernel(const ReportKernel *&out) {
  std::lock_guard<std::mutex> lock(mutex);
  if (!reporter) {
    std::unique_ptr<ReportKernel> loaded(new (std::nothrow)
                                             ReportKernel(*this));
    if (!loaded)
      return makeError(MOE_RT_RESOURCE_EXHAUSTED,
                       "cannot allocate the kernel of the statistics");
    MOE_RT_TRY(loaded->load());
    reporter = std::move(loaded);
  }
  out = reporter.get();
  return nullptr;
}

void CUDADevice::trim() {
  if (!workspaces)
    return;
  ContextScope scope(*this);
  (void)cuda.cuMemPoolTrimTo(workspaces, 0);
}

moe_rt_status_t CUDADevice::waitForAll(const char *what) const {
  // Tells of a capture of a blocking stream without ending it.
  CUstreamCaptureStatus status;
  CUresult result = cuda.cuStreamIsCapturing(nullptr, &status);
  if (result == CUDA_SUCCESS)
    result = cuda.cuCtxSynchronize();
  switch (result) {
  case CUDA_ERROR_STREAM_CAPTURE_IMPLICIT:
  case CUDA_ERROR_STREAM_CAPTURE_INVALIDATED:
  case CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED:
    return makeError(MOE_RT_FAILED_PRECONDITION,
                     "%s while a stream of the device is captured", what);
  default:
    return cuda.check(result, "wait for the device");
  }
}

moe_rt_status_t CUDADevice::checkHealth() const {
  ContextScope scope(*this);
  MOE_RT_TRY(scope.check());
  // A query would end a capture of another stream but for this mode.
  CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
  MOE_RT_TRY(cuda.check(cuda.cuThreadExchangeStreamCaptureMode(&mode),
                        "look at the device"));
  CUresult result = cuda.cuStreamQuery(probe);
  (void)cuda.cuThreadExchangeStreamCaptureMode(&mode);
  if (result == CUDA_ERROR_NOT_READY)
    return nullptr;
  return cuda.check(result, "use the device any more");
}
