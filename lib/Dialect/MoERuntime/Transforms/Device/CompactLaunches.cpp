//===- CompactLaunches.cpp - Compact operands of launches -----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/IR/MoE.h"
#include "moe/Dialect/MoERuntime/Transforms/Passes.h"

#include "mlir/Dialect/GPU/IR/GPUDialect.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "mlir/IR/Matchers.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOECOMPACTLAUNCHES
#include "moe/Dialect/MoERuntime/Transforms/Passes.h.inc"
} // namespace mlir::moe

/// Bytes of a kernel's vector copies, and the alignment of a tensor map.
static constexpr uint64_t alignment = 16;

/// Returns the largest power of two, up to the alignment, that is known to
/// divide `size`.
static uint64_t divisorOf(OpFoldResult size) {
  if (std::optional<int64_t> constant = getConstantIntValue(size))
    return llvm::MinAlign(*constant, alignment);
  auto value = cast<Value>(size);
  // The induction variable of a loop over chunks of tokens.
  if (auto argument = dyn_cast<BlockArgument>(value)) {
    auto loop = dyn_cast<scf::ForOp>(argument.getOwner()->getParentOp());
    if (!loop || argument != loop.getInductionVar())
      return 1;
    return llvm::MinAlign(divisorOf(loop.getLowerBound()),
                          divisorOf(loop.getStep()));
  }
  if (auto product = value.getDefiningOp<arith::MulIOp>())
    return llvm::MinAlign(
        divisorOf(product.getLhs()) * divisorOf(product.getRhs()), alignment);
  if (auto sum = value.getDefiningOp<arith::AddIOp>())
    return llvm::MinAlign(divisorOf(sum.getLhs()), divisorOf(sum.getRhs()));
  return 1;
}

/// Returns the known alignment of a buffer's first element.
static uint64_t alignmentOf(Value buffer) {
  auto type = cast<MemRefType>(buffer.getType());
  uint64_t bytes = type.getElementType().isIntOrFloat()
                       ? llvm::divideCeil(type.getElementTypeBitWidth(), 8)
                       : 8;
  if (auto view = buffer.getDefiningOp<memref::SubViewOp>()) {
    uint64_t known = alignmentOf(view.getSource());
    auto [strides, offset] = view.getSourceType().getStridesAndOffset();
    for (auto [first, stride] : llvm::zip(view.getMixedOffsets(), strides)) {
      uint64_t step = ShapedType::isDynamic(stride) ? 1 : stride;
      known = llvm::MinAlign(known, divisorOf(first) * step * bytes);
    }
    return known;
  }
  Operation *op = buffer.getDefiningOp();
  if (isa_and_nonnull<memref::CastOp, memref::ExpandShapeOp,
                      memref::CollapseShapeOp>(op))
    return alignmentOf(op->getOperand(0));
  // Callers and the workspace guarantee the alignment.
  auto argument = dyn_cast<BlockArgument>(buffer);
  if (isa_and_nonnull<memref::AllocOp, memref::GetGlobalOp>(op) ||
      (argument &&
       isa<FunctionOpInterface>(argument.getOwner()->getParentOp())))
    return alignment;
  return llvm::MinAlign(bytes, alignment);
}

static bool isCompact(Value buffer) {
  auto type = cast<MemRefType>(buffer.getType());
  return type.areTrailingDimsContiguous(type.getRank()) &&
         alignmentOf(buffer) == alignment;
}

namespace {
struct MoECompactLaunches
    : moe::impl::MoECompactLaunchesBase<MoECompactLaunches> {
  void runOnOperation() override {
    getOperation()->walk([&](moe_rt::LaunchOp op) {
      // A kernel on memrefs takes the strides as arguments.
      Operation *kernel =
          SymbolTable::lookupNearestSymbolFrom(op, op.getKernel());
      if (isa_and_nonnull<gpu::GPUFuncOp>(kernel))
        return;
      for (OpOperand &operand : op.getInputsMutable())
        copy(op, operand, /*written=*/false);
      for (OpOperand &operand : op.getInitsMutable())
        copy(op, operand, /*written=*/true);
    });
    // CPU kernels take rows with any stride, but each row must be contiguous.
    getOperation()->walk([&](Operation *op) {
      if (auto product = dyn_cast<GroupedMatmulOp>(op))
        copyRows(op, {&product.getLhsMutable()}, product.getInitsMutable());
      else if (auto contract = dyn_cast<GroupedContractOp>(op))
        copyRows(op, {&contract.getLhsMutable(), &contract.getRhsMutable()},
                 contract.getDpsInitsMutable());
      else if (auto sum = dyn_cast<GatherSumOp>(op))
        copyRows(op, {&sum.getRowsMutable(), optional(sum.getDroppedMutable())},
                 sum.getDpsInitsMutable());
    });
  }

  static OpOperand *optional(MutableOperandRange range) {
    return range.empty() ? nullptr : &range[0];
  }

  void copyRows(Operation *op, ArrayRef<OpOperand *> inputs,
                MutableOperandRange inits) {
    auto isWhole = [](OpOperand &operand) {
      auto type = dyn_cast<MemRefType>(operand.get().getType());
      return !type || type.isLastDimUnitStride();
    };
    for (OpOperand *input : inputs)
      if (input && !isWhole(*input))
        copy(op, *input, /*written=*/false);
    for (OpOperand &init : inits)
      if (!isWhole(init))
        copy(op, init, /*written=*/true);
  }

  void copy(moe_rt::LaunchOp op, OpOperand &operand, bool written) {
    if (isa<MemRefType>(operand.get().getType()) && !isCompact(operand.get()))
      copy(op.getOperation(), operand, written);
  }

  void copy(Operation *op, OpOperand &operand, bool written) {
    Value buffer = operand.get();
    auto type = cast<MemRefType>(buffer.getType());
    ImplicitLocOpBuilder b(op->getLoc(), op);
    SmallVector<Value> extents;
    for (auto [dim, extent] : llvm::enumerate(type.getShape()))
      if (ShapedType::isDynamic(extent))
        extents.push_back(memref::DimOp::create(b, buffer, dim));
    Value compact = memref::AllocOp::create(
        b, MemRefType::get(type.getShape(), type.getElementType()), extents);
    // Also copied if the kernel writes it, since it may not write all elements.
    memref::CopyOp::create(b, buffer, compact);
    operand.set(compact);
    ++numCopied;
    if (!written)
      return;
    b.setInsertionPointAfter(op);
    memref::CopyOp::create(b, compact, buffer);
  }
};
} // namespace
