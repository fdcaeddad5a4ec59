//===- MoERuntime.h - The moe_rt dialect ------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOERUNTIME_IR_MOERUNTIME_H
#define MOE_DIALECT_MOERUNTIME_IR_MOERUNTIME_H

#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Dialect.h"
#include "mlir/IR/OpDefinition.h"
#include "mlir/IR/OpImplementation.h"
#include "mlir/IR/SymbolTable.h"
#include "mlir/Interfaces/ControlFlowInterfaces.h"
#include "mlir/Interfaces/DestinationStyleOpInterface.h"
#include "mlir/Interfaces/InferTypeOpInterface.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"

#include "moe/Dialect/MoERuntime/IR/MoERuntimeDialect.h.inc"

#define GET_ATTRDEF_CLASSES
#include "moe/Dialect/MoERuntime/IR/MoERuntimeAttrs.h.inc"

#define GET_OP_CLASSES
#include "moe/Dialect/MoERuntime/IR/MoERuntimeOps.h.inc"

#endif // MOE_DIALECT_MOERUNTIME_IR_MOERUNTIME_H
