//===- MLPBuilder.cpp - IR of a feed-forward network ----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "MLPBuilder.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"

#include "llvm/Support/MathExtras.h"

#include <cmath>

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::importer;

static RankedTensorType typeOf(Value tensor) {
  return cast<RankedTensorType>(tensor.getType());
}

//===----------------------------------------------------------------------===//
// Scalars
//===----------------------------------------------------------------------===//

Value MLPBuilder::f32(double value) {
  return arith::ConstantOp::create(*this, getF32FloatAttr(value));
}

Value MLPBuilder::toFloat(Value value, Type type) {
  if (value.getType() == type)
    return value;
  if (type.isF32())
    return arith::ExtFOp::create(*this, type, value);
  return arith::TruncFOp::create(*this, type, value);
}

/// Returns x / (1 + exp(−by · x)): x times the sigmoid of by · x.
static Value timesSigmoid(MLPBuilder &b, Value x, double by) {
  Value scaled = by == 1.0 ? x : arith::MulFOp::create(b, x, b.f32(by));
  Value power = math::ExpOp::create(b, arith::NegFOp::create(b, scaled));
  return arith::DivFOp::create(b, x,
                               arith::AddFOp::create(b, b.f32(1.0), power));
}

Value MLPBuilder::sigmoid(Value x) {
  Value power = math::ExpOp::create(*this, arith::NegFOp::create(*this, x));
  return arith::DivFOp::create(*this, f32(1.0),
                               arith::AddFOp::create(*this, f32(1.0), power));
}

Value MLPBuilder::softCap(Value x, double cap) {
  Value scaled = arith::MulFOp::create(*this, x, f32(1.0 / cap));
  return arith::MulFOp::create(*this, math::TanhOp::create(*this, scaled),
                               f32(cap));
}

/// Returns x/2 · (1 + t).
static Value halfTimesOnePlus(MLPBuilder &b, Value x, Value t) {
  Value half = arith::MulFOp::create(b, x, b.f32(0.5));
  return arith::MulFOp::create(b, half,
                               arith::AddFOp::create(b, b.f32(1.0), t));
}

Value MLPBuilder::activate(const Activation &activation, Value x) {
  switch (activation.kind) {
  case Activation::SiLU:
    return timesSigmoid(*this, x, 1.0);
  case Activation::QuickGELU:
    return timesSigmoid(*this, x, 1.702);
  case Activation::GELU: {
    Value scaled = arith::MulFOp::create(*this, x, f32(std::sqrt(0.5)));
    return halfTimesOnePlus(*this, x, math::ErfOp::create(*this, scaled));
  }
  case Activation::GELUTanh: {
    // tanh(√(2/π) · (x + 0.044715 x³))
    Value square = arith::MulFOp::create(*this, x, x);
    Value cube = arith::MulFOp::create(*this, square, x);
    Value sum = arith::AddFOp::create(
        *this, x, arith::MulFOp::create(*this, cube, f32(0.044715)));
    double factor = std::sqrt(2.0 / llvm::numbers::pi);
    Value scaled = arith::MulFOp::create(*this, sum, f32(factor));
    return halfTimesOnePlus(*this, x, math::TanhOp::create(*this, scaled));
  }
  case Activation::ReLU:
  case Activation::ReLU2: {
    Value positive = arith::MaximumFOp::create(*this, x, f32(0.0));
    return activation.kind == Activation::ReLU
               ? positive
               : arith::MulFOp::create(*this, positive, positive);
  }
  case Activation::ClampedSwiGLU:
    return timesSigmoid(
        *this, arith::MinimumFOp::create(*this, x, f32(activation.limit)),
        activation.alpha);
  case Activation::SoftCappedSwiGLU:
    return arith::MulFOp::create(*this, softCap(x, activation.limit),
                                 sigmoid(x));
  }
  llvm_unreachable("unknown activation");
}

/// Returns the factor that multiplies the activated gate.
static Value otherFactor(MLPBuilder &b, const Activation &activation,
                         Value up) {
  if (activation.kind == Activation::SoftCappedSwiGLU)
    return b.softCap(up, activation.limitUp);
  if (activation.kind != Activation::ClampedSwiGLU)
    return up;
  up = arith::MinimumFOp::create(b, up, b.f32(activation.limit));
  up = arith::MaximumFOp::create(b, up, b.f32(-activation.limit));
  if (activation.offset == 0.0)
    return up;
  return arith::AddFOp::create(b, up, b.f32(activation.offset));
}

//===----------------------------------------------------------------------===//
// Tensors
//===----------------------------------------------------------------------===//

void MLPBuilder::setRowsOf(Value matrix) {
  rowCount = tensor::DimOp::create(*this, matrix, 0);
  zero = f32(0.0);
}

Value MLPBuilder::matmul(Value rows, Value weight, bool inOut) {
  MLIRContext *context = getContext();
  AffineExpr m, n, k;
  bindDims(context, m, n, k);
  auto map = [&](AffineExpr row, AffineExpr column) {
    return AffineMapAttr::get(AffineMap::get(3, 0, {row, column}, context));
  };
  int64_t out = typeOf(weight).getDimSize(inOut ? 1 : 0);
  auto type = RankedTensorType::get({ShapedType::kDynamic, out}, getF32Type());
  Value empty = tensor::EmptyOp::create(*this, type, rowCount);
  Value zeros = linalg::FillOp::create(*this, zero, empty).getResult(0);
  auto op = linalg::MatmulOp::create(
      *this, TypeRange{type}, ValueRange{rows, weight}, ValueRange{zeros});
  if (!inOut)
    op.setIndexingMapsAttr(getArrayAttr({map(m, k), map(n, k), map(m, n)}));
  return op.getResult(0);
}

Value MLPBuilder::map(ArrayRef<Value> inputs, Type element, Body body) {
  RankedTensorType like = typeOf(inputs.front());
  AffineMap identity = getMultiDimIdentityMap(2);
  SmallVector<AffineMap> maps;
  for (Value input : inputs) {
    RankedTensorType type = typeOf(input);
    // A vector of static length is a row; other vectors have an element for
    // each row.
    maps.push_back(
        type.getRank() == 2
            ? identity
            : AffineMap::get(2, 0,
                             getAffineDimExpr(type.isDynamicDim(0) ? 0 : 1)));
  }
  maps.push_back(identity);
  auto type = RankedTensorType::get(like.getShape(), element);
  Value empty = tensor::EmptyOp::create(*this, type, rowCount);
  auto op = linalg::GenericOp::create(
      *this, TypeRange{type}, inputs, ValueRange{empty}, maps,
      SmallVector<utils::IteratorType>(2, utils::IteratorType::parallel),
      [&](OpBuilder &nested, Location, ValueRange elements) {
        OpBuilder::InsertionGuard guard(*this);
        setInsertionPoint(nested.getInsertionBlock(),
                          nested.getInsertionPoint());
        SmallVector<Value> values;
        for (Value value : elements.drop_back())
          values.push_back(toFloat(value, getF32Type()));
        linalg::YieldOp::create(*this, toFloat(body(values), element));
      });
  return op.getResult(0);
}

Value MLPBuilder::addRow(Value matrix, Value row, Type element) {
  if (row)
    return map({matrix, row}, element, [&](ValueRange v) -> Value {
      return arith::AddFOp::create(*this, v[0], v[1]);
    });
  if (typeOf(matrix).getElementType() == element)
    return matrix;
  return map(matrix, element, [](ValueRange v) { return v[0]; });
}

Value MLPBuilder::rmsNorm(Value matrix, Value weight, double epsilon) {
  RankedTensorType type = typeOf(matrix);
  auto sumType = RankedTensorType::get({ShapedType::kDynamic}, getF32Type());
  Value empty = tensor::EmptyOp::create(*this, sumType, rowCount);
  Value zeros = linalg::FillOp::create(*this, zero, empty).getResult(0);
  AffineMap rows = AffineMap::get(2, 0, getAffineDimExpr(0));
  auto sums = linalg::GenericOp::create(
      *this, TypeRange{sumType}, ValueRange{matrix}, ValueRange{zeros},
      ArrayRef<AffineMap>{getMultiDimIdentityMap(2), rows},
      ArrayRef<utils::IteratorType>{utils::IteratorType::parallel,
                                    utils::IteratorType::reduction},
      [&](OpBuilder &nested, Location, ValueRange elements) {
        OpBuilder::InsertionGuard guard(*this);
        setInsertionPoint(nested.getInsertionBlock(),
                          nested.getInsertionPoint());
        Value x = toFloat(elements[0], getF32Type());
        Value square = arith::MulFOp::create(*this, x, x);
        linalg::YieldOp::create(
            *this,
            arith::AddFOp::create(*this, elements[1], square).getResult());
      });
  Value sum = sums.getResult(0);
  Type dataType = type.getElementType();
  double columns = type.getDimSize(1);
  return map({matrix, sum, weight}, dataType, [&](ValueRange v) -> Value {
    Value mean = arith::MulFOp::create(*this, v[1], f32(1.0 / columns));
    Value root = math::SqrtOp::create(
        *this, arith::AddFOp::create(*this, mean, f32(epsilon)));
    Value scaled = roundTo(arith::DivFOp::create(*this, v[0], root), dataType);
    return arith::MulFOp::create(*this, scaled, v[2]);
  });
}

/// Returns `count` columns of a matrix, every `stride`-th from `first` on.
Value MLPBuilder::columns(Value matrix, int64_t first, int64_t count,
                          int64_t stride) {
  auto type = RankedTensorType::get({ShapedType::kDynamic, count},
                                    typeOf(matrix).getElementType());
  OpFoldResult zero = getIndexAttr(0), one = getIndexAttr(1);
  SmallVector<OpFoldResult> offsets{zero, getIndexAttr(first)};
  SmallVector<OpFoldResult> sizes{rowCount, getIndexAttr(count)};
  SmallVector<OpFoldResult> strides{one, getIndexAttr(stride)};
  return tensor::ExtractSliceOp::create(*this, type, matrix, offsets, sizes,
                                        strides);
}

//===----------------------------------------------------------------------===//
// Feed-forward network
//===----------------------------------------------------------------------===//

Value MLPBuilder::mlp(Value rows, const MLP &mlp, const MLPLayout &layout,
                      const MLPValues &weights) {
  Type dataType = typeOf(rows).getElementType();
  SmallVector<Value> inputs; // (gate,) up; f32
  if (layout.gating == Gating::Separate)
    inputs.push_back(addRow(matmul(rows, weights.gate, layout.upInOut),
                            weights.gateBias, getF32Type()));
  Value up = matmul(rows, weights.up, layout.upInOut);
  up = addRow(up, weights.upBias, getF32Type());
  if (layout.gating == Gating::Halves) {
    inputs.push_back(columns(up, 0, mlp.width, 1));
    inputs.push_back(columns(up, mlp.width, mlp.width, 1));
  } else if (layout.gating == Gating::Interleaved) {
    inputs.push_back(columns(up, 0, mlp.width, 2));
    inputs.push_back(columns(up, 1, mlp.width, 2));
  } else {
    inputs.push_back(up);
  }

  // Results of matmuls are rounded here, at their use, so that nothing
  // separates a matmul from its epilogue.
  Value hidden = map(inputs, dataType, [&](ValueRange v) -> Value {
    Value activated = activate(mlp.activation, roundTo(v[0], dataType));
    if (v.size() == 1)
      return activated;
    return arith::MulFOp::create(
        *this, activated,
        otherFactor(*this, mlp.activation, roundTo(v[1], dataType)));
  });

  Value down = matmul(hidden, weights.down, layout.downInOut);
  return addRow(down, weights.downBias, dataType);
}
