//===- ScalarGradient.cpp - Derivatives of scalar operations --------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ScalarGradient.h"

#include "mlir/Dialect/Math/IR/Math.h"
#include "llvm/ADT/TypeSwitch.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace mlir::moe;

static bool isFloat(Value value) { return isa<FloatType>(value.getType()); }

Value ScalarGradient::constant(double value) {
  return arith::ConstantOp::create(b, b.getF32FloatAttr(value));
}

Value ScalarGradient::get(Value value) {
  value = forward.lookupOrDefault(value);
  auto type = dyn_cast<FloatType>(value.getType());
  if (!type || type.isF32())
    return value;
  if (type.getWidth() > 32)
    return arith::TruncFOp::create(b, b.getF32Type(), value);
  return arith::ExtFOp::create(b, b.getF32Type(), value);
}

void ScalarGradient::add(Value value, Value gradient) {
  if (!gradient)
    return;
  Value &sum = gradients[value];
  sum = sum ? arith::AddFOp::create(b, sum, gradient).getResult() : gradient;
}

LogicalResult ScalarGradient::run(Block &block, ArrayRef<Value> arguments) {
  active.insert(arguments.begin(), arguments.end());
  for (Operation &op : block.without_terminator())
    if (llvm::any_of(op.getOperands(), [&](Value v) { return isActive(v); }))
      for (Value result : op.getResults())
        if (isFloat(result))
          active.insert(result);
  for (Operation &op : llvm::reverse(block.without_terminator())) {
    bool reached = llvm::any_of(op.getResults(), [&](Value result) {
      return isActive(result) && gradients.contains(result) &&
             !llvm::is_contained(arguments, result);
    });
    if (reached && failed(propagate(&op)))
      return failure();
  }
  return success();
}

LogicalResult ScalarGradient::propagate(Operation *op) {
  Value g = of(op->getResult(0)), y = op->getResult(0);
  auto mul = [&](Value x, Value y) -> Value {
    return arith::MulFOp::create(b, x, y);
  };
  auto div = [&](Value x, Value y) -> Value {
    return arith::DivFOp::create(b, x, y);
  };
  auto neg = [&](Value x) -> Value { return arith::NegFOp::create(b, x); };
  auto zeroUnless = [&](Value condition, Value x) -> Value {
    return arith::SelectOp::create(b, condition, x, constant(0.0));
  };
  auto compare = [&](arith::CmpFPredicate predicate, Value x, Value y) {
    return arith::CmpFOp::create(b, predicate, x, y).getResult();
  };
  // A factor that may be infinite where the gradient has vanished, as in
  // 1 / (1 + exp(-x)) for a large negative x.
  auto mulUnlessZero = [&](Value x, Value factor) {
    Value isZero = compare(arith::CmpFPredicate::OEQ, x, constant(0.0));
    return arith::SelectOp::create(b, isZero, x, mul(x, factor)).getResult();
  };
  // Adds g · derivative() to an operand that needs it.
  auto give = [&](Value operand, llvm::function_ref<Value()> gradient) {
    if (isActive(operand))
      add(operand, gradient());
  };
  auto giveLarger = [&](Value x, Value y, arith::CmpFPredicate predicate) {
    Value first = compare(predicate, get(x), get(y));
    give(x, [&] { return zeroUnless(first, g); });
    give(y, [&]() -> Value {
      return arith::SelectOp::create(b, first, constant(0.0), g);
    });
    return success();
  };
  Value x = op->getNumOperands() > 0 ? op->getOperand(0) : Value();
  Value z = op->getNumOperands() > 1 ? op->getOperand(1) : Value();

  return llvm::TypeSwitch<Operation *, LogicalResult>(op)
      .Case([&](arith::AddFOp) {
        give(x, [&] { return g; });
        give(z, [&] { return g; });
        return success();
      })
      .Case([&](arith::SubFOp) {
        give(x, [&] { return g; });
        give(z, [&] { return neg(g); });
        return success();
      })
      .Case([&](arith::MulFOp) {
        give(x, [&] { return mul(g, get(z)); });
        give(z, [&] { return mul(g, get(x)); });
        return success();
      })
      .Case([&](arith::DivFOp) {
        give(x, [&] { return div(g, get(z)); });
        give(z, [&] { return neg(div(mul(g, get(y)), get(z))); });
        return success();
      })
      .Case([&](arith::NegFOp) {
        give(x, [&] { return neg(g); });
        return success();
      })
      .Case<arith::ExtFOp, arith::TruncFOp>([&](auto) {
        give(x, [&] { return g; });
        return success();
      })
      .Case<arith::MaximumFOp, arith::MaxNumFOp>(
          [&](auto) { return giveLarger(x, z, arith::CmpFPredicate::OGT); })
      .Case<arith::MinimumFOp, arith::MinNumFOp>(
          [&](auto) { return giveLarger(x, z, arith::CmpFPredicate::OLT); })
      .Case([&](arith::SelectOp select) {
        Value condition = get(select.getCondition());
        give(select.getTrueValue(), [&] { return zeroUnless(condition, g); });
        give(select.getFalseValue(), [&]() -> Value {
          return arith::SelectOp::create(b, condition, constant(0.0), g);
        });
        return success();
      })
      .Case([&](math::FmaOp fma) {
        give(fma.getA(), [&] { return mul(g, get(fma.getB())); });
        give(fma.getB(), [&] { return mul(g, get(fma.getA())); });
        give(fma.getC(), [&] { return g; });
        return success();
      })
      .Case([&](math::ExpOp) {
        give(x, [&] { return mulUnlessZero(g, get(y)); });
        return success();
      })
      .Case([&](math::Exp2Op) {
        give(x, [&] {
          return mulUnlessZero(mul(g, constant(llvm::numbers::ln2)), get(y));
        });
        return success();
      })
      .Case([&](math::ExpM1Op) {
        give(x, [&] {
          Value power = arith::AddFOp::create(b, get(y), constant(1.0));
          return mulUnlessZero(g, power);
        });
        return success();
      })
      .Case([&](math::LogOp) {
        give(x, [&] { return div(g, get(x)); });
        return success();
      })
      .Case([&](math::Log2Op) {
        give(x, [&] {
          return div(mul(g, constant(1.0 / llvm::numbers::ln2)), get(x));
        });
        return success();
      })
      .Case([&](math::Log1pOp) {
        give(x, [&] {
          return div(g, arith::AddFOp::create(b, get(x), constant(1.0)));
        });
        return success();
      })
      .Case([&](math::SqrtOp) {
        give(x, [&] { return div(mul(g, constant(0.5)), get(y)); });
        return success();
      })
      .Case([&](math::RsqrtOp) {
        give(x,
             [&] { return div(mul(mul(g, constant(-0.5)), get(y)), get(x)); });
        return success();
      })
      .Case([&](math::TanhOp) {
        give(x, [&] {
          Value square = mul(get(y), get(y));
          return mul(g, arith::SubFOp::create(b, constant(1.0), square));
        });
        return success();
      })
      .Case([&](math::ErfOp) {
        give(x, [&] {
          Value power = math::ExpOp::create(b, neg(mul(get(x), get(x))));
          double factor = 2.0 * llvm::numbers::inv_sqrtpi;
          return mul(mul(g, constant(factor)), power);
        });
        return success();
      })
      .Case([&](math::SinOp) {
        give(x, [&] { return mul(g, math::CosOp::create(b, get(x))); });
        return success();
      })
      .Case([&](math::CosOp) {
        give(x, [&] { return neg(mul(g, math::SinOp::create(b, get(x)))); });
        return success();
      })
      .Case([&](math::AbsFOp) {
        // 0 at 0, as a sign is.
        give(x, [&]() -> Value {
          Value zero = constant(0.0);
          Value negative = compare(arith::CmpFPredicate::OLT, get(x), zero);
          Value positive = compare(arith::CmpFPredicate::OGT, get(x), zero);
          return arith::SelectOp::create(b, negative, neg(g),
                                         zeroUnless(positive, g));
        });
        return success();
      })
      .Case([&](math::PowFOp) {
        give(x, [&] {
          Value less = arith::SubFOp::create(b, get(z), constant(1.0));
          Value power = math::PowFOp::create(b, get(x), less);
          return mul(mul(g, get(z)), power);
        });
        give(z, [&] {
          return mul(mul(g, get(y)), math::LogOp::create(b, get(x)));
        });
        return success();
      })
      .Case([&](math::FPowIOp power) {
        give(power.getLhs(), [&] {
          // n · xⁿ⁻¹, which is finite at 0 for n ≥ 1.
          Value n = get(power.getRhs());
          Value one =
              arith::ConstantOp::create(b, b.getIntegerAttr(n.getType(), 1));
          Value less = arith::SubIOp::create(b, n, one);
          Value factor = arith::SIToFPOp::create(b, b.getF32Type(), n);
          return mul(mul(g, factor),
                     math::FPowIOp::create(b, get(power.getLhs()), less));
        });
        return success();
      })
      .Case<math::FloorOp, math::CeilOp, math::RoundOp, math::RoundEvenOp,
            math::TruncOp>([&](auto) {
        return success(); // constant between their steps
      })
      .Case([&](math::CopySignOp) {
        give(x, [&]() -> Value {
          // The sign of x decides whether the result is x or -x.
          Value product = mul(get(x), get(z));
          Value flips =
              compare(arith::CmpFPredicate::OLT, product, constant(0.0));
          return arith::SelectOp::create(b, flips, neg(g), g);
        });
        return success();
      })
      .Default([&](Operation *op) {
        return LogicalResult(op->emitOpError("has no gradient"));
      });
}
