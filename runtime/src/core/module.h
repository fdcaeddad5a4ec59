//===- module.h - Modules ---------------------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_CORE_MODULE_H
#define MOE_RT_SRC_CORE_MODULE_H

#include "artifact/object.h"
#include "artifact/signature.h"
#include "core/context.h"

struct moe_rt_module_s {
  moe_rt_context_t *context;
  std::string text; // of the metadata
  size_t variantIndex = 0;
  moe::rt::Variant variant;     // that of this machine
  moe::rt::LoadedObject object; // empty for code of a JIT
  std::unique_ptr<moe::rt::Program> program;
};

namespace moe::rt {

/// The function of that name; of no name, the only function.
moe_rt_status_t findFunction(const moe_rt_module_t *module, const char *name,
                             const Function *&out);

/// The layer for several ranks of that name; of no name, the only one.
moe_rt_status_t findParallel(const moe_rt_module_t *module, const char *name,
                             const ParallelFunction *&out);

} // namespace moe::rt

#endif // MOE_RT_SRC_CORE_MODULE_H
