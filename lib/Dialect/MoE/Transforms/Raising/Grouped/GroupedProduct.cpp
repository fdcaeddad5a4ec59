//===- GroupedProduct.cpp - Grouped products of others -------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "GroupedProduct.h"
#include "Routing/Values/Choices.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

#include <limits>

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

//===----------------------------------------------------------------------===//
// Checks
//===----------------------------------------------------------------------===//

static std::string printed(Type type) {
  std::string text;
  llvm::raw_string_ostream(text) << type;
  return text;
}

/// True for extents that may be equal.
static bool mayEqual(int64_t a, int64_t b) {
  return ShapedType::isDynamic(a) || ShapedType::isDynamic(b) || a == b;
}

/// Returns why groups [g] of integers are none; empty if they are.
static std::string refuseGroups(Type given, int64_t count) {
  RankedTensorType type = tensorTypeOf(given);
  if (!type || type.getRank() != 1 ||
      !(type.getElementType().isSignlessInteger(32) ||
        type.getElementType().isSignlessInteger(64)))
    return "expected a vector of i32 or i64 for the groups, got " +
           printed(given);
  if (type.isDynamicDim(0) || !mayEqual(type.getDimSize(0), count))
    return "expected " + std::to_string(count) + " groups, got " +
           printed(given);
  return "";
}

//===----------------------------------------------------------------------===//
// Offsets
//===----------------------------------------------------------------------===//

static Value buildIndex(OpBuilder &b, Location loc, int64_t value) {
  return arith::ConstantIndexOp::create(b, loc, value);
}

/// Returns an integer that has 64 bits within 31 bits. No tensor has as many
/// rows, so that offsets, which are i32, are clamped to the rows alike.
static Value buildClamped(OpBuilder &b, Location loc, Value value) {
  constexpr int64_t most = std::numeric_limits<int32_t>::max();
  Value low = arith::ConstantIntOp::create(b, loc, -most, 64),
        high = arith::ConstantIntOp::create(b, loc, most, 64);
  value = arith::MaxSIOp::create(b, loc, value, low);
  return arith::MinSIOp::create(b, loc, value, high);
}

/// Returns [0, s_0, s_0 + s_1, ...] of the sizes. Sums are in i64.
static Value buildSums(OpBuilder &b, Location loc, Value sizes, Value init) {
  Value zero = arith::ConstantIntOp::create(b, loc, 0, 32);
  Value none = arith::ConstantIntOp::create(b, loc, 0, 64);
  Value c0 = buildIndex(b, loc, 0), c1 = buildIndex(b, loc, 1);
  Value first = tensor::InsertOp::create(b, loc, zero, init, c0);
  Value count =
      buildIndex(b, loc, cast<RankedTensorType>(sizes.getType()).getDimSize(0));
  auto loop = scf::ForOp::create(
      b, loc, c0, count, c1, ValueRange{first, none},
      [&](OpBuilder &b, Location loc, Value group, ValueRange carried) {
        Value size = tensor::ExtractOp::create(b, loc, sizes, group);
        if (!size.getType().isInteger(64))
          size = arith::ExtSIOp::create(b, loc, b.getI64Type(), size);
        else
          size = buildClamped(b, loc, size);
        Value end = arith::AddIOp::create(b, loc, carried[1], size);
        end = buildClamped(b, loc, end);
        Value offset = arith::TruncIOp::create(b, loc, b.getI32Type(), end);
        Value next = arith::AddIOp::create(b, loc, group, c1);
        Value result =
            tensor::InsertOp::create(b, loc, offset, carried[0], next);
        scf::YieldOp::create(b, loc, ValueRange{result, end});
      });
  return loop.getResult(0);
}

/// Returns [0, e_0, e_1, ...] of the ends.
static Value buildStarts(OpBuilder &b, Location loc, Value ends, Value init) {
  auto type = cast<RankedTensorType>(ends.getType());
  if (!type.getElementType().isInteger(32)) {
    Value narrow =
        tensor::EmptyOp::create(b, loc, type.getShape(), b.getI32Type());
    AffineMap map = b.getDimIdentityMap();
    ends = linalg::GenericOp::create(
               b, loc, narrow.getType(), ends, narrow,
               SmallVector<AffineMap>{map, map},
               SmallVector{utils::IteratorType::parallel},
               [](OpBuilder &b, Location loc, ValueRange arguments) {
                 Value end = buildClamped(b, loc, arguments[0]);
                 end = arith::TruncIOp::create(b, loc, b.getI32Type(), end);
                 linalg::YieldOp::create(b, loc, end);
               })
               .getResult(0);
  }
  Value zero = arith::ConstantIntOp::create(b, loc, 0, 32);
  Value zeros = linalg::FillOp::create(b, loc, zero, init).getResult(0);
  return tensor::InsertSliceOp::create(
      b, loc, ends, zeros, ArrayRef<OpFoldResult>{b.getIndexAttr(1)},
      ArrayRef<OpFoldResult>{b.getIndexAttr(type.getDimSize(0))},
      ArrayRef<OpFoldResult>{b.getIndexAttr(1)});
}

/// Returns the offsets whose differences the sizes are, which
/// moe-raise-routing writes; null if they are none.
static Value offsetsOfSizes(Value sizes) {
  auto difference = sizes.getDefiningOp<arith::SubIOp>();
  if (!difference)
    return {};
  auto upper = difference.getLhs().getDefiningOp<tensor::ExtractSliceOp>(),
       lower = difference.getRhs().getDefiningOp<tensor::ExtractSliceOp>();
  auto isSlice = [&](tensor::ExtractSliceOp slice, int64_t from) {
    int64_t count = slice.getSourceType().getDimSize(0) - 1;
    return slice.getStaticOffsets() == ArrayRef(from) &&
           slice.getStaticSizes() == ArrayRef(count) &&
           slice.getStaticStrides() == ArrayRef<int64_t>(1);
  };
  return upper && lower && upper.getSource() == lower.getSource() &&
                 isSlice(upper, 1) && isSlice(lower, 0)
             ? upper.getSource()
             : Value();
}

/// Returns the offsets of a dispatch or route whose ends these are.
static Value offsetsOfEnds(Value ends) {
  if (Operation *from = definedBy(ends, "torch_c.from_builtin_tensor"))
    ends = from->getOperand(0);
  auto slice = ends.getDefiningOp<tensor::ExtractSliceOp>();
  if (!slice || slice.getSourceType().getRank() != 1 ||
      !isa_and_present<DispatchOp, RouteOp>(slice.getSource().getDefiningOp()))
    return {};
  int64_t count = slice.getSourceType().getDimSize(0) - 1;
  return slice.getStaticOffsets() == ArrayRef<int64_t>(1) &&
                 slice.getStaticSizes() == ArrayRef(count) &&
                 slice.getStaticStrides() == ArrayRef<int64_t>(1)
             ? slice.getSource()
             : Value();
}

Value GroupedProductBuilder::offsetsOf(Value groups, GroupArgument argument) {
  Value &made = offsets[{groups, argument}];
  if (made)
    return made;
  if (Value known = argument == GroupArgument::Sizes ? offsetsOfSizes(groups)
                                                     : offsetsOfEnds(groups))
    return made = known;
  // Beside the groups, where all their users find it.
  OpBuilder::InsertionGuard guard(rewriter);
  rewriter.setInsertionPointAfterValue(groups);
  Location loc = groups.getLoc();
  Value given = asTensor(rewriter, groups);
  int64_t count = cast<RankedTensorType>(given.getType()).getDimSize(0);
  Value init = tensor::EmptyOp::create(rewriter, loc, ArrayRef{count + 1},
                                       rewriter.getI32Type());
  return made = argument == GroupArgument::Sizes
                    ? buildSums(rewriter, loc, given, init)
                    : buildStarts(rewriter, loc, given, init);
}

RouteOp
GroupedProductBuilder::routeOf(const GatheredWeights &gathered, int64_t rowDims,
                               llvm::function_ref<RouteOp(OpBuilder &)> make) {
  // The body of a gather of linalg computes the ids, each for itself.
  Value key = gathered.ids ? gathered.ids : gathered.op->getResult(0);
  RouteOp &made = routes[{
      key, rowDims,
      cast<RankedTensorType>(gathered.weights.getType()).getDimSize(0)}];
  if (made)
    return made;
  OpBuilder::InsertionGuard guard(rewriter);
  if (gathered.ids)
    rewriter.setInsertionPointAfterValue(gathered.ids);
  else
    rewriter.setInsertionPoint(gathered.op);
  return made = make(rewriter);
}

//===----------------------------------------------------------------------===//
// Products
//===----------------------------------------------------------------------===//

/// Returns why scales are none of a product [m, k] and [g, k, n].
static std::string refuseScales(const GroupedProduct &product, int64_t m,
                                int64_t g, int64_t n) {
  auto is = [](Value scales, ArrayRef<int64_t> shape) {
    RankedTensorType type = tensorTypeOf(scales.getType());
    return type && type.getElementType().isF32() &&
           type.getRank() == int64_t(shape.size()) &&
           llvm::all_of_zip(type.getShape(), shape, mayEqual);
  };
  if (is(product.rowScales, {m}) && is(product.weightScales, {g, n}))
    return "";
  return "expected scales of f32 of each row and of each column of the "
         "weights, got " +
         printed(product.rowScales.getType()) + " and " +
         printed(product.weightScales.getType());
}

void mlir::moe::raising::buildEpilogue(OpBuilder &b, GroupedMatmulOp matmul,
                                       Type element) {
  OpBuilder::InsertionGuard guard(b);
  Location loc = matmul.getLoc();
  Block *body = b.createBlock(&matmul.getEpilogue());
  Value sum = body->addArgument(b.getF32Type(), loc);
  for (size_t i = 0; i < matmul.getExtras().size(); ++i)
    sum = arith::MulFOp::create(b, loc, sum,
                                body->addArgument(b.getF32Type(), loc));
  if (!element.isF32())
    sum = arith::TruncFOp::create(b, loc, element, sum);
  YieldOp::create(b, loc, sum);
}

Value GroupedProductBuilder::build(Operation *op, GroupedProduct product,
                                   std::string &reason) {
  Value made = buildMatmul(op, product, reason);
  return made ? asForeign(rewriter, made, product.result) : Value();
}

Value GroupedProductBuilder::buildMatmul(Operation *op, GroupedProduct product,
                                         std::string &reason) {
  auto refuse = [&](const Twine &why) {
    reason = why.str();
    return Value();
  };
  // A transpose of the weights is their other layout.
  while (Value swapped = swappedLastTwo(product.weights)) {
    product.weights = swapped;
    product.transposed = !product.transposed;
  }
  RankedTensorType rows = tensorTypeOf(product.rows.getType()),
                   weights = tensorTypeOf(product.weights.getType()),
                   result = tensorTypeOf(product.result);
  if (!rows || !weights || !result || rows.getRank() != 2 ||
      weights.getRank() != 3 || result.getRank() != 2)
    return refuse("expected rows [m, k] and weights [g, k, n]");
  bool isScaled = bool(product.rowScales);
  Type element = rows.getElementType();
  if (!(isScaled ? isa<Float8E4M3FNType>(element) : isRowFloat(element)) ||
      !isRowFloat(result.getElementType()) ||
      element != weights.getElementType())
    return refuse(
        "expected rows and weights of " +
        Twine(isScaled ? "f8E4M3FN" : "one float type of 16 or 32 bits") +
        ", got " + printed(rows) + " and " + printed(weights));
  int64_t k = weights.getDimSize(product.transposed ? 2 : 1),
          n = weights.getDimSize(product.transposed ? 1 : 2);
  if (!weights.hasStaticShape() || rows.isDynamicDim(1))
    return refuse("the weights have a dynamic shape: " + printed(weights));
  if (rows.getDimSize(1) != k || !mayEqual(result.getDimSize(1), n) ||
      !mayEqual(result.getDimSize(0), rows.getDimSize(0)))
    return refuse("the extents do not fit: " + printed(rows) + ", " +
                  printed(weights) + " and " + printed(result));
  reason = refuseGroups(product.groups.getType(), weights.getDimSize(0));
  if (reason.empty() && isScaled)
    reason =
        refuseScales(product, rows.getDimSize(0), weights.getDimSize(0), n);
  if (!reason.empty())
    return {};

  OpBuilder::InsertionGuard guard(rewriter);
  Value offsets = offsetsOf(product.groups, product.argument);
  rewriter.setInsertionPoint(op);
  Location loc = op->getLoc();
  Value lhs = asTensor(rewriter, product.rows);
  Value rhs = asTensor(rewriter, product.weights);
  OpFoldResult count = tensor::getMixedSize(rewriter, loc, lhs, 0);
  Value init = tensor::EmptyOp::create(
      rewriter, loc, ArrayRef<OpFoldResult>{count, rewriter.getIndexAttr(n)},
      result.getElementType());
  if (product.zeroRest && !coversAll(offsets, lhs)) {
    Value zero = arith::ConstantOp::create(
        rewriter, loc, rewriter.getFloatAttr(result.getElementType(), 0.0));
    init = linalg::FillOp::create(rewriter, loc, zero, init).getResult(0);
  }
  SmallVector<Value> extras;
  ArrayAttr maps;
  if (isScaled) {
    extras = {asTensor(rewriter, product.rowScales),
              asTensor(rewriter, product.weightScales)};
    // From (group, row, column).
    auto map = [&](ArrayRef<unsigned> dims) {
      return AffineMap::getMultiDimMapWithTargets(3, dims,
                                                  rewriter.getContext());
    };
    maps = rewriter.getAffineMapArrayAttr({map({1}), map({0, 2})});
  }
  auto matmul = GroupedMatmulOp::create(
      rewriter, loc, init.getType(), lhs, /*gather=*/nullptr, offsets, rhs,
      /*lhs_scales=*/nullptr, /*weight_scales=*/ValueRange(), extras, init,
      product.transposed, /*panels=*/nullptr, maps, /*first=*/nullptr,
      /*blocks=*/nullptr);
  buildEpilogue(rewriter, matmul, result.getElementType());
  return matmul.getResult();
}

/// Returns the rows [m, k] of a matrix [k, m].
static Value buildTransposed(OpBuilder &b, Location loc, Value matrix) {
  SmallVector<OpFoldResult> sizes = tensor::getMixedSizes(b, loc, matrix);
  std::swap(sizes[0], sizes[1]);
  Value init = tensor::EmptyOp::create(b, loc, sizes,
                                       getElementTypeOrSelf(matrix.getType()));
  return linalg::TransposeOp::create(b, loc, matrix, init,
                                     ArrayRef<int64_t>{1, 0})
      ->getResult(0);
}

Value GroupedProductBuilder::build(Operation *op, GroupedGradient gradient,
                                   std::string &reason) {
  auto refuse = [&](const Twine &why) {
    reason = why.str();
    return Value();
  };
  RankedTensorType lhs = tensorTypeOf(gradient.lhs.getType()),
                   rhs = tensorTypeOf(gradient.rhs.getType()),
                   result = tensorTypeOf(gradient.result);
  if (!lhs || !rhs || !result || lhs.getRank() != 2 || rhs.getRank() != 2 ||
      result.getRank() != 3 || !result.hasStaticShape())
    return refuse("expected matrices and a result [g, k, n]");
  if (!isRowFloat(lhs.getElementType()) ||
      !isRowFloat(result.getElementType()) ||
      lhs.getElementType() != rhs.getElementType())
    return refuse("expected matrices of one float type of 16 or 32 bits, "
                  "got " +
                  printed(lhs) + " and " + printed(rhs));
  int64_t groups = result.getDimSize(0), k = result.getDimSize(1),
          n = result.getDimSize(2), step = gradient.transposed ? 1 : 0;
  if (lhs.getDimSize(1 - step) != k || rhs.getDimSize(1) != n ||
      !mayEqual(lhs.getDimSize(step), rhs.getDimSize(0)))
    return refuse("the extents do not fit: " + printed(lhs) + ", " +
                  printed(rhs) + " and " + printed(result));
  reason = refuseGroups(gradient.groups.getType(), groups);
  if (!reason.empty())
    return {};

  OpBuilder::InsertionGuard guard(rewriter);
  Value offsets = offsetsOf(gradient.groups, gradient.argument);
  rewriter.setInsertionPoint(op);
  Location loc = op->getLoc();
  Value left = asTensor(rewriter, gradient.lhs),
        right = asTensor(rewriter, gradient.rhs);
  if (gradient.transposed)
    left = buildTransposed(rewriter, loc, left);
  Value init = tensor::EmptyOp::create(rewriter, loc, result.getShape(),
                                       result.getElementType());
  auto contract = GroupedContractOp::create(
      rewriter, loc, init.getType(), left, /*lhs_gather=*/nullptr, right,
      /*rhs_gather=*/nullptr, offsets, init, /*first=*/nullptr,
      /*accumulate=*/false);
  return asForeign(rewriter, contract.getResult(), gradient.result);
}

Value GroupedProductBuilder::build(Operation *op, BatchedProduct product,
                                   std::string &reason) {
  RankedTensorType lhs = tensorTypeOf(product.lhs.getType()),
                   rhs = tensorTypeOf(product.rhs.getType()),
                   result = tensorTypeOf(product.result);
  if (!lhs || !rhs || !result || lhs.getRank() != 3 || rhs.getRank() != 3 ||
      result.getRank() != 3) {
    reason = "expected batches [g, m, k] and [g, k, n] where there is no offs";
    return {};
  }
  if (!isRowFloat(lhs.getElementType()) ||
      !isRowFloat(result.getElementType()) ||
      lhs.getElementType() != rhs.getElementType() ||
      !mayEqual(lhs.getDimSize(0), rhs.getDimSize(0)) ||
      !mayEqual(lhs.getDimSize(2), rhs.getDimSize(1)) ||
      !mayEqual(result.getDimSize(0), lhs.getDimSize(0)) ||
      !mayEqual(result.getDimSize(1), lhs.getDimSize(1)) ||
      !mayEqual(result.getDimSize(2), rhs.getDimSize(2))) {
    reason = "the batches do not fit: " + printed(lhs) + ", " + printed(rhs) +
             " and " + printed(result);
    return {};
  }
  Location loc = op->getLoc();
  rewriter.setInsertionPoint(op);
  Value left = asTensor(rewriter, product.lhs),
        right = asTensor(rewriter, product.rhs);
  // Sums are of f32.
  Type f32 = rewriter.getF32Type();
  SmallVector<OpFoldResult> sizes{
      tensor::getMixedSize(rewriter, loc, left, 0),
      tensor::getMixedSize(rewriter, loc, left, 1),
      tensor::getMixedSize(rewriter, loc, right, 2)};
  Value zero =
      arith::ConstantOp::create(rewriter, loc, rewriter.getF32FloatAttr(0));
  Value init = tensor::EmptyOp::create(rewriter, loc, sizes, f32);
  init = linalg::FillOp::create(rewriter, loc, zero, init).getResult(0);
  Value made = linalg::BatchMatmulOp::create(
                   rewriter, loc, ValueRange{left, right}, ValueRange{init})
                   .getResult(0);
  if (!result.getElementType().isF32())
    made = arith::TruncFOp::create(
        rewriter, loc,
        cast<RankedTensorType>(made.getType()).clone(result.getElementType()),
        made);
  return asForeign(rewriter, made, product.result);
}

Value GroupedProductBuilder::build(Operation *op, ColumnGroups product,
                                   std::string &reason) {
  RankedTensorType lhs = tensorTypeOf(product.lhs.getType()),
                   rhs = tensorTypeOf(product.rhs.getType()),
                   result = tensorTypeOf(product.result);
  if (!lhs || !rhs || !result || lhs.getRank() != 3 || rhs.getRank() != 2 ||
      result.getRank() != 2 || !lhs.hasStaticShape() ||
      lhs.getDimSize(2) != rhs.getDimSize(0) ||
      !mayEqual(result.getDimSize(0), lhs.getDimSize(1)) ||
      !mayEqual(result.getDimSize(1), rhs.getDimSize(1)) ||
      !isRowFloat(lhs.getElementType()) ||
      lhs.getElementType() != rhs.getElementType() ||
      !isRowFloat(result.getElementType())) {
    reason = "expected matrices [g, m, k] and columns [k, n] of one float type "
             "of 16 or 32 bits, got " +
             printed(product.lhs.getType()) + " and " +
             printed(product.rhs.getType());
    return {};
  }
  reason = refuseGroups(product.ends.getType(), lhs.getDimSize(0));
  if (!reason.empty())
    return {};
  // The columns are rows of the product of the transposes.
  OpBuilder::InsertionGuard guard(rewriter);
  rewriter.setInsertionPoint(op);
  Location loc = op->getLoc();
  Value rows = buildTransposed(rewriter, loc, asTensor(rewriter, product.rhs));
  Type transposed = RankedTensorType::get(
      {result.getDimSize(1), result.getDimSize(0)}, result.getElementType());
  Value made = buildMatmul(
      op,
      GroupedProduct{rows, product.ends, GroupArgument::Ends, product.lhs,
                     /*transposed=*/true, /*zeroRest=*/false, transposed},
      reason);
  if (!made)
    return {};
  rewriter.setInsertionPoint(op);
  return asForeign(rewriter, buildTransposed(rewriter, loc, made),
                   product.result);
}
