//===- TorchViews.cpp - Views and constants of torch-mlir ----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "TorchReader.h"

#include "llvm/ADT/StringSet.h"

#include <limits>

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

using Dims = SmallVector<int64_t>;

static Dims range(int64_t count) {
  return llvm::to_vector(llvm::seq<int64_t>(0, count));
}

/// The same elements in their order: the type of the result has the shape.
static bool readView(TorchReader &t) {
  Value x = t.in(0);
  return x && t.out() && t.set(t.r.reshape(x, t.out().getShape()));
}

/// The same value, or one of another type.
static bool readSame(TorchReader &t) {
  Value x = t.in(0);
  return x && t.set(x);
}

static bool readTranspose(TorchReader &t) {
  Value x = t.in(0);
  if (!x)
    return false;
  int64_t rank = tensorOf(x).getRank();
  Dims permutation = range(rank);
  if (torchName(t.op) == "aten.permute") {
    auto dims = t.integers(1);
    if (!dims || int64_t(dims->size()) != rank)
      return false;
    for (auto [index, dim] : llvm::enumerate(*dims)) {
      if (dim < -rank || dim >= rank)
        return false;
      permutation[index] = dim < 0 ? dim + rank : dim;
    }
  } else if (torchName(t.op) == "aten.t") {
    std::reverse(permutation.begin(), permutation.end());
  } else {
    auto a = t.dim(1, rank), b = t.dim(2, rank);
    if (!a || !b)
      return false;
    std::swap(permutation[*a], permutation[*b]);
  }
  return t.set(t.r.transpose(x, permutation));
}

static bool readExpand(TorchReader &t) {
  Value x = t.in(0);
  return x && t.out() && tensorOf(x).getRank() <= t.out().getRank() &&
         t.set(t.r.broadcast(x, t.out().getShape()));
}

/// Returns the slice of `x` along `dim`; null if it is not understood.
static Value sliceOf(TorchReader &t, Value x, int64_t dim, int64_t start,
                     int64_t end, int64_t step) {
  RankedTensorType type = tensorOf(x);
  int64_t extent = type.getDimSize(dim);
  bool isDynamic = ShapedType::isDynamic(extent);
  // All of a dynamic extent.
  if (isDynamic &&
      (start != 0 || end < std::numeric_limits<int32_t>::max() || step != 1))
    return {};
  if (!isDynamic) {
    auto bound = [&](int64_t at) {
      return std::clamp<int64_t>(at < 0 ? at + extent : at, 0, extent);
    };
    start = bound(start);
    end = std::max(start, bound(end));
  }
  if (step < 1)
    return {};
  Dims starts(type.getRank(), 0), limits(type.getShape()),
      strides(type.getRank(), 1);
  starts[dim] = start;
  limits[dim] = isDynamic ? ShapedType::kDynamic : end;
  strides[dim] = step;
  return t.r.slice(x, starts, limits, strides);
}

static bool readSlice(TorchReader &t) {
  Value x = t.in(0);
  auto dim = x ? t.dim(1, tensorOf(x).getRank()) : std::nullopt;
  auto start = t.isGiven(2) ? t.integer(2) : std::optional<int64_t>(0),
       end = t.isGiven(3) ? t.integer(3)
                          : std::optional(std::numeric_limits<int64_t>::max()),
       step = t.isGiven(4) ? t.integer(4) : std::optional<int64_t>(1);
  return dim && start && end && step &&
         t.set(sliceOf(t, x, *dim, *start, *end, *step));
}

static bool readSelect(TorchReader &t) {
  Value x = t.in(0);
  auto dim = x ? t.dim(1, tensorOf(x).getRank()) : std::nullopt;
  auto at = t.integer(2);
  if (!dim || !at || !t.out())
    return false;
  int64_t end = *at == -1 ? std::numeric_limits<int64_t>::max() : *at + 1;
  Value row = sliceOf(t, x, *dim, *at, end, 1);
  return row && tensorOf(row).getDimSize(*dim) == 1 &&
         t.set(t.r.reshape(row, t.out().getShape()));
}

/// Sets one of the parts of a chunk, split or unbind.
static bool readPart(TorchReader &t, Operation *of, int64_t index, Value part) {
  TorchReader from(of, t.r);
  StringRef name = torchName(of);
  Value x = from.in(0);
  RankedTensorType type = tensorTypeOf(part.getType());
  if (!x || !type || index < 0)
    return false;
  bool isUnbind = name == "aten.unbind.int";
  auto dim = from.dim(isUnbind ? 1 : 2, tensorOf(x).getRank());
  if (!dim)
    return false;
  int64_t extent = tensorOf(x).getDimSize(*dim), start = 0, size = 1;
  if (ShapedType::isDynamic(extent))
    return false;
  if (name == "aten.split_with_sizes" || name == "aten.split.sizes") {
    auto sizes = from.integers(1);
    if (!sizes || index >= int64_t(sizes->size()))
      return false;
    for (int64_t before : ArrayRef(*sizes).take_front(index))
      start += before;
    size = (*sizes)[index];
  } else if (isUnbind) {
    start = index;
  } else {
    auto count = from.integer(1);
    if (!count || *count < 1)
      return false;
    size = name == "aten.chunk" ? llvm::divideCeil(extent, *count) : *count;
    start = index * size;
  }
  Value slice = sliceOf(t, x, *dim, start, start + size, 1);
  if (!slice)
    return false;
  t.r.set(part, t.r.reshape(slice, type.getShape()));
  return true;
}

static bool isParts(Operation *op) {
  static const llvm::StringSet<> names{"aten.chunk", "aten.split.Tensor",
                                       "aten.split.sizes", "aten.unbind.int",
                                       "aten.split_with_sizes"};
  return op && names.contains(torchName(op));
}

static bool readUnpack(TorchReader &t) {
  Operation *of = t.op->getNumOperands() == 1
                      ? t.op->getOperand(0).getDefiningOp()
                      : nullptr;
  if (!isParts(of))
    return false;
  for (auto [index, part] : llvm::enumerate(t.op->getResults()))
    if (!readPart(t, of, index, part))
      return false;
  return true;
}

static bool readItem(TorchReader &t) {
  Operation *of = t.op->getNumOperands() == 2
                      ? t.op->getOperand(0).getDefiningOp()
                      : nullptr;
  auto index = t.integer(1);
  return isParts(of) && index && readPart(t, of, *index, t.result());
}

static bool readConcatenate(TorchReader &t) {
  SmallVector<Value> parts = t.list(0);
  if (parts.empty() || !t.out() ||
      !llvm::all_of(parts, [](Value part) { return bool(part); }))
    return false;
  auto dim = t.dim(1, t.out().getRank());
  if (!dim)
    return false;
  for (Value &part : parts) {
    if (tensorOf(part).getRank() != t.out().getRank() ||
        tensorOf(part).isDynamicDim(*dim))
      return false;
    part = t.r.convert(part, t.out().getElementType());
  }
  return t.set(t.r.concatenate(parts, *dim));
}

/// Each element, or each row of a dimension, several times.
static bool readRepeatInterleave(TorchReader &t) {
  Value x = t.in(0);
  auto count = t.integer(1);
  if (!x || !count || *count < 1 || !t.out())
    return false;
  RankedTensorType type = tensorOf(x);
  if (!t.isGiven(2)) {
    // Of all elements.
    if (type.getRank() != 1)
      return false;
  }
  auto dim =
      t.isGiven(2) ? t.dim(2, type.getRank()) : std::optional<int64_t>(0);
  if (!dim)
    return false;
  Dims shape(type.getShape()), dims;
  shape.insert(shape.begin() + *dim + 1, *count);
  for (int64_t each = 0; each < type.getRank(); ++each)
    dims.push_back(each + (each > *dim));
  Value repeated = t.r.broadcast(x, dims, shape);
  return t.set(t.r.reshape(repeated, t.out().getShape()));
}

/// All of a tensor, several times along the first dimension.
static bool readRepeat(TorchReader &t) {
  Value x = t.in(0);
  auto counts = t.integers(1);
  if (!x || !counts || !t.out() ||
      int64_t(counts->size()) != t.out().getRank() || counts->empty())
    return false;
  RankedTensorType type = tensorOf(x);
  int64_t more = counts->size() - type.getRank();
  if (more < 0)
    return false;
  // A new dimension before each one that is repeated.
  Dims shape, dims;
  for (auto [index, count] : llvm::enumerate(*counts)) {
    if (count < 1)
      return false;
    if (count > 1)
      shape.push_back(count);
    if (int64_t(index) >= more) {
      dims.push_back(shape.size());
      shape.push_back(type.getDimSize(index - more));
    } else if (count == 1) {
      shape.push_back(1);
    }
  }
  return t.set(t.r.reshape(t.r.broadcast(x, dims, shape), t.out().getShape()));
}

//===----------------------------------------------------------------------===//
// Constants
//===----------------------------------------------------------------------===//

static std::optional<double> filledWith(TorchReader &t) {
  StringRef name = torchName(t.op);
  if (name.contains("zeros") || name.contains("empty"))
    return 0.0;
  if (name.contains("ones"))
    return 1.0;
  return t.number(1);
}

static bool readFill(TorchReader &t) {
  std::optional<double> number = filledWith(t);
  bool isLike = torchName(t.op).contains("like");
  if (!number || !t.out())
    return false;
  if (isLike && !t.in(0))
    return false;
  bool isNew = torchName(t.op).contains("new_");
  auto [like, factor] =
      isLike ? std::pair(t.in(0), int64_t(1)) : t.firstSize(isNew ? 1 : 0);
  return t.set(t.r.splat(t.out(), *number, like, factor));
}

static bool readArange(TorchReader &t) {
  // (end), (start, end) or (start, end, step)
  StringRef name = torchName(t.op);
  unsigned end = name == "aten.arange" ? 0 : 1;
  if (t.op->getNumOperands() <= end || !t.out() || t.out().getRank() != 1 ||
      !isa<IntegerType>(t.out().getElementType()) ||
      (end == 1 && t.integer(0) != 0) ||
      (name == "aten.arange.start_step" && t.integer(2) != 1))
    return false;
  auto [like, factor] = t.sizeOf(t.op->getOperand(end));
  return t.set(t.r.iota(t.out(), 0, like, factor));
}

/// A tensor in the program: one number, or a vector of the indices.
static bool readLiteral(TorchReader &t) {
  auto value = t.op->getAttrOfType<DenseElementsAttr>("value");
  RankedTensorType type = t.out();
  if (!value || !type)
    return false;
  if (value.isSplat()) {
    double number =
        isa<FloatType>(value.getElementType())
            ? value.getSplatValue<APFloat>().convertToDouble()
            : double(value.getElementType().isInteger(1)
                         ? value.getSplatValue<APInt>().getZExtValue()
                         : value.getSplatValue<APInt>().getSExtValue());
    return t.set(t.r.splat(type, number));
  }
  if (type.getRank() != 1 || !isa<IntegerType>(value.getElementType()))
    return false;
  for (auto [index, each] : llvm::enumerate(value.getValues<APInt>()))
    if (each.getSExtValue() != int64_t(index))
      return false;
  return t.set(t.r.iota(type, 0));
}

/// A number of the program as a tensor.
static bool readNumber(TorchReader &t) {
  auto number = t.number(0);
  return number && t.out() && t.set(t.r.splat(t.out(), *number));
}

void mlir::moe::raising::addTorchViews(llvm::StringMap<TorchRule> &rules) {
  for (const char *name :
       {"aten.view", "aten.reshape", "aten._unsafe_view", "aten.unsqueeze",
        "aten.squeeze.dim", "aten.squeeze.dims", "aten.squeeze",
        "prims.squeeze", "aten.flatten.using_ints", "aten.unflatten.int"})
    rules[name] = readView;
  for (const char *name :
       {"aten.contiguous", "aten.clone", "aten.detach", "aten.alias",
        "aten.to.dtype", "aten.to.dtype_layout", "aten.to.device",
        "aten.to.other", "aten._to_copy", "aten.float",
        "prims.convert_element_type", "aten.type_as", "aten.lift_fresh_copy"})
    rules[name] = readSame;
  for (const char *name : {"aten.transpose.int", "aten.permute", "aten.t"})
    rules[name] = readTranspose;
  for (const char *name :
       {"aten.expand", "aten.broadcast_to", "aten.expand_as"})
    rules[name] = readExpand;
  for (const char *name :
       {"aten.zeros", "aten.ones", "aten.full", "aten.empty.memory_format",
        "aten.zeros_like", "aten.ones_like", "aten.full_like",
        "aten.empty_like", "aten.new_zeros", "aten.new_ones", "aten.new_empty",
        "aten.empty_permuted", "aten.empty_strided"})
    rules[name] = readFill;
  for (const char *name :
       {"aten.arange", "aten.arange.start", "aten.arange.start_step"})
    rules[name] = readArange;
  rules["aten.slice.Tensor"] = readSlice;
  rules["aten.select.int"] = readSelect;
  rules["prim.ListUnpack"] = readUnpack;
  rules["aten.__getitem__.t"] = readItem;
  rules["aten.cat"] = readConcatenate;
  rules["aten.repeat_interleave.self_int"] = readRepeatInterleave;
  rules["aten.repeat"] = readRepeat;
  rules["aten.tile"] = readRepeat;
  rules["vtensor.literal"] = readLiteral;
  for (const char *name :
       {"prim.NumToTensor.Scalar", "aten.scalar_tensor", "aten.tensor.int"})
    rules[name] = readNumber;
}
