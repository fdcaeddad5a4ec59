//===- ExpandFloat8.cpp - Conversions of 8-bit floats ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// f8E4M3FN has a sign, four bits of exponent with bias 7 and three of mantissa;
// all ones but the sign is NaN, and there is no infinity.
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/Transforms/Passes.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "mlir/IR/TypeUtilities.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"

using namespace mlir;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEEXPANDFLOAT8
#include "moe/Dialect/MoE/Transforms/Passes.h.inc"
} // namespace mlir::moe

/// Bits between the mantissas, and the biases, of the two types.
static constexpr int64_t mantissaShift = 23 - 3;
static constexpr int64_t biasDifference = 127 - 7;

namespace {
/// Operations on scalars, or on vectors of the shape of `like`.
class Bits : public ImplicitLocOpBuilder {
public:
  Bits(Location loc, OpBuilder &builder, Type like)
      : ImplicitLocOpBuilder(loc, builder), like(like) {}

  Type of(Type element) {
    auto shaped = dyn_cast<ShapedType>(like);
    return shaped ? Type(shaped.clone(element)) : element;
  }
  Type i32() { return of(getI32Type()); }
  Type f32() { return of(getF32Type()); }
  Value integer(int64_t value) { return constant(getI32IntegerAttr(value)); }
  Value number(double value) { return constant(getF32FloatAttr(value)); }
  Value asFloat(Value bits) {
    return arith::BitcastOp::create(*this, f32(), bits);
  }
  Value add(Value x, Value y) { return arith::AddIOp::create(*this, x, y); }
  Value sub(Value x, Value y) { return arith::SubIOp::create(*this, x, y); }
  Value bitAnd(Value x, int64_t y) {
    return arith::AndIOp::create(*this, x, integer(y));
  }
  Value bitOr(Value x, Value y) { return arith::OrIOp::create(*this, x, y); }
  Value left(Value x, int64_t bits) {
    return arith::ShLIOp::create(*this, x, integer(bits));
  }
  Value right(Value x, int64_t bits) {
    return arith::ShRUIOp::create(*this, x, integer(bits));
  }
  Value below(Value x, int64_t y) {
    return arith::CmpIOp::create(*this, arith::CmpIPredicate::ult, x,
                                 integer(y));
  }
  Value select(Value condition, Value x, Value y) {
    return arith::SelectOp::create(*this, condition, x, y);
  }

private:
  Value constant(TypedAttr value) {
    Type type = of(value.getType());
    if (auto shaped = dyn_cast<ShapedType>(type))
      value = DenseElementsAttr::get(shaped, value);
    return arith::ConstantOp::create(*this, value);
  }

  Type like;
};
} // namespace

static bool isFloat8(Type type) {
  return isa<Float8E4M3FNType>(getElementTypeOrSelf(type)) &&
         !isa<TensorType>(type);
}

/// f8E4M3FN to f32.
static Value extend(Bits &b, Value x) {
  Value byte = arith::BitcastOp::create(b, b.of(b.getI8Type()), x);
  byte = arith::ExtUIOp::create(b, b.i32(), byte);
  Value sign = b.left(b.bitAnd(byte, 0x80), 24);
  Value magnitude = b.bitAnd(byte, 0x7f);
  Value normal =
      b.add(b.left(magnitude, mantissaShift), b.integer(biasDifference << 23));
  // Below 2^-6, multiples of 2^-9.
  Value tiny = arith::UIToFPOp::create(b, b.f32(), magnitude);
  tiny = arith::MulFOp::create(b, tiny, b.number(0x1p-9));
  tiny = arith::BitcastOp::create(b, b.i32(), tiny);
  Value bits = b.select(b.below(magnitude, 8), tiny, normal);
  bits = b.select(b.below(magnitude, 0x7f), bits, b.integer(0x7fc00000));
  return b.asFloat(b.bitOr(bits, sign));
}

/// f32 to f8E4M3FN.
static Value round(Bits &b, Value x) {
  Value bits = arith::BitcastOp::create(b, b.i32(), x);
  Value sign = b.bitAnd(b.right(bits, 24), 0x80);
  Value magnitude = b.bitAnd(bits, 0x7fffffff);
  // Half a unit less one, and one more where the last bit that stays is set.
  Value odd = b.bitAnd(b.right(magnitude, mantissaShift), 1);
  Value normal =
      b.add(b.add(magnitude, odd), b.integer((1 << (mantissaShift - 1)) - 1));
  normal =
      b.sub(b.right(normal, mantissaShift), b.integer(biasDifference << 3));
  // Next to 2^14, whose last place is 2^-9, the sum is rounded to a multiple.
  constexpr int64_t bitsOf2To14 = (127 + 14) << 23;
  Value shifted =
      arith::AddFOp::create(b, b.asFloat(magnitude), b.number(0x1p14));
  Value tiny = b.sub(arith::BitcastOp::create(b, b.i32(), shifted),
                     b.integer(bitsOf2To14));
  constexpr int64_t bitsOf2ToMinus6 = (127 - 6) << 23;
  Value byte = b.select(b.below(magnitude, bitsOf2ToMinus6), tiny, normal);
  // More than 464 is nearer to what would be 480, and that is NaN.
  constexpr int64_t bitsOf464 = 0x43e80000;
  byte = b.select(b.below(magnitude, bitsOf464 + 1), byte, b.integer(0x7f));
  byte = arith::TruncIOp::create(b, b.of(b.getI8Type()), b.bitOr(byte, sign));
  return arith::BitcastOp::create(
      b, b.of(Float8E4M3FNType::get(b.getContext())), byte);
}

namespace {
struct ExpandExtension : OpRewritePattern<arith::ExtFOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(arith::ExtFOp op,
                                PatternRewriter &rewriter) const override {
    Type type = getElementTypeOrSelf(op.getType());
    if (!isFloat8(op.getIn().getType()) ||
        !(type.isF32() || type.isF16() || type.isBF16()))
      return failure();
    Bits b(op.getLoc(), rewriter, op.getType());
    Value wide = extend(b, op.getIn());
    // Exact, as both have the exponents and more of the mantissa.
    if (!type.isF32())
      wide = arith::TruncFOp::create(b, op.getType(), wide);
    rewriter.replaceOp(op, wide);
    return success();
  }
};

struct ExpandTruncation : OpRewritePattern<arith::TruncFOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(arith::TruncFOp op,
                                PatternRewriter &rewriter) const override {
    Type type = getElementTypeOrSelf(op.getIn().getType());
    bool toNearest =
        !op.getRoundingmode() ||
        *op.getRoundingmode() == arith::RoundingMode::to_nearest_even;
    if (!isFloat8(op.getType()) || !toNearest ||
        !(type.isF32() || type.isF16() || type.isBF16()))
      return failure();
    Bits b(op.getLoc(), rewriter, op.getType());
    Value wide = op.getIn();
    if (!type.isF32())
      wide = arith::ExtFOp::create(b, b.f32(), wide);
    rewriter.replaceOp(op, round(b, wide));
    return success();
  }
};

struct MoEExpandFloat8 : moe::impl::MoEExpandFloat8Base<MoEExpandFloat8> {
  void runOnOperation() override {
    SmallVector<Operation *> conversions;
    getOperation()->walk([&](Operation *op) {
      if (isa<arith::ExtFOp, arith::TruncFOp>(op))
        conversions.push_back(op);
    });
    RewritePatternSet patterns(&getContext());
    patterns.add<ExpandExtension, ExpandTruncation>(&getContext());
    GreedyRewriteConfig config;
    config.setStrictness(GreedyRewriteStrictness::ExistingOps);
    (void)applyOpPatternsGreedily(conversions, std::move(patterns), config);
  }
};
} // namespace
