//===- ExpertToGrouped.cpp - Experts to grouped matmuls -------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Dequantization.h"
#include "EpilogueFusion.h"
#include "PlainMatmul.h"
#include "moe/Dialect/MoE/Transforms/Fusion/FusionRemarks.h"
#include "moe/Dialect/MoE/Transforms/Fusion/Passes.h"

#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEEXPERTTOGROUPED
#include "moe/Dialect/MoE/Transforms/Fusion/Passes.h.inc"
} // namespace mlir::moe

namespace {
/// Builds the body of an expert, which computes the rows of one expert, for the
/// rows of all experts at once.
class Distribution {
public:
  Distribution(ExpertOp expert, OpBuilder &b) : expert(expert), b(b) {}

  /// Returns the result for all rows; null, with a `reason`, on failure.
  Value run();
  StringRef reason;

private:
  bool distribute(Operation &op);
  bool distributeMatmul(linalg::LinalgOp op);
  bool distributeElementwise(linalg::GenericOp op);
  bool distributeQuantize(QuantizeOp op);
  bool distributeDequantization(linalg::GenericOp op,
                                const Dequantization &dequantization);
  bool distributeColumns(tensor::ExtractSliceOp op);
  bool distributeInit(Operation &op);
  void cloneBody(linalg::GenericOp from, linalg::GenericOp to);
  Value uncoveredRows();
  Value keepUncovered(Value result, Value rows);

  bool fail(StringRef why) {
    reason = why;
    return false;
  }
  BlockArgument parameter(Value value);
  Value weightsOf(Value value);
  Value init(int64_t columns, Type element);

  ExpertOp expert;
  OpBuilder &b;
  /// From matrices of the body, with the rows of one expert, to those with the
  /// rows of all.
  DenseMap<Value, Value> matrices;
  /// From values that the body computes from parameters alone to those of all
  /// experts.
  DenseMap<Value, Value> weights;
};
} // namespace

/// Returns the argument of the body if `value` is the slice of a parameter,
/// else null.
BlockArgument Distribution::parameter(Value value) {
  auto argument = dyn_cast<BlockArgument>(value);
  bool isSlice = argument && argument.getOwner() == &expert.getBody().front() &&
                 argument.getArgNumber() > 0;
  return isSlice ? argument : BlockArgument();
}

/// Returns the weights of all experts for those of one expert in `value`; null
/// if it is computed from anything but parameters.
Value Distribution::weightsOf(Value value) {
  if (BlockArgument slice = parameter(value))
    return expert.getParams()[slice.getArgNumber() - 1];
  return weights.lookup(value);
}

Value Distribution::init(int64_t columns, Type element) {
  OpFoldResult rows =
      tensor::getMixedSize(b, expert.getLoc(), expert.getGrouped(), 0);
  return tensor::EmptyOp::create(
      b, expert.getLoc(), ArrayRef<OpFoldResult>{rows, b.getIndexAttr(columns)},
      element);
}

/// Clones the body of `from`, and the constants of the expert that it uses.
void Distribution::cloneBody(linalg::GenericOp from, linalg::GenericOp to) {
  IRMapping mapping;
  from.getRegion().cloneInto(&to.getRegion(), mapping);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(to.getBody());
  for (Operation &op : llvm::make_early_inc_range(*to.getBody()))
    for (OpOperand &operand : op.getOpOperands())
      if (expert.getBody().isAncestor(operand.get().getParentRegion()))
        operand.set(b.clone(*operand.get().getDefiningOp())->getResult(0));
}

bool Distribution::distributeMatmul(linalg::LinalgOp op) {
  std::optional<PlainMatmul> matmul = matchPlainMatmul(op);
  if (!matmul)
    return fail("a matmul does not accumulate into zeros of f32");
  Value lhs = matrices.lookup(matmul->lhs);
  Value weights = weightsOf(matmul->rhs);
  if (!lhs || !weights)
    return fail("a matmul does not multiply rows by a parameter");
  matrices[op->getResult(0)] =
      buildPlainMatmul(b, op.getLoc(), lhs, expert.getOffsets(), weights,
                       matmul->transposed, expert.getFirstAttr());
  return true;
}

bool Distribution::distributeQuantize(QuantizeOp op) {
  Value rows = matrices.lookup(op.getSource());
  if (!rows || !op.isRowwise())
    return fail("the quantized operand is not a matrix of rows");
  auto all = QuantizeOp::create(b, op.getLoc(), rows, /*transposed=*/false,
                                op.getFormat());
  matrices[op.getQuantized()] = all.getQuantized();
  matrices[op.getScales()] = all.getScales();
  return true;
}

/// Dequantizes rows, or a parameter for all experts.
bool Distribution::distributeDequantization(
    linalg::GenericOp op, const Dequantization &dequantization) {
  bool ofRows = matrices.contains(dequantization.quantized);
  SmallVector<Value> inputs;
  for (Value input : op.getDpsInputs())
    inputs.push_back(ofRows ? matrices.lookup(input) : weightsOf(input));
  auto type = cast<RankedTensorType>(op->getResult(0).getType());
  if (!llvm::all_of(inputs, [](Value input) { return bool(input); }))
    return fail("the dequantized value is neither rows nor a parameter");
  if (ShapedType::isDynamicShape(type.getShape().drop_front(ofRows)) ||
      (ofRows && type.getRank() != 2))
    return fail("the dequantized value has a dynamic shape");
  SmallVector<AffineMap> maps = op.getIndexingMapsArray();
  SmallVector<utils::IteratorType> iterators = op.getIteratorTypesArray();
  Value destination;
  if (ofRows) {
    destination = init(type.getDimSize(1), type.getElementType());
  } else {
    for (AffineMap &map : maps)
      map = map.shiftDims(1).insertResult(b.getAffineDimExpr(0), 0);
    iterators.insert(iterators.begin(), utils::IteratorType::parallel);
    SmallVector<OpFoldResult> shape{
        tensor::getMixedSize(b, op.getLoc(), inputs.front(), 0)};
    for (int64_t extent : type.getShape())
      shape.push_back(b.getIndexAttr(extent));
    destination =
        tensor::EmptyOp::create(b, op.getLoc(), shape, type.getElementType());
  }
  auto all = linalg::GenericOp::create(b, op.getLoc(),
                                       TypeRange(destination.getType()), inputs,
                                       destination, maps, iterators);
  cloneBody(op, all);
  (ofRows ? matrices : weights)[op->getResult(0)] = all.getResult(0);
  return true;
}

bool Distribution::distributeElementwise(linalg::GenericOp op) {
  if (!isElementwiseOnMatrix(op))
    return fail("the region does more than matmuls and elementwise operations");
  SmallVector<EpilogueInput> inputs;
  bool hasParameter = false;
  for (OpOperand *operand : op.getDpsInputOperands()) {
    AffineMap map = op.getMatchingIndexingMap(operand);
    // (i, j) becomes (e, r, n), and a parameter has the expert as its first
    // dimension.
    SmallVector<unsigned> dims;
    BlockArgument slice = parameter(operand->get());
    if (slice)
      dims.push_back(0);
    for (AffineExpr expr : map.getResults())
      dims.push_back(cast<AffineDimExpr>(expr).getPosition() + 1);
    Value value;
    if (slice)
      value = expert.getParams()[slice.getArgNumber() - 1];
    else if (map.isIdentity())
      value = matrices.lookup(operand->get());
    else if (expert.getBody().isAncestor(operand->get().getParentRegion()))
      return fail("an elementwise operation broadcasts a value computed in "
                  "the region");
    else
      value = operand->get();
    if (!value)
      return fail("an elementwise operation reads a value that is not a "
                  "matrix of rows");
    if (slice && llvm::is_contained(dims, 1))
      return fail("a parameter has one element for each row");
    if (!slice && !map.isIdentity() && llvm::is_contained(dims, 1))
      return fail("an elementwise operation indexes a value from outside by "
                  "the row within the expert");
    hasParameter |= bool(slice);
    inputs.push_back({value, AffineMap::getMultiDimMapWithTargets(
                                 3, dims, op.getContext())});
  }
  auto type = cast<RankedTensorType>(op->getResult(0).getType());
  if (type.isDynamicDim(1))
    return fail("a matrix has a dynamic number of columns");
  Value destination = init(type.getDimSize(1), type.getElementType());
  if (hasParameter) {
    // Only the epilogue of a matmul knows the expert of a row.
    SmallVector<GroupedMatmulOp> matmuls = fusibleMatmuls(op, inputs);
    bool sameGroups = llvm::all_of(matmuls, [&](GroupedMatmulOp matmul) {
      return matmul.getOffsets() == expert.getOffsets() &&
             matmul.getFirstAttr() == expert.getFirstAttr();
    });
    if (matmuls.empty() || !sameGroups)
      return fail("parameters are used elementwise, but not after a matmul");
    matrices[op->getResult(0)] =
        fuseIntoEpilogue(b, op, inputs, matmuls, destination).getResult();
    return true;
  }
  SmallVector<Value> values = llvm::map_to_vector(
      inputs, [](const EpilogueInput &input) { return input.value; });
  auto generic = linalg::GenericOp::create(
      b, op.getLoc(), TypeRange(destination.getType()), values, destination,
      op.getIndexingMapsArray(), op.getIteratorTypesArray());
  cloneBody(op, generic);
  matrices[op->getResult(0)] = generic.getResult(0);
  return true;
}

bool Distribution::distributeColumns(tensor::ExtractSliceOp op) {
  Value source = matrices.lookup(op.getSource());
  if (!source || op.getType().getRank() != 2 ||
      op.getMixedOffsets().size() != 2)
    return fail("a slice does not take columns of a matrix");
  if (!isConstantIntValue(op.getMixedOffsets()[0], 0) ||
      !isConstantIntValue(op.getMixedStrides()[0], 1) ||
      op.getType().isDynamicDim(1))
    return fail("a slice takes only some of the rows");
  SmallVector<OpFoldResult> offsets = op.getMixedOffsets();
  SmallVector<OpFoldResult> sizes = op.getMixedSizes();
  sizes[0] = tensor::getMixedSize(b, op.getLoc(), source, 0);
  matrices[op.getResult()] = tensor::ExtractSliceOp::create(
      b, op.getLoc(), source, offsets, sizes, op.getMixedStrides());
  return true;
}

/// Checks a destination or constant. None is rebuilt: users build their own.
bool Distribution::distributeInit(Operation &op) {
  for (Value result : op.getResults())
    if (auto type = dyn_cast<RankedTensorType>(result.getType()))
      if (type.getRank() != 2)
        return fail("a tensor of the region is not a matrix");
  return true;
}

bool Distribution::distribute(Operation &op) {
  if (isa<tensor::DimOp, tensor::EmptyOp, linalg::FillOp>(op) ||
      op.hasTrait<OpTrait::ConstantLike>())
    return distributeInit(op);
  if (auto slice = dyn_cast<tensor::ExtractSliceOp>(op))
    return distributeColumns(slice);
  if (auto quantize = dyn_cast<QuantizeOp>(op))
    return distributeQuantize(quantize);
  auto linalgOp = dyn_cast<linalg::LinalgOp>(op);
  if (!linalgOp || !linalgOp.hasPureTensorSemantics())
    return fail("the region does more than matmuls and elementwise operations");
  if (linalg::isaContractionOpInterface(linalgOp))
    return distributeMatmul(linalgOp);
  auto generic = dyn_cast<linalg::GenericOp>(op);
  if (!generic)
    return fail("the region does more than matmuls and elementwise operations");
  if (std::optional<Dequantization> found = matchDequantization(generic))
    return distributeDequantization(generic, *found);
  return distributeElementwise(generic);
}

/// Returns the values of rows that no expert covers; null if undefined.
Value Distribution::uncoveredRows() {
  if (expert.getInit() || expert.getUncovered() != Uncovered::Zero)
    return expert.getInit();
  RankedTensorType type = expert.getResult().getType();
  Value zero = arith::ConstantOp::create(
      b, expert.getLoc(), b.getFloatAttr(type.getElementType(), 0.0));
  return linalg::FillOp::create(b, expert.getLoc(), zero,
                                init(type.getDimSize(1), type.getElementType()))
      .getResult(0);
}

/// Returns `result` with `rows` in the rows that no expert covers. Only a
/// matmul leaves those as they are: null if none computes the result.
Value Distribution::keepUncovered(Value result, Value rows) {
  // An operation before the expert must not be changed.
  Operation *op = result.getDefiningOp();
  if (result == expert.getGrouped() ||
      !isa_and_nonnull<GroupedMatmulOp, linalg::GenericOp>(op))
    return {};
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPoint(op);
  if (rows.getType() != result.getType())
    rows = tensor::CastOp::create(b, expert.getLoc(), result.getType(), rows);
  if (auto matmul = dyn_cast<GroupedMatmulOp>(op)) {
    matmul.getInitMutable().assign(rows);
    return result;
  }
  auto last = cast<linalg::GenericOp>(op);
  SmallVector<EpilogueInput> inputs = epilogueInputs(last);
  SmallVector<GroupedMatmulOp> matmuls = fusibleMatmuls(last, inputs);
  return matmuls.empty()
             ? Value()
             : fuseIntoEpilogue(b, last, inputs, matmuls, rows).getResult();
}

Value Distribution::run() {
  Value uncovered = uncoveredRows();
  Block &body = expert.getBody().front();
  matrices[body.getArgument(0)] = expert.getGrouped();
  for (Operation &op : body.without_terminator())
    if (!distribute(op))
      return {};
  Value result = matrices.lookup(expert.getYield().getValue());
  if (!result)
    reason = "the region yields a value that is not a matrix of rows";
  if (!result || !uncovered)
    return result;
  result = keepUncovered(result, uncovered);
  if (!result)
    reason = "the region yields no result of a matmul, and only a matmul keeps "
             "the rows outside of the experts";
  return result;
}

namespace {
struct MoEExpertToGrouped
    : moe::impl::MoEExpertToGroupedBase<MoEExpertToGrouped> {
  using MoEExpertToGroupedBase::MoEExpertToGroupedBase;

  void runOnOperation() override {
    SmallVector<ExpertOp> experts;
    getOperation()->walk([&](ExpertOp expert) { experts.push_back(expert); });
    for (ExpertOp expert : experts)
      rewrite(expert);
  }

  void rewrite(ExpertOp expert) {
    IRRewriter rewriter(expert);
    generalizeElementwise(rewriter, expert.getBody());
    rewriter.setInsertionPoint(expert);
    // On failure, the operations built so far are erased again.
    Operation *before = expert->getPrevNode();
    Distribution distribution(expert, rewriter);
    Value result = distribution.run();
    if (!result) {
      remarkNotFused(expert, "ExpertNotGrouped", distribution.reason);
      ++numLeft;
      while (expert->getPrevNode() != before)
        rewriter.eraseOp(expert->getPrevNode());
      return;
    }
    remarkFused(expert, "ExpertGrouped", "experts turned into grouped matmuls");
    ++numGrouped;
    if (result.getType() != expert.getResult().getType())
      result = tensor::CastOp::create(rewriter, expert.getLoc(),
                                      expert.getResult().getType(), result);
    rewriter.replaceOp(expert, result);
  }
};
} // namespace
