//===- TilingInterfaceImpl.cpp - Tiling of moe operations -----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/Transforms/TilingInterfaceImpl.h"
#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/Interfaces/TilingInterface.h"

using namespace mlir;
using namespace mlir::moe;

/// Returns rows `offset` to `offset + size` of a matrix, and the given columns
/// or all of them.
static Value sliceMatrix(OpBuilder &b, Location loc, Value matrix,
                         OpFoldResult offset, OpFoldResult size,
                         OpFoldResult columnOffset = {},
                         OpFoldResult columns = {}) {
  if (!matrix)
    return {};
  OpFoldResult zero = b.getIndexAttr(0), one = b.getIndexAttr(1);
  if (!columns) {
    columnOffset = zero;
    columns = tensor::getMixedSize(b, loc, matrix, 1);
  }
  return tensor::ExtractSliceOp::create(
      b, loc, matrix, ArrayRef<OpFoldResult>{offset, columnOffset},
      ArrayRef<OpFoldResult>{size, columns}, ArrayRef<OpFoldResult>{one, one});
}

static Range wholeDim(OpBuilder &b, Location loc, Value matrix, int64_t dim) {
  return {b.getIndexAttr(0), tensor::getMixedSize(b, loc, matrix, dim),
          b.getIndexAttr(1)};
}

/// Clones `op` with new operands (null ones stay absent) and inferred types.
template <typename OpT>
static OpT cloneOnto(OpBuilder &b, OpT op,
                     ArrayRef<std::pair<Value, Value>> replaced) {
  SmallVector<Value> operands;
  for (auto [from, to] : replaced)
    if (from)
      operands.push_back(to);
  OperationState state(op.getLoc(), op->getName());
  state.addOperands(operands);
  state.addAttributes(llvm::to_vector(op->getDiscardableAttrs()));
  state.propertiesAttr = op->getPropertiesAsAttribute();
  SmallVector<Type> types;
  if (failed(OpT::inferReturnTypes(op.getContext(), op.getLoc(), operands,
                                   op->getAttrDictionary(),
                                   op->getPropertiesStorage(), {}, types)))
    return {};
  state.addTypes(types);
  return cast<OpT>(b.create(state));
}

namespace {
//===----------------------------------------------------------------------===//
// moe.gate: tokens can be tiled, unless experts choose or a softmax runs over
// them
//===----------------------------------------------------------------------===//

struct GateTiling : TilingInterface::ExternalModel<GateTiling, GateOp> {
  static bool tokensAreIndependent(GateOp op) {
    return op.getTokenDependence().empty();
  }

  SmallVector<utils::IteratorType> getLoopIteratorTypes(Operation *op) const {
    return {tokensAreIndependent(cast<GateOp>(op))
                ? utils::IteratorType::parallel
                : utils::IteratorType::reduction};
  }

  SmallVector<Range> getIterationDomain(Operation *op, OpBuilder &b) const {
    return {wholeDim(b, op->getLoc(), cast<GateOp>(op).getLogits(), 0)};
  }

  FailureOr<TilingResult>
  getTiledImplementation(Operation *op, OpBuilder &b,
                         ArrayRef<OpFoldResult> offsets,
                         ArrayRef<OpFoldResult> sizes) const {
    auto gate = cast<GateOp>(op);
    if (!tokensAreIndependent(gate))
      return op->emitOpError("cannot be tiled: every token depends on the "
                             "others where experts choose or a softmax runs "
                             "over tokens");
    auto slice = [&](Value matrix) {
      return sliceMatrix(b, op->getLoc(), matrix, offsets[0], sizes[0]);
    };
    Value logits = slice(gate.getLogits()), noise = slice(gate.getNoise());
    Value ids = slice(gate.getGivenIds());
    GateOp tiled = cloneOnto(b, gate,
                             {{gate.getLogits(), logits},
                              {gate.getBias(), gate.getBias()},
                              {gate.getNoise(), noise},
                              {gate.getGivenIds(), ids}});
    if (!tiled)
      return failure();
    TilingResult result{
        {tiled}, llvm::to_vector_of<Value>(tiled->getResults()), {}};
    for (Value value : {logits, noise, ids})
      if (value)
        result.generatedSlices.push_back(value.getDefiningOp());
    return result;
  }

  LogicalResult
  getResultTilePosition(Operation *op, OpBuilder &b, unsigned resultNumber,
                        ArrayRef<OpFoldResult> offsets,
                        ArrayRef<OpFoldResult> sizes,
                        SmallVector<OpFoldResult> &resultOffsets,
                        SmallVector<OpFoldResult> &resultSizes) const {
    resultOffsets = {offsets[0], b.getIndexAttr(0)};
    resultSizes = {sizes[0], b.getIndexAttr(cast<GateOp>(op).getTopK())};
    return success();
  }
};

//===----------------------------------------------------------------------===//
// moe.combine: all dimensions of the result can be tiled
//===----------------------------------------------------------------------===//

struct CombineTiling
    : TilingInterface::ExternalModel<CombineTiling, CombineOp> {
  SmallVector<utils::IteratorType> getLoopIteratorTypes(Operation *) const {
    return {utils::IteratorType::parallel, utils::IteratorType::parallel};
  }

  SmallVector<Range> getIterationDomain(Operation *op, OpBuilder &b) const {
    auto combine = cast<CombineOp>(op);
    return {wholeDim(b, op->getLoc(), combine.getPositions(), 0),
            wholeDim(b, op->getLoc(), combine.getGrouped(), 1)};
  }

  FailureOr<TilingResult>
  getTiledImplementation(Operation *op, OpBuilder &b,
                         ArrayRef<OpFoldResult> offsets,
                         ArrayRef<OpFoldResult> sizes) const {
    auto combine = cast<CombineOp>(op);
    Location loc = op->getLoc();
    OpFoldResult allRows =
        tensor::getMixedSize(b, loc, combine.getGrouped(), 0);
    Value grouped = sliceMatrix(b, loc, combine.getGrouped(), b.getIndexAttr(0),
                                allRows, offsets[1], sizes[1]);
    Value positions =
        sliceMatrix(b, loc, combine.getPositions(), offsets[0], sizes[0]);
    Value weights =
        sliceMatrix(b, loc, combine.getWeights(), offsets[0], sizes[0]);
    Value dropped = sliceMatrix(b, loc, combine.getDropped(), offsets[0],
                                sizes[0], offsets[1], sizes[1]);
    CombineOp tiled = cloneOnto(b, combine,
                                {{combine.getGrouped(), grouped},
                                 {combine.getPositions(), positions},
                                 {combine.getWeights(), weights},
                                 {combine.getDropped(), dropped}});
    if (!tiled)
      return failure();
    TilingResult result{{tiled}, {tiled.getResult()}, {}};
    for (Value value : {grouped, positions, weights, dropped})
      if (value)
        result.generatedSlices.push_back(value.getDefiningOp());
    return result;
  }

  LogicalResult getResultTilePosition(
      Operation *, OpBuilder &, unsigned, ArrayRef<OpFoldResult> offsets,
      ArrayRef<OpFoldResult> sizes, SmallVector<OpFoldResult> &resultOffsets,
      SmallVector<OpFoldResult> &resultSizes) const {
    resultOffsets.assign(offsets.begin(), offsets.end());
    resultSizes.assign(sizes.begin(), sizes.end());
    return success();
  }

  FailureOr<TilingResult>
  generateResultTileValue(Operation *op, OpBuilder &b, unsigned,
                          ArrayRef<OpFoldResult> offsets,
                          ArrayRef<OpFoldResult> sizes) const {
    return getTiledImplementation(op, b, offsets, sizes);
  }
};
} // namespace

void mlir::moe::registerTilingInterfaceExternalModels(
    DialectRegistry &registry) {
  registry.addExtension(+[](MLIRContext *context, MoEDialect *) {
    GateOp::attachInterface<GateTiling>(*context);
    CombineOp::attachInterface<CombineTiling>(*context);
  });
}
