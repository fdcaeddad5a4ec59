//===- ExpertChoiceToGPU.h - Expert-choice gates ----------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_ROUTING_EXPERTCHOICETOGPU_H
#define MOE_LIB_CONVERSION_MOETOGPU_ROUTING_EXPERTCHOICETOGPU_H

#include "Lowering.h"

namespace mlir::moe {

/// Lowers a gate with `select(expert_choice)`, like `lowerToGPU`.
Lowered lowerExpertChoice(GateOp op, DeviceLowering &lowering,
                          std::string &why);

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_ROUTING_EXPERTCHOICETOGPU_H
