//===- Compile.cpp - Run a pipeline by name -------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/InitAll.h"
#include "moe/Target/Target.h"

#include "mlir/Pass/PassManager.h"
#include "mlir/Pass/PassRegistry.h"
#include "llvm/Support/raw_ostream.h"
#include "llvm/TargetParser/Triple.h"

using namespace mlir;
using namespace mlir::moe;

std::string mlir::moe::resolvePipeline(llvm::StringRef name,
                                       const TargetDescription &target) {
  if ((name == "moe-gpu" || name == "moe-gpu-to-buffers") &&
      !target.device.empty())
    return name.str() + "{arch=" + target.device + "}";
  if (name != "moe-cpu" && name != "moe-cpu-to-buffers")
    return name.str();
  if (!target.device.empty())
    return ("moe-gpu" + name.drop_front(strlen("moe-cpu")) + "{arch=" +
            target.device + "}")
        .str();
  auto has = [&](llvm::StringRef feature) {
    return llvm::is_contained(target.features, feature);
  };
  if (has("avx512f") && has("avx512bw") && has("avx512vl"))
    return name.str() + "{vector-bits=512 vector-registers=32 bf16-dot=" +
           (has("avx512bf16") ? "true}" : "false}");
  if (has("avx2") && has("fma"))
    return name.str() + "{vector-bits=256 vector-registers=16}";
  if (llvm::Triple(target.triple).isAArch64())
    return name.str() + "{vector-bits=128 vector-registers=32}";
  return name.str();
}

llvm::SmallVector<std::string> mlir::moe::variantsOf(llvm::StringRef pipeline) {
  // Kernels of each height up to that of the largest that a plan asks for.
  if (pipeline == "moe-cpu")
    return {"rows1:1:ragged", "rows2:2:ragged", "rows4:4:ragged",
            "rows6:6:ragged"};
  // Loops over each row by itself.
  if (pipeline == "moe-reference")
    return {"loops:1"};
  return {};
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
  if (failed(manager.run(module)))
    return failure();
  // Without kernels the host would read memory of the device.
  if (!target.device.empty() && !module->hasAttr("moe.images"))
    return emitError(module.getLoc())
           << "expected a pipeline that makes kernels for '" << target.device
           << "', such as moe-gpu, got '" << name << "'";
  return success();
}
