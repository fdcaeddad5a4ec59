//===- host_weights.cpp - Weights in memory of the host -------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "cpu/host_weights.h"
#include "cpu/host_call.h"
#include "cpu/threads/pool.h"

#include <algorithm>
#include <atomic>
#include <cinttypes>
#include <cstring>

using namespace moe;
using namespace moe::rt;

// How many experts of a source are in memory at once.
static constexpr int64_t maxExpertsAtOnce = 4;

namespace {

/// Prepares one argument, some experts at a time: in parallel, each of the
/// tasks takes an expert after the other.
class Preparer {
public:
  Preparer(const moe_rt_module_t &module, const Function &function,
           const moe_rt_executor_t &executor, const Preparation &preparation,
           const std::vector<BoundTensor> &weights, const WeightSource &source,
           const BoundTensor &out)
      : context(*module.context), executor(executor), function(function),
        preparation(preparation),
        prepare(module.variant.functions[preparation.function]),
        weights(weights), source(source), out(out),
        experts(function.arguments[preparation.argument].shape[0]) {}

  moe_rt_status_t run();

private:
  /// What one task works with.
  struct Task {
    std::vector<int64_t> descriptors;
    std::vector<void *> pointers;
    std::vector<Buffer> pieces; // of the sources that are read
    Buffer workspace;
    moe_rt_status_t status = nullptr;

    explicit Task(const moe_rt_context_t &context)
        : workspace(context.allocator) {}
  };

  const Argument &weight(size_t position) const {
    return function.arguments[function.weights[position]];
  }
  /// Bytes of one expert of a weight or of the result.
  uint64_t expertBytes(const Argument &whole) const {
    return whole.staticBytes() / static_cast<uint64_t>(experts);
  }
  /// Whether a source has to be read: calls do not, so it is nowhere yet.
  bool isRead(size_t position) const {
    return source.read && !weight(position).retained;
  }

  moe_rt_status_t setUp(Task &task);
  moe_rt_status_t prepareExpert(Task &task, int64_t expert,
                                const moe_rt_executor_t &executor);
  void work(Task &task, const moe_rt_executor_t &executor);

  const moe_rt_context_t &context;
  const moe_rt_executor_t &executor;
  const Function &function;
  const Preparation &preparation;
  const Function &prepare;
  const std::vector<BoundTensor> &weights;
  const WeightSource &source;
  const BoundTensor &out;
  const int64_t experts;

  std::vector<Task> tasks;
  std::atomic<int64_t> nextExpert{0};
  std::atomic<bool> failed{false};
};

} // namespace

/// Allocate what the task needs for one expert.
moe_rt_status_t Preparer::setUp(Task &task) {
  size_t words = descriptorWords(1); // of the workspace
  for (const Argument &argument : prepare.arguments)
    words += descriptorWords(argument.shape.size());
  task.descriptors.resize(words);
  task.pointers.resize(prepare.arguments.size() + 1);
  for (size_t i = 0; i < preparation.sources.size(); ++i) {
    size_t position = preparation.sources[i];
    const Argument &input = prepare.arguments[prepare.inputs[i]];
    task.pieces.emplace_back(context.allocator);
    if (isRead(position))
      MOE_RT_TRY(task.pieces[i].allocate(
          expertBytes(weight(position)), "weights that are prepared",
          std::max<size_t>(input.alignment, bufferAlignment)));
  }
  int64_t bytes = prepare.workspaceFn(1);
  if (bytes < 0)
    return makeError(MOE_RT_INTERNAL,
                     "function '%s': the code asks for a workspace of %" PRId64
                     " bytes",
                     prepare.name.c_str(), bytes);
  return task.workspace.allocate(static_cast<uint64_t>(bytes),
                                 "workspace of a preparation");
}

/// Prepare one expert.
moe_rt_status_t Preparer::prepareExpert(Task &task, int64_t expert,
                                        const moe_rt_executor_t &executor) {
  int64_t *descriptor = task.descriptors.data();
  auto pass = [&](size_t index, void *data) {
    task.pointers[index] = descriptor;
    descriptor = writeDescriptor(prepare.arguments[index], 1, data, descriptor);
  };
  auto offset = static_cast<uint64_t>(expert);
  for (size_t i = 0; i < preparation.sources.size(); ++i) {
    size_t position = preparation.sources[i];
    const Argument &argument = weight(position);
    uint64_t bytes = expertBytes(argument);
    char *data = task.pieces[i].data();
    if (isRead(position)) {
      // A weight of a single expert need not have a dimension for it.
      int64_t count =
          experts == 1 && !argument.shape.empty() ? argument.shape[0] : 1;
      MOE_RT_TRY(source.load(argument, position, expert, count, data, bytes));
    } else {
      data = weights[position].data + offset * bytes;
    }
    pass(prepare.inputs[i], data);
  }
  size_t output = prepare.outputs[0];
  const Argument &target = function.arguments[preparation.argument];
  pass(output, out.data + offset * expertBytes(target));
  task.pointers.back() = descriptor;
  writeWorkspaceDescriptor(task.workspace.data(), task.workspace.bytes(),
                           descriptor);
  moe_rt_tasks_t tasks = {executor, nullptr, nullptr};
  if (int32_t code = runEntry(prepare, task.pointers.data(), tasks))
    return makeError(MOE_RT_INTERNAL,
                     "function '%s', which prepares '%s', failed with code %d",
                     prepare.name.c_str(), target.name.c_str(), code);
  return nullptr;
}

void Preparer::work(Task &task, const moe_rt_executor_t &executor) {
  for (int64_t expert; !failed && (expert = nextExpert++) < experts;) {
    task.status = prepareExpert(task, expert, executor);
    if (task.status)
      failed = true;
  }
}

moe_rt_status_t Preparer::run() {
  int64_t count = std::min(executor.concurrency, experts);
  // Each task holds an expert of what it reads.
  if (source.read)
    count = std::min(count, maxExpertsAtOnce);
  for (int64_t i = 0; i < count; ++i) {
    tasks.emplace_back(context);
    MOE_RT_TRY(setUp(tasks.back()));
  }
  if (count == 1) {
    // All the threads are for the code that prepares.
    work(tasks[0], executor);
  } else {
    auto task = [](void *self, int64_t index) {
      auto *preparer = static_cast<Preparer *>(self);
      preparer->work(preparer->tasks[static_cast<size_t>(index)],
                     serialExecutor);
    };
    executor.parallel_for(executor.user, count, task, this);
  }
  moe_rt_status_t first = nullptr;
  for (Task &task : tasks) {
    if (first)
      moe_rt_status_free(task.status);
    else
      first = task.status;
  }
  return first;
}

//===----------------------------------------------------------------------===//
// HostWeights
//===----------------------------------------------------------------------===//

moe_rt_status_t HostWeights::checkContents(const Argument &argument,
                                           const BoundTensor &tensor) const {
  return checkElements(argument, tensor);
}

moe_rt_status_t HostWeights::place(const WeightSource &source, size_t position,
                                   BoundTensor &out) {
  const Argument &argument = weight(position);
  if (source.mapped) {
    if (const void *data = source.mapped(source.user, position)) {
      // Calls only read it.
      out = {static_cast<char *>(const_cast<void *>(data)),
             argument.staticBytes()};
      return checkElements(argument, out);
    }
  }
  return LayerWeights::place(source, position, out);
}

moe_rt_status_t HostWeights::own(const Argument &argument, const char *what,
                                 BoundTensor &out) {
  uint64_t bytes = argument.staticBytes();
  size_t alignment = std::max<size_t>(argument.alignment, bufferAlignment);
  if (bytes >= hugePage)
    alignment = std::max(alignment, hugePage);
  std::string name = std::string(what) + " '" + argument.name + "'";
  owned.emplace_back(module.context->allocator);
  MOE_RT_TRY(owned.back().allocate(bytes, name.c_str(), alignment));
  out = {owned.back().data(), bytes};
  return nullptr;
}

moe_rt_status_t HostWeights::load(const WeightSource &source, size_t position,
                                  const BoundTensor &out) {
  const Argument &argument = weight(position);
  int64_t count = argument.shape.empty() ? 1 : argument.shape[0];
  return source.load(argument, position, 0, count, out.data, out.bytes);
}

moe_rt_status_t HostWeights::prepare(const WeightSource &source,
                                     const Preparation &preparation,
                                     const BoundTensor &out) {
  return Preparer(module, function, executor, preparation, weights(), source,
                  out)
      .run();
}

moe_rt_status_t HostWeights::fetch(const Argument &, const BoundTensor &from,
                                   void *to) const {
  std::memcpy(to, from.data, static_cast<size_t>(from.bytes));
  return nullptr;
}

bool HostWeights::owns(const BoundTensor &tensor) const {
  return std::any_of(owned.begin(), owned.end(), [&](const Buffer &buffer) {
    return buffer.data() == tensor.data;
  });
}

uint64_t HostWeights::ownedBytes() const {
  uint64_t bytes = 0;
  for (const Buffer &buffer : owned)
    bytes += buffer.bytes();
  return bytes;
}
