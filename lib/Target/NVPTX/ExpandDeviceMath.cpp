//===- ExpandDeviceMath.cpp - Expand math functions for devices -----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ApproximateMath.h"
#include "moe/Target/NVPTX/Passes.h"

#include "mlir/Dialect/GPU/IR/GPUDialect.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Math/Transforms/Passes.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEEXPANDDEVICEMATH
#include "moe/Target/NVPTX/Passes.h.inc"
} // namespace mlir::moe

namespace {
/// exp(x) = 2^t · (1 + r ln 2), where t is x log2(e) rounded and r the rounding
/// error. For |x| in the tens, 2^t alone would be off by many ULP.
struct ExpandExp : OpRewritePattern<math::ExpOp> {
  using OpRewritePattern::OpRewritePattern;

  LogicalResult matchAndRewrite(math::ExpOp op,
                                PatternRewriter &rewriter) const override {
    if (!op.getType().isF32())
      return failure();
    ImplicitLocOpBuilder b(op.getLoc(), rewriter);
    auto constant = [&](double value) -> Value {
      return arith::ConstantOp::create(b, b.getF32FloatAttr(value));
    };
    // Beyond these bounds the result is 0 or infinity. NaN is propagated.
    Value x = arith::MaximumFOp::create(b, op.getOperand(), constant(-150.0));
    x = arith::MinimumFOp::create(b, x, constant(150.0));
    Value high = constant(1.44269502162933349609375);
    Value low = constant(1.92596299112661746887e-8);
    Value t = arith::MulFOp::create(b, x, high);
    Value rest = math::FmaOp::create(b, x, high, arith::NegFOp::create(b, t));
    rest = math::FmaOp::create(b, x, low, rest);
    Value power = LLVM::CallIntrinsicOp::create(
                      b, b.getF32Type(),
                      b.getStringAttr("llvm.nvvm.ex2.approx"), ValueRange(t))
                      .getResult(0);
    Value correction =
        arith::MulFOp::create(b, rest, constant(0.693147182464599609375));
    Value corrected = math::FmaOp::create(b, power, correction, power);
    Value infinite = arith::CmpFOp::create(
        b, arith::CmpFPredicate::OEQ, power,
        constant(std::numeric_limits<double>::infinity()));
    rewriter.replaceOpWithNewOp<arith::SelectOp>(op, infinite, power,
                                                 corrected);
    return success();
  }
};

/// min(max(x, lower), upper), like the lowering to SPIR-V. Upstream's expansion
/// applies the bounds in the opposite order, which differs if lower > upper.
struct ExpandClamp : OpRewritePattern<math::ClampFOp> {
  using OpRewritePattern::OpRewritePattern;

  LogicalResult matchAndRewrite(math::ClampFOp op,
                                PatternRewriter &rewriter) const override {
    Value lowerBounded = arith::MaximumFOp::create(rewriter, op.getLoc(),
                                                   op.getValue(), op.getMin());
    rewriter.replaceOpWithNewOp<arith::MinimumFOp>(op, lowerBounded,
                                                   op.getMax());
    return success();
  }
};

/// Replaces a function by an LLVM intrinsic that NVPTX has an instruction for.
template <typename OpT> struct ToIntrinsic : OpRewritePattern<OpT> {
  ToIntrinsic(MLIRContext *context, StringRef name)
      : OpRewritePattern<OpT>(context), name(name) {}

  LogicalResult matchAndRewrite(OpT op,
                                PatternRewriter &rewriter) const override {
    auto call = LLVM::CallIntrinsicOp::create(
        rewriter, op.getLoc(), op.getType(), rewriter.getStringAttr(name),
        op->getOperands());
    rewriter.replaceOp(op, call.getResults());
    return success();
  }

  StringRef name;
};

struct MoEExpandDeviceMath
    : moe::impl::MoEExpandDeviceMathBase<MoEExpandDeviceMath> {
  void runOnOperation() override {
    SmallVector<Operation *> approximate, precise;
    getOperation()->walk([&](Operation *op) {
      bool isFunction = isa_and_nonnull<math::MathDialect>(op->getDialect());
      if (isApproximate(op) && (isFunction || isa<arith::DivFOp>(op)))
        approximate.push_back(op);
      else if (isFunction)
        precise.push_back(op);
    });
    ApproximateListener listener;
    expand(approximate, &listener);
    expand(precise, /*listener=*/nullptr);
    verify();
  }

  void expand(ArrayRef<Operation *> functions,
              RewriterBase::Listener *listener) {
    if (functions.empty())
      return;
    RewritePatternSet patterns(&getContext());
    populateApproximateMathPatterns(patterns);
    patterns.add<ExpandExp>(&getContext(), /*benefit=*/2);
    populateMathPolynomialApproximationPatterns(
        patterns, [](StringRef name) { return name != "math.exp"; });
    math::populateExpansionPatterns(
        patterns, {"powf", "fpowi", "exp2", "rsqrt", "tan", "cosh"});
    patterns.add<ExpandClamp>(&getContext());
    patterns.add<ToIntrinsic<math::FmaOp>>(&getContext(), "llvm.fma");
    patterns.add<ToIntrinsic<math::AbsFOp>>(&getContext(), "llvm.fabs");
    patterns.add<ToIntrinsic<math::SqrtOp>>(&getContext(), "llvm.sqrt");
    patterns.add<ToIntrinsic<math::CeilOp>>(&getContext(), "llvm.ceil");
    patterns.add<ToIntrinsic<math::FloorOp>>(&getContext(), "llvm.floor");
    patterns.add<ToIntrinsic<math::TruncOp>>(&getContext(), "llvm.trunc");
    patterns.add<ToIntrinsic<math::RoundOp>>(&getContext(), "llvm.round");
    patterns.add<ToIntrinsic<math::RoundEvenOp>>(&getContext(),
                                                 "llvm.roundeven");
    patterns.add<ToIntrinsic<math::CopySignOp>>(&getContext(), "llvm.copysign");
    GreedyRewriteConfig config;
    config.setStrictness(GreedyRewriteStrictness::ExistingAndNewOps);
    config.setListener(listener);
    (void)applyOpPatternsGreedily(functions, std::move(patterns), config);
  }

  /// Fails if a function is left that needs a library; convert-math-to-llvm
  /// lowers the others to instructions.
  void verify() {
    getOperation()->walk([&](Operation *op) {
      bool function = isa_and_nonnull<math::MathDialect>(op->getDialect()) &&
                      !isa<math::AbsIOp, math::CountLeadingZerosOp,
                           math::CountTrailingZerosOp, math::CtPopOp>(op);
      if (!function && !isa<arith::RemFOp>(op))
        return;
      op->emitOpError("of ") << op->getResult(0).getType()
                             << " has no implementation on the device";
      signalPassFailure();
    });
  }
};
} // namespace
