//===- RaiseOperations.cpp - Replace operations of others -----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Transforms/Passes.h"
#include "moe/Transforms/RaisableOpInterface.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/Remarks.h"
#include "mlir/Interfaces/FunctionInterfaces.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOERAISEOPERATIONS
#include "moe/Transforms/Passes.h.inc"
} // namespace mlir::moe

#include "moe/Transforms/RaisableOpInterface.cpp.inc"

/// Says why an operation stays.
static void remarkNotRaised(Operation *op, StringRef why) {
  auto function = op->getParentOfType<FunctionOpInterface>();
  remark::missed(op->getLoc(),
                 remark::RemarkOpts::name("OperationNotRaised")
                     .category("moe-raise")
                     .function(function ? function.getName() : ""))
      << ("not raised: " + op->getName().getStringRef() + ": " + why).str();
}

/// Fails if `values` cannot replace `op`.
static LogicalResult verifyResults(Operation *op, ValueRange values) {
  if (op->getResultTypes() == values.getTypes())
    return success();
  InFlightDiagnostic diagnostic =
      op->emitOpError("expected its raise() to return values of types (");
  diagnostic << op->getResultTypes() << "), got (" << values.getTypes() << ")";
  return diagnostic;
}

namespace {
struct RaiseOperations : moe::impl::MoERaiseOperationsBase<RaiseOperations> {
  void runOnOperation() override {
    SmallVector<RaisableOpInterface> ops;
    getOperation()->walk<WalkOrder::PostOrder>([&](RaisableOpInterface op) {
      if (op != getOperation())
        ops.push_back(op);
    });
    IRRewriter rewriter(&getContext());
    for (RaisableOpInterface op : ops) {
      rewriter.setInsertionPoint(op);
      std::string why;
      FailureOr<SmallVector<Value>> values = op.raise(rewriter, why);
      if (failed(values)) {
        remarkNotRaised(op, why);
        continue;
      }
      if (failed(verifyResults(op, *values)))
        return signalPassFailure();
      rewriter.replaceOp(op, *values);
      ++numRaised;
    }
  }
};
} // namespace
