//===- Bytecode.h - The dialect in bytecode ---------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_IR_BYTECODE_H
#define MOE_LIB_DIALECT_MOE_IR_BYTECODE_H

#include "moe/Dialect/MoE/IR/MoE.h"

namespace mlir::moe {

/// Adds the interface that writes and reads the version of the dialect.
void addBytecodeInterface(MoEDialect &dialect);

} // namespace mlir::moe

#endif // MOE_LIB_DIALECT_MOE_IR_BYTECODE_H
