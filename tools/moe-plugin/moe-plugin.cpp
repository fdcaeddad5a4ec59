//===- moe-plugin.cpp - The dialect and the passes as a plugin ------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//   mlir-opt --load-dialect-plugin=MoEPlugin.so --load-pass-plugin=MoEPlugin.so
//     --moe-fuse layer.mlir
//
//===----------------------------------------------------------------------===//

#include "moe/InitAll.h"

#include "mlir/Pass/PassRegistry.h"
#include "mlir/Tools/Plugins/DialectPlugin.h"
#include "mlir/Tools/Plugins/PassPlugin.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/CommandLine.h"
#include "llvm/Support/Compiler.h"
#include "llvm/Support/WithColor.h"

namespace cl = llvm::cl;

//===----------------------------------------------------------------------===//
// Passes as options
//===----------------------------------------------------------------------===//
//
// mlir-opt registers an option for each pass before it loads a plugin. It lists
// the passes of the plugin in its help, but rejects their options. This sink
// receives unknown options and appends those that name a pass or pipeline to
// --pass-pipeline.

static void fail(const llvm::Twine &message) {
  llvm::WithColor::error(llvm::errs(), "MoEPlugin") << message << "\n";
  std::exit(1);
}

/// Converts `--NAME` or `--NAME=OPTIONS` to an element of a textual pipeline on
/// modules.
static std::string parsePassOption(llvm::StringRef argument) {
  auto [name, options] = argument.ltrim('-').split('=');
  const mlir::PassRegistryEntry *entry = mlir::PassPipelineInfo::lookup(name);
  if (!entry)
    entry = mlir::PassInfo::lookup(name);
  if (!entry)
    fail("unknown command line argument '" + argument + "'");
  std::string element = name.str();
  if (!options.empty())
    element += ("{" + options + "}").str();
  // Printing the pipeline adds the nesting of a pass on nested operations.
  mlir::OpPassManager nested(mlir::ModuleOp::getOperationName(),
                             mlir::OpPassManager::Nesting::Implicit);
  if (failed(entry->addToPipeline(nested, options, [](const llvm::Twine &text) {
        fail(text);
        return mlir::failure();
      })))
    fail("cannot add '" + argument + "'");
  std::string printed;
  llvm::raw_string_ostream stream(printed);
  nested.printAsTextualPipeline(stream);
  llvm::StringRef inner = printed;
  (void)inner.consume_front("builtin.module(");
  llvm::StringRef anchor = inner.take_until(
      [](char c) { return llvm::StringRef("({,)").contains(c); });
  bool isNested = nested.size() == 1 && anchor != "any" && anchor != name &&
                  inner.substr(anchor.size()).starts_with("(");
  return isNested ? (anchor + "(" + element + ")").str() : element;
}

static void addToPassPipeline(const std::string &argument) {
  static std::string pipeline;
  cl::Option *option = cl::getRegisteredOptions().lookup("pass-pipeline");
  if (!option)
    fail("this tool has no --pass-pipeline to add '" + argument + "' to");
  bool isFirst = pipeline.empty();
  pipeline += (isFirst ? "" : ",") + parsePassOption(argument);
  // The tool reports an error if the option is already given.
  if (option->addOccurrence(0, "pass-pipeline",
                            "builtin.module(" + pipeline + ")",
                            /*MultiArg=*/!isFirst))
    std::exit(1);
}

static void registerPassOptions() {
  static cl::list<std::string> unknown(
      cl::Sink, cl::Hidden,
      cl::callback([](const std::string &text) { addToPassPipeline(text); }));
}

//===----------------------------------------------------------------------===//
// Entry points
//===----------------------------------------------------------------------===//

extern "C" LLVM_ATTRIBUTE_VISIBILITY_DEFAULT mlir::DialectPluginLibraryInfo
mlirGetDialectPluginInfo() {
  return {MLIR_PLUGIN_API_VERSION, "MoE", MOE_VERSION_STRING,
          [](mlir::DialectRegistry *registry) {
            mlir::moe::registerAllDialects(*registry);
            mlir::moe::registerAllExtensions(*registry);
          }};
}

extern "C" LLVM_ATTRIBUTE_VISIBILITY_DEFAULT mlir::PassPluginLibraryInfo
mlirGetPassPluginInfo() {
  return {MLIR_PLUGIN_API_VERSION, "MoE", MOE_VERSION_STRING, [] {
            mlir::moe::registerAllPasses();
            mlir::moe::registerAllPipelines();
            registerPassOptions();
          }};
}
