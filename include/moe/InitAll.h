//===- InitAll.h - Register everything of this project ----------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What a compiler that embeds this project calls, in the manner of
// mlir/InitAllDialects.h.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_INITALL_H
#define MOE_INITALL_H

#include "moe/Conversion/Passes.h"
#include "moe/Dialect/MoE/IR/MoE.h"
#include "moe/Dialect/MoE/Transforms/BufferizableOpInterfaceImpl.h"
#include "moe/Dialect/MoE/Transforms/Passes.h"
#include "moe/Dialect/MoE/Transforms/TilingInterfaceImpl.h"
#include "moe/Pipelines/Pipelines.h"

namespace mlir::moe {

inline void registerAllDialects(DialectRegistry &registry) {
  registry.insert<MoEDialect>();
}

/// External models of upstream interfaces on moe operations.
inline void registerAllExtensions(DialectRegistry &registry) {
  registerAggregatedOpInterfaceExternalModels(registry);
  registerBufferizableOpInterfaceExternalModels(registry);
  registerTilingInterfaceExternalModels(registry);
}

inline void registerAllPasses() {
  registerMoETransformsPasses();
  registerMoEConversionPasses();
}

inline void registerAllPipelines() { registerPipelines(); }

} // namespace mlir::moe

#endif // MOE_INITALL_H
