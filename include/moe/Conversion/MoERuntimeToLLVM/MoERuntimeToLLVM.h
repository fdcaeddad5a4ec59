//===- MoERuntimeToLLVM.h - Tasks and launches to calls ---------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CONVERSION_MOERUNTIMETOLLVM_MOERUNTIMETOLLVM_H
#define MOE_CONVERSION_MOERUNTIMETOLLVM_MOERUNTIMETOLLVM_H

#include "moe/Dialect/MoERuntime/IR/MoERuntime.h"

#include "mlir/Pass/Pass.h"

namespace mlir::moe {

#define GEN_PASS_DECL_MOELAUNCHESTOCALLS
#define GEN_PASS_DECL_MOEOUTLINETASKS
#include "moe/Conversion/Passes.h.inc"

} // namespace mlir::moe

#endif // MOE_CONVERSION_MOERUNTIMETOLLVM_MOERUNTIMETOLLVM_H
