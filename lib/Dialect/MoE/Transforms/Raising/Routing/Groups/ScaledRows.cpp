//===- ScaledRows.cpp - Rows that are weighed before experts -------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// All experts on all tokens, whose rows were multiplied by weights that are 0
// but for the choices: the sum over the experts has the others too. It is that
// of the choices if an expert makes zeros of a row of zeros, which one with a
// bias, or with exp, does not. What an expert computes of zeros is evaluated.
//
//===----------------------------------------------------------------------===//

#include "Routing/Groups/ScaledRows.h"
#include "Contraction.h"
#include "Extents.h"

#include <cmath>

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

/// Returns a function of numbers; none if it is not known.
static std::optional<double> evaluate(StringRef name, ArrayRef<double> x) {
  if (x.size() == 1) {
    using Function = double (*)(double);
    static const llvm::StringMap<Function> functions{
        {"abs", std::fabs},
        {"convert", [](double x) { return x; }},
        {"erf", std::erf},
        {"exponential", std::exp},
        {"exponential_minus_one", std::expm1},
        {"log", std::log},
        {"log_plus_one", std::log1p},
        {"logistic", [](double x) { return 1 / (1 + std::exp(-x)); }},
        {"negate", [](double x) { return -x; }},
        {"rsqrt", [](double x) { return 1 / std::sqrt(x); }},
        {"sqrt", std::sqrt},
        {"tanh", std::tanh}};
    Function function = functions.lookup(name);
    return function ? std::optional(function(x[0])) : std::nullopt;
  }
  if (x.size() == 3 && name == "clamp")
    return std::min(std::max(x[0], x[1]), x[2]);
  if (x.size() != 2)
    return std::nullopt;
  return llvm::StringSwitch<std::optional<double>>(name)
      .Case("add", x[0] + x[1])
      .Case("subtract", x[0] - x[1])
      .Case("multiply", x[0] * x[1])
      .Case("divide", x[0] / x[1])
      .Case("maximum", std::max(x[0], x[1]))
      .Case("minimum", std::min(x[0], x[1]))
      .Case("power", std::pow(x[0], x[1]))
      .Default(std::nullopt);
}

namespace {
/// The number that a value is, in each column, where a token did not choose an
/// expert; none if it is not known.
class Outside {
public:
  Outside(const Selector &mask, Routing &routing)
      : mask(mask), routing(routing) {}

  std::optional<double> numberOf(Value value) {
    auto known = numbers.find(value);
    if (known != numbers.end())
      return known->second;
    if (numbers.size() > 1000)
      return std::nullopt;
    numbers[value] = std::nullopt;
    std::optional<double> number = compute(value);
    numbers[value] = number;
    return number;
  }

private:
  bool isMask(Value value) const {
    std::optional<Selector> selector = routing.selectors.get(value);
    return selector && selector->kind == Selector::Product && selector->hot &&
           !selector->isPlaceful() && haveSameWeights(*selector, mask);
  }

  std::optional<double> compute(Value value) {
    if (std::optional<double> splat = splatOf(value))
      return splat;
    Operation *op = value.getDefiningOp();
    if (!op || op->getNumOperands() == 0)
      return std::nullopt;
    if (isBroadcast(op) || isReshape(op) ||
        isNamed(op, "stablehlo.transpose") || isNamed(op, "stablehlo.slice"))
      return numberOf(op->getOperand(0));
    bool isProduct = isNamed(op, "stablehlo.multiply");
    if (isProduct && llvm::any_of(op->getOperands(), [&](Value operand) {
          return isMask(operand);
        }))
      return 0;
    // A product with zeros, of matrices too.
    if (isProduct || readContraction(op)) {
      if (llvm::any_of(op->getOperands(),
                       [&](Value operand) { return numberOf(operand) == 0.0; }))
        return 0;
      if (!isProduct)
        return std::nullopt;
    }
    if (!isElementwise(op))
      return std::nullopt;
    SmallVector<double> operands;
    for (Value operand : op->getOperands()) {
      std::optional<double> number = numberOf(operand);
      if (!number)
        return std::nullopt;
      operands.push_back(*number);
    }
    return evaluate(stablehloName(op), operands);
  }

  const Selector &mask;
  Routing &routing;
  llvm::DenseMap<Value, std::optional<double>> numbers;
};
} // namespace

bool mlir::moe::raising::isZeroOutside(const Selector &mask, Value value,
                                       Routing &routing) {
  return Outside(mask, routing).numberOf(value) == 0.0;
}
