//===- SerializeKernels.cpp - Compile kernels to PTX ----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Conversion/MoEToGPU/MoEToGPU.h"
#include "moe/Dialect/MoE/IR/MoEABI.h"
#include "moe/Target/CodeEmission.h"
#include "moe/Target/NVPTX/Passes.h"

#include "mlir/Target/LLVMIR/Dialect/Builtin/BuiltinToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/GPU/GPUToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/LLVMIR/LLVMToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/NVVM/NVVMToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Export.h"
#include "llvm/IR/InstIterator.h"
#include "llvm/IR/Instructions.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Support/TargetSelect.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOESERIALIZEKERNELS
#include "moe/Target/NVPTX/Passes.h.inc"
} // namespace mlir::moe

static std::unique_ptr<llvm::TargetMachine>
createMachine(StringRef arch, std::string &message) {
  static bool once = [] {
    LLVMInitializeNVPTXTargetInfo();
    LLVMInitializeNVPTXTarget();
    LLVMInitializeNVPTXTargetMC();
    LLVMInitializeNVPTXAsmPrinter();
    return true;
  }();
  (void)once;
  llvm::Triple triple("nvptx64-nvidia-cuda");
  const llvm::Target *target =
      llvm::TargetRegistry::lookupTarget(triple, message);
  if (!target)
    return nullptr;
  return std::unique_ptr<llvm::TargetMachine>(target->createTargetMachine(
      triple, arch, "", llvm::TargetOptions(), std::nullopt, std::nullopt,
      llvm::CodeGenOptLevel::Aggressive));
}

/// Compiles `kernels` to PTX; emits an error and returns none on failure.
static std::optional<std::string> toPTX(gpu::GPUModuleOp kernels,
                                        StringRef arch) {
  std::string message;
  std::unique_ptr<llvm::TargetMachine> machine = createMachine(arch, message);
  if (!machine) {
    kernels.emitError("no code generator for '") << arch << "': " << message;
    return std::nullopt;
  }
  llvm::LLVMContext context;
  std::unique_ptr<llvm::Module> module =
      translateModuleToLLVMIR(kernels, context, "kernels");
  if (!module) {
    kernels.emitError("failed to translate the kernels to LLVM IR");
    return std::nullopt;
  }
  // There is no device library to link with.
  for (llvm::Function &function : *module)
    if (function.isDeclaration() && !function.isIntrinsic() &&
        !function.use_empty()) {
      kernels.emitError(
          "expected kernels without calls of external functions, got '")
          << function.getName() << "'";
      return std::nullopt;
    }
  module->setTargetTriple(machine->getTargetTriple());
  module->setDataLayout(machine->createDataLayout());
  // Inline PTX may synchronize a warp.
  for (llvm::Function &function : *module)
    for (llvm::Instruction &instruction : llvm::instructions(function))
      if (auto *call = llvm::dyn_cast<llvm::CallInst>(&instruction))
        if (call->isInlineAsm())
          call->setConvergent();
  // The kernel builders unroll what is worth it.
  llvm::PipelineTuningOptions tuning;
  tuning.LoopUnrolling = false;
  optimize(*module, *machine, llvm::OptimizationLevel::O3, tuning);
  auto text = emitCode(*module, *machine, llvm::CodeGenFileType::AssemblyFile);
  if (!text) {
    kernels.emitError("failed to emit PTX for '")
        << arch << "': " << llvm::toString(text.takeError());
    return std::nullopt;
  }
  return std::string(text->begin(), text->end());
}

namespace {
struct MoESerializeKernels
    : moe::impl::MoESerializeKernelsBase<MoESerializeKernels> {
  void getDependentDialects(DialectRegistry &registry) const override {
    registry.insert<LLVM::LLVMDialect>();
    registerBuiltinDialectTranslation(registry);
    registerGPUDialectTranslation(registry);
    registerLLVMDialectTranslation(registry);
    registerNVVMDialectTranslation(registry);
  }

  void runOnOperation() override {
    ModuleOp module = getOperation();
    SmallVector<gpu::GPUModuleOp> modules(module.getOps<gpu::GPUModuleOp>());
    module->removeAttr(gpu::GPUDialect::getContainerModuleAttrName());
    if (modules.empty())
      return;
    if (modules.size() > 1) {
      modules[1].emitError("expected one gpu.module, with all kernels of the "
                           "program, got another");
      return signalPassFailure();
    }
    gpu::GPUModuleOp kernels = modules.front();
    StringRef arch = "sm_80";
    if (ArrayAttr targets = kernels.getTargetsAttr())
      for (Attribute attribute : targets)
        if (auto target = dyn_cast<NVVM::NVVMTargetAttr>(attribute))
          arch = target.getChip();
    if (failed(GPUDescription{arch.str()}.verify(kernels)))
      return signalPassFailure();
    std::optional<std::string> ptx = toPTX(kernels, arch);
    if (!ptx)
      return signalPassFailure();
    ptx->push_back('\0');
    OpBuilder b(&getContext());
    auto image = LLVM::GlobalOp::create(
        b, kernels.getLoc(),
        LLVM::LLVMArrayType::get(b.getI8Type(), ptx->size()),
        /*isConstant=*/true, LLVM::Linkage::External, "moe_image_0",
        b.getStringAttr(*ptx), /*alignment=*/16);
    // The symbol table renames the global if a layer has its name.
    SymbolTable(module).insert(image, Block::iterator(kernels));
    Attribute described = b.getDictionaryAttr({
        b.getNamedAttr("format", b.getStringAttr("ptx")),
        b.getNamedAttr("arch", b.getStringAttr(arch)),
        b.getNamedAttr("symbol", image.getSymNameAttr()),
        b.getNamedAttr("size", b.getI64IntegerAttr(ptx->size())),
    });
    module->setAttr(imagesAttrName, b.getArrayAttr(described));
    module->setAttr(kernelsAttrName, describe(b, kernels));
    kernels.erase();
  }

  /// Returns the kernel table: the launch configuration of each kernel.
  ArrayAttr describe(OpBuilder &b, gpu::GPUModuleOp kernels) {
    SmallVector<LLVM::LLVMFuncOp> all = llvm::filter_to_vector(
        kernels.getOps<LLVM::LLVMFuncOp>(), [](LLVM::LLVMFuncOp function) {
          return function->hasAttr(gpu::GPUDialect::getKernelFuncAttrName());
        });
    // The runtime knows kernels by their place in the table.
    llvm::StringMap<int64_t> places;
    for (auto [place, kernel] : llvm::enumerate(all))
      places[kernel.getName()] = place;
    SmallVector<Attribute> described;
    for (LLVM::LLVMFuncOp kernel : all) {
      auto first = [&](StringRef name, int64_t otherwise) {
        auto values = kernel->getAttrOfType<DenseI32ArrayAttr>(name);
        return values ? int64_t(values[0]) : otherwise;
      };
      auto shared = kernel->getAttrOfType<IntegerAttr>(sharedBytesAttrName);
      SmallVector<int64_t> primaries;
      if (auto names = kernel->getAttrOfType<ArrayAttr>(primariesAttrName))
        for (auto name : names.getAsRange<FlatSymbolRefAttr>())
          if (auto found = places.find(name.getValue()); found != places.end())
            primaries.push_back(found->second);
      SmallVector<NamedAttribute> entries = {
          b.getNamedAttr("name", kernel.getNameAttr()),
          b.getNamedAttr("threads",
                         b.getI64IntegerAttr(first(
                             NVVM::NVVMDialect::getMaxntidAttrName(), 1))),
          b.getNamedAttr("shared",
                         b.getI64IntegerAttr(shared ? shared.getInt() : 0)),
          b.getNamedAttr("cluster",
                         b.getI64IntegerAttr(first(
                             NVVM::NVVMDialect::getClusterDimAttrName(), 1)))};
      if (!primaries.empty())
        entries.push_back(
            b.getNamedAttr("primaries", b.getI64ArrayAttr(primaries)));
      described.push_back(b.getDictionaryAttr(entries));
    }
    return b.getArrayAttr(described);
  }
};
} // namespace
