//===- MoERuntimeDialect.cpp - The moe_rt dialect -------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoERuntime/IR/MoERuntime.h"
#include "moe/Dialect/Utils/PermissiveInlinerInterface.h"

#include "mlir/IR/DialectImplementation.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::moe_rt;

#include "moe/Dialect/MoERuntime/IR/MoERuntimeDialect.cpp.inc"

#define GET_ATTRDEF_CLASSES
#include "moe/Dialect/MoERuntime/IR/MoERuntimeAttrs.cpp.inc"

#define GET_OP_CLASSES
#include "moe/Dialect/MoERuntime/IR/MoERuntimeOps.cpp.inc"

void MoERuntimeDialect::initialize() {
  addOperations<
#define GET_OP_LIST
#include "moe/Dialect/MoERuntime/IR/MoERuntimeOps.cpp.inc"
      >();
  addAttributes<
#define GET_ATTRDEF_LIST
#include "moe/Dialect/MoERuntime/IR/MoERuntimeAttrs.cpp.inc"
      >();
  addInterfaces<moe::PermissiveInlinerInterface>();
}
