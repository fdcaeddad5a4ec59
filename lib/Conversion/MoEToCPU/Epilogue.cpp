//===- Epilogue.cpp - Apply epilogues to accumulators ---------------------===//
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
/// Emits the epilogue of one vector of columns.
class VectorEpilogue {
public:
  VectorEpilogue(CPUBuilder &b, GroupedMatmulOp op, int64_t lanes,
                 EpilogueCoord coord, Value column, Value remaining, Value mask)
      : b(b), op(op), lanes(lanes), coord{coord.expert, coord.row, column},
        remaining(remaining), mask(mask) {}

  void build(ArrayRef<Value> accumulators);

private:
  Value loadExtra(unsigned index);
  Value splat(Value scalar);

  CPUBuilder &b;
  GroupedMatmulOp op;
  int64_t lanes;
  Value coord[3];  // e, r, n
  Value remaining; // columns from n on
  Value mask;      // null if all lanes are columns
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

/// Loads the elements of an epilogue operand for the lanes.
Value VectorEpilogue::loadExtra(unsigned index) {
  Value extra = op.getExtras()[index];
  auto type = cast<MemRefType>(extra.getType());
  AffineMap map = op.getOperandMap(index);
  SmallVector<Value> indices;
  for (AffineExpr expr : map.getResults())
    indices.push_back(coord[cast<AffineDimExpr>(expr).getPosition()]);
  std::optional<unsigned> column = map.getResultPosition(b.getAffineDimExpr(2));
  if (!column)
    return splat(memref::LoadOp::create(b, extra, indices));
  // Vectors of i1 are bits, but buffers of them are bytes.
  bool contiguous = *column + 1 == unsigned(type.getRank()) &&
                    type.isLastDimUnitStride() &&
                    !type.getElementType().isInteger(1);
  if (contiguous)
    return b.loadFirst(lanes, extra, indices, remaining, mask);
  return b.gatherFirst(lanes, extra, indices, *column, remaining);
}

void VectorEpilogue::build(ArrayRef<Value> accumulators) {
  Block &body = op.getEpilogue().front();
  IRMapping mapping;
  for (auto [argument, accumulator] :
       llvm::zip(body.getArguments(), accumulators))
    mapping.map(argument, accumulator);
  for (unsigned i = 0; i < op.getExtras().size(); ++i)
    mapping.map(body.getArgument(accumulators.size() + i), loadExtra(i));
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
  for (auto [yielded, init] :
       llvm::zip_equal(op.getYield().getValues(), op.getInits())) {
    widen(yielded);
    b.storeFirst(mapping.lookup(yielded), init, {coord[1], coord[2]}, remaining,
                 mask);
  }
}

void mlir::moe::buildEpilogue(CPUBuilder &b, GroupedMatmulOp op,
                              const Kernel &kernel, EpilogueCoord coord,
                              Value accumulators, Value start) {
  int64_t matmuls = op.getNumAccumulators();
  int64_t share = kernel.getColumns() / matmuls;
  bool ragged = op.getN() % share != 0;
  auto f32 = VectorType::get(kernel.lanes, b.getF32Type());
  Value columns = b.index(op.getN());
  for (int64_t lane = 0; lane < share; lane += kernel.lanes) {
    Value column = b.add(b.mul(coord.panel, share), lane);
    Value remaining = b.sub(columns, column);
    auto build = [&](Value mask) {
      SmallVector<Value> loaded;
      for (int64_t matmul = 0; matmul < matmuls; ++matmul)
        loaded.push_back(vector::LoadOp::create(
            b, f32, accumulators, b.add(start, matmul * share + lane)));
      VectorEpilogue(b, op, kernel.lanes, coord, column, remaining, mask)
          .build(loaded);
    };
    if (!ragged) {
      build(Value());
      continue;
    }
    // The last panel is padded with columns of zeros.
    b.ifElse(
        b.less(remaining, b.index(kernel.lanes)),
        [&] {
          b.ifThen(b.less(b.index(0), remaining), [&] {
            build(vector::CreateMaskOp::create(
                b, VectorType::get(kernel.lanes, b.getI1Type()), remaining));
          });
        },
        [&] { build(Value()); });
  }
}
