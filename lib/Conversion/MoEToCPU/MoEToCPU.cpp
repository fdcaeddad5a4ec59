//===- MoEToCPU.cpp - Kernels for the CPU ---------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Lowering.h"

#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Math/Transforms/Passes.h"
#include "mlir/Dialect/X86Vector/X86VectorDialect.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_CONVERTMOETOCPU
#include "moe/Conversion/Passes.h.inc"
} // namespace mlir::moe

namespace {
struct ConvertMoEToCPU : moe::impl::ConvertMoEToCPUBase<ConvertMoEToCPU> {
  using ConvertMoEToCPUBase::ConvertMoEToCPUBase;

  void runOnOperation() override {
    CPUDescription cpu{vectorBits, vectorRegisters, bf16Dot,
                       int8Dot,    bytePermute,     prefetchedPages};
    if (failed(cpu.verify(getOperation())))
      return signalPassFailure();
    // Operations of an epilogue come before the matmul that is erased with
    // them.
    SmallVector<Operation *> work;
    getOperation().walk<WalkOrder::PostOrder>([&](Operation *op) {
      if (isa_and_nonnull<MoEDialect>(op->getDialect()))
        work.push_back(op);
    });
    for (Operation *op : work)
      if (failed(lower(op, cpu)))
        return signalPassFailure();
    approximate();
  }

  /// Lowers an operation that has a kernel and leaves others.
  LogicalResult lower(Operation *op, const CPUDescription &cpu) {
    return llvm::TypeSwitch<Operation *, LogicalResult>(op)
        .Case<GroupedMatmulOp, GroupedContractOp, GatherSumOp, PackOp,
              QuantizeRowsOp, RoundMatricesOp>([&](auto op) {
          if (op->getNumResults() != 0)
            return LogicalResult(
                op->emitOpError("is on tensors; bufferize it before "
                                "convert-moe-to-cpu"));
          return lowerToCPU(op, cpu);
        })
        .Default(success());
  }

  /// Replaces math functions of vectors by polynomial approximations; scalar
  /// ones call the library.
  void approximate() {
    RewritePatternSet patterns(&getContext());
    populateMathPolynomialApproximationPatterns(patterns);
    SmallVector<Operation *> functions;
    getOperation().walk([&](Operation *op) {
      if (isa_and_nonnull<math::MathDialect>(op->getDialect()) &&
          llvm::all_of(op->getResultTypes(), llvm::IsaPred<VectorType>))
        functions.push_back(op);
    });
    GreedyRewriteConfig config;
    config.setStrictness(GreedyRewriteStrictness::ExistingAndNewOps);
    if (!functions.empty())
      (void)applyOpPatternsGreedily(functions, std::move(patterns), config);
  }
};
} // namespace

LogicalResult CPUDescription::verify(Operation *op) const {
  if (vectorBits < 128 || vectorBits > 2048 || !llvm::isPowerOf2_64(vectorBits))
    return op->emitError(
               "expected vectors of 128 to 2048 bits, a power of two, "
               "got ")
           << vectorBits;
  if (vectorRegisters < 8)
    return op->emitError("expected at least 8 vector registers, got ")
           << vectorRegisters;
  if (bf16Dot && vectorBits != 512)
    return op->emitError(
               "expected vectors of 512 bits for dot products of bf16, "
               "got ")
           << vectorBits;
  if (int8Dot && vectorBits < 256)
    return op->emitError("expected vectors of at least 256 bits for dot "
                         "products of 8-bit integers, got ")
           << vectorBits;
  if (bytePermute && vectorBits != 512)
    return op->emitError("expected vectors of 512 bits for tables of bytes, "
                         "got ")
           << vectorBits;
  if (prefetchedPages < 0 || prefetchedPages > 64)
    return op->emitError("expected 0 to 64 prefetched pages, got ")
           << prefetchedPages;
  return success();
}
