//===- Axes.cpp - What dimensions are of ---------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Routing/Values/Axes.h"

#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace mlir::moe::raising;

int64_t AxisExtents::of(char axis) const {
  switch (axis) {
  case 't':
    return tokens;
  case 'k':
    return choices;
  case 'e':
    return experts;
  case 'c':
    return slots;
  case 'g':
    return groups ? groups : ShapedType::kDynamic;
  case 's':
    return groups && !ShapedType::isDynamic(tokens) ? tokens / groups
                                                    : ShapedType::kDynamic;
  default:
    return ShapedType::kDynamic;
  }
}

std::optional<Axes> mlir::moe::raising::reshapeAxes(const Axes &axes,
                                                    ArrayRef<int64_t> from,
                                                    ArrayRef<int64_t> to,
                                                    AxisExtents &extents) {
  if (axes.size() != from.size())
    return std::nullopt;
  // The axes in their order, with their extents.
  SmallVector<std::pair<char, int64_t>> factors;
  for (auto [names, extent] : llvm::zip_equal(axes, from))
    for (char name : names) {
      bool isWhole = names.size() == 1;
      factors.push_back({name, isWhole ? extent : extents.of(name)});
      if (!isWhole && (name == '*' || name == 'n' || name == 'i'))
        return std::nullopt;
    }
  // The static extents of the dimensions and axes that are left.
  auto productOf = [](auto range) {
    int64_t product = 1;
    for (int64_t extent : range)
      product *= ShapedType::isDynamic(extent) ? 1 : extent;
    return product;
  };
  Axes result;
  size_t next = 0;
  int64_t groups = extents.groups;
  // Tokens are split where a dimension has some of them.
  auto split = [&](int64_t count) {
    auto [name, size] = factors[next];
    if (name != 't' || ShapedType::isDynamic(size) || count <= 1 ||
        size <= count || size % count != 0 || (groups && groups != count))
      return;
    groups = count;
    factors[next] = {'s', size / count};
    factors.insert(factors.begin() + next, {'g', count});
  };
  for (auto [index, extent] : llvm::enumerate(to)) {
    std::string &names = result.emplace_back();
    if (extent == 1)
      continue;
    int64_t have = 1;
    bool isDynamic = false;
    auto isComplete = [&] {
      if (!ShapedType::isDynamic(extent))
        return !isDynamic && have == extent;
      return isDynamic && productOf(llvm::map_range(
                              ArrayRef(factors).drop_front(next),
                              [](auto &factor) { return factor.second; })) ==
                              productOf(to.drop_front(index + 1));
    };
    while (!isComplete()) {
      if (next == factors.size())
        return std::nullopt;
      if (!ShapedType::isDynamic(extent) && !isDynamic && extent % have == 0)
        split(extent / have);
      auto [name, size] = factors[next++];
      names += name;
      if (ShapedType::isDynamic(size))
        isDynamic = true;
      else
        have *= size;
      if (!ShapedType::isDynamic(extent) && (isDynamic || have > extent))
        return std::nullopt;
    }
    if (size_t at = names.find("gs"); at != std::string::npos)
      names.replace(at, 2, "t");
    if (names.size() > 1 && names.find_first_not_of('*') == std::string::npos)
      names = "*";
    if (names.size() > 1 && names.find_first_of("*ni") != std::string::npos)
      return std::nullopt;
  }
  if (next != factors.size())
    return std::nullopt;
  extents.groups = groups;
  return result;
}

bool mlir::moe::raising::isBroadcast(Operation *op) {
  return isNamed(op, "stablehlo.broadcast_in_dim") ||
         isNamed(op, "stablehlo.dynamic_broadcast_in_dim");
}

bool mlir::moe::raising::isReshape(Operation *op) {
  return isNamed(op, "stablehlo.reshape") ||
         isNamed(op, "stablehlo.dynamic_reshape") ||
         isa_and_present<tensor::CollapseShapeOp, tensor::ExpandShapeOp>(op);
}

/// Returns where the dimensions of the operand of a broadcast are in its
/// result, and which it repeats.
static std::optional<SmallVector<std::pair<int64_t, bool>>>
readBroadcast(Operation *op) {
  auto dims = integersOf(op, "broadcast_dimensions");
  auto from = dyn_cast<RankedTensorType>(op->getOperand(0).getType()),
       to = dyn_cast<RankedTensorType>(op->getResult(0).getType());
  if (!dims || !from || !to || from.getRank() != int64_t(dims->size()))
    return std::nullopt;
  SmallVector<std::pair<int64_t, bool>> places;
  for (auto [index, dim] : llvm::enumerate(*dims)) {
    if (dim < 0 || dim >= to.getRank())
      return std::nullopt;
    bool isOne = from.getDimSize(index) == 1;
    // A dynamic extent may be 1 and be repeated; it is not where both are.
    if (!isOne && from.getDimSize(index) != to.getDimSize(dim))
      return std::nullopt;
    places.push_back({dim, isOne && to.getDimSize(dim) != 1});
  }
  return places;
}

std::optional<Axes> mlir::moe::raising::broadcastAxes(Operation *op,
                                                      const Axes &axes) {
  auto places = readBroadcast(op);
  if (!places || places->size() != axes.size())
    return std::nullopt;
  auto to = cast<RankedTensorType>(op->getResult(0).getType());
  Axes result;
  for (int64_t extent : to.getShape())
    result.push_back(extent == 1 ? "" : "*");
  for (auto [names, place] : llvm::zip_equal(axes, *places))
    if (!place.second)
      result[place.first] = names;
  return result;
}

std::optional<Axes> mlir::moe::raising::sourceAxes(Operation *op,
                                                   const Axes &axes) {
  auto places = readBroadcast(op);
  if (!places)
    return std::nullopt;
  Axes result;
  for (auto [dim, isRepeated] : *places) {
    if (dim >= int64_t(axes.size()))
      return std::nullopt;
    result.push_back(isRepeated ? "" : axes[dim]);
  }
  return result;
}

std::optional<Axes> mlir::moe::raising::mergeAxes(const Axes &a,
                                                  const Axes &b) {
  if (a.size() != b.size())
    return std::nullopt;
  Axes merged = a;
  for (auto [names, other] : llvm::zip_equal(merged, b)) {
    if (names == "*")
      names = other;
    else if (other != "*" && names != other)
      return std::nullopt;
  }
  return merged;
}

bool mlir::moe::raising::hasTokens(const Axes &axes) {
  unsigned whole = countAxis(axes, 't'), groups = countAxis(axes, 'g'),
           some = countAxis(axes, 's');
  return whole + groups == 1 && groups == some;
}

unsigned mlir::moe::raising::countAxis(const Axes &axes, char axis) {
  unsigned count = 0;
  for (const std::string &names : axes)
    count += llvm::count(names, axis);
  return count;
}
