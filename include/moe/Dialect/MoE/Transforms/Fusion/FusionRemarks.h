//===- FusionRemarks.h - Remarks of the fusion passes -----------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOE_TRANSFORMS_FUSION_FUSIONREMARKS_H
#define MOE_DIALECT_MOE_TRANSFORMS_FUSION_FUSIONREMARKS_H

#include "mlir/IR/Operation.h"
#include "mlir/IR/Remarks.h"
#include "mlir/Interfaces/FunctionInterfaces.h"

namespace mlir::moe {

inline remark::RemarkOpts fusionRemark(Operation *op, StringRef name) {
  auto function = op->getParentOfType<FunctionOpInterface>();
  return remark::RemarkOpts::name(name)
      .category("moe-fuse")
      .function(function ? function.getName() : "");
}

/// Emits a remark that `op` was fused (`--remarks-filter-passed=moe-fuse`).
inline void remarkFused(Operation *op, StringRef name, StringRef message) {
  remark::passed(op->getLoc(), fusionRemark(op, name)) << message;
}

/// Emits a remark that `op` was not fused, with the reason
/// (`--remarks-filter-missed=moe-fuse`).
inline void remarkNotFused(Operation *op, StringRef name, StringRef reason) {
  remark::missed(op->getLoc(), fusionRemark(op, name))
      << ("not fused: " + reason).str();
}

} // namespace mlir::moe

#endif // MOE_DIALECT_MOE_TRANSFORMS_FUSION_FUSIONREMARKS_H
