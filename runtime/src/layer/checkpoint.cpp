//===- checkpoint.cpp - The C interface of checkpoints --------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe_rt/checkpoint.h"
#include "layer/layer.h"
#include "parallel/parallel_layer.h"
#include "support/dtype.h"

#include "moe_rt/io.h"

#include <algorithm>
#include <mutex>
#include <new>

using namespace moe;
using namespace moe::rt;

struct moe_rt_checkpoint_s {
  explicit moe_rt_checkpoint_s(io::Checkpoint opened)
      : files(std::make_shared<io::Checkpoint>(std::move(opened))),
        names(files->names()) {}

  std::mutex mutex; // of `files`, which opens shards as they are needed
  const std::shared_ptr<io::Checkpoint> files;
  const std::vector<std::string> names;
};

static moe_rt_status_t toStatus(const io::Error &error) {
  moe_rt_code_t code = MOE_RT_INVALID_ARGUMENT;
  switch (error.kind) {
  case io::ErrorKind::Invalid:
    break;
  case io::ErrorKind::NotFound:
    code = MOE_RT_NOT_FOUND;
    break;
  case io::ErrorKind::Damaged:
    code = MOE_RT_DATA_LOSS;
    break;
  case io::ErrorKind::NoMemory:
    code = MOE_RT_RESOURCE_EXHAUSTED;
    break;
  }
  // A name in a damaged file may have one, which would end the message.
  std::string message = error.message;
  std::replace(message.begin(), message.end(), '\0', '?');
  return makeError(code, "%s", message.c_str());
}

/// Find and check the weights of a function.
static moe_rt_status_t openReader(const moe_rt_module_t &module,
                                  const std::string &function,
                                  moe_rt_checkpoint_t &checkpoint,
                                  std::shared_ptr<io::WeightReader> &out) {
  io::Expected<std::vector<io::WeightSpec>> specs =
      io::readWeightSpecs(module.text, module.variantIndex, function);
  if (!specs)
    return toStatus(specs.takeError());
  // The checkpoint may be closed before the layer goes.
  std::lock_guard<std::mutex> lock(checkpoint.mutex);
  io::Expected<io::WeightReader> opened =
      io::WeightReader::open(*specs, checkpoint.files);
  if (!opened)
    return toStatus(opened.takeError());
  out = std::make_shared<io::WeightReader>(std::move(*opened));
  return nullptr;
}

static WeightSource sourceOf(io::WeightReader &reader) {
  WeightSource source;
  source.read = io::WeightReader::read;
  source.user = &reader;
  source.mapped = [](void *user, size_t weight) {
    return static_cast<io::WeightReader *>(user)->mapped(weight);
  };
  return source;
}

namespace {

class FromCheckpoint final : public ParallelSource {
public:
  explicit FromCheckpoint(moe_rt_checkpoint_t &checkpoint)
      : checkpoint(checkpoint) {}

  moe_rt_status_t open(const moe_rt_module_t &module,
                       const ParallelFunction &function,
                       WeightSource &out) override {
    MOE_RT_TRY(openReader(module, function.signature.name, checkpoint, reader));
    out = sourceOf(*reader);
    return nullptr;
  }
  std::shared_ptr<void> mapping() override { return reader; }

private:
  moe_rt_checkpoint_t &checkpoint;
  std::shared_ptr<io::WeightReader> reader;
};

} // namespace

extern "C" {

moe_rt_status_t moe_rt_checkpoint_open(const char *path,
                                       moe_rt_checkpoint_t **out) {
  if (!path || !out)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "moe_rt_checkpoint_open: an argument is NULL");
  io::Expected<io::Checkpoint> opened = io::Checkpoint::open(path);
  if (!opened)
    return toStatus(opened.takeError());
  auto *checkpoint = new (std::nothrow) moe_rt_checkpoint_s(std::move(*opened));
  if (!checkpoint)
    return makeError(MOE_RT_RESOURCE_EXHAUSTED,
                     "cannot allocate the checkpoint");
  *out = checkpoint;
  return nullptr;
}

void moe_rt_checkpoint_close(moe_rt_checkpoint_t *checkpoint) {
  delete checkpoint;
}

size_t moe_rt_checkpoint_tensor_count(const moe_rt_checkpoint_t *checkpoint) {
  return checkpoint ? checkpoint->names.size() : 0;
}

const char *moe_rt_checkpoint_tensor_name(const moe_rt_checkpoint_t *checkpoint,
                                          size_t index) {
  return index < moe_rt_checkpoint_tensor_count(checkpoint)
             ? checkpoint->names[index].c_str()
             : nullptr;
}

moe_rt_status_t moe_rt_checkpoint_find(moe_rt_checkpoint_t *checkpoint,
                                       const char *name,
                                       moe_rt_checkpoint_tensor_t *out) {
  if (!checkpoint || !name || !out)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "moe_rt_checkpoint_find: an argument is NULL");
  std::lock_guard<std::mutex> lock(checkpoint->mutex);
  io::Expected<io::Checkpoint::Entry> found = checkpoint->files->find(name);
  if (!found)
    return toStatus(found.takeError());
  const io::TensorView &tensor = (*found)->second;
  *out = {(*found)->first.c_str(),
          tensor.format ? tensor.format : findDTypeName(tensor.dtype),
          tensor.dtype,
          static_cast<int32_t>(tensor.shape.size()),
          tensor.shape.data(),
          tensor.data,
          tensor.bytes};
  return nullptr;
}

moe_rt_status_t moe_rt_layer_create_from_checkpoint(
    moe_rt_module_t *module, const char *function,
    moe_rt_checkpoint_t *checkpoint, moe_rt_layer_t **out) {
  if (!module || !checkpoint || !out)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "moe_rt_layer_create_from_checkpoint: an argument is "
                     "NULL");
  const Function *found;
  MOE_RT_TRY(findFunction(module, function, found));
  std::shared_ptr<io::WeightReader> reader;
  MOE_RT_TRY(openReader(*module, found->name, *checkpoint, reader));
  WeightSource source = sourceOf(*reader);
  MOE_RT_TRY(createLayer(module, *found, source, out));
  (*out)->mapping = std::move(reader);
  return nullptr;
}

moe_rt_status_t moe_rt_layer_create_parallel_from_checkpoint(
    moe_rt_module_t *module, const char *name, moe_rt_group_t *group,
    const DLTensor *table, moe_rt_checkpoint_t *checkpoint,
    moe_rt_layer_t **out) {
  if (!module || !group || !checkpoint || !out)
    return makeError(
        MOE_RT_INVALID_ARGUMENT,
        "moe_rt_layer_create_parallel_from_checkpoint: an argument "
        "is NULL");
  FromCheckpoint source(*checkpoint);
  return createParallelLayer(module, name, group, table, source, out);
}

} // extern "C"
