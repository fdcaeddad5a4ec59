//===- PerfMap.cpp - Symbols of JIT code for profilers --------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "PerfMap.h"

#include "llvm/ExecutionEngine/JITLink/JITLink.h"
#include "llvm/ExecutionEngine/Orc/ObjectLinkingLayer.h"
#include "llvm/Support/raw_ostream.h"

#include <cstdlib>
#include <fcntl.h>
#include <unistd.h>

using namespace llvm;
using namespace mlir;

static bool isNamedFunction(jitlink::Symbol &symbol) {
  return symbol.isCallable() && symbol.hasName() && symbol.getSize() > 0;
}

/// Keeps local symbols that nothing refers to by name.
static Error keepSymbols(jitlink::LinkGraph &graph) {
  for (jitlink::Symbol *symbol : graph.defined_symbols())
    if (isNamedFunction(*symbol))
      symbol->setLive(true);
  return Error::success();
}

/// Appends "START SIZE NAME" for each function of a linked object.
static Error append(jitlink::LinkGraph &graph) {
  std::string path = "/tmp/perf-" + std::to_string(getpid()) + ".map";
  // Nobody else's file: the directory is shared.
  int file = open(path.c_str(),
                  O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (file < 0)
    return Error::success();
  std::string lines;
  raw_string_ostream stream(lines);
  for (jitlink::Symbol *symbol : graph.defined_symbols())
    if (isNamedFunction(*symbol))
      stream << format_hex_no_prefix(symbol->getAddress().getValue(), 1) << " "
             << format_hex_no_prefix(symbol->getSize(), 1) << " "
             << *symbol->getName() << "\n";
  raw_fd_ostream(file, /*shouldClose=*/true) << lines;
  return Error::success();
}

namespace {
class PerfMapPlugin : public orc::ObjectLinkingLayer::Plugin {
public:
  void modifyPassConfig(orc::MaterializationResponsibility &,
                        jitlink::LinkGraph &,
                        jitlink::PassConfiguration &config) override {
    config.PrePrunePasses.push_back(keepSymbols);
    config.PostFixupPasses.push_back(append);
  }
  Error notifyFailed(orc::MaterializationResponsibility &) override {
    return Error::success();
  }
  Error notifyRemovingResources(orc::JITDylib &, orc::ResourceKey) override {
    return Error::success();
  }
  void notifyTransferringResources(orc::JITDylib &, orc::ResourceKey,
                                   orc::ResourceKey) override {}
};
} // namespace

void moe::writePerfMap(orc::LLJIT &jit) {
  const char *directory = std::getenv("MOE_PERF_DIR");
  if (!directory || !*directory)
    return;
  if (auto *layer =
          dyn_cast<orc::ObjectLinkingLayer>(&jit.getObjLinkingLayer()))
    layer->addPlugin(std::make_shared<PerfMapPlugin>());
}
