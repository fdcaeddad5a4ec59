//===- CodeGeneration.cpp - LLVM IR, assembly and objects -----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Target/CodeEmission.h"
#include "moe/Target/Target.h"

#include "mlir/Target/LLVMIR/Dialect/Builtin/BuiltinToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/LLVMIR/LLVMToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Export.h"
#include "llvm/MC/MCSubtargetInfo.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/TargetParser/Host.h"

using namespace mlir;
using namespace mlir::moe;

static llvm::Error error(const llvm::Twine &message) {
  return llvm::createStringError(llvm::inconvertibleErrorCode(), message);
}

static void initializeTargets() {
  static bool once = [] {
    llvm::InitializeNativeTarget();
    llvm::InitializeNativeTargetAsmPrinter();
    llvm::InitializeNativeTargetAsmParser();
    return true;
  }();
  (void)once;
}

/// True if numeric code gains from a feature. The others (system, cryptography)
/// are left out of the target, so that an artifact requires only the features
/// that it uses.
static bool isComputational(llvm::StringRef feature) {
  static constexpr llvm::StringRef names[] = {
      // x86-64
      "bmi", "bmi2", "cmov", "cx8", "f16c", "fma", "lzcnt", "mmx", "movbe",
      "popcnt", "sse", "sse2", "sse3", "ssse3", "sse4.1", "sse4.2", "avx",
      "avx2", "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl",
      "avx512bf16", "avx512fp16", "avx512vbmi", "avx512vbmi2", "avx512vnni",
      "avx512ifma", "avx512bitalg", "avx512vpopcntdq", "avxvnni",
      // AArch64
      "fp-armv8", "neon", "fullfp16", "bf16", "dotprod", "i8mm"};
  return llvm::is_contained(names, feature);
}

/// Returns the computational features of a CPU by its name.
static llvm::Expected<llvm::SmallVector<std::string>>
featuresOf(const llvm::Target &target, llvm::StringRef triple,
           llvm::StringRef cpu) {
  // Created without a CPU first: given one that it does not know, LLVM prints a
  // warning and goes on.
  std::unique_ptr<llvm::MCSubtargetInfo> info(
      target.createMCSubtargetInfo(llvm::Triple(triple), "", ""));
  bool known = info && info->isCPUStringValid(cpu);
  if (known)
    info.reset(target.createMCSubtargetInfo(llvm::Triple(triple), cpu, ""));
  if (!known || !info)
    return error(
        "unknown target '" + cpu + "' for " + triple +
        "; expected 'host', the name of a processor or that of a GPU's "
        "architecture, such as sm_90a");
  llvm::SmallVector<std::string> features;
  for (const llvm::SubtargetFeatureKV &feature :
       info->getEnabledProcessorFeatures())
    if (isComputational(feature.Key))
      features.push_back(feature.Key);
  return features;
}

/// Returns the baseline CPU of an architecture.
static llvm::StringRef baselineCPU(llvm::StringRef triple) {
  return llvm::Triple(triple).getArch() == llvm::Triple::x86_64 ? "x86-64"
                                                                : "generic";
}

llvm::Expected<TargetDescription>
TargetDescription::parse(llvm::StringRef name) {
  initializeTargets();
  TargetDescription description;
  description.triple = llvm::sys::getProcessTriple();
  std::string message;
  const llvm::Target *target = llvm::TargetRegistry::lookupTarget(
      llvm::Triple(description.triple), message);
  if (!target)
    return error(message);
  if (name.starts_with("sm_")) {
    // Any CPU can launch kernels.
    description.device = name.str();
    description.cpu = baselineCPU(description.triple).str();
    auto features = featuresOf(*target, description.triple, description.cpu);
    if (!features)
      return features.takeError();
    description.features = std::move(*features);
    return description;
  }
  if (name == "host") {
    description.cpu = llvm::sys::getHostCPUName().str();
    for (const auto &[feature, present] : llvm::sys::getHostCPUFeatures())
      if (present && isComputational(feature))
        description.features.push_back(feature.str());
    llvm::sort(description.features);
    return description;
  }
  description.cpu = name.str();
  auto features = featuresOf(*target, description.triple, name);
  if (!features)
    return features.takeError();
  description.features = std::move(*features);
  return description;
}

llvm::Expected<llvm::SmallVector<TargetDescription, 0>>
mlir::moe::parseTargets(llvm::StringRef names) {
  llvm::SmallVector<llvm::StringRef> parts;
  names.split(parts, ',');
  llvm::SmallVector<TargetDescription, 0> targets;
  for (auto [i, name] : llvm::enumerate(parts)) {
    if (llvm::is_contained(llvm::ArrayRef(parts).take_front(i), name))
      return error("target '" + name + "' is given twice");
    auto target = TargetDescription::parse(name);
    if (!target)
      return target.takeError();
    targets.push_back(std::move(*target));
  }
  return targets;
}

llvm::Expected<std::unique_ptr<llvm::TargetMachine>>
TargetDescription::createTargetMachine() const {
  initializeTargets();
  std::string message;
  const llvm::Target *target =
      llvm::TargetRegistry::lookupTarget(llvm::Triple(triple), message);
  if (!target)
    return error(message);
  std::string enabled;
  for (const std::string &feature : features)
    enabled += (enabled.empty() ? "+" : ",+") + feature;
  // The name of the CPU selects its scheduling model only: it must not add
  // features beyond those that are listed and checked.
  std::unique_ptr<llvm::TargetMachine> machine(target->createTargetMachine(
      llvm::Triple(triple), baselineCPU(triple), enabled, llvm::TargetOptions(),
      llvm::Reloc::PIC_, std::nullopt, llvm::CodeGenOptLevel::Default));
  if (!machine)
    return error("no code generator for " + triple);
  return machine;
}

llvm::Expected<std::unique_ptr<llvm::Module>>
mlir::moe::translateToLLVMIR(const Variant &variant, llvm::LLVMContext &context,
                             llvm::TargetMachine &machine) {
  ModuleOp module = variant.module;
  registerBuiltinDialectTranslation(*module->getContext());
  registerLLVMDialectTranslation(*module->getContext());
  std::unique_ptr<llvm::Module> translated =
      translateModuleToLLVMIR(module, context);
  if (!translated)
    return error("the module does not translate to LLVM IR");
  translated->setTargetTriple(machine.getTargetTriple());
  translated->setDataLayout(machine.createDataLayout());
  for (llvm::Function &function : *translated) {
    if (function.isDeclaration())
      continue;
    function.addFnAttr("target-cpu", machine.getTargetCPU());
    function.addFnAttr("tune-cpu", variant.target.cpu);
    function.addFnAttr("target-features", machine.getTargetFeatureString());
    function.addFnAttr(llvm::Attribute::NoUnwind);
  }
  // The kernel builders unroll; unrolling other loops costs compile time and
  // gains nothing.
  llvm::PipelineTuningOptions tuning;
  tuning.LoopUnrolling = false;
  tuning.LoopInterleaving = false;
  tuning.SLPVectorization = false;
  optimize(*translated, machine, llvm::OptimizationLevel::O2, tuning);
  for (llvm::GlobalValue &value : translated->global_values())
    if (!value.isDeclaration() && !value.hasLocalLinkage())
      value.setName(value.getName() + variant.symbolSuffix);
  return translated;
}
