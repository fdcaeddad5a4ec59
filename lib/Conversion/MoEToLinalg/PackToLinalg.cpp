//===- PackToLinalg.cpp - moe.pack ----------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Lowering.h"
#include "TensorBuilder.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/SCF/IR/SCF.h"

using namespace mlir;
using namespace mlir::moe;

/// The share of one matmul in the packed weights.
static Value packShare(TensorBuilder &b, PackOp op, Value packed,
                       int64_t matmul) {
  PanelsAttr panels = op.getPanels();
  Type element = cast<ShapedType>(op.getInit().getType()).getElementType();
  SmallVector<OpFoldResult> offsets(5, b.getIndexAttr(0));
  SmallVector<OpFoldResult> strides(5, b.getIndexAttr(1));
  SmallVector<OpFoldResult> sizes = b.sizes(packed);
  offsets[3] = b.getIndexAttr(matmul * panels.getShare());
  sizes[3] = b.getIndexAttr(panels.getShare());
  Value share = b.map(b.empty(sizes, element), element, [&](ValueRange v) {
    auto position = [&](int64_t outer, int64_t inner, int64_t extent) -> Value {
      Value scaled = arith::MulIOp::create(b, linalg::IndexOp::create(b, outer),
                                           b.index(extent));
      return arith::AddIOp::create(b, scaled,
                                   linalg::IndexOp::create(b, inner));
    };
    Value e = linalg::IndexOp::create(b, 0);
    Value n = position(1, 3, panels.getShare());
    Value k = position(2, 4, panels.getDepth());
    auto within = [&](Value i, int64_t extent) -> Value {
      return arith::CmpIOp::create(b, arith::CmpIPredicate::ult, i,
                                   b.index(extent));
    };
    Value inside =
        arith::AndIOp::create(b, within(n, op.getN()), within(k, op.getK()));
    auto value = scf::IfOp::create(b, element, inside, /*withElseRegion=*/true);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(value.thenBlock());
    if (op.getTransposed())
      std::swap(k, n);
    scf::YieldOp::create(b, b.extract(op.getWeights()[matmul], {e, k, n}));
    b.setInsertionPointToStart(value.elseBlock());
    Value zero = arith::ConstantOp::create(b, b.getFloatAttr(element, 0.0));
    scf::YieldOp::create(b, zero);
    return Value(value.getResult(0));
  });
  return tensor::InsertSliceOp::create(b, share, packed, offsets, sizes,
                                       strides);
}

SmallVector<Value> mlir::moe::lowerToLinalg(PackOp op, OpBuilder &builder) {
  TensorBuilder b(op.getLoc(), builder);
  Value packed = op.getInit();
  for (int64_t matmul = 0; matmul < op.getPanels().getMatmuls(); ++matmul)
    packed = packShare(b, op, packed, matmul);
  return {packed};
}
