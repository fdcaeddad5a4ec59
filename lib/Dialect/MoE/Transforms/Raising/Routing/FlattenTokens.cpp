//===- FlattenTokens.cpp - Routers of tokens in a batch ------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A gate chooses for rows of tokens. Where a program chooses for a batch of
// sequences, [B, S, E], what the scores are computed from is repeated for rows,
// as far back as each token is treated alike.
//
//===----------------------------------------------------------------------===//

#include "Extents.h"
#include "Routing/Routing.h"
#include "Routing/Values/Axes.h"

#include "mlir/AsmParser/AsmParser.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/TypeUtilities.h"
#include "llvm/Support/SaveAndRestore.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

using Dims = SmallVector<int64_t>;

Value mlir::moe::raising::buildReshape(RewriterBase &rewriter, Value value,
                                       RankedTensorType type) {
  if (value.getType() == type)
    return value;
  OperationState state(value.getLoc(), "stablehlo.reshape");
  state.addOperands(value);
  state.addTypes(type);
  return rewriter.create(state)->getResult(0);
}

namespace {
/// Repeats operations on values [B, S, ...] for [B · S, ...].
class Flattener {
public:
  Flattener(RewriterBase &rewriter, ArrayRef<int64_t> tokens)
      : rewriter(rewriter), tokens(tokens) {}

  /// Returns the rows of a value whose first dimensions are those of the
  /// tokens.
  Value rowsOf(Value value) {
    Value &rows = known[value];
    if (!rows) {
      Value made = build(value);
      known[value] = made;
      return made;
    }
    return rows;
  }

private:
  int64_t count() const { return tokens.size(); }

  bool hasTokens(Value value) const {
    RankedTensorType type = tensorOf(value);
    return type && type.getRank() >= count() &&
           type.getShape().take_front(count()) == tokens;
  }

  RankedTensorType flat(Value value) const {
    RankedTensorType type = tensorOf(value);
    Dims shape{ShapedType::getNumElements(tokens)};
    llvm::append_range(shape, type.getShape().drop_front(count()));
    return type.clone(shape);
  }

  Value build(Value value) {
    Operation *op = value.getDefiningOp();
    Value made = op && op->getNumResults() == 1 && depth < 100
                     ? repeat(op, flat(value))
                     : Value();
    return made ? made : buildReshape(rewriter, value, flat(value));
  }

  /// Returns the rows of the result of an operation; null if it does not treat
  /// all tokens alike.
  Value repeat(Operation *op, RankedTensorType type) {
    llvm::SaveAndRestore<unsigned> nested(depth, depth + 1);
    if (isReshape(op) && op->getNumOperands() == 1)
      return op->getOperand(0).getType() == type ? op->getOperand(0) : Value();
    if (isElementwise(op))
      return clone(op, type, [&](Value operand) {
        return hasTokens(operand) ? rowsOf(operand) : operand;
      });
    if (isNamed(op, "stablehlo.broadcast_in_dim"))
      return repeatBroadcast(op, type);
    if (isNamed(op, "stablehlo.dot_general"))
      return repeatDot(op, type);
    if (!isNamed(op, "stablehlo.reduce") || op->getNumOperands() != 2)
      return {};
    auto dims = integersOf(op, "dimensions");
    if (!dims || !hasTokens(op->getOperand(0)) ||
        llvm::any_of(*dims, [&](int64_t dim) { return dim < count(); }))
      return {};
    Value made = clone(op, type, [&](Value operand) {
      return operand == op->getOperand(0) ? rowsOf(operand) : operand;
    });
    setDims(made.getDefiningOp(), "dimensions", without(*dims));
    return made;
  }

  Value repeatBroadcast(Operation *op, RankedTensorType type) {
    auto dims = integersOf(op, "broadcast_dimensions");
    if (!dims)
      return {};
    Value from = op->getOperand(0);
    auto first = llvm::to_vector(llvm::seq<int64_t>(0, count()));
    Dims places;
    if (hasTokens(from) && int64_t(dims->size()) >= count() &&
        ArrayRef(*dims).take_front(count()) == ArrayRef(first)) {
      from = rowsOf(from);
      places = {0};
      llvm::append_range(places, without(ArrayRef(*dims).drop_front(count())));
    } else if (llvm::all_of(*dims,
                            [&](int64_t dim) { return dim >= count(); })) {
      // The same for all tokens.
      places = without(*dims);
    } else {
      return {};
    }
    Value made = clone(op, type, [&](Value) { return from; });
    setDims(made.getDefiningOp(), "broadcast_dimensions", places);
    return made;
  }

  /// Rows times a matrix.
  Value repeatDot(Operation *op, RankedTensorType type) {
    std::string text = textOf(op, "dot_dimension_numbers");
    auto batching = integersIn(text, "lhs_batching_dimensions"),
         contracted = integersIn(text, "lhs_contracting_dimensions"),
         other = integersIn(text, "rhs_contracting_dimensions");
    RankedTensorType right = tensorOf(op->getOperand(1));
    if (batching != Dims{} || contracted != Dims{count()} || !other ||
        other->size() != 1 || !right || right.getRank() != 2 ||
        !hasTokens(op->getOperand(0)) ||
        tensorOf(op->getOperand(0)).getRank() != count() + 1)
      return {};
    // Whether the dialect is registered or not, its attribute has this text.
    StringRef field = "lhs_contracting_dimensions = [";
    size_t at = text.find(field.str());
    if (at == std::string::npos)
      return {};
    at += field.size();
    text.replace(at, text.find(']', at) - at, "1");
    Attribute dims = parseAttribute(text, op->getContext());
    if (!dims)
      return {};
    Value made = clone(op, type, [&](Value operand) {
      return operand == op->getOperand(0) ? rowsOf(operand) : operand;
    });
    made.getDefiningOp()->setAttr("dot_dimension_numbers", dims);
    return made;
  }

  Value clone(Operation *op, RankedTensorType type,
              llvm::function_ref<Value(Value)> rowsOf) {
    SmallVector<Value> operands =
        llvm::map_to_vector(op->getOperands(), rowsOf);
    IRMapping mapping;
    for (auto [from, to] : llvm::zip_equal(op->getOperands(), operands))
      mapping.map(from, to);
    Operation *made = rewriter.clone(*op, mapping);
    made->getResult(0).setType(
        type.clone(getElementTypeOrSelf(op->getResult(0))));
    return made->getResult(0);
  }

  void setDims(Operation *op, StringRef name, ArrayRef<int64_t> dims) {
    op->setAttr(name, rewriter.getDenseI64ArrayAttr(dims));
  }

  Dims without(ArrayRef<int64_t> dims) const {
    return llvm::map_to_vector(dims,
                               [&](int64_t dim) { return dim - count() + 1; });
  }

  RewriterBase &rewriter;
  ArrayRef<int64_t> tokens;
  llvm::DenseMap<Value, Value> known;
  unsigned depth = 0;
};
} // namespace

/// Groups of dimensions: the first ones together, and each of the others.
static SmallVector<ReassociationIndices> groupsOf(int64_t first,
                                                  int64_t others) {
  SmallVector<ReassociationIndices> groups(1);
  for (int64_t dim = 0; dim < first; ++dim)
    groups[0].push_back(dim);
  for (int64_t dim = first; dim < first + others; ++dim)
    groups.push_back({dim});
  return groups;
}

Value mlir::moe::raising::restoreTokens(Value rows, Value scores,
                                        RankedTensorType type,
                                        RewriterBase &rewriter) {
  if (type.hasStaticShape())
    return buildReshape(rewriter, rows, type);
  int64_t first = tensorOf(scores).getRank() - 1;
  SmallVector<OpFoldResult> sizes =
      tensor::getMixedSizes(rewriter, rows.getLoc(), scores);
  sizes.resize(first);
  for (int64_t extent : type.getShape().drop_front(first))
    sizes.push_back(rewriter.getIndexAttr(extent));
  return tensor::ExpandShapeOp::create(rewriter, rows.getLoc(), type, rows,
                                       groupsOf(first, type.getRank() - first),
                                       sizes);
}

Value mlir::moe::raising::flattenTokens(Value scores, Routing &routing) {
  RankedTensorType type = tensorOf(scores);
  if (!type || type.getRank() < 3 ||
      ShapedType::isDynamicShape(type.getShape().drop_front()))
    return {};
  if (GateOp gate = routing.gatesOfScores.lookup(scores))
    return gate.getLogits();
  Dims tokens(type.getShape().drop_back());
  if (!type.hasStaticShape())
    return tensor::CollapseShapeOp::create(routing.rewriter, scores.getLoc(),
                                           scores,
                                           groupsOf(type.getRank() - 1, 1));
  return Flattener(routing.rewriter, tokens).rowsOf(scores);
}
