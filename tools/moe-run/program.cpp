//===- program.cpp - A program and its weights ----------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "program.h"

#include "moe-c/JIT.h"

#include <algorithm>
#include <cstdio>
#include <dlfcn.h>
#include <unistd.h>

using namespace moe;
using namespace moe::run;
using moe::io::Error;
using moe::io::Expected;
using moe::io::Tensor;

static constexpr char compilerLibrary[] = "libMoECompiler.so";

Error moe::run::takeStatus(moe_rt_status_t status) {
  Error error{moe_rt_status_message(status)};
  moe_rt_status_free(status);
  return error;
}

std::vector<int64_t> Signature::shapeFor(int64_t tokens) const {
  std::vector<int64_t> result = shape;
  for (int64_t &extent : result)
    if (extent < 0)
      extent = tokens;
  return result;
}

static bool endsWith(const std::string &text, std::string_view end) {
  return text.size() >= end.size() &&
         text.compare(text.size() - end.size(), end.size(), end) == 0;
}

//===----------------------------------------------------------------------===//
// The compiler
//===----------------------------------------------------------------------===//

/// The library of the compiler and a compiled program. The library stays
/// loaded, as LLVM does not support unloading.
struct Program::Jit {
  decltype(&moe_jit_create) create;
  decltype(&moe_jit_metadata) metadata;
  decltype(&moe_jit_lookup) lookup;
  decltype(&moe_jit_destroy) destroy;
  decltype(&moe_jit_free_error) freeError;
  moe_jit_t *handle = nullptr;

  ~Jit() {
    if (handle)
      destroy(handle);
  }
};

std::string moe::run::executableDirectory() {
  char buffer[4096];
  ssize_t size = readlink("/proc/self/exe", buffer, sizeof(buffer));
  if (size <= 0)
    return "";
  std::string path(buffer, static_cast<size_t>(size));
  return path.substr(0, path.rfind('/') + 1);
}

static Expected<void *> openCompiler() {
  std::string directory = executableDirectory();
  std::string beside = directory + "../lib/" + compilerLibrary;
  // A library beside the tool that fails to load is an error, not skipped.
  std::string path = !directory.empty() && access(beside.c_str(), F_OK) == 0
                         ? beside
                         : compilerLibrary;
  if (void *library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL))
    return library;
  const char *reason = dlerror();
  return Error{"cannot open the compiler, which an MLIR program needs: " +
               std::string(reason ? reason : path)};
}

template <typename Fn>
static bool findSymbol(void *library, const char *symbol, Fn &out) {
  out = reinterpret_cast<Fn>(dlsym(library, symbol));
  return out != nullptr;
}

/// Removes the compiler's placeholder for the name of the program from a
/// message.
static const char *withoutInput(const std::string &message) {
  constexpr std::string_view input = "<input>:";
  bool hasInput = message.compare(0, input.size(), input) == 0;
  return message.c_str() + (hasInput ? input.size() : 0);
}

Expected<void> Program::compile(const Options &options) {
  Expected<io::MappedFile> source = io::MappedFile::open(options.program);
  if (!source)
    return source.takeError();
  Expected<void *> library = openCompiler();
  if (!library)
    return library.takeError();
  jit = std::make_unique<Jit>();
  if (!findSymbol(*library, "moe_jit_create", jit->create) ||
      !findSymbol(*library, "moe_jit_metadata", jit->metadata) ||
      !findSymbol(*library, "moe_jit_lookup", jit->lookup) ||
      !findSymbol(*library, "moe_jit_destroy", jit->destroy) ||
      !findSymbol(*library, "moe_jit_free_error", jit->freeError))
    return Error{std::string(compilerLibrary) +
                 " is of another version: " + dlerror()};
  // Text parsers need a terminating NUL, which a mapping may lack.
  std::string text(source->data() ? source->data() : "", source->size());
  char *message = nullptr;
  if (jit->create(text.c_str(), text.size(), options.compileOptions.c_str(),
                  &jit->handle, &message) != 0) {
    Error error{options.program + ": cannot compile" +
                (message ? ": " + std::string(message) : std::string())};
    if (message)
      jit->freeError(message);
    return error;
  }
  std::string metadata = jit->metadata(jit->handle);
  for (const std::string &warning : io::readWarnings(metadata))
    std::fprintf(stderr, "moe-run: warning: %s: %s\n", options.program.c_str(),
                 withoutInput(warning));
  auto resolve = [](void *user, const char *symbol) {
    auto *jit = static_cast<Jit *>(user);
    return jit->lookup(jit->handle, symbol);
  };
  if (moe_rt_status_t status =
          moe_rt_module_create(context, metadata.data(), metadata.size(),
                               resolve, jit.get(), &module))
    return takeStatus(status);
  return {};
}

//===----------------------------------------------------------------------===//
// Program
//===----------------------------------------------------------------------===//

Expected<void> Program::load(const Options &options) {
  moe_rt_context_options_t settings = {};
  settings.struct_size = sizeof(settings);
  settings.num_threads = options.threads;
  settings.device = options.device;
  bool isSource = endsWith(options.program, ".mlir") ||
                  endsWith(options.program, ".mlirbc");
  bool onDevice = options.device.device_type != kDLCPU;
  if (isSource && onDevice)
    return Error{options.program +
                 ": MLIR is compiled for this CPU only; for a GPU compile it "
                 "with moe-compile --target=sm_90a,sm_80 and run the artifact"};
  if (moe_rt_status_t status = moe_rt_context_create(&settings, &context))
    return takeStatus(status);
  if (onDevice) {
    Expected<std::unique_ptr<Device>> opened = Device::open(options.device);
    if (!opened)
      return opened.takeError();
    gpu = std::move(*opened);
  }
  if (isSource)
    return compile(options);
  if (moe_rt_status_t status =
          moe_rt_module_load(context, options.program.c_str(), &module))
    return takeStatus(status);
  return {};
}

static Expected<std::vector<Signature>> readRole(const moe_rt_module_t *module,
                                                 const char *function,
                                                 moe_rt_role_t role) {
  size_t count;
  if (moe_rt_status_t status =
          moe_rt_function_tensor_count(module, function, role, &count))
    return takeStatus(status);
  std::vector<Signature> result;
  for (size_t i = 0; i < count; ++i) {
    moe_rt_tensor_info_t info;
    if (moe_rt_status_t status =
            moe_rt_function_tensor_info(module, function, role, i, &info))
      return takeStatus(status);
    result.push_back({info.name, info.dtype,
                      std::vector<int64_t>(info.shape, info.shape + info.ndim),
                      info.alignment, info.num_experts});
  }
  return result;
}

Expected<void> Program::readSignatures() {
  Expected<std::vector<Signature>> inputs =
      readRole(module, name.c_str(), MOE_RT_INPUT);
  if (!inputs)
    return inputs.takeError();
  Expected<std::vector<Signature>> outputs =
      readRole(module, name.c_str(), MOE_RT_OUTPUT);
  if (!outputs)
    return outputs.takeError();
  int64_t minTokens;
  if (moe_rt_status_t status = moe_rt_function_token_range(
          module, name.c_str(), &minTokens, &tokenLimit))
    return takeStatus(status);
  inputList = std::move(*inputs);
  outputList = std::move(*outputs);
  return {};
}

static bool isRandom(const std::string &source) {
  return source == "random" || source.compare(0, 7, "random:") == 0;
}

/// Creates the weights of a function as a WeightBinder or a WeightReader.
template <typename Random, typename Open>
static auto makeWeights(const Options &options,
                        const std::vector<io::WeightSpec> &specs,
                        const io::ProgressFn &progress, Random random,
                        Open open) -> decltype(random(specs, 0, progress)) {
  const std::string &source = options.weights;
  if (isRandom(source)) {
    uint64_t seed = options.seed;
    if (source.size() > 6 && !parseNumber(source.substr(7), seed))
      return Error{"--weights: '" + source.substr(7) +
                   "' is no seed, expected random:N"};
    return random(specs, seed, progress);
  }
  if (source.empty())
    return Error{"the function has " + std::to_string(specs.size()) +
                 " weights, the first is '" + specs[0].name +
                 "': give --weights FILE, DIR or random"};
  Expected<io::Checkpoint> checkpoint = io::Checkpoint::open(source);
  if (!checkpoint)
    return checkpoint.takeError();
  return open(specs, std::make_shared<io::Checkpoint>(std::move(*checkpoint)),
              progress);
}

/// Creates a layer that keeps its weights and reads them in parts.
Expected<void> Program::readWeights(const Options &options,
                                    const std::vector<io::WeightSpec> &specs,
                                    const io::ProgressFn &progress) {
  Expected<io::WeightReader> reader =
      makeWeights(options, specs, progress, io::WeightReader::random,
                  io::WeightReader::open);
  if (!reader)
    return reader.takeError();
  if (moe_rt_status_t status = moe_rt_layer_create_from_source(
          module, name.c_str(), io::WeightReader::read, &*reader, &boundLayer))
    return takeStatus(status);
  return {};
}

/// Creates a layer that reads its weights in place.
Expected<void> Program::bindWeights(const Options &options,
                                    const std::vector<io::WeightSpec> &specs,
                                    const io::ProgressFn &progress) {
  if (!specs.empty()) {
    Expected<io::WeightBinder> binder =
        makeWeights(options, specs, progress, io::WeightBinder::random,
                    io::WeightBinder::bind);
    if (!binder)
      return binder.takeError();
    weights = std::move(*binder);
  }
  if (moe_rt_status_t status =
          moe_rt_layer_create(module, name.c_str(), weights.tensors().data(),
                              weights.tensors().size(), &boundLayer))
    return takeStatus(status);
  return {};
}

Expected<void> Program::makeLayer(const Options &options) {
  Expected<std::vector<io::WeightSpec>> specs = io::readWeightSpecs(
      moe_rt_module_metadata(module), moe_rt_module_variant(module), name);
  if (!specs)
    return specs.takeError();
  // On a GPU the layer keeps all weights in device memory.
  bool prepares = std::any_of(
      specs->begin(), specs->end(),
      [&](const io::WeightSpec &spec) { return gpu || !spec.retained; });
  io::ProgressBar bar("reading weights");
  auto progress = [&](uint64_t done, uint64_t total) {
    bar.update(done, total);
  };
  return prepares ? readWeights(options, *specs, progress)
                  : bindWeights(options, *specs, progress);
}

/// Creates this rank's part of a layer, with its experts.
Expected<void> Program::makeParallelLayer(const Options &options) {
  moe_rt_checkpoint_t *checkpoint = nullptr;
  std::optional<io::WeightReader> reader;
  Tensor table;
  auto prepare = [&]() -> Expected<void> {
    Expected<std::vector<io::WeightSpec>> specs = io::readWeightSpecs(
        moe_rt_module_metadata(module), moe_rt_module_variant(module), name);
    if (!specs)
      return specs.takeError();
    if (!options.table.empty()) {
      Expected<Tensor> read = io::readNpy(options.table);
      if (!read)
        return read.takeError();
      table = std::move(*read);
    }
    if (specs->empty() || isRandom(options.weights)) {
      Expected<io::WeightReader> made =
          makeWeights(options, *specs, nullptr, io::WeightReader::random,
                      io::WeightReader::open);
      if (!made)
        return made.takeError();
      reader.emplace(std::move(*made));
      return {};
    }
    if (options.weights.empty())
      return Error{"the function has " + std::to_string(specs->size()) +
                   " weights, the first is '" + (*specs)[0].name +
                   "': give --weights FILE, DIR or random"};
    if (moe_rt_status_t status =
            moe_rt_checkpoint_open(options.weights.c_str(), &checkpoint))
      return takeStatus(status);
    return {};
  };
  if (Expected<void> agreed = allRanks->agree(prepare()); !agreed) {
    if (checkpoint)
      moe_rt_checkpoint_close(checkpoint);
    return agreed;
  }
  moe_rt_group_options_t settings = {
      sizeof(settings),
      options.deadline,
      0,
      static_cast<int32_t>(options.chunks),
      options.way,
      options.replicated ? MOE_RT_TOKENS_REPLICATED : MOE_RT_TOKENS_SHARDED};
  moe_rt_status_t status = moe_rt_group_create(
      context, &allRanks->communicator(), &settings, &group);
  // There is no group to ask later whether it is dead.
  if (moe_rt_code_t code = moe_rt_status_code(status);
      code == MOE_RT_DEADLINE_EXCEEDED || code == MOE_RT_UNAVAILABLE)
    allRanks->setDead();
  DLTensor experts = table.dlpack();
  const DLTensor *given = options.table.empty() ? nullptr : &experts;
  if (!status && checkpoint)
    status = moe_rt_layer_create_parallel_from_checkpoint(
        module, name.c_str(), group, given, checkpoint, &boundLayer);
  else if (!status)
    status = moe_rt_layer_create_parallel_from_source(
        module, name.c_str(), group, given, io::WeightReader::read, &*reader,
        &boundLayer);
  if (checkpoint)
    moe_rt_checkpoint_close(checkpoint);
  if (status)
    return takeStatus(status);
  return {};
}

/// Returns whether rows of inputs and outputs can be those of some tokens.
Expected<void> Program::checkRows() const {
  for (const std::vector<Signature> *list : {&inputList, &outputList})
    for (const Signature &signature : *list) {
      const std::vector<int64_t> &shape = signature.shape;
      if (!shape.empty() && std::count(shape.begin() + 1, shape.end(), -1) > 0)
        return Error{"--ep: '" + signature.name + "' is " +
                     io::typeName(signature.dtype, shape) +
                     ", expected tokens as its first dimension only"};
    }
  return {};
}

/// Finds the function that is named, or the only one.
Expected<void> Program::choose(const Options &options) {
  name = options.function;
  size_t parallel = moe_rt_module_parallel_count(module);
  if (allRanks && parallel == 0)
    return Error{"--ep: " + options.program +
                 " has no layer for several ranks, expected one that was "
                 "compiled with --parallel=ranks=N"};
  if (!name.empty())
    return {};
  auto nameOf =
      allRanks ? moe_rt_module_parallel_name : moe_rt_module_function_name;
  size_t count = allRanks ? parallel : moe_rt_module_function_count(module);
  if (count == 0 && parallel > 0)
    return Error{options.program +
                 " has layers for several ranks only, expected --ep"};
  if (count != 1) {
    std::string names;
    for (size_t i = 0; i < count; ++i)
      names += std::string(i ? ", " : "") + nameOf(module, i);
    return Error{options.program + " has " + std::to_string(count) +
                 " functions, choose one with --function: " + names};
  }
  name = nameOf(module, 0);
  return {};
}

Expected<std::unique_ptr<Program>> Program::open(const Options &options,
                                                 Ranks *ranks) {
  std::unique_ptr<Program> program(new Program());
  program->allRanks = ranks;
  program->replicated = options.replicated;
  auto prepare = [&]() -> Expected<void> {
    if (Expected<void> result = program->load(options); !result)
      return result;
    if (Expected<void> result = program->choose(options); !result)
      return result;
    if (Expected<void> result = program->readSignatures(); !result)
      return result;
    return ranks ? program->checkRows() : Expected<void>();
  };
  if (Expected<void> agreed = agree(ranks, prepare()); !agreed)
    return agreed.takeError();
  if (Expected<void> result = ranks ? program->makeParallelLayer(options)
                                    : program->makeLayer(options);
      !result)
    return result.takeError();
  return program;
}

std::string Program::target() const {
  std::string found = io::readTarget(moe_rt_module_metadata(module),
                                     moe_rt_module_variant(module));
  return found.empty() ? "unknown target" : found;
}

uint64_t Program::ownedWeightBytes() const {
  return weights.ownedBytes() + moe_rt_layer_weight_bytes(boundLayer);
}

std::vector<WeightError> Program::weightErrors() const {
  std::vector<WeightError> all;
  if (allRanks)
    return all; // each rank knows those of its experts only
  // None of these calls fails for a function whose layer exists.
  size_t weightCount = 0;
  moe_rt_status_free(moe_rt_function_tensor_count(module, name.c_str(),
                                                  MOE_RT_WEIGHT, &weightCount));
  for (size_t i = 0; i < weightCount; ++i) {
    const float *errors = nullptr;
    size_t count = 0;
    moe_rt_status_free(
        moe_rt_layer_quantization_errors(boundLayer, i, &errors, &count));
    if (count == 0)
      continue;
    moe_rt_tensor_info_t info = {};
    moe_rt_status_free(moe_rt_function_tensor_info(module, name.c_str(),
                                                   MOE_RT_WEIGHT, i, &info));
    all.push_back({info.name, {errors, errors + count}});
  }
  return all;
}

Program::~Program() {
  if (group)
    if (moe_rt_status_t status = moe_rt_group_status(group)) {
      moe_rt_status_free(status);
      allRanks->setDead();
    }
  moe_rt_layer_destroy(boundLayer);
  moe_rt_group_destroy(group);
  moe_rt_module_destroy(module);
  jit.reset();
  moe_rt_context_destroy(context);
}
