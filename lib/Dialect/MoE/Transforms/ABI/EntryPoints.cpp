//===- EntryPoints.cpp - Create the functions that the runtime calls ------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/IR/MoEABI.h"
#include "moe/Dialect/MoE/Transforms/ABI/Passes.h"

#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEENTRYPOINTS
#include "moe/Dialect/MoE/Transforms/ABI/Passes.h.inc"
} // namespace mlir::moe

/// Creates `i32 moe_entry_<name>(void **args, executor *)`: each element of
/// `args` points to a memref descriptor, as the C interface of the function
/// expects.
static LogicalResult buildEntry(LLVM::LLVMFuncOp function, ModuleOp module) {
  std::string name = function.getName().str();
  auto callee = module.lookupSymbol<LLVM::LLVMFuncOp>("_mlir_ciface_" + name);
  if (!callee)
    return function.emitError() << "expected a C interface of '" << name
                                << "'; run llvm-request-c-wrappers before the "
                                   "conversion to llvm";
  ImplicitLocOpBuilder b(function.getLoc(), module.getContext());
  b.setInsertionPointToEnd(module.getBody());
  auto pointer = LLVM::LLVMPointerType::get(module.getContext());
  auto entry = LLVM::LLVMFuncOp::create(
      b, (entryPrefix + name).str(),
      LLVM::LLVMFunctionType::get(b.getI32Type(), {pointer, pointer}));
  b.setInsertionPointToStart(entry.addEntryBlock(b));
  // The arguments of the signature, the workspace, then the executor if used.
  unsigned count = getSignature(function).getNumArguments() + 1;
  SmallVector<Value> arguments;
  for (unsigned i = 0, e = callee.getNumArguments(); i != e; ++i) {
    if (i == count) {
      arguments.push_back(entry.getArgument(1));
      break;
    }
    Value slot = LLVM::GEPOp::create(b, pointer, pointer, entry.getArgument(0),
                                     ArrayRef<LLVM::GEPArg>{int32_t(i)});
    arguments.push_back(LLVM::LoadOp::create(b, pointer, slot));
  }
  LLVM::CallOp::create(b, callee, arguments);
  LLVM::ReturnOp::create(
      b, LLVM::ConstantOp::create(b, b.getI32IntegerAttr(0)).getResult());
  return success();
}

namespace {
struct MoEEntryPoints : moe::impl::MoEEntryPointsBase<MoEEntryPoints> {
  void runOnOperation() override {
    ModuleOp module = getOperation();
    SmallVector<LLVM::LLVMFuncOp> defined;
    for (auto function : module.getOps<LLVM::LLVMFuncOp>())
      if (!function.isExternal())
        defined.push_back(function);
    for (LLVM::LLVMFuncOp function : defined) {
      if (function.getName().starts_with(workspacePrefix))
        continue;
      // Only entry points are visible, so that names of layers cannot clash
      // with symbols of the host process.
      function.setLinkage(LLVM::Linkage::Internal);
      if (isExported(function) &&
          !function.getName().starts_with("_mlir_ciface_") &&
          failed(buildEntry(function, module)))
        return signalPassFailure();
    }
  }
};
} // namespace
