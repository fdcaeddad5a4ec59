//===- TorchIndices.cpp - Choices, sorts and scatters of torch-mlir ------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "TorchReader.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

using Dims = SmallVector<int64_t>;

static bool isIndex(Value value) {
  Type element = value ? getElementTypeOrSelf(value) : Type();
  return element && isa<IntegerType>(element) &&
         element.getIntOrFloatBitWidth() >= 32;
}

//===----------------------------------------------------------------------===//
// Choices
//===----------------------------------------------------------------------===//

/// Returns scores [.., E] as rows; null if it is not known how many.
static Value rowsOfScores(TorchReader &t, Value x) {
  RankedTensorType type = x ? tensorOf(x) : RankedTensorType();
  if (!type || type.getRank() < 2 || type.isDynamicDim(type.getRank() - 1))
    return {};
  if (type.getRank() == 2)
    return x;
  int64_t experts = type.getShape().back();
  if (!type.hasStaticShape() || experts == 0)
    return {};
  // Their softmax, too, so that it may become part of the gate.
  SmallVector<int64_t> shape{type.getNumElements() / experts, experts};
  if (Operation *softmax = definedBy(x, "stablehlo.softmax"))
    return t.r.make("softmax", t.r.reshape(softmax->getOperand(0), shape),
                    type.clone(shape));
  return t.r.reshape(x, shape);
}

/// Sets the values and indices of a top-k [T, k], reshaped as the results.
static bool setTopK(TorchReader &t, Value x, int64_t k) {
  if (!t.out(0) || !t.out(1) || t.op->getNumResults() != 2)
    return false;
  RankedTensorType type = tensorOf(x);
  auto values = type.clone({type.getDimSize(0), k});
  auto indices = values.clone(t.r.builder().getI32Type());
  Operation *op = t.r.create(
      "top_k", x, {values, indices},
      t.r.builder().getNamedAttr("k", t.r.builder().getI64IntegerAttr(k)));
  for (unsigned i : {0u, 1u}) {
    Value result = t.r.convert(op->getResult(i), t.out(i).getElementType());
    t.r.setChosen(t.result(i), t.r.reshape(result, t.out(i).getShape()));
  }
  return true;
}

/// True if an operand is the last dimension of the first one.
static bool isAlongLast(TorchReader &t, unsigned operand) {
  int64_t rank = tensorOf(t.in(0)).getRank();
  return t.dim(operand, rank) == rank - 1;
}

/// (x, k, dim, largest, sorted); which of equals is chosen is not defined.
static bool readTopK(TorchReader &t) {
  Value x = rowsOfScores(t, t.in(0));
  auto k = t.integer(1);
  if (!x || !k || *k < 1 || !isAlongLast(t, 2) || t.flag(3, true) != true ||
      *k > tensorOf(x).getDimSize(1))
    return false;
  return setTopK(t, x, *k);
}

/// (x, dim, keepdim): a top-1.
static bool readMax(TorchReader &t) {
  Value x = rowsOfScores(t, t.in(0));
  if (!x || !isAlongLast(t, 1) || !isRowFloat(tensorOf(x).getElementType()))
    return false;
  return setTopK(t, x, 1);
}

/// Sorts a vector of integers in ascending order: values and order.
static bool readSort(TorchReader &t) {
  StringRef name = torchName(t.op);
  bool isStable = name.ends_with(".stable"),
       isArgsort = name.starts_with("aten.argsort");
  unsigned first = isStable ? 2 : 1;
  Value x = t.in(0);
  if (!isIndex(x) || tensorOf(x).getRank() != 1 ||
      t.op->getNumResults() != (isArgsort ? 1 : 2) ||
      (t.isGiven(first) && !t.dim(first, 1)) ||
      t.flag(first + 1, false) != false)
    return false;
  bool keepsOrder = isStable && t.flag(1, false) == true;
  RankedTensorType type = tensorOf(x);
  Value places = t.r.iota(type.clone(t.r.builder().getI64Type()), 0, x);
  Operation *op = t.r.create("sort", {x, places}, {type, places.getType()},
                             t.r.named("dimension", Dims{0}));
  OpBuilder &b = t.r.builder();
  OpBuilder::InsertionGuard guard(b);
  Type scalar = RankedTensorType::get({}, type.getElementType()),
       place = RankedTensorType::get({}, b.getI64Type());
  Location loc = op->getLoc();
  Block *body =
      b.createBlock(&op->getRegion(0), {}, {scalar, scalar, place, place},
                    {loc, loc, loc, loc});
  Value less = t.r.compare("LT", body->getArgument(0), body->getArgument(1));
  t.r.create("return", less, {});
  b.setInsertionPointAfter(op);
  if (!isArgsort)
    t.r.set(t.result(0), op->getResult(0));
  Value order = t.result(isArgsort ? 0 : 1);
  if (keepsOrder)
    t.r.set(order, op->getResult(1));
  else
    t.r.setUnstable(order, op->getResult(1));
  return true;
}

/// A quotient of integers, rounded down.
static bool readFloorDivide(TorchReader &t) {
  if (torchName(t.op).starts_with("aten.div.")) {
    Operation *mode = t.op->getNumOperands() > 2
                          ? t.op->getOperand(2).getDefiningOp()
                          : nullptr;
    auto text = mode ? mode->getAttrOfType<StringAttr>("value") : StringAttr();
    if (!text || text.getValue() != "floor")
      return false;
  }
  Value x = t.in(0);
  if (!isIndex(x) || !t.out() || !isa<IntegerType>(t.out().getElementType()))
    return false;
  Value by = t.in(1, tensorOf(x));
  return by && t.set(t.r.make("floor_divide", {x, by}, tensorOf(x)));
}

//===----------------------------------------------------------------------===//
// Counts
//===----------------------------------------------------------------------===//

/// Returns how often each of the indices below `count` is in a vector.
static Value countsOf(TorchReader &t, Value x, int64_t count) {
  auto type = RankedTensorType::get({count}, t.r.builder().getI64Type());
  Value zeros = t.r.splat(type, 0);
  Value ones = t.r.splat(tensorOf(x).clone(t.r.builder().getI64Type()), 1, x);
  return t.r.scatterRows(zeros, x, ones, Update::Add);
}

static bool readBinCount(TorchReader &t) {
  Value x = t.in(0);
  auto count = t.integer(2);
  RankedTensorType type = t.out();
  if (!isIndex(x) || tensorOf(x).getRank() != 1 || t.isGiven(1) || !count ||
      *count < 1 || !type || !isa<IntegerType>(type.getElementType()))
    return false;
  // At least as many; exactly as many, if there are none beyond, which roles
  // tell.
  t.r.set(t.result(),
          t.r.convert(countsOf(t, x, *count), type.getElementType()));
  return true;
}

/// (x, bins, min, max): with bins E from 0 to E − 1 those are the integers.
static bool readHistogram(TorchReader &t) {
  Value x = t.in(0);
  // Small integers are exact in f32. Each is in a bin of its own, up to bins −
  // 1 or to bins, which no id is.
  while (Operation *convert = x ? definedBy(x, "stablehlo.convert") : nullptr) {
    if (isIndex(x))
      break;
    x = convert->getOperand(0);
  }
  auto bins = t.integer(1);
  auto low = t.number(2), high = t.number(3);
  if (!isIndex(x) || tensorOf(x).getRank() != 1 || !bins || *bins < 2 ||
      *bins > (1 << 20) || low != 0.0 || !high ||
      (*high != double(*bins - 1) && *high != double(*bins)) || !t.out())
    return false;
  return t.set(countsOf(t, x, *bins));
}

static bool readOneHot(TorchReader &t) {
  Value x = t.in(0);
  auto count = t.integer(1);
  if (!isIndex(x) || !t.out() || !count || *count < 1 ||
      t.out().getRank() != tensorOf(x).getRank() + 1)
    return false;
  Dims shape(tensorOf(x).getShape()), dims;
  for (int64_t dim = 0; dim < int64_t(shape.size()); ++dim)
    dims.push_back(dim);
  shape.push_back(1);
  Value ids = t.r.reshape(x, shape);
  dims.push_back(shape.size() - 1);
  shape.back() = *count;
  ids = t.r.broadcast(ids, dims, shape);
  Value experts = t.r.iota(tensorOf(ids), shape.size() - 1, x);
  return t.set(t.r.compare("EQ", ids, experts));
}

static bool readCumulativeSum(TorchReader &t) {
  Value x = t.in(0);
  auto dim = x ? t.dim(1, tensorOf(x).getRank()) : std::nullopt;
  if (!dim || !t.out())
    return false;
  return t.set(
      t.r.cumulativeSum(t.r.convert(x, t.out().getElementType()), *dim));
}

//===----------------------------------------------------------------------===//
// Gathers and scatters
//===----------------------------------------------------------------------===//

/// x[ids], ids of any rank.
static bool readIndex(TorchReader &t) {
  Value x = t.in(0);
  SmallVector<Value> at = t.list(1);
  return x && at.size() == 1 && isIndex(at[0]) && tensorOf(x).getRank() > 0 &&
         t.set(t.r.gather(x, at[0]));
}

static bool readIndexSelect(TorchReader &t) {
  Value x = t.in(0), ids = t.in(2);
  return x && isIndex(ids) && tensorOf(ids).getRank() == 1 &&
         t.dim(1, tensorOf(x).getRank()) == 0 && t.set(t.r.gather(x, ids));
}

/// Returns the ids [M] that an index [M, n] repeats along its columns.
static Value repeatedIds(Value index) {
  Value ids = repeatedAlongRows(index, 1);
  if (!ids && tensorOf(index).getRank() == 1)
    return index;
  return ids;
}

/// (x, dim, index): x[index[i, j], j], or x[i, index[i, j]].
static bool readGather(TorchReader &t) {
  Value x = t.in(0), index = t.in(2);
  if (x && isIndex(index) && t.out() && tensorOf(x).getRank() == 2 &&
      tensorOf(index).getRank() == 2 && t.dim(1, 2) == 1)
    return t.set(t.r.make("take_along_axis", {x, index}, t.out()));
  if (!x || !isIndex(index) || tensorOf(x).getRank() > 2 ||
      t.dim(1, tensorOf(x).getRank()) != 0 ||
      tensorOf(x).getRank() != tensorOf(index).getRank())
    return false;
  if (tensorOf(x).getRank() == 2 &&
      (tensorOf(x).isDynamicDim(1) ||
       tensorOf(x).getDimSize(1) != tensorOf(index).getDimSize(1)))
    return false;
  Value ids = repeatedIds(index);
  return ids && t.set(t.r.gather(x, ids));
}

/// into[ids] = updates, or added to what is there.
static bool setScatter(TorchReader &t, Value ids, Value updates,
                       Update update) {
  Value into = t.in(0);
  if (!into || !isIndex(ids) || !updates || tensorOf(ids).getRank() != 1 ||
      tensorOf(into).getRank() < 1 ||
      tensorOf(updates).getRank() != tensorOf(into).getRank())
    return false;
  updates = t.r.convert(updates, getElementTypeOrSelf(into));
  return t.set(t.r.scatterRows(into, ids, updates, update));
}

static bool readIndexPut(TorchReader &t) {
  SmallVector<Value> at = t.list(1);
  auto accumulate = t.flag(3, false);
  return at.size() == 1 && at[0] && accumulate &&
         setScatter(t, at[0], t.in(2), *accumulate ? Update::Add : Update::Set);
}

/// (x, 0, ids, source, alpha)
static bool readIndexAdd(TorchReader &t) {
  Value x = t.in(0), ids = t.in(2);
  return x && ids && t.dim(1, tensorOf(x).getRank()) == 0 &&
         (!t.isGiven(4) || t.number(4) == 1.0) &&
         setScatter(t, ids, t.in(3), Update::Add);
}

/// (x, dim, index, source): along the rows where the index has whole rows,
/// along the columns of each row.
static bool readScatter(TorchReader &t) {
  Value x = t.in(0), index = t.in(2);
  auto dim = x ? t.dim(1, tensorOf(x).getRank()) : std::nullopt;
  if (!isIndex(index) || !dim ||
      tensorOf(x).getRank() != tensorOf(index).getRank() ||
      tensorOf(x).getRank() > 2)
    return false;
  Update update =
      torchName(t.op) == "aten.scatter_add" ? Update::Add : Update::Set;
  RankedTensorType type = tensorOf(index).clone(getElementTypeOrSelf(x));
  Value source;
  if (auto number = t.number(3))
    source = t.r.splat(type, *number, index);
  else if (Value given = t.in(3);
           given && tensorOf(given).getShape() == type.getShape())
    source = t.r.convert(given, type.getElementType());
  if (!source)
    return false;
  if (*dim == 1)
    return tensorOf(x).getDimSize(0) == type.getDimSize(0) &&
           t.set(t.r.scatterColumns(x, index, source, update));
  if (type.getRank() == 2 &&
      (type.isDynamicDim(1) || tensorOf(x).getDimSize(1) != type.getDimSize(1)))
    return false;
  Value ids = repeatedIds(index);
  return ids && setScatter(t, ids, source, update);
}

void mlir::moe::raising::addTorchIndices(llvm::StringMap<TorchRule> &rules) {
  rules["aten.topk"] = readTopK;
  rules["aten.max.dim"] = readMax;
  for (const char *name :
       {"aten.sort", "aten.sort.stable", "aten.argsort", "aten.argsort.stable"})
    rules[name] = readSort;
  for (const char *name : {"aten.floor_divide", "aten.floor_divide.Scalar",
                           "aten.div.Tensor_mode", "aten.div.Scalar_mode"})
    rules[name] = readFloorDivide;
  rules["aten.bincount"] = readBinCount;
  rules["aten.histc"] = readHistogram;
  rules["aten.one_hot"] = readOneHot;
  rules["aten.cumsum"] = readCumulativeSum;
  for (const char *name :
       {"aten.index.Tensor", "aten.index.Tensor_hacked_twin"})
    rules[name] = readIndex;
  rules["aten.index_select"] = readIndexSelect;
  rules["aten.gather"] = readGather;
  for (const char *name :
       {"aten.index_put", "aten.index_put_", "aten.index_put.hacked_twin",
        "aten._unsafe_index_put"})
    rules[name] = readIndexPut;
  rules["aten.index_add"] = readIndexAdd;
  for (const char *name : {"aten.scatter.src", "aten.scatter.value",
                           "aten.scatter_add", "aten.scatter.value_dim"})
    rules[name] = readScatter;
}
