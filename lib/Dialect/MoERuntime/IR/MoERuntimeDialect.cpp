//===- MoERuntimeDialect.cpp - The moe_rt dialect -------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoERuntime/IR/MoERuntime.h"

#include "mlir/IR/DialectImplementation.h"
#include "mlir/Transforms/InliningUtils.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::moe_rt;

#include "moe/Dialect/MoERuntime/IR/MoERuntimeDialect.cpp.inc"

#define GET_ATTRDEF_CLASSES
#include "moe/Dialect/MoERuntime/IR/MoERuntimeAttrs.cpp.inc"

#define GET_OP_CLASSES
#include "moe/Dialect/MoERuntime/IR/MoERuntimeOps.cpp.inc"

namespace {
/// Functions may be inlined into a task, and with tasks and launches in them.
struct MoERuntimeInlinerInterface : DialectInlinerInterface {
  using DialectInlinerInterface::DialectInlinerInterface;
  bool isLegalToInline(Operation *, Region *, bool,
                       IRMapping &) const override {
    return true;
  }
  bool isLegalToInline(Region *, Region *, bool, IRMapping &) const override {
    return true;
  }
};
} // namespace

void MoERuntimeDialect::initialize() {
  addOperations<
#define GET_OP_LIST
#include "moe/Dialect/MoERuntime/IR/MoERuntimeOps.cpp.inc"
      >();
  addAttributes<
#define GET_ATTRDEF_LIST
#include "moe/Dialect/MoERuntime/IR/MoERuntimeAttrs.cpp.inc"
      >();
  addInterfaces<MoERuntimeInlinerInterface>();
}
