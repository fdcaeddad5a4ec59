//===- WorkspaceProbe.cpp - Workspace and launches of a function ----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "WorkspaceProbe.h"
#include "LaunchCounts.h"
#include "moe/Analysis/TokenFunction.h"
#include "moe/Dialect/MoE/IR/MoEABI.h"
#include "moe/Dialect/MoERuntime/IR/MoERuntime.h"
#include "moe_rt/abi.h"

#include "mlir/Pass/PassRegistry.h"

using namespace mlir;
using namespace mlir::moe;

void WorkspaceProbe::reset() {
  if (copy)
    copy.erase();
  copy = {};
}

LogicalResult WorkspaceProbe::refresh() {
  reset();
  copy = module.clone();
  module.push_back(copy);
  return lower(copy);
}

/// Adds what a call needs on a device: the runtime keeps the reports behind the
/// workspace of the code.
static std::optional<int64_t> addReports(func::FuncOp function, int64_t bytes) {
  SignatureAttr signature = getSignature(function);
  uint64_t reports = 0;
  for (size_t i = 0; signature && i < signature.getNumArguments(); ++i) {
    auto type = dyn_cast<MemRefType>(function.getArgument(i).getType());
    if (type && signature.getArgument(i).isReport())
      reports += moe_rt_report_size(type.getNumElements() *
                                    type.getElementTypeBitWidth() / 8);
  }
  uint64_t begin, total;
  if (!moe_rt_device_workspace(bytes, reports, &begin, &total) ||
      total > uint64_t(INT64_MAX))
    return std::nullopt;
  return total;
}

std::optional<int64_t> WorkspaceProbe::getBytes(func::FuncOp function,
                                                int64_t tokens) {
  auto workspace = copy.lookupSymbol<func::FuncOp>(
      (workspacePrefix + function.getName()).str());
  if (!workspace || !workspace.getBody().hasOneBlock())
    return std::nullopt;
  TokenFunction at(workspace.getArgument(0), tokens);
  std::optional<int64_t> bytes =
      at.evaluate(workspace.getBody().front().getTerminator()->getOperand(0));
  if (!bytes || !onDevice)
    return bytes;
  return addReports(copy.lookupSymbol<func::FuncOp>(function.getName()),
                    *bytes);
}

/// Returns the most rows that an operand of a launch has for T tokens, of those
/// whose rows depend on T.
static std::optional<int64_t> rowsOf(moe_rt::LaunchOp op,
                                     BufferExtents extents) {
  std::optional<int64_t> most;
  SmallVector<Value> buffers(op.getInputs());
  llvm::append_range(buffers, op.getInits());
  for (Value buffer : buffers) {
    auto type = dyn_cast<MemRefType>(buffer.getType());
    if (!type || type.getRank() == 0 || !type.isDynamicDim(0))
      continue;
    std::optional<int64_t> rows = extents.extent(buffer, 0);
    if (!rows)
      return std::nullopt;
    most = std::max(most.value_or(0), *rows);
  }
  return most;
}

std::vector<LaunchWork>
WorkspaceProbe::getLaunches(func::FuncOp function,
                            std::optional<GPUMachine> gpu) {
  std::vector<LaunchWork> launches;
  int64_t multiprocessors = gpu ? gpu->multiprocessors : 1;
  copy.lookupSymbol<func::FuncOp>(function.getName())
      .walk([&](moe_rt::LaunchOp op) {
        Operation *kernel =
            SymbolTable::lookupNearestSymbolFrom(op, op.getKernelAttr());
        LaunchWork launch;
        launch.kernel = op.getKernel().getLeafReference().str();
        if (kernel) {
          launch.work = kernel->getAttrOfType<DictionaryAttr>(workAttrName);
          launch.overlaps = kernel->hasAttr(primariesAttrName);
        }
        launch.blocks = [=](int64_t tokens) mutable {
          return BufferExtents(tokens, multiprocessors)
              .evaluate(op.getBlocks());
        };
        launch.rows = [=](int64_t tokens) {
          return rowsOf(op, BufferExtents(tokens, multiprocessors));
        };
        if (auto loop = dyn_cast_or_null<gpu::GPUFuncOp>(kernel))
          launch.loop = [=](int64_t tokens) {
            BufferExtents extents(tokens, multiprocessors);
            return countLoop(op, loop, extents);
          };
        launches.push_back(std::move(launch));
      });
  return launches;
}

FailureOr<OpPassManager> mlir::moe::parseLowering(ModuleOp module,
                                                  StringRef pipeline) {
  OpPassManager passes(ModuleOp::getOperationName());
  std::string message;
  llvm::raw_string_ostream stream(message);
  if (failed(parsePassPipeline(pipeline, passes, stream)))
    return module.emitError("expected lowering to be a pipeline, got '")
           << pipeline << "': " << StringRef(message).rtrim();
  return passes;
}
