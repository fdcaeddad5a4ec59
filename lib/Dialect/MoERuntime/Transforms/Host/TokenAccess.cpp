//===- TokenAccess.cpp - Memory accesses by token -------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "TokenAccess.h"

#include "mlir/Dialect/Utils/StaticValueUtils.h"
#include "mlir/Interfaces/FunctionInterfaces.h"
#include "mlir/Interfaces/ViewLikeInterface.h"

using namespace mlir;
using namespace mlir::moe;

//===----------------------------------------------------------------------===//
// Buffers
//===----------------------------------------------------------------------===//

/// Returns the dimension of the source behind dimension `dim` of a view.
static unsigned sourceDim(memref::SubViewOp view, unsigned dim) {
  llvm::SmallBitVector dropped = view.getDroppedDims();
  for (unsigned source = 0; source < dropped.size(); ++source)
    if (!dropped.test(source) && dim-- == 0)
      return source;
  llvm_unreachable("a view has no more dimensions than are not dropped");
}

/// Rewrites an access in terms of the buffer at the root of all views.
static TokenAccess atRoot(TokenAccess access) {
  while (Operation *op = access.root.getDefiningOp()) {
    if (auto view = dyn_cast<memref::SubViewOp>(op)) {
      if (access.dim) {
        unsigned dim = sourceDim(view, *access.dim);
        bool whole = isConstantIntValue(view.getMixedOffsets()[dim], 0) &&
                     isConstantIntValue(view.getMixedStrides()[dim], 1);
        access.dim = whole ? std::optional(dim) : std::nullopt;
      }
      access.root = view.getSource();
    } else if (auto cast = dyn_cast<memref::CastOp>(op)) {
      access.root = cast.getSource();
    } else if (auto view = dyn_cast<ViewLikeOpInterface>(op)) {
      access = {view.getViewSource(), std::nullopt, access.writes};
    } else {
      break;
    }
  }
  return access;
}

static TokenExtent extentOf(Value buffer, int64_t dim);

static TokenExtent extentOf(OpFoldResult size, Value otherwise, int64_t dim) {
  auto value = dyn_cast<Value>(size);
  if (!value)
    return {otherwise, dim};
  if (auto op = value.getDefiningOp<memref::DimOp>())
    if (std::optional<int64_t> constant = op.getConstantIndex())
      return extentOf(op.getSource(), *constant);
  return {value, -1};
}

/// Traces a dimension of a buffer through views and casts to its origin.
static TokenExtent extentOf(Value buffer, int64_t dim) {
  Operation *op = buffer.getDefiningOp();
  if (auto view = dyn_cast_or_null<memref::SubViewOp>(op))
    return extentOf(view.getMixedSizes()[sourceDim(view, dim)], buffer, dim);
  if (auto cast = dyn_cast_or_null<memref::CastOp>(op))
    return extentOf(cast.getSource(), dim);
  if (auto alloc = dyn_cast_or_null<memref::AllocOp>(op))
    return extentOf(alloc.getMixedSizes()[dim], buffer, dim);
  return {buffer, dim};
}

/// True if `root` is known not to alias other distinct roots.
static bool isDistinct(Value root) {
  auto argument = dyn_cast<BlockArgument>(root);
  return argument ? isa<FunctionOpInterface>(argument.getOwner()->getParentOp())
                  : isa<memref::AllocOp>(root.getDefiningOp());
}

static bool mayAlias(Value a, Value b) {
  return a == b || !isDistinct(a) || !isDistinct(b);
}

bool mlir::moe::conflict(ArrayRef<TokenAccess> a, ArrayRef<TokenAccess> b) {
  return llvm::any_of(a, [&](const TokenAccess &x) {
    return llvm::any_of(b, [&](const TokenAccess &y) {
      bool own = x.root == y.root && x.dim && x.dim == y.dim;
      return (x.writes || y.writes) && mayAlias(x.root, y.root) && !own;
    });
  });
}

//===----------------------------------------------------------------------===//
// Operations
//===----------------------------------------------------------------------===//

std::optional<unsigned> mlir::moe::tokenDim(OpOperand &operand) {
  MLIRContext *context = operand.getOwner()->getContext();
  if (auto op = dyn_cast<linalg::LinalgOp>(operand.getOwner())) {
    if (!isa<MemRefType>(operand.get().getType()))
      return std::nullopt;
    return op.getMatchingIndexingMap(&operand).getResultPosition(
        getAffineDimExpr(0, context));
  }
  auto op = cast<GroupedMatmulOp>(operand.getOwner());
  unsigned index = operand.getOperandNumber();
  if (index == op.getLhsMutable().getOperandNumber() || op.isDpsInit(&operand))
    return 0;
  unsigned first = op.getExtras().empty()
                       ? op->getNumOperands()
                       : op.getExtras().getBeginOperandIndex();
  if (index < first || index >= first + op.getExtras().size())
    return std::nullopt;
  return op.getOperandMap(index - first)
      .getResultPosition(getAffineDimExpr(1, context));
}

/// True if the first loop of `op` is parallel over tokens or rows.
static bool isOverTokens(linalg::LinalgOp op) {
  if (!isa<linalg::GenericOp, linalg::FillOp>(op) ||
      !op.hasPureBufferSemantics() || op.getNumLoops() == 0 ||
      op.getIteratorTypesArray()[0] != utils::IteratorType::parallel ||
      !ShapedType::isDynamic(op.getStaticLoopRanges()[0]))
    return false;
  // A block of the loop must be a slice of each buffer.
  for (AffineMap map : op.getIndexingMapsArray())
    if (map.isFunctionOfDim(0) && !map.isProjectedPermutation())
      return false;
  return true;
}

/// True for a dense matmul of all tokens whose weights are so few that a task
/// can compute all columns.
static bool isSmallMatmul(GroupedMatmulOp op) {
  constexpr int64_t maxPanels = 8;
  return !op.getResult() && !op.getOffsets() && !op.getGather() &&
         op.getPanels() &&
         llvm::divideCeil(op.getN(), op.getPanels()->getShare()) <= maxPanels;
}

/// Adds the accesses of the operands.
static void addOperands(Operation *op, TokenWork &work) {
  auto style = cast<DestinationStyleOpInterface>(op);
  for (OpOperand &operand : op->getOpOperands()) {
    if (!isa<MemRefType>(operand.get().getType()))
      continue;
    std::optional<unsigned> dim = tokenDim(operand);
    work.accesses.push_back(
        atRoot({operand.get(), dim, style.isDpsInit(&operand)}));
    if (dim)
      work.extents.push_back(extentOf(operand.get(), *dim));
  }
}

/// Adds the loads in the region of `op`; returns false on other side effects.
static bool addLoads(linalg::LinalgOp op, TokenWork &work) {
  WalkResult result = op->getRegion(0).walk([&](Operation *nested) {
    auto load = dyn_cast<memref::LoadOp>(nested);
    if (!load)
      return isMemoryEffectFree(nested) ? WalkResult::advance()
                                        : WalkResult::interrupt();
    std::optional<unsigned> dim;
    for (auto [index, value] : llvm::enumerate(load.getIndices()))
      if (auto iteration = value.getDefiningOp<linalg::IndexOp>())
        if (iteration.getDim() == 0)
          dim = index;
    work.accesses.push_back(atRoot({load.getMemRef(), dim, false}));
    return WalkResult::advance();
  });
  return !result.wasInterrupted();
}

/// True if `value` is defined outside `op`.
static bool isBefore(Value value, Operation *op) {
  return !op->isAncestor(value.getParentBlock()->getParentOp());
}

static std::optional<TokenWork> workOf(Operation *op, Operation *outermost);

/// Returns the accesses of all iterations of a loop.
static std::optional<TokenWork> workOfLoop(scf::ForOp loop,
                                           Operation *outermost) {
  if (loop->getNumResults() != 0)
    return std::nullopt;
  TokenWork work;
  for (Operation &nested : loop.getBody()->without_terminator()) {
    if (auto alloc = dyn_cast<memref::AllocOp>(nested)) {
      if (!llvm::all_of(alloc->getOperands(),
                        [&](Value size) { return isBefore(size, outermost); }))
        return std::nullopt;
      work.allocs.push_back(alloc);
    } else if (!isMovable(&nested)) {
      std::optional<TokenWork> more = workOf(&nested, outermost);
      if (!more || !append(work, std::move(*more)))
        return std::nullopt;
    }
  }
  return work;
}

static std::optional<TokenWork> workOf(Operation *op, Operation *outermost) {
  if (auto loop = dyn_cast<scf::ForOp>(op))
    return workOfLoop(loop, outermost);
  TokenWork work;
  auto linalgOp = dyn_cast<linalg::LinalgOp>(op);
  auto matmul = dyn_cast<GroupedMatmulOp>(op);
  if (linalgOp ? !isOverTokens(linalgOp) || !addLoads(linalgOp, work)
               : !matmul || !isSmallMatmul(matmul))
    return std::nullopt;
  addOperands(op, work);
  // A size computed inside the loop may differ between its iterations.
  llvm::erase_if(work.extents, [&](const TokenExtent &extent) {
    return !isBefore(extent.first, outermost);
  });
  return work.extents.empty() ? std::nullopt : std::optional(std::move(work));
}

std::optional<TokenWork> mlir::moe::tokenWorkOf(Operation *op) {
  std::optional<TokenWork> work = workOf(op, op);
  if (!work || work->extents.empty() ||
      conflict(work->accesses, work->accesses))
    return std::nullopt;
  return work;
}

bool mlir::moe::append(TokenWork &work, TokenWork more) {
  bool sameTokens = work.extents.empty() ||
                    llvm::any_of(more.extents, [&](const TokenExtent &each) {
                      return llvm::is_contained(work.extents, each);
                    });
  if (!sameTokens)
    return false;
  llvm::append_range(work.accesses, more.accesses);
  llvm::append_range(work.extents, more.extents);
  llvm::append_range(work.allocs, more.allocs);
  return true;
}

bool mlir::moe::isMovable(Operation *op) {
  return isa<memref::AllocOp>(op) ||
         (op->getNumRegions() == 0 && isMemoryEffectFree(op) &&
          !op->hasTrait<OpTrait::IsTerminator>());
}
