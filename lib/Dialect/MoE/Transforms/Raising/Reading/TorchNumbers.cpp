//===- TorchNumbers.cpp - Elementwise operations and products of torch ---===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "TorchReader.h"

#include <cmath>

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

using Dims = SmallVector<int64_t>;

//===----------------------------------------------------------------------===//
// Elementwise operations
//===----------------------------------------------------------------------===//

static Value apply(TorchReader &t, StringRef name, ValueRange operands) {
  return t.r.make(name, operands, tensorOf(operands[0]));
}

static Value like(TorchReader &t, Value x, double number) {
  return t.r.splat(tensorOf(x), number, x);
}

/// PyTorch computes those of 16 bits in f32 and rounds once.
static bool setInF32(TorchReader &t,
                     llvm::function_ref<Value(Value)> function) {
  Value x = t.in(0);
  if (!x || !isRowFloat(getElementTypeOrSelf(x)))
    return false;
  return t.set(function(t.r.convert(x, t.r.builder().getF32Type())));
}

static bool readUnary(TorchReader &t) {
  static const llvm::StringMap<StringRef> names{
      {"aten.neg", "negate"},
      {"aten.exp", "exponential"},
      {"aten.log", "log"},
      {"aten.log1p", "log_plus_one"},
      {"aten.expm1", "exponential_minus_one"},
      {"aten.tanh", "tanh"},
      {"aten.sqrt", "sqrt"},
      {"aten.rsqrt", "rsqrt"},
      {"aten.abs", "abs"},
      {"aten.sigmoid", "logistic"},
      {"aten.erf", "erf"}};
  return setInF32(
      t, [&](Value x) { return apply(t, names.lookup(torchName(t.op)), x); });
}

/// The two operands in the type of the result; numbers too.
static std::optional<std::pair<Value, Value>> operandsOf(TorchReader &t) {
  RankedTensorType type = t.out();
  if (!type)
    return std::nullopt;
  Value a = t.in(0, type), b = t.in(1, type);
  return a && b ? std::optional(std::pair(a, b)) : std::nullopt;
}

/// a op b; with a factor of b where the operation has one.
static bool readBinary(TorchReader &t) {
  static const llvm::StringMap<StringRef> names{
      {"add", "add"},       {"sub", "subtract"},    {"mul", "multiply"},
      {"div", "divide"},    {"maximum", "maximum"}, {"minimum", "minimum"},
      {"rsub", "subtract"}, {"bitwise_and", "and"}, {"logical_and", "and"},
      {"logical_or", "or"}, {"bitwise_or", "or"}};
  StringRef name = torchName(t.op).drop_front(5).split('.').first;
  bool hasFactor = name == "add" || name == "sub" || name == "rsub";
  if (hasFactor && t.isGiven(2) && t.number(2) != 1.0)
    return false;
  auto operands = operandsOf(t);
  if (!operands)
    return false;
  auto [a, b] = *operands;
  // Factors of 1, which decompositions have.
  if (name == "mul" && t.number(1) == 1.0 && tensorOf(a) == t.out())
    return t.set(a);
  Type element = getElementTypeOrSelf(a);
  if (name == "div" && !isa<FloatType>(element))
    return false;
  // Of truth values.
  if (name.starts_with("logical") &&
      (!element.isInteger(1) || !getElementTypeOrSelf(t.in(0)).isInteger(1) ||
       !getElementTypeOrSelf(t.in(1)).isInteger(1)))
    return false;
  if (name == "rsub")
    std::swap(a, b);
  return t.set(apply(t, names.lookup(name), {a, b}));
}

static bool readCompare(TorchReader &t) {
  StringRef name = torchName(t.op).drop_front(5).split('.').first;
  Value a = t.in(0), b = t.in(1);
  if (!a || !t.out())
    return false;
  // In the wider type, or that of floats; a number has that of the tensor.
  Type element = getElementTypeOrSelf(a);
  if (b) {
    Type other = getElementTypeOrSelf(b);
    bool isWider =
        other.getIntOrFloatBitWidth() > element.getIntOrFloatBitWidth();
    if (isa<FloatType>(element) != isa<FloatType>(other))
      element = isa<FloatType>(element) ? element : other;
    else if (isWider)
      element = other;
  } else if (isa<IntegerType>(element) && !t.integer(1)) {
    return false;
  }
  if (element.isInteger(1))
    return false;
  RankedTensorType type = t.out().clone(element);
  a = t.in(0, type);
  b = t.in(1, type);
  return a && b && t.set(t.r.compare(name.upper(), a, b));
}

/// (condition, a, b), or (x, mask, number).
static bool readSelect(TorchReader &t) {
  bool isFill = torchName(t.op) == "aten.masked_fill.Scalar";
  RankedTensorType type = t.out();
  unsigned mask = isFill ? 1 : 0;
  if (!type || !t.in(mask) || !getElementTypeOrSelf(t.in(mask)).isInteger(1))
    return false;
  Value condition = t.in(mask, type.clone(t.r.builder().getI1Type())),
        chosen = t.in(isFill ? 2 : 1, type), other = t.in(isFill ? 0 : 2, type);
  return condition && chosen && other &&
         t.set(t.r.make("select", {condition, chosen, other}, type));
}

/// Bounds, where a number is given.
static bool readClamp(TorchReader &t) {
  StringRef name = torchName(t.op);
  Value x = t.in(0);
  if (!x || !t.out() || getElementTypeOrSelf(x) != t.out().getElementType())
    return false;
  bool isMin = name != "aten.clamp_max";
  for (unsigned i : {1u, 2u}) {
    bool isLow = i == 1 && isMin;
    if (!t.isGiven(i))
      continue;
    auto bound = t.number(i);
    if (!bound)
      return false;
    x = apply(t, isLow ? "maximum" : "minimum", {x, like(t, x, *bound)});
  }
  return t.set(x);
}

static bool readPower(TorchReader &t) {
  Value x = t.in(0);
  if (!x || !isRowFloat(getElementTypeOrSelf(x)))
    return false;
  if (torchName(t.op) == "aten.square" || t.number(1) == 2.0)
    return t.set(apply(t, "multiply", {x, x}));
  auto power = t.number(1);
  return power && t.set(apply(t, "power", {x, like(t, x, *power)}));
}

//===----------------------------------------------------------------------===//
// Activations
//===----------------------------------------------------------------------===//

static bool readRelu(TorchReader &t) {
  Value x = t.in(0);
  return x && t.set(apply(t, "maximum", {x, like(t, x, 0.0)}));
}

static bool readSilu(TorchReader &t) {
  return setInF32(t, [&](Value x) {
    return apply(t, "multiply", {x, apply(t, "logistic", x)});
  });
}

/// (x, approximate)
static bool readGelu(TorchReader &t) {
  Operation *mode = t.op->getNumOperands() > 1
                        ? t.op->getOperand(1).getDefiningOp()
                        : nullptr;
  auto text = mode ? mode->getAttrOfType<StringAttr>("value") : StringAttr();
  StringRef kind = text ? text.getValue() : StringRef("none");
  if (kind != "none" && kind != "tanh")
    return false;
  return setInF32(t, [&](Value x) {
    Value inner;
    if (kind == "none") {
      inner = apply(t, "erf",
                    apply(t, "multiply", {x, like(t, x, std::sqrt(0.5))}));
    } else {
      // √(2/π) · (x + 0.044715 x³)
      Value cube = apply(t, "multiply", {apply(t, "multiply", {x, x}), x});
      cube = apply(t, "multiply", {cube, like(t, x, 0.044715)});
      Value sum = apply(t, "add", {x, cube});
      inner =
          apply(t, "tanh",
                apply(t, "multiply", {sum, like(t, x, std::sqrt(2.0 / M_PI))}));
    }
    Value half = apply(t, "multiply", {x, like(t, x, 0.5)});
    return apply(t, "multiply",
                 {half, apply(t, "add", {inner, like(t, x, 1.0)})});
  });
}

//===----------------------------------------------------------------------===//
// Sums
//===----------------------------------------------------------------------===//

/// (x, dim, half_to_float) or (x, dim, dtype)
static bool readSoftmax(TorchReader &t) {
  Value x = t.in(0);
  RankedTensorType type = t.out();
  if (!x || !type || !type.getElementType().isF32() ||
      t.dim(1, type.getRank()) != type.getRank() - 1)
    return false;
  return t.set(
      t.r.make("softmax", t.r.convert(x, type.getElementType()), type));
}

/// (x, dims, keepdim, dtype), or (x, dims, keepdim) of a maximum.
static bool readSum(TorchReader &t) {
  Value x = t.in(0);
  auto dims = t.integers(1);
  if (!x || !t.out() || !dims || dims->empty())
    return false;
  for (int64_t &dim : *dims) {
    int64_t rank = tensorOf(x).getRank();
    if (dim < -rank || dim >= rank)
      return false;
    dim += dim < 0 ? rank : 0;
  }
  llvm::sort(*dims);
  bool isSum = torchName(t.op) != "aten.amax";
  if (!isSum && !isa<FloatType>(t.out().getElementType()))
    return false;
  Value sum = t.r.reduce(t.r.convert(x, t.out().getElementType()), *dims,
                         isSum ? Update::Add : Update::Max);
  return t.set(t.r.reshape(sum, t.out().getShape()));
}

//===----------------------------------------------------------------------===//
// Products
//===----------------------------------------------------------------------===//

/// Σ a[..] · b[..] as the result: matrices, or batches of them.
static bool readMatmul(TorchReader &t) {
  Value a = t.in(0), b = t.in(1);
  RankedTensorType type = t.out();
  if (!a || !b || !type)
    return false;
  int64_t left = tensorOf(a).getRank(), right = tensorOf(b).getRank();
  Type element = type.getElementType();
  // Rows of any number of dimensions and a matrix, or batches of one shape.
  if (right == 2 && left >= 2)
    return t.set(t.r.dot(a, b, {}, {}, {left - 1}, {0}, element));
  if (left < 3 || left != right)
    return false;
  Dims batch = llvm::to_vector(llvm::seq<int64_t>(0, left - 2));
  for (int64_t dim : batch) {
    // A batch of extent 1 is repeated.
    int64_t extent = type.getDimSize(dim);
    for (Value *operand : {&a, &b}) {
      RankedTensorType of = tensorOf(*operand);
      if (of.getDimSize(dim) == extent)
        continue;
      if (of.getDimSize(dim) != 1)
        return false;
      Dims shape(of.getShape());
      shape[dim] = extent;
      *operand = t.r.broadcast(*operand, shape);
    }
  }
  return t.set(t.r.dot(a, b, batch, batch, {left - 1}, {left - 2}, element));
}

/// x · wᵀ + bias
static bool readLinear(TorchReader &t) {
  Value x = t.in(0), w = t.in(1);
  RankedTensorType type = t.out();
  if (!x || !w || !type || tensorOf(w).getRank() != 2 ||
      tensorOf(x).getRank() < 1)
    return false;
  Value product = t.r.dot(x, w, {}, {}, {tensorOf(x).getRank() - 1}, {1},
                          type.getElementType());
  if (t.isGiven(2)) {
    Value bias = t.in(2, type);
    if (!bias)
      return false;
    product = apply(t, "add", {product, bias});
  }
  return t.set(product);
}

/// bias + a · b, with factors of 1.
static bool readAddMatmul(TorchReader &t) {
  Value a = t.in(1), b = t.in(2);
  RankedTensorType type = t.out();
  for (unsigned i : {3u, 4u})
    if (t.isGiven(i) && t.number(i) != 1.0)
      return false;
  if (!a || !b || !type || tensorOf(a).getRank() < 2 ||
      tensorOf(a).getRank() != tensorOf(b).getRank())
    return false;
  bool isBatched = torchName(t.op) == "aten.baddbmm";
  if (tensorOf(a).getRank() != (isBatched ? 3 : 2))
    return false;
  Dims batch;
  if (isBatched)
    batch = {0};
  int64_t rank = tensorOf(a).getRank();
  Value product = t.r.dot(a, b, batch, batch, {rank - 1}, {rank - 2},
                          type.getElementType());
  Value bias = t.in(0, type);
  return bias && t.set(apply(t, "add", {product, bias}));
}

/// A product of two tensors by letters, each of which is summed if the result
/// has it not.
static bool readEinsum(TorchReader &t) {
  Operation *from = t.op->getNumOperands() > 1
                        ? t.op->getOperand(0).getDefiningOp()
                        : nullptr;
  auto text = from ? from->getAttrOfType<StringAttr>("value") : StringAttr();
  SmallVector<Value> operands = t.list(1);
  RankedTensorType type = t.out();
  if (!text || operands.size() != 2 || !operands[0] || !operands[1] || !type)
    return false;
  std::string equation = text.getValue().str();
  llvm::erase(equation, ' ');
  auto [inputs, out] = StringRef(equation).split("->");
  auto [left, right] = inputs.split(',');
  StringRef letters[2] = {left, right};
  for (unsigned i : {0u, 1u}) {
    if (int64_t(letters[i].size()) != tensorOf(operands[i]).getRank() ||
        !llvm::all_of(letters[i], llvm::isAlpha))
      return false;
    for (char letter : letters[i])
      if (letters[i].count(letter) != 1 ||
          (!out.contains(letter) && !letters[1 - i].contains(letter)))
        return false;
    operands[i] = t.r.convert(operands[i], type.getElementType());
  }
  Dims batch[2], contracted[2];
  std::string made;
  for (char letter : left)
    if (right.contains(letter)) {
      bool isBatch = out.contains(letter);
      (isBatch ? batch : contracted)[0].push_back(left.find(letter));
      (isBatch ? batch : contracted)[1].push_back(right.find(letter));
      if (isBatch)
        made += letter;
    }
  for (StringRef of : letters)
    for (char letter : of)
      if (!(left.contains(letter) && right.contains(letter)))
        made += letter;
  if (made.size() != out.size())
    return false;
  Dims permutation;
  for (char letter : out) {
    size_t at = made.find(letter);
    if (at == std::string::npos)
      return false;
    permutation.push_back(at);
  }
  Value product = t.r.dot(operands[0], operands[1], batch[0], batch[1],
                          contracted[0], contracted[1], type.getElementType());
  return t.set(t.r.transpose(product, permutation));
}

/// A grouped product: as many rows as it has.
static bool readGroupedProduct(TorchReader &t) {
  Value rows = t.in(0), weights = t.in(1);
  return rows && weights && t.out() && tensorOf(rows).getRank() == 2 &&
         tensorOf(weights).getRank() == 3 &&
         t.set(t.r.make("ragged_dot", {rows, weights}, t.out()));
}

void mlir::moe::raising::addTorchNumbers(llvm::StringMap<TorchRule> &rules) {
  for (const char *name : {"aten.neg", "aten.exp", "aten.log", "aten.log1p",
                           "aten.expm1", "aten.tanh", "aten.sqrt", "aten.rsqrt",
                           "aten.abs", "aten.sigmoid", "aten.erf"})
    rules[name] = readUnary;
  for (const char *name :
       {"aten.add.Tensor", "aten.add.Scalar", "aten.sub.Tensor",
        "aten.sub.Scalar", "aten.mul.Tensor", "aten.mul.Scalar",
        "aten.div.Tensor", "aten.div.Scalar", "aten.maximum", "aten.minimum",
        "aten.rsub.Scalar", "aten.bitwise_and.Tensor", "aten.logical_and",
        "aten.logical_or", "aten.bitwise_or.Tensor"})
    rules[name] = readBinary;
  for (const char *direction : {"eq", "ne", "lt", "le", "gt", "ge"})
    for (const char *kind : {".Tensor", ".Scalar"})
      rules[(Twine("aten.") + direction + kind).str()] = readCompare;
  for (const char *name :
       {"aten.where.self", "aten.where.ScalarOther", "aten.where.ScalarSelf",
        "aten.where.Scalar", "aten.masked_fill.Scalar"})
    rules[name] = readSelect;
  for (const char *name : {"aten.clamp", "aten.clamp_min", "aten.clamp_max"})
    rules[name] = readClamp;
  for (const char *name : {"aten.square", "aten.pow.Tensor_Scalar"})
    rules[name] = readPower;
  rules["aten.relu"] = readRelu;
  rules["aten.silu"] = readSilu;
  rules["aten.gelu"] = readGelu;
  rules["aten.softmax.int"] = readSoftmax;
  rules["aten._softmax"] = readSoftmax;
  rules["aten.sum.dim_IntList"] = readSum;
  rules["aten.amax"] = readSum;
  for (const char *name : {"aten.mm", "aten.bmm", "aten.matmul"})
    rules[name] = readMatmul;
  rules["aten.linear"] = readLinear;
  for (const char *name : {"aten.addmm", "aten.baddbmm"})
    rules[name] = readAddMatmul;
  rules["aten.einsum"] = readEinsum;
  for (const char *name :
       {"aten._grouped_mm", "transformers.grouped_mm_fallback"})
    rules[name] = readGroupedProduct;
}
