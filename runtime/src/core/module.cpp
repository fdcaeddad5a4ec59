//===- module.cpp - Modules -----------------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "core/module.h"
#include "artifact/artifact_reader.h"
#include "artifact/parallel.h"

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

using namespace moe::rt;

moe_rt_status_t moe::rt::findFunction(const moe_rt_module_t *module,
                                      const char *name, const Function *&out) {
  const Variant &variant = module->variant;
  if (!name) {
    if (variant.callable.size() != 1)
      return makeError(MOE_RT_INVALID_ARGUMENT,
                       "no function is named and the module has %zu, expected "
                       "one",
                       variant.callable.size());
    out = &variant.functions[variant.callable[0]];
    return nullptr;
  }
  std::string known;
  for (size_t index : variant.callable) {
    const Function &function = variant.functions[index];
    if (function.name == name) {
      out = &function;
      return nullptr;
    }
    known += known.empty() ? "'" : ", '";
    known += function.name + "'";
  }
  for (const auto &layer : variant.parallel)
    if (layer->signature.name == name)
      return makeError(MOE_RT_INVALID_ARGUMENT,
                       "'%s' is a layer for several ranks, expected a function "
                       "or moe_rt_layer_create_parallel",
                       name);
  return makeError(MOE_RT_NOT_FOUND,
                   "the module has no function '%s'; it has: %s", name,
                   known.empty() ? "none" : known.c_str());
}

moe_rt_status_t moe::rt::findParallel(const moe_rt_module_t *module,
                                      const char *name,
                                      const ParallelFunction *&out) {
  const auto &layers = module->variant.parallel;
  if (!name && layers.size() != 1)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "no layer is named and the module has %zu for several "
                     "ranks, expected one",
                     layers.size());
  std::string known;
  for (const auto &layer : layers) {
    if (!name || layer->signature.name == name) {
      out = layer.get();
      return nullptr;
    }
    known += (known.empty() ? "'" : ", '") + layer->signature.name + "'";
  }
  return makeError(MOE_RT_NOT_FOUND,
                   "the module has no layer '%s' for several ranks; it has: %s",
                   name, known.empty() ? "none" : known.c_str());
}

/// The signature of a function, or of a layer for several ranks; of no name,
/// the only one.
static moe_rt_status_t findSignature(const moe_rt_module_t *module,
                                     const char *name, const Function *&out) {
  const Variant &variant = module->variant;
  bool isOnly = !name && variant.callable.empty();
  for (const auto &layer : variant.parallel)
    if (name ? layer->signature.name == name
             : isOnly && variant.parallel.size() == 1) {
      out = &layer->signature;
      return nullptr;
    }
  return findFunction(module, name, out);
}

/// What messages call a variant.
static std::string nameOf(const Variant &variant) {
  if (variant.device)
    return variant.device->arch.name();
  return variant.cpu.empty() ? variant.triple : variant.cpu;
}

/// Find the first variant that this machine can run.
static moe_rt_status_t selectVariant(const moe_rt_context_t &context,
                                     const std::vector<Variant> &variants,
                                     size_t &out) {
  std::string reasons;
  for (size_t i = 0; i < variants.size(); ++i) {
    moe_rt_status_t status = context.device->checkVariant(variants[i]);
    if (!status) {
      out = i;
      return nullptr;
    }
    if (i > 0)
      reasons += "; ";
    if (variants.size() > 1)
      reasons +=
          "variant " + std::to_string(i) + " (" + nameOf(variants[i]) + "): ";
    reasons += moe_rt_status_message(status);
    moe_rt_status_free(status);
  }
  return makeError(MOE_RT_FAILED_PRECONDITION, "cannot run on this machine: %s",
                   reasons.c_str());
}

/// Read the metadata and check that its code can run here.
static moe_rt_status_t describe(moe_rt_module_t &module, const char *metadata,
                                size_t size) {
  Metadata parsed;
  MOE_RT_TRY(parseMetadata(metadata, size, parsed));
  MOE_RT_TRY(
      selectVariant(*module.context, parsed.variants, module.variantIndex));
  module.variant = std::move(parsed.variants[module.variantIndex]);
  module.text.assign(metadata, size);
  return nullptr;
}

static moe_rt_status_t resolveSymbol(moe_rt_resolve_fn resolve, void *user,
                                     const Function &function,
                                     const std::string &symbol, void *&out) {
  out = resolve(user, symbol.c_str());
  if (!out)
    return makeError(MOE_RT_NOT_FOUND,
                     "function '%s': its code does not define symbol '%s'",
                     function.name.c_str(), symbol.c_str());
  return nullptr;
}

/// Find the kernels' images.
static moe_rt_status_t resolveImages(moe_rt_module_t &module,
                                     moe_rt_resolve_fn resolve, void *user) {
  for (Image &image : module.variant.device->images) {
    image.data = resolve(user, image.symbol.c_str());
    if (!image.data)
      return makeError(MOE_RT_NOT_FOUND,
                       "the code does not define symbol '%s', its %s",
                       image.symbol.c_str(), image.describe().c_str());
  }
  return nullptr;
}

/// The bytes of the images that the metadata describes are the object's.
static moe_rt_status_t checkImages(const moe_rt_module_t &module) {
  if (!module.variant.device)
    return nullptr;
  for (const Image &image : module.variant.device->images) {
    size_t size = module.object.sizeOf(image.data);
    if (size < image.size)
      return makeError(MOE_RT_DATA_LOSS,
                       "symbol '%s' has %zu bytes, the metadata says %zu",
                       image.symbol.c_str(), size, image.size);
  }
  return nullptr;
}

static moe_rt_status_t resolveAll(moe_rt_module_t &module,
                                  moe_rt_resolve_fn resolve, void *user) {
  for (Function &function : module.variant.functions) {
    void *workspace;
    MOE_RT_TRY(resolveSymbol(resolve, user, function, function.entry,
                             function.entryAddress));
    MOE_RT_TRY(
        resolveSymbol(resolve, user, function, function.workspace, workspace));
    function.workspaceFn = reinterpret_cast<moe_rt_workspace_fn>(workspace);
  }
  if (module.variant.device)
    MOE_RT_TRY(resolveImages(module, resolve, user));
  return module.context->device->load(module.variant, module.program);
}

static void *resolveInObject(void *user, const char *symbol) {
  return static_cast<LoadedObject *>(user)->find(symbol);
}

static moe_rt_status_t newModule(moe_rt_context_t *context,
                                 std::unique_ptr<moe_rt_module_t> &out) {
  out.reset(new (std::nothrow) moe_rt_module_t);
  if (!out)
    return makeError(MOE_RT_RESOURCE_EXHAUSTED, "cannot allocate the module");
  out->context = context;
  return nullptr;
}

static moe_rt_status_t loadParts(moe_rt_module_t &module,
                                 const ArtifactView &view) {
  MOE_RT_TRY(describe(module, view.metadata, view.metadataSize));
  MOE_RT_TRY(checkObject(view.object, view.objectSize));
  MOE_RT_TRY(module.object.load(view.object, view.objectSize));
  MOE_RT_TRY(resolveAll(module, resolveInObject, &module.object));
  return checkImages(module);
}

static moe_rt_status_t loadBytes(moe_rt_context_t *context, const void *data,
                                 size_t size, const char *name,
                                 moe_rt_module_t **out) {
  ArtifactView view;
  MOE_RT_TRY(verifyArtifact(data, size, name, view));
  std::unique_ptr<moe_rt_module_t> module;
  MOE_RT_TRY(newModule(context, module));
  if (moe_rt_status_t status = loadParts(*module, view))
    return wrapError(moe_rt_status_code(status), name, status);
  *out = module.release();
  return nullptr;
}

static moe_rt_status_t requireArguments(const char *function, bool given) {
  return given ? nullptr
               : makeError(MOE_RT_INVALID_ARGUMENT, "%s: an argument is NULL",
                           function);
}

static moe_rt_status_t checkRole(moe_rt_role_t role) {
  if (role == MOE_RT_INPUT || role == MOE_RT_WEIGHT || role == MOE_RT_OUTPUT)
    return nullptr;
  return makeError(MOE_RT_INVALID_ARGUMENT, "role is %d, expected 0 to 2",
                   static_cast<int>(role));
}

extern "C" {

moe_rt_status_t moe_rt_module_load(moe_rt_context_t *context, const char *path,
                                   moe_rt_module_t **out) {
  MOE_RT_TRY(requireArguments("moe_rt_module_load", context && path && out));
  void *data = nullptr;
  size_t size = 0;
  MOE_RT_TRY(readFile(path, data, size));
  moe_rt_status_t status = loadBytes(context, data, size, path, out);
  std::free(data);
  return status;
}

moe_rt_status_t moe_rt_module_load_memory(moe_rt_context_t *context,
                                          const void *data, size_t size,
                                          moe_rt_module_t **out) {
  MOE_RT_TRY(
      requireArguments("moe_rt_module_load_memory", context && data && out));
  // A copy, so that what was verified is what runs.
  void *copy = std::malloc(size + 1);
  if (!copy)
    return makeError(MOE_RT_RESOURCE_EXHAUSTED,
                     "cannot allocate %zu bytes for the artifact", size);
  std::memcpy(copy, data, size);
  moe_rt_status_t status = loadBytes(context, copy, size, "artifact", out);
  std::free(copy);
  return status;
}

moe_rt_status_t moe_rt_module_create(moe_rt_context_t *context,
                                     const char *metadata, size_t metadata_size,
                                     moe_rt_resolve_fn resolve, void *user,
                                     moe_rt_module_t **out) {
  MOE_RT_TRY(requireArguments("moe_rt_module_create",
                              context && metadata && resolve && out));
  std::unique_ptr<moe_rt_module_t> module;
  MOE_RT_TRY(newModule(context, module));
  MOE_RT_TRY(describe(*module, metadata, metadata_size));
  MOE_RT_TRY(resolveAll(*module, resolve, user));
  *out = module.release();
  return nullptr;
}

void moe_rt_module_destroy(moe_rt_module_t *module) { delete module; }

const char *moe_rt_module_metadata(const moe_rt_module_t *module) {
  return module ? module->text.c_str() : "";
}

size_t moe_rt_module_variant(const moe_rt_module_t *module) {
  return module ? module->variantIndex : 0;
}

size_t moe_rt_module_function_count(const moe_rt_module_t *module) {
  return module ? module->variant.callable.size() : 0;
}

const char *moe_rt_module_function_name(const moe_rt_module_t *module,
                                        size_t index) {
  if (index >= moe_rt_module_function_count(module))
    return nullptr;
  const Variant &variant = module->variant;
  return variant.functions[variant.callable[index]].name.c_str();
}

moe_rt_status_t moe_rt_function_tensor_count(const moe_rt_module_t *module,
                                             const char *function,
                                             moe_rt_role_t role, size_t *out) {
  MOE_RT_TRY(requireArguments("moe_rt_function_tensor_count", module && out));
  MOE_RT_TRY(checkRole(role));
  const Function *found;
  MOE_RT_TRY(findSignature(module, function, found));
  *out = found->indices(role).size();
  return nullptr;
}

moe_rt_status_t moe_rt_function_tensor_info(const moe_rt_module_t *module,
                                            const char *function,
                                            moe_rt_role_t role, size_t index,
                                            moe_rt_tensor_info_t *out) {
  MOE_RT_TRY(requireArguments("moe_rt_function_tensor_info", module && out));
  MOE_RT_TRY(checkRole(role));
  const Function *found;
  MOE_RT_TRY(findSignature(module, function, found));
  const std::vector<size_t> &indices = found->indices(role);
  if (index >= indices.size())
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "function '%s' has %zu tensors of that role, there is no "
                     "index %zu",
                     found->name.c_str(), indices.size(), index);
  const Argument &argument = found->arguments[indices[index]];
  *out = {argument.name.c_str(), role,
          argument.dtype,        static_cast<int32_t>(argument.shape.size()),
          argument.shape.data(), argument.alignment,
          argument.numExperts,   argument.retained};
  return nullptr;
}

moe_rt_status_t moe_rt_function_token_range(const moe_rt_module_t *module,
                                            const char *function,
                                            int64_t *min_tokens,
                                            int64_t *max_tokens) {
  MOE_RT_TRY(requireArguments("moe_rt_function_token_range",
                              module && min_tokens && max_tokens));
  const Function *found;
  MOE_RT_TRY(findSignature(module, function, found));
  *min_tokens = found->minTokens;
  *max_tokens = found->maxTokens;
  return nullptr;
}

} // extern "C"
