//===- ScoreFormula.cpp - Scores of a gate --------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Conversion/Utils/ScoreFormula.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"

using namespace mlir;
using namespace mlir::moe;

Value mlir::moe::scoreOf(ImplicitLocOpBuilder &b, Value x, Score score) {
  auto f32 = [&](double value) -> Value {
    return arith::ConstantOp::create(b, b.getF32FloatAttr(value));
  };
  switch (score) {
  case Score::None:
  case Score::Softmax:
    return x;
  case Score::Sigmoid: {
    Value power = math::ExpOp::create(b, arith::NegFOp::create(b, x));
    return arith::DivFOp::create(b, f32(1.0),
                                 arith::AddFOp::create(b, f32(1.0), power));
  }
  case Score::Relu:
    return arith::MaximumFOp::create(b, x, f32(0.0));
  case Score::SqrtSoftplus: {
    // √(ln(1 + eˣ)), where eˣ must not overflow.
    Value least = arith::NegFOp::create(b, math::AbsFOp::create(b, x));
    Value rest = math::Log1pOp::create(b, math::ExpOp::create(b, least));
    Value most = arith::MaximumFOp::create(b, x, f32(0.0));
    return math::SqrtOp::create(b, arith::AddFOp::create(b, most, rest));
  }
  }
  llvm_unreachable("every score has a formula");
}
