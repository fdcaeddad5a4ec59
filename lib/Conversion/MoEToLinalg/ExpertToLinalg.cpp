//===- ExpertToLinalg.cpp - moe.expert ------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Lowering.h"
#include "TensorBuilder.h"

#include "mlir/Dialect/SCF/IR/SCF.h"

using namespace mlir;
using namespace mlir::moe;

/// Returns the slice of `param` for the expert at `index` of the range.
static Value sliceOfParameter(TensorBuilder &b, Value param, Value index) {
  auto type = cast<RankedTensorType>(param.getType());
  SmallVector<OpFoldResult> sizes = b.sizes(param);
  SmallVector<OpFoldResult> offsets(sizes.size(), b.getIndexAttr(0));
  SmallVector<OpFoldResult> strides(sizes.size(), b.getIndexAttr(1));
  sizes[0] = b.getIndexAttr(1);
  offsets[0] = index;
  auto slice = RankedTensorType::get(type.getShape().drop_front(),
                                     type.getElementType());
  return tensor::ExtractSliceOp::create(b, slice, param, offsets, sizes,
                                        strides);
}

SmallVector<Value> mlir::moe::lowerToLinalg(ExpertOp op, OpBuilder &builder) {
  TensorBuilder b(op.getLoc(), builder);
  RankedTensorType type = op.getResult().getType();
  Value rows = b.dim(op.getGrouped(), 0);
  SmallVector<OpFoldResult> resultSizes{b.size(op.getGrouped(), 0),
                                        b.getIndexAttr(type.getDimSize(1))};

  Value init = op.getInit();
  if (!init && op.getUncovered() == Uncovered::Zero)
    init =
        b.fill(resultSizes, arith::ConstantOp::create(
                                b, b.getFloatAttr(type.getElementType(), 0.0)));
  else if (!init)
    init = b.empty(resultSizes, type.getElementType());

  Value result =
      b.loop(b.index(op.getExpertCount()), init,
             [&](Value index, ValueRange iters) {
               Value expert = arith::AddIOp::create(
                   b, index, b.index(op.getFirstExpert()));
               Value next = arith::AddIOp::create(b, expert, b.index(1));
               Value start = b.rowAt(op.getOffsets(), expert, rows);
               Value end = b.rowAt(op.getOffsets(), next, rows);
               Value count = arith::SubIOp::create(b, end, start);
               Value some = arith::CmpIOp::create(b, arith::CmpIPredicate::sgt,
                                                  count, b.index(0));
               auto covered = scf::IfOp::create(b, iters[0].getType(), some,
                                                /*withElseRegion=*/true);
               OpBuilder::InsertionGuard guard(b);
               b.setInsertionPointToStart(covered.elseBlock());
               scf::YieldOp::create(b, iters[0]);

               b.setInsertionPointToStart(covered.thenBlock());
               // The minimum gives the buffers in the region a bound.
               count = arith::MinSIOp::create(b, count, rows);
               auto rowsOf = [&](Value columns) {
                 return SmallVector<OpFoldResult>{count, b.size(columns, 1)};
               };
               SmallVector<OpFoldResult> offsets{start, b.getIndexAttr(0)};
               SmallVector<OpFoldResult> strides(2, b.getIndexAttr(1));
               IRMapping mapping;
               Block &body = op.getBody().front();
               Value slice = tensor::ExtractSliceOp::create(
                   b, cast<RankedTensorType>(body.getArgument(0).getType()),
                   op.getGrouped(), offsets, rowsOf(op.getGrouped()), strides);
               mapping.map(body.getArgument(0), slice);
               for (auto [argument, param] :
                    llvm::zip(body.getArguments().drop_front(), op.getParams()))
                 mapping.map(argument, sliceOfParameter(b, param, index));
               for (Operation &nested : body.without_terminator())
                 b.clone(nested, mapping);
               Value yielded =
                   mapping.lookupOrDefault(op.getYield().getValue());
               Value updated = tensor::InsertSliceOp::create(
                   b, yielded, iters[0], offsets, rowsOf(iters[0]), strides);
               scf::YieldOp::create(b, updated);
               return llvm::to_vector_of<Value>(covered.getResults());
             })
          .front();
  return {result};
}
