//===- GroupedMatmulToLinalg.cpp - moe.grouped_matmul ---------------------===//
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

namespace {
class GroupedMatmulLowering {
public:
  GroupedMatmulLowering(GroupedMatmulOp op, OpBuilder &builder)
      : op(op), b(op.getLoc(), builder) {}

  SmallVector<Value> run();

private:
  Value weight(int64_t matmul, Value e, Value k, Value n);
  Value scale(int64_t matmul, Value e, Value row, Value k, Value n);
  Value sums(int64_t matmul, Value e, Value start, Value count);
  SmallVector<Value> rowsOf(Value e, Value start, Value count);

  GroupedMatmulOp op;
  TensorBuilder b;
};
} // namespace

/// One element of the weights, wherever the layout has it.
Value GroupedMatmulLowering::weight(int64_t matmul, Value e, Value k, Value n) {
  if (std::optional<PanelsAttr> panels = op.getPanels()) {
    Value share = b.index(panels->getShare()),
          depth = b.index(panels->getDepth());
    Value column = arith::AddIOp::create(b, arith::RemUIOp::create(b, n, share),
                                         b.index(matmul * panels->getShare()));
    return b.extract(op.getWeights()[0],
                     {e, arith::DivUIOp::create(b, n, share),
                      arith::DivUIOp::create(b, k, depth), column,
                      arith::RemUIOp::create(b, k, depth)});
  }
  if (op.getTransposed())
    std::swap(k, n);
  return b.extract(op.getWeights()[matmul], {e, k, n});
}

/// The scale of the partial sum over the block of step `k`; `row` is one of
/// lhs.
Value GroupedMatmulLowering::scale(int64_t matmul, Value e, Value row, Value k,
                                   Value n) {
  Value blockOfK = arith::DivUIOp::create(b, k, b.index(op.getBlockK()));
  Value result;
  if (op.getLhsScales())
    result = b.extract(op.getLhsScales(), {row, blockOfK});
  if (op.getWeightScales().empty())
    return result;
  Value blockOfN = arith::DivUIOp::create(b, n, b.index(op.getBlockN()));
  if (op.getTransposed())
    std::swap(blockOfK, blockOfN);
  Value ofWeights =
      b.extract(op.getWeightScales()[matmul], {e, blockOfK, blockOfN});
  return result ? arith::MulFOp::create(b, result, ofWeights).getResult()
                : ofWeights;
}

/// The accumulators of one matmul for the rows of an expert, [count, N] in f32.
Value GroupedMatmulLowering::sums(int64_t matmul, Value e, Value start,
                                  Value count) {
  Type f32 = b.getF32Type();
  AffineMap out =
      AffineMap::getMultiDimMapWithTargets(3, {0, 1}, b.getContext());
  SmallVector<AffineMap> maps{AffineMap::get(3, 0, b.getAffineDimExpr(2)), out};
  // Only provides the extent of the reduction loop.
  Value steps = b.empty(OpFoldResult(b.getIndexAttr(op.getK())), f32);
  Value zeros = b.fill({count, b.getIndexAttr(op.getN())}, b.f32(0.0));
  SmallVector<Value> results{zeros};
  if (op.isScaled()) {
    // A second accumulator holds the current block, before its scale.
    results.push_back(zeros);
    maps.push_back(out);
  }
  auto body = [&](ValueRange v) -> SmallVector<Value> {
    Value row = arith::AddIOp::create(b, linalg::IndexOp::create(b, 0), start);
    Value n = linalg::IndexOp::create(b, 1);
    Value k = linalg::IndexOp::create(b, 2);
    if (op.getGather()) {
      Value last = arith::SubIOp::create(b, b.dim(op.getLhs(), 0), b.index(1));
      row = b.clamp(b.toIndex(b.extract(op.getGather(), row)), last);
    }
    Value x = b.toFloat(b.extract(op.getLhs(), {row, k}), f32);
    Value w = b.toFloat(weight(matmul, e, k, n), f32);
    Value term = arith::MulFOp::create(b, x, w);
    if (!op.isScaled())
      return {arith::AddFOp::create(b, v[1], term)};
    Value block = arith::AddFOp::create(b, v[2], term);
    Value scaled = arith::MulFOp::create(b, block, scale(matmul, e, row, k, n));
    Value next = arith::AddIOp::create(b, k, b.index(1));
    auto isZero = [&](Value value) -> Value {
      return arith::CmpIOp::create(b, arith::CmpIPredicate::eq, value,
                                   b.index(0));
    };
    Value ends = arith::OrIOp::create(
        b, isZero(arith::RemUIOp::create(b, next, b.index(op.getBlockK()))),
        isZero(arith::SubIOp::create(b, next, b.index(op.getK()))));
    Value sum = arith::AddFOp::create(b, v[1], scaled);
    return {arith::SelectOp::create(b, ends, sum, v[1]),
            arith::SelectOp::create(b, ends, b.f32(0.0), block)};
  };
  return b.generic(3, 1, steps, maps, results, body).front();
}

/// Applies the epilogue to the accumulators; returns the rows of an expert in
/// each result.
SmallVector<Value> GroupedMatmulLowering::rowsOf(Value e, Value start,
                                                 Value count) {
  SmallVector<Value> inputs, outputs;
  for (int64_t matmul = 0; matmul < op.getNumAccumulators(); ++matmul)
    inputs.push_back(sums(matmul, e, start, count));
  for (Value init : op.getInits())
    outputs.push_back(b.empty({count, b.getIndexAttr(op.getN())},
                              getElementTypeOrSelf(init)));
  SmallVector<AffineMap> maps(inputs.size() + outputs.size(),
                              b.getMultiDimIdentityMap(2));
  auto body = [&](ValueRange v) {
    v = v.take_front(inputs.size());
    Value row = arith::AddIOp::create(b, linalg::IndexOp::create(b, 0), start);
    Value coord[] = {e, row, linalg::IndexOp::create(b, 1)};
    Block &body = op.getEpilogue().front();
    IRMapping mapping;
    mapping.map(body.getArguments().take_front(inputs.size()), v);
    for (auto [index, extra] : llvm::enumerate(op.getExtras())) {
      SmallVector<Value> indices;
      for (AffineExpr expr : op.getOperandMap(index).getResults())
        indices.push_back(coord[cast<AffineDimExpr>(expr).getPosition()]);
      mapping.map(body.getArgument(inputs.size() + index),
                  b.extract(extra, indices));
    }
    for (Operation &nested : body.without_terminator())
      b.clone(nested, mapping);
    return llvm::map_to_vector(op.getYield().getValues(), [&](Value value) {
      return mapping.lookupOrDefault(value);
    });
  };
  return b.generic(2, 0, inputs, maps, outputs, body);
}

SmallVector<Value> GroupedMatmulLowering::run() {
  Value rows = b.dim(op.getInit(), 0);
  if (op.getGather()) {
    // Without source rows nothing can be gathered.
    Value none = arith::CmpIOp::create(b, arith::CmpIPredicate::eq,
                                       b.dim(op.getLhs(), 0), b.index(0));
    rows = arith::SelectOp::create(b, none, b.index(0), rows);
  }
  return b.loop(b.index(op.getExpertCount()), op.getInits(),
                [&](Value e, ValueRange iters) -> SmallVector<Value> {
                  auto [start, count] =
                      b.rowsOf(op.getOffsets(), e, op.getFirstExpert(), rows);
                  SmallVector<OpFoldResult> offsets{start, b.getIndexAttr(0)};
                  SmallVector<OpFoldResult> sizes{count,
                                                  b.getIndexAttr(op.getN())};
                  SmallVector<OpFoldResult> strides(2, b.getIndexAttr(1));
                  SmallVector<Value> next;
                  for (auto [rows, iter] :
                       llvm::zip_equal(rowsOf(e, start, count), iters))
                    next.push_back(tensor::InsertSliceOp::create(
                        b, rows, iter, offsets, sizes, strides));
                  return next;
                });
}

SmallVector<Value> mlir::moe::lowerToLinalg(GroupedMatmulOp op,
                                            OpBuilder &builder) {
  return GroupedMatmulLowering(op, builder).run();
}
