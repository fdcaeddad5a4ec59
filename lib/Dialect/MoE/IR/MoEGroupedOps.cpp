//===- MoEGroupedOps.cpp - Operations that fusion creates -----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Verification.h"
#include "moe/Dialect/MoE/IR/PackedFormat.h"
#include "moe/Dialect/MoE/IR/QuantizedRows.h"
#include "moe/Dialect/Utils/DestinationEffects.h"

#include "mlir/IR/PatternMatch.h"

using namespace mlir;
using namespace mlir::moe;

//===----------------------------------------------------------------------===//
// #moe.panels
//===----------------------------------------------------------------------===//

LogicalResult
PanelsAttr::verify(llvm::function_ref<InFlightDiagnostic()> emitError,
                   int64_t matmuls, int64_t columns, int64_t depth,
                   FormatAttr format) {
  if (matmuls < 1 || columns < 1 || depth < 1)
    return emitError() << "expected positive matmuls, columns and depth, got "
                       << matmuls << ", " << columns << " and " << depth;
  if (columns % matmuls != 0)
    return emitError() << "expected columns that " << matmuls
                       << " matmuls share equally, got " << columns;
  if (!format)
    return success();
  std::optional<PackedFormat> packed = PackedFormat::get(format);
  if (!packed)
    return emitError() << "expected a format of codes of 4, 6 or 8 bits with "
                          "scales of groups of a multiple of 16 elements, got "
                       << format;
  if (depth != packed->getStep())
    return emitError() << "expected a depth of " << packed->getStep()
                       << " for this format, got " << depth;
  return success();
}

SmallVector<int64_t> PanelsAttr::getShape(int64_t experts, int64_t k,
                                          int64_t n) const {
  if (getFormat())
    return {experts, int64_t(llvm::divideCeil(n, getShare())),
            PackedFormat::get(getFormat())->getPanelBytes(getColumns(), k)};
  return {experts, int64_t(llvm::divideCeil(n, getShare())),
          int64_t(llvm::divideCeil(k, getDepth())), getColumns(), getDepth()};
}

static Type elementOf(Value value) {
  return cast<ShapedType>(value.getType()).getElementType();
}

//===----------------------------------------------------------------------===//
// moe.grouped_matmul
//===----------------------------------------------------------------------===//

void GroupedMatmulOp::getAsmBlockArgumentNames(Region &region,
                                               OpAsmSetValueNameFn setName) {
  for (BlockArgument argument : region.getArguments())
    setName(argument, int64_t(argument.getArgNumber()) < getNumAccumulators()
                          ? "sum"
                          : "operand");
}

YieldOp GroupedMatmulOp::getYield() {
  return cast<YieldOp>(getEpilogue().front().getTerminator());
}

int64_t GroupedMatmulOp::getK() {
  int64_t columns = cast<ShapedType>(getLhs().getType()).getDimSize(1);
  return hasQuantizedRows() ? QuantizedRows::getElements(columns) : columns;
}

bool GroupedMatmulOp::isPlain() {
  return hasOneInit() && getYield().getValue() == getEpilogue().getArgument(0);
}

bool GroupedMatmulOp::isQuantized() {
  return isScaled() || isa<Float8E4M3FNType>(elementOf(getWeights().front()));
}

void GroupedMatmulOp::getEffects(
    SmallVectorImpl<SideEffects::EffectInstance<MemoryEffects::Effect>>
        &effects) {
  addDestinationEffects(*this, effects);
}

LogicalResult
GroupedMatmulOp::reifyResultShapes(OpBuilder &b,
                                   ReifiedRankedShapedTypeDims &shapes) {
  return reifyInits(*this, b, shapes);
}

/// Verifies the shapes of the weights against `lhs` and the result.
static LogicalResult verifyWeights(GroupedMatmulOp op) {
  if (op.getWeights().empty())
    return op.emitOpError("expected at least one operand of weights");
  bool hasFormat = op.getPanels() && op.getPanels()->getFormat();
  if (op.hasQuantizedRows() && !hasFormat)
    return op.emitOpError("expected weights packed with a format for rows of "
                          "i8, got ")
           << op.getWeights().front().getType();
  unsigned rank = op.getPanels() && !hasFormat ? 5 : 3;
  if (auto type = cast<ShapedType>(op.getWeights().front().getType());
      !type.hasRank() || type.getRank() != rank)
    return op.emitOpError("expected weights of rank ")
           << rank << ", got " << type;
  int64_t experts = op.getExpertCount();
  SmallVector<int64_t> expected{experts, op.getK(), op.getN()};
  if (std::optional<PanelsAttr> panels = op.getPanels()) {
    if (op.getWeights().size() != 1 || op.getTransposed())
      return op.emitOpError("expected one operand of packed weights, not "
                            "transposed");
    if (hasFormat && op.getK() % panels->getDepth() != 0)
      return op.emitOpError("expected rows of a multiple of ")
             << panels->getDepth() << " elements for this format, got "
             << op.getK();
    if (hasFormat && isa<Float8E4M3FNType>(elementOf(op.getLhs())))
      return op.emitOpError("expected rows of f32, f16, bf16 or i8 for weights "
                            "packed with a format, got ")
             << elementOf(op.getLhs());
    expected = panels->getShape(experts, op.getK(), op.getN());
  } else if (op.getTransposed()) {
    std::swap(expected[1], expected[2]);
  }
  for (auto [index, weights] : llvm::enumerate(op.getWeights())) {
    if (failed(verifyShape(op, "weights " + Twine(index), weights, expected)))
      return failure();
    auto type = cast<ShapedType>(weights.getType());
    if (ShapedType::isDynamicShape(type.getShape().drop_front()))
      return op.emitOpError(
                 "expected weights with static rows and columns, got ")
             << type;
    if (hasFormat != elementOf(weights).isInteger(8))
      return op.emitOpError("expected bytes where weights are packed with a "
                            "format, and only there, got ")
             << type;
    if (hasFormat)
      continue;
    bool narrow = isa<Float8E4M3FNType>(elementOf(weights)) && !op.getPanels();
    if (elementOf(weights) != elementOf(op.getLhs()) && !narrow)
      return op.emitOpError("expected weights of the type of the rows, ")
             << elementOf(op.getLhs()) << ", got " << elementOf(weights);
  }
  return success();
}

/// Verifies the shapes of the scales against those of the operands.
static LogicalResult verifyScales(GroupedMatmulOp op) {
  std::optional<ArrayRef<int64_t>> blocks = op.getBlocks();
  size_t count = op.getWeightScales().size();
  if ((op.getLhsScales() || count > 0) != blocks.has_value())
    return op.emitOpError("expected blocks where there are scales, and only "
                          "there");
  if (!blocks)
    return success();
  if (blocks->size() != 2 ||
      llvm::any_of(*blocks, [](int64_t extent) { return extent < 1; }))
    return op.emitOpError("expected two positive extents of blocks, got [")
           << *blocks << "]";
  if (op.getPanels())
    return op.emitOpError("expected no scales with packed weights");
  int64_t blocksOfK = llvm::divideCeil(op.getK(), op.getBlockK());
  int64_t rows = cast<ShapedType>(op.getLhs().getType()).getDimSize(0);
  if (op.getLhsScales() &&
      failed(
          verifyShape(op, "lhs_scales", op.getLhsScales(), {rows, blocksOfK})))
    return failure();
  if (count != 0 && count != op.getWeights().size())
    return op.emitOpError("expected scales for each of ")
           << op.getWeights().size() << " weights, got " << count;
  int64_t expected[] = {op.getExpertCount(), blocksOfK,
                        int64_t(llvm::divideCeil(op.getN(), op.getBlockN()))};
  if (op.getTransposed())
    std::swap(expected[1], expected[2]);
  for (auto [index, scales] : llvm::enumerate(op.getWeightScales()))
    if (failed(
            verifyShape(op, "weight_scales " + Twine(index), scales, expected)))
      return failure();
  return success();
}

static LogicalResult verifyOperandMaps(GroupedMatmulOp op) {
  unsigned count = op.getMaps() ? op.getMaps()->size() : 0;
  if (count != op.getExtras().size())
    return op.emitOpError("expected a map for each of ")
           << op.getExtras().size() << " operands, got " << count;
  auto init = cast<ShapedType>(op.getInit().getType());
  int64_t extents[] = {op.getExpertCount(), init.getDimSize(0), op.getN()};
  for (auto [index, operand] : llvm::enumerate(op.getExtras())) {
    AffineMap map = op.getOperandMap(index);
    auto type = cast<ShapedType>(operand.getType());
    if (map.getNumDims() != 3 || map.getNumSymbols() != 0 ||
        !map.isProjectedPermutation())
      return op.emitOpError("expected map ")
             << index << " to be a projection of (e, r, n), got "
             << AffineMapAttr::get(map);
    SmallVector<int64_t> expected;
    for (AffineExpr expr : map.getResults())
      expected.push_back(extents[cast<AffineDimExpr>(expr).getPosition()]);
    if (failed(verifyShape(op, "operand " + Twine(index), operand, expected)))
      return failure();
    if (!type.getElementType().isIntOrFloat())
      return op.emitOpError("expected operand ")
             << index << " of integers or floats, got " << type;
  }
  return success();
}

LogicalResult GroupedMatmulOp::verify() {
  if (getInits().empty())
    return emitOpError("expected at least one destination");
  if (failed(verifyDestinations(*this)))
    return failure();
  auto lhs = cast<ShapedType>(getLhs().getType());
  auto init = cast<ShapedType>(getInit().getType());
  if (lhs.isDynamicDim(1) || init.isDynamicDim(1))
    return emitOpError("expected rows and a destination with static columns, "
                       "got ")
           << lhs << " and " << init;
  for (Value other : getInits().drop_front())
    if (failed(verifyShape(*this, "destinations", other, init.getShape())))
      return failure();
  if (hasQuantizedRows() && lhs.getDimSize(1) % QuantizedRows::bytes != 0)
    return emitOpError("expected quantized rows of ")
           << QuantizedRows::bytes << " bytes for each group, got " << lhs;
  if (failed(verifyWeights(*this)) || failed(verifyScales(*this)) ||
      failed(verifyOperandMaps(*this)))
    return failure();
  int64_t experts = getExpertCount();
  if (ShapedType::isDynamic(experts) || experts < 1)
    return emitOpError("expected weights of a static, positive number of "
                       "experts");
  if (failed(verifyGroups(*this, experts)))
    return failure();
  int64_t rows = getGather()
                     ? cast<ShapedType>(getGather().getType()).getDimSize(0)
                     : lhs.getDimSize(0);
  if (!compatible(rows, init.getDimSize(0)))
    return emitOpError("expected a destination of ")
           << rows << " rows, got " << init.getDimSize(0);
  return success();
}

LogicalResult GroupedMatmulOp::verifyRegions() {
  Block &body = getEpilogue().front();
  SmallVector<Type> expected(getNumAccumulators(),
                             Float32Type::get(getContext()));
  for (Value operand : getExtras())
    expected.push_back(elementOf(operand));
  if (!llvm::equal(body.getArgumentTypes(), expected))
    return emitOpError("expected an epilogue that takes ")
           << expected
           << ", the accumulators and the elements of the operands, got "
           << llvm::to_vector(body.getArgumentTypes());
  auto yield = dyn_cast<YieldOp>(body.getTerminator());
  if (!yield)
    return emitOpError("expected an epilogue that ends with moe.yield, got ")
           << body.getTerminator()->getName();
  SmallVector<Type> elements = llvm::map_to_vector(getInits(), elementOf);
  if (failed(verifyYield(yield, elements)))
    return failure();
  auto isScalar = [](Type type) { return type.isIntOrIndexOrFloat(); };
  for (Operation &op : body.without_terminator()) {
    bool elementwise =
        isPure(&op) && OpTrait::hasElementwiseMappableTraits(&op);
    if (!elementwise && !op.hasTrait<OpTrait::ConstantLike>())
      return op.emitOpError("expected an epilogue of elementwise operations "
                            "without side effects");
    if (!llvm::all_of(op.getOperandTypes(), isScalar) ||
        !llvm::all_of(op.getResultTypes(), isScalar))
      return op.emitOpError("expected an epilogue of operations on scalars");
  }
  return success();
}

//===----------------------------------------------------------------------===//
// moe.gather_sum
//===----------------------------------------------------------------------===//

void GatherSumOp::getEffects(
    SmallVectorImpl<SideEffects::EffectInstance<MemoryEffects::Effect>>
        &effects) {
  addDestinationEffects(*this, effects);
}

LogicalResult
GatherSumOp::reifyResultShapes(OpBuilder &b,
                               ReifiedRankedShapedTypeDims &shapes) {
  return reifyInits(*this, b, shapes);
}

LogicalResult GatherSumOp::verify() {
  if (failed(verifyDestinations(*this)))
    return failure();
  auto positions = cast<ShapedType>(getPositions().getType());
  auto rows = cast<ShapedType>(getRows().getType());
  if (failed(verifyChoices(*this, "positions", getPositions())))
    return failure();
  if (getWeights() &&
      failed(verifyShape(*this, "weights", getWeights(), positions.getShape())))
    return failure();
  if (rows.isDynamicDim(1))
    return emitOpError("expected rows with static columns, got ") << rows;
  int64_t result[] = {positions.getDimSize(0), rows.getDimSize(1)};
  if (failed(verifyShape(*this, "a destination", getInit(), result)) ||
      (getDropped() &&
       failed(verifyShape(*this, "dropped", getDropped(), result))))
    return failure();
  for (Value other : {getInit(), getDropped()})
    if (other && elementOf(other) != elementOf(getRows()))
      return emitOpError("expected rows of one type, got ")
             << elementOf(getRows()) << " and " << elementOf(other);
  return success();
}

//===----------------------------------------------------------------------===//
// moe.fused
//===----------------------------------------------------------------------===//

YieldOp FusedOp::getYield() {
  return cast<YieldOp>(getBody().front().getTerminator());
}

LogicalResult FusedOp::verify() {
  if (getCounters() && !getCounters().hasOneUse())
    return emitOpError("expected counters without other uses");
  return success();
}

LogicalResult FusedOp::verifyRegions() {
  auto yield = dyn_cast<YieldOp>(getBody().front().getTerminator());
  if (!yield)
    return emitOpError("expected a region that ends with moe.yield, got ")
           << getBody().front().getTerminator()->getName();
  return verifyYield(yield, getResultTypes());
}

FusedOp FusedOp::wrap(RewriterBase &rewriter, Location loc,
                      ArrayRef<Operation *> ops, ValueRange values,
                      Value counters) {
  auto fused = FusedOp::create(rewriter, loc, values.getTypes(), counters);
  Block *body = rewriter.createBlock(&fused.getBody());
  YieldOp yield = YieldOp::create(rewriter, loc, values);
  for (Operation *op : ops)
    rewriter.moveOpBefore(op, yield);
  for (auto [inner, result] : llvm::zip_equal(values, fused.getResults()))
    rewriter.replaceUsesWithIf(inner, result, [&](OpOperand &use) {
      return !body->findAncestorOpInBlock(*use.getOwner());
    });
  rewriter.setInsertionPointAfter(fused);
  return fused;
}

//===----------------------------------------------------------------------===//
// moe.pack
//===----------------------------------------------------------------------===//

void PackOp::getEffects(
    SmallVectorImpl<SideEffects::EffectInstance<MemoryEffects::Effect>>
        &effects) {
  addDestinationEffects(*this, effects);
}

LogicalResult PackOp::reifyResultShapes(OpBuilder &b,
                                        ReifiedRankedShapedTypeDims &shapes) {
  return reifyInits(*this, b, shapes);
}

/// Verifies the operands of a packing that keeps weights quantised.
static LogicalResult verifyFormat(PackOp op) {
  if (!op.getExtents() || op.getExtents()->size() != 2 || op.getK() < 1 ||
      op.getN() < 1 || op.getK() % op.getPanels().getDepth() != 0)
    return op.emitOpError("expected extents [K, N] with a K that is a multiple "
                          "of ")
           << op.getPanels().getDepth();
  if (!op.getTransposed())
    return op.emitOpError("expected quantised weights that are transposed");
  int64_t count = op.getPanels().getMatmuls() * op.getNumFields();
  if (int64_t(op.getWeights().size()) != count)
    return op.emitOpError("expected ")
           << op.getNumFields() << " fields for each of "
           << op.getPanels().getMatmuls() << " matmuls, got "
           << op.getWeights().size();
  auto first = cast<ShapedType>(op.getWeights().front().getType());
  if (!first.hasRank() || first.getRank() == 0)
    return op.emitOpError("expected fields with a dimension of experts, got ")
           << first;
  int64_t experts = first.getDimSize(0);
  FormatAttr format = op.getPanels().getFormat();
  for (int64_t matmul = 0; matmul < op.getPanels().getMatmuls(); ++matmul)
    for (FieldAttr field : format.getFields()) {
      int64_t number = matmul * op.getNumFields() + field.getOperand();
      auto type = cast<ShapedType>(op.getWeights()[number].getType());
      if (failed(verifyField(op, number, format, field, type, {experts},
                             op.getN(), op.getK())))
        return failure();
    }
  if (!elementOf(op.getInit()).isInteger(8))
    return op.emitOpError("expected a destination of bytes, got ")
           << op.getInit().getType();
  return verifyShape(op, "a destination", op.getInit(),
                     op.getPanels().getShape(experts, op.getK(), op.getN()));
}

LogicalResult PackOp::verify() {
  if (failed(verifyDestinations(*this)))
    return failure();
  if (getPanels().getFormat())
    return verifyFormat(*this);
  if (getExtents())
    return emitOpError("expected extents only where there is a format");
  int64_t matmuls = getPanels().getMatmuls();
  if (int64_t(getWeights().size()) != matmuls)
    return emitOpError("expected weights of ")
           << matmuls << " matmuls, got " << getWeights().size();
  auto first = cast<ShapedType>(getWeights().front().getType());
  if (first.getRank() != 3 || first.isDynamicDim(1) || first.isDynamicDim(2))
    return emitOpError("expected weights of rank 3 with static rows and "
                       "columns, got ")
           << first;
  for (Value weights : getWeights()) {
    if (failed(verifyShape(*this, "weights", weights, first.getShape())))
      return failure();
    if (elementOf(weights) != elementOf(getInit()))
      return emitOpError("expected weights of the type of the destination, ")
             << elementOf(getInit()) << ", got " << elementOf(weights);
  }
  return verifyShape(*this, "a destination", getInit(),
                     getPanels().getShape(first.getDimSize(0), getK(), getN()));
}

//===----------------------------------------------------------------------===//
// moe.quantize_rows
//===----------------------------------------------------------------------===//

void QuantizeRowsOp::getEffects(
    SmallVectorImpl<SideEffects::EffectInstance<MemoryEffects::Effect>>
        &effects) {
  addDestinationEffects(*this, effects);
}

LogicalResult
QuantizeRowsOp::reifyResultShapes(OpBuilder &b,
                                  ReifiedRankedShapedTypeDims &shapes) {
  return reifyInits(*this, b, shapes);
}

LogicalResult QuantizeRowsOp::verify() {
  if (failed(verifyDestinations(*this)))
    return failure();
  auto rows = cast<ShapedType>(getRows().getType());
  if (rows.isDynamicDim(1) || getK() % QuantizedRows::group != 0)
    return emitOpError("expected rows of a multiple of ")
           << QuantizedRows::group << " columns, got " << rows;
  return verifyShape(*this, "a destination", getInit(),
                     {rows.getDimSize(0), QuantizedRows::getBytes(getK())});
}

//===----------------------------------------------------------------------===//
// moe.round_matrices
//===----------------------------------------------------------------------===//

void RoundMatricesOp::getEffects(
    SmallVectorImpl<SideEffects::EffectInstance<MemoryEffects::Effect>>
        &effects) {
  addDestinationEffects(*this, effects);
}

const char *RoundMatricesOp::reasonNotToRound(FormatAttr format, int64_t k) {
  int64_t width = format.getCodes().getWidth();
  if (width != 4 && width != 8)
    return "expected codes of 4 or 8 bits";
  auto scale = cast<FieldAttr>(format.getScales()[0]);
  int64_t columns = scale.getBlockColumns();
  if (width == 4 && columns < k && columns % 2 != 0)
    return "expected an even number of columns in a block of codes of 4 bits";
  if (scale.getBlockRows() * std::min(columns, k) > int64_t(1) << 30)
    return "expected at most 2^30 elements in a block";
  return nullptr;
}

LogicalResult RoundMatricesOp::verify() {
  bool tensors = isa<TensorType>(getSource().getType());
  for (Value init : getInits())
    if (isa<TensorType>(init.getType()) != tensors)
      return emitOpError("expected operands that are all tensors or all "
                         "memrefs, got ")
             << getSource().getType() << " and " << init.getType();
  size_t count = getInits().size();
  if (count != 1 && count != 2)
    return emitOpError("expected one destination or two, got ") << count;
  if (!getSourceType().hasRank() || getSourceType().getRank() < 2)
    return emitOpError("expected matrices, got ") << getSourceType();
  if (ShapedType::isDynamic(getK()))
    return emitOpError("expected matrices with static columns, got ")
           << getSourceType();
  if (const char *reason = QuantizeOp::reasonNotToQuantize(getFormat()))
    return emitOpError() << reason;
  if (isMeasurement()) {
    if (getNumLeadingDims() != 1 || !elementOf(getInits()[0]).isF32())
      return emitOpError("expected matrices with one dimension before them, "
                         "and errors in f32, got ")
             << getSourceType() << " and " << getInits()[0].getType();
    return verifyShape(*this, "errors", getInits()[0],
                       {getSourceType().getDimSize(0)});
  }
  auto fields = QuantizeOp::getFieldTypes(getSourceType().getShape(),
                                          getTransposed(), getFormat());
  for (auto [index, init, field] : llvm::enumerate(getInits(), fields)) {
    if (elementOf(init) != field.getElementType())
      return emitOpError("expected field ")
             << index << " of " << field.getElementType() << ", got "
             << init.getType();
    if (failed(verifyShape(*this, "field " + Twine(index), init,
                           field.getShape())))
      return failure();
  }
  return success();
}
