//===- WeightExpression.cpp - Views of weights ----------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/Transforms/ABI/WeightExpression.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"

using namespace mlir;
using namespace mlir::moe;

static bool isStatic(Value value) {
  auto type = dyn_cast<RankedTensorType>(value.getType());
  return type && type.hasStaticShape() && type.getRank() > 0;
}

/// True for a structured operation of one result that computes each element of
/// those of its inputs at the same place, in some order of the dimensions.
static bool isElementwise(linalg::GenericOp op) {
  if (op.getNumDpsInits() != 1 || !op.hasPureTensorSemantics() ||
      op.getNumParallelLoops() != op.getNumLoops() ||
      !op.getDpsInits()[0].getDefiningOp<tensor::EmptyOp>() ||
      !llvm::all_of(op.getIndexingMapsArray(),
                    [](AffineMap map) { return map.isPermutation(); }))
    return false;
  BlockArgument out = op.getMatchingBlockArgument(op.getDpsInitOperand(0));
  return out.use_empty() && llvm::all_of(*op.getBody(), [&](Operation &each) {
           return each.getNumRegions() == 0 && isPure(&each) &&
                  !isa<linalg::IndexOp>(each) &&
                  llvm::all_of(each.getOperands(), [&](Value operand) {
                    Operation *of = operand.getDefiningOp();
                    return operand.getParentBlock() == op.getBody() ||
                           (of && of->hasTrait<OpTrait::ConstantLike>());
                  });
         });
}

/// The reassociation of a reshape that keeps the first dimension.
static bool keepsFirst(ArrayRef<ReassociationIndices> groups) {
  return !groups.empty() && groups.front().size() == 1;
}

std::optional<WeightExpression>
WeightExpression::match(WeightPreparation &preparation, Value value,
                        bool hasExperts) {
  WeightExpression found;
  found.root = value;
  return found.visit(preparation, value, hasExperts) && !found.sources.empty()
             ? std::optional(found)
             : std::nullopt;
}

bool WeightExpression::visit(WeightPreparation &preparation, Value value,
                             bool hasExperts) {
  auto [known, isNew] = hasExpertsOf.insert({value, hasExperts});
  if (!isNew)
    return known->second == hasExperts;
  if (!isStatic(value) || hasExpertsOf.size() > 64)
    return false;
  if (preparation.weightOf(value)) {
    sources.push_back({cast<BlockArgument>(value), hasExperts});
    return true;
  }
  Operation *op = value.getDefiningOp();
  if (auto collapse = dyn_cast_if_present<tensor::CollapseShapeOp>(op))
    return (!hasExperts || keepsFirst(collapse.getReassociationIndices())) &&
           visit(preparation, collapse.getSrc(), hasExperts);
  if (auto expand = dyn_cast_if_present<tensor::ExpandShapeOp>(op)) {
    if (!hasExperts || keepsFirst(expand.getReassociationIndices()))
      return visit(preparation, expand.getSrc(), hasExperts);
    // Of one expert, alone.
    return expand.getType().getDimSize(0) == 1 &&
           expand.getSrcType().getRank() + 1 == expand.getType().getRank() &&
           expand.getSrcType().getShape() ==
               expand.getType().getShape().drop_front() &&
           visit(preparation, expand.getSrc(), false);
  }
  if (auto slice = dyn_cast_if_present<tensor::ExtractSliceOp>(op))
    return slice.getType().getRank() == slice.getSourceType().getRank() &&
           !ShapedType::isDynamicShape(slice.getStaticOffsets()) &&
           !ShapedType::isDynamicShape(slice.getStaticStrides()) &&
           (!hasExperts || slice.getType().getDimSize(0) ==
                               slice.getSourceType().getDimSize(0)) &&
           visit(preparation, slice.getSource(), hasExperts);
  auto generic = dyn_cast_if_present<linalg::GenericOp>(op);
  if (!generic || !isElementwise(generic) || generic.getNumDpsInputs() == 0)
    return false;
  AffineExpr first = generic.getIndexingMapsArray().back().getResult(0);
  for (OpOperand *input : generic.getDpsInputOperands())
    if ((hasExperts &&
         generic.getMatchingIndexingMap(input).getResult(0) != first) ||
        !visit(preparation, input->get(), hasExperts))
      return false;
  return true;
}

/// Returns groups of dimensions after one that stays alone.
static SmallVector<ReassociationIndices>
afterFirst(ArrayRef<ReassociationIndices> groups) {
  SmallVector<ReassociationIndices> all{{0}};
  for (const ReassociationIndices &group : groups)
    all.push_back(llvm::to_vector<2>(
        llvm::map_range(group, [](int64_t dim) { return dim + 1; })));
  return all;
}

Value WeightExpression::buildValue(ImplicitLocOpBuilder &b, Value value) const {
  if (Value known = built.lookup(value))
    return known;
  bool hasExperts = hasExpertsOf.lookup(value);
  Operation *op = value.getDefiningOp();
  RankedTensorType type = WeightPreparation::withDynamicExperts(
      cast<RankedTensorType>(value.getType()), hasExperts);
  Value made;
  auto groupsOf = [&](ArrayRef<ReassociationIndices> groups) {
    return hasExperts ? llvm::to_vector(groups) : afterFirst(groups);
  };
  auto sizesLike = [&](Value of) {
    SmallVector<OpFoldResult> sizes =
        getAsIndexOpFoldResult(b.getContext(), type.getShape());
    sizes[0] = tensor::getMixedSize(b, b.getLoc(), of, 0);
    return sizes;
  };
  if (auto collapse = dyn_cast<tensor::CollapseShapeOp>(op)) {
    made = tensor::CollapseShapeOp::create(
        b, type, buildValue(b, collapse.getSrc()),
        groupsOf(collapse.getReassociationIndices()));
  } else if (auto expand = dyn_cast<tensor::ExpandShapeOp>(op)) {
    made = buildValue(b, expand.getSrc());
    if (hasExpertsOf.lookup(expand.getSrc()) == hasExperts)
      made = tensor::ExpandShapeOp::create(
          b, type, made, groupsOf(expand.getReassociationIndices()),
          sizesLike(made));
  } else if (auto slice = dyn_cast<tensor::ExtractSliceOp>(op)) {
    Value source = buildValue(b, slice.getSource());
    SmallVector<OpFoldResult> offsets = slice.getMixedOffsets(),
                              strides = slice.getMixedStrides();
    if (!hasExperts) {
      offsets.insert(offsets.begin(), b.getIndexAttr(0));
      strides.insert(strides.begin(), b.getIndexAttr(1));
    }
    made = tensor::ExtractSliceOp::create(b, type, source, offsets,
                                          sizesLike(source), strides);
  } else {
    auto generic = cast<linalg::GenericOp>(op);
    SmallVector<Value> inputs = llvm::map_to_vector(
        generic.getDpsInputs(), [&](Value of) { return buildValue(b, of); });
    SmallVector<AffineMap> maps = generic.getIndexingMapsArray();
    if (!hasExperts)
      for (AffineMap &map : maps) {
        SmallVector<AffineExpr> results{b.getAffineDimExpr(0)};
        for (AffineExpr result : map.shiftDims(1).getResults())
          results.push_back(result);
        map = AffineMap::get(map.getNumDims() + 1, 0, results, b.getContext());
      }
    Value init = tensor::EmptyOp::create(b, sizesLike(inputs.front()),
                                         type.getElementType());
    made = linalg::GenericOp::create(
               b, TypeRange{init.getType()}, inputs, ValueRange{init}, maps,
               SmallVector<utils::IteratorType>(maps.front().getNumDims(),
                                                utils::IteratorType::parallel),
               [&](OpBuilder &body, Location, ValueRange arguments) {
                 IRMapping mapping;
                 mapping.map(generic.getBody()->getArguments(), arguments);
                 for (Operation &each : *generic.getBody()) {
                   for (Value operand : each.getOperands())
                     if (Operation *of = operand.getDefiningOp();
                         of && operand.getParentBlock() != generic.getBody() &&
                         !mapping.contains(operand))
                       mapping.map(operand, body.clone(*of)->getResult(0));
                   body.clone(each, mapping);
                 }
               })
               .getResult(0);
  }
  return built[value] = made;
}

Value WeightExpression::build(ImplicitLocOpBuilder &b,
                              ValueRange values) const {
  built.clear();
  for (auto [source, value] : llvm::zip_equal(sources, values))
    built[source.weight] = value;
  return buildValue(b, root);
}
