//===- nvtx.cpp - Ranges for NVIDIA's profilers ---------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "cuda/nvtx.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <dlfcn.h>

using namespace moe::rt::cuda;

//===----------------------------------------------------------------------===//
// The interface to tools: layouts and numbers are those of NVTX 3
//===----------------------------------------------------------------------===//

namespace {

using Function = void (*)();
// One pointer to a pointer for each function of a module, the first unused.
using FunctionTable = Function **;

enum Module : int { moduleCore = 1, moduleCore2 = 5 };
enum ExportTable : uint32_t { callbacksTable = 1, versionTable = 3 };
// Of the module core.
constexpr unsigned rangePushA = 9, rangePop = 11, coreSize = 16;
constexpr unsigned core2Size = 16;

struct Callbacks {
  size_t structSize;
  int (*getModuleFunctionTable)(int module, FunctionTable *table,
                                unsigned *size);
};

struct VersionInfo {
  size_t structSize;
  uint32_t version;
  uint32_t reserved;
  void (*setInjectionVersion)(uint32_t version);
};

using GetExportTable = const void *(*)(uint32_t id);
using Initialize = int (*)(GetExportTable);

/// The functions that a tool may set; null: not there.
struct Functions {
  Function core[coreSize] = {};
  Function core2[core2Size] = {};
  Function *coreTable[coreSize + 1] = {};
  Function *core2Table[core2Size + 1] = {};

  Functions() {
    for (unsigned i = 1; i < coreSize; ++i)
      coreTable[i] = &core[i];
    for (unsigned i = 1; i < core2Size; ++i)
      core2Table[i] = &core2[i];
  }
};

} // namespace

static Functions &functions() {
  static auto &all = *new Functions; // a tool may use it until the end
  return all;
}

static int getModuleFunctionTable(int module, FunctionTable *table,
                                  unsigned *size) {
  if (module != moduleCore && module != moduleCore2)
    return 0;
  bool core = module == moduleCore;
  if (size)
    *size = core ? coreSize : core2Size;
  if (table)
    *table = core ? functions().coreTable : functions().core2Table;
  return 1;
}

static const void *getExportTable(uint32_t id) {
  static const Callbacks callbacks = {sizeof(Callbacks),
                                      getModuleFunctionTable};
  static const VersionInfo version = {sizeof(VersionInfo), 3, 0,
                                      [](uint32_t) {}};
  if (id == callbacksTable)
    return &callbacks;
  return id == versionTable ? &version : nullptr;
}

/// Let the tool set its functions. What it does not set stays null.
static bool attach() {
  const char *path = std::getenv("NVTX_INJECTION64_PATH");
  if (!path || !*path)
    return false;
  void *library = dlopen(path, RTLD_LAZY);
  if (!library)
    return false;
  auto initialize =
      reinterpret_cast<Initialize>(dlsym(library, "InitializeInjectionNvtx2"));
  return initialize && initialize(getExportTable) != 0;
}

static bool isAttached() {
  static const bool attached = attach();
  return attached;
}

//===----------------------------------------------------------------------===//
// NvtxRange
//===----------------------------------------------------------------------===//

NvtxRange::NvtxRange(const std::string &name) {
  if (!isAttached())
    return;
  // A tool that cannot pop is not asked to push.
  Function push = functions().core[rangePushA];
  if (!push || !functions().core[rangePop])
    return;
  reinterpret_cast<int (*)(const char *)>(push)(name.c_str());
  pushed = true;
}

NvtxRange::~NvtxRange() {
  if (pushed)
    reinterpret_cast<int (*)()>(functions().core[rangePop])();
}
