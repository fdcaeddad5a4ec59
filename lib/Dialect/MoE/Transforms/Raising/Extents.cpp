//===- Extents.cpp - Extents of tensors of StableHLO ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Extents.h"
#include "Foreign.h"

#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/Matchers.h"
#include "llvm/ADT/StringSet.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

bool mlir::moe::raising::isElementwise(Operation *op) {
  static const llvm::StringSet<> names{
      "abs",       "add",         "and",          "ceil",
      "clamp",     "compare",     "convert",      "cosine",
      "divide",    "exponential", "floor",        "log",
      "logistic",  "maximum",     "minimum",      "multiply",
      "negate",    "not",         "or",           "power",
      "remainder", "rsqrt",       "select",       "sign",
      "sine",      "sqrt",        "subtract",     "tanh",
      "erf",       "xor",         "log_plus_one", "exponential_minus_one"};
  return names.contains(stablehloName(op));
}

static std::optional<Extent> scaled(std::optional<Extent> extent,
                                    int64_t factor) {
  if (extent)
    extent = Extent{extent->root, extent->factor * factor,
                    extent->constant * factor};
  return extent;
}

static std::optional<Extent> rowsOfReshape(Operation *op) {
  if (op->getNumOperands() == 2 &&
      isa<RankedTensorType>(op->getOperand(1).getType()))
    if (auto found = elementOf(op->getOperand(1), 0))
      return found;
  auto from = dyn_cast<RankedTensorType>(op->getOperand(0).getType());
  auto to = dyn_cast<RankedTensorType>(op->getResult(0).getType());
  if (!from || !to || from.getRank() == 0 ||
      ShapedType::isDynamicShape(from.getShape().drop_front()) ||
      ShapedType::isDynamicShape(to.getShape().drop_front()))
    return std::nullopt;
  int64_t before = ShapedType::getNumElements(from.getShape().drop_front()),
          after = ShapedType::getNumElements(to.getShape().drop_front());
  if (after == 0 || before == 0)
    return std::nullopt;
  std::optional<Extent> rows = scaled(rowsOf(op->getOperand(0)), before);
  if (!rows || rows->factor % after != 0 || rows->constant % after != 0)
    return std::nullopt;
  return Extent{rows->root, rows->factor / after, rows->constant / after};
}

/// The first extent of a structured operation: that of an operand along the
/// same loop.
static std::optional<Extent> rowsOfStructured(linalg::LinalgOp op) {
  if (op->getNumResults() != 1)
    return std::nullopt;
  AffineMap out = op.getMatchingIndexingMap(op.getDpsInitOperand(0));
  for (OpOperand *input : op.getDpsInputOperands()) {
    AffineMap map = op.getMatchingIndexingMap(input);
    if (map.getNumResults() > 0 && map.getResult(0) == out.getResult(0) &&
        isa<AffineDimExpr>(map.getResult(0)))
      return rowsOf(input->get());
  }
  return std::nullopt;
}

/// The first extent of a broadcast or iota that a program is read as.
static std::optional<Extent> rowsOfReading(Operation *op) {
  if (isNamed(op, "stablehlo.broadcast_in_dim") && op->getNumOperands() == 1) {
    auto dims = integersOf(op, "broadcast_dimensions");
    auto from = dyn_cast<RankedTensorType>(op->getOperand(0).getType());
    return dims && !dims->empty() && dims->front() == 0 && from &&
                   from.getRank() > 0 && from.isDynamicDim(0)
               ? rowsOf(op->getOperand(0))
               : std::nullopt;
  }
  // As many as another tensor has.
  auto factor = integersOf(op, "factor");
  return op->getNumOperands() > 0 && factor && factor->size() == 1
             ? scaled(rowsOf(op->getOperands().back()), factor->front())
             : std::nullopt;
}

std::optional<Extent> mlir::moe::raising::rowsOf(Value tensor) {
  auto type = dyn_cast<RankedTensorType>(tensor.getType());
  if (!type || type.getRank() == 0)
    return std::nullopt;
  if (!type.isDynamicDim(0))
    return Extent{{}, 0, type.getDimSize(0)};
  Operation *op = tensor.getDefiningOp();
  if (!op)
    return Extent{tensor, 1, 0};
  if (auto gate = dyn_cast<GateOp>(op))
    return rowsOf(gate.getLogits());
  if (auto dispatch = dyn_cast<DispatchOp>(op)) {
    if (tensor == dispatch.getGrouped())
      return dispatch.getCapacity()
                 ? std::nullopt
                 : scaled(rowsOf(dispatch.getIds()), dispatch.getTopK());
    return rowsOf(dispatch.getIds());
  }
  if (auto combine = dyn_cast<CombineOp>(op))
    return rowsOf(combine.getPositions());
  if (auto matmul = dyn_cast<GroupedMatmulOp>(op))
    return rowsOf(matmul.getGather() ? matmul.getGather() : matmul.getLhs());
  if (auto softmax = dyn_cast<linalg::SoftmaxOp>(op))
    return rowsOf(softmax.getInput());
  if (auto slice = dyn_cast<tensor::ExtractSliceOp>(op)) {
    auto size = dyn_cast<Value>(slice.getMixedSizes()[0]);
    auto dim = size ? size.getDefiningOp<tensor::DimOp>() : nullptr;
    return dim && dim.getConstantIndex() == 0 ? rowsOf(dim.getSource())
                                              : std::nullopt;
  }
  if (auto cast = dyn_cast<tensor::CastOp>(op))
    return rowsOf(cast.getSource());
  if (auto structured = dyn_cast<linalg::LinalgOp>(op))
    return rowsOfStructured(structured);
  if (isa<tensor::ExpandShapeOp, tensor::CollapseShapeOp>(op))
    return rowsOfReshape(op);
  if (isElementwise(op) || OpTrait::hasElementwiseMappableTraits(op)) {
    // Of one operand, the last one of a select: a mask may come from elsewhere.
    SmallVector<Value> operands(op->getOperands());
    if (isNamed(op, "stablehlo.select"))
      std::reverse(operands.begin(), operands.end());
    for (Value operand : operands)
      if (auto other = dyn_cast<RankedTensorType>(operand.getType());
          other && other.getRank() == type.getRank() && !splatOf(operand))
        return rowsOf(operand);
    return std::nullopt;
  }
  if (isNamed(op, "chlo.top_k") || isNamed(op, "chlo.ragged_dot"))
    return rowsOf(op->getOperand(0));
  if (isNamed(op, "stablehlo.composite") && op->getNumOperands() > 0) {
    auto of = op->getAttrOfType<StringAttr>("name");
    bool keepsRows = of && (of.getValue() == "chlo.top_k" ||
                            of.getValue() == "chlo.ragged_dot");
    return keepsRows ? rowsOf(op->getOperand(0)) : std::nullopt;
  }
  StringRef name = stablehloName(op);
  if (name == "reshape" || name == "dynamic_reshape") {
    std::optional<Extent> found = rowsOfReshape(op);
    // Of several dynamic extents, an extent of its own.
    return found || op->getNumOperands() > 1 ? found : Extent{tensor, 1, 0};
  }
  if (name == "dynamic_broadcast_in_dim")
    return elementOf(op->getOperand(1), 0);
  if (name == "dynamic_iota")
    return elementOf(op->getOperand(0), 0);
  if (name == "broadcast_in_dim" || name == "iota")
    return rowsOfReading(op);
  if (name == "gather" || name == "take_along_axis")
    return rowsOf(op->getOperand(1));
  if (name == "sort" || name == "softmax" || name == "cumulative_sum" ||
      name == "floor_divide")
    return rowsOf(op->getOperand(0));
  if (name == "concatenate")
    return integersOf(op, "dimension") == SmallVector<int64_t>{0}
               ? std::nullopt
               : rowsOf(op->getOperand(0));
  if (name == "transpose" || name == "scatter") {
    auto permutation = integersOf(op, "permutation");
    return name == "scatter" || (permutation && !permutation->empty() &&
                                 permutation->front() == 0)
               ? rowsOf(op->getOperand(0))
               : std::nullopt;
  }
  if (name == "slice") {
    // The limit of all rows is dynamic in what a program is read as.
    auto starts = integersOf(op, "start_indices"),
         limits = integersOf(op, "limit_indices"),
         strides = integersOf(op, "strides");
    return starts && limits && strides && !starts->empty() &&
                   starts->front() == 0 && strides->front() == 1 &&
                   ShapedType::isDynamic(limits->front())
               ? rowsOf(op->getOperand(0))
               : std::nullopt;
  }
  if (name == "real_dynamic_slice" && op->getNumOperands() == 4) {
    // From the first row, each row.
    std::optional<Extent> start = elementOf(op->getOperand(1), 0),
                          step = elementOf(op->getOperand(3), 0);
    return start == Extent{} && step == Extent{{}, 0, 1}
               ? elementOf(op->getOperand(2), 0)
               : std::nullopt;
  }
  if (name == "dot_general") {
    std::string dims = textOf(op, "dot_dimension_numbers");
    auto contracting = integersIn(dims, "lhs_contracting_dimensions");
    return contracting && !llvm::is_contained(*contracting, 0)
               ? rowsOf(op->getOperand(0))
               : std::nullopt;
  }
  if (name == "reduce" && op->getNumResults() == 1) {
    auto dims = integersOf(op, "dimensions");
    return dims && !llvm::is_contained(*dims, 0) ? rowsOf(op->getOperand(0))
                                                 : std::nullopt;
  }
  // An operand of the program that is read.
  if (isNamed(op, "torch_c.to_builtin_tensor"))
    return Extent{tensor, 1, 0};
  return std::nullopt;
}

/// Returns a · b or a + sign · b.
static std::optional<Extent> combine(Operation *op, std::optional<Extent> a,
                                     std::optional<Extent> b) {
  if (!a || !b)
    return std::nullopt;
  if (isNamed(op, "stablehlo.multiply")) {
    if (a->root && b->root)
      return std::nullopt;
    return a->root ? scaled(a, b->constant) : scaled(b, a->constant);
  }
  int64_t sign = isNamed(op, "stablehlo.subtract") ? -1 : 1;
  if (a->root && b->root && a->root != b->root)
    return std::nullopt;
  Extent sum{a->root ? a->root : b->root, a->factor + sign * b->factor,
             a->constant + sign * b->constant};
  if (sum.factor == 0)
    sum.root = {};
  return sum;
}

std::optional<Extent> mlir::moe::raising::elementOf(Value tensor,
                                                    int64_t index) {
  auto type = dyn_cast<RankedTensorType>(tensor.getType());
  Operation *op = tensor.getDefiningOp();
  if (!type || type.getRank() > 1 || !op ||
      !type.getElementType().isSignlessInteger())
    return std::nullopt;
  if (Attribute value = op->getAttr("value")) {
    auto elements = dyn_cast<DenseIntElementsAttr>(value);
    if (!elements || index >= elements.getNumElements())
      return std::nullopt;
    APInt number = *(elements.value_begin<APInt>() + index);
    return Extent{{},
                  0,
                  number.getBitWidth() == 1 ? int64_t(number.getZExtValue())
                                            : number.getSExtValue()};
  }
  StringRef name = stablehloName(op);
  if (name == "get_dimension_size") {
    auto dim = integersOf(op, "dimension");
    return dim && dim->front() == 0 ? rowsOf(op->getOperand(0)) : std::nullopt;
  }
  if (name == "convert" || name == "reshape" || name == "broadcast_in_dim") {
    auto from = dyn_cast<RankedTensorType>(op->getOperand(0).getType());
    if (!from || from.getRank() > 1)
      return std::nullopt;
    bool isOne = from.getRank() == 0 || from.getDimSize(0) == 1;
    return elementOf(op->getOperand(0), isOne ? 0 : index);
  }
  if (name == "concatenate") {
    for (Value part : op->getOperands()) {
      auto from = dyn_cast<RankedTensorType>(part.getType());
      if (!from || from.getRank() != 1 || from.isDynamicDim(0))
        return std::nullopt;
      if (index < from.getDimSize(0))
        return elementOf(part, index);
      index -= from.getDimSize(0);
    }
    return std::nullopt;
  }
  if (name == "multiply" || name == "add" || name == "subtract")
    return combine(op, elementOf(op->getOperand(0), index),
                   elementOf(op->getOperand(1), index));
  if (name == "select") {
    // A predicate that is constant: the wrapping of constant indices.
    std::optional<double> which = splatOf(op->getOperand(0));
    return which ? elementOf(op->getOperand(*which != 0 ? 1 : 2), index)
                 : std::nullopt;
  }
  if (name == "gather" && type.getNumElements() == 1 &&
      op->getNumOperands() == 2) {
    // One element of a vector.
    Value at = op->getOperand(1);
    while (Operation *view = at.getDefiningOp()) {
      if (!isNamed(view, "stablehlo.broadcast_in_dim") &&
          !isNamed(view, "stablehlo.reshape"))
        break;
      at = view->getOperand(0);
    }
    std::optional<Extent> which = elementOf(at, 0);
    if (!which || which->root || which->constant < 0)
      return std::nullopt;
    return elementOf(op->getOperand(0), which->constant);
  }
  return std::nullopt;
}

bool mlir::moe::raising::haveSameRows(Value a, Value b) {
  std::optional<Extent> first = rowsOf(a), second = rowsOf(b);
  return first && second && *first == *second;
}

std::optional<double> mlir::moe::raising::splatOf(Value tensor) {
  Operation *op = tensor.getDefiningOp();
  if (!op)
    return std::nullopt;
  if (auto elements = dyn_cast_if_present<DenseElementsAttr>(
          op->getNumOperands() == 0 ? op->getAttr("value") : Attribute())) {
    if (!elements.isSplat())
      return std::nullopt;
    if (isa<FloatType>(elements.getElementType()))
      return elements.getSplatValue<APFloat>().convertToDouble();
    APInt value = elements.getSplatValue<APInt>();
    return value.getBitWidth() == 1 ? double(value.getZExtValue())
                                    : double(value.getSExtValue());
  }
  if (isNamed(op, "stablehlo.broadcast_in_dim") ||
      isNamed(op, "stablehlo.dynamic_broadcast_in_dim") ||
      isNamed(op, "stablehlo.reshape"))
    return splatOf(op->getOperand(0));
  if (isNamed(op, "stablehlo.sign"))
    if (std::optional<double> of = splatOf(op->getOperand(0)))
      return *of > 0 ? 1.0 : *of < 0 ? -1.0 : *of;
  if (isNamed(op, "stablehlo.convert") &&
      getElementTypeOrSelf(op->getOperand(0)) == getElementTypeOrSelf(tensor))
    return splatOf(op->getOperand(0));
  if (isNamed(op, "stablehlo.convert") &&
      isa<IntegerType>(getElementTypeOrSelf(op->getOperand(0)))) {
    std::optional<double> of = splatOf(op->getOperand(0));
    // Floats have small integers exactly.
    if (isa<IntegerType>(getElementTypeOrSelf(tensor)) ||
        (of && *of >= -256 && *of <= 256))
      return of;
  }
  // An integer that is computed, such as the last index of a dimension.
  auto type = dyn_cast<RankedTensorType>(tensor.getType());
  if (type && type.getRank() <= 1 && type.hasStaticShape() &&
      type.getNumElements() == 1 && isa<IntegerType>(type.getElementType()))
    if (std::optional<Extent> number = elementOf(tensor, 0);
        number && !number->root)
      return double(number->constant);
  return std::nullopt;
}
