//===- GroupedKernel.cpp - Base of the grouped matmul kernels -------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "GroupedKernel.h"
#include "moe/Analysis/KernelModel.h"

#include "Limits.h"

#include "mlir/IR/TypeUtilities.h"

using namespace mlir;
using namespace mlir::moe;

namespace {
/// Every `stride`-th column of a view.
struct Columns {
  WeightView view;
  int64_t stride;
};
} // namespace

/// Traces weights to columns of a compact tensor, of all k or of some that
/// follow each other; none if they are no such slice.
static std::optional<Columns> columnsOf(GroupedMatmulOp op, Value weights) {
  auto slice = weights.getDefiningOp<tensor::ExtractSliceOp>();
  int64_t columnDim = op.getTransposed() ? 1 : 2, kDim = 3 - columnDim;
  if (!slice)
    return Columns{{weights, 0, 0, op.getN(), op.getK()}, 1};
  auto type = slice.getSourceType();
  if (!type.hasStaticShape() || type.getRank() != 3 ||
      slice.getType().getRank() != 3 ||
      llvm::any_of(slice.getStaticOffsets(), ShapedType::isDynamic) ||
      llvm::any_of(slice.getStaticStrides(), ShapedType::isDynamic))
    return std::nullopt;
  if (slice.getType().getDimSize(0) != type.getDimSize(0) ||
      slice.getStaticStrides()[kDim] != 1)
    return std::nullopt;
  return Columns{{slice.getSource(), slice.getStaticOffsets()[columnDim],
                  slice.getStaticOffsets()[kDim], type.getDimSize(columnDim),
                  type.getDimSize(kDim)},
                 slice.getStaticStrides()[columnDim]};
}

/// True if the columns alternate in one tensor, starting with one of `first`.
static bool alternate(const Columns &first, const Columns &second) {
  return first.stride == 2 && second.stride == 2 &&
         first.view.source == second.view.source &&
         first.view.firstK == second.view.firstK &&
         first.view.firstColumn + 1 == second.view.firstColumn;
}

FailureOr<WeightLayout> WeightLayout::of(GroupedMatmulOp op, std::string &why) {
  SmallVector<Columns, 2> parts;
  for (Value weights : op.getWeights()) {
    std::optional<Columns> columns = columnsOf(op, weights);
    if (!columns)
      return unsupported(why, "weights that are not whole columns of a tensor");
    parts.push_back(*columns);
  }
  if (parts.size() == 2)
    for (int64_t first = 0; first < 2; ++first)
      if (alternate(parts[first], parts[1 - first]))
        return WeightLayout{{parts[first].view}, /*interleaved=*/true, first};
  WeightLayout layout;
  for (const Columns &part : parts) {
    if (part.stride != 1)
      return unsupported(why, "weights that are neither contiguous columns nor "
                              "the interleaved columns of two GEMMs");
    layout.views.push_back(part.view);
  }
  return layout;
}

WeightLayout WeightLayout::ofVerified(GroupedMatmulOp op) {
  std::string why;
  FailureOr<WeightLayout> layout = of(op, why);
  assert(succeeded(layout) && "expected a verified operation");
  return *layout;
}

GroupedKernel::GroupedKernel(const GroupedKernelRequest &request,
                             DeviceLowering &lowering)
    : op(request.op), tile(request.tile), multicast(multicastOf(op, tile)),
      combine(request.combine), lowering(lowering),
      b(op.getLoc(), op.getContext()),
      element(getElementTypeOrSelf(op.getLhs())),
      storage(isa<Float8E4M3FNType>(element) ? b.getI8Type() : element),
      k(op.getK()), n(op.getN()), experts(op.getExpertCount()),
      matmuls(op.getNumAccumulators()),
      outTileColumns(tile.getColumns() / matmuls),
      layout(WeightLayout::ofVerified(op)),
      viewTileColumns(tile.getColumns() / viewCount()),
      viewColumns(n * matmuls / viewCount()),
      weightColumns(layout.views.front().columns),
      weightK(layout.views.front().k) {
  declareArguments(request);
}

void GroupedKernel::declareArguments(const GroupedKernelRequest &request) {
  GroupedKernelOperands &operands = request.operands;
  lhsInput = arguments.input(op.getLhs(), lhs);
  arguments.input(op.getGather(), gather);
  arguments.input(op.getOffsets(), offsets);
  weights.resize(viewCount());
  for (auto [view, pointer] : llvm::zip_equal(layout.views, weights))
    weightInputs.push_back(arguments.input(view.source, pointer));
  arguments.input(op.getLhsScales(), lhsScales);
  weightScales.resize(op.getWeightScales().size());
  for (auto [scales, pointer] :
       llvm::zip_equal(op.getWeightScales(), weightScales))
    arguments.input(scales, pointer);
  extras.resize(op.getExtras().size());
  for (auto [tensor, pointer] :
       llvm::zip_equal(DeviceEpilogue::inputs(op), extras))
    arguments.input(tensor, pointer);
  GatherSumEmitter::Arrays &arrays = combineArguments.arrays;
  if (combine) {
    GatherSumOp sum = combine->combine;
    arguments.input(sum.getPositions(), arrays.positions);
    arguments.input(sum.getWeights(), arrays.weights);
    if (combine->supportsAny())
      arguments.input(combine->tokens, combineArguments.tokenOfRow);
  }
  outs.resize(operands.outs.size());
  for (auto [tensor, pointer] : llvm::zip_equal(operands.outs, outs))
    arguments.output(tensor, pointer);
  if (combine) {
    arguments.output(operands.combined, arrays.out);
    arguments.output(operands.counters, combineArguments.counters);
  }
  arguments.scalar(operands.rows, rows);
  arguments.scalar(operands.lhsRows, lhsRows);
  if (combine) {
    arguments.scalar(operands.fewTokens, combineArguments.few);
    arguments.scalar(operands.otherTokens, combineArguments.others);
  }
}

LLVM::LLVMFuncOp GroupedKernel::create(StringRef name,
                                       const KernelShape &shape) {
  auto kernel = arguments.createKernel(b, lowering.kernels, name, shape);
  GroupedMatmulWork work = GroupedMatmulWork::of(op, tile);
  if (combineArguments.others)
    work.combined = GatherSumOp(combine->combine).getTopK();
  kernel->setAttr(workAttrName, work.toAttr());
  combineArguments.arrays.rows = outs.front();
  combineArguments.arrays.numRows = rows;
  return kernel;
}

Value GroupedKernel::lhsRowIndex(Value row) {
  if (!gather)
    return row;
  row = b.loadAt(b.getI32Type(), gather, row);
  return b.max(b.min(row, b.sub(lhsRows, 1)), b.i32(0));
}

Value GroupedKernel::lhsRowPointer(Value row) {
  return b.at(lhs, storage, b.mul(b.toI64(lhsRowIndex(row)), k));
}

/// Returns the index along k of the block of scales that stage `step` is in. A
/// block spans a multiple of a stage, or all of k.
static Value scaleBlockOf(GPUBuilder &b, GroupedMatmulOp op, Value step) {
  if (op.getBlockK() >= op.getK())
    return b.i32(0);
  return b.div(step, op.getBlockK() / stageDepth(op));
}

Value GroupedKernel::loadRowScale(Value lhsRow, Value step) {
  int64_t blocks = llvm::divideCeil(k, op.getBlockK());
  Value start = b.mul(b.toI64(lhsRow), blocks);
  return b.loadAt(b.getF32Type(), lhsScales,
                  b.add(start, b.toI64(scaleBlockOf(b, op, step))));
}

SmallVector<Value>
GroupedKernel::loadWeightScales(const TileCoord &coord, int64_t count,
                                Value step,
                                llvm::function_ref<Value(int64_t)> first) {
  SmallVector<Value> scales;
  if (weightScales.empty())
    return scales;
  int64_t blocksK = llvm::divideCeil(k, op.getBlockK());
  int64_t blocksN = llvm::divideCeil(n, op.getBlockN());
  Value start = b.add(b.mul(b.toI64(coord.expert), blocksK * blocksN),
                      b.toI64(scaleBlockOf(b, op, step)));
  bool oneBlock = op.getBlockN() >= n || op.getBlockN() % outTileColumns == 0;
  for (Value source : weightScales)
    for (int64_t group = 0; group < count; ++group) {
      if (oneBlock && group > 0) {
        scales.push_back(scales.back());
        continue;
      }
      // Out-of-range columns are clamped to the last one; they are not stored.
      Value block = b.div(b.min(first(group), n - 1), op.getBlockN());
      scales.push_back(b.loadAt(b.getF32Type(), source,
                                b.add(start, b.mul(b.toI64(block), blocksK))));
    }
  return scales;
}

Value GroupedKernel::columnScale(ArrayRef<Value> scales, int64_t fragment,
                                 int64_t parity) {
  if (scales.empty())
    return Value();
  if (!layout.interleaved)
    return scales[fragment];
  // Eight columns of interleaved weights are four of each GEMM.
  int64_t product = parity ^ layout.firstProduct;
  return scales[product * scales.size() / 2 + fragment / 2];
}

Value GroupedKernel::accumulateScaled(Value accumulator, Value partial,
                                      Value rowScale, Value columnScale) {
  Value scale = rowScale ? rowScale : columnScale;
  if (!scale)
    return arith::AddFOp::create(b, accumulator, partial);
  if (rowScale && columnScale)
    scale = arith::MulFOp::create(b, rowScale, columnScale);
  return LLVM::FMAOp::create(b, partial, scale, accumulator);
}

Value GroupedKernel::hasColumn(Value column, int64_t offset) {
  return hasRaggedColumns() ? b.less(column, n - offset) : Value();
}

SmallVector<std::array<Value, 2>>
GroupedKernel::applyEpilogue(const TileCoord &coord, Value row, Value column,
                             int64_t offset, ArrayRef<Value> accumulators) {
  DeviceEpilogue epilogue(b, op, extras, DeviceEpilogue::mathOf(op));
  // A row whose operands can be read.
  if (!extras.empty())
    row = b.min(row, b.sub(coord.rows, 1));
  SmallVector<std::array<Value, 2>> elements(outs.size());
  for (int64_t i = 0; i < 2; ++i) {
    SmallVector<Value> built =
        epilogue.build(accumulators.slice(i * matmuls, matmuls),
                       {coord.expert, b.add(coord.firstRow, row), column,
                        offset + i, hasColumn(column, offset + i)});
    for (auto [pair, element] : llvm::zip_equal(elements, built))
      pair[i] = element;
  }
  return elements;
}

void GroupedKernel::storePair(const TileCoord &coord, Value row, Value column,
                              int64_t offset, ArrayRef<Value> accumulators) {
  SmallVector<std::array<Value, 2>> results =
      applyEpilogue(coord, row, column, offset, accumulators);
  Value index =
      b.add(b.mul(b.toI64(b.add(coord.firstRow, row)), n), b.toI64(column));
  for (auto [out, pair] : llvm::zip_equal(outs, results)) {
    Type type = pair[0].getType();
    Value start = b.at(out, type, index);
    auto storeAt = [&](int64_t i, Value value) {
      Value inside = b.less(row, coord.rows);
      if (Value has = hasColumn(column, offset + i))
        inside = b.both(inside, has);
      b.storeIf(inside, value, b.at(start, type, b.i64(offset + i)));
    };
    if (n % 2 == 0) {
      storeAt(
          0, vector::FromElementsOp::create(b, VectorType::get(2, type), pair));
      continue;
    }
    for (int64_t i = 0; i < 2; ++i)
      storeAt(i, pair[i]);
  }
}

void GroupedKernel::arriveForCombine(
    TileScheduler &tiles, const TileCoord &coord, Value warp, int64_t warps,
    const CombineEpilogueEmitter::Columns &columns) {
  if (combineArguments.few)
    CombineEpilogueEmitter(b, *combine, n, warps, combineArguments)
        .arrive(warp, coord.columnTile, tiles.rowTileCount(), columns);
}

void GroupedKernel::arriveRows(const TileCoord &coord, int64_t count,
                               int64_t writers,
                               llvm::function_ref<Value(Value)> rowAt) {
  if (combineArguments.others)
    CombineEpilogueEmitter(b, *combine, n, /*warps=*/1, combineArguments)
        .arriveRows({coord.firstRow, coord.rows, count, rowAt, writers},
                    coord.columnTile, outTileColumns);
}

void GroupedKernel::combineWithoutRows(TileScheduler &tiles, int64_t threads) {
  if (combine)
    CombineEpilogueEmitter(b, *combine, n, /*warps=*/1, combineArguments)
        .emitWithoutRows(tiles.rowTileCount(), threads);
}

SmallVector<Value>
GroupedKernel::interleavedPair(std::pair<Value, Value> firstColumn,
                               std::pair<Value, Value> secondColumn) {
  SmallVector<Value> pair;
  for (auto [first, second] : {firstColumn, secondColumn}) {
    pair.push_back(layout.firstProduct == 0 ? first : second);
    pair.push_back(layout.firstProduct == 0 ? second : first);
  }
  return pair;
}

Value GroupedKernel::laneColumn(Value lane) {
  Value within = b.bitAnd(lane, 3);
  if (!layout.interleaved)
    return b.shiftLeft(within, 1);
  return b.bitOr(b.bitAnd(within, 2), b.shiftLeft(b.bitAnd(within, 1), 2));
}

SmallVector<Value>
GroupedKernel::fragmentPair(int64_t fragments, int64_t fragment, int64_t half,
                            llvm::function_ref<Value(int64_t)> accumulator) {
  auto at = [&](int64_t fragment, int64_t parity) {
    return accumulator(fragment * 4 + half * 2 + parity);
  };
  if (layout.interleaved) {
    auto exchange = [&](int64_t parity) {
      return b.transposeLanes(at(2 * fragment, parity),
                              at(2 * fragment + 1, parity), 1);
    };
    auto [evenFirst, evenSecond] = exchange(0);
    auto [oddFirst, oddSecond] = exchange(1);
    return interleavedPair({evenFirst, oddFirst}, {evenSecond, oddSecond});
  }
  SmallVector<Value> pair;
  for (int64_t parity = 0; parity < 2; ++parity)
    for (int64_t p = 0; p < matmuls; ++p)
      pair.push_back(at(p * (fragments / matmuls) + fragment, parity));
  return pair;
}

void GroupedKernel::storeFragments(
    const TileCoord &coord, Value row, Value column, int64_t fragments,
    llvm::function_ref<Value(int64_t)> accumulator) {
  row = b.add(row, b.shiftRight(b.lane(), 2));
  column = b.add(column, laneColumn(b.lane()));
  for (int64_t half = 0; half < 2; ++half)
    for (int64_t j = 0; j < fragments / matmuls; ++j)
      storePair(coord, b.add(row, half * 8), column, j * 8,
                fragmentPair(fragments, j, half, accumulator));
}
