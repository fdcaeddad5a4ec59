//===- AllocsToArena.cpp - One workspace for every buffer -----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Analysis/TokenBounds.h"
#include "moe/Dialect/MoE/Transforms/Passes.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Bufferization/Transforms/BufferViewFlowAnalysis.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "mlir/Interfaces/CallInterfaces.h"
#include "mlir/Interfaces/LoopLikeInterface.h"
#include "llvm/ADT/SmallPtrSet.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEALLOCSTOARENA
#include "moe/Dialect/MoE/Transforms/Passes.h.inc"
} // namespace mlir::moe

/// Bytes of one element as memref lowers it, 0 if that is unknown.
static int64_t elementBytes(Type type) {
  if (type.isIndex())
    return 8;
  if (!type.isIntOrFloat())
    return 0;
  return llvm::PowerOf2Ceil(llvm::divideCeil(type.getIntOrFloatBitWidth(), 8));
}

/// Whether the extents that are known fit any memory: 48 bits of address.
static bool isAddressable(MemRefType type, int64_t bytes) {
  for (int64_t extent : type.getShape())
    if (!ShapedType::isDynamic(extent) &&
        (llvm::MulOverflow(bytes, extent, bytes) || bytes > int64_t(1) << 48))
      return false;
  return true;
}

/// Fail if a buffer made in a loop is used after the iteration that made it:
/// the next iteration makes its own in the same place.
static LogicalResult verifyStaysInIteration(memref::AllocOp alloc,
                                            const BufferViewFlowAnalysis &flow) {
  // Branches between blocks may form a loop, too.
  for (Operation *op = alloc; !isa<func::FuncOp>(op); op = op->getParentOp())
    if (!op->getParentRegion()->hasOneBlock())
      return alloc.emitError("expected a buffer made under structured control "
                             "flow, got one in a region of ")
             << op->getParentRegion()->getBlocks().size() << " blocks";
  auto loop = alloc->getParentOfType<LoopLikeOpInterface>();
  if (!loop)
    return success();
  for (Value alias : flow.resolve(alloc)) {
    Region *region = alias.getParentRegion();
    auto argument = dyn_cast<BlockArgument>(alias);
    bool carried = argument && argument.getOwner()->getParentOp() == loop;
    if (carried || !loop->isAncestor(region->getParentOp())) {
      InFlightDiagnostic diag =
          alloc.emitError("expected a buffer made in a loop to end with the "
                          "iteration; this one outlives it");
      diag.attachNote(loop->getLoc()) << "the loop is here";
      return diag;
    }
  }
  return success();
}

/// Fail if a function that an exported one calls, directly or not, makes a
/// buffer: it would come from the heap and never be freed.
static LogicalResult verifyCallees(func::FuncOp exported) {
  SmallVector<func::FuncOp> pending{exported};
  llvm::SmallPtrSet<Operation *, 8> seen{exported};
  while (!pending.empty()) {
    WalkResult result = pending.pop_back_val().walk([&](CallOpInterface call) {
      auto callee = dyn_cast_or_null<func::FuncOp>(call.resolveCallable());
      if (!callee || !seen.insert(callee).second)
        return WalkResult::advance();
      pending.push_back(callee);
      return callee.walk([&](memref::AllocOp alloc) {
        InFlightDiagnostic diag = alloc.emitError(
            "expected every buffer in the exported function '");
        diag << exported.getName() << "', got one in '" << callee.getName()
             << "'";
        diag.attachNote(call->getLoc()) << "called here; inline it";
        return WalkResult::interrupt();
      });
    });
    if (result.wasInterrupted())
      return failure();
  }
  return success();
}

namespace {
/// The arena of one function.
class Arena {
public:
  Arena(func::FuncOp function, int64_t alignment)
      : function(function), alignment(alignment) {}

  LogicalResult run();

private:
  /// Bounds of all buffers, where `tokens` is T: the offset of each, then the
  /// total.
  FailureOr<SmallVector<Value>> layOut(ImplicitLocOpBuilder &b, Value tokens);
  LogicalResult buildWorkspaceFunction();
  Value findTokens(ImplicitLocOpBuilder &b);

  func::FuncOp function;
  int64_t alignment;
  SmallVector<memref::AllocOp> allocs;
};
} // namespace

FailureOr<SmallVector<Value>> Arena::layOut(ImplicitLocOpBuilder &b,
                                            Value tokens) {
  auto index = [&](int64_t value) -> Value {
    return arith::ConstantIndexOp::create(b, value);
  };
  TokenBounds bounds(b, tokens);
  SmallVector<Value> offsets{index(0)};
  for (memref::AllocOp alloc : allocs) {
    MemRefType type = alloc.getType();
    int64_t bytes = elementBytes(type.getElementType());
    if (bytes == 0 || !type.getLayout().isIdentity() || type.getMemorySpace())
      return alloc.emitError("expected a compact buffer of integers or floats "
                             "in the default memory space, got ")
             << type;
    if (!isAddressable(type, bytes))
      return alloc.emitError("expected a buffer of at most 2^48 bytes, got ")
             << type;
    if (int64_t(alloc.getAlignment().value_or(1)) > alignment)
      return alloc.emitError("expected a buffer aligned to at most ")
             << alignment << " bytes, got " << *alloc.getAlignment();
    Value size = index(bytes);
    for (int64_t dim = 0; dim < type.getRank(); ++dim) {
      Value extent = bounds.boundOfExtent(alloc, dim);
      if (!extent)
        return alloc.emitError("expected the size of every buffer to be bounded "
                               "by the number of tokens; dimension ")
               << dim << " of " << type << " is not";
      size = arith::MulIOp::create(b, size, extent);
    }
    // Round up to the alignment, so that the next buffer starts on it.
    size = arith::AddIOp::create(b, size, index(alignment - 1));
    size = arith::AndIOp::create(b, size, index(-alignment));
    offsets.push_back(arith::AddIOp::create(b, offsets.back(), size));
  }
  return offsets;
}

/// moe_workspace_<name>(T): bytes.
LogicalResult Arena::buildWorkspaceFunction() {
  ImplicitLocOpBuilder b(function.getLoc(), function.getContext());
  b.setInsertionPointAfter(function);
  Type i64 = b.getI64Type();
  auto workspace = func::FuncOp::create(
      b, "moe_workspace_" + function.getName().str(),
      b.getFunctionType({i64}, {i64}));
  b.setInsertionPointToStart(workspace.addEntryBlock());
  Value tokens = arith::IndexCastOp::create(b, b.getIndexType(),
                                            workspace.getArgument(0));
  FailureOr<SmallVector<Value>> offsets = layOut(b, tokens);
  if (failed(offsets)) {
    workspace.erase();
    return failure();
  }
  Value total = arith::IndexCastOp::create(b, i64, offsets->back());
  func::ReturnOp::create(b, total);
  return success();
}

/// T, from the first argument that has it; 0 where no argument depends on it.
Value Arena::findTokens(ImplicitLocOpBuilder &b) {
  for (BlockArgument argument : function.getArguments())
    if (auto type = dyn_cast<MemRefType>(argument.getType()))
      for (int64_t dim = 0; dim < type.getRank(); ++dim)
        if (type.isDynamicDim(dim))
          return memref::DimOp::create(b, argument, dim);
  return arith::ConstantIndexOp::create(b, 0);
}

LogicalResult Arena::run() {
  BufferViewFlowAnalysis flow(function);
  WalkResult result = function.walk([&](memref::AllocOp alloc) {
    allocs.push_back(alloc);
    return failed(verifyStaysInIteration(alloc, flow)) ? WalkResult::interrupt()
                                                       : WalkResult::advance();
  });
  if (result.wasInterrupted() || failed(buildWorkspaceFunction()))
    return failure();

  auto bytes = MemRefType::get({ShapedType::kDynamic},
                               IntegerType::get(function.getContext(), 8));
  unsigned position = function.getNumArguments();
  ImplicitLocOpBuilder b(function.getLoc(), function.getContext());
  b.setInsertionPointToStart(&function.getBody().front());
  Value tokens = findTokens(b);
  FailureOr<SmallVector<Value>> offsets = layOut(b, tokens);
  if (failed(offsets) ||
      failed(function.insertArgument(position, bytes, {}, function.getLoc())))
    return failure();
  Value arena = function.getArgument(position);
  for (auto [alloc, offset] : llvm::zip(allocs, *offsets)) {
    OpBuilder here(alloc);
    Value view = memref::ViewOp::create(here, alloc.getLoc(), alloc.getType(),
                                        arena, offset, alloc.getDynamicSizes());
    alloc.replaceAllUsesWith(view);
    alloc.erase();
  }
  return success();
}

namespace {
struct MoEAllocsToArena : moe::impl::MoEAllocsToArenaBase<MoEAllocsToArena> {
  using MoEAllocsToArenaBase::MoEAllocsToArenaBase;

  void runOnOperation() override {
    if (alignment < 1 || !llvm::isPowerOf2_64(alignment)) {
      getOperation().emitError() << "expected an alignment that is a power of "
                                    "two, got "
                                 << alignment;
      return signalPassFailure();
    }
    SmallVector<func::FuncOp> exported;
    for (auto function : getOperation().getOps<func::FuncOp>())
      if (function->hasAttr("moe.signature") && !function.isExternal())
        exported.push_back(function);
    for (func::FuncOp function : exported)
      if (failed(Arena(function, alignment).run()) ||
          failed(verifyCallees(function)))
        return signalPassFailure();
  }
};
} // namespace
