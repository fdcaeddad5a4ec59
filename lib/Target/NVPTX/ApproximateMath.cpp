//===- ApproximateMath.cpp - Functions with fastmath<afn> -----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ApproximateMath.h"

#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "mlir/IR/Matchers.h"

using namespace mlir;
using namespace mlir::moe;

bool mlir::moe::isApproximate(Operation *op) {
  auto withFlags = dyn_cast<arith::ArithFastMathInterface>(op);
  if (!withFlags)
    return false;
  arith::FastMathFlagsAttr flags = withFlags.getFastMathFlagsAttr();
  return flags &&
         arith::bitEnumContainsAll(flags.getValue(), arith::FastMathFlags::afn);
}

void ApproximateListener::notifyOperationInserted(
    Operation *op, OpBuilder::InsertPoint previous) {
  auto withFlags = dyn_cast<arith::ArithFastMathInterface>(op);
  if (withFlags &&
      (isa<arith::DivFOp>(op) || isa<math::MathDialect>(op->getDialect())))
    op->setAttr(withFlags.getFastMathAttrName(),
                arith::FastMathFlagsAttr::get(op->getContext(),
                                              arith::FastMathFlags::afn));
}

namespace {
/// Short names for arithmetic in f32.
class F32Builder : public ImplicitLocOpBuilder {
public:
  using ImplicitLocOpBuilder::ImplicitLocOpBuilder;

  Value constant(double value) {
    return arith::ConstantOp::create(*this, getF32FloatAttr(value));
  }
  Value add(Value x, Value y) { return arith::AddFOp::create(*this, x, y); }
  Value mul(Value x, Value y) { return arith::MulFOp::create(*this, x, y); }
  Value fma(Value x, Value y, Value z) {
    return intrinsic("llvm.fma", {x, y, z});
  }
  Value intrinsic(StringRef name, ValueRange operands) {
    return LLVM::CallIntrinsicOp::create(*this, getF32Type(),
                                         getStringAttr(name), operands)
        .getResult(0);
  }
};

/// Base of the patterns of one operation of f32.
template <typename OpT> struct Approximate : OpRewritePattern<OpT> {
  Approximate(MLIRContext *context)
      : OpRewritePattern<OpT>(context, /*benefit=*/3) {}

  LogicalResult matchAndRewrite(OpT op,
                                PatternRewriter &rewriter) const override {
    if (!op.getType().isF32() || !isApproximate(op))
      return failure();
    F32Builder b(op.getLoc(), rewriter);
    rewriter.replaceOp(op, build(b, op));
    return success();
  }
  virtual Value build(F32Builder &b, OpT op) const = 0;
};
} // namespace

static constexpr llvm::StringLiteral powerOfTwo = "llvm.nvvm.ex2.approx.ftz";

/// 2^x; below 2^-126 it is 0.
static Value exp2(F32Builder &b, Value x) { return b.intrinsic(powerOfTwo, x); }

/// True for e^x + 1 and 2^x + 1, expanded or not: the divisor of a sigmoid.
static bool isPowerPlusOne(Value value) {
  auto sum = value.getDefiningOp<arith::AddFOp>();
  if (!sum)
    return false;
  auto isPower = [](Value term) {
    if (auto call = term.getDefiningOp<LLVM::CallIntrinsicOp>())
      return call.getIntrin() == powerOfTwo;
    return isa_and_nonnull<math::ExpOp, math::Exp2Op>(term.getDefiningOp());
  };
  return (isPower(sum.getLhs()) && matchPattern(sum.getRhs(), m_OneFloat())) ||
         (isPower(sum.getRhs()) && matchPattern(sum.getLhs(), m_OneFloat()));
}

namespace {
struct ApproximateExp2 : Approximate<math::Exp2Op> {
  using Approximate::Approximate;
  Value build(F32Builder &b, math::Exp2Op op) const override {
    return exp2(b, op.getOperand());
  }
};

/// 2^(x log2(e)): the product's error of half an ULP, at most 2^-18, is one of
/// the exponent.
struct ApproximateExp : Approximate<math::ExpOp> {
  using Approximate::Approximate;
  Value build(F32Builder &b, math::ExpOp op) const override {
    return exp2(b, b.mul(op.getOperand(), b.constant(1.4426950408889634)));
  }
};

/// 1 - 2 / (e^2x + 1), and x - x^3 / 3 + 2 x^5 / 15 near 0, where the former
/// cancels; that does not matter where 1 is added.
struct ApproximateTanh : Approximate<math::TanhOp> {
  using Approximate::Approximate;
  Value build(F32Builder &b, math::TanhOp op) const override {
    Value x = op.getOperand(), one = b.constant(1.0);
    Value power = exp2(b, b.mul(x, b.constant(2 * 1.4426950408889634)));
    Value inverse =
        b.intrinsic("llvm.nvvm.rcp.approx.ftz.f", b.add(power, one));
    Value far = b.fma(inverse, b.constant(-2.0), one);
    if (llvm::all_of(op->getUsers(), isPlusOne))
      return far;
    Value square = b.mul(x, x);
    Value factor =
        b.fma(square, b.constant(2.0 / 15.0), b.constant(-1.0 / 3.0));
    Value near = b.fma(b.mul(square, factor), x, x);
    Value isNear = arith::CmpFOp::create(b, arith::CmpFPredicate::OLT, square,
                                         b.constant(0x1p-8));
    return arith::SelectOp::create(b, isNear, near, far);
  }

  static bool isPlusOne(Operation *user) {
    return isa<arith::AddFOp>(user) &&
           llvm::any_of(user->getOperands(), [](Value operand) {
             return matchPattern(operand, m_OneFloat());
           });
  }
};

struct ApproximateSqrt : Approximate<math::SqrtOp> {
  using Approximate::Approximate;
  Value build(F32Builder &b, math::SqrtOp op) const override {
    return b.intrinsic("llvm.nvvm.sqrt.approx.f", op.getOperand());
  }
};

struct ApproximateRsqrt : Approximate<math::RsqrtOp> {
  using Approximate::Approximate;
  Value build(F32Builder &b, math::RsqrtOp op) const override {
    return b.intrinsic("llvm.nvvm.rsqrt.approx.f", op.getOperand());
  }
};

/// div.full is right for all divisors. Those that are 1 at least need less: no
/// reciprocal but of numbers beyond 2^126 is subnormal, and it becomes 0.
struct ApproximateDiv : Approximate<arith::DivFOp> {
  using Approximate::Approximate;
  Value build(F32Builder &b, arith::DivFOp op) const override {
    if (isPowerPlusOne(op.getRhs()))
      return b.mul(op.getLhs(),
                   b.intrinsic("llvm.nvvm.rcp.approx.ftz.f", op.getRhs()));
    return b.intrinsic("llvm.nvvm.div.full", {op.getLhs(), op.getRhs()});
  }
};

/// Quotients of 16 bits are computed in f32.
struct WidenDiv : OpRewritePattern<arith::DivFOp> {
  using OpRewritePattern::OpRewritePattern;

  LogicalResult matchAndRewrite(arith::DivFOp op,
                                PatternRewriter &rewriter) const override {
    if ((!op.getType().isF16() && !op.getType().isBF16()) || !isApproximate(op))
      return failure();
    ImplicitLocOpBuilder b(op.getLoc(), rewriter);
    auto widen = [&](Value x) {
      return arith::ExtFOp::create(b, b.getF32Type(), x);
    };
    Value quotient = arith::DivFOp::create(
        b, widen(op.getLhs()), widen(op.getRhs()), op.getFastmath());
    rewriter.replaceOpWithNewOp<arith::TruncFOp>(op, op.getType(), quotient);
    return success();
  }
};
} // namespace

void mlir::moe::populateApproximateMathPatterns(RewritePatternSet &patterns) {
  patterns.add<ApproximateExp2, ApproximateExp, ApproximateTanh,
               ApproximateSqrt, ApproximateRsqrt, ApproximateDiv, WidenDiv>(
      patterns.getContext());
}
