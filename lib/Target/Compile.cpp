//===- Compile.cpp - Run a pipeline by name -------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/IR/MoE.h"
#include "moe/InitAll.h"
#include "moe/Target/Target.h"

#include "mlir/Pass/PassManager.h"
#include "mlir/Pass/PassRegistry.h"
#include "llvm/Support/raw_ostream.h"
#include "llvm/TargetParser/Triple.h"

#include <map>

using namespace mlir;
using namespace mlir::moe;

std::string mlir::moe::resolvePipeline(llvm::StringRef name,
                                       const TargetDescription &target) {
  if ((name == "moe-gpu" || name == "moe-gpu-to-buffers") &&
      !target.device.empty())
    return name.str() + "{arch=" + target.device + "}";
  auto has = [&](llvm::StringRef feature) {
    return llvm::is_contained(target.features, feature);
  };
  bool isAArch64 = llvm::Triple(target.triple).isAArch64();
  std::string lowering = std::string("f16-conversions=") +
                         (isAArch64 || has("f16c") ? "true" : "false");
  if (name == "moe-reference" || name == "moe-lower-to-llvm")
    return name.str() + "{" + lowering + "}";
  if (name != "moe-cpu" && name != "moe-cpu-to-buffers")
    return name.str();
  if (!target.device.empty())
    return ("moe-gpu" + name.drop_front(strlen("moe-cpu")) + "{arch=" +
            target.device + "}")
        .str();
  std::string vectors = "vector-bits=128 vector-registers=16";
  if (has("avx512f") && has("avx512bw") && has("avx512vl"))
    vectors = std::string("vector-bits=512 vector-registers=32 bf16-dot=") +
              (has("avx512bf16") ? "true" : "false");
  else if (has("avx2") && has("fma"))
    vectors = "vector-bits=256 vector-registers=16";
  else if (isAArch64)
    vectors = "vector-bits=128 vector-registers=32";
  return name.str() + "{" + vectors + " " + lowering + "}";
}

/// The tiles of grouped products, by the name of their instructions.
static FailureOr<llvm::SmallVector<std::string>>
tilesOf(ModuleOp module, llvm::StringRef arch) {
  OwningOpRef<ModuleOp> copy = module.clone();
  PassManager manager(module.getContext());
  if (failed(parsePassPipeline(
          ("inline,canonicalize,cse,moe-fuse,moe-tile-for-gpu{arch=" + arch + "}")
              .str(),
          manager, llvm::nulls())) ||
      failed(manager.run(*copy)))
    return failure();
  std::map<int64_t, std::string> byRows;
  copy->walk([&](GroupedMatmulOp op) {
    auto tiles = op->getAttrOfType<ArrayAttr>("moe.tiles");
    if (!op.getOffsets() || !tiles)
      return;
    for (auto tile : tiles.getAsRange<TileAttr>())
      byRows[tile.getRows()] = stringifyMatrixUnit(tile.getUnit()).str();
  });
  llvm::SmallVector<std::string> variants;
  for (const auto &[rows, unit] : byRows) {
    std::string number = std::to_string(rows);
    variants.push_back(unit + "_" + number + ":" + number);
  }
  return variants;
}

FailureOr<llvm::SmallVector<std::string>>
mlir::moe::variantsOf(llvm::StringRef pipeline, const TargetDescription &target,
                      ModuleOp module) {
  using Names = llvm::SmallVector<std::string>;
  // Loops over each row by itself.
  Names loops = {"loops:1"};
  if (!target.device.empty()) {
    FailureOr<Names> tiles = tilesOf(module, target.device);
    if (failed(tiles))
      return failure();
    return tiles->empty() ? loops : *tiles;
  }
  // Kernels of each height up to that of the largest that a plan asks for.
  if (pipeline == "moe-cpu")
    return Names{"rows1:1:ragged", "rows2:2:ragged", "rows4:4:ragged",
                 "rows6:6:ragged"};
  return pipeline == "moe-reference" ? loops : Names();
}

LogicalResult mlir::moe::runPipeline(ModuleOp module,
                                     llvm::StringRef name,
                                     const TargetDescription &target) {
  std::string pipeline = resolvePipeline(name, target);
  std::string message;
  llvm::raw_string_ostream stream(message);
  PassManager manager(module.getContext());
  if (failed(parsePassPipeline(pipeline, manager, stream)))
    return emitError(module.getLoc())
           << "invalid pipeline '" << name
           << "': " << llvm::StringRef(message).rtrim();
  if (failed(verifyDefined(module)) || failed(manager.run(module)))
    return failure();
  // Without kernels the host would read memory of the device.
  if (!target.device.empty() && !module->hasAttr("moe.images"))
    return emitError(module.getLoc())
           << "expected a pipeline that makes kernels for '" << target.device
           << "', such as moe-gpu, got '" << name << "'";
  return success();
}
