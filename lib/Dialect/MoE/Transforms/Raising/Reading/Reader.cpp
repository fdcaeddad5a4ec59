//===- Reader.cpp - Operations that a program is read as -----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Reading.h"

#include <limits>

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

ReadingDialect::ReadingDialect(MLIRContext *context)
    : Dialect(getDialectNamespace(), context, TypeID::get<ReadingDialect>()) {
  allowUnknownOperations();
}

//===----------------------------------------------------------------------===//
// Operations
//===----------------------------------------------------------------------===//

Operation *Reader::create(StringRef name, ValueRange operands,
                          TypeRange results,
                          ArrayRef<NamedAttribute> attributes) {
  OperationState state(
      b.getUnknownLoc(),
      (ReadingDialect::getDialectNamespace() + "." + name).str());
  state.addOperands(operands);
  state.addTypes(results);
  state.addAttributes(attributes);
  state.addAttribute("id", b.getI64IntegerAttr(nextId++));
  bool hasRegion = name == "reduce" || name == "scatter" || name == "sort";
  if (hasRegion)
    state.addRegion();
  return b.create(state);
}

Value Reader::make(StringRef name, ValueRange operands, RankedTensorType type,
                   ArrayRef<NamedAttribute> attributes) {
  return create(name, operands, type, attributes)->getResult(0);
}

void Reader::addUpdate(Operation *op, Type element, Update update) {
  OpBuilder::InsertionGuard guard(b);
  Location loc = op->getLoc();
  Type scalar = RankedTensorType::get({}, element);
  Block *body =
      b.createBlock(&op->getRegion(0), {}, {scalar, scalar}, {loc, loc});
  Value result = body->getArgument(1);
  if (update != Update::Set)
    result = create(update == Update::Add   ? "add"
                    : update == Update::Min ? "minimum"
                                            : "maximum",
                    body->getArguments(), scalar)
                 ->getResult(0);
  create("return", result, {});
}

Value Reader::splat(RankedTensorType type, double number, Value like,
                    int64_t factor) {
  Type element = type.getElementType();
  TypedAttr value = isa<FloatType>(element)
                        ? TypedAttr(b.getFloatAttr(element, number))
                        : TypedAttr(b.getIntegerAttr(element, int64_t(number)));
  auto scalar = RankedTensorType::get({}, element);
  Value constant =
      make("constant", {}, scalar,
           b.getNamedAttr("value", DenseElementsAttr::get(scalar, value)));
  if (type.getRank() == 0)
    return constant;
  SmallVector<Value> operands{constant};
  if (like && type.isDynamicDim(0))
    operands.push_back(like);
  return make(
      "broadcast_in_dim", operands, type,
      {named("broadcast_dimensions", Dims()), named("factor", Dims(factor))});
}

Value Reader::iota(RankedTensorType type, int64_t dim, Value like,
                   int64_t factor) {
  SmallVector<Value> operands;
  if (like && type.isDynamicDim(0))
    operands.push_back(like);
  return make(
      "iota", operands, type,
      {named("iota_dimension", Dims(dim)), named("factor", Dims(factor))});
}

Value Reader::reshape(Value value, Dims shape) {
  // The elements in their order, from where they were arranged otherwise.
  while (Operation *op = definedBy(value, "moe_reading.reshape"))
    value = op->getOperand(0);
  RankedTensorType type = tensorOf(value);
  if (type.getShape() == shape && llvm::count(shape, ShapedType::kDynamic) <= 1)
    return value;
  return make("reshape", value, type.clone(shape));
}

Value Reader::transpose(Value value, Dims permutation) {
  RankedTensorType type = tensorOf(value);
  SmallVector<int64_t> shape, moved;
  for (int64_t dim : permutation) {
    shape.push_back(type.getDimSize(dim));
    if (type.getDimSize(dim) != 1)
      moved.push_back(dim);
  }
  // Dimensions of extent 1 alone: the order of the elements is the same.
  if (llvm::is_sorted(moved))
    return reshape(value, shape);
  return make("transpose", value, type.clone(shape),
              named("permutation", permutation));
}

Value Reader::broadcast(Value value, Dims dims, Dims shape) {
  RankedTensorType type = tensorOf(value);
  if (type.getShape() == shape)
    return value;
  return make("broadcast_in_dim", value, type.clone(shape),
              named("broadcast_dimensions", dims));
}

Value Reader::broadcast(Value value, Dims shape) {
  int64_t rank = tensorOf(value).getRank(), more = shape.size() - rank;
  return broadcast(value, llvm::to_vector(llvm::seq(more, more + rank)), shape);
}

Value Reader::convert(Value value, Type element) {
  RankedTensorType type = tensorOf(value);
  if (type.getElementType() == element)
    return value;
  return make("convert", value, type.clone(element));
}

Value Reader::compare(StringRef direction, Value a, Value c) {
  return make("compare", {a, c}, tensorOf(a).clone(b.getI1Type()),
              named("comparison_direction", direction));
}

Value Reader::slice(Value value, Dims starts, Dims limits, Dims strides) {
  RankedTensorType type = tensorOf(value);
  SmallVector<int64_t> shape;
  for (auto [dim, start, limit, stride] :
       llvm::enumerate(starts, limits, strides))
    shape.push_back(ShapedType::isDynamic(limit)
                        ? type.getDimSize(dim)
                        : llvm::divideCeil(limit - start, stride));
  if (type.getShape() == ArrayRef(shape) &&
      llvm::all_of(strides, [](int64_t stride) { return stride == 1; }))
    return value;
  return make("slice", value, type.clone(shape),
              {named("start_indices", starts), named("limit_indices", limits),
               named("strides", strides)});
}

Value Reader::concatenate(ValueRange values, int64_t dim) {
  RankedTensorType type = tensorOf(values.front());
  SmallVector<int64_t> shape(type.getShape());
  for (Value value : values.drop_front())
    shape[dim] += tensorOf(value).getDimSize(dim);
  return make("concatenate", values, type.clone(shape),
              named("dimension", Dims(dim)));
}

Value Reader::reduce(Value value, Dims dims, Update update, double first) {
  RankedTensorType type = tensorOf(value);
  SmallVector<int64_t> shape;
  for (auto [dim, extent] : llvm::enumerate(type.getShape()))
    if (!llvm::is_contained(dims, int64_t(dim)))
      shape.push_back(extent);
  Type element = type.getElementType();
  double start = update == Update::Add ? 0.0
                 : update == Update::Min
                     ? first
                     : -std::numeric_limits<double>::infinity();
  Value from = splat(RankedTensorType::get({}, element), start);
  Operation *op = create("reduce", {value, from}, type.clone(shape),
                         named("dimensions", dims));
  addUpdate(op, element, update);
  return op->getResult(0);
}

Value Reader::cumulativeSum(Value value, int64_t dim) {
  return make("cumulative_sum", value, tensorOf(value),
              named("dimension", Dims(dim)));
}

static std::string list(ArrayRef<int64_t> values) {
  std::string text = "[";
  for (int64_t value : values)
    text += (text.size() > 1 ? ", " : "") + std::to_string(value);
  return text + "]";
}

/// Returns ids [...] as [..., 1].
static Value withLastUnit(Reader &reader, Value ids) {
  SmallVector<int64_t> shape(tensorOf(ids).getShape());
  shape.push_back(1);
  return reader.reshape(ids, shape);
}

Value Reader::gather(Value value, Value ids) {
  RankedTensorType type = tensorOf(value), of = tensorOf(ids);
  SmallVector<int64_t> shape(of.getShape()), sizes(type.getShape()), offset;
  sizes[0] = 1;
  for (int64_t dim = 1; dim < type.getRank(); ++dim) {
    offset.push_back(shape.size());
    shape.push_back(type.getDimSize(dim));
  }
  Value indices = withLastUnit(*this, ids);
  return make("gather", {value, indices}, type.clone(shape),
              {named("dimension_numbers",
                     "offset_dims = " + list(offset) +
                         ", collapsed_slice_dims = [0], start_index_map = [0], "
                         "index_vector_dim = " +
                         std::to_string(of.getRank())),
               named("slice_sizes", sizes)});
}

Value Reader::scatterRows(Value into, Value ids, Value updates, Update update) {
  RankedTensorType type = tensorOf(into);
  SmallVector<int64_t> window;
  for (int64_t dim = 1; dim < type.getRank(); ++dim)
    window.push_back(tensorOf(ids).getRank() + dim - 1);
  Value indices = withLastUnit(*this, ids);
  Operation *op = create(
      "scatter", {into, indices, updates}, type,
      named("scatter_dimension_numbers",
            "update_window_dims = " + list(window) +
                ", inserted_window_dims = [0], scatter_dims_to_operand_dims = "
                "[0], index_vector_dim = " +
                std::to_string(tensorOf(ids).getRank())));
  addUpdate(op, type.getElementType(), update);
  return op->getResult(0);
}

Value Reader::scatterColumns(Value into, Value ids, Value updates,
                             Update update) {
  RankedTensorType type = tensorOf(into);
  Value columns = withLastUnit(*this, ids);
  Value rows = iota(tensorOf(columns), 0, ids);
  Value pairs = concatenate({rows, columns}, 2);
  Operation *op = create(
      "scatter", {into, pairs, updates}, type,
      named("scatter_dimension_numbers",
            "update_window_dims = [], inserted_window_dims = [0, 1], "
            "scatter_dims_to_operand_dims = [0, 1], index_vector_dim = 2"));
  addUpdate(op, type.getElementType(), update);
  return op->getResult(0);
}

//===----------------------------------------------------------------------===//
// Products
//===----------------------------------------------------------------------===//

namespace {
/// A tensor whose dimensions, each some of those of `base` in this order, are
/// those of a view of it. Dimensions of extent 1 have none.
struct View {
  Value base;
  SmallVector<SmallVector<int64_t>> dims;
};
} // namespace

/// Returns the dimensions of a reshape to `to`, of those that `dims` have in
/// `base`; none if it splits one.
static std::optional<SmallVector<SmallVector<int64_t>>>
mergeDims(const View &view, ArrayRef<int64_t> to) {
  RankedTensorType type = tensorOf(view.base);
  SmallVector<int64_t> left;
  for (const auto &dims : view.dims)
    left.append(dims.begin(), dims.end());
  auto isDynamic = [&](int64_t dim) { return type.isDynamicDim(dim); };
  if (llvm::count_if(left, isDynamic) > 1)
    return std::nullopt;
  auto productOf = [](auto extents) {
    int64_t product = 1;
    for (int64_t extent : extents)
      product *= ShapedType::isDynamic(extent) ? 1 : extent;
    return product;
  };
  auto rest = [&](size_t from) {
    return productOf(
        llvm::map_range(ArrayRef(left).drop_front(from),
                        [&](int64_t dim) { return type.getDimSize(dim); }));
  };
  SmallVector<SmallVector<int64_t>> made;
  size_t next = 0;
  for (auto [index, extent] : llvm::enumerate(to)) {
    SmallVector<int64_t> &dims = made.emplace_back();
    if (extent == 1)
      continue;
    int64_t have = 1;
    bool hasDynamic = false;
    auto isComplete = [&] {
      return ShapedType::isDynamic(extent)
                 ? hasDynamic &&
                       rest(next) == productOf(to.drop_front(index + 1))
                 : !hasDynamic && have == extent;
    };
    while (!isComplete()) {
      if (next == left.size())
        return std::nullopt;
      int64_t dim = left[next++];
      dims.push_back(dim);
      hasDynamic |= isDynamic(dim);
      have *= isDynamic(dim) ? 1 : type.getDimSize(dim);
      if (!ShapedType::isDynamic(extent) && have > extent)
        return std::nullopt;
    }
  }
  return next == left.size() ? std::optional(made) : std::nullopt;
}

static View viewOf(Value value) {
  SmallVector<Operation *> ops;
  Value base = value;
  while (Operation *op = base.getDefiningOp()) {
    if (!isNamed(op, "moe_reading.reshape") &&
        !isNamed(op, "moe_reading.transpose"))
      break;
    ops.push_back(op);
    base = op->getOperand(0);
  }
  auto start = [](Value base) {
    View view{base, {}};
    for (auto [dim, extent] : llvm::enumerate(tensorOf(base).getShape())) {
      auto &dims = view.dims.emplace_back();
      if (extent != 1)
        dims.push_back(dim);
    }
    return view;
  };
  View view = start(base);
  for (Operation *op : llvm::reverse(ops)) {
    Value result = op->getResult(0);
    if (auto permutation = integersOf(op, "permutation")) {
      SmallVector<SmallVector<int64_t>> dims;
      for (int64_t dim : *permutation)
        dims.push_back(view.dims[dim]);
      view.dims = dims;
    } else if (auto dims = mergeDims(view, tensorOf(result).getShape())) {
      view.dims = *dims;
    } else {
      view = start(result);
    }
  }
  return view;
}

Value Reader::dot(Value lhs, Value rhs, Dims lhsBatch, Dims rhsBatch,
                  Dims lhsContracted, Dims rhsContracted, Type element) {
  View views[2] = {viewOf(lhs), viewOf(rhs)};
  ArrayRef<int64_t> batches[2] = {lhsBatch, rhsBatch},
                    contracted[2] = {lhsContracted, rhsContracted};
  // The shape of the result, as the operation has it and without views.
  SmallVector<int64_t> expected, shape;
  SmallVector<int64_t> batchDims[2], contractedDims[2];
  Value bases[2];
  for (int64_t dim : lhsBatch)
    expected.push_back(tensorOf(lhs).getDimSize(dim));
  for (unsigned i : {0u, 1u}) {
    // Dimensions of extent 1 are left out.
    RankedTensorType type = tensorOf(views[i].base);
    SmallVector<int64_t> place(type.getRank()), kept;
    for (auto [dim, extent] : llvm::enumerate(type.getShape())) {
      place[dim] = kept.size();
      if (extent != 1)
        kept.push_back(extent);
    }
    bases[i] = reshape(views[i].base, kept);
    auto placesOf = [&](ArrayRef<int64_t> dims) {
      SmallVector<int64_t> places;
      for (int64_t dim : dims)
        for (int64_t of : views[i].dims[dim])
          places.push_back(place[of]);
      return places;
    };
    batchDims[i] = placesOf(batches[i]);
    contractedDims[i] = placesOf(contracted[i]);
  }
  auto extentsOf = [&](unsigned i, ArrayRef<int64_t> dims) {
    return llvm::map_to_vector(dims, [&, i](int64_t dim) {
      return tensorOf(bases[i]).getDimSize(dim);
    });
  };
  bool fits =
      extentsOf(0, batchDims[0]) == extentsOf(1, batchDims[1]) &&
      extentsOf(0, contractedDims[0]) == extentsOf(1, contractedDims[1]);
  if (!fits)
    for (unsigned i : {0u, 1u}) {
      bases[i] = i == 0 ? lhs : rhs;
      batchDims[i].assign(batches[i].begin(), batches[i].end());
      contractedDims[i].assign(contracted[i].begin(), contracted[i].end());
    }
  shape = extentsOf(0, batchDims[0]);
  SmallVector<int64_t> permuted[2];
  for (unsigned i : {0u, 1u}) {
    for (int64_t dim = 0; dim < tensorOf(bases[i]).getRank(); ++dim)
      if (!llvm::is_contained(batchDims[i], dim) &&
          !llvm::is_contained(contractedDims[i], dim)) {
        permuted[i].push_back(dim);
        shape.push_back(tensorOf(bases[i]).getDimSize(dim));
      }
    RankedTensorType type = tensorOf(i == 0 ? lhs : rhs);
    for (int64_t dim = 0; dim < type.getRank(); ++dim)
      if (!llvm::is_contained(batches[i], dim) &&
          !llvm::is_contained(contracted[i], dim))
        expected.push_back(type.getDimSize(dim));
  }
  Value product = make(
      "dot_general", {bases[0], bases[1]},
      RankedTensorType::get(shape, element),
      named("dot_dimension_numbers",
            "lhs_batching_dimensions = " + list(batchDims[0]) +
                ", rhs_batching_dimensions = " + list(batchDims[1]) +
                ", lhs_contracting_dimensions = " + list(contractedDims[0]) +
                ", rhs_contracting_dimensions = " + list(contractedDims[1])));
  if (!fits)
    return product;
  // In the order of the views.
  SmallVector<int64_t> order =
      llvm::to_vector(llvm::seq<int64_t>(0, batchDims[0].size()));
  for (unsigned i : {0u, 1u}) {
    int64_t first = batchDims[0].size() + (i == 0 ? 0 : permuted[0].size());
    RankedTensorType type = tensorOf(views[i].base);
    for (auto [dim, of] : llvm::enumerate(views[i].dims)) {
      if (llvm::is_contained(batches[i], int64_t(dim)) ||
          llvm::is_contained(contracted[i], int64_t(dim)))
        continue;
      for (int64_t each : of) {
        int64_t place =
            llvm::count_if(type.getShape().take_front(each),
                           [](int64_t extent) { return extent != 1; });
        order.push_back(first +
                        (llvm::find(permuted[i], place) - permuted[i].begin()));
      }
    }
  }
  return reshape(transpose(product, order), expected);
}
