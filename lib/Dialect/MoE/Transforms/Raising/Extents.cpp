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
  static const llvm::StringSet<> names{"abs",
                                       "add",
                                       "and",
                                       "ceil",
                                       "clamp",
                                       "compare",
                                       "convert",
                                       "cosine",
                                       "divide",
                                       "exponential",
                                       "floor",
                                       "log",
                                       "logistic",
                                       "maximum",
                                       "minimum",
                                       "multiply",
                                       "negate",
                                       "not",
                                       "or",
                                       "power",
                                       "remainder",
                                       "rsqrt",
                                       "select",
                                       "sign",
                                       "sine",
                                       "sqrt",
                                       "subtract",
                                       "tanh",
                                       "xor",
                                       "log_plus_one",
                                       "exponential_minus_one"};
  StringRef name = op->getName().getStringRef();
  return name.consume_front("stablehlo.") && names.contains(name);
}

static std::optional<Extent> scaled(std::optional<Extent> extent,
                                    int64_t factor) {
  if (extent)
    extent = Extent{extent->root, extent->factor * factor,
                    extent->constant * factor};
  return extent;
}

static std::optional<Extent> rowsOfReshape(Operation *op) {
  if (op->getNumOperands() == 2)
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
  if (after == 0 || before % after != 0)
    return std::nullopt;
  return scaled(rowsOf(op->getOperand(0)), before / after);
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
  if (isElementwise(op)) {
    for (Value operand : op->getOperands())
      if (auto other = dyn_cast<RankedTensorType>(operand.getType());
          other && other.getRank() == type.getRank())
        return rowsOf(operand);
    return std::nullopt;
  }
  StringRef name = op->getName().getStringRef();
  if (name == "stablehlo.reshape" || name == "stablehlo.dynamic_reshape")
    return rowsOfReshape(op);
  if (name == "stablehlo.dynamic_broadcast_in_dim")
    return elementOf(op->getOperand(1), 0);
  if (name == "stablehlo.dynamic_iota")
    return elementOf(op->getOperand(0), 0);
  if (name == "stablehlo.gather" || name == "chlo.top_k" ||
      name == "chlo.ragged_dot" || name == "stablehlo.sort")
    return rowsOf(op->getOperand(name == "stablehlo.gather" ? 1 : 0));
  if (name == "stablehlo.real_dynamic_slice" && op->getNumOperands() == 4) {
    // From the first row, each row.
    std::optional<Extent> start = elementOf(op->getOperand(1), 0),
                          step = elementOf(op->getOperand(3), 0);
    return start == Extent{} && step == Extent{{}, 0, 1}
               ? elementOf(op->getOperand(2), 0)
               : std::nullopt;
  }
  if (name == "stablehlo.composite" && op->getNumOperands() > 0) {
    auto of = op->getAttrOfType<StringAttr>("name");
    bool keepsRows = of && (of.getValue() == "chlo.top_k" ||
                            of.getValue() == "chlo.ragged_dot");
    return keepsRows ? rowsOf(op->getOperand(0)) : std::nullopt;
  }
  if (name == "stablehlo.dot_general") {
    std::string dims = textOf(op, "dot_dimension_numbers");
    auto contracting = integersIn(dims, "lhs_contracting_dimensions");
    return contracting && !llvm::is_contained(*contracting, 0)
               ? rowsOf(op->getOperand(0))
               : std::nullopt;
  }
  if (name == "stablehlo.reduce" && op->getNumResults() == 1) {
    auto dims = integersOf(op, "dimensions");
    return dims && !llvm::is_contained(*dims, 0) ? rowsOf(op->getOperand(0))
                                                 : std::nullopt;
  }
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
    return Extent{
        {}, 0, (*(elements.value_begin<APInt>() + index)).getSExtValue()};
  }
  StringRef name = op->getName().getStringRef();
  if (name == "stablehlo.get_dimension_size") {
    auto dim = integersOf(op, "dimension");
    return dim && dim->front() == 0 ? rowsOf(op->getOperand(0)) : std::nullopt;
  }
  if (name == "stablehlo.convert" || name == "stablehlo.reshape" ||
      name == "stablehlo.broadcast_in_dim") {
    auto from = dyn_cast<RankedTensorType>(op->getOperand(0).getType());
    if (!from || from.getRank() > 1)
      return std::nullopt;
    bool isOne = from.getRank() == 0 || from.getDimSize(0) == 1;
    return elementOf(op->getOperand(0), isOne ? 0 : index);
  }
  if (name == "stablehlo.concatenate") {
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
  if (name == "stablehlo.multiply" || name == "stablehlo.add" ||
      name == "stablehlo.subtract")
    return combine(op, elementOf(op->getOperand(0), index),
                   elementOf(op->getOperand(1), index));
  if (name == "stablehlo.select") {
    // A predicate that is constant: the wrapping of constant indices.
    std::optional<double> which = splatOf(op->getOperand(0));
    return which ? elementOf(op->getOperand(*which != 0 ? 1 : 2), index)
                 : std::nullopt;
  }
  if (name == "stablehlo.gather" && type.getNumElements() == 1 &&
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
      isa<IntegerType>(getElementTypeOrSelf(tensor)) &&
      isa<IntegerType>(getElementTypeOrSelf(op->getOperand(0))))
    return splatOf(op->getOperand(0));
  return std::nullopt;
}
