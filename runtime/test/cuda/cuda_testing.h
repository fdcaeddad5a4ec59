//===- cuda_testing.h - Helpers of the tests on a device --------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The tests run with the driver that MOE_CUDA_LIBRARY names, which is the
// double of one in CTest, or with the machine's own. Without a device they are
// skipped.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_TEST_CUDA_TESTING_H
#define MOE_RT_TEST_CUDA_TESTING_H

#include "cuda/device/memory.h"
#include "testing.h"

#include "moe_rt/launcher.h"

#include <cstring>
#include <functional>
#include <map>
#include <memory>

namespace moe::test {

namespace cuda = moe::rt::cuda;

/// An environment variable, set for a scope.
class Environment {
public:
  Environment(const char *name, const std::string &value);
  ~Environment();
  Environment(const Environment &) = delete;

private:
  const char *name;
  std::string before;
  bool wasSet;
};

/// A handle of the driver under test, or nullptr. It stays open.
void *driverLibrary();
/// Whether that is the double. Then these have an effect.
bool isDouble();
/// Start the double anew, with the environment as it is.
void resetDouble();

/// Another user of the device in this process, as the host's framework is.
class Gpu {
public:
  explicit Gpu(int32_t ordinal = 0);
  ~Gpu();

  /// Why there is no device; "" if there is one.
  std::string reason;
  std::unique_ptr<cuda::CUDADevice> device;

  const cuda::Driver &driver() const { return device->driver(); }
  /// A function of the driver that the runtime does not use.
  template <typename F> F *function(const char *symbol) const {
    return reinterpret_cast<F *>(find(symbol));
  }
  int check(int result) const; // prints an error that the driver returns

  /// A stream that does not wait for the legacy default stream, until the end.
  cuda::CUstream newStream();
  void wait(cuda::CUstream stream) const;
  /// What `enqueue` puts on the stream, as a graph.
  void *capture(cuda::CUstream stream,
                const std::function<void()> &enqueue) const;
  void replay(void *graph, cuda::CUstream stream) const;
  void *currentContext() const;

private:
  void *find(const char *symbol) const;

  std::mutex mutex;
  std::vector<cuda::CUstream> streams;
};

/// A test with a device.
class CudaTest : public ::testing::Test {
protected:
  void SetUp() override;
  void TearDown() override;

  /// Options of a context for the device.
  static moe_rt_context_options_t options(int32_t ordinal = 0);

  std::unique_ptr<Gpu> gpu;
};

/// A tensor of the device. Its data is as it was on the host at the last
/// `upload`, and on the device at the last `download`.
template <typename T> class DeviceArray {
public:
  DeviceArray(const Gpu &gpu, Array<T> contents)
      : array(std::move(contents)), gpu(gpu), buffer(*gpu.device) {
    cuda::ContextScope scope(*gpu.device);
    EXPECT_OK(buffer.allocate(bytes(), "test"));
    upload();
  }
  void upload() {
    cuda::ContextScope scope(*gpu.device);
    if (bytes())
      gpu.check(gpu.driver().cuMemcpyHtoD(buffer.address(), array.data.data(),
                                          bytes()));
    // Streams that do not wait for this one must see it.
    gpu.wait(nullptr);
  }
  const std::vector<T> &download() {
    cuda::ContextScope scope(*gpu.device);
    if (bytes())
      gpu.check(gpu.driver().cuMemcpyDtoH(array.data.data(), buffer.address(),
                                          bytes()));
    return array.data;
  }
  DLTensor dl() {
    DLTensor tensor = array.dl();
    tensor.data = buffer.data();
    tensor.device = {kDLCUDA, gpu.device->ordinal()};
    return tensor;
  }
  char *address() const { return buffer.data(); }
  std::vector<T> &data() { return array.data; }

private:
  size_t bytes() const { return array.data.size() * sizeof(T); }

  Array<T> array;
  const Gpu &gpu;
  cuda::DeviceBuffer buffer;
};

struct Memref {
  void *allocated, *aligned;
  int64_t offset;
  int64_t dims[8];

  uint64_t address() const {
    return static_cast<uint64_t>(reinterpret_cast<uintptr_t>(aligned));
  }
};

/// An argument of a kernel.
inline moe_rt_kernel_argument_t argument(const void *memref) {
  return {8, static_cast<const Memref *>(memref)->address()};
}
inline moe_rt_kernel_argument_t argument(uint32_t value) { return {4, value}; }
inline moe_rt_kernel_argument_t argument(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return {4, bits};
}

using DeviceEntry = int32_t (*)(void **, const moe_rt_launcher_t *);
using WorkspaceFn = int64_t (*)(int64_t);

/// The kernels of the tests: PTX for sm_80, and for sm_90 what needs that.
extern const char *const testImage;
extern const char *const sm90Image;
/// The metadata of testImage's kernels; their places in it.
extern const char *const testKernels;
enum : int64_t { scaleKernel, reportKernel, faultKernel };

/// A variant for a device.
struct DeviceVariant {
  std::string arch = "sm_80";
  std::string images; // JSON; testImage by default
  std::string kernels = testKernels;

  std::string json(const std::vector<std::string> &functions) const;
};

/// A variant with sm90Image and these of its kernels.
DeviceVariant sm90Variant(const std::string &kernels);

/// A module of functions of this process.
class DeviceJit {
public:
  DeviceJit(const moe_rt_context_options_t &options) : context(&options) {}
  ~DeviceJit() {
    moe_rt_layer_destroy(layer);
    moe_rt_module_destroy(module);
  }

  /// Make a module of one function with these arguments (and dispatches).
  void load(
      const std::string &arguments, DeviceEntry entry,
      WorkspaceFn workspace = [](int64_t) { return int64_t(0); },
      const DeviceVariant &variant = {});
  moe_rt_status_t load(const std::string &metadata);
  void create(const std::vector<DLTensor> &weights = {});

  moe_rt_status_t call(std::vector<DLTensor> inputs,
                       std::vector<DLTensor> outputs, void *memory = nullptr,
                       uint64_t bytes = 0) {
    return moe_rt_layer_call(layer, inputs.data(), inputs.size(),
                             outputs.data(), outputs.size(), memory, bytes);
  }
  moe_rt_status_t enqueue(cuda::CUstream stream, std::vector<DLTensor> inputs,
                          std::vector<DLTensor> outputs, void *memory = nullptr,
                          uint64_t bytes = 0) {
    return moe_rt_layer_call_on_stream(layer, inputs.data(), inputs.size(),
                                       outputs.data(), outputs.size(), memory,
                                       bytes, stream);
  }

  std::map<std::string, const void *> symbols; // what the code defines
  Context context;
  moe_rt_module_t *module = nullptr;
  moe_rt_layer_t *layer = nullptr;

private:
  static void *resolve(void *user, const char *symbol);
};

/// Tests of modules of this process on a device.
class CudaLayerTest : public CudaTest {
protected:
  void SetUp() override {
    CudaTest::SetUp();
    if (gpu->device)
      jit = std::make_unique<DeviceJit>(options());
  }
  void TearDown() override {
    jit.reset();
    CudaTest::TearDown();
  }

  std::unique_ptr<DeviceJit> jit; // null where the test is skipped
};

/// Of a layer with the arguments of scaleArguments, x and y, on the device.
class CudaScaleTest : public CudaLayerTest {
protected:
  void SetUp() override {
    CudaLayerTest::SetUp();
    if (!jit)
      return;
    x = std::make_unique<DeviceArray<float>>(*gpu, f32({1, 4}, 1.5f));
    y = std::make_unique<DeviceArray<float>>(*gpu, f32({1, 4}));
  }
  void TearDown() override {
    x.reset();
    y.reset();
    CudaLayerTest::TearDown();
  }

  moe_rt_status_t call() { return jit->call({x->dl()}, {y->dl()}); }

  std::unique_ptr<DeviceArray<float>> x, y; // null where the test is skipped
};

/// y = 2 * x, for f32[T, 4].
extern const char *const scaleArguments;
int32_t scaleEntry(void **args, const moe_rt_launcher_t *launcher);

} // namespace moe::test

#endif // MOE_RT_TEST_CUDA_TESTING_H
