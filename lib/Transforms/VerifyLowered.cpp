//===- VerifyLowered.cpp - Verify that no other dialects are left ---------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Transforms/Passes.h"

using namespace mlir;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEVERIFYLOWERED
#include "moe/Transforms/Passes.h.inc"
} // namespace mlir::moe

namespace {
struct MoEVerifyLowered : moe::impl::MoEVerifyLoweredBase<MoEVerifyLowered> {
  using MoEVerifyLoweredBase::MoEVerifyLoweredBase;

  void runOnOperation() override {
    Operation *found = nullptr;
    getOperation().walk<WalkOrder::PreOrder>([&](Operation *op) {
      if (isa<ModuleOp>(op) || isLegal(op->getName()))
        return WalkResult::advance();
      // Prefer to report another operation: a cast is left only because of it.
      bool isCast = isa<UnrealizedConversionCastOp>(op);
      if (!found || !isCast)
        found = op;
      return isCast ? WalkResult::advance() : WalkResult::interrupt();
    });
    if (!found)
      return markAllAnalysesPreserved();
    InFlightDiagnostic diag =
        found->emitOpError("was not lowered; expected only operations of ");
    llvm::interleaveComma(dialects, diag, [&](const std::string &dialect) {
      diag << "'" << dialect << "'";
    });
    signalPassFailure();
  }

  /// Compares by name, as an operation may be unregistered.
  bool isLegal(OperationName name) const {
    return llvm::is_contained(dialects, name.getDialectNamespace());
  }
};
} // namespace
