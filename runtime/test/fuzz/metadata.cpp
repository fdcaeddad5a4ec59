//===- metadata.cpp - Fuzz metadata and what follows from it --------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Metadata whose code does nothing: whatever it describes is prepared, bound
// and called.
//
//===----------------------------------------------------------------------===//

#include "moe_rt/group.h"
#include "moe_rt/io.h"
#include "moe_rt/moe_rt.h"

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

static int32_t entry(void **, const moe_rt_executor_t *) { return 0; }
static int64_t workspace(int64_t tokens) { return tokens & 0xfff; }

static void *resolve(void *, const char *symbol) {
  // Metadata can name one where the other belongs; either is harmless with any
  // arguments.
  return std::strchr(symbol, 'w') ? reinterpret_cast<void *>(workspace)
                                  : reinterpret_cast<void *>(entry);
}

// Larger tensors are not made.
static constexpr uint64_t maxBytes = 1 << 16;

static void *allocate(void *, size_t bytes, size_t alignment) {
  void *memory = nullptr;
  if (bytes > 16 * maxBytes || posix_memalign(&memory, alignment, bytes) != 0)
    return nullptr;
  return memory;
}

static void release(void *, void *memory, size_t) { std::free(memory); }

static int32_t readWeight(void *, size_t, int64_t, int64_t, void *data,
                          uint64_t bytes) {
  std::memset(data, 0, bytes);
  return 0;
}

/// Nothing but a want of memory is a reason to fail.
static bool succeeded(moe_rt_status_t status) {
  if (!status)
    return true;
  if (moe_rt_status_code(status) != MOE_RT_RESOURCE_EXHAUSTED)
    std::abort();
  moe_rt_status_free(status);
  return false;
}

namespace {

struct Tensors {
  std::vector<std::vector<int64_t>> shapes;
  std::vector<moe::io::Tensor> memory;
  std::vector<DLTensor> views;

  /// Tensors as the signature wants them; false if they are too large.
  bool make(const moe_rt_module_t *module, const char *function,
            moe_rt_role_t role, int64_t tokens) {
    size_t count;
    if (moe_rt_function_tensor_count(module, function, role, &count))
      std::abort();
    for (size_t i = 0; i < count; ++i) {
      moe_rt_tensor_info_t info;
      if (moe_rt_function_tensor_info(module, function, role, i, &info))
        std::abort();
      std::vector<int64_t> shape(info.shape, info.shape + info.ndim);
      for (int64_t &extent : shape)
        extent = extent < 0 ? tokens : extent;
      auto bytes = moe::io::byteSize(info.dtype, shape);
      if (!bytes || *bytes > maxBytes)
        return false;
      auto tensor = moe::io::Tensor::create(info.dtype, shape, info.alignment);
      if (!tensor)
        return false;
      std::memset(tensor->data(), 0, tensor->bytes());
      memory.push_back(std::move(*tensor));
    }
    for (moe::io::Tensor &tensor : memory)
      views.push_back(tensor.dlpack());
    return true;
  }
};

} // namespace

static void callFunction(moe_rt_module_t *module, const char *function) {
  int64_t min, max;
  if (moe_rt_function_token_range(module, function, &min, &max))
    std::abort();
  Tensors weights;
  if (!weights.make(module, function, MOE_RT_WEIGHT, 0))
    return;
  moe_rt_layer_t *layer = nullptr;
  if (succeeded(moe_rt_layer_create_from_source(module, function, readWeight,
                                                nullptr, &layer)))
    moe_rt_layer_destroy(layer);
  if (!succeeded(moe_rt_layer_create(module, function, weights.views.data(),
                                     weights.views.size(), &layer)))
    return;
  for (int64_t tokens : {min, min + (min < max)}) {
    Tensors inputs, outputs;
    if (!inputs.make(module, function, MOE_RT_INPUT, tokens) ||
        !outputs.make(module, function, MOE_RT_OUTPUT, tokens))
      continue;
    moe_rt_status_free(moe_rt_layer_call(
        layer, inputs.views.data(), inputs.views.size(), outputs.views.data(),
        outputs.views.size(), nullptr, 0));
  }
  for (size_t i = 0; i < moe_rt_layer_dispatch_count(layer); ++i) {
    moe_rt_statistics_t statistics;
    moe_rt_status_free(moe_rt_layer_statistics(layer, i, &statistics));
  }
  moe_rt_layer_destroy(layer);
}

/// A group of this process alone.
static moe_rt_group_t *createGroup(moe_rt_context_t *context) {
  moe_rt_communicator_t communicator = {};
  communicator.struct_size = sizeof(communicator);
  communicator.size = communicator.node_size = 1;
  communicator.allocate = [](void *, uint64_t bytes) {
    return allocate(nullptr, bytes, 64);
  };
  communicator.release = [](void *, void *memory, uint64_t bytes) {
    release(nullptr, memory, bytes);
  };
  // One rank exchanges nothing.
  communicator.counts = [](void *, const int64_t *, int64_t *, int32_t, void *,
                           void **) -> int32_t { std::abort(); };
  communicator.exchange = [](void *, const void *, const int64_t *,
                             const int64_t *, void *, const int64_t *,
                             const int64_t *, uint64_t, void *,
                             void **) -> int32_t { std::abort(); };
  communicator.gather = [](void *, const void *, void *, const int64_t *,
                           uint64_t, void *,
                           void **) -> int32_t { std::abort(); };
  communicator.test = [](void *, void *) -> int32_t { std::abort(); };
  moe_rt_group_t *group = nullptr;
  if (moe_rt_group_create(context, &communicator, nullptr, &group))
    std::abort();
  return group;
}

/// The code of its parts does nothing, which they may be told.
static void callParallel(moe_rt_module_t *module, moe_rt_group_t *group,
                         const char *name) {
  int64_t min, max;
  if (moe_rt_function_token_range(module, name, &min, &max))
    std::abort();
  moe_rt_layer_t *layer = nullptr;
  moe_rt_status_t status = moe_rt_layer_create_parallel_from_source(
      module, name, group, nullptr, readWeight, nullptr, &layer);
  moe_rt_status_free(status);
  if (status)
    return;
  for (int64_t tokens : {min, min + (min < max)}) {
    Tensors inputs, outputs;
    if (!inputs.make(module, name, MOE_RT_INPUT, tokens) ||
        !outputs.make(module, name, MOE_RT_OUTPUT, tokens))
      continue;
    moe_rt_status_free(moe_rt_layer_call(
        layer, inputs.views.data(), inputs.views.size(), outputs.views.data(),
        outputs.views.size(), nullptr, 0));
  }
  moe_rt_layer_destroy(layer);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  moe_rt_context_t *context;
  moe_rt_context_options_t options = {
      sizeof(options), {nullptr, allocate, release}, 1, nullptr, {}};
  if (moe_rt_context_create(&options, &context))
    std::abort();
  const char *text = reinterpret_cast<const char *>(data);
  moe_rt_module_t *module = nullptr;
  moe_rt_status_t status =
      moe_rt_module_create(context, text, size, resolve, nullptr, &module);
  if (!status) {
    for (size_t i = 0; i < moe_rt_module_function_count(module); ++i) {
      const char *function = moe_rt_module_function_name(module, i);
      callFunction(module, function);
      // What the runtime accepts, the other reader accepts.
      if (!moe::io::readWeightSpecs(moe_rt_module_metadata(module),
                                    moe_rt_module_variant(module), function))
        std::abort();
    }
    moe_rt_group_t *group = createGroup(context);
    for (size_t i = 0; i < moe_rt_module_parallel_count(module); ++i) {
      const char *name = moe_rt_module_parallel_name(module, i);
      callParallel(module, group, name);
      if (!moe::io::readWeightSpecs(moe_rt_module_metadata(module),
                                    moe_rt_module_variant(module), name))
        std::abort();
    }
    moe_rt_group_destroy(group);
  } else {
    (void)moe::io::readWeightSpecs({text, size}, 0, "");
  }
  moe_rt_status_free(status);
  moe_rt_module_destroy(module);
  moe_rt_context_destroy(context);
  return 0;
}
