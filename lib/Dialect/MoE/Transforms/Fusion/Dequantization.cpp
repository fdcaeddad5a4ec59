//===- Dequantization.cpp - Match dequantized tensors ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Dequantization.h"

using namespace mlir;
using namespace mlir::moe;

/// True if the body of `op` is extf(argument `quantized`) · argument `scale` in
/// f32, rounded or not.
static bool isScaling(linalg::GenericOp op, unsigned quantized,
                      unsigned scale) {
  Block *body = op.getBody();
  Value value = body->getTerminator()->getOperand(0);
  if (auto rounding = value.getDefiningOp<arith::TruncFOp>())
    value = rounding.getIn();
  auto product = value.getDefiningOp<arith::MulFOp>();
  if (!product || !product.getType().isF32())
    return false;
  auto matches = [&](Value x, Value y) {
    auto extension = x.getDefiningOp<arith::ExtFOp>();
    return extension && extension.getIn() == body->getArgument(quantized) &&
           y == body->getArgument(scale);
  };
  return matches(product.getLhs(), product.getRhs()) ||
         matches(product.getRhs(), product.getLhs());
}

/// Returns the extent of a block along dimension `dim` if `expr` maps an
/// element to its block, else 0.
static int64_t blockOf(AffineExpr expr, unsigned dim, int64_t extent) {
  if (expr == getAffineDimExpr(dim, expr.getContext()))
    return 1;
  // One block for the whole dimension.
  if (expr == getAffineConstantExpr(0, expr.getContext()))
    return ShapedType::isDynamic(extent) ? 0 : std::max<int64_t>(extent, 1);
  auto quotient = dyn_cast<AffineBinaryOpExpr>(expr);
  if (!quotient || quotient.getKind() != AffineExprKind::FloorDiv ||
      quotient.getLHS() != getAffineDimExpr(dim, expr.getContext()))
    return 0;
  auto divisor = dyn_cast<AffineConstantExpr>(quotient.getRHS());
  return divisor ? std::max<int64_t>(divisor.getValue(), 0) : 0;
}

std::optional<Dequantization>
mlir::moe::matchDequantization(linalg::GenericOp op) {
  if (!op.hasPureTensorSemantics() || op.getNumDpsInputs() != 2 ||
      op.getNumDpsInits() != 1 ||
      op.getNumLoops() != op.getNumParallelLoops() ||
      !op.getMatchingIndexingMap(op.getDpsInitOperand(0)).isIdentity())
    return std::nullopt;
  auto elementOf = [&](unsigned input) {
    return cast<RankedTensorType>(op.getDpsInputs()[input].getType())
        .getElementType();
  };
  unsigned quantized = isa<Float8E4M3FNType>(elementOf(0)) ? 0 : 1;
  unsigned scale = 1 - quantized;
  if (!isa<Float8E4M3FNType>(elementOf(quantized)) ||
      !elementOf(scale).isF32() || !isScaling(op, quantized, scale))
    return std::nullopt;
  auto type = cast<RankedTensorType>(op.getDpsInputs()[quantized].getType());
  AffineMap map = op.getMatchingIndexingMap(op.getDpsInputOperand(scale));
  if (!op.getMatchingIndexingMap(op.getDpsInputOperand(quantized))
           .isIdentity() ||
      map.getNumResults() != type.getRank())
    return std::nullopt;
  Dequantization result;
  result.quantized = op.getDpsInputs()[quantized];
  result.scales = op.getDpsInputs()[scale];
  auto scales = cast<RankedTensorType>(result.scales.getType());
  for (auto [dim, expr] : llvm::enumerate(map.getResults())) {
    int64_t extent = type.getDimSize(dim), block = blockOf(expr, dim, extent);
    if (block == 0)
      return std::nullopt;
    result.blocks.push_back(block);
    // The tensor of scales may be larger than what is read.
    if (!ShapedType::isDynamic(extent) &&
        scales.getDimSize(dim) != int64_t(llvm::divideCeil(extent, block)))
      return std::nullopt;
  }
  return result;
}

std::optional<Dequantization> mlir::moe::matchDequantization(OpBuilder &b,
                                                             DequantizeOp op) {
  FormatAttr format = op.getFormat();
  FieldAttr codes = format.getCodes();
  ArrayAttr scales = format.getScales();
  if (!isa<Float8E4M3FNType>(codes.getElement()) || codes.getBits() ||
      !scales || scales.size() != 1 || format.getMins())
    return std::nullopt;
  auto field = cast<FieldAttr>(scales[0]);
  Value quantized = op.getFields()[0];
  Value factors = op.getFields()[field.getOperand()];
  auto type = cast<RankedTensorType>(factors.getType());
  // Other types hold codes.
  bool isStored =
      type.getElementType() == field.getElement() &&
      isa<Float32Type, Float16Type, BFloat16Type>(field.getElement());
  if (field.getBits() || field.getDivide() || !isStored ||
      !isa<Float8E4M3FNType>(
          cast<RankedTensorType>(quantized.getType()).getElementType()))
    return std::nullopt;
  if (!field.getElement().isF32())
    factors = arith::ExtFOp::create(b, op.getLoc(), type.clone(b.getF32Type()),
                                    factors);
  SmallVector<int64_t> blocks(op.getNumLeadingDims(), 1);
  // A block may be larger than the matrix.
  blocks.push_back(std::min(field.getBlockRows(), op.getN()));
  blocks.push_back(std::min(field.getBlockColumns(), op.getK()));
  return Dequantization{quantized, factors, blocks, /*hasFormat=*/true};
}
