//===- ExpandSmallFloats.cpp - Conversions of 8- and 16-bit floats --------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// f8E4M3FN has a sign, four bits of exponent with bias 7 and three of mantissa;
// all ones but the sign is NaN, and no encoding is infinity. f16 is IEEE 754's
// binary16. LLVM has no type for f8E4M3FN; for f16 it calls helpers of the
// compiler's library on processors without conversion instructions.
//
//===----------------------------------------------------------------------===//

#include "moe/Transforms/Passes.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "mlir/IR/TypeUtilities.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"

#include <cmath>

using namespace mlir;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEEXPANDSMALLFLOATS
#include "moe/Transforms/Passes.h.inc"
} // namespace mlir::moe

namespace {
/// A format below f32: a sign, an exponent with a bias, a mantissa.
struct Format {
  int64_t width, mantissa, bias;
  bool hasInfinity;

  static std::optional<Format> of(Type type) {
    type = getElementTypeOrSelf(type);
    if (isa<Float8E4M3FNType>(type))
      return Format{8, 3, 7, false};
    if (isa<Float8E5M2Type>(type))
      return Format{8, 2, 15, true};
    if (type.isF16())
      return Format{16, 10, 15, true};
    return std::nullopt;
  }

  int64_t signShift() const { return 32 - width; }
  int64_t mantissaShift() const { return 23 - mantissa; }
  int64_t biasDifference() const { return 127 - bias; }
  int64_t signBit() const { return int64_t(1) << (width - 1); }
  /// Returns the first encoding of infinity (if the format has it) or NaN.
  int64_t firstSpecial() const {
    return hasInfinity
               ? ((int64_t(1) << (width - 1 - mantissa)) - 1) << mantissa
               : signBit() - 1;
  }
  /// The smallest normal value is 2^leastNormal(); denormals are multiples of
  /// 2^leastDenormal().
  int64_t leastNormal() const { return 1 - bias; }
  int64_t leastDenormal() const { return leastNormal() - mantissa; }
};
} // namespace

/// Returns the f32 encoding of a power of two.
static int64_t bitsOfPower(int64_t exponent) { return (127 + exponent) << 23; }

namespace {
/// Builds operations on scalars, or on vectors of the shape of `like`.
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

/// Converts a small float to f32; exact.
static Value extend(Bits &b, const Format &format, Value x) {
  Value bits =
      arith::BitcastOp::create(b, b.of(b.getIntegerType(format.width)), x);
  bits = arith::ExtUIOp::create(b, b.i32(), bits);
  Value sign = b.left(b.bitAnd(bits, format.signBit()), format.signShift());
  Value magnitude = b.bitAnd(bits, format.signBit() - 1);
  Value shifted = b.left(magnitude, format.mantissaShift());
  Value normal = b.add(shifted, b.integer(format.biasDifference() << 23));
  Value tiny = arith::UIToFPOp::create(b, b.f32(), magnitude);
  tiny = arith::MulFOp::create(
      b, tiny, b.number(std::ldexp(1.0, format.leastDenormal())));
  tiny = arith::BitcastOp::create(b, b.i32(), tiny);
  // NaN becomes quiet and keeps its payload, as in hardware.
  Value special = b.integer(0x7fc00000);
  if (format.hasInfinity)
    special =
        b.bitOr(shifted, b.select(b.below(magnitude, format.firstSpecial() + 1),
                                  b.integer(0x7f800000), special));
  bits =
      b.select(b.below(magnitude, int64_t(1) << format.mantissa), tiny, normal);
  bits = b.select(b.below(magnitude, format.firstSpecial()), bits, special);
  return b.asFloat(b.bitOr(bits, sign));
}

/// Rounds f32 to a small float, to nearest even.
static Value round(Bits &b, const Format &format, Value x) {
  int64_t shift = format.mantissaShift();
  Value bits = arith::BitcastOp::create(b, b.i32(), x);
  Value sign = b.bitAnd(b.right(bits, format.signShift()), format.signBit());
  Value magnitude = b.bitAnd(bits, 0x7fffffff);
  // Adding half a unit less one, plus the last bit that is kept, rounds ties to
  // even.
  Value odd = b.bitAnd(b.right(magnitude, shift), 1);
  Value normal =
      b.add(b.add(magnitude, odd), b.integer((int64_t(1) << (shift - 1)) - 1));
  normal = b.sub(b.right(normal, shift),
                 b.integer(format.biasDifference() << format.mantissa));
  // At this power of two one ulp of f32 is the smallest denormal, so the
  // addition rounds to a multiple of it.
  int64_t exponent = format.leastDenormal() + 23;
  Value shifted = arith::AddFOp::create(b, b.asFloat(magnitude),
                                        b.number(std::ldexp(1.0, exponent)));
  Value tiny = b.sub(arith::BitcastOp::create(b, b.i32(), shifted),
                     b.integer(bitsOfPower(exponent)));
  Value result = b.select(b.below(magnitude, bitsOfPower(format.leastNormal())),
                          tiny, normal);
  // Values that round past the largest one become infinity, or NaN without
  // infinity. A tie goes to even: the largest f16 has an odd mantissa and
  // rounds up, the largest f8 an even one and stays.
  int64_t largest = (format.firstSpecial() - 1) << shift;
  largest += format.biasDifference() << 23;
  int64_t firstAbove = largest + (int64_t(1) << (shift - 1));
  firstAbove += format.hasInfinity ? 0 : 1;
  Value special = b.integer(format.firstSpecial());
  if (format.hasInfinity) {
    int64_t quiet = int64_t(1) << (format.mantissa - 1);
    Value payload = b.bitAnd(b.right(magnitude, shift),
                             (int64_t(1) << format.mantissa) - 1);
    Value nan = b.bitOr(payload, b.integer(format.firstSpecial() | quiet));
    special = b.select(b.below(magnitude, 0x7f800001), special, nan);
  }
  result = b.select(b.below(magnitude, firstAbove), result, special);
  result = arith::TruncIOp::create(b, b.of(b.getIntegerType(format.width)),
                                   b.bitOr(result, sign));
  return result;
}

/// Rounds f64 to f32, to odd: rounding the result to a format with at least two
/// bits less then equals rounding the f64 directly.
static Value roundToOdd(Bits &b, Value x) {
  Value nearest = arith::TruncFOp::create(b, b.f32(), x);
  Value back = arith::ExtFOp::create(b, x.getType(), nearest);
  Value size = math::AbsFOp::create(b, x);
  Value bits = arith::BitcastOp::create(b, b.i32(), nearest);
  auto isLess = [&](Value lhs, Value rhs) -> Value {
    return arith::CmpFOp::create(b, arith::CmpFPredicate::OLT, lhs, rhs);
  };
  Value sizeBack = math::AbsFOp::create(b, back);
  Value step = b.select(isLess(sizeBack, size), b.integer(1), b.integer(0));
  step = b.select(isLess(size, sizeBack), b.integer(-1), step);
  Value even = b.sub(b.integer(1), b.bitAnd(bits, 1));
  step = arith::MulIOp::create(b, step, even);
  return b.asFloat(b.add(bits, step));
}

namespace {
struct ExpandExtension : OpRewritePattern<arith::ExtFOp> {
  ExpandExtension(MLIRContext *context, bool f16)
      : OpRewritePattern(context), f16(f16) {}

  LogicalResult matchAndRewrite(arith::ExtFOp op,
                                PatternRewriter &rewriter) const override {
    std::optional<Format> format = Format::of(op.getIn().getType());
    Type type = getElementTypeOrSelf(op.getType());
    if (!format || isa<TensorType>(op.getType()) ||
        (format->width == 16 && !f16))
      return failure();
    Bits b(op.getLoc(), rewriter, op.getType());
    Value wide = extend(b, *format, op.getIn());
    // Exact: these types have at least the exponent range and mantissa bits of
    // the small float.
    if (type.getIntOrFloatBitWidth() > 32)
      wide = arith::ExtFOp::create(b, op.getType(), wide);
    else if (!type.isF32())
      wide = arith::TruncFOp::create(b, op.getType(), wide);
    rewriter.replaceOp(op, wide);
    return success();
  }

  bool f16;
};

struct ExpandTruncation : OpRewritePattern<arith::TruncFOp> {
  ExpandTruncation(MLIRContext *context, bool f16)
      : OpRewritePattern(context), f16(f16) {}

  LogicalResult matchAndRewrite(arith::TruncFOp op,
                                PatternRewriter &rewriter) const override {
    Type from = getElementTypeOrSelf(op.getIn().getType());
    std::optional<Format> format = Format::of(op.getType());
    bool toNearest =
        !op.getRoundingmode() ||
        *op.getRoundingmode() == arith::RoundingMode::to_nearest_even;
    if (isa<TensorType>(op.getType()) || !toNearest)
      return failure();
    Bits b(op.getLoc(), rewriter, op.getType());
    // No processor rounds f64 to 16 bits, and rounding twice differs from
    // rounding once.
    if (from.isF64() &&
        (format || getElementTypeOrSelf(op.getType()).isBF16())) {
      rewriter.replaceOpWithNewOp<arith::TruncFOp>(op, op.getType(),
                                                   roundToOdd(b, op.getIn()));
      return success();
    }
    if (!format || (format->width == 16 && !f16) ||
        from.getIntOrFloatBitWidth() > 32)
      return failure();
    Value wide = op.getIn();
    if (!from.isF32())
      wide = arith::ExtFOp::create(b, b.f32(), wide);
    rewriter.replaceOpWithNewOp<arith::BitcastOp>(op, op.getType(),
                                                  round(b, *format, wide));
    return success();
  }

  bool f16;
};

struct MoEExpandSmallFloats
    : moe::impl::MoEExpandSmallFloatsBase<MoEExpandSmallFloats> {
  using MoEExpandSmallFloatsBase::MoEExpandSmallFloatsBase;

  void runOnOperation() override {
    SmallVector<Operation *> conversions;
    getOperation()->walk([&](Operation *op) {
      if (isa<arith::ExtFOp, arith::TruncFOp>(op))
        conversions.push_back(op);
    });
    RewritePatternSet patterns(&getContext());
    patterns.add<ExpandExtension, ExpandTruncation>(&getContext(), f16);
    // New conversions are expanded as well. Folding is off so that the output
    // of other passes stays as it is.
    GreedyRewriteConfig config;
    config.setStrictness(GreedyRewriteStrictness::ExistingAndNewOps);
    (void)applyOpPatternsGreedily(conversions, std::move(patterns), config);
  }
};
} // namespace
