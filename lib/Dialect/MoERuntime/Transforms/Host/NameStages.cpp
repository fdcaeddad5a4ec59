//===- NameStages.cpp - Names of operations in their locations ------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/IR/MoEABI.h"
#include "moe/Dialect/MoERuntime/Transforms/Passes.h"
#include "moe/Dialect/MoERuntime/Transforms/Stage.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"

#include <map>

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOENAMESTAGES
#include "moe/Dialect/MoERuntime/Transforms/Passes.h.inc"
} // namespace mlir::moe

/// Returns what the operation computes, or nothing if it takes no time worth a
/// stage.
static StringRef nameOf(Operation *op) {
  if (auto matmul = dyn_cast<GroupedMatmulOp>(op))
    return matmul.getOffsets() ? "grouped_matmul" : "matmul";
  if (isa<linalg::FillOp, linalg::CopyOp>(op))
    return "";
  if (isa<linalg::LinalgOp>(op))
    return linalg::isElementwise(cast<linalg::LinalgOp>(op)) ? "elementwise"
                                                             : "reduction";
  return isa<MoEDialect>(op->getDialect()) ? op->getName().stripDialect() : "";
}

namespace {
struct MoENameStages : moe::impl::MoENameStagesBase<MoENameStages> {
  void runOnOperation() override {
    for (auto function : getOperation().getOps<func::FuncOp>())
      if (isExported(function) && !function->hasAttr(preparesAttrName))
        name(function);
  }

  void name(func::FuncOp function) {
    std::map<StringRef, SmallVector<Operation *>> byName;
    function.walk<WalkOrder::PreOrder>([&](Operation *op) {
      StringRef name = nameOf(op);
      if (name.empty())
        return WalkResult::advance();
      byName[name].push_back(op);
      return WalkResult::skip(); // its regions are part of it
    });
    for (auto &[name, ops] : byName)
      for (auto [i, op] : llvm::enumerate(ops)) {
        std::string full = (name + (ops.size() > 1 ? Twine(i) : "")).str();
        op->setLoc(nameStage(op->getLoc(), full));
      }
  }
};
} // namespace
