//===- EpilogueFusion.cpp - Fuse operations into epilogues ----------------===//
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

/// True if `op` computes each element of its only result independently.
static bool isPointwise(linalg::GenericOp op) {
  return op.hasPureTensorSemantics() && op.getNumDpsInits() == 1 &&
         op.getNumParallelLoops() == op.getNumLoops() &&
         op.getMatchingIndexingMap(op.getDpsInitOperand(0)).isIdentity();
}

/// Returns the constant that `tensor` is filled with; null if there is none.
static TypedAttr getFillValue(Value tensor) {
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

/// Returns the operation that broadcasts or permutes its only input to
/// `tensor`; null if there is none.
static linalg::GenericOp getBroadcast(Value tensor) {
  auto op = tensor.getDefiningOp<linalg::GenericOp>();
  if (!op || !isPointwise(op) || op.getNumDpsInputs() != 1 ||
      op.getBody()->getTerminator()->getOperand(0) !=
          op.getBody()->getArgument(0) ||
      !op.getIndexingMapsArray().front().isProjectedPermutation() ||
      !isa<RankedTensorType>(op.getDpsInputs().front().getType()))
    return {};
  return op;
}

/// Folds fills and broadcasts into the operands of `op`. Adds the operations
/// that it no longer reads to `unread`.
static void foldOperands(RewriterBase &rewriter, linalg::GenericOp op,
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
    while (linalg::GenericOp broadcast = getBroadcast(value)) {
      unread.push_back(broadcast);
      value = broadcast.getDpsInputs().front();
      map = broadcast.getIndexingMapsArray().front().compose(map);
      changed = true;
    }
    if (TypedAttr constant = getFillValue(value)) {
      unread.push_back(value.getDefiningOp());
      unsigned index = operand->getOperandNumber();
      OpBuilder::InsertionGuard guard(rewriter);
      rewriter.setInsertionPointToStart(op.getBody());
      rewriter.replaceAllUsesWith(
          op.getBody()->getArgument(index),
          arith::ConstantOp::create(rewriter, op.getLoc(), constant));
      filled.set(index);
      changed = true;
      continue;
    }
    inputs.push_back(value);
    maps.push_back(map);
  }
  if (!changed)
    return;
  maps.push_back(op.getMatchingIndexingMap(op.getDpsInitOperand(0)));
  auto folded = linalg::GenericOp::create(
      rewriter, op.getLoc(), op->getResultTypes(), inputs, op.getDpsInits(),
      maps, op.getIteratorTypesArray());
  op.getBody()->eraseArguments(filled);
  rewriter.inlineRegionBefore(op.getRegion(), folded.getRegion(),
                              folded.getRegion().begin());
  rewriter.replaceOp(op, folded.getResults());
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
    SmallVector<Operation *> folded;
    foldOperands(rewriter, op, folded);
    unread.insert(folded.begin(), folded.end());
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

/// True if two matmuls differ only in their weights and their epilogues.
static bool haveSameRows(GroupedMatmulOp a, GroupedMatmulOp b) {
  return a.getLhs() == b.getLhs() && a.getGather() == b.getGather() &&
         a.getOffsets() == b.getOffsets() && a.getFirst() == b.getFirst() &&
         a.getTransposed() == b.getTransposed() &&
         a.getLhsScales() == b.getLhsScales() &&
         a.getWeightScales().empty() == b.getWeightScales().empty() &&
         a.getBlocks() == b.getBlocks() &&
         a.getWeights().front().getType() == b.getWeights().front().getType();
}

/// True if the rows that `matmul` does not write are undefined, so that an
/// epilogue need not compute them.
static bool leavesRestUndefined(GroupedMatmulOp matmul) {
  Value init = matmul.getInit();
  while (auto slice = init.getDefiningOp<tensor::ExtractSliceOp>())
    init = slice.getSource();
  return !matmul.getOffsets() || init.getDefiningOp<tensor::EmptyOp>();
}

SmallVector<GroupedMatmulOp>
mlir::moe::fusibleMatmuls(linalg::GenericOp consumer,
                          ArrayRef<EpilogueInput> inputs) {
  AffineMap element =
      AffineMap::getMultiDimMapWithTargets(3, {1, 2}, consumer.getContext());
  SmallVector<GroupedMatmulOp> matmuls;
  for (auto [input, operand] : llvm::zip(inputs, consumer.getDpsInputs())) {
    auto matmul = input.value.getDefiningOp<GroupedMatmulOp>();
    if (!matmul || matmul.getPanels() || !matmul.hasOneInit() ||
        !leavesRestUndefined(matmul) || llvm::is_contained(matmuls, matmul))
      continue;
    // The users of the operand count: in an expert it is still the value that
    // the matmul, which has no users yet, will replace.
    bool elementwise = llvm::all_of(inputs, [&](const EpilogueInput &other) {
      return other.value != input.value || other.map == element;
    });
    bool alone = llvm::all_of(operand.getUsers(), [&](Operation *user) {
      return user == consumer || isa<tensor::DimOp>(user);
    });
    if (elementwise && alone &&
        (matmuls.empty() || haveSameRows(matmuls.front(), matmul)))
      matmuls.push_back(matmul);
  }
  return matmuls;
}

/// Clones the operations of `block` with the operands that `mapping` gives.
static void cloneBody(OpBuilder &b, Block &block, IRMapping &mapping) {
  for (Operation &op : block.without_terminator())
    b.clone(op, mapping);
}

GroupedMatmulOp mlir::moe::fuseIntoEpilogue(OpBuilder &b,
                                            linalg::GenericOp consumer,
                                            ArrayRef<EpilogueInput> inputs,
                                            ArrayRef<GroupedMatmulOp> matmuls,
                                            Value init) {
  Location loc = b.getFusedLoc(llvm::map_to_vector(
      matmuls, [](GroupedMatmulOp matmul) { return matmul.getLoc(); }));
  GroupedMatmulOp first = matmuls.front();
  SmallVector<Value> weights, weightScales, extras;
  SmallVector<Attribute> maps;
  auto addExtra = [&](Value value, AffineMap map) {
    extras.push_back(value);
    maps.push_back(AffineMapAttr::get(map));
  };
  for (GroupedMatmulOp matmul : matmuls) {
    llvm::append_range(weights, matmul.getWeights());
    llvm::append_range(weightScales, matmul.getWeightScales());
    for (auto [index, extra] : llvm::enumerate(matmul.getExtras()))
      addExtra(extra, matmul.getOperandMap(index));
  }
  auto isMatmul = [&](const EpilogueInput &input) {
    return llvm::is_contained(matmuls,
                              input.value.getDefiningOp<GroupedMatmulOp>());
  };
  for (const EpilogueInput &input : inputs)
    if (!isMatmul(input))
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

  // First the epilogue of each matmul on its accumulators, then the consumer.
  DenseMap<Value, Value> elements;
  size_t accumulator = 0, extra = weights.size();
  for (GroupedMatmulOp matmul : matmuls) {
    IRMapping mapping;
    Block &epilogue = matmul.getEpilogue().front();
    size_t numAccumulators = matmul.getWeights().size();
    for (BlockArgument argument : epilogue.getArguments())
      mapping.map(argument,
                  body->getArgument(argument.getArgNumber() < numAccumulators
                                        ? accumulator++
                                        : extra++));
    cloneBody(b, epilogue, mapping);
    elements[matmul.getResult()] =
        mapping.lookupOrDefault(matmul.getYield().getValue());
  }
  IRMapping mapping;
  for (auto [input, argument] :
       llvm::zip(inputs, consumer.getBody()->getArguments()))
    mapping.map(argument, isMatmul(input) ? elements.lookup(input.value)
                                          : body->getArgument(extra++));
  // Constants from outside the body are cloned into the epilogue.
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
