//===- module.cpp - Modules, functions and launches -----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "driver.h"

#include <algorithm>
#include <cstring>

using namespace moe::gpu;

//===----------------------------------------------------------------------===//
// Modules
//===----------------------------------------------------------------------===//

namespace {

/// The log buffers of the JIT compiler.
struct JitLogs {
  char *error = nullptr, *info = nullptr;
  size_t errorBytes = 0, infoBytes = 0;
  void **errorFilled = nullptr, **infoFilled = nullptr;

  JitLogs(unsigned count, const CUjit_option *options, void **values) {
    for (unsigned i = 0; i < count; ++i)
      switch (options[i]) {
      case CU_JIT_ERROR_LOG_BUFFER:
        error = static_cast<char *>(values[i]);
        break;
      case CU_JIT_INFO_LOG_BUFFER:
        info = static_cast<char *>(values[i]);
        break;
      case CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES:
        errorBytes = reinterpret_cast<uintptr_t>(values[i]) & 0xFFFFFFFF;
        errorFilled = &values[i];
        break;
      case CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES:
        infoBytes = reinterpret_cast<uintptr_t>(values[i]) & 0xFFFFFFFF;
        infoFilled = &values[i];
        break;
      default:
        if (options[i] < 0 || options[i] >= CU_JIT_NUM_OPTIONS)
          fail(CUDA_ERROR_INVALID_VALUE, "unknown option ", int(options[i]));
      }
  }

  static void fill(char *buffer, size_t bytes, void **filled,
                   const std::string &words) {
    size_t count = 0;
    if (buffer && bytes != 0) {
      count = std::min(words.size(), bytes - 1);
      std::memcpy(buffer, words.data(), count);
      buffer[count] = '\0';
    }
    if (filled)
      *filled = reinterpret_cast<void *>(static_cast<uintptr_t>(count));
  }
  void report(const std::string &errors, const std::string &information) {
    fill(error, errorBytes, errorFilled, errors);
    fill(info, infoBytes, infoFilled, information);
  }
};

/// The newest PTX version that a driver supports, as major * 10 + minor. Each
/// CUDA minor version adds one PTX minor version.
int newestPtx(int driver) {
  int major = driver / 1000, minor = driver % 1000 / 10;
  return major >= 13 ? 90 + minor : major == 12 ? 80 + minor : 70 + minor;
}

void checkTarget(const Settings &settings, const syntax::Module &syntax) {
  int version = syntax.versionMajor * 10 + syntax.versionMinor;
  if (version > newestPtx(settings.driver))
    fail(CUDA_ERROR_UNSUPPORTED_PTX_VERSION,
         "ptxas fatal: Unsupported .version ", syntax.versionMajor, ".",
         syntax.versionMinor);
  int arch = 0;
  char suffix = '\0';
  std::sscanf(syntax.target.c_str(), "sm_%d%c", &arch, &suffix);
  bool fits = arch <= settings.arch();
  if (suffix == 'a')
    fits = arch == settings.arch();
  else if (suffix == 'f')
    fits = fits && arch / 10 == settings.major;
  if (!fits)
    fail(CUDA_ERROR_INVALID_PTX,
         "ptxas fatal: SM version specified by "
         ".target ",
         syntax.target, " does not fit the device, sm_", settings.arch());
}

/// Allocates the variables of a module in the memory of its device.
class ModuleAllocator final : public GlobalAllocator {
public:
  ModuleAllocator(DeviceMemory &memory, std::vector<uint64_t> &addresses)
      : memory(memory), addresses(addresses) {}
  uint64_t allocate(uint64_t bytes, uint64_t align) override {
    addresses.push_back(memory.allocate(bytes, align));
    return addresses.back();
  }
  void write(uint64_t address, const void *bytes, uint64_t count) override {
    memory.write(address, bytes, count);
  }

private:
  DeviceMemory &memory;
  std::vector<uint64_t> &addresses;
};

void refuseBinary(const void *image) {
  uint32_t magic;
  std::memcpy(&magic, image, 4);
  if (magic == 0x464C457F || magic == 0xBA55ED50)
    fail(CUDA_ERROR_NO_BINARY_FOR_GPU,
         "a binary for a GPU; the double executes PTX");
}

void loadModule(Driver &driver, CUmod_st &result, const void *image) {
  refuseBinary(image);
  const char *source = static_cast<const char *>(image);
  if (!std::strstr(source, ".version"))
    fail(CUDA_ERROR_INVALID_IMAGE, "neither PTX nor a binary");
  std::unique_ptr<syntax::Module> syntax = parsePtx(source);
  checkTarget(driver.settings, *syntax);
  ModuleAllocator allocator(driver.memory(), result.memory);
  result.module = decodeModule(std::move(syntax), allocator);
  for (auto &[name, function] : result.module->functions) {
    if (!function->entry)
      continue;
    auto handle = std::make_unique<CUfunc_st>();
    handle->module = &result;
    handle->function = function.get();
    handle->layout = result.module->layout(*function);
    uint32_t limit = driver.settings.sharedPerBlock();
    if (handle->layout.staticBytes > limit)
      fail(CUDA_ERROR_INVALID_PTX, "ptxas error: Entry function '", name,
           "' uses too much shared data (", handle->layout.staticBytes,
           " bytes, ", limit, " max)");
    handle->maxDynamicShared =
        static_cast<int>(limit - handle->layout.staticBytes);
    result.functions[name] = std::move(handle);
  }
}

} // namespace

CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned count,
                            CUjit_option *options, void **values) {
  return entry("cuModuleLoadDataEx", [&](Driver &driver) {
    checkPointer(module);
    checkPointer(image);
    CUcontext context = driver.current();
    driver.unsafeDuringCapture("cuModuleLoadData");
    JitLogs logs(count, options, values);
    auto result = std::make_unique<CUmod_st>();
    result->context = context;
    try {
      loadModule(driver, *result, image);
    } catch (const Fault &fault) {
      logs.report(fault.message, "");
      for (uint64_t address : result->memory)
        driver.memory().free(address, DeviceMemory::Kind::Module);
      throw;
    }
    logs.report("",
                text("info: ", result->functions.size(),
                     " entry functions for ", result->module->syntax->target));
    for (auto &[name, function] : result->functions)
      driver.functions.insert(function.get());
    driver.log.write("module_load", {{"target", result->module->syntax->target},
                                     {"entries", result->functions.size()}});
    *module = result.get();
    driver.modules.insert(result.release());
    return CUDA_SUCCESS;
  });
}

CUresult cuModuleLoadData(CUmodule *module, const void *image) {
  return cuModuleLoadDataEx(module, image, 0, nullptr, nullptr);
}

CUresult cuModuleUnload(CUmodule module) {
  return entry("cuModuleUnload", [&](Driver &driver) {
    CUcontext context = driver.current();
    checkHandle(driver.modules, module, "module");
    driver.unsafeDuringCapture("cuModuleUnload");
    driver.synchroniseContext(context);
    for (auto &[name, function] : module->functions)
      driver.functions.erase(function.get());
    for (uint64_t address : module->memory)
      driver.memory().free(address, DeviceMemory::Kind::Module);
    driver.modules.erase(module);
    delete module;
    return CUDA_SUCCESS;
  });
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module,
                             const char *name) {
  return entry("cuModuleGetFunction", [&](Driver &driver) {
    checkPointer(function);
    checkPointer(name);
    driver.current();
    checkHandle(driver.modules, module, "module");
    auto found = module->functions.find(name);
    if (found == module->functions.end())
      fail(CUDA_ERROR_NOT_FOUND, "no kernel is called '", name, "'");
    *function = found->second.get();
    return CUDA_SUCCESS;
  });
}

CUresult cuModuleGetGlobal_v2(CUdeviceptr *address, size_t *bytes,
                              CUmodule module, const char *name) {
  return entry("cuModuleGetGlobal", [&](Driver &driver) {
    checkPointer(name);
    driver.current();
    checkHandle(driver.modules, module, "module");
    auto found = module->module->globals.find(name);
    if (found == module->module->globals.end())
      fail(CUDA_ERROR_NOT_FOUND, "no variable is called '", name, "'");
    if (address)
      *address = found->second.address;
    if (bytes)
      *bytes = found->second.size;
    return CUDA_SUCCESS;
  });
}

//===----------------------------------------------------------------------===//
// Functions
//===----------------------------------------------------------------------===//

static uint32_t product(const uint32_t (&extents)[3]) {
  return extents[0] * extents[1] * extents[2];
}

/// The maximum threads of a block for which the kernel was compiled.
static uint32_t maxThreads(const CUfunc_st &function) {
  const syntax::Function &source = *function.function->source;
  if (source.requiredThreads[0])
    return product(source.requiredThreads);
  return source.maxThreads[0] ? product(source.maxThreads) : 1024;
}

static uint32_t registersOf(const CUfunc_st &function) {
  const syntax::Function &source = *function.function->source;
  if (source.maxRegisters)
    return source.maxRegisters;
  uint32_t threads = maxThreads(function) * std::max(1u, source.minBlocks);
  return std::min(255u, 65536 / threads / 8 * 8);
}

CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute,
                            int value) {
  return entry("cuFuncSetAttribute", [&](Driver &driver) {
    driver.current();
    checkHandle(driver.functions, function, "function");
    switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
      if (value < 0 || uint64_t(value) + function->layout.staticBytes >
                           driver.settings.sharedOptIn())
        fail(CUDA_ERROR_INVALID_VALUE, value, " bytes of dynamic and ",
             function->layout.staticBytes,
             " of static shared memory are more than ",
             driver.settings.sharedOptIn());
      function->maxDynamicShared = value;
      return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
      return value >= -1 && value <= 100 ? CUDA_SUCCESS
                                         : CUDA_ERROR_INVALID_VALUE;
    case CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED:
      function->nonPortableCluster = value != 0;
      return CUDA_SUCCESS;
    default:
      fail(CUDA_ERROR_INVALID_VALUE, "attribute ", int(attribute),
           " cannot be set");
    }
  });
}

CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute,
                            CUfunction function) {
  return entry("cuFuncGetAttribute", [&](Driver &driver) {
    checkPointer(value);
    driver.current();
    checkHandle(driver.functions, function, "function");
    const Module &module = *function->module->module;
    const syntax::Function &source = *function->function->source;
    switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
      *value = static_cast<int>(maxThreads(*function));
      break;
    case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES:
      *value = static_cast<int>(function->layout.staticBytes);
      break;
    case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES:
      *value = static_cast<int>(function->function->localBytes);
      break;
    case CU_FUNC_ATTRIBUTE_NUM_REGS:
      *value = static_cast<int>(registersOf(*function));
      break;
    case CU_FUNC_ATTRIBUTE_PTX_VERSION:
      *value = module.arch;
      break;
    case CU_FUNC_ATTRIBUTE_BINARY_VERSION:
      *value = driver.settings.arch();
      break;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
      *value = function->maxDynamicShared;
      break;
    case CU_FUNC_ATTRIBUTE_CLUSTER_SIZE_MUST_BE_SET:
      *value = source.explicitCluster && source.clusterSize[0] == 0;
      break;
    case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH:
    case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_HEIGHT:
    case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_DEPTH:
      *value = static_cast<int>(
          source.clusterSize[attribute -
                             CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH]);
      break;
    case CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED:
      *value = function->nonPortableCluster;
      break;
    default:
      *value = 0;
    }
    return CUDA_SUCCESS;
  });
}

static int blocksPerMultiprocessor(const Settings &settings,
                                   const CUfunc_st &function, uint32_t threads,
                                   size_t sharedBytes) {
  uint32_t warps = (threads + 31) / 32;
  uint32_t byThreads =
      static_cast<uint32_t>(settings.threadsPerMultiprocessor()) / (warps * 32);
  uint64_t shared =
      function.layout.staticBytes + sharedBytes + settings.sharedReserved();
  uint64_t byShared = settings.sharedPerMultiprocessor() / shared;
  uint32_t byRegisters = 65536 / (registersOf(function) * warps * 32);
  uint64_t blocks = std::min<uint64_t>(
      static_cast<uint64_t>(settings.blocksPerMultiprocessor()), byThreads);
  return static_cast<int>(
      std::min<uint64_t>(blocks, std::min<uint64_t>(byShared, byRegisters)));
}

CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks,
                                                     CUfunction function,
                                                     int blockSize,
                                                     size_t sharedBytes) {
  return entry(
      "cuOccupancyMaxActiveBlocksPerMultiprocessor", [&](Driver &driver) {
        checkPointer(blocks);
        driver.current();
        checkHandle(driver.functions, function, "function");
        if (blockSize < 1 || blockSize > 1024)
          fail(CUDA_ERROR_INVALID_VALUE, "a block of ", blockSize, " threads");
        *blocks = blocksPerMultiprocessor(driver.settings, *function,
                                          static_cast<uint32_t>(blockSize),
                                          sharedBytes);
        return CUDA_SUCCESS;
      });
}

//===----------------------------------------------------------------------===//
// Launches
//===----------------------------------------------------------------------===//

namespace {

void checkShape(const Settings &settings, const CUfunc_st &function,
                LaunchConfig &config) {
  const syntax::Function &source = *function.function->source;
  const uint32_t limits[] = {0x7FFFFFFF, 65535, 65535};
  const uint32_t blockLimits[] = {1024, 1024, 64};
  for (int i = 0; i < 3; ++i) {
    if (config.grid[i] < 1 || config.grid[i] > limits[i])
      fail(CUDA_ERROR_INVALID_VALUE, "a grid of ", config.grid[i],
           " blocks in dimension ", i);
    if (config.block[i] < 1 || config.block[i] > blockLimits[i])
      fail(CUDA_ERROR_INVALID_VALUE, "a block of ", config.block[i],
           " threads in dimension ", i);
  }
  uint32_t threads = product(config.block);
  if (threads > 1024)
    fail(CUDA_ERROR_INVALID_VALUE, "a block of ", threads, " threads");
  if (threads > maxThreads(function))
    fail(CUDA_ERROR_INVALID_VALUE, "a block of ", threads,
         " threads, but the kernel was compiled for ", maxThreads(function));
  if (source.requiredThreads[0] &&
      !std::equal(config.block, config.block + 3, source.requiredThreads))
    fail(CUDA_ERROR_INVALID_VALUE,
         "the block is not of the shape that .reqntid asks for");
  if (registersOf(function) * ((threads + 31) / 32 * 32) > 65536)
    fail(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "the block needs ",
         registersOf(function), " registers for each thread");
  if (config.dynamicShared > static_cast<uint32_t>(function.maxDynamicShared))
    fail(CUDA_ERROR_INVALID_VALUE, config.dynamicShared,
         " bytes of dynamic shared memory, but the kernel may have ",
         function.maxDynamicShared);
  if (uint64_t(function.layout.dynamicAt) + config.dynamicShared >
      settings.sharedOptIn())
    fail(CUDA_ERROR_INVALID_VALUE, "more shared memory than there is");
}

void checkCluster(const Settings &settings, const CUfunc_st &function,
                  LaunchConfig &config) {
  const syntax::Function &source = *function.function->source;
  bool required = source.clusterSize[0] != 0;
  if (required && config.explicitCluster &&
      !std::equal(config.cluster, config.cluster + 3, source.clusterSize))
    fail(CUDA_ERROR_INVALID_CLUSTER_SIZE,
         "the cluster is not of the size that .reqnctapercluster asks for");
  if (required)
    std::copy(source.clusterSize, source.clusterSize + 3, config.cluster);
  else if (source.explicitCluster && !config.explicitCluster)
    fail(CUDA_ERROR_INVALID_CLUSTER_SIZE, "the kernel needs a cluster size");
  config.explicitCluster |= required;
  if (!config.explicitCluster)
    return;
  uint32_t size = product(config.cluster);
  if (settings.major < 9)
    fail(CUDA_ERROR_INVALID_CLUSTER_SIZE, "the device has no clusters");
  if (size < 1 || size > (function.nonPortableCluster ? 16u : 8u))
    fail(CUDA_ERROR_INVALID_CLUSTER_SIZE, "a cluster of ", size, " blocks");
  for (int i = 0; i < 3; ++i) {
    if (source.blocksAreClusters)
      config.grid[i] *= config.cluster[i];
    if (config.grid[i] % config.cluster[i] != 0)
      fail(CUDA_ERROR_INVALID_CLUSTER_SIZE, "a grid of ", config.grid[i],
           " blocks in dimension ", i, " is no multiple of a cluster's ",
           config.cluster[i]);
  }
}

void packParameters(const CUfunc_st &function, void **parameters, void **extra,
                    LaunchConfig &config) {
  const Function &kernel = *function.function;
  config.parameters.assign(kernel.parameterBytes, 0);
  if (extra) {
    const void *buffer = nullptr;
    size_t bytes = 0;
    for (; *extra != CU_LAUNCH_PARAM_END; extra += 2)
      if (*extra == CU_LAUNCH_PARAM_BUFFER_POINTER)
        buffer = extra[1];
      else if (*extra == CU_LAUNCH_PARAM_BUFFER_SIZE)
        bytes = *static_cast<size_t *>(extra[1]);
      else
        fail(CUDA_ERROR_INVALID_VALUE, "unknown key of extra");
    if (parameters || !buffer || bytes < kernel.parameterBytes)
      fail(CUDA_ERROR_INVALID_VALUE, "the kernel takes ", kernel.parameterBytes,
           " bytes of parameters, not ", bytes);
    std::memcpy(config.parameters.data(), buffer, kernel.parameterBytes);
    return;
  }
  if (!parameters && !kernel.kernelParameters.empty())
    fail(CUDA_ERROR_INVALID_VALUE, "the kernel takes ",
         kernel.kernelParameters.size(), " parameters");
  for (size_t i = 0; i < kernel.kernelParameters.size(); ++i) {
    const Parameter &parameter = kernel.kernelParameters[i];
    if (!parameters[i])
      fail(CUDA_ERROR_INVALID_VALUE, "parameter ", i, " is missing");
    std::memcpy(&config.parameters[parameter.offset], parameters[i],
                parameter.size);
  }
}

CUresult launch(Driver &driver, CUfunction function, CUstream handle,
                LaunchConfig config, void **parameters, void **extra) {
  CUstream stream = driver.stream(handle);
  checkHandle(driver.functions, function, "function");
  driver.checkCapture(stream);
  config.module = function->module->module.get();
  config.function = function->function;
  checkShape(driver.settings, *function, config);
  checkCluster(driver.settings, *function, config);
  if (config.cooperative) {
    int blocks =
        blocksPerMultiprocessor(driver.settings, *function,
                                product(config.block), config.dynamicShared) *
        driver.settings.multiprocessors;
    if (uint64_t(config.grid[0]) * config.grid[1] * config.grid[2] >
        static_cast<uint64_t>(blocks))
      fail(CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE, "the device can hold ",
           blocks, " blocks");
  }
  packParameters(*function, parameters, extra, config);
  driver.log.write("launch",
                   {{"kernel", config.function->name},
                    {"grid", config.grid},
                    {"block", config.block},
                    {"cluster", config.cluster},
                    {"shared", config.dynamicShared},
                    {"cooperative", config.cooperative},
                    {"programmatic", config.programmatic},
                    {"captured", stream->capture != nullptr},
                    {"parameters", LogValue::hex(config.parameters)}});
  driver.submit(stream, Action(std::move(config)));
  return CUDA_SUCCESS;
}

} // namespace

CUresult cuLaunchKernel(CUfunction function, unsigned gridX, unsigned gridY,
                        unsigned gridZ, unsigned blockX, unsigned blockY,
                        unsigned blockZ, unsigned sharedBytes, CUstream stream,
                        void **parameters, void **extra) {
  return entry("cuLaunchKernel", [&](Driver &driver) {
    LaunchConfig config;
    uint32_t grid[] = {gridX, gridY, gridZ}, block[] = {blockX, blockY, blockZ};
    std::copy(grid, grid + 3, config.grid);
    std::copy(block, block + 3, config.block);
    config.dynamicShared = sharedBytes;
    return launch(driver, function, stream, std::move(config), parameters,
                  extra);
  });
}

CUresult cuLaunchKernelEx(const CUlaunchConfig *given, CUfunction function,
                          void **parameters, void **extra) {
  return entry("cuLaunchKernelEx", [&](Driver &driver) {
    checkPointer(given);
    LaunchConfig config;
    uint32_t grid[] = {given->gridDimX, given->gridDimY, given->gridDimZ},
             block[] = {given->blockDimX, given->blockDimY, given->blockDimZ};
    std::copy(grid, grid + 3, config.grid);
    std::copy(block, block + 3, config.block);
    config.dynamicShared = given->sharedMemBytes;
    for (unsigned i = 0; i < given->numAttrs; ++i) {
      const CUlaunchAttributeValue &value = given->attrs[i].value;
      switch (given->attrs[i].id) {
      case CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION:
        config.explicitCluster = true;
        config.cluster[0] = value.clusterDim.x;
        config.cluster[1] = value.clusterDim.y;
        config.cluster[2] = value.clusterDim.z;
        break;
      case CU_LAUNCH_ATTRIBUTE_COOPERATIVE:
        config.cooperative = value.cooperative != 0;
        break;
      case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION:
        config.programmatic = value.programmaticStreamSerializationAllowed != 0;
        break;
      case CU_LAUNCH_ATTRIBUTE_IGNORE:
      case CU_LAUNCH_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE:
      case CU_LAUNCH_ATTRIBUTE_PRIORITY:
        break;
      default:
        fail(CUDA_ERROR_INVALID_VALUE, "unknown launch attribute ",
             int(given->attrs[i].id));
      }
    }
    return launch(driver, function, given->hStream, std::move(config),
                  parameters, extra);
  });
}

CUresult cuLaunchCooperativeKernel(CUfunction function, unsigned gridX,
                                   unsigned gridY, unsigned gridZ,
                                   unsigned blockX, unsigned blockY,
                                   unsigned blockZ, unsigned sharedBytes,
                                   CUstream stream, void **parameters) {
  CUlaunchAttribute attribute = {};
  attribute.id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE;
  attribute.value.cooperative = 1;
  CUlaunchConfig config = {gridX,  gridY,       gridZ,  blockX,     blockY,
                           blockZ, sharedBytes, stream, &attribute, 1};
  return cuLaunchKernelEx(&config, function, parameters, nullptr);
}
