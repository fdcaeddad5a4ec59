//===- EpilogueFusion.cpp - Elementwise operations after products ---------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "EpilogueFusion.h"

#include "mlir/Dialect/Linalg/Transforms/Transforms.h"
#include "mlir/Dialect/Linalg/Utils/Utils.h"
#include "mlir/IR/IRMapping.h"
#include "mlir/IR/Matchers.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"
#include "llvm/ADT/SetVector.h"

using namespace mlir;
using namespace mlir::moe;

/// True if `op` computes every element of one tensor by itself.
static bool isPointwise(linalg::GenericOp op) {
  return op.hasPureTensorSemantics() && op.getNumDpsInits() == 1 &&
         op.getNumParallelLoops() == op.getNumLoops() &&
         op.getMatchingIndexingMap(op.getDpsInitOperand(0)).isIdentity();
}

/// The constant that all elements of `tensor` are; null if they are not.
static TypedAttr filledWith(Value tensor) {
  Attribute value;
  DenseElementsAttr elements;
  if (auto fill = tensor.getDefiningOp<linalg::FillOp>())
    matchPattern(fill.value(), m_Constant(&value));
  else if (auto splat = tensor.getDefiningOp<tensor::SplatOp>())
    matchPattern(splat.getInput(), m_Constant(&value));
  else if (matchPattern(tensor, m_Constant(&elements)) && elements.isSplat())
    value = elements.getSplatValue<Attribute>();
  auto typed = dyn_cast_or_null<TypedAttr>(value);
  bool isSame =
      typed && typed.getType() ==
                   cast<RankedTensorType>(tensor.getType()).getElementType();
  return isSame ? typed : TypedAttr();
}

/// The operation that repeats or permutes the elements of its one input, and no
/// more, to make `tensor`; null if there is none.
static linalg::GenericOp broadcastOf(Value tensor) {
  auto op = tensor.getDefiningOp<linalg::GenericOp>();
  if (!op || !isPointwise(op) || op.getNumDpsInputs() != 1 ||
      op.getBody()->getTerminator()->getOperand(0) !=
          op.getBody()->getArgument(0) ||
      !op.getIndexingMapsArray().front().isProjectedPermutation() ||
      !isa<RankedTensorType>(op.getDpsInputs().front().getType()))
    return {};
  return op;
}

/// Let `op` read constants that tensors are filled with, and what tensors
/// repeat, themselves. What it read before is added to `unread`.
static void readDirectly(RewriterBase &rewriter, linalg::GenericOp op,
                         SmallVectorImpl<Operation *> &unread) {
  if (!isPointwise(op))
    return;
  SmallVector<Value> inputs;
  SmallVector<AffineMap> maps;
  llvm::BitVector filled(op.getBody()->getNumArguments());
  bool changed = false;
  rewriter.setInsertionPoint(op);
  for (OpOperand *operand : op.getDpsInputOperands()) {
    Value value = operand->get();
    AffineMap map = op.getMatchingIndexingMap(operand);
    if (!isa<RankedTensorType>(value.getType())) {
      inputs.push_back(value);
      maps.push_back(map);
      continue;
    }
    while (linalg::GenericOp broadcast = broadcastOf(value)) {
      unread.push_back(broadcast);
      value = broadcast.getDpsInputs().front();
      map = broadcast.getIndexingMapsArray().front().compose(map);
      changed = true;
    }
    if (TypedAttr constant = filledWith(value)) {
      unread.push_back(value.getDefiningOp());
      unsigned number = operand->getOperandNumber();
      OpBuilder::InsertionGuard guard(rewriter);
      rewriter.setInsertionPointToStart(op.getBody());
      rewriter.replaceAllUsesWith(
          op.getBody()->getArgument(number),
          arith::ConstantOp::create(rewriter, op.getLoc(), constant));
      filled.set(number);
      changed = true;
      continue;
    }
    inputs.push_back(value);
    maps.push_back(map);
  }
  if (!changed)
    return;
  maps.push_back(op.getMatchingIndexingMap(op.getDpsInitOperand(0)));
  auto direct = linalg::GenericOp::create(
      rewriter, op.getLoc(), op->getResultTypes(), inputs, op.getDpsInits(),
      maps, op.getIteratorTypesArray());
  op.getBody()->eraseArguments(filled);
  rewriter.inlineRegionBefore(op.getRegion(), direct.getRegion(),
                              direct.getRegion().begin());
  rewriter.replaceOp(op, direct.getResults());
}

void mlir::moe::generalizeElementwise(RewriterBase &rewriter, Region &region) {
  SmallVector<linalg::LinalgOp> named;
  region.walk([&](linalg::LinalgOp op) {
    if (!isa<linalg::GenericOp, linalg::FillOp>(op) &&
        linalg::isElementwise(op) && op.hasPureTensorSemantics())
      named.push_back(op);
  });
  for (linalg::LinalgOp op : named) {
    rewriter.setInsertionPoint(op);
    (void)linalg::generalizeNamedOp(rewriter, op);
  }
  SmallVector<linalg::GenericOp> generics;
  region.walk([&](linalg::GenericOp op) { generics.push_back(op); });
  llvm::SmallSetVector<Operation *, 8> unread;
  for (linalg::GenericOp op : generics) {
    SmallVector<Operation *> its;
    readDirectly(rewriter, op, its);
    unread.insert(its.begin(), its.end());
  }
  for (Operation *op : unread)
    if (isOpTriviallyDead(op))
      rewriter.eraseOp(op);
}

bool mlir::moe::isElementwiseOnMatrix(linalg::GenericOp op) {
  if (op.getNumDpsInits() != 1 || op->getNumResults() != 1 ||
      op.getNumLoops() != 2 || op.getNumParallelLoops() != 2 ||
      !op.getMatchingIndexingMap(op.getDpsInitOperand(0)).isIdentity())
    return false;
  Block *body = op.getBody();
  if (!body->getArguments().back().use_empty() ||
      !isa<FloatType>(body->getArguments().back().getType()))
    return false;
  for (AffineMap map : op.getIndexingMapsArray())
    if (!map.isProjectedPermutation())
      return false;
  return llvm::all_of(body->without_terminator(), [&](Operation &nested) {
    bool local = llvm::all_of(nested.getOperands(), [&](Value operand) {
      return operand.getParentBlock() == body ||
             matchPattern(operand, m_Constant());
    });
    return local && isPure(&nested) &&
           (OpTrait::hasElementwiseMappableTraits(&nested) ||
            nested.hasTrait<OpTrait::ConstantLike>());
  });
}

SmallVector<EpilogueInput> mlir::moe::epilogueInputs(linalg::GenericOp op) {
  SmallVector<EpilogueInput> inputs;
  for (OpOperand *operand : op.getDpsInputOperands()) {
    SmallVector<unsigned> dims;
    for (AffineExpr expr : op.getMatchingIndexingMap(operand).getResults())
      dims.push_back(cast<AffineDimExpr>(expr).getPosition() + 1);
    inputs.push_back({operand->get(), AffineMap::getMultiDimMapWithTargets(
                                          3, dims, op.getContext())});
  }
  return inputs;
}

/// True if two products read the same rows by the same numbers.
static bool readAlike(GroupedMatmulOp a, GroupedMatmulOp b) {
  return a.getLhs() == b.getLhs() && a.getGather() == b.getGather() &&
         a.getOffsets() == b.getOffsets() && a.getFirst() == b.getFirst() &&
         a.getTransposed() == b.getTransposed() &&
         a.getLhsScales() == b.getLhsScales() &&
         a.getWeightScales().empty() == b.getWeightScales().empty() &&
         a.getBlocks() == b.getBlocks() &&
         a.getWeights().front().getType() == b.getWeights().front().getType();
}

/// True if what `product` does not write is undefined, so that an epilogue need
/// not compute it.
static bool leavesNothing(GroupedMatmulOp product) {
  Value init = product.getInit();
  while (auto slice = init.getDefiningOp<tensor::ExtractSliceOp>())
    init = slice.getSource();
  return !product.getOffsets() || init.getDefiningOp<tensor::EmptyOp>();
}

SmallVector<GroupedMatmulOp>
mlir::moe::fusibleProducts(linalg::GenericOp consumer,
                           ArrayRef<EpilogueInput> inputs) {
  AffineMap element =
      AffineMap::getMultiDimMapWithTargets(3, {1, 2}, consumer.getContext());
  SmallVector<GroupedMatmulOp> products;
  for (auto [input, operand] : llvm::zip(inputs, consumer.getDpsInputs())) {
    auto product = input.value.getDefiningOp<GroupedMatmulOp>();
    if (!product || product.getPanels() || !leavesNothing(product) ||
        llvm::is_contained(products, product))
      continue;
    // The operand is what the consumer reads now; its users are those of the
    // product, whether it stands in for the operand already or will.
    bool elementwise = llvm::all_of(inputs, [&](const EpilogueInput &other) {
      return other.value != input.value || other.map == element;
    });
    bool alone = llvm::all_of(operand.getUsers(), [&](Operation *user) {
      return user == consumer || isa<tensor::DimOp>(user);
    });
    if (elementwise && alone &&
        (products.empty() || readAlike(products.front(), product)))
      products.push_back(product);
  }
  return products;
}

/// Clone what `block` computes of `mapping`'s values.
static void cloneBody(OpBuilder &b, Block &block, IRMapping &mapping) {
  for (Operation &op : block.without_terminator())
    b.clone(op, mapping);
}

GroupedMatmulOp mlir::moe::fuseIntoEpilogue(OpBuilder &b,
                                            linalg::GenericOp consumer,
                                            ArrayRef<EpilogueInput> inputs,
                                            ArrayRef<GroupedMatmulOp> products,
                                            Value init) {
  Location loc = b.getFusedLoc(llvm::map_to_vector(
      products, [](GroupedMatmulOp product) { return product.getLoc(); }));
  GroupedMatmulOp first = products.front();
  SmallVector<Value> weights, weightScales, extras;
  SmallVector<Attribute> maps;
  auto addExtra = [&](Value value, AffineMap map) {
    extras.push_back(value);
    maps.push_back(AffineMapAttr::get(map));
  };
  for (GroupedMatmulOp product : products) {
    llvm::append_range(weights, product.getWeights());
    llvm::append_range(weightScales, product.getWeightScales());
    for (auto [index, extra] : llvm::enumerate(product.getExtras()))
      addExtra(extra, product.getOperandMap(index));
  }
  auto isProduct = [&](const EpilogueInput &input) {
    return llvm::is_contained(products,
                              input.value.getDefiningOp<GroupedMatmulOp>());
  };
  for (const EpilogueInput &input : inputs)
    if (!isProduct(input))
      addExtra(input.value, input.map);

  auto fused = GroupedMatmulOp::create(
      b, loc, init.getType(), first.getLhs(), first.getGather(),
      first.getOffsets(), weights, first.getLhsScales(), weightScales, extras,
      init, first.getTransposed(), /*panels=*/nullptr,
      maps.empty() ? nullptr : b.getArrayAttr(maps), first.getFirstAttr(),
      first.getBlocksAttr());
  OpBuilder::InsertionGuard guard(b);
  Block *body = b.createBlock(&fused.getEpilogue());
  for (size_t i = 0; i < weights.size(); ++i)
    body->addArgument(b.getF32Type(), loc);
  for (Value extra : extras)
    body->addArgument(cast<ShapedType>(extra.getType()).getElementType(), loc);

  // First what each product did with its sums, then the consumer.
  DenseMap<Value, Value> elements;
  size_t sum = 0, extra = weights.size();
  for (GroupedMatmulOp product : products) {
    IRMapping mapping;
    Block &epilogue = product.getEpilogue().front();
    size_t sums = product.getWeights().size();
    for (BlockArgument argument : epilogue.getArguments())
      mapping.map(
          argument,
          body->getArgument(argument.getArgNumber() < sums ? sum++ : extra++));
    cloneBody(b, epilogue, mapping);
    elements[product.getResult()] =
        mapping.lookupOrDefault(product.getYield().getValue());
  }
  IRMapping mapping;
  for (auto [input, argument] :
       llvm::zip(inputs, consumer.getBody()->getArguments()))
    mapping.map(argument, isProduct(input) ? elements.lookup(input.value)
                                           : body->getArgument(extra++));
  // Constants from above come along.
  for (Operation &op : consumer.getBody()->without_terminator())
    for (Value operand : op.getOperands())
      if (operand.getParentBlock() != consumer.getBody() &&
          !mapping.contains(operand))
        mapping.map(operand, b.clone(*operand.getDefiningOp())->getResult(0));
  cloneBody(b, *consumer.getBody(), mapping);
  auto yield = cast<linalg::YieldOp>(consumer.getBody()->getTerminator());
  Value value = yield.getOperand(0);
  if (value.getParentBlock() != consumer.getBody() && !mapping.contains(value))
    mapping.map(value, b.clone(*value.getDefiningOp())->getResult(0));
  YieldOp::create(b, loc, mapping.lookupOrDefault(value));
  return fused;
}
