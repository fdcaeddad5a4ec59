//===- LinalgReader.cpp - Operations of linalg and tensor ----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A structured operation is read as products, sums and elementwise operations
// of all its loops: the operands repeated along the loops that they have not,
// the body, and the sum along the loops that the result has not.
//
//===----------------------------------------------------------------------===//

#include "Contraction.h"
#include "Extents.h"
#include "Reading.h"
#include "Routing/Routing.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/Matchers.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

using Dims = SmallVector<int64_t>;

//===----------------------------------------------------------------------===//
// Elementwise operations, of scalars and tensors
//===----------------------------------------------------------------------===//

/// Returns the name in StableHLO; empty for others.
static StringRef nameOf(Operation *op) {
  static const llvm::StringMap<StringRef> names{
      {"arith.addf", "add"},
      {"arith.addi", "add"},
      {"arith.subf", "subtract"},
      {"arith.subi", "subtract"},
      {"arith.mulf", "multiply"},
      {"arith.muli", "multiply"},
      {"arith.divf", "divide"},
      {"arith.maximumf", "maximum"},
      {"arith.minimumf", "minimum"},
      {"arith.maxsi", "maximum"},
      {"arith.minsi", "minimum"},
      {"arith.andi", "and"},
      {"arith.ori", "or"},
      {"arith.negf", "negate"},
      {"arith.select", "select"},
      {"arith.extf", "convert"},
      {"arith.truncf", "convert"},
      {"arith.extsi", "convert"},
      {"arith.trunci", "convert"},
      {"arith.sitofp", "convert"},
      {"arith.index_cast", "convert"},
      {"math.exp", "exponential"},
      {"math.log", "log"},
      {"math.log1p", "log_plus_one"},
      {"math.tanh", "tanh"},
      {"math.erf", "erf"},
      {"math.sqrt", "sqrt"},
      {"math.rsqrt", "rsqrt"},
      {"math.absf", "abs"},
      {"math.powf", "power"},
      {"math.expm1", "exponential_minus_one"}};
  StringRef name = op->getName().getStringRef();
  // Of truth values alone: others are signed.
  if (name == "arith.extui" || name == "arith.uitofp")
    return getElementTypeOrSelf(op->getOperand(0)).isInteger(1) ? "convert"
                                                                : StringRef();
  return names.lookup(name);
}

static StringRef directionFor(arith::CmpIPredicate predicate) {
  switch (predicate) {
  case arith::CmpIPredicate::eq:
    return "EQ";
  case arith::CmpIPredicate::ne:
    return "NE";
  case arith::CmpIPredicate::slt:
    return "LT";
  case arith::CmpIPredicate::sle:
    return "LE";
  case arith::CmpIPredicate::sgt:
    return "GT";
  case arith::CmpIPredicate::sge:
    return "GE";
  default:
    return "";
  }
}

static StringRef directionFor(arith::CmpFPredicate predicate) {
  switch (predicate) {
  case arith::CmpFPredicate::OEQ:
    return "EQ";
  case arith::CmpFPredicate::UNE:
    return "NE";
  case arith::CmpFPredicate::OLT:
    return "LT";
  case arith::CmpFPredicate::OLE:
    return "LE";
  case arith::CmpFPredicate::OGT:
    return "GT";
  case arith::CmpFPredicate::OGE:
    return "GE";
  default:
    return "";
  }
}

/// Reads what `op` computes of tensors; `element` is that of its result. Null
/// if it has no meaning.
static Value readOperation(Reader &r, Operation *op, ValueRange operands,
                           Type element) {
  StringRef direction;
  if (auto compare = dyn_cast<arith::CmpIOp>(op))
    direction = directionFor(compare.getPredicate());
  else if (auto compare = dyn_cast<arith::CmpFOp>(op))
    direction = directionFor(compare.getPredicate());
  if (!direction.empty())
    return r.compare(direction, operands[0], operands[1]);
  StringRef name = nameOf(op);
  if (name.empty())
    return {};
  // Indices are read as integers.
  if (element.isIndex())
    element = r.builder().getI64Type();
  if (name == "convert")
    return r.convert(operands[0], element);
  return r.make(name, operands, tensorOf(operands.back()).clone(element));
}

static bool readElementwise(Operation *op, Reader &r) {
  auto type = dyn_cast<RankedTensorType>(op->getResult(0).getType());
  if (!type || type.getElementType().isIndex())
    return false;
  SmallVector<Value> operands;
  for (Value operand : op->getOperands()) {
    if (!isa<RankedTensorType>(operand.getType()))
      return false;
    operands.push_back(r.tensor(operand));
  }
  Value value = readOperation(r, op, operands, type.getElementType());
  if (!value)
    return false;
  r.set(op->getResult(0), value);
  return true;
}

//===----------------------------------------------------------------------===//
// Structured operations
//===----------------------------------------------------------------------===//

namespace {
/// The body of a structured operation, of all its loops.
class BodyReader {
public:
  BodyReader(linalg::LinalgOp op, Reader &r)
      : op(op), r(r), shape(op.getStaticLoopRanges()) {}

  bool read() {
    if (!op.hasPureTensorSemantics() || op.getNumDpsInits() != 1 ||
        op->getNumResults() != 1 || op.getNumLoops() == 0 ||
        op->getNumRegions() != 1)
      return false;
    SmallVector<AffineMap> maps = op.getIndexingMapsArray();
    for (OpOperand *input : op.getDpsInputOperands()) {
      Value value = readInput(input->get(), op.getMatchingIndexingMap(input));
      if (value)
        values[op.getMatchingBlockArgument(input)] = value;
    }
    Value yielded = op.getBlock()->getTerminator()->getOperand(0), sum;
    std::optional<Update> update;
    Dims reduced;
    for (auto [loop, kind] : llvm::enumerate(op.getIteratorTypesArray()))
      if (kind != utils::IteratorType::parallel)
        reduced.push_back(loop);
    if (!reduced.empty()) {
      update = matchUpdate(yielded);
      if (!update)
        return false;
    }
    Value value = valueOf(yielded);
    if (!value)
      return false;
    if (update)
      value = r.reduce(value, reduced, *update, first);
    // The dimensions of the result.
    Dims kept, permutation;
    for (int64_t loop = 0; loop < int64_t(op.getNumLoops()); ++loop)
      if (!llvm::is_contained(reduced, loop))
        kept.push_back(loop);
    AffineMap out = maps.back();
    if (out.getNumResults() != kept.size())
      return false;
    for (AffineExpr expr : out.getResults()) {
      auto dim = dyn_cast<AffineDimExpr>(expr);
      auto at = dim ? llvm::find(kept, int64_t(dim.getPosition())) : kept.end();
      if (at == kept.end())
        return false;
      permutation.push_back(at - kept.begin());
    }
    r.set(op->getResult(0), r.transpose(value, permutation));
    return true;
  }

private:
  /// The operand along all loops; null if its map is none of loops.
  Value readInput(Value operand, AffineMap map) {
    if (!isa<RankedTensorType>(operand.getType())) {
      Attribute constant;
      return matchPattern(operand, m_Constant(&constant)) ? splat(constant)
                                                          : Value();
    }
    // Dimensions of extent 1 may have index 0: they are left out.
    Value value = r.tensor(operand);
    RankedTensorType type = tensorOf(value);
    Dims loops, order, sorted, kept;
    for (auto [dim, expr] : llvm::enumerate(map.getResults())) {
      auto loop = dyn_cast<AffineDimExpr>(expr);
      if (!loop && (expr != r.builder().getAffineConstantExpr(0) ||
                    type.getDimSize(dim) != 1))
        return {};
      if (!loop)
        continue;
      if (llvm::is_contained(loops, int64_t(loop.getPosition())))
        return {};
      loops.push_back(loop.getPosition());
      kept.push_back(type.getDimSize(dim));
    }
    value = r.reshape(value, kept);
    order = llvm::to_vector(llvm::seq<int64_t>(0, loops.size()));
    llvm::sort(order,
               [&](int64_t a, int64_t b) { return loops[a] < loops[b]; });
    for (int64_t index : order)
      sorted.push_back(loops[index]);
    return r.broadcast(r.transpose(value, order), sorted, shape);
  }

  Value splat(Attribute constant) {
    OpBuilder &b = r.builder();
    if (auto number = dyn_cast<FloatAttr>(constant))
      return r.splat(RankedTensorType::get(shape, number.getType()),
                     number.getValueAsDouble(), firstOperand());
    auto integer = dyn_cast<IntegerAttr>(constant);
    if (!integer)
      return {};
    Type type = integer.getType();
    if (type.isIndex())
      type = b.getI64Type();
    return r.splat(RankedTensorType::get(shape, type),
                   type.isInteger(1) ? double(integer.getValue().getZExtValue())
                                     : double(integer.getInt()),
                   firstOperand());
  }

  /// An operand whose first dimension is the first loop.
  Value firstOperand() {
    for (OpOperand *input : op.getDpsInputOperands()) {
      AffineMap map = op.getMatchingIndexingMap(input);
      if (isa<RankedTensorType>(input->get().getType()) &&
          map.getNumResults() > 0 &&
          map.getResult(0) == r.builder().getAffineDimExpr(0))
        return r.tensor(input->get());
    }
    return {};
  }

  /// Returns what an accumulation adds, and that it does, from zero.
  std::optional<Update> matchUpdate(Value &yielded) {
    Operation *last = yielded.getDefiningOp();
    BlockArgument into = op.getMatchingBlockArgument(op.getDpsInitOperand(0));
    auto fill = op.getDpsInits()[0].getDefiningOp<linalg::FillOp>();
    if (!last || !fill || last->getNumOperands() != 2 || !into.hasOneUse())
      return std::nullopt;
    bool isSum = isa<arith::AddFOp, arith::AddIOp>(last),
         isMax = isa<arith::MaximumFOp>(last),
         isMin = isa<arith::MinSIOp>(last);
    Value start = fill.getInputs()[0];
    APInt least;
    if (!(isSum && (matchPattern(start, m_AnyZeroFloat()) ||
                    matchPattern(start, m_Zero()))) &&
        !(isMax && matchPattern(start, m_NegInfFloat())) &&
        !(isMin && matchPattern(start, m_ConstantInt(&least))))
      return std::nullopt;
    if (isMin)
      first = double(least.getSExtValue());
    for (unsigned i : {0u, 1u})
      if (last->getOperand(i) == into) {
        yielded = last->getOperand(1 - i);
        return isSum ? Update::Add : isMax ? Update::Max : Update::Min;
      }
    return std::nullopt;
  }

  /// The value of a scalar of the body along all loops.
  Value valueOf(Value scalar) {
    if (Value known = values.lookup(scalar))
      return known;
    Operation *body = scalar.getDefiningOp();
    if (!body)
      return {};
    Attribute constant;
    if (matchPattern(scalar, m_Constant(&constant)))
      return values[scalar] = splat(constant);
    if (body->getBlock() != op.getBlock())
      return {};
    if (auto index = dyn_cast<linalg::IndexOp>(body))
      return values[scalar] =
                 r.iota(RankedTensorType::get(shape, r.builder().getI64Type()),
                        index.getDim(), firstOperand());
    if (auto extract = dyn_cast<tensor::ExtractOp>(body))
      return values[scalar] = readExtract(extract);
    if (body->getNumResults() != 1 || body->getNumRegions() != 0)
      return {};
    SmallVector<Value> operands;
    for (Value operand : body->getOperands()) {
      operands.push_back(valueOf(operand));
      if (!operands.back())
        return {};
    }
    return values[scalar] =
               readOperation(r, body, operands, body->getResult(0).getType());
  }

  /// weights[ids[first loops], last loops]
  Value readExtract(tensor::ExtractOp extract) {
    auto type = extract.getTensor().getType();
    int64_t idLoops = int64_t(op.getNumLoops()) - (type.getRank() - 1);
    if (type.getRank() < 2 || idLoops < 1)
      return {};
    for (int64_t dim = 1; dim < type.getRank(); ++dim) {
      auto index = extract.getIndices()[dim].getDefiningOp<linalg::IndexOp>();
      if (!index || int64_t(index.getDim()) != idLoops + dim - 1 ||
          shape[idLoops + dim - 1] != type.getDimSize(dim))
        return {};
    }
    Value id = extract.getIndices()[0];
    while (Operation *of = id.getDefiningOp()) {
      if (auto select = dyn_cast<arith::SelectOp>(of)) {
        // An index below 0 counts from the end.
        auto test = select.getCondition().getDefiningOp<arith::CmpIOp>();
        id = select.getFalseValue();
        if (!test || test.getPredicate() != arith::CmpIPredicate::slt ||
            test.getLhs() != id || !matchPattern(test.getRhs(), m_Zero()))
          return {};
      } else if (isa<arith::IndexCastOp, arith::ExtSIOp>(of)) {
        id = of->getOperand(0);
      } else {
        return {};
      }
    }
    auto argument = dyn_cast<BlockArgument>(id);
    if (!argument || argument.getOwner() != op.getBlock() ||
        argument.getArgNumber() >= op.getNumDpsInputs())
      return {};
    OpOperand *input = op.getDpsInputOperand(argument.getArgNumber());
    AffineMap map = op.getMatchingIndexingMap(input);
    if (int64_t(map.getNumResults()) != idLoops)
      return {};
    for (auto [index, expr] : llvm::enumerate(map.getResults()))
      if (expr != r.builder().getAffineDimExpr(index))
        return {};
    return r.gather(r.tensor(extract.getTensor()), r.tensor(input->get()));
  }

  linalg::LinalgOp op;
  Reader &r;
  Dims shape;
  double first = 0; // that a minimum starts from
  llvm::DenseMap<Value, Value> values;
};
} // namespace

/// A product of two operands, summed.
static bool readDot(linalg::LinalgOp op, Reader &r) {
  std::optional<Contraction> dot = readContraction(op);
  if (!dot)
    return false;
  Dims batch[2], contracted[2];
  SmallVector<unsigned> made;
  auto isIn = [](ArrayRef<unsigned> loops, unsigned loop) {
    return llvm::is_contained(loops, loop);
  };
  for (auto [dim, loop] : llvm::enumerate(dot->lhsLoops)) {
    auto other = llvm::find(dot->rhsLoops, loop);
    if (other == dot->rhsLoops.end()) {
      if (!isIn(dot->outLoops, loop))
        return false;
      continue;
    }
    bool isBatch = isIn(dot->outLoops, loop);
    (isBatch ? batch : contracted)[0].push_back(dim);
    (isBatch ? batch : contracted)[1].push_back(other - dot->rhsLoops.begin());
    if (isBatch)
      made.push_back(loop);
  }
  for (unsigned i : {0u, 1u})
    for (unsigned loop : dot->loops(i))
      if (!isIn(dot->loops(1 - i), loop)) {
        if (!isIn(dot->outLoops, loop))
          return false;
        made.push_back(loop);
      }
  Dims permutation;
  for (unsigned loop : dot->outLoops) {
    auto at = llvm::find(made, loop);
    if (at == made.end())
      return false;
    permutation.push_back(at - made.begin());
  }
  Value product = r.dot(r.tensor(dot->lhs), r.tensor(dot->rhs), batch[0],
                        batch[1], contracted[0], contracted[1],
                        getElementTypeOrSelf(op->getResult(0)));
  r.set(op->getResult(0), r.transpose(product, permutation));
  return true;
}

/// Returns the scalar of the body of `op` that is the index of a loop: it is
/// one of the operation, or an input has it along that loop.
static Value findIndex(linalg::GenericOp op, unsigned loop, Reader &r) {
  for (auto index : op.getBody()->getOps<linalg::IndexOp>())
    if (index.getDim() == loop)
      return index;
  if (op.getNumDpsInputs() != 2)
    return {};
  OpOperand *input = op.getDpsInputOperand(1);
  Operation *iota = r.tensor(input->get()).getDefiningOp();
  AffineMap map = op.getMatchingIndexingMap(input);
  SmallVector<Value> values;
  for (; iota; iota = iota->getOperand(0).getDefiningOp()) {
    values.push_back(iota->getResult(0));
    if (!isNamed(iota, "stablehlo.convert"))
      break;
  }
  auto dim = isNamed(iota, "stablehlo.iota")
                 ? integersOf(iota, "iota_dimension")
                 : std::nullopt;
  auto isExact = [&](Value value) {
    return countsExactly(value, dim->front());
  };
  return dim && llvm::all_of(values, isExact) &&
                 map.getResult(dim->front()) ==
                     getAffineDimExpr(loop, op.getContext())
             ? op.getMatchingBlockArgument(input)
             : Value();
}

/// The largest value along a dimension and its index, as two results.
static bool readArgmax(Operation *other, Reader &r) {
  auto op = dyn_cast<linalg::GenericOp>(other);
  if (!op || op->getNumResults() != 2 || !op.hasPureTensorSemantics() ||
      op.getNumReductionLoops() != 1 || op.getNumDpsInputs() > 2 ||
      op.getNumDpsInputs() == 0)
    return false;
  SmallVector<AffineMap> maps = op.getIndexingMapsArray();
  AffineMap out = maps.back();
  SmallVector<unsigned> reduced;
  op.getReductionDims(reduced);
  // The loops that stay, and the one that is reduced.
  SmallVector<AffineExpr> order(out.getResults());
  order.push_back(getAffineDimExpr(reduced[0], op.getContext()));
  if (maps[op.getNumDpsInputs()] != out || !out.isProjectedPermutation() ||
      !maps[0].isPermutation())
    return false;
  Dims permutation;
  for (AffineExpr expr : order)
    permutation.push_back(*maps[0].getResultPosition(expr));
  auto value = tensorOf(op->getResult(0)), index = tensorOf(op->getResult(1));
  OpOperand *scores = op.getDpsInputOperand(0);
  if (!isa<FloatType>(value.getElementType()) ||
      !index.getElementType().isSignlessInteger() ||
      getElementTypeOrSelf(scores->get()) != value.getElementType())
    return false;
  // From none, and any index.
  auto none = op.getDpsInits()[0].getDefiningOp<linalg::FillOp>(),
       first = op.getDpsInits()[1].getDefiningOp<linalg::FillOp>();
  if (!none || !first || !matchPattern(none.getInputs()[0], m_NegInfFloat()) ||
      !matchPattern(first.getInputs()[0], m_Zero()))
    return false;
  Value at = findIndex(op, reduced[0], r);
  Block *body = op.getBody();
  if (!at || !keepsFirstLargest(
                 {op.getMatchingBlockArgument(op.getDpsInitOperand(0)),
                  op.getMatchingBlockArgument(op.getDpsInitOperand(1)),
                  op.getMatchingBlockArgument(scores), at},
                 body->getTerminator()->getOperands(), /*isOrdered=*/true))
    return false;
  Operation *made =
      r.create("argmax", r.transpose(r.tensor(scores->get()), permutation),
               {value, index});
  r.set(op->getResult(0), made->getResult(0));
  r.set(op->getResult(1), made->getResult(1));
  return true;
}

//===----------------------------------------------------------------------===//
// Others
//===----------------------------------------------------------------------===//

static bool readSlice(tensor::ExtractSliceOp op, Reader &r) {
  if (op.getSourceType().getRank() != op.getType().getRank() ||
      ShapedType::isDynamicShape(op.getStaticOffsets()) ||
      ShapedType::isDynamicShape(op.getStaticStrides()))
    return false;
  Dims starts(op.getStaticOffsets()), limits, strides(op.getStaticStrides());
  for (auto [dim, size] : llvm::enumerate(op.getMixedSizes())) {
    if (auto fixed = getConstantIntValue(size)) {
      if (op.getSourceType().isDynamicDim(dim) || strides[dim] < 1 ||
          *fixed < 1)
        return false;
      limits.push_back(starts[dim] + (*fixed - 1) * strides[dim] + 1);
      continue;
    }
    // All of a dynamic extent.
    auto extent = cast<Value>(size).getDefiningOp<tensor::DimOp>();
    if (!extent || extent.getConstantIndex() != int64_t(dim) ||
        starts[dim] != 0 || strides[dim] != 1 ||
        (extent.getSource() != op.getSource() &&
         (dim != 0 ||
          !haveSameRows(extent.getSource(), r.tensor(op.getSource())))))
      return false;
    limits.push_back(ShapedType::kDynamic);
  }
  r.set(op, r.slice(r.tensor(op.getSource()), starts, limits, strides));
  return true;
}

bool mlir::moe::raising::readLinalg(Operation *op, Reader &r) {
  if (readArgmax(op, r))
    return true;
  if (op->getNumResults() != 1 || !tensorOf(op->getResult(0)))
    return false;
  Value result = op->getResult(0);
  if (auto constant = dyn_cast<arith::ConstantOp>(op)) {
    auto elements = dyn_cast<DenseElementsAttr>(constant.getValue());
    if (!elements || !elements.isSplat() || elements.getElementType().isIndex())
      return false;
    double number =
        isa<FloatType>(elements.getElementType())
            ? elements.getSplatValue<APFloat>().convertToDouble()
        : elements.getElementType().isInteger(1)
            ? double(elements.getSplatValue<APInt>().getZExtValue())
            : double(elements.getSplatValue<APInt>().getSExtValue());
    r.set(result, r.splat(tensorOf(result), number));
    return true;
  }
  if (isa<tensor::ExpandShapeOp, tensor::CollapseShapeOp>(op)) {
    r.set(result,
          r.reshape(r.tensor(op->getOperand(0)), tensorOf(result).getShape()));
    return true;
  }
  if (auto slice = dyn_cast<tensor::ExtractSliceOp>(op))
    return readSlice(slice, r);
  if (auto softmax = dyn_cast<linalg::SoftmaxOp>(op)) {
    RankedTensorType type = tensorOf(result);
    if (int64_t(softmax.getDimension()) != type.getRank() - 1 ||
        tensorOf(softmax.getInput()).getElementType() != type.getElementType())
      return false;
    r.set(result, r.make("softmax", r.tensor(softmax.getInput()), type));
    return true;
  }
  if (auto structured = dyn_cast<linalg::LinalgOp>(op))
    return readDot(structured, r) || BodyReader(structured, r).read();
  return OpTrait::hasElementwiseMappableTraits(op) && readElementwise(op, r);
}
