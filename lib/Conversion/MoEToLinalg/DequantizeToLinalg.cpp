//===- DequantizeToLinalg.cpp - moe.dequantize ----------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Lowering.h"
#include "TensorBuilder.h"
#include "moe/Conversion/Utils/FormatDecoder.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"

using namespace mlir;
using namespace mlir::moe;

SmallVector<Value> mlir::moe::lowerToLinalg(DequantizeOp op,
                                            OpBuilder &builder) {
  TensorBuilder b(op.getLoc(), builder);
  int64_t numLeading = op.getNumLeadingDims();
  FormatDecoder decoder(b, op.getFormat(), op.getFields(), numLeading);
  decoder.createTables();
  SmallVector<OpFoldResult> sizes =
      getAsIndexOpFoldResult(b.getContext(), op.getType().getShape());
  for (int64_t dim = 0; dim < numLeading; ++dim)
    if (op.getType().isDynamicDim(dim))
      sizes[dim] = b.size(op.getFields().front(), dim);
  Type element = op.getType().getElementType();
  unsigned rank = op.getType().getRank();
  return b.generic(rank, 0, {}, {b.getMultiDimIdentityMap(rank)},
                   b.empty(sizes, element), [&](ValueRange) {
                     SmallVector<Value> indices;
                     for (unsigned dim = 0; dim < rank; ++dim)
                       indices.push_back(linalg::IndexOp::create(b, dim));
                     decoder.setElement(ArrayRef<Value>(indices).drop_back(2),
                                        indices[rank - 2], indices[rank - 1]);
                     return SmallVector<Value>{
                         b.toFloat(decoder.decode(), element)};
                   });
}
