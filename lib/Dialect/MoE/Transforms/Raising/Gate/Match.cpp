//===- Match.cpp - Recognise ordinary operations -------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Match.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/IR/Matchers.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

//===----------------------------------------------------------------------===//
// Scalars
//===----------------------------------------------------------------------===//

Value mlir::moe::raising::skipWidening(Value scalar) {
  while (auto op = scalar.getDefiningOp<arith::ExtFOp>())
    scalar = op.getIn();
  return scalar;
}

Value mlir::moe::raising::skipRounding(Value scalar) {
  auto op = scalar.getDefiningOp<arith::TruncFOp>();
  return op ? op.getIn() : scalar;
}

std::optional<double> mlir::moe::raising::constantOf(Value scalar) {
  // A rounding that loses something is not folded.
  FloatAttr value;
  if (!matchPattern(skipRounding(scalar), m_Constant(&value)))
    return std::nullopt;
  double number = value.getValueAsDouble();
  if (skipRounding(scalar) != scalar) {
    if (!scalar.getType().isF32())
      return std::nullopt;
    number = float(number);
  }
  if (!scalar.getType().isF32() || !std::isfinite(number))
    return number;
  // The shortest decimal that is this f32, as the source had it: 1e-20.
  for (int digits = 1; digits < 9; ++digits) {
    char text[32];
    std::snprintf(text, sizeof(text), "%.*g", digits, number);
    double shorter = std::strtod(text, nullptr);
    if (float(shorter) == float(number))
      return shorter;
  }
  return number;
}

/// Returns x of 1 / (1 + exp(−x)); null for anything else.
static Value matchSigmoid(Value scalar) {
  auto division = scalar.getDefiningOp<arith::DivFOp>();
  if (!division || constantOf(division.getLhs()) != 1.0)
    return {};
  double one = 0.0;
  Value sum = division.getRhs();
  Value power = matchWithConstant<arith::AddFOp>(sum, one);
  auto exp = power ? power.getDefiningOp<math::ExpOp>() : nullptr;
  auto negated =
      exp ? exp.getOperand().getDefiningOp<arith::NegFOp>() : nullptr;
  return negated && one == 1.0 ? negated.getOperand() : Value();
}

/// Returns x of softplus(x) as torch computes it: x > 20 ? x : log1p(eˣ).
static Value matchSoftplus(Value scalar) {
  auto select = scalar.getDefiningOp<arith::SelectOp>();
  auto compare =
      select ? select.getCondition().getDefiningOp<arith::CmpFOp>() : nullptr;
  auto log =
      select ? select.getFalseValue().getDefiningOp<math::Log1pOp>() : nullptr;
  auto exp = log ? log.getOperand().getDefiningOp<math::ExpOp>() : nullptr;
  if (!compare || !exp || compare.getPredicate() != arith::CmpFPredicate::OGT)
    return {};
  Value x = exp.getOperand();
  // Beyond 20 both are the same in f32.
  std::optional<double> bound = constantOf(compare.getRhs());
  return compare.getLhs() == x && select.getTrueValue() == x && bound &&
                 *bound >= 17.0
             ? x
             : Value();
}

/// Returns x of √softplus(x) in one body.
static Value matchSqrtSoftplus(Value scalar) {
  auto root = scalar.getDefiningOp<math::SqrtOp>();
  return root ? matchSoftplus(root.getOperand()) : Value();
}

static Value matchRelu(Value scalar) {
  double zero = 1.0;
  Value x = matchWithConstant<arith::MaximumFOp>(scalar, zero);
  return zero == 0.0 ? x : Value();
}

//===----------------------------------------------------------------------===//
// Tensors
//===----------------------------------------------------------------------===//

Value Elementwise::inputOf(Value scalar) {
  auto argument = dyn_cast<BlockArgument>(skipWidening(scalar));
  if (!argument || argument.getOwner() != op.getBody() ||
      argument.getArgNumber() >= op.getNumDpsInputs())
    return {};
  return op.getDpsInputs()[argument.getArgNumber()];
}

Value Elementwise::inputOf(Value scalar, ArrayRef<unsigned> dims) {
  Value input = inputOf(scalar);
  if (!input)
    return {};
  unsigned index = cast<BlockArgument>(skipWidening(scalar)).getArgNumber();
  ArrayRef<AffineExpr> exprs = op.getIndexingMapsArray()[index].getResults();
  if (exprs.size() < dims.size())
    return {};
  // Extents of 1, which are kept where a dimension is reduced, have index 0.
  SmallVector<int64_t> loops = op.getStaticLoopRanges();
  auto isUnit = [&](AffineExpr expr) {
    auto dim = dyn_cast<AffineDimExpr>(expr);
    return dim && loops[dim.getPosition()] == 1;
  };
  for (auto [place, expr] : llvm::enumerate(exprs)) {
    bool isZero =
        isa<AffineConstantExpr>(expr) &&
        cast<AffineConstantExpr>(expr).getValue() == 0 &&
        cast<RankedTensorType>(input.getType()).getDimSize(place) == 1;
    bool fits = place < dims.size()
                    ? expr == getAffineDimExpr(dims[place], op.getContext()) ||
                          (isZero && loops[dims[place]] == 1)
                    : isZero || isUnit(expr);
    if (!fits)
      return {};
  }
  return input;
}

std::optional<Elementwise> mlir::moe::raising::matchElementwise(Value tensor) {
  auto op = tensor.getDefiningOp<linalg::GenericOp>();
  if (!op || op.getNumDpsInits() != 1 || !op.hasPureTensorSemantics() ||
      op.getNumParallelLoops() != op.getNumLoops() ||
      !op.getIndexingMapsArray().back().isIdentity() ||
      op.payloadUsesValueFromOperand(op.getDpsInitOperand(0)))
    return std::nullopt;
  return Elementwise{op};
}

/// Returns the dimensions 0, 1, ... of an elementwise operation.
static SmallVector<unsigned> allDims(Elementwise match) {
  return llvm::to_vector(llvm::seq<unsigned>(0, match.op.getNumLoops()));
}

Value mlir::moe::raising::skipTensorWidening(Value tensor) {
  while (std::optional<Elementwise> match = matchElementwise(tensor)) {
    Value input = match->inputOf(match->yielded(), allDims(*match));
    if (!input)
      break;
    tensor = input;
  }
  return tensor;
}

Value mlir::moe::raising::skipTensorRounding(Value tensor, Type type) {
  std::optional<Elementwise> match = matchElementwise(tensor);
  if (!match || getElementTypeOrSelf(tensor) != type)
    return tensor;
  auto rounding = match->yielded().getDefiningOp<arith::TruncFOp>();
  Value input = rounding && rounding.getIn().getType().isF32()
                    ? match->inputOf(rounding.getIn(), allDims(*match))
                    : Value();
  return input && getElementTypeOrSelf(input).isF32() ? input : tensor;
}

Value mlir::moe::raising::skipExtensions(Value tensor) {
  while (auto extension = tensor.getDefiningOp<arith::ExtSIOp>())
    tensor = extension.getIn();
  while (std::optional<Elementwise> match = matchElementwise(tensor)) {
    Operation *cast = match->yielded().getDefiningOp();
    if (!isa_and_present<arith::ExtSIOp, arith::ExtUIOp>(cast))
      break;
    Value input = match->inputOf(cast->getOperand(0), allDims(*match));
    if (!input)
      break;
    tensor = input;
  }
  return tensor;
}

Value mlir::moe::raising::matchReduction(Value tensor, Reduction kind) {
  auto op = tensor.getDefiningOp<linalg::GenericOp>();
  if (!op || op.getNumDpsInits() != 1 || op.getNumDpsInputs() != 1 ||
      op.getNumReductionLoops() != 1)
    return {};
  SmallVector<AffineMap> maps = op.getIndexingMapsArray();
  unsigned last = op.getNumLoops() - 1;
  AffineMap out = AffineMap::getMultiDimIdentityMap(last + 1, op.getContext())
                      .getMajorSubMap(last);
  // The dimension may be kept, with extent 1.
  AffineMap kept =
      out.insertResult(getAffineConstantExpr(0, op.getContext()), last);
  if (op.getIteratorTypesArray()[last] != utils::IteratorType::reduction ||
      !maps[0].isIdentity() || (maps[1] != out && maps[1] != kept))
    return {};
  auto fill = op.getDpsInits()[0].getDefiningOp<linalg::FillOp>();
  std::optional<double> start =
      fill ? constantOf(fill.getInputs()[0]) : std::nullopt;
  double expected =
      kind == Reduction::Sum ? 0.0 : -std::numeric_limits<double>::infinity();
  if (start != expected)
    return {};
  Operation *body =
      op.getBody()->getTerminator()->getOperand(0).getDefiningOp();
  bool isKind = kind == Reduction::Sum
                    ? isa_and_present<arith::AddFOp>(body)
                    : isa_and_present<arith::MaximumFOp>(body);
  if (!isKind || !body->getResult(0).getType().isF32())
    return {};
  Value element = op.getBody()->getArgument(0);
  Value sum = op.getBody()->getArgument(1);
  for (unsigned i : {0u, 1u})
    if (body->getOperand(i) == sum &&
        skipWidening(body->getOperand(1 - i)) == element)
      return op.getDpsInputs()[0];
  return {};
}

Value mlir::moe::raising::matchScore(Value tensor, Score &score) {
  auto type = dyn_cast<RankedTensorType>(tensor.getType());
  if (auto softmax = tensor.getDefiningOp<linalg::SoftmaxOp>()) {
    score = Score::Softmax;
    return type.getElementType().isF32() &&
                   int64_t(softmax.getDimension()) == type.getRank() - 1
               ? softmax.getInput()
               : Value();
  }
  std::optional<Elementwise> match = matchElementwise(tensor);
  if (!match)
    return {};
  Value result = skipRounding(match->yielded());
  if (!result.getType().isF32())
    return {};
  for (auto [function, kind] :
       {std::pair{matchSigmoid, Score::Sigmoid},
        std::pair{matchSqrtSoftplus, Score::SqrtSoftplus},
        std::pair{matchRelu, Score::Relu}})
    if (Value x = function(result)) {
      score = kind;
      return match->inputOf(x, allDims(*match));
    }
  // Or the root and softplus, without a rounding, in an operation each.
  auto root = result.getDefiningOp<math::SqrtOp>();
  Value inner =
      root ? match->inputOf(root.getOperand(), allDims(*match)) : Value();
  std::optional<Elementwise> softplus =
      inner ? matchElementwise(inner) : std::nullopt;
  if (!softplus || !softplus->yielded().getType().isF32())
    return {};
  score = Score::SqrtSoftplus;
  Value x = matchSoftplus(softplus->yielded());
  return x ? softplus->inputOf(x, allDims(*softplus)) : Value();
}

Value mlir::moe::raising::skipViewsOfIds(Value tensor) {
  tensor = skipExtensions(tensor);
  auto collapse = tensor.getDefiningOp<tensor::CollapseShapeOp>();
  return collapse && collapse.getSrcType().getRank() == 2 &&
                 collapse.getResultType().getRank() == 1 &&
                 collapse.getSrcType().getDimSize(1) == 1
             ? skipExtensions(collapse.getSrc())
             : tensor;
}

bool mlir::moe::raising::isGatherOf(Value tensor, Value source, Value ids) {
  std::optional<Elementwise> match = matchElementwise(tensor);
  if (!match)
    return false;
  auto extract = match->yielded().getDefiningOp<tensor::ExtractOp>();
  if (!extract || extract.getTensor() != source ||
      extract.getIndices().size() != 2)
    return false;
  auto row = extract.getIndices()[0].getDefiningOp<linalg::IndexOp>();
  auto column = extract.getIndices()[1].getDefiningOp<arith::IndexCastOp>();
  if (!row || row.getDim() != 0 || !column)
    return false;
  if (match->op.getNumLoops() > 2)
    return false;
  Value index = match->inputOf(column.getIn(), allDims(*match));
  return index && skipViewsOfIds(index) == ids;
}

//===----------------------------------------------------------------------===//
// Gates
//===----------------------------------------------------------------------===//

bool mlir::moe::raising::isTopK(GateOp gate) {
  return gate.getScore() == Score::None &&
         gate.getOrder() == Order::ScoreThenSelect &&
         gate.getSelection() == Selection::TokenChoice && !gate.getNoise() &&
         !gate.getGivenIds() && !gate.getMargin() && !gate.getCapacity() &&
         !gate.getThreshold();
}

bool mlir::moe::raising::hasPlainWeights(GateOp gate) {
  return isTopK(gate) && !gate.getNormalize() && !gate.getScale();
}
