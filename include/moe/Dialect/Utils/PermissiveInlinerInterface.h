//===- PermissiveInlinerInterface.h - Inline everywhere ---------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_UTILS_PERMISSIVEINLINERINTERFACE_H
#define MOE_DIALECT_UTILS_PERMISSIVEINLINERINTERFACE_H

#include "mlir/Transforms/InliningUtils.h"

namespace mlir::moe {

/// Functions may be inlined into the regions of the operations of a dialect
/// (experts, tasks), also if they contain such operations.
struct PermissiveInlinerInterface : DialectInlinerInterface {
  using DialectInlinerInterface::DialectInlinerInterface;
  bool isLegalToInline(Operation *, Region *, bool,
                       IRMapping &) const override {
    return true;
  }
  bool isLegalToInline(Region *, Region *, bool, IRMapping &) const override {
    return true;
  }
};

} // namespace mlir::moe

#endif // MOE_DIALECT_UTILS_PERMISSIVEINLINERINTERFACE_H
