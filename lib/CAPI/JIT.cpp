//===- JIT.cpp - Compile in process, behind a C interface -----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe-c/JIT.h"
#include "PerfMap.h"
#include "moe/Driver/Driver.h"
#include "moe/Target/Remarks.h"

#include "mlir/Parser/Parser.h"
#include "llvm/ExecutionEngine/Orc/CompileUtils.h"
#include "llvm/ExecutionEngine/Orc/LLJIT.h"
#include "llvm/Support/SourceMgr.h"

#include <cstdlib>
#include <cstring>

using namespace mlir;

struct moe_jit_s {
  std::unique_ptr<llvm::orc::LLJIT> jit;
  std::string metadata;
};

/// Parses and lowers the module; diagnostics go to the error.
static llvm::Expected<moe::Program> lower(MLIRContext &context,
                                          llvm::StringRef text,
                                          const moe::TargetDescription &target,
                                          const moe::CompileOptions &options) {
  std::string messages;
  llvm::raw_string_ostream stream(messages);
  llvm::SourceMgr sources;
  sources.AddNewSourceBuffer(
      llvm::MemoryBuffer::getMemBufferCopy(text, "<input>"), llvm::SMLoc());
  SourceMgrDiagnosticHandler handler(sources, &context, stream);
  auto module = parseSourceFile<ModuleOp>(sources, &context);
  FailureOr<moe::Program> program = failure();
  if (module)
    program = moe::lowerProgram(*module, target, options);
  if (failed(program))
    return llvm::createStringError(llvm::StringRef(messages).rtrim());
  return std::move(*program);
}

static llvm::Expected<std::unique_ptr<moe_jit_s>>
create(llvm::StringRef text, llvm::StringRef optionText) {
  moe::registerCompilePasses();
  auto options = moe::parseCompileOptions(optionText);
  if (!options)
    return options.takeError();
  auto targets = moe::parseTargets(options->target);
  if (!targets)
    return targets.takeError();
  if (targets->size() != 1)
    return llvm::createStringError("--target: expected one target, got '" +
                                   options->target + "'");
  auto machine = targets->front().createTargetMachine();
  if (!machine)
    return machine.takeError();

  DialectRegistry registry;
  moe::registerCompileDialects(registry);
  MLIRContext context(registry);
  context.printOpOnDiagnostic(false); // the error has no room for it
  auto remarks = moe::RemarkListener::install(context);
  if (!remarks)
    return remarks.takeError();
  auto program = lower(context, text, targets->front(), *options);
  if (!program)
    return program.takeError();
  const moe::Variant &variant = program->variants.front();
  auto metadata = moe::buildMetadata(variant, (*remarks)->getWarnings());
  if (!metadata)
    return metadata.takeError();
  auto llvmContext = std::make_unique<llvm::LLVMContext>();
  auto code = moe::translateToLLVMIR(variant, *llvmContext, **machine);
  if (!code)
    return code.takeError();

  // Uses the code generator of ahead-of-time compilation, for bitwise equal
  // results.
  auto jit =
      llvm::orc::LLJITBuilder()
          .setJITTargetMachineBuilder(llvm::orc::JITTargetMachineBuilder(
              llvm::Triple(variant.target.triple)))
          .setCompileFunctionCreator(
              [&](llvm::orc::JITTargetMachineBuilder)
                  -> llvm::Expected<
                      std::unique_ptr<llvm::orc::IRCompileLayer::IRCompiler>> {
                return std::make_unique<llvm::orc::TMOwningSimpleCompiler>(
                    std::move(*machine));
              })
          .create();
  if (!jit)
    return jit.takeError();
  moe::writePerfMap(**jit);
  auto generator =
      llvm::orc::DynamicLibrarySearchGenerator::GetForCurrentProcess(
          (*jit)->getDataLayout().getGlobalPrefix());
  if (!generator)
    return generator.takeError();
  (*jit)->getMainJITDylib().addGenerator(std::move(*generator));
  if (llvm::Error error = (*jit)->addIRModule(llvm::orc::ThreadSafeModule(
          std::move(*code), std::move(llvmContext))))
    return error;
  auto result = std::make_unique<moe_jit_s>();
  result->jit = std::move(*jit);
  result->metadata = std::move(*metadata);
  return result;
}

int moe_jit_create(const char *text, size_t size, const char *options,
                   moe_jit_t **out, char **error) {
  auto jit = text && out
                 ? create(llvm::StringRef(text, size), options ? options : "")
                 : llvm::createStringError("expected text and out, got null");
  if (jit) {
    *out = jit->release();
    return 0;
  }
  std::string message = llvm::toString(jit.takeError());
  if (error)
    *error = strdup(message.c_str());
  return 1;
}

const char *moe_jit_metadata(moe_jit_t *jit) { return jit->metadata.c_str(); }

void *moe_jit_lookup(moe_jit_t *jit, const char *symbol) {
  auto address = jit->jit->lookup(symbol);
  if (address)
    return address->toPtr<void *>();
  llvm::consumeError(address.takeError());
  return nullptr;
}

void moe_jit_destroy(moe_jit_t *jit) { delete jit; }

void moe_jit_free_error(char *error) { std::free(error); }
