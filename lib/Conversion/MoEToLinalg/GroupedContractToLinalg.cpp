//===- GroupedContractToLinalg.cpp - moe.grouped_contract -----------------===//
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
class GroupedContractLowering {
public:
  GroupedContractLowering(GroupedContractOp op, OpBuilder &builder)
      : op(op), b(op.getLoc(), builder),
        matrix{b.getIndexAttr(op.getK()), b.getIndexAttr(op.getN())} {}

  SmallVector<Value> run();

private:
  Value countRows();
  Value slice(Value tensor, Value start, Value count);
  Value element(Value read, Value rows, Value gather, Value column);
  Value sums(Value init, Value start, Value count);

  GroupedContractOp op;
  TensorBuilder b;
  SmallVector<OpFoldResult> matrix; // of an expert
};
} // namespace

/// Returns how many rows are contracted: none if one side gathers from no rows.
Value GroupedContractLowering::countRows() {
  auto count = [&](Value rows, Value gather) -> Value {
    Value source = b.dim(rows, 0);
    if (!gather)
      return source;
    Value none =
        arith::CmpIOp::create(b, arith::CmpIPredicate::eq, source, b.index(0));
    return arith::SelectOp::create(b, none, b.index(0), b.dim(gather, 0));
  };
  return arith::MinSIOp::create(b, count(op.getLhs(), op.getLhsGather()),
                                count(op.getRhs(), op.getRhsGather()));
}

/// Returns `count` rows or row numbers from `start` on.
Value GroupedContractLowering::slice(Value tensor, Value start, Value count) {
  SmallVector<OpFoldResult> sizes = b.sizes(tensor);
  SmallVector<OpFoldResult> offsets(sizes.size(), b.getIndexAttr(0)),
      strides(sizes.size(), b.getIndexAttr(1));
  offsets[0] = start;
  sizes[0] = count;
  return tensor::ExtractSliceOp::create(b, tensor, offsets, sizes, strides);
}

/// Returns an element in f32. `read` is that of the rows, or the number of
/// the row that is gathered.
Value GroupedContractLowering::element(Value read, Value rows, Value gather,
                                       Value column) {
  if (gather) {
    Value last = arith::SubIOp::create(b, b.dim(rows, 0), b.index(1));
    read = b.extract(rows, {b.clamp(b.toIndex(read), last), column});
  }
  return b.toFloat(read, b.getF32Type());
}

/// Adds the products of the rows of an expert to the matrix `init`.
Value GroupedContractLowering::sums(Value init, Value start, Value count) {
  auto map = [&](ArrayRef<unsigned> dims) {
    return AffineMap::getMultiDimMapWithTargets(3, dims, b.getContext());
  };
  // Loops over k, n and the rows.
  SmallVector<Value> inputs;
  SmallVector<AffineMap> maps;
  auto add = [&](Value rows, Value gather, unsigned column) {
    inputs.push_back(slice(gather ? gather : rows, start, count));
    maps.push_back(gather ? map({2}) : map({2, column}));
  };
  add(op.getLhs(), op.getLhsGather(), 0);
  add(op.getRhs(), op.getRhsGather(), 1);
  maps.push_back(map({0, 1}));
  auto body = [&](ValueRange v) -> SmallVector<Value> {
    Value k = linalg::IndexOp::create(b, 0), n = linalg::IndexOp::create(b, 1);
    Value x = element(v[0], op.getLhs(), op.getLhsGather(), k);
    Value y = element(v[1], op.getRhs(), op.getRhsGather(), n);
    Value term = arith::MulFOp::create(b, x, y);
    return {arith::AddFOp::create(b, v[2], term)};
  };
  return b.generic(3, 1, inputs, maps, init, body).front();
}

SmallVector<Value> GroupedContractLowering::run() {
  auto type = cast<RankedTensorType>(op.getInit().getType());
  Type element = type.getElementType(), f32 = b.getF32Type();
  auto matrixType =
      RankedTensorType::get(type.getShape().drop_front(), element);
  Value rows = countRows();
  return b.loop(
      b.index(op.getExpertCount()), op.getInit(),
      [&](Value e, ValueRange iters) -> SmallVector<Value> {
        auto [start, count] =
            b.rowsOf(op.getOffsets(), e, op.getFirstExpert(), rows);
        SmallVector<OpFoldResult> offsets{e, b.getIndexAttr(0),
                                          b.getIndexAttr(0)};
        SmallVector<OpFoldResult> sizes{b.getIndexAttr(1), matrix[0],
                                        matrix[1]};
        SmallVector<OpFoldResult> strides(3, b.getIndexAttr(1));
        auto convert = [&](Value from, Type to) {
          return b.map(from, to,
                       [&](ValueRange v) { return b.toFloat(v[0], to); });
        };
        Value init;
        if (op.getAccumulate())
          init = convert(tensor::ExtractSliceOp::create(
                             b, matrixType, iters[0], offsets, sizes, strides),
                         f32);
        else
          init = b.fill(matrix, b.f32(0.0));
        Value result = sums(init, start, count);
        if (!element.isF32())
          result = convert(result, element);
        return {tensor::InsertSliceOp::create(b, result, iters[0], offsets,
                                              sizes, strides)};
      });
}

SmallVector<Value> mlir::moe::lowerToLinalg(GroupedContractOp op,
                                            OpBuilder &builder) {
  return GroupedContractLowering(op, builder).run();
}
