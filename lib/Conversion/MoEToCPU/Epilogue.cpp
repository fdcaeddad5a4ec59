//===- Epilogue.cpp - From sums to elements of the result -----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Epilogue.h"

#include "mlir/IR/IRMapping.h"
#include "mlir/IR/Matchers.h"

using namespace mlir;
using namespace mlir::moe;

namespace {
/// The epilogue of one vector of columns.
class VectorEpilogue {
public:
  VectorEpilogue(CPUBuilder &b, GroupedMatmulOp op, int64_t lanes,
                 EpiloguePlace place, Value column, Value left, Value mask)
      : b(b), op(op), lanes(lanes), place{place.expert, place.row, column},
        left(left), mask(mask) {}

  void build(ArrayRef<Value> sums);

private:
  Value loadExtra(unsigned number);
  Value splat(Value scalar);

  CPUBuilder &b;
  GroupedMatmulOp op;
  int64_t lanes;
  Value place[3]; // e, r, n
  Value left;     // columns from n on
  Value mask;     // null where all lanes are columns
};
} // namespace

Value VectorEpilogue::splat(Value scalar) {
  auto type = VectorType::get(lanes, scalar.getType());
  TypedAttr constant;
  if (matchPattern(scalar, m_Constant(&constant)))
    return arith::ConstantOp::create(
        b, DenseElementsAttr::get(type, Attribute(constant)));
  return vector::BroadcastOp::create(b, type, scalar);
}

/// The elements of an operand that belong to the lanes.
Value VectorEpilogue::loadExtra(unsigned number) {
  Value extra = op.getExtras()[number];
  auto type = cast<MemRefType>(extra.getType());
  AffineMap map = op.getOperandMap(number);
  SmallVector<Value> indices;
  for (AffineExpr expr : map.getResults())
    indices.push_back(place[cast<AffineDimExpr>(expr).getPosition()]);
  std::optional<unsigned> column =
      map.getResultPosition(b.getAffineDimExpr(2));
  if (!column)
    return splat(memref::LoadOp::create(b, extra, indices));
  // A vector of i1 is bits, a buffer of them is bytes.
  bool contiguous = *column + 1 == unsigned(type.getRank()) &&
                    type.isLastDimUnitStride() &&
                    !type.getElementType().isInteger(1);
  if (contiguous)
    return b.loadFirst(lanes, extra, indices, left, mask);
  return b.gatherFirst(lanes, extra, indices, *column, left);
}

void VectorEpilogue::build(ArrayRef<Value> sums) {
  Block &body = op.getEpilogue().front();
  IRMapping mapping;
  for (auto [argument, sum] : llvm::zip(body.getArguments(), sums))
    mapping.map(argument, sum);
  for (unsigned i = 0; i < op.getExtras().size(); ++i)
    mapping.map(body.getArgument(sums.size() + i), loadExtra(i));
  auto widen = [&](Value operand) {
    if (!mapping.contains(operand))
      mapping.map(operand, splat(operand));
  };
  for (Operation &nested : body.without_terminator()) {
    TypedAttr constant;
    if (matchPattern(&nested, m_Constant(&constant)))
      continue; // splatted where it is used
    llvm::for_each(nested.getOperands(), widen);
    Operation *clone = b.clone(nested, mapping);
    for (OpResult result : clone->getResults())
      result.setType(VectorType::get(lanes, result.getType()));
  }
  Value yielded = op.getYield().getValue();
  widen(yielded);
  b.storeFirst(mapping.lookup(yielded), op.getInit(), {place[1], place[2]},
               left, mask);
}

void mlir::moe::buildEpilogue(CPUBuilder &b, GroupedMatmulOp op,
                              const Kernel &kernel, EpiloguePlace place,
                              Value sums, Value start) {
  int64_t products = op.getNumProducts();
  int64_t share = kernel.getColumns() / products;
  bool ragged = op.getN() % share != 0;
  auto f32 = VectorType::get(kernel.lanes, b.getF32Type());
  Value columns = b.index(op.getN());
  for (int64_t lane = 0; lane < share; lane += kernel.lanes) {
    Value column = b.add(b.mul(place.panel, share), lane);
    Value left = b.sub(columns, column);
    auto build = [&](Value mask) {
      SmallVector<Value> loaded;
      for (int64_t product = 0; product < products; ++product)
        loaded.push_back(vector::LoadOp::create(
            b, f32, sums, b.add(start, product * share + lane)));
      VectorEpilogue(b, op, kernel.lanes, place, column, left, mask)
          .build(loaded);
    };
    if (!ragged) {
      build(Value());
      continue;
    }
    // The last panel has columns of its own beside columns of zeros.
    b.ifElse(
        b.less(left, b.index(kernel.lanes)),
        [&] {
          b.ifThen(b.less(b.index(0), left), [&] {
            build(vector::CreateMaskOp::create(
                b, VectorType::get(kernel.lanes, b.getI1Type()), left));
          });
        },
        [&] { build(Value()); });
  }
}
