//===- RaisableOpInterface.h - Operations of others -------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_TRANSFORMS_RAISABLEOPINTERFACE_H
#define MOE_TRANSFORMS_RAISABLEOPINTERFACE_H

#include "mlir/IR/OpDefinition.h"
#include "mlir/IR/PatternMatch.h"

#include <string>

#include "moe/Transforms/RaisableOpInterface.h.inc"

#endif // MOE_TRANSFORMS_RAISABLEOPINTERFACE_H
