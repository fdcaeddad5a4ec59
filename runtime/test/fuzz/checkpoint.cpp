//===- checkpoint.cpp - Fuzz the C interface of checkpoints ---------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A file that a checkpoint is opened from, listed, read and bound to a layer.
//
//===----------------------------------------------------------------------===//

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "safetensors.h"

#include "moe_rt/checkpoint.h"

#include <cstdlib>
#include <cstring>
#include <string>
#include <sys/mman.h>
#include <unistd.h>

static int32_t entry(void **, const moe_rt_executor_t *) { return 0; }
static int64_t workspace(int64_t) { return 0; }

static void *resolve(void *, const char *symbol) {
  return std::strcmp(symbol, "w") == 0 ? reinterpret_cast<void *>(workspace)
                                       : reinterpret_cast<void *>(entry);
}

// A weight that is stacked and one that may be reshaped, both read by calls,
// and one that is prepared.
static std::string metadata() {
#if defined(__x86_64__)
  const char *triple = "x86_64-pc-linux-gnu";
#else
  const char *triple = "aarch64-unknown-linux-gnu";
#endif
  return R"({"format": 2, "variants": [{"target": {"triple": ")" +
         std::string(triple) + R"("}, "functions": [
    {"name": "f", "entry": "e", "workspace": "w",
     "tokens": {"min": 0, "max": 9}, "dispatches": [], "arguments": [
      {"name": "a", "role": "weight", "dtype": "bf16", "shape": [2, 1],
       "source": ["a0", "a1"]},
      {"name": "b", "role": "weight", "dtype": "i1", "shape": [2, 1],
       "source": ["b"]},
      {"name": "c", "role": "weight", "dtype": "i8", "shape": [2, 1],
       "source": ["c"], "retained": false},
      {"name": "p", "role": "prepared", "dtype": "i8", "shape": [2, 1],
       "prepare": "g", "sources": ["c"]},
      {"name": "y", "role": "output", "dtype": "i8", "shape": [-1]}]},
    {"name": "g", "prepares": "f", "entry": "e", "workspace": "w",
     "tokens": {"min": 0, "max": 9}, "dispatches": [], "arguments": [
      {"name": "i", "role": "input", "dtype": "i8", "shape": [-1, 1]},
      {"name": "o", "role": "output", "dtype": "i8", "shape": [-1, 1]}]}]}]})";
}

static moe_rt_module_t *makeModule() {
  static const std::string text = metadata();
  moe_rt_context_t *context;
  moe_rt_module_t *module;
  if (moe_rt_context_create(nullptr, &context) ||
      moe_rt_module_create(context, text.data(), text.size(), resolve, nullptr,
                           &module))
    std::abort();
  return module;
}

/// Whether it succeeded; a failure has a code and a message.
static bool check(moe_rt_status_t status) {
  if (!status)
    return true;
  if (moe_rt_status_code(status) == MOE_RT_OK ||
      !*moe_rt_status_message(status))
    std::abort();
  moe_rt_status_free(status);
  return false;
}

static void use(const std::string &path) {
  static moe_rt_module_t *module = makeModule();
  moe_rt_checkpoint_t *checkpoint = nullptr;
  if (!check(moe_rt_checkpoint_open(path.c_str(), &checkpoint)))
    return;
  volatile uint8_t sum = 0;
  for (size_t i = 0; i < moe_rt_checkpoint_tensor_count(checkpoint); ++i) {
    const char *name = moe_rt_checkpoint_tensor_name(checkpoint, i);
    moe_rt_checkpoint_tensor_t tensor;
    // What one file lists is there.
    if (!check(moe_rt_checkpoint_find(checkpoint, name, &tensor)) ||
        std::strcmp(name, tensor.name) != 0)
      std::abort();
    for (int32_t d = 0; d < tensor.ndim; ++d)
      if (tensor.shape[d] < 0)
        std::abort();
    // Read every byte, so that a sanitizer sees one that is not there.
    for (uint64_t j = 0; j < tensor.bytes; ++j)
      sum = sum + static_cast<const uint8_t *>(tensor.data)[j];
  }
  moe_rt_layer_t *layer = nullptr;
  bool bound = check(
      moe_rt_layer_create_from_checkpoint(module, nullptr, checkpoint, &layer));
  moe_rt_checkpoint_close(checkpoint);
  if (!bound)
    return;
  int8_t data = 0;
  int64_t shape = 1;
  DLTensor y = {&data, {kDLCPU, 0}, 1, {kDLInt, 8, 1}, &shape, nullptr, 0};
  if (!check(moe_rt_layer_call(layer, nullptr, 0, &y, 1, nullptr, 0)))
    std::abort();
  moe_rt_layer_destroy(layer);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0)
    return 0;
  std::string bytes = moe::test::makeSafetensors(data, size, '\1');
  int fd = memfd_create("fuzz", MFD_CLOEXEC);
  if (fd < 0 || write(fd, bytes.data(), bytes.size()) !=
                    static_cast<ssize_t>(bytes.size()))
    std::abort();
  use("/proc/self/fd/" + std::to_string(fd));
  close(fd);
  return 0;
}
