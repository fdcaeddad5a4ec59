//===- MoveBF16AsI16.cpp - bf16 values of the LLVM dialect as i16 ---------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Transforms/Passes.h"

#include "mlir/Dialect/GPU/IR/GPUDialect.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/IR/AttrTypeSubElements.h"
#include "mlir/IR/DialectResourceBlobManager.h"
#include "mlir/IR/TypeUtilities.h"

using namespace mlir;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEMOVEBF16ASI16
#include "moe/Transforms/Passes.h.inc"
} // namespace mlir::moe

/// True if an operation takes values of any type and keeps their bits.
static bool movesOnly(Operation *op) {
  return isa<
      // functions and control flow
      LLVM::LLVMFuncOp, LLVM::CallOp, LLVM::InvokeOp, LLVM::ReturnOp,
      LLVM::BrOp, LLVM::CondBrOp, LLVM::SwitchOp, LLVM::SelectOp,
      LLVM::FreezeOp,
      // memory
      LLVM::GlobalOp, LLVM::AllocaOp, LLVM::GEPOp, LLVM::LoadOp, LLVM::StoreOp,
      LLVM::MaskedLoadOp, LLVM::MaskedStoreOp, LLVM::masked_gather,
      LLVM::masked_scatter, LLVM::masked_expandload, LLVM::masked_compressstore,
      // constants
      LLVM::ConstantOp, LLVM::PoisonOp, LLVM::UndefOp, LLVM::ZeroOp,
      // vectors and aggregates
      LLVM::BitcastOp, LLVM::ExtractElementOp, LLVM::InsertElementOp,
      LLVM::ShuffleVectorOp, LLVM::ExtractValueOp, LLVM::InsertValueOp,
      LLVM::vector_extract, LLVM::vector_insert, LLVM::vector_deinterleave2,
      LLVM::vector_interleave2>(op);
}

static bool isBF16(Type type) { return getElementTypeOrSelf(type).isBF16(); }

static void addReplacements(AttrTypeReplacer &replacer, MLIRContext *context) {
  Type i16 = IntegerType::get(context, 16);
  replacer.addReplacement([=](BFloat16Type) -> Type { return i16; });
  replacer.addReplacement([=](FloatAttr value) -> std::optional<Attribute> {
    if (!value.getType().isBF16())
      return std::nullopt;
    return IntegerAttr::get(i16, value.getValue().bitcastToAPInt());
  });
  replacer.addReplacement(
      [=](DenseIntOrFPElementsAttr values) -> std::optional<Attribute> {
        if (!values.getElementType().isBF16())
          return std::nullopt;
        return values.bitcast(i16);
      });
  replacer.addReplacement(
      [=](DenseResourceElementsAttr values) -> std::optional<Attribute> {
        ShapedType type = values.getType();
        if (!type.getElementType().isBF16())
          return std::nullopt;
        return DenseResourceElementsAttr::get(type.clone(i16),
                                              values.getRawHandle());
      });
}

/// Replaces bf16 by i16 in the results, block arguments and inherent attributes
/// of an operation. Discardable attributes keep the type of the source.
static void retype(Operation *op, AttrTypeReplacer &replacer) {
  for (NamedAttribute attribute : op->getAttrs())
    if (!attribute.getName().strref().contains('.'))
      if (Attribute changed = replacer.replace(attribute.getValue());
          changed != attribute.getValue())
        op->setAttr(attribute.getName(), changed);
  for (OpResult result : op->getResults())
    result.setType(replacer.replace(result.getType()));
  for (Region &region : op->getRegions())
    for (Block &block : region)
      for (BlockArgument argument : block.getArguments())
        argument.setType(replacer.replace(argument.getType()));
}

/// Keeps bf16 for an operation that computes with it, between bitcasts.
static void keepType(Operation *op, AttrTypeReplacer &replacer) {
  OpBuilder b(op);
  Location loc = op->getLoc();
  for (OpOperand &operand : op->getOpOperands())
    if (Type type = operand.get().getType(); isBF16(type))
      operand.set(LLVM::BitcastOp::create(b, loc, type, operand.get()));
  b.setInsertionPointAfter(op);
  for (OpResult result : op->getResults()) {
    if (!isBF16(result.getType()))
      continue;
    Type bits = replacer.replace(result.getType());
    auto moved = LLVM::BitcastOp::create(b, loc, bits, result);
    result.replaceAllUsesExcept(moved, moved);
  }
}

namespace {
struct MoEMoveBF16AsI16 : moe::impl::MoEMoveBF16AsI16Base<MoEMoveBF16AsI16> {
  void runOnOperation() override {
    AttrTypeReplacer replacer;
    addReplacements(replacer, &getContext());
    SmallVector<Operation *> moves, others;
    getOperation().walk<WalkOrder::PreOrder>([&](Operation *op) {
      if (isa<gpu::GPUModuleOp>(op))
        return WalkResult::skip();
      if (movesOnly(op))
        moves.push_back(op);
      else if (isa_and_nonnull<LLVM::LLVMDialect>(op->getDialect()))
        others.push_back(op);
      return WalkResult::advance();
    });
    // Bitcasts are inserted before `moves` change the types of their results.
    for (Operation *op : others)
      keepType(op, replacer);
    for (Operation *op : moves)
      retype(op, replacer);
  }
};
} // namespace
