//===- AllocsToArena.cpp - One workspace for every buffer -----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Analysis/ArenaLayout.h"
#include "moe/Analysis/BufferLifetimes.h"
#include "moe/Analysis/TokenBounds.h"
#include "moe/Analysis/TokenFunction.h"
#include "moe/Dialect/MoE/IR/MoEABI.h"
#include "moe/Dialect/MoE/Transforms/Capacity/Passes.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "mlir/Interfaces/CallInterfaces.h"
#include "llvm/ADT/SetVector.h"
#include "llvm/ADT/SmallPtrSet.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEALLOCSTOARENA
#include "moe/Dialect/MoE/Transforms/Capacity/Passes.h.inc"
} // namespace mlir::moe

/// Returns the bytes of an element as memref lowers it; 0 if unknown.
static int64_t elementBytes(Type type) {
  if (type.isIndex())
    return 8;
  if (!type.isIntOrFloat())
    return 0;
  return llvm::PowerOf2Ceil(llvm::divideCeil(type.getIntOrFloatBitWidth(), 8));
}

/// True if the static extents fit an address space of 48 bits.
static bool isAddressable(MemRefType type, int64_t bytes) {
  for (int64_t extent : type.getShape())
    if (!ShapedType::isDynamic(extent) &&
        (llvm::MulOverflow(bytes, extent, bytes) || bytes > int64_t(1) << 48))
      return false;
  return true;
}

/// Fails if a callee of an exported function, direct or indirect, allocates:
/// that buffer would be on the heap and would leak.
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
        InFlightDiagnostic diag =
            alloc.emitError("expected every buffer in the exported function '");
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
/// Replaces the buffers of one function by views of a workspace.
class Arena {
public:
  Arena(func::FuncOp function, int64_t alignment)
      : function(function), alignment(alignment) {}

  LogicalResult run();

private:
  LogicalResult findBuffers();
  FailureOr<SmallVector<Value>> buildSizes(ImplicitLocOpBuilder &b,
                                           Value tokens);
  SmallVector<Value> buildOffsets(ImplicitLocOpBuilder &b,
                                  ArrayRef<Value> sizes);
  LogicalResult chooseLayout(Value tokens, ArrayRef<Value> sizes);
  LogicalResult verifyPlan(Value tokens, Value total);
  LogicalResult buildWorkspaceFunction();
  int64_t maxTokens();
  Value findTokens(ImplicitLocOpBuilder &b);

  func::FuncOp function;
  int64_t alignment;
  SmallVector<memref::AllocOp> allocs;
  SmallVector<Lifetime> lifetimes;
  ArenaLayout layout;
};
} // namespace

LogicalResult Arena::findBuffers() {
  BufferLifetimes analysis(function);
  WalkResult result = function.walk([&](memref::AllocOp alloc) {
    if (failed(analysis.verify(alloc)))
      return WalkResult::interrupt();
    allocs.push_back(alloc);
    lifetimes.push_back(analysis.of(alloc));
    return WalkResult::advance();
  });
  if (result.wasInterrupted())
    return failure();
  // Deallocations are dropped, as the caller frees the workspace.
  result = function.walk([&](memref::DeallocOp dealloc) {
    if (dealloc.getMemref().getDefiningOp<memref::AllocOp>()) {
      dealloc.erase();
      return WalkResult::advance();
    }
    dealloc.emitError("expected only buffers of this function to be freed");
    return WalkResult::interrupt();
  });
  return failure(result.wasInterrupted());
}

/// Builds upper bounds of the bytes of each buffer for `tokens` tokens.
FailureOr<SmallVector<Value>> Arena::buildSizes(ImplicitLocOpBuilder &b,
                                                Value tokens) {
  auto index = [&](int64_t value) -> Value {
    return arith::ConstantIndexOp::create(b, value);
  };
  TokenBounds bounds(b, tokens);
  SmallVector<Value> sizes;
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
        return alloc.emitError(
                   "expected the size of every buffer to be bounded "
                   "by the number of tokens; dimension ")
               << dim << " of " << type << " is not";
      size = arith::MulIOp::create(b, size, extent);
    }
    size = arith::AddIOp::create(b, size, index(alignment - 1));
    sizes.push_back(arith::AndIOp::create(b, size, index(-alignment)));
  }
  return sizes;
}

static Value maximum(ImplicitLocOpBuilder &b, ArrayRef<Value> values) {
  Value result = arith::ConstantIndexOp::create(b, 0);
  for (auto [index, value] : llvm::enumerate(values))
    result = index == 0 ? value : arith::MaxSIOp::create(b, result, value);
  return result;
}

/// Returns the offset of each buffer, then the total.
SmallVector<Value> Arena::buildOffsets(ImplicitLocOpBuilder &b,
                                       ArrayRef<Value> sizes) {
  SmallVector<Value> offsets(allocs.size()), ends(allocs.size());
  llvm::SmallSetVector<Value, 8> tops;
  for (unsigned buffer : layout.order) {
    SmallVector<Value> endsBelow;
    for (unsigned other : layout.below[buffer]) {
      endsBelow.push_back(ends[other]);
      tops.remove(ends[other]);
    }
    offsets[buffer] = maximum(b, endsBelow);
    ends[buffer] = arith::AddIOp::create(b, offsets[buffer], sizes[buffer]);
    tops.insert(ends[buffer]);
  }
  offsets.push_back(maximum(b, tops.getArrayRef()));
  return offsets;
}

/// Returns the largest T of a call: row indices are i32.
int64_t Arena::maxTokens() {
  auto range = function->getAttrOfType<ArrayAttr>(tokensAttrName);
  if (range && range.size() == 2)
    if (auto max = dyn_cast<IntegerAttr>(range[1]))
      return max.getInt();
  return INT32_MAX;
}

/// Chooses the layout for the largest T, where memory matters most.
LogicalResult Arena::chooseLayout(Value tokens, ArrayRef<Value> sizes) {
  TokenFunction atMost(tokens, maxTokens());
  SmallVector<int64_t> bytes;
  for (auto [alloc, size] : llvm::zip(allocs, sizes)) {
    std::optional<int64_t> value = atMost.evaluate(size);
    if (!value)
      return alloc->emitError("expected a size within 64 bits for the ")
             << maxTokens() << " tokens that moe.tokens allows";
    bytes.push_back(*value);
  }
  std::optional<ArenaLayout> found = computeArenaLayout(lifetimes, bytes);
  if (!found)
    return function.emitError("expected a workspace within 64 bits for the ")
           << maxTokens() << " tokens that moe.tokens allows";
  layout = std::move(*found);
  return success();
}

/// Fails if the plan of the function promises less than the layout needs.
LogicalResult Arena::verifyPlan(Value tokens, Value total) {
  auto plan = function->getAttrOfType<PlanAttr>(planAttrName);
  if (!plan || plan.getWorkspace() < 0)
    return success();
  SmallVector<int64_t> points{plan.getMin(), plan.getMax(), maxTokens()};
  for (int64_t each = 1; each < std::min<int64_t>(plan.getMax(), INT32_MAX);
       each *= 2)
    points.push_back(each);
  for (int64_t each : points) {
    std::optional<int64_t> bytes = TokenFunction(tokens, each).evaluate(total);
    if (!bytes || *bytes > plan.getWorkspace()) {
      InFlightDiagnostic diag = function.emitError("expected a workspace of at "
                                                   "most the ");
      diag << plan.getWorkspace() << " bytes that moe.plan promises for "
           << each << " tokens, got ";
      if (bytes)
        diag << *bytes;
      else
        diag << "more than 64 bits hold";
      return diag;
    }
  }
  return success();
}

/// Builds moe_workspace_<name>(T), which returns bytes.
LogicalResult Arena::buildWorkspaceFunction() {
  ImplicitLocOpBuilder b(function.getLoc(), function.getContext());
  b.setInsertionPointAfter(function);
  Type i64 = b.getI64Type();
  auto workspace =
      func::FuncOp::create(b, (workspacePrefix + function.getName()).str(),
                           b.getFunctionType({i64}, {i64}));
  b.setInsertionPointToStart(workspace.addEntryBlock());
  Value tokens =
      arith::IndexCastOp::create(b, b.getIndexType(), workspace.getArgument(0));
  FailureOr<SmallVector<Value>> sizes = buildSizes(b, tokens);
  if (failed(sizes) || failed(chooseLayout(tokens, *sizes))) {
    workspace.erase();
    return failure();
  }
  Value total = buildOffsets(b, *sizes).back();
  if (failed(verifyPlan(tokens, total))) {
    workspace.erase();
    return failure();
  }
  func::ReturnOp::create(b,
                         arith::IndexCastOp::create(b, i64, total).getResult());
  return success();
}

/// Reads T from the first dynamic extent of an argument; 0 if all are static.
Value Arena::findTokens(ImplicitLocOpBuilder &b) {
  for (BlockArgument argument : function.getArguments())
    if (auto type = dyn_cast<MemRefType>(argument.getType()))
      for (int64_t dim = 0; dim < type.getRank(); ++dim)
        if (type.isDynamicDim(dim))
          return memref::DimOp::create(b, argument, dim);
  return arith::ConstantIndexOp::create(b, 0);
}

LogicalResult Arena::run() {
  if (failed(findBuffers()) || failed(buildWorkspaceFunction()))
    return failure();

  auto bytes = MemRefType::get({ShapedType::kDynamic},
                               IntegerType::get(function.getContext(), 8));
  unsigned position = function.getNumArguments();
  ImplicitLocOpBuilder b(function.getLoc(), function.getContext());
  b.setInsertionPointToStart(&function.getBody().front());
  Value tokens = findTokens(b);
  FailureOr<SmallVector<Value>> sizes = buildSizes(b, tokens);
  if (failed(sizes) ||
      failed(function.insertArgument(position, bytes, {}, function.getLoc())))
    return failure();
  SmallVector<Value> offsets = buildOffsets(b, *sizes);
  Value arena = function.getArgument(position);
  for (auto [alloc, offset] : llvm::zip(allocs, offsets)) {
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
      if (isExported(function) && !function.isExternal())
        exported.push_back(function);
    for (func::FuncOp function : exported)
      if (failed(Arena(function, alignment).run()) ||
          failed(verifyCallees(function)))
        return signalPassFailure();
  }
};
} // namespace
