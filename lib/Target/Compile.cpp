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

using namespace mlir;
using namespace mlir::moe;

LogicalResult mlir::moe::runPipeline(ModuleOp module,
                                     llvm::StringRef pipeline) {
  std::string message;
  llvm::raw_string_ostream stream(message);
  PassManager manager(module.getContext());
  if (failed(parsePassPipeline(pipeline, manager, stream)))
    return emitError(module.getLoc()) << "invalid pipeline '" << pipeline
                              << "': " << llvm::StringRef(message).rtrim();
  return manager.run(module);
}
