//===- Stage.h - Names of stages in locations -------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOERUNTIME_TRANSFORMS_STAGE_H
#define MOE_DIALECT_MOERUNTIME_TRANSFORMS_STAGE_H

#include "mlir/IR/Location.h"

namespace mlir::moe {

/// On tasks, and in the metadata of a fused location: the name of a stage.
inline constexpr StringLiteral stageAttrName = "moe.stage";

/// Returns the location with the name of a stage.
Location nameStage(Location location, StringRef name);

/// Adds the names of the stages in a location, each once.
void findStages(Location location, llvm::SmallVectorImpl<StringAttr> &names);

} // namespace mlir::moe

#endif // MOE_DIALECT_MOERUNTIME_TRANSFORMS_STAGE_H
