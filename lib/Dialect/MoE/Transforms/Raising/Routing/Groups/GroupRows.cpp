//===- GroupRows.cpp - Rows of the choices, grouped by expert ------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Routing/Groups/GroupRows.h"
#include "Contraction.h"
#include "Extents.h"
#include "Grouped/GroupedProduct.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "llvm/Support/SaveAndRestore.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

using Dims = SmallVector<int64_t>;

/// The axes of dimensions that have one.
static std::string namesOf(const Axes &axes) {
  std::string names;
  for (const std::string &each : axes)
    names += each;
  return names;
}

RowGrouper::RowGrouper(Routing &routing, Operation *sink, RowLayout layout,
                       const Selector &selector)
    : routing(routing), rewriter(routing.rewriter), sink(sink), layout(layout),
      selector(selector), extents(Selectors::extentsOf(selector)) {}

namespace {
/// The operations that are created in a block.
struct Created : RewriterBase::Listener {
  explicit Created(Block *block) : block(block) {}
  void notifyOperationInserted(Operation *op, OpBuilder::InsertPoint) override {
    if (op->getBlock() == block)
      ops.push_back(op);
  }
  Block *block;
  SmallVector<Operation *> ops;
};
} // namespace

Value RowGrouper::group(Value value, const Axes &axes, Value weights,
                        bool transposed, Type element) {
  Created created(sink->getBlock());
  OpBuilder::Listener *before = rewriter.getListener();
  rewriter.setListener(&created);
  rewriter.setInsertionPoint(sink);
  Value rows = rowsOf(value, axes);
  if (rows && weights)
    rows = buildProduct(rows, weights, transposed, element);
  rewriter.setListener(before);
  // Without weights it is no layer of experts.
  if (!usesWeights)
    rows = {};
  Operation *last = rows ? rows.getDefiningOp() : nullptr;
  for (Operation *op : llvm::reverse(created.ops))
    if (op != last && op->use_empty())
      rewriter.eraseOp(op);
  return rows;
}

Value RowGrouper::rowsOf(Value value, const Axes &axes) {
  RankedTensorType type = tensorOf(value);
  if (!type || type.getRank() != int64_t(axes.size()) || depth > 200)
    return {};
  auto found = grouped.find(value);
  if (found != grouped.end()) {
    usesWeights |= weighted.contains(value);
    return found->second.first == axes ? found->second.second : Value();
  }
  // Repeated values have no rows before there are others.
  auto before = failed.find(value);
  if (before != failed.end() && before->second == dispatches.size())
    return {};
  ++depth;
  Value rows = build(value, axes);
  --depth;
  if (rows && usesWeights)
    weighted.insert(value);
  if (rows)
    grouped[value] = {axes, rows};
  else
    failed[value] = dispatches.size();
  return rows;
}

bool RowGrouper::isTokens(const Axes &axes) const {
  if (layout == RowLayout::Slots)
    return false;
  // Or of a batch, perhaps of one sequence.
  return axes == Axes{"t", "n"} || axes == Axes{"g", "s", "n"} ||
         axes == Axes{"", "t", "n"};
}

std::optional<Axes> RowGrouper::operandAxes(Operation *op, const Axes &axes) {
  if (isBroadcast(op))
    return sourceAxes(op, axes);
  RankedTensorType from = tensorOf(op->getOperand(0)),
                   to = tensorOf(op->getResult(0));
  if (!from || !to)
    return std::nullopt;
  if (isReshape(op))
    return reshapeAxes(axes, to.getShape(), from.getShape(), extents);
  if (!isNamed(op, "stablehlo.transpose"))
    return std::nullopt;
  auto permutation = integersOf(op, "permutation");
  if (!permutation || permutation->size() != axes.size())
    return std::nullopt;
  Axes of(axes.size());
  for (auto [index, dim] : llvm::enumerate(*permutation)) {
    if (dim < 0 || dim >= int64_t(axes.size()))
      return std::nullopt;
    of[dim] = axes[index];
  }
  return of;
}

Value RowGrouper::build(Value value, const Axes &axes) {
  if (splatOf(value))
    if (Value rows = buildRepeated(value, axes))
      return rows;
  // Rows of the tokens, whatever they are. With one choice a token, they may be
  // those of its expert.
  if (isTokens(axes)) {
    auto dispatchTokens = [&]() -> Value {
      // Not those of the first expert, which without groups are another value.
      return varying.contains(value) ? Value() : dispatch(withoutGroups(value));
    };
    bool mayBeExpert = layout == RowLayout::First ||
                       layout == RowLayout::Column ||
                       (layout == RowLayout::Choices && extents.choices == 1);
    if (!mayBeExpert)
      return dispatchTokens();
    bool before = std::exchange(usesWeights, false);
    Value rows = buildFromOperands(value, axes);
    if (rows && usesWeights)
      return rows;
    usesWeights = before;
    return dispatchTokens();
  }
  return buildFromOperands(value, axes);
}

Value RowGrouper::buildFromOperands(Value value, const Axes &axes) {
  Operation *op = value.getDefiningOp();
  // The same for all rows: a number, or columns.
  std::string names = namesOf(axes);
  if (names.empty() || names == "n")
    return buildRepeated(value, axes);
  if (!op || op->getBlock() != sink->getBlock())
    return {};
  if (auto of = routing.iterations.find(value); of != routing.iterations.end())
    return buildIteration(of->second, axes);
  if (isNamed(op, "stablehlo.dot_general"))
    return buildDot(op, axes);
  if (layout == RowLayout::Slots &&
      axes ==
          (selector.inGroups ? Axes{"g", "e", "c", "n"} : Axes{"e", "c", "n"}))
    if (Value rows = matchSlotScatter(op, selector, routing))
      return dispatch(withoutGroups(rows));
  if (isBroadcast(op) || isReshape(op) || isNamed(op, "stablehlo.transpose")) {
    std::optional<Axes> of = operandAxes(op, axes);
    return of ? rowsOf(op->getOperand(0), *of) : Value();
  }
  if (Value rows = buildColumns(op, axes))
    return rows;
  if (Value rows = buildChosen(op, axes))
    return rows;
  if (Value rows = buildConcatenated(op, axes))
    return rows;
  if (isElementwise(op))
    return buildElementwise(op, axes);
  return {};
}

Value RowGrouper::buildRepeated(Value value, const Axes &axes) {
  if (varying.contains(value))
    return {};
  Location loc = sink->getLoc();
  RankedTensorType type = tensorOf(value);
  // The columns are those of the dimension n.
  int64_t columns = -1;
  for (auto [names, extent] : llvm::zip_equal(axes, type.getShape()))
    if (names == "n")
      columns = extent;
  OpFoldResult count = rowCount();
  if (!count || ShapedType::isDynamic(columns) || columns < 0)
    return {};
  Value init = tensor::EmptyOp::create(
      rewriter, loc,
      ArrayRef<OpFoldResult>{count, rewriter.getIndexAttr(columns)},
      type.getElementType());
  while (
      splatOf(value) && value.getDefiningOp()->getNumOperands() == 1 &&
      (isBroadcast(value.getDefiningOp()) || isReshape(value.getDefiningOp())))
    value = value.getDefiningOp()->getOperand(0);
  type = tensorOf(value);
  if (std::optional<double> splat = splatOf(value)) {
    Type element = type.getElementType();
    TypedAttr attribute =
        isa<FloatType>(element)
            ? TypedAttr(rewriter.getFloatAttr(element, *splat))
            : TypedAttr(rewriter.getIntegerAttr(element, int64_t(*splat)));
    Value scalar = arith::ConstantOp::create(rewriter, loc, attribute);
    return linalg::FillOp::create(rewriter, loc, scalar, init).getResult(0);
  }
  // A vector [n], or [1, .., n].
  Axes of = axes;
  while (Operation *op = value.getDefiningOp()) {
    if (tensorOf(value).getRank() == 1 || (!isBroadcast(op) && !isReshape(op)))
      break;
    std::optional<Axes> source = operandAxes(op, of);
    if (!source)
      return {};
    of = *source;
    value = op->getOperand(0);
  }
  if (of != Axes{"n"})
    return {};
  return linalg::BroadcastOp::create(rewriter, loc, value, init, Dims{0})
      ->getResult(0);
}

Value RowGrouper::inLayout(RowLayout other, llvm::function_ref<Value()> build) {
  llvm::SaveAndRestore of(layout, other);
  llvm::SaveAndRestore<decltype(varying)> ofVarying(varying, {});
  llvm::SaveAndRestore<decltype(firsts)> ofFirsts(firsts, {});
  llvm::SaveAndRestore<decltype(parts)> ofParts(parts, {});
  llvm::SaveAndRestore ofStacks(stacks, decltype(stacks)());
  llvm::SaveAndRestore ofGrouped(grouped, decltype(grouped)());
  llvm::SaveAndRestore<decltype(weighted)> ofWeighted(weighted, {});
  llvm::SaveAndRestore ofFailed(failed, decltype(failed)());
  return build();
}

Value RowGrouper::buildIteration(const Iteration &iteration, const Axes &axes) {
  RankedTensorType type = tensorOf(iteration.value);
  if (layout != RowLayout::Dense || axes.empty() || axes.front() != "e" ||
      type.getRank() + 1 != int64_t(axes.size()))
    return {};
  return inLayout(RowLayout::First, [&] {
    varying = iteration.varying;
    firsts = iteration.slices;
    return rowsOf(iteration.value, Axes(llvm::drop_begin(axes)));
  });
}

//===----------------------------------------------------------------------===//
// Products
//===----------------------------------------------------------------------===//

bool RowGrouper::isFirstOfAll(Value value) const {
  if (auto of = parts.find(value); of != parts.end())
    return int64_t(of->second.size()) == extents.experts;
  Operation *slice = value.getDefiningOp();
  return firsts.contains(value) && slice && slice->getNumOperands() > 0 &&
         tensorOf(slice->getOperand(0)).getDimSize(0) == extents.experts;
}

/// True for tensors [..] of one expert, without a dimension of extent 1 before.
static bool hasNoUnit(Value value) {
  RankedTensorType type = tensorOf(value);
  return type.getRank() > 0 && type.getDimSize(0) != 1;
}

Value RowGrouper::allOf(Value first) {
  auto of = parts.find(first);
  if (of == parts.end())
    return first.getDefiningOp()->getOperand(0);
  Value &stack = stacks[first];
  if (stack)
    return stack;
  Location loc = sink->getLoc();
  RankedTensorType type = tensorOf(first);
  SmallVector<int64_t> shape(hasNoUnit(first) ? type.getShape()
                                              : type.getShape().drop_front());
  SmallVector<OpFoldResult> offsets(shape.size() + 1, rewriter.getIndexAttr(0)),
      sizes{rewriter.getIndexAttr(1)},
      strides(shape.size() + 1, rewriter.getIndexAttr(1));
  for (int64_t extent : shape)
    sizes.push_back(rewriter.getIndexAttr(extent));
  shape.insert(shape.begin(), extents.experts);
  stack = tensor::EmptyOp::create(rewriter, loc, shape, type.getElementType());
  for (auto [expert, part] : llvm::enumerate(of->second)) {
    offsets[0] = rewriter.getIndexAttr(expert);
    stack = tensor::InsertSliceOp::create(rewriter, loc, part, stack, offsets,
                                          sizes, strides);
  }
  return stack;
}

void RowGrouper::take(const Comparison &comparison) {
  varying.insert(comparison.varying.begin(), comparison.varying.end());
  firsts.insert(comparison.firsts.begin(), comparison.firsts.end());
  for (const auto &[first, all] : comparison.parts)
    parts[first] = all;
}

Value RowGrouper::buildConcatenated(Operation *op, const Axes &axes) {
  auto dims = isNamed(op, "stablehlo.concatenate") ? integersOf(op, "dimension")
                                                   : std::nullopt;
  // One for each expert, or choice.
  bool isDense = layout == RowLayout::Dense;
  int64_t count = isDense ? extents.experts : extents.choices;
  if (!dims || (!isDense && layout != RowLayout::Choices) ||
      dims->size() != 1 || dims->front() < 0 ||
      dims->front() >= int64_t(axes.size()) ||
      axes[dims->front()] != (isDense ? "e" : "k") || count < 2 ||
      int64_t(op->getNumOperands()) != count)
    return {};
  SmallVector<Value> values(op->getOperands());
  Comparison comparison(isDense ? Comparison::Experts : Comparison::Choices,
                        routing.selectors);
  for (Value value : values)
    if (tensorOf(value).getDimSize(dims->front()) != 1)
      return {};
  if (!comparison.compare(values))
    return {};
  Axes of = axes;
  of[dims->front()] = "";
  return inLayout(isDense ? RowLayout::First : RowLayout::Column, [&] {
    take(comparison);
    return rowsOf(values.front(), of);
  });
}

Value RowGrouper::perExpert(Value value, Axes axes) {
  while (Operation *op = value.getDefiningOp()) {
    if (namesOf(axes) == "en" && tensorOf(value).getRank() == 2)
      break;
    if (isNamed(op, "stablehlo.gather") &&
        (layout == RowLayout::Choices || layout == RowLayout::Column)) {
      std::optional<GatheredWeights> gathered = matchGatheredWeights(value);
      std::optional<Selector> of =
          gathered ? idsOf(gathered->ids) : std::nullopt;
      if (!of)
        return {};
      // The dimensions of the ids become that of the experts.
      Axes expected = of->axes;
      expected.pop_back();
      Axes rest(axes.begin() + gathered->idDims, axes.end());
      axes.truncate(gathered->idDims);
      if (axes != expected || tensorOf(gathered->weights).getDimSize(0) !=
                                  Choices::expertsOf(selector.ids))
        return {};
      axes = {"e"};
      axes.append(rest);
      value = gathered->weights;
      break;
    }
    if (isFirstOfAll(value))
      break;
    std::optional<Axes> of = op->getNumOperands() > 0 &&
                                     op->getNumResults() == 1 &&
                                     (isBroadcast(op) || isReshape(op) ||
                                      isNamed(op, "stablehlo.transpose"))
                                 ? operandAxes(op, axes)
                                 : std::nullopt;
    if (!of)
      break;
    axes = *of;
    value = op->getOperand(0);
  }
  if (isFirstOfAll(value) && !axes.empty()) {
    if (parts.contains(value) && hasNoUnit(value))
      axes.insert(axes.begin(), "e");
    else
      axes.front() = "e";
    value = allOf(value);
  }
  RankedTensorType type = tensorOf(value);
  return axes == Axes{"e", "n"} && type.hasStaticShape() ? value : Value();
}

std::optional<Selector> RowGrouper::idsOf(Value value) const {
  std::optional<Selector> ids =
      value ? routing.selectors.get(value) : std::nullopt;
  bool isWanted = ids && ids->ids == selector.ids &&
                  (layout == RowLayout::Column
                       ? ids->kind == Selector::Column && firsts.contains(value)
                       : ids->kind == Selector::Ids);
  return isWanted ? ids : std::nullopt;
}

std::optional<std::pair<Value, bool>>
RowGrouper::matchWeights(Value value, const Axes &axes) {
  Axes of = axes;
  auto skipTransposes = [&] {
    while (Operation *op = definedBy(value, "stablehlo.transpose")) {
      auto permutation = integersOf(op, "permutation");
      if (!permutation || permutation->size() != of.size())
        return;
      Axes before(of.size());
      for (auto [index, dim] : llvm::enumerate(*permutation)) {
        if (dim < 0 || dim >= int64_t(of.size()))
          return;
        before[dim] = of[index];
      }
      of = before;
      value = op->getOperand(0);
    }
  };
  skipTransposes();
  if (layout == RowLayout::Choices || layout == RowLayout::Column) {
    std::optional<GatheredWeights> gathered = matchGatheredWeights(value);
    if (!gathered)
      return std::nullopt;
    std::optional<Selector> ids = idsOf(gathered->ids);
    if (!ids)
      return std::nullopt;
    Axes expected = ids->axes;
    expected.pop_back();
    if (Axes(of.begin(), of.begin() + gathered->idDims) != expected)
      return std::nullopt;
    Axes rest(of.begin() + gathered->idDims, of.end());
    of = {"e"};
    of.append(rest);
    value = gathered->weights;
    skipTransposes();
  }
  if (layout == RowLayout::First) {
    // The first of the matrices.
    Operation *reshape = value.getDefiningOp();
    Value first = value;
    if (reshape && isReshape(reshape)) {
      first = reshape->getOperand(0);
      if (tensorOf(first).getShape().drop_front() != tensorOf(value).getShape())
        return std::nullopt;
    } else if (!parts.contains(value) || !hasNoUnit(value)) {
      return std::nullopt;
    }
    if (!isFirstOfAll(first))
      return std::nullopt;
    value = allOf(first);
    of.insert(of.begin(), "e");
  }
  RankedTensorType type = tensorOf(value);
  if (!type.hasStaticShape() || type.getRank() != 3 ||
      type.getDimSize(0) != Choices::expertsOf(selector.ids))
    return std::nullopt;
  if (of == Axes{"e", "x", "n"})
    return std::pair(value, false);
  if (of == Axes{"e", "n", "x"})
    return std::pair(value, true);
  return std::nullopt;
}

Value RowGrouper::buildDot(Operation *op, const Axes &axes) {
  std::optional<Contraction> dot = readContraction(op);
  if (!dot)
    return {};
  llvm::SmallDenseMap<unsigned, std::string> along;
  for (auto [loop, names] : llvm::zip_equal(dot->outLoops, axes))
    along[loop] = names;
  SmallVector<unsigned> contracted;
  for (unsigned i : {0u, 1u})
    for (unsigned loop : dot->loops(i))
      if (!along.contains(loop) && !llvm::is_contained(contracted, loop))
        contracted.push_back(loop);
  if (contracted.size() != 1)
    return {};
  auto axesOf = [&](unsigned i, StringRef name) {
    Axes of;
    for (unsigned loop : dot->loops(i))
      of.push_back(loop == contracted[0] ? name.str() : along[loop]);
    return of;
  };
  if (layout == RowLayout::Slots) {
    StringRef token = selector.inGroups ? "s" : "t";
    Axes tokens = selector.inGroups ? Axes{"g", "s", "n"} : Axes{"t", "n"};
    for (unsigned i : {0u, 1u}) {
      // The mask of the slots: the rows of the tokens in their slots.
      std::optional<Selector> mask = routing.selectors.get(dot->operand(i));
      if (!mask)
        continue;
      if (mask->kind != Selector::Product || !mask->hot || !mask->slot ||
          mask->weights || mask->ids != selector.ids ||
          mask->slots != selector.slots || mask->otherSlots ||
          !mask->countsAs(selector) || mask->groups != selector.groups ||
          (mask->kept && mask->kept < mask->slots) ||
          (mask->zeroFrom && mask->kept != mask->zeroFrom) ||
          (mask->unless && mask->unless != selector.weights) ||
          mask->axes != axesOf(i, token) || countAxis(mask->axes, 'k') > 0 ||
          axesOf(1 - i, token) != tokens)
        return {};
      Value rows = dot->operand(1 - i);
      return dispatch(selector.inGroups ? withoutGroups(rows) : rows);
    }
  }
  for (unsigned i : {0u, 1u}) {
    auto weights = matchWeights(dot->operand(i), axesOf(i, "x"));
    if (!weights)
      continue;
    Axes of = axesOf(1 - i, "n");
    // Rows have no axis of the weights' columns.
    Axes others = axesOf(1 - i, "x");
    if (countAxis(others, 'n') > 0)
      continue;
    Value rows = rowsOf(dot->operand(1 - i), of);
    if (!rows)
      return {};
    return buildProduct(rows, weights->first, weights->second,
                        tensorOf(op->getResult(0)).getElementType());
  }
  return {};
}

Value RowGrouper::buildProduct(Value rows, Value weights, bool transposed,
                               Type element) {
  RankedTensorType type = tensorOf(weights);
  int64_t k = type.getDimSize(transposed ? 2 : 1),
          n = type.getDimSize(transposed ? 1 : 2);
  if (!isRowFloat(element) || !isRowFloat(type.getElementType()) ||
      type.getElementType() != tensorOf(rows).getElementType() ||
      tensorOf(rows).getDimSize(1) != k)
    return {};
  Location loc = sink->getLoc();
  Value init = tensor::EmptyOp::create(
      rewriter, loc,
      ArrayRef<OpFoldResult>{rowCount(), rewriter.getIndexAttr(n)}, element);
  auto matmul = GroupedMatmulOp::create(
      rewriter, loc, init.getType(), rows, /*gather=*/nullptr, getOffsets(),
      weights,
      /*lhs_scales=*/nullptr, /*weight_scales=*/ValueRange(),
      /*extras=*/ValueRange(), init, transposed, /*panels=*/nullptr,
      /*maps=*/nullptr, /*first=*/nullptr, /*blocks=*/nullptr);
  buildEpilogue(rewriter, matmul, element);
  usesWeights = true;
  return matmul.getResult();
}

//===----------------------------------------------------------------------===//
// Elementwise operations
//===----------------------------------------------------------------------===//

Value RowGrouper::buildBias(Operation *op, const Axes &axes) {
  if (!isNamed(op, "stablehlo.add"))
    return {};
  for (unsigned i : {0u, 1u}) {
    Operation *dot = op->getOperand(i).getDefiningOp();
    // Transposes and reshapes of a product have its elements.
    Axes of = axes;
    while (dot && (isReshape(dot) || isNamed(dot, "stablehlo.transpose"))) {
      std::optional<Axes> source = operandAxes(dot, of);
      if (!source)
        break;
      of = *source;
      dot = dot->getOperand(0).getDefiningOp();
    }
    if (!isNamed(dot, "stablehlo.dot_general"))
      continue;
    Value bias = perExpert(op->getOperand(1 - i), axes);
    if (!bias)
      continue;
    Value product = buildDot(dot, of);
    auto matmul = product ? product.getDefiningOp<GroupedMatmulOp>() : nullptr;
    if (!matmul ||
        tensorOf(bias).getElementType() != tensorOf(product).getElementType())
      return {};
    auto map = AffineMap::getMultiDimMapWithTargets(3, ArrayRef<unsigned>{0, 2},
                                                    rewriter.getContext());
    auto biased = GroupedMatmulOp::create(
        rewriter, op->getLoc(), product.getType(), matmul.getLhs(),
        /*gather=*/nullptr, matmul.getOffsets(), matmul.getWeights(),
        /*lhs_scales=*/nullptr, /*weight_scales=*/ValueRange(),
        /*extras=*/bias, matmul.getInit(), matmul.getTransposed(),
        /*panels=*/nullptr, rewriter.getAffineMapArrayAttr({map}),
        /*first=*/nullptr, /*blocks=*/nullptr);
    OpBuilder::InsertionGuard guard(rewriter);
    Location loc = op->getLoc();
    Block *body = rewriter.createBlock(&biased.getEpilogue());
    Type element = tensorOf(product).getElementType(),
         f32 = rewriter.getF32Type();
    Value sum = body->addArgument(f32, loc),
          added = body->addArgument(element, loc);
    // The product is rounded as it was.
    if (!element.isF32()) {
      sum = arith::TruncFOp::create(rewriter, loc, element, sum);
      sum = arith::ExtFOp::create(rewriter, loc, f32, sum);
      added = arith::ExtFOp::create(rewriter, loc, f32, added);
    }
    sum = arith::AddFOp::create(rewriter, loc, sum, added);
    if (!element.isF32())
      sum = arith::TruncFOp::create(rewriter, loc, element, sum);
    YieldOp::create(rewriter, loc, sum);
    return biased.getResult();
  }
  return {};
}

Value RowGrouper::buildElementwise(Operation *op, const Axes &axes) {
  if (Value biased = buildBias(op, axes))
    return biased;
  if (isScaled)
    if (Value scaled = buildScaled(op, axes))
      return scaled;
  RankedTensorType type = tensorOf(op->getResult(0));
  IRMapping mapping;
  // Repeated values have as many rows as the others: these come first.
  SmallVector<Value> postponed;
  for (Value operand : op->getOperands()) {
    RankedTensorType of = tensorOf(operand);
    if (!of || mapping.contains(operand) || of.getRank() == 0)
      continue;
    if (of.getShape() != type.getShape())
      return {};
    if (Value rows = rowsOf(operand, axes))
      mapping.map(operand, rows);
    else
      postponed.push_back(operand);
  }
  for (Value operand : postponed) {
    Value rows = rowsOf(operand, axes);
    if (!rows)
      return {};
    mapping.map(operand, rows);
  }
  int64_t columns = ShapedType::kDynamic, count = ShapedType::kDynamic;
  for (Value operand : op->getOperands())
    if (Value rows = mapping.lookupOrNull(operand)) {
      columns = tensorOf(rows).getDimSize(1);
      count = tensorOf(rows).getDimSize(0);
    }
  if (ShapedType::isDynamic(columns))
    return {};
  Operation *clone = rewriter.clone(*op, mapping);
  clone->removeDiscardableAttr("id"); // no value of a program that is read
  clone->getResult(0).setType(
      RankedTensorType::get({count, columns}, type.getElementType()));
  return clone->getResult(0);
}
