//===- Pipeline.cpp - Pipelines for a target ------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Conversion/MoEToCPU/MoEToCPU.h"
#include "moe/Conversion/MoEToGPU/MoEToGPU.h"
#include "moe/Dialect/MoE/IR/MoEABI.h"
#include "moe/Driver/Driver.h"
#include "moe/Pipelines/Pipelines.h"

#include "mlir/Pass/PassRegistry.h"
#include "mlir/Transforms/Passes.h"
#include "llvm/TargetParser/Triple.h"

#include <map>

using namespace mlir;
using namespace mlir::moe;

static bool hasFeature(const TargetDescription &target, StringRef feature) {
  return llvm::is_contained(target.features, feature);
}

static bool isAArch64(const TargetDescription &target) {
  return llvm::Triple(target.triple).isAArch64();
}

static bool convertsF16(const TargetDescription &target) {
  return isAArch64(target) || hasFeature(target, "f16c");
}

/// True for Intel's cores, by LLVM's names of those with AVX2: haswell,
/// skylake-avx512, sapphirerapids, ...
static bool isIntelCore(StringRef cpu) {
  return llvm::any_of(ArrayRef<StringRef>{"well", "lake", "rapids"},
                      [&](StringRef part) { return cpu.contains(part); });
}

static CPUDescription describeCPU(const TargetDescription &target) {
  auto has = [&](StringRef feature) { return hasFeature(target, feature); };
  CPUDescription cpu;
  if (has("avx512f") && has("avx512bw") && has("avx512vl"))
    cpu = {512, 32, has("avx512bf16"), has("avx512vnni"), has("avx512vbmi")};
  else if (has("avx2") && has("fma"))
    cpu = {256, 16, false, has("avxvnni"), false};
  else if (isAArch64(target))
    cpu = {128, 32, false, false, false};
  // Measured on an Ice Lake server: 16.8 instead of 12.4 GB/s a core. On Zen 4
  // hardware is faster alone.
  if (isIntelCore(target.cpu))
    cpu.prefetchedPages = 16;
  return cpu;
}

static void addCPUPipeline(OpPassManager &manager,
                           const TargetDescription &target, PipelineEnd end) {
  CPUDescription cpu = describeCPU(target);
  CPUPipelineOptions options;
  options.vectorBits = cpu.vectorBits;
  options.vectorRegisters = cpu.vectorRegisters;
  options.bf16Dot = cpu.bf16Dot;
  options.int8Dot = cpu.int8Dot;
  options.bytePermute = cpu.bytePermute;
  options.prefetchedPages = cpu.prefetchedPages;
  options.f16Conversions = convertsF16(target);
  if (end == PipelineEnd::Buffers)
    buildCPUToBuffersPipeline(manager, options);
  else
    buildCPUPipeline(manager, options);
}

static void addGPUPipeline(OpPassManager &manager,
                           const TargetDescription &target, PipelineEnd end) {
  GPUPipelineOptions options;
  if (!target.device.empty())
    options.arch = target.device;
  if (end == PipelineEnd::Buffers)
    buildGPUToBuffersPipeline(manager, options);
  else
    buildGPUPipeline(manager, options);
}

static void addReferencePipeline(OpPassManager &manager,
                                 const TargetDescription &target,
                                 PipelineEnd end) {
  buildReferenceTensorPipeline(manager);
  buildReferenceBufferPipeline(manager);
  if (end == PipelineEnd::LLVM)
    buildLowerToLLVMPipeline(manager, convertsF16(target));
}

llvm::Error mlir::moe::addPipeline(OpPassManager &manager, StringRef name,
                                   const TargetDescription &target,
                                   PipelineEnd end) {
  if (name == "moe-gpu" || (name == "moe-cpu" && !target.device.empty())) {
    addGPUPipeline(manager, target, end);
  } else if (name == "moe-cpu") {
    addCPUPipeline(manager, target, end);
  } else if (name == "moe-reference") {
    addReferencePipeline(manager, target, end);
  } else if (end == PipelineEnd::Buffers) {
    return llvm::createStringError(
        "--pipeline: expected moe-cpu, moe-gpu or moe-reference to plan with, "
        "got '" +
        name + "'");
  } else if (name == "moe-lower-to-llvm") {
    buildLowerToLLVMPipeline(manager, convertsF16(target));
  } else {
    std::string message;
    llvm::raw_string_ostream stream(message);
    if (failed(parsePassPipeline(name, manager, stream)))
      return llvm::createStringError("invalid pipeline '" + name +
                                     "': " + StringRef(message).rtrim());
  }
  return llvm::Error::success();
}

/// Returns the tiles of the grouped matmuls in `module`, named by their
/// instructions.
static FailureOr<SmallVector<std::string>> getTiles(ModuleOp module,
                                                    StringRef arch) {
  OwningOpRef<ModuleOp> copy = module.clone();
  PassManager manager(module.getContext());
  manager.addPass(createInlinerPass());
  manager.addPass(createCanonicalizerPass());
  manager.addPass(createCSEPass());
  buildFusionPipeline(manager, FusionPipelineOptions());
  MoETileForGPUOptions options;
  options.arch = arch.str();
  manager.addPass(createMoETileForGPU(options));
  if (failed(manager.run(*copy)))
    return failure();
  std::map<int64_t, std::string> byRows;
  copy->walk([&](GroupedMatmulOp op) {
    auto tiles = op->getAttrOfType<ArrayAttr>(tilesAttrName);
    if (!op.getOffsets() || !tiles)
      return;
    for (auto tile : tiles.getAsRange<TileAttr>())
      byRows[tile.getRows()] = stringifyMatrixUnit(tile.getUnit()).str();
  });
  SmallVector<std::string> variants;
  for (const auto &[rows, unit] : byRows) {
    std::string number = std::to_string(rows);
    variants.push_back(unit + "_" + number + ":" + number);
  }
  return variants;
}

FailureOr<SmallVector<std::string>>
mlir::moe::getVariants(StringRef pipeline, const TargetDescription &target,
                       ModuleOp module) {
  // The reference lowering loops over single rows.
  SmallVector<std::string> loops = {"loops:1"};
  if (!target.device.empty()) {
    auto tiles = getTiles(module, target.device);
    return failed(tiles) || !tiles->empty() ? tiles : loops;
  }
  SmallVector<std::string> variants;
  if (pipeline == "moe-cpu")
    for (int64_t rows : getKernelHeights()) {
      std::string number = std::to_string(rows);
      variants.push_back("rows" + number + ":" + number + ":ragged");
    }
  return pipeline == "moe-reference" ? loops : variants;
}
