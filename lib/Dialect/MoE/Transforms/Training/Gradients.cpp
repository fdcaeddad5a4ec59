//===- Gradients.cpp - State of reverse mode ------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Gradients.h"

#include "mlir/Dialect/Utils/ReshapeOpsUtils.h"
#include "mlir/Transforms/RegionUtils.h"

using namespace mlir;
using namespace mlir::moe;

static RankedTensorType tensorType(Value value) {
  return cast<RankedTensorType>(value.getType());
}

bool mlir::moe::isFloatTensor(Type type) {
  auto tensor = dyn_cast<RankedTensorType>(type);
  return tensor && isa<FloatType>(tensor.getElementType());
}

Value mlir::moe::toF32(ImplicitLocOpBuilder &b, Value value) {
  return value.getType().isF32()
             ? value
             : arith::ExtFOp::create(b, b.getF32Type(), value).getResult();
}

bool mlir::moe::isReadOnlyBy(Value value, Operation *op) {
  return llvm::all_of(value.getUsers(), [&](Operation *user) {
    return user == op || isa<tensor::DimOp>(user);
  });
}

Gradients::Gradients(func::FuncOp forward, func::FuncOp backward,
                     bool recomputes)
    : b(forward.getLoc(), forward.getContext()), forwardFunction(forward),
      backwardFunction(backward), recomputes(recomputes) {
  b.setInsertionPointToEnd(&backward.getBody().front());
}

//===----------------------------------------------------------------------===//
// Gradients
//===----------------------------------------------------------------------===//

void Gradients::activate(Value value) {
  if (!active.insert(value).second)
    return;
  for (Operation *user : value.getUsers()) {
    // A use in a region is one by the operation that has the region.
    while (user->getParentOp() != forwardFunction)
      user = user->getParentOp();
    if (isa<tensor::DimOp>(user))
      continue;
    for (Value result : user->getResults())
      if (isFloatTensor(result.getType()) || isa<FloatType>(result.getType()))
        activate(result);
  }
}

Type Gradients::elementOf(Value value) const {
  Value source = value;
  while (Operation *op = source.getDefiningOp()) {
    if (!isa<tensor::CastOp, tensor::CollapseShapeOp, tensor::ExpandShapeOp,
             tensor::ExtractSliceOp>(op))
      break;
    source = op->getOperand(0);
  }
  Type element = getElementTypeOrSelf(value);
  return inF32.contains(source) && element.getIntOrFloatBitWidth() < 32
             ? Float32Type::get(value.getContext())
             : element;
}

bool Gradients::isReached(Operation *op) const {
  return llvm::any_of(op->getResults(), [&](Value result) {
    return gradients.contains(result) || rowGradients.contains(result) ||
           sliceGradients.contains(result);
  });
}

void Gradients::add(Value value, Value gradient) {
  if (!gradient || !isActive(value))
    return;
  Type element = elementOf(value);
  gradient =
      castTo(convert(gradient, element), tensorType(value).clone(element));
  if (rowGradients.contains(value))
    (void)of(value);
  Value &total = gradients[value];
  total = total ? sum(total, gradient) : gradient;
}

void Gradients::add(Value value, RowGradient gradient) {
  if (!isActive(value))
    return;
  if (gradients.contains(value) || rowGradients.contains(value) ||
      sliceGradients.contains(value))
    return add(value, materialize(gradient));
  rowGradients[value] = gradient;
}

void Gradients::add(Value value, SliceGradient gradient) {
  if (!isActive(value))
    return;
  if (rowGradients.contains(value))
    (void)of(value);
  sliceGradients[value].push_back(std::move(gradient));
}

/// Returns the sum of gradients of parts of a tensor. Parts that do not overlap
/// are put next to each other; only where there is none the tensor is zero.
Value Gradients::join(RankedTensorType type, ArrayRef<OpFoldResult> sizes,
                      ArrayRef<SliceGradient> parts) {
  Value total;
  while (!parts.empty()) {
    auto overlaps = [&](const SliceGradient &part,
                        ArrayRef<SliceGradient> others) {
      return llvm::any_of(others, [&](const SliceGradient &other) {
        FailureOr<bool> found = ValueBoundsConstraintSet::areOverlappingSlices(
            b.getContext(), part.slice, other.slice);
        return failed(found) || *found;
      });
    };
    size_t count = 1;
    int64_t elements = 0;
    while (count < parts.size() &&
           !overlaps(parts[count], parts.take_front(count)))
      ++count;
    for (const SliceGradient &part : parts.take_front(count)) {
      auto partType = tensorType(part.tensor);
      elements += partType.hasStaticShape() ? partType.getNumElements() : 0;
    }
    bool isWhole = type.hasStaticShape() && elements == type.getNumElements();
    Value joined = isWhole ? empty(sizes, type.getElementType())
                           : zeros(sizes, type.getElementType());
    for (const SliceGradient &part : parts.take_front(count))
      joined = tensor::InsertSliceOp::create(
          b, part.tensor, joined, part.slice.getMixedOffsets(),
          part.slice.getMixedSizes(), part.slice.getMixedStrides());
    total = total ? sum(total, joined) : joined;
    parts = parts.drop_front(count);
  }
  return total;
}

Value Gradients::of(Value value) {
  if (auto slices = sliceGradients.find(value);
      slices != sliceGradients.end()) {
    SmallVector<SliceGradient> parts = std::move(slices->second);
    sliceGradients.erase(slices);
    add(value, join(tensorType(value).clone(elementOf(value)),
                    sizes(forward(value)), parts));
  }
  auto rows = rowGradients.find(value);
  if (rows != rowGradients.end()) {
    RowGradient gradient = rows->second;
    rowGradients.erase(rows);
    add(value, materialize(gradient));
  }
  return gradients.lookup(value);
}

RowGradient Gradients::ofRows(Value value) {
  auto rows = rowGradients.find(value);
  if (rows != rowGradients.end())
    return rows->second;
  return {of(value), Value(), Value()};
}

Value Gradients::materialize(RowGradient gradient) {
  if (!gradient.gather && !gradient.scale)
    return gradient.matrix;
  RankedTensorType type = tensorType(gradient.matrix);
  Value each = gradient.gather ? gradient.gather : gradient.matrix;
  MLIRContext *context = b.getContext();
  AffineMap row = AffineMap::get(2, 0, getAffineDimExpr(0, context)),
            both = b.getMultiDimIdentityMap(2);
  SmallVector<Value> inputs;
  SmallVector<AffineMap> maps;
  if (gradient.gather) {
    inputs.push_back(gradient.gather);
    maps.push_back(row);
  } else {
    inputs.push_back(gradient.matrix);
    maps.push_back(both);
  }
  if (gradient.scale) {
    inputs.push_back(gradient.scale);
    maps.push_back(row);
  }
  maps.push_back(both);
  Value init = empty({size(each, 0), b.getIndexAttr(type.getDimSize(1))},
                     type.getElementType());
  Value tokens;
  if (gradient.gather)
    tokens = getValueOrCreateConstantIndexOp(b, b.getLoc(),
                                             size(gradient.matrix, 0));
  auto generic = linalg::GenericOp::create(
      b, init.getType(), inputs, init, maps,
      SmallVector<utils::IteratorType>(2, utils::IteratorType::parallel),
      [&](OpBuilder &builder, Location loc, ValueRange arguments) {
        ImplicitLocOpBuilder inner(loc, builder);
        Value element = arguments[0];
        if (gradient.gather) {
          Value token = arith::IndexCastOp::create(inner, inner.getIndexType(),
                                                   arguments[0]);
          Value exists = arith::CmpIOp::create(inner, arith::CmpIPredicate::ult,
                                               token, tokens);
          Value h = linalg::IndexOp::create(inner, 1);
          auto choice =
              scf::IfOp::create(inner, type.getElementType(), exists, true);
          OpBuilder::InsertionGuard guard(inner);
          inner.setInsertionPointToStart(choice.thenBlock());
          Value loaded = tensor::ExtractOp::create(inner, gradient.matrix,
                                                   ValueRange{token, h});
          scf::YieldOp::create(inner, loaded);
          inner.setInsertionPointToStart(choice.elseBlock());
          Value zero = arith::ConstantOp::create(
              inner, inner.getZeroAttr(type.getElementType()));
          scf::YieldOp::create(inner, zero);
          element = choice.getResult(0);
        }
        if (gradient.scale) {
          Type f32 = inner.getF32Type();
          if (element.getType() != f32)
            element = arith::ExtFOp::create(inner, f32, element);
          element = arith::MulFOp::create(inner, element, arguments[1]);
          if (type.getElementType() != f32)
            element =
                arith::TruncFOp::create(inner, type.getElementType(), element);
        }
        linalg::YieldOp::create(inner, element);
      });
  return generic.getResult(0);
}

//===----------------------------------------------------------------------===//
// Values of the forward function
//===----------------------------------------------------------------------===//

/// Returns the ids of the choices that grouped rows with these offsets are of,
/// and whether there is a row for each; null if the offsets do not come from a
/// dispatch.
static std::pair<Value, bool> choicesOf(Value offsets) {
  if (auto route = offsets.getDefiningOp<RouteOp>())
    return {route.getIds(), !route.getCapacity()};
  if (auto dispatch = offsets.getDefiningOp<DispatchOp>())
    return {dispatch.getIds(), !dispatch.getCapacity()};
  return {Value(), true};
}

bool Gradients::isSaved(Value value) const {
  Operation *op = value.getDefiningOp();
  if (isa<GateOp, RouteOp>(op))
    return true;
  // What ranks did together, and whom they did it with.
  if (isa<ExchangeOp, AllGatherOp, OwnRowsOp, PartitionOp, CollectOp>(op))
    return true;
  if (isa<DispatchOp>(op))
    return value != op->getResult(0);
  auto matmul = dyn_cast<GroupedMatmulOp>(op);
  if (matmul && !matmul.getOffsets())
    return true;
  return llvm::any_of(value.getUsers(),
                      [](Operation *user) { return isa<GateOp>(user); });
}

Value Gradients::forward(Value value) {
  if (Value found = known.lookupOrNull(value))
    return found;
  Value result;
  if (auto argument = dyn_cast<BlockArgument>(value)) {
    result = backwardFunction.getArgument(argument.getArgNumber());
  } else if (!isa<RankedTensorType>(value.getType()) || !isSaved(value)) {
    result = recompute(cast<OpResult>(value));
  } else if (auto route = value.getDefiningOp<RouteOp>();
             route && value == route.getTokens()) {
    result = saveRows(value, route.getIds());
  } else {
    result = save(value);
  }
  known.map(value, result);
  return result;
}

IRMapping Gradients::capturedBy(Operation *op) {
  IRMapping mapping;
  llvm::SetVector<Value> used;
  getUsedValuesDefinedAbove(op->getRegions(), used);
  for (Value value : used)
    mapping.map(value, forward(value));
  return mapping;
}

Value Gradients::recompute(OpResult value) {
  Operation *op = value.getOwner();
  IRMapping mapping = capturedBy(op);
  for (Value operand : op->getOperands())
    if (!mapping.contains(operand))
      mapping.map(operand, forward(operand));
  Operation *clone = b.clone(*op, mapping);
  for (auto [from, to] : llvm::zip_equal(op->getResults(), clone->getResults()))
    if (!known.contains(from) && !isSaved(from))
      known.map(from, to);
  return clone->getResult(value.getResultNumber());
}

Value Gradients::addSaved(Value result) {
  saved.push_back(result);
  BlockArgument argument =
      backwardFunction.getBody().addArgument(result.getType(), result.getLoc());
  savedArguments.push_back(argument);
  return argument;
}

Value Gradients::save(Value value) { return addSaved(value); }

/// Saves a tensor with a row for each choice as one of tokens and choices.
Value Gradients::saveRows(Value value, Value ids) {
  RankedTensorType type = tensorType(value), choices = tensorType(ids);
  int64_t tokens = choices.getDimSize(0), topK = choices.getDimSize(1);
  SmallVector<int64_t> shape{tokens, topK};
  llvm::append_range(shape, type.getShape().drop_front());
  auto perToken = RankedTensorType::get(shape, type.getElementType());
  SmallVector<ReassociationIndices> reassociation{{0, 1}};
  for (int64_t dim = 2; dim < perToken.getRank(); ++dim)
    reassociation.push_back({dim});

  ImplicitLocOpBuilder f(value.getLoc(),
                         forwardFunction.getBody().front().getTerminator());
  SmallVector<OpFoldResult> sizes = tensor::getMixedSizes(f, f.getLoc(), ids);
  for (int64_t extent : type.getShape().drop_front())
    sizes.push_back(f.getIndexAttr(extent));
  Value rows = value;
  // With a capacity there may be fewer rows than choices.
  bool hasAll = false;
  if (auto route = value.getDefiningOp<RouteOp>())
    hasAll = !route.getCapacity();
  else if (auto matmul = value.getDefiningOp<GroupedMatmulOp>())
    hasAll = choicesOf(matmul.getOffsets()).second;
  if (!hasAll) {
    Value t = getValueOrCreateConstantIndexOp(f, f.getLoc(), sizes[0]);
    Value k = arith::ConstantIndexOp::create(f, topK);
    SmallVector<OpFoldResult> all{arith::MulIOp::create(f, t, k).getResult()};
    all.append(sizes.begin() + 2, sizes.end());
    // -1 is no token; accumulators of these rows are not read.
    Type element = type.getElementType();
    Value none =
        isa<FloatType>(element)
            ? arith::ConstantOp::create(f, f.getZeroAttr(element))
            : arith::ConstantOp::create(f, f.getIntegerAttr(element, -1));
    Value init = tensor::EmptyOp::create(f, all, element);
    init = linalg::FillOp::create(f, none, init).getResult(0);
    SmallVector<OpFoldResult> offsets(type.getRank(), f.getIndexAttr(0)),
        strides(type.getRank(), f.getIndexAttr(1));
    rows = tensor::InsertSliceOp::create(
        f, rows, init, offsets, tensor::getMixedSizes(f, f.getLoc(), rows),
        strides);
  }
  Value result =
      tensor::ExpandShapeOp::create(f, perToken, rows, reassociation, sizes);
  Value argument = addSaved(result);
  return tensor::CollapseShapeOp::create(b, argument, reassociation);
}

/// Replaces a matmul by one that has its accumulators as further results.
static GroupedMatmulOp yieldAccumulators(GroupedMatmulOp op) {
  ImplicitLocOpBuilder f(op.getLoc(), op);
  SmallVector<Value> inits(op.getInits());
  Type element = getElementTypeOrSelf(op.getLhs());
  SmallVector<OpFoldResult> sizes =
      tensor::getMixedSizes(f, f.getLoc(), op.getInit());
  for (int64_t i = 0; i < op.getNumAccumulators(); ++i)
    inits.push_back(tensor::EmptyOp::create(f, sizes, element));
  auto wide = GroupedMatmulOp::create(
      f, ValueRange(inits).getTypes(), op.getLhs(), op.getGather(),
      op.getOffsets(), op.getWeights(), op.getLhsScales(), op.getWeightScales(),
      op.getExtras(), inits, op.getTransposed(), op.getPanelsAttr(),
      op.getMapsAttr(), op.getFirstAttr(), op.getBlocksAttr());
  IRMapping mapping;
  op.getEpilogue().cloneInto(&wide.getEpilogue(), mapping);
  YieldOp yield = wide.getYield();
  f.setInsertionPoint(yield);
  SmallVector<Value> values(yield.getValues());
  for (int64_t i = 0; i < wide.getNumAccumulators(); ++i) {
    Value sum = wide.getEpilogue().getArgument(i);
    if (!element.isF32())
      sum = arith::TruncFOp::create(f, element, sum);
    values.push_back(sum);
  }
  yield.getValuesMutable().assign(values);
  return wide;
}

/// Computes the accumulators of a matmul of the forward function again.
SmallVector<Value> Gradients::recomputeAccumulators(GroupedMatmulOp op) {
  auto get = [&](Value value) { return value ? forward(value) : Value(); };
  auto getAll = [&](ValueRange values) {
    return llvm::map_to_vector(values, [&](Value each) { return get(each); });
  };
  Value lhs = get(op.getLhs()), gather = get(op.getGather()),
        offsets = get(op.getOffsets());
  Type element = getElementTypeOrSelf(lhs);
  SmallVector<OpFoldResult> extents{size(gather ? gather : lhs, 0),
                                    b.getIndexAttr(op.getN())};
  SmallVector<Value> inits;
  for (int64_t i = 0; i < op.getNumAccumulators(); ++i)
    inits.push_back(empty(extents, element));
  auto again = GroupedMatmulOp::create(
      b, TypeRange(ValueRange(inits)), lhs, gather, offsets,
      getAll(op.getWeights()), get(op.getLhsScales()),
      getAll(op.getWeightScales()), /*extras=*/ValueRange(), inits,
      op.getTransposed(), op.getPanelsAttr(), /*maps=*/ArrayAttr(),
      op.getFirstAttr(), op.getBlocksAttr());
  Block &epilogue = again.getEpilogue().emplaceBlock();
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToEnd(&epilogue);
  SmallVector<Value> sums;
  for (int64_t i = 0; i < op.getNumAccumulators(); ++i) {
    Value sum = epilogue.addArgument(b.getF32Type(), op.getLoc());
    if (!element.isF32())
      sum = arith::TruncFOp::create(b, element, sum);
    sums.push_back(sum);
  }
  YieldOp::create(b, sums);
  return llvm::to_vector_of<Value>(again.getResults());
}

SmallVector<Value> Gradients::accumulators(GroupedMatmulOp op) {
  SmallVector<Value> &found = knownAccumulators[op];
  if (!found.empty())
    return found;
  if (recomputes && op.getOffsets()) {
    // Others may become known meanwhile.
    SmallVector<Value> again = recomputeAccumulators(op);
    return knownAccumulators[op] = again;
  }
  // The operation stays until the end: its result has a gradient.
  GroupedMatmulOp wide = yieldAccumulators(op);
  widened.push_back({op, wide});
  Value ids = op.getOffsets() ? choicesOf(op.getOffsets()).first : Value();
  for (Value sums : wide.getResults().drop_front())
    found.push_back(ids ? saveRows(sums, ids) : save(sums));
  return found;
}

void Gradients::replaceWidened(RewriterBase &rewriter) {
  for (auto [op, wide] : widened)
    rewriter.replaceOp(op, wide.getResults().front());
}

//===----------------------------------------------------------------------===//
// Tensors
//===----------------------------------------------------------------------===//

Value Gradients::zeros(ArrayRef<OpFoldResult> sizes, Type element) {
  Value zero = arith::ConstantOp::create(b, b.getZeroAttr(element));
  return linalg::FillOp::create(b, zero, empty(sizes, element)).getResult(0);
}

Value Gradients::castTo(Value tensor, Type type) {
  return tensor.getType() == type
             ? tensor
             : tensor::CastOp::create(b, type, tensor).getResult();
}

Value Gradients::convert(Value tensor, Type element) {
  RankedTensorType type = tensorType(tensor);
  if (type.getElementType() == element)
    return tensor;
  Value init = empty(sizes(tensor), element);
  AffineMap map = b.getMultiDimIdentityMap(type.getRank());
  return linalg::GenericOp::create(
             b, init.getType(), tensor, init, SmallVector<AffineMap>{map, map},
             SmallVector<utils::IteratorType>(type.getRank(),
                                              utils::IteratorType::parallel),
             [&](OpBuilder &inner, Location loc, ValueRange arguments) {
               bool widens = element.getIntOrFloatBitWidth() >
                             type.getElementTypeBitWidth();
               Value value = arguments[0];
               // Between f16 and bf16 through f32.
               if (element.getIntOrFloatBitWidth() ==
                   type.getElementTypeBitWidth())
                 value =
                     arith::ExtFOp::create(inner, loc, b.getF32Type(), value);
               value =
                   widens ? arith::ExtFOp::create(inner, loc, element, value)
                                .getResult()
                          : arith::TruncFOp::create(inner, loc, element, value);
               linalg::YieldOp::create(inner, loc, value);
             })
      .getResult(0);
}

Value Gradients::sum(Value x, Value y) {
  RankedTensorType type = tensorType(x);
  Value init = empty(sizes(x), type.getElementType());
  AffineMap map = b.getMultiDimIdentityMap(type.getRank());
  return linalg::GenericOp::create(
             b, init.getType(), ValueRange{x, y}, init,
             SmallVector<AffineMap>{map, map, map},
             SmallVector<utils::IteratorType>(type.getRank(),
                                              utils::IteratorType::parallel),
             [&](OpBuilder &inner, Location loc, ValueRange arguments) {
               Value total = arith::AddFOp::create(inner, loc, arguments[0],
                                                   arguments[1]);
               linalg::YieldOp::create(inner, loc, total);
             })
      .getResult(0);
}
