//===- TokenIndependence.cpp - Check that tokens are independent ----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Analysis/TokenIndependence.h"

#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/Dialect/Bufferization/IR/Bufferization.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Transforms/RegionUtils.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::moe;

namespace {
enum class Kind {
  /// The same for every call.
  Invariant,
  /// The number of tokens, or of rows of an expert.
  Extent,
  /// Row t comes from token t alone; in an expert, from row t alone.
  PerToken,
  /// Each row comes from the token that was dispatched to it.
  Grouped,
  /// Offsets and positions, which depend on other tokens.
  Routing,
};

class Classifier {
public:
  explicit Classifier(const llvm::DenseSet<Operation *> &ignored)
      : ignored(ignored) {}

  bool classifyFunction(func::FuncOp function);
  std::optional<TokenDependence> takeDependence() {
    return std::move(dependence);
  }

private:
  bool classifyBlock(Block &block);
  bool classify(Operation *op);
  bool classify(GateOp op);
  bool classify(GateGradientOp op);
  bool classify(DispatchOp op);
  bool classify(ExpertOp op);
  bool classify(CombineOp op);
  bool classify(linalg::LinalgOp op);
  bool classifyTensorOp(Operation *op);
  /// True if a slice keeps all rows.
  bool keepsRows(ArrayRef<OpFoldResult> offsets, ArrayRef<OpFoldResult> sizes,
                 ArrayRef<OpFoldResult> strides);

  Kind kindOf(Value value) const {
    auto it = kinds.find(value);
    return it == kinds.end() ? Kind::Invariant : it->second;
  }
  bool is(Value value, Kind kind) const { return kindOf(value) == kind; }
  bool setAll(Operation *op, Kind kind) {
    for (Value result : op->getResults())
      kinds[result] = kind;
    return true;
  }
  bool refuse(Operation *op, const Twine &reason) {
    if (!dependence)
      dependence = TokenDependence{op, reason.str()};
    return false;
  }
  bool refuse(Operation *op) {
    return refuse(op, "'" + op->getName().getStringRef() +
                          "' is not known to treat every token alone");
  }

  const llvm::DenseSet<Operation *> &ignored;
  llvm::DenseMap<Value, Kind> kinds;
  std::optional<TokenDependence> dependence;
};
} // namespace

bool Classifier::classify(GateOp op) {
  if (StringRef why = op.getTokenDependence(); !why.empty())
    return refuse(op, why);
  for (Value perToken : {op.getLogits(), op.getNoise(), op.getGivenIds()})
    if (perToken && !is(perToken, Kind::PerToken))
      return refuse(op);
  if (op.getBias() && !is(op.getBias(), Kind::Invariant))
    return refuse(op);
  return setAll(op, Kind::PerToken);
}

bool Classifier::classify(GateGradientOp op) {
  if (StringRef why = op.getTokenDependence(); !why.empty())
    return refuse(op, why);
  for (Value operand : op->getOperands())
    if (!is(operand, Kind::PerToken))
      return refuse(op);
  return setAll(op, Kind::PerToken);
}

bool Classifier::classify(DispatchOp op) {
  if (StringRef why = op.getTokenDependence(); !why.empty())
    return refuse(op, why);
  for (Value perToken : {op.getRows(), op.getIds(), op.getWeights()})
    if (perToken && !is(perToken, Kind::PerToken))
      return refuse(op);
  kinds[op.getGrouped()] = Kind::Grouped;
  kinds[op.getOffsets()] = kinds[op.getPositions()] = Kind::Routing;
  return true;
}

bool Classifier::classify(ExpertOp op) {
  if (!is(op.getGrouped(), Kind::Grouped) ||
      !is(op.getOffsets(), Kind::Routing) ||
      (op.getInit() && !is(op.getInit(), Kind::Grouped)))
    return refuse(op);
  for (Value parameter : op.getParams())
    if (!is(parameter, Kind::Invariant))
      return refuse(op, "the parameters of an expert depend on the tokens");
  bool captures = false;
  visitUsedValuesDefinedAbove(op.getBody(), [&](OpOperand *operand) {
    captures |= !is(operand->get(), Kind::Invariant);
  });
  if (captures)
    return refuse(op, "an expert uses values of all tokens from outside of it");
  kinds[op.getBody().getArgument(0)] = Kind::PerToken;
  if (!classifyBlock(op.getBody().front()))
    return false;
  if (!is(op.getYield().getValue(), Kind::PerToken))
    return refuse(op.getYield());
  return setAll(op, Kind::Grouped);
}

bool Classifier::classify(CombineOp op) {
  if (!is(op.getGrouped(), Kind::Grouped) ||
      !is(op.getPositions(), Kind::Routing))
    return refuse(op);
  for (Value perToken : {op.getWeights(), op.getDropped()})
    if (perToken && !is(perToken, Kind::PerToken))
      return refuse(op);
  return setAll(op, Kind::PerToken);
}

/// True if all operands with a row for each token are read at the row that is
/// written.
bool Classifier::classify(linalg::LinalgOp op) {
  std::optional<Kind> kind;
  std::optional<unsigned> rowLoop;
  for (OpOperand &operand : op->getOpOperands()) {
    Kind its = kindOf(operand.get());
    if (its == Kind::Invariant)
      continue;
    AffineMap map = op.getMatchingIndexingMap(&operand);
    if ((its != Kind::PerToken && its != Kind::Grouped) ||
        its != kind.value_or(its) || map.getNumResults() == 0)
      return refuse(op);
    auto row = dyn_cast<AffineDimExpr>(map.getResult(0));
    if (!row || row.getPosition() != rowLoop.value_or(row.getPosition()))
      return refuse(op, "rows of several tokens are computed with one another");
    kind = its;
    rowLoop = row.getPosition();
  }
  if (op.getIteratorTypesArray()[*rowLoop] != utils::IteratorType::parallel)
    return refuse(op, "a reduction over the tokens");
  for (OpOperand &operand : op->getOpOperands()) {
    AffineMap map = op.getMatchingIndexingMap(&operand);
    bool perToken = !is(operand.get(), Kind::Invariant);
    for (auto [position, result] : llvm::enumerate(map.getResults()))
      if (result.isFunctionOfDim(*rowLoop) && !(perToken && position == 0))
        return refuse(op, "the index of a token is used");
    if (op.isDpsInit(&operand) && !perToken)
      return refuse(op, "a reduction over the tokens");
  }
  WalkResult usesNumber = op->walk([&](linalg::IndexOp index) {
    return index.getDim() == *rowLoop ? WalkResult::interrupt()
                                      : WalkResult::advance();
  });
  if (usesNumber.wasInterrupted())
    return refuse(op, "the index of a token is used");
  return setAll(op, *kind);
}

bool Classifier::keepsRows(ArrayRef<OpFoldResult> offsets,
                           ArrayRef<OpFoldResult> sizes,
                           ArrayRef<OpFoldResult> strides) {
  auto size = dyn_cast<Value>(sizes.front());
  for (auto list : {offsets, sizes.drop_front(), strides})
    for (OpFoldResult each : list)
      if (auto value = dyn_cast<Value>(each);
          value && !is(value, Kind::Invariant))
        return false;
  return isZeroInteger(offsets.front()) && isOneInteger(strides.front()) &&
         size && is(size, Kind::Extent);
}

bool Classifier::classifyTensorOp(Operation *op) {
  // Reshapes keep the rows if they leave the first dimension alone.
  auto keepsFirst = [](auto reshape) {
    auto groups = reshape.getReassociationIndices();
    return !groups.empty() && groups.front().size() == 1;
  };
  return llvm::TypeSwitch<Operation *, bool>(op)
      .Case([&](tensor::DimOp dim) {
        std::optional<int64_t> index = dim.getConstantIndex();
        Kind source = kindOf(dim.getSource());
        if (!index || (source != Kind::PerToken && source != Kind::Grouped))
          return refuse(op);
        return setAll(op, *index == 0 ? Kind::Extent : Kind::Invariant);
      })
      .Case([&](tensor::EmptyOp empty) {
        if (!empty.getType().isDynamicDim(0) ||
            empty.getDynamicSizes().size() != 1)
          return refuse(op);
        return setAll(op, Kind::PerToken);
      })
      .Case([&](tensor::ExtractSliceOp slice) {
        if (!is(slice.getSource(), Kind::PerToken) ||
            slice.getType().getRank() != slice.getSourceType().getRank() ||
            !keepsRows(slice.getMixedOffsets(), slice.getMixedSizes(),
                       slice.getMixedStrides()))
          return refuse(op);
        return setAll(op, Kind::PerToken);
      })
      .Case([&](tensor::InsertSliceOp slice) {
        if (!is(slice.getSource(), Kind::PerToken) ||
            !is(slice.getDest(), Kind::PerToken) ||
            slice.getSourceType().getRank() != slice.getType().getRank() ||
            !keepsRows(slice.getMixedOffsets(), slice.getMixedSizes(),
                       slice.getMixedStrides()))
          return refuse(op);
        return setAll(op, Kind::PerToken);
      })
      .Case([&](tensor::CollapseShapeOp shape) {
        if (!is(shape.getSrc(), Kind::PerToken) || !keepsFirst(shape))
          return refuse(op);
        return setAll(op, Kind::PerToken);
      })
      .Case([&](tensor::ExpandShapeOp shape) {
        if (!is(shape.getSrc(), Kind::PerToken) || !keepsFirst(shape))
          return refuse(op);
        return setAll(op, Kind::PerToken);
      })
      .Case([&](tensor::CastOp cast) {
        Kind kind = kindOf(cast.getSource());
        return setAll(op, kind);
      })
      .Default([&](Operation *) { return refuse(op); });
}

bool Classifier::classify(Operation *op) {
  bool depends = llvm::any_of(op->getOperands(), [&](Value operand) {
    return !is(operand, Kind::Invariant);
  });
  visitUsedValuesDefinedAbove(op->getRegions(), [&](OpOperand *operand) {
    depends |= !is(operand->get(), Kind::Invariant);
  });
  if (!depends)
    return true;
  if (auto gate = dyn_cast<GateOp>(op))
    return classify(gate);
  if (auto gradient = dyn_cast<GateGradientOp>(op))
    return classify(gradient);
  if (auto dispatch = dyn_cast<DispatchOp>(op))
    return classify(dispatch);
  if (auto expert = dyn_cast<ExpertOp>(op))
    return classify(expert);
  if (auto combine = dyn_cast<CombineOp>(op))
    return classify(combine);
  if (auto quantize = dyn_cast<QuantizeOp>(op);
      quantize && quantize.isRowwise())
    return setAll(op, kindOf(quantize.getSource()));
  if (auto structured = dyn_cast<linalg::LinalgOp>(op)) {
    bool captures = false;
    visitUsedValuesDefinedAbove(op->getRegions(), [&](OpOperand *operand) {
      captures |= !is(operand->get(), Kind::Invariant);
    });
    return captures ? refuse(op, "it uses the number of tokens")
                    : classify(structured);
  }
  if (op->hasTrait<OpTrait::Elementwise>() && op->getNumRegions() == 0 &&
      llvm::all_of(op->getOperands(), [&](Value operand) {
        return is(operand, Kind::PerToken) ||
               (is(operand, Kind::Invariant) &&
                !isa<ShapedType>(operand.getType()));
      }))
    return setAll(op, Kind::PerToken);
  return classifyTensorOp(op);
}

bool Classifier::classifyBlock(Block &block) {
  for (Operation &op : block.without_terminator()) {
    if (ignored.contains(&op))
      continue;
    if (auto write = dyn_cast<bufferization::MaterializeInDestinationOp>(op)) {
      if (!is(write.getSource(), Kind::PerToken))
        return refuse(&op, "a result is not one row for each token");
      continue;
    }
    if (!classify(&op))
      return false;
  }
  return true;
}

bool Classifier::classifyFunction(func::FuncOp function) {
  for (BlockArgument argument : function.getArguments()) {
    auto type = dyn_cast<RankedTensorType>(argument.getType());
    if (!type || type.hasStaticShape())
      continue;
    if (type.getNumDynamicDims() != 1 || !type.isDynamicDim(0))
      return refuse(function, "T is not the first dimension of argument " +
                                  Twine(argument.getArgNumber()));
    kinds[argument] = Kind::PerToken;
  }
  if (!classifyBlock(function.getBody().front()))
    return false;
  Operation *terminator = function.getBody().front().getTerminator();
  for (Value result : terminator->getOperands())
    if (!is(result, Kind::PerToken))
      return refuse(terminator, "a result is not one row for each token");
  return true;
}

std::optional<TokenDependence>
mlir::moe::findTokenDependence(func::FuncOp function,
                               const llvm::DenseSet<Operation *> &ignored) {
  if (!function.getBody().hasOneBlock())
    return TokenDependence{function, "the function has several blocks"};
  Classifier classifier(ignored);
  classifier.classifyFunction(function);
  return classifier.takeDependence();
}
